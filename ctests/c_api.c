/* include/sidestep.h, every call of it. Without the library none of them is there; with it, each says what it has to. So what
 * is printed is whether that holds, and the same in both runs. */
#include "ct.h"
#include <sys/mman.h>
#include <pthread.h>
#define SIDESTEP_WEAK
#include "../include/sidestep.h"

static int is_loaded(void)
{
	return sidestep_api_version != NULL;
}

/* Prints whether `what` holds; without the library it need not. */
#define EXPECT(what) SAY("%s: %s", #what, !is_loaded() || (what) ? "as expected" : "WRONG")

/* The reason must be this one, and have words. */
static int reason_is(int fd, int wanted)
{
	int reason = sidestep_fd_reason(fd);
	if (reason != wanted) SAY("the reason is %d, %s", reason, sidestep_reason_text(reason));
	return reason == wanted && *sidestep_reason_text(reason);
}

CASE(all_or_nothing, BOTH)
{
	void *calls[] = {(void *)sidestep_api_version, (void *)sidestep_version, (void *)sidestep_fd_path, (void *)sidestep_fd_reason,
			 (void *)sidestep_reason_text, (void *)sidestep_fd_stats, (void *)sidestep_set_spin_us, (void *)sidestep_spin_us};
	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) SHOW((calls[i] != NULL) == is_loaded());
	EXPECT(sidestep_api_version() >= SIDESTEP_API_VERSION);
	EXPECT(strspn(sidestep_version(), "0123456789.") >= 5);
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(a_connection, BOTH | BOTH6)
{
	EXPECT(sidestep_fd_path(fd) == SIDESTEP_PATH_USER);
	EXPECT(reason_is(fd, SIDESTEP_REASON_USER));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	int d = dup(fd);
	EXPECT(sidestep_fd_path(d) == SIDESTEP_PATH_USER);
	close(fd);
	EXPECT(sidestep_fd_path(fd) == -1 && errno == EBADF);
	EXPECT(sidestep_fd_reason(fd) == -1 && errno == EBADF);
}

CASE(statistics, BOTH)
{
	struct sidestep_stats s = {.size = sizeof s};
	char b[8];
	SHOW(write(fd, "hello", 5));
	PEER(char b[8]; SHOW(recv(fd, b, 5, MSG_WAITALL)); SHOW(send(fd, "abc", 3, 0)));
	SETTLE();
	SHOW(recv(fd, b, 1, 0));
	EXPECT(sidestep_fd_stats(fd, &s) == 0);
	EXPECT(s.size == sizeof s);
	EXPECT(s.sent_bytes == 5 && s.acked_bytes == 5 && s.received_bytes == 3);
	EXPECT(s.resent_bytes == 0 && s.resent_segments == 0 && s.reordered_segments == 0);
	EXPECT(s.sent_segments >= 2 && s.received_segments >= 2);
	EXPECT(s.mss_bytes >= 536 && s.mss_bytes <= 9000 && s.cwnd_bytes >= s.mss_bytes);
	EXPECT(s.rtt_us > 0 && s.rtt_us < 1000000 && s.rtt_min_us <= s.rtt_us && s.rto_us >= s.rtt_us);
	EXPECT(s.peer_window_bytes > 0 && s.own_window_bytes > 0);
	EXPECT(s.unread_bytes == 2 && s.unsent_bytes == 0 && s.unacked_bytes == 0);
	/* A record of an older program, and of a later one. */
	union { struct sidestep_stats s; char bytes[sizeof(struct sidestep_stats) + 64]; } other;
	memset(&other, 0x55, sizeof other);
	other.s.size = 16;
	EXPECT(sidestep_fd_stats(fd, &other.s) == 0 && other.s.size == 16 && other.s.sent_bytes == 5);
	EXPECT(other.bytes[16] == 0x55);
	other.s.size = sizeof other;
	EXPECT(sidestep_fd_stats(fd, &other.s) == 0 && other.s.size == sizeof s);
	other.s.size = 7;
	EXPECT(sidestep_fd_stats(fd, &other.s) == -1 && errno == EINVAL);
	EXPECT(sidestep_fd_stats(fd, NULL) == -1 && errno == EFAULT);
	EXPECT(sidestep_fd_stats(fd, (struct sidestep_stats *)16) == -1 && errno == EFAULT);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*(uint32_t *)page = sizeof s;
	mprotect(page, 4096, PROT_READ);
	EXPECT(sidestep_fd_stats(fd, (struct sidestep_stats *)page) == -1 && errno == EFAULT);
	EXPECT(sidestep_fd_stats(-1, &s) == -1 && errno == EBADF);
	EXPECT((s.size = sizeof s, sidestep_fd_stats(0, &s)) == -1 && errno == EOPNOTSUPP);
}

CASE(a_listener_and_what_it_accepts, SERVER)
{
	int l = ct_socket(SOCK_STREAM), one = 1;
	struct ct_address at = ct_here(1);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	EXPECT(sidestep_fd_path(l) == SIDESTEP_PATH_KERNEL && reason_is(l, SIDESTEP_REASON_UNDECIDED));
	SHOW(bind(l, AT(at)));
	SHOW(listen(l, 5));
	EXPECT(reason_is(l, SIDESTEP_REASON_UNDECIDED));
	ct_show_poll(l, POLLIN, 0);
	EXPECT(sidestep_fd_path(l) == SIDESTEP_PATH_BOTH && reason_is(l, SIDESTEP_REASON_USER));
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	int s = accept(l, NULL, NULL);
	EXPECT(sidestep_fd_path(s) == SIDESTEP_PATH_USER);
	SHOW(write(s, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(datagrams, DATAGRAM)
{
	PEER(SHOW(send(fd, "x", 1, 0)));
	char b;
	SHOW(recv(fd, &b, 1, 0));
	EXPECT(sidestep_fd_path(fd) == SIDESTEP_PATH_BOTH && reason_is(fd, SIDESTEP_REASON_USER));
}

CASE(why_not, BOTH | MIXED)
{
	int p[2], u[2], l, c;
	struct ct_address loop = {.v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}, .len = sizeof loop.v4};
	socklen_t len = sizeof loop.v4;
	pipe(p);
	EXPECT(sidestep_fd_path(p[0]) == SIDESTEP_PATH_KERNEL && reason_is(p[0], SIDESTEP_REASON_NOT_SOCKET));
	socketpair(AF_UNIX, SOCK_STREAM, 0, u);
	EXPECT(reason_is(u[0], SIDESTEP_REASON_NOT_SERVED));
	l = socket(AF_INET, SOCK_STREAM, 0);
	SHOW(bind(l, AT(loop)));
	SHOW(listen(l, 5));
	getsockname(l, &loop.a, &len);
	EXPECT(reason_is(l, SIDESTEP_REASON_LOOPBACK));
	c = socket(AF_INET, SOCK_STREAM, 0);
	SHOW(connect(c, AT(loop)));
	EXPECT(sidestep_fd_path(c) == SIDESTEP_PATH_KERNEL && reason_is(c, SIDESTEP_REASON_LOOPBACK));
	close(c);
	int f = open("/dev/null", O_RDONLY);
	SHOW(f == c);
	EXPECT(reason_is(f, SIDESTEP_REASON_NOT_SOCKET));
	c = ct_socket(SOCK_STREAM);
	int d = dup(c);
	EXPECT(reason_is(c, SIDESTEP_REASON_DUPLICATED) && reason_is(d, SIDESTEP_REASON_DUPLICATED));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(bound_before_it_connects, ALONE | KERNEL_ONLY)
{
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address from = ct_here(2), to = ct_there(1);
	int s = ct_socket(SOCK_STREAM), one = 1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	SHOW(bind(s, AT(from)));
	SHOW(connect(s, AT(to)));
	EXPECT(reason_is(s, SIDESTEP_REASON_BOUND_FIRST));
}

CASE(reasons_have_words, BOTH)
{
	int said = 0;
	for (int i = -1; i < 1000 && is_loaded(); i++) said += sidestep_reason_text(i) && *sidestep_reason_text(i);
	EXPECT(said == 1001);
	EXPECT(!strcmp(sidestep_reason_text(SIDESTEP_REASON_LOOPBACK), "loopback"));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

static void *other_thread(void *value)
{
	*(uint32_t *)value = is_loaded() ? sidestep_spin_us(SIDESTEP_THREAD) : 0;
	return NULL;
}

CASE(spinning, BOTH)
{
	uint32_t first = is_loaded() ? sidestep_spin_us(SIDESTEP_PROCESS) : 0, other = 0;
	pthread_t t;
	EXPECT(sidestep_spin_us(SIDESTEP_THREAD) == first);
	EXPECT(sidestep_set_spin_us(SIDESTEP_PROCESS, 20) == 0);
	EXPECT(sidestep_set_spin_us(SIDESTEP_THREAD, 0) == 0);
	EXPECT(sidestep_spin_us(SIDESTEP_THREAD) == 0 && sidestep_spin_us(SIDESTEP_PROCESS) == 20);
	pthread_create(&t, NULL, other_thread, &other);
	pthread_join(t, NULL);
	EXPECT(other == 20);
	PEER_LATER(ct_nap(50); send(fd, "x", 1, 0));
	char b;
	SHOW(read(fd, &b, 1));
	PEER_WAIT();
	EXPECT(sidestep_set_spin_us(SIDESTEP_THREAD, 5000) == 0 && sidestep_spin_us(SIDESTEP_THREAD) == 5000);
	PEER_LATER(ct_nap(2); send(fd, "x", 1, 0));
	SHOW(read(fd, &b, 1));
	PEER_WAIT();
	EXPECT(sidestep_set_spin_us(SIDESTEP_THREAD, SIDESTEP_SPIN_DEFAULT) == 0 && sidestep_spin_us(SIDESTEP_THREAD) == 20);
	EXPECT(sidestep_set_spin_us(SIDESTEP_PROCESS, SIDESTEP_SPIN_DEFAULT) == 0 && sidestep_spin_us(SIDESTEP_PROCESS) == first);
	EXPECT(sidestep_set_spin_us(SIDESTEP_THREAD, 1000001) == -1 && errno == EINVAL);
	EXPECT(sidestep_set_spin_us(7, 1) == -1 && errno == EINVAL);
	EXPECT(sidestep_spin_us(7) == SIDESTEP_SPIN_DEFAULT && errno == EINVAL);
}
