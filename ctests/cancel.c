/* pthread_cancel: every call that blocks is a cancellation point, on user sockets and on the kernel's; a thread that forbids it
 * goes on; what a cancelled thread held is free again. */
#include "ct.h"
#include <pthread.h>

static int sock, aux, cleaned;
static void clean(void *arg)
{
	(void)arg;
	cleaned++;
}

typedef long call(void);
static volatile long result;
static volatile int result_errno, entered;

static void *run(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	entered = 1;
	result = ((call *)arg)();
	result_errno = errno;
	pthread_cleanup_pop(0);
	return "came back";
}

/* Runs a call in a thread, cancels that after a while, and says what became of it. */
static void cancel(const char *what, call *c, int after_ms)
{
	pthread_t t;
	void *end;
	entered = cleaned = 0;
	result = -2;
	pthread_create(&t, NULL, run, (void *)c);
	while (!entered) sched_yield();
	if (after_ms) ct_nap(after_ms);
	long begun = ct_now_ms();
	SHOW(pthread_cancel(t));
	pthread_join(t, &end);
	SAY("%s: %s, cleaned %d, result %ld, %s", what, end == PTHREAD_CANCELED ? "cancelled" : (char *)end, cleaned, result,
		ct_now_ms() - begun < 1000 ? "at once" : "late");
}

static char b[16];
static struct iovec v = {b, 16};
static long c_recv(void) { return recv(sock, b, 16, 0); }
static long c_read(void) { return read(sock, b, 16); }
static long c_readv(void) { return readv(sock, &v, 1); }
static long c_recvfrom(void) { return recvfrom(sock, b, 16, 0, NULL, NULL); }
static long c_recvmsg(void)
{
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	return recvmsg(sock, &m, 0);
}
static long c_recvmmsg(void)
{
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
	return recvmmsg(sock, &m, 1, 0, NULL);
}
static long c_waitall(void) { return recv(sock, b, 16, MSG_WAITALL); }
static long c_poll(void)
{
	struct pollfd p = {sock, POLLIN, 0};
	return poll(&p, 1, -1);
}
static long c_ppoll(void)
{
	struct pollfd p = {sock, POLLIN, 0};
	return ppoll(&p, 1, NULL, NULL);
}
static long c_select(void)
{
	fd_set s;
	FD_ZERO(&s);
	FD_SET(sock, &s);
	return select(sock + 1, &s, NULL, NULL, NULL);
}
static long c_epoll(void)
{
	struct epoll_event e;
	return epoll_wait(aux, &e, 1, -1);
}
static long c_send(void)
{
	static char big[1 << 16];
	for (;;)
		if (send(sock, big, sizeof big, 0) < 0) return -1;
}
static long c_accept(void) { return accept(aux, NULL, NULL); }

CASE(receiving, BOTH | BOTH6)
{
	sock = fd;
	cancel("recv", c_recv, 50);
	cancel("read", c_read, 50);
	cancel("readv", c_readv, 50);
	cancel("recvfrom", c_recvfrom, 50);
	cancel("recvmsg", c_recvmsg, 50);
	cancel("recvmmsg", c_recvmmsg, 50);
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	cancel("recv with MSG_WAITALL", c_waitall, 50);
	PEER(send(fd, "after", 5, 0));
	SETTLE();
	long n = recv(fd, b, 16, 0);
	SHOW(n == 5 || n == 6);
}

CASE(before_it_blocks, BOTH)
{
	sock = fd;
	for (int i = 0; i < 200; i++) {
		pthread_t t;
		void *end;
		pthread_create(&t, NULL, run, (void *)c_recv);
		for (volatile int spin = 0; spin < i * 100; spin++) {}
		pthread_cancel(t);
		pthread_join(t, &end);
		if (end != PTHREAD_CANCELED) SAY("round %d came back", i);
	}
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 16, 0));
}

CASE(sending, BOTH)
{
	sock = fd;
	cancel("send", c_send, 300);
}

CASE(waiting, BOTH | BOTH6)
{
	sock = fd;
	aux = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	epoll_ctl(aux, EPOLL_CTL_ADD, fd, &e);
	cancel("poll", c_poll, 50);
	cancel("ppoll", c_ppoll, 50);
	cancel("select", c_select, 50);
	cancel("epoll_wait", c_epoll, 50);
	PEER(send(fd, "x", 1, 0));
	TIMED(c_epoll(), 0);
	SHOW(recv(fd, b, 16, 0));
}

CASE(accepting, ALONE)
{
	aux = ct_listen(ct_here(0));
	cancel("accept", c_accept, 50);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	PEER(send(fd, "x", 1, 0));
	sock = accept(aux, NULL, NULL);
	SHOW(recv(sock, b, 16, 0));
}

CASE(datagrams, DATAGRAM)
{
	sock = fd;
	cancel("recv", c_recv, 50);
	cancel("recvmsg", c_recvmsg, 50);
	cancel("poll", c_poll, 50);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 16, 0));
}

CASE(descriptors_of_the_kernel, BOTH)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) ct_die("socketpair");
	sock = pair[0];
	cancel("recv", c_recv, 50);
	cancel("read", c_read, 50);
	cancel("recvmsg", c_recvmsg, 50);
	cancel("poll", c_poll, 50);
	cancel("select", c_select, 50);
	cancel("send", c_send, 100);
	aux = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	epoll_ctl(aux, EPOLL_CTL_ADD, sock, &e);
	cancel("epoll_wait", c_epoll, 50);
	int p[2];
	if (pipe(p)) ct_die("pipe");
	sock = p[0];
	cancel("read of a pipe", c_read, 50);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 16, 0));
}

static long c_disabled(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	long n = recv(sock, b, 16, 0);
	return n;
}
static long c_disabled_poll(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return c_poll();
}
static long c_disabled_waitall(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return recv(sock, b, 4, MSG_WAITALL);
}
static long c_enabled_later(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	result = recv(sock, b, 16, 0);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	return recv(sock, b, 16, 0);
}

CASE(forbidden, BOTH)
{
	sock = fd;
	PEER_LATER(ct_nap(200); send(fd, "late", 4, 0));
	cancel("recv", c_disabled, 50);
	PEER_WAIT();
	PEER_LATER(ct_nap(200); send(fd, "late", 4, 0));
	cancel("poll", c_disabled_poll, 50);
	PEER_WAIT();
	SHOW(recv(fd, b, 16, 0));
	PEER_LATER(send(fd, "a", 1, 0); ct_nap(200); send(fd, "bcd", 3, 0));
	cancel("recv with MSG_WAITALL", c_disabled_waitall, 50);
	PEER_WAIT();
	PEER_LATER(ct_nap(200); send(fd, "late", 4, 0));
	cancel("recv, then allowed", c_enabled_later, 50);
	SHOW(result);
}

static long c_at_once(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	return recv(sock, b, 16, 0);
}
static long c_in_a_loop(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	while (entered) {}
	return 0;
}
static long c_busy(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	while (entered) recv(sock, b, 16, MSG_DONTWAIT);
	return 0;
}

CASE(at_any_moment, BOTH)
{
	sock = fd;
	cancel("recv", c_at_once, 50);
	cancel("a loop", c_in_a_loop, 50);
	for (int i = 0; i < 20; i++) cancel("recv in a loop", c_busy, i % 5);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 16, 0));
}

static void *exit_in_handler(void *arg)
{
	(void)arg;
	pthread_cleanup_push(clean, NULL);
	entered = 1;
	recv(sock, b, 16, 0);
	pthread_cleanup_pop(0);
	return "came back";
}
static void leave(int s)
{
	(void)s;
	pthread_exit("left");
}

CASE(a_handler_ends_its_thread, BOTH)
{
	sock = fd;
	signal(SIGUSR1, leave);
	for (int i = 0; i < 200; i++) {
		pthread_t t;
		void *end;
		entered = 0;
		pthread_create(&t, NULL, exit_in_handler, NULL);
		while (!entered) sched_yield();
		ct_nap(i % 4);
		pthread_kill(t, SIGUSR1);
		pthread_join(t, &end);
		if (i % 20 == 0) SAY("%s, cleaned %d", (char *)end, cleaned);
	}
	PEER_LATER(ct_nap(50); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, 16, 0), 50);
}

CASE(many_are_cancelled, BOTH)
{
	/* More than there are bells. */
	enum { N = 40 };
	pthread_t t[N];
	int cancelled = 0;
	sock = fd;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++) pthread_create(&t[i], NULL, run, (void *)(i % 2 ? c_recv : c_poll));
		ct_nap(50);
		for (int i = 0; i < N; i++) pthread_cancel(t[i]);
		for (int i = 0; i < N; i++) {
			void *end;
			pthread_join(t[i], &end);
			cancelled += end == PTHREAD_CANCELED;
		}
	}
	SHOW(cancelled);
	PEER_LATER(ct_nap(50); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, 16, 0), 50);
}
