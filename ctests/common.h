/* What the parity programs share. A program is run twice, on the kernel and under sidestep, and must print the same.
 *
 * The process under test prints; its peer is a forked child, which moves to the network namespace CT_PEER_NETNS (if set)
 * and always speaks kernel TCP. CT_ADDR is the address of the process under test, CT_PEER_ADDR the peer's. Without
 * them everything runs over loopback, where sidestep leaves all to the kernel. */
#define _GNU_SOURCE
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Prints what a call returned: the value, or errno's name. */
#define SHOW(call)                                                                                       \
	do {                                                                                             \
		errno = 0;                                                                               \
		long ct_r = (long)(call);                                                                \
		if (ct_r < 0) printf("%s = -1 %s\n", #call, strerrorname_np(errno));                     \
		else printf("%s = %ld\n", #call, ct_r);                                                  \
		fflush(stdout);                                                                          \
	} while (0)

/* As SHOW for calls whose value differs from run to run (descriptors). */
#define SHOW_OK(call)                                                                                    \
	do {                                                                                             \
		errno = 0;                                                                               \
		long ct_r = (long)(call);                                                                \
		printf("%s: %s\n", #call, ct_r < 0 ? strerrorname_np(errno) : "ok");                     \
		fflush(stdout);                                                                          \
	} while (0)

static int ct_to_peer[2], ct_to_test[2];

static void ct_die(const char *what)
{
	printf("FATAL %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in ct_addr(const char *variable, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	const char *text = getenv(variable);
	inet_pton(AF_INET, text ? text : "127.0.0.1", &a.sin_addr);
	return a;
}

/* One step of peer or test is done: the other may go on. */
static void ct_tell(int in_peer)
{
	if (write(in_peer ? ct_to_test[1] : ct_to_peer[1], "x", 1) != 1) ct_die("tell");
}

static void ct_wait(int in_peer)
{
	char c;
	if (read(in_peer ? ct_to_peer[0] : ct_to_test[0], &c, 1) != 1) exit(1);
}

static void ct_nap(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&t, NULL);
}

/* A listener of the process under test on CT_ADDR. */
static int ct_listen(int port)
{
	struct sockaddr_in a = ct_addr("CT_ADDR", port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16)) ct_die("listen");
	/* The first look joins the port's group: connections before it would go to the kernel. */
	struct pollfd p = {fd, POLLIN, 0};
	poll(&p, 1, 0);
	return fd;
}

/* The peer: a child in the other namespace. `run` gets its socket, connected to the process under test. */
static pid_t ct_peer(int port, void (*run)(int fd))
{
	if (pipe(ct_to_peer) || pipe(ct_to_test)) ct_die("pipe");
	pid_t pid = fork();
	if (pid) {
		close(ct_to_peer[0]);
		close(ct_to_test[1]);
		return pid;
	}
	close(ct_to_peer[1]);
	close(ct_to_test[0]);
	const char *ns = getenv("CT_PEER_NETNS");
	if (ns && setns(open(ns, O_RDONLY | O_CLOEXEC), CLONE_NEWNET)) ct_die("setns");
	struct sockaddr_in a = ct_addr("CT_ADDR", port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof a)) ct_die("peer's connect");
	run(fd);
	_exit(0);
}

static void ct_done(pid_t peer)
{
	int status = 0;
	waitpid(peer, &status, 0);
	printf("peer: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "ok" : "failed");
}
