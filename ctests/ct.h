/* What the parity cases share; ctests/README.md says how to write one.
 *
 * A case runs twice, on the kernel and under sidestep, and must print the same. Its peer is another process, in the
 * other network namespace and always on the kernel. */
#ifndef CT_H
#define CT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- a case, and the sides it runs on ---- */

enum {
	SERVER = 1 << 0,     /* fd was accepted, from the peer */
	CLIENT = 1 << 1,     /* fd connected, to the peer */
	BOTH = SERVER | CLIENT,
	SERVER6 = 1 << 2,
	CLIENT6 = 1 << 3,
	BOTH6 = SERVER6 | CLIENT6,
	BOUND = 1 << 4,      /* fd is a datagram socket bound to ct_here(0); the peer's is connected to it */
	CONNECTED = 1 << 5,  /* fd is a datagram socket connected to the peer's, ct_there(0) */
	DATAGRAM = BOUND | CONNECTED,
	BOUND6 = 1 << 6,
	CONNECTED6 = 1 << 7,
	DATAGRAM6 = BOUND6 | CONNECTED6,
	ALONE = 1 << 8,      /* fd is -1, the peer has no socket: the case makes its own, and its traffic is the user stack's */
	ALONE6 = 1 << 9,
	/* And, beside the sides: */
	MIXED = 1 << 16,       /* some of its traffic is the kernel's by design (which docs/sockets.md says) */
	KERNEL_ONLY = 1 << 17, /* no traffic at all, or the kernel's alone: loopback, unix sockets, errors before any */
};

struct ct_case {
	const char *name;
	unsigned sides;
	void (*run)(int fd);
	struct ct_case *next;
};

void ct_register(struct ct_case *c);

/* Defines a case: `CASE(name, BOTH) { SHOW(write(fd, "x", 1)); }`. Its name on the command line is FILE.name. */
#define CASE(its_name, its_sides)                                                                              \
	static void ct_run_##its_name(int fd);                                                                 \
	__attribute__((constructor)) static void ct_register_##its_name(void)                                  \
	{                                                                                                      \
		static struct ct_case c = {#its_name, its_sides, ct_run_##its_name, NULL};                     \
		ct_register(&c);                                                                               \
	}                                                                                                      \
	static void ct_run_##its_name(__attribute__((unused)) int fd)

extern int ct_family;     /* AF_INET or AF_INET6: of this run */
extern int ct_is_server;  /* SERVER, SERVER6, BOUND or BOUND6 */

/* ---- what a case prints: only what is determined ---- */

/* What a call returned: the value, or errno's name. */
#define SHOW(call)                                                                                             \
	do {                                                                                                   \
		errno = 0;                                                                                     \
		long ct_r = (long)(call);                                                                      \
		if (ct_r < 0) printf("%s = %ld %s\n", #call, ct_r, strerrorname_np(errno));                    \
		else printf("%s = %ld\n", #call, ct_r);                                                        \
		fflush(stdout);                                                                                \
	} while (0)

/* As SHOW for calls whose value differs from run to run (descriptors). */
#define SHOW_OK(call)                                                                                          \
	do {                                                                                                   \
		errno = 0;                                                                                     \
		long ct_r = (long)(call);                                                                      \
		printf("%s: %s\n", #call, ct_r < 0 ? strerrorname_np(errno) : "ok");                           \
		fflush(stdout);                                                                                \
	} while (0)

/* As SHOW; and says whether the call took about so long. */
#define TIMED(call, ms)                                                                                        \
	do {                                                                                                   \
		long ct_t = ct_now_ms();                                                                       \
		SHOW(call);                                                                                    \
		ct_show_time(ct_now_ms() - ct_t, ms);                                                          \
	} while (0)

/* A line of its own. */
#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

long ct_now_ms(void);
void ct_show_time(long took_ms, long wanted_ms);
void ct_show_bytes(const char *what, const void *bytes, long len); /* text, or \xNN */
void ct_show_poll(int fd, short events, int timeout_ms);           /* revents by name */
void ct_show_name(const char *what, const void *address, socklen_t len); /* here, there, any or loopback; the port of this run */
void ct_show_error(int fd);                                        /* SO_ERROR by name */
void ct_die(const char *what);                                     /* the case itself cannot go on */

/* ---- addresses ---- */

struct ct_address {
	union {
		struct sockaddr a;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_storage all;
	};
	socklen_t len;
};
/* The process under test and the peer, in the family of this run; `port` 0 to 7 is one of the run's own ports. */
struct ct_address ct_here(int port);
struct ct_address ct_there(int port);
/* An address that the peer's host routes, and answers for: 1 unreachable, 2 prohibited, 3 not at all. */
struct ct_address ct_beyond(int how);
/* Arguments of bind and connect: `SHOW(connect(s, AT(a)))`. */
#define AT(address) &(address).a, (address).len
int ct_port(int n);
/* A listener on an address, with SO_REUSEADDR; under test it is looked at once, so that the user stack listens. */
int ct_listen(struct ct_address at);
int ct_socket(int type); /* of this run's family */
int ct_connect(struct ct_address to); /* a socket that is connected */

/* ---- the peer ---- */

/* Runs statements in the peer, to their end. There `fd` is the peer's socket (assign to ct_peer_fd to change it). They must
 * not use the case's variables (PEER_WITH passes a number, `arg`); file-scope ones are each process's own. */
#define PEER(...) PEER_WITH(0, __VA_ARGS__)
#define PEER_WITH(number, ...) CT_PEER(number, 0, __VA_ARGS__)
/* As PEER, without waiting for their end; the next PEER or PEER_WAIT does. */
#define PEER_LATER(...) CT_PEER(0, 1, __VA_ARGS__)
#define PEER_WAIT() ct_peer_wait()
/* A function that uses nothing of the one around it is one like any other: its place in the program is its name. */
#define CT_PEER(number, later, ...)                                                                            \
	do {                                                                                                   \
		void ct_step(__attribute__((unused)) int fd, __attribute__((unused)) long arg) { __VA_ARGS__; } \
		ct_peer_run(ct_step, number, later);                                                           \
	} while (0)

void ct_peer_run(void (*step)(int fd, long arg), long arg, int later);
void ct_peer_wait(void);
extern int ct_peer_fd;
/* For a peer that runs beside the case (PEER_LATER): a token from either to the other. */
void ct_tell(void);
void ct_wait(void);

void ct_send_all(int fd, long n); /* n bytes of the pattern that ct_recv_all checks */
long ct_recv_all(int fd, long n); /* n bytes, or fewer at the end; how many were right */
/* Writes until nothing goes any more, the peer's window included, and returns how much went. In the peer, ct_drain reads that
 * much, or to the end; ct_keep_small makes its window a small one, so that this is quick. */
long ct_fill(int fd);
void ct_drain(int fd, long n);
void ct_keep_small(int fd);
/* In the peer: whatever arrives for this socket is dropped, as if the peer's host were gone. */
void ct_go_deaf(int fd);
void ct_nap(int ms);
/* What is under way has arrived. */
void ct_settle(void);
#define SETTLE() ct_settle()

#endif
