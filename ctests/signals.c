/* Signals: which calls a handler ends and which go on, handlers that use sockets, SIGPIPE. */
#include "handler.h"

static volatile long handler_got;
static int other = -1;

static void receive_timeout(int fd, int ms)
{
	struct timeval t = {ms / 1000, ms % 1000 * 1000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

/* ---- EINTR and SA_RESTART ---- */

CASE(recv_ends, BOTH | BOTH6)
{
	char b[8];
	install(SIGALRM, count, 0);
	timer(100, 0);
	TIMED(recv(fd, b, sizeof b, 0), 100);
	SHOW(ran);
	timer(100, 0);
	TIMED(read(fd, b, sizeof b), 100);
	PEER(send(fd, "later", 5, 0));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, 0));
}

CASE(recv_restarts, BOTH | BOTH6)
{
	char b[8];
	install(SIGALRM, count, SA_RESTART);
	timer(50, 50000);
	PEER_LATER(ct_nap(220); send(fd, "later", 5, 0));
	TIMED(recv(fd, b, sizeof b, 0), 220);
	timer(0, 0);
	SAY("handlers ran: %s", ran >= 2 ? "yes" : "no");
}

CASE(which_handler_decides, BOTH)
{
	char b[8];
	install(SIGUSR1, count, SA_RESTART);
	install(SIGALRM, count, 0);
	timer(150, 0);
	if (!fork()) {
		ct_nap(50);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	TIMED(recv(fd, b, sizeof b, 0), 150);
	SHOW(ran);
	SHOW(last == SIGALRM);
	/* And the other way about. */
	install(SIGALRM, count, SA_RESTART);
	install(SIGUSR1, count, 0);
	timer(50, 0);
	if (!fork()) {
		ct_nap(150);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	TIMED(recv(fd, b, sizeof b, 0), 150);
	SHOW(last == SIGUSR1);
	while (wait(NULL) > 0) {}
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, sizeof b, 0));
}

CASE(a_timeout_never_restarts, BOTH)
{
	char b[8];
	install(SIGALRM, count, SA_RESTART);
	receive_timeout(fd, 1000);
	timer(100, 0);
	TIMED(recv(fd, b, sizeof b, 0), 100);
	receive_timeout(fd, 200);
	TIMED(recv(fd, b, sizeof b, 0), 200);
	receive_timeout(fd, 0);
	timer(50, 0);
	PEER_LATER(ct_nap(150); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 150);
}

CASE(an_ignored_signal_ends_nothing, BOTH)
{
	char b[8];
	signal(SIGALRM, SIG_IGN);
	timer(50, 50000);
	PEER_LATER(ct_nap(200); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 200);
	timer(0, 0);
	signal(SIGALRM, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	if (!fork()) _exit(0);
	PEER_LATER(ct_nap(100); send(fd, "y", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 100);
	wait(NULL);
}

CASE(every_form_of_receiving_ends, BOTH)
{
	char b[8];
	struct iovec v = {b, sizeof b};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	struct mmsghdr mm = {.msg_hdr = m};
	install(SIGALRM, count, 0);
	timer(50, 0);
	SHOW(readv(fd, &v, 1));
	timer(50, 0);
	SHOW(recvfrom(fd, b, 8, 0, NULL, NULL));
	timer(50, 0);
	SHOW(recvmsg(fd, &m, 0));
	timer(50, 0);
	SHOW(recvmmsg(fd, &mm, 1, 0, NULL));
	timer(50, 0);
	SHOW(recv(fd, b, 8, MSG_PEEK));
	SHOW(ran);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(waitall_gives_what_it_has, BOTH)
{
	char b[8];
	install(SIGALRM, count, 0);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	timer(100, 0);
	TIMED(recv(fd, b, sizeof b, MSG_WAITALL), 100);
	ct_show_bytes("got", b, 3);
	install(SIGALRM, count, SA_RESTART);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	timer(100, 0);
	TIMED(recv(fd, b, sizeof b, MSG_WAITALL), 100);
}

CASE(send_ends, BOTH)
{
	static char big[1 << 22];
	install(SIGALRM, count, 0);
	timer(300, 0);
	long n = send(fd, big, sizeof big, 0);
	SHOW(n > 0 && n < (long)sizeof big);
	for (int i = 0; i < 5; i++, ct_nap(20))
		while (send(fd, big, sizeof big, MSG_DONTWAIT) > 0) {}
	timer(100, 0);
	TIMED(send(fd, big, sizeof big, 0), 100);
	install(SIGALRM, count, SA_RESTART);
	timer(50, 50000);
	PEER_LATER(ct_nap(200); static char all[1 << 16]; while (recv(fd, all, sizeof all, 0) > 0) {});
	long m = 0, r;
	while (m < 100000 && (r = send(fd, big, 100000 - m, 0)) > 0) m += r;
	SHOW(m);
	timer(0, 0);
	shutdown(fd, SHUT_WR);
	PEER_WAIT();
}

CASE(accept_ends_and_restarts, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	install(SIGALRM, count, 0);
	timer(100, 0);
	TIMED(accept(l, NULL, NULL), 100);
	timer(100, 0);
	TIMED(accept4(l, NULL, NULL, SOCK_CLOEXEC), 100);
	install(SIGALRM, count, SA_RESTART);
	timer(50, 50000);
	PEER_LATER(ct_nap(200); ct_peer_fd = ct_connect(ct_here(0)));
	int s = -1;
	TIMED((s = accept(l, NULL, NULL)) < 0, 200);
	timer(0, 0);
	PEER(send(fd, "hi", 2, 0));
	char b[4];
	SHOW(recv(s, b, 4, 0));
}

CASE(waits_never_restart, BOTH | BOTH6)
{
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec ten = {10, 0};
	int ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
		fd_set set;
		install(SIGALRM, count, flags);
		timer(60, 0);
		TIMED(poll(&p, 1, 10000), 60);
		timer(60, 0);
		TIMED(ppoll(&p, 1, &ten, NULL), 60);
		FD_ZERO(&set);
		FD_SET(fd, &set);
		timer(60, 0);
		TIMED(select(fd + 1, &set, NULL, NULL, NULL), 60);
		timer(60, 0);
		TIMED(pselect(fd + 1, &set, NULL, NULL, &ten, NULL), 60);
		timer(60, 0);
		TIMED(epoll_wait(ep, &e, 1, 10000), 60);
		timer(60, 0);
		TIMED(epoll_pwait(ep, &e, 1, -1, NULL), 60);
	}
	SHOW(ran);
	PEER(send(fd, "x", 1, 0));
	TIMED(epoll_wait(ep, &e, 1, 1000), 0);
}

CASE(datagrams_end_and_restart, DATAGRAM)
{
	char b[8];
	install(SIGALRM, count, 0);
	timer(100, 0);
	TIMED(recv(fd, b, sizeof b, 0), 100);
	install(SIGALRM, count, SA_RESTART);
	timer(50, 50000);
	PEER_LATER(ct_nap(200); send(fd, "later", 5, 0));
	TIMED(recv(fd, b, sizeof b, 0), 200);
	receive_timeout(fd, 1000);
	timer(50, 0);
	TIMED(recv(fd, b, sizeof b, 0), 50);
	timer(0, 0);
}

CASE(no_signal_is_slept_over, BOTH)
{
	/* A storm of timers: each of them must end the call that is under way or about to sleep, at once. One that comes before
	 * the call begins is the program's own loss: then the timer's second time ends it. */
	char b[8];
	install(SIGALRM, count, 0);
	long other_results = 0, slow = 0;
	for (int i = 0; i < 600; i++) {
		struct itimerval t = {{0, 60000}, {0, 40 + i % 97 * 3}};
		setitimer(ITIMER_REAL, &t, NULL);
		long before = ct_now_ms();
		if (recv(fd, b, sizeof b, 0) != -1 || errno != EINTR) other_results++;
		if (ct_now_ms() - before > 30) slow++;
	}
	timer(0, 0);
	SHOW(other_results);
	SAY("slow: %s", slow < 15 ? "few" : "many");
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, 0));
}

CASE(stop_and_continue, BOTH)
{
	char b[8];
	pid_t me = getpid();
	if (!fork()) {
		ct_nap(50);
		kill(me, SIGSTOP);
		ct_nap(50);
		kill(me, SIGCONT);
		_exit(0);
	}
	PEER_LATER(ct_nap(200); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 200);
	wait(NULL);
}

/* ---- masks ---- */

CASE(ppoll_takes_a_pending_signal, BOTH)
{
	sigset_t all, none, one;
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec second = {1, 0}, zero = {0, 0};
	sigemptyset(&none);
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	install(SIGUSR1, count, SA_RESTART);
	sigprocmask(SIG_BLOCK, &one, &all);
	raise(SIGUSR1);
	TIMED(poll(&p, 1, 100), 100);
	SHOW(ran);
	TIMED(ppoll(&p, 1, &second, &none), 0);
	SHOW(ran);
	raise(SIGUSR1);
	SHOW(ppoll(&p, 1, &zero, &none));
	SHOW(ran);
	raise(SIGUSR1);
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	SHOW(ppoll(&p, 1, &second, &none));
	SHOW(ran);
	sigset_t now;
	sigprocmask(SIG_SETMASK, &all, &now);
	SHOW(sigismember(&now, SIGUSR1));
	SHOW(ran);
}

CASE(a_blocked_signal_waits, BOTH)
{
	sigset_t one;
	char b[8];
	sigemptyset(&one);
	sigaddset(&one, SIGALRM);
	install(SIGALRM, count, 0);
	sigprocmask(SIG_BLOCK, &one, NULL);
	timer(50, 0);
	PEER_LATER(ct_nap(150); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 150);
	SHOW(ran);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	SHOW(ran);
}

/* ---- handlers that use sockets ---- */

static void send_one(int s)
{
	(void)s;
	if (send(other, "h", 1, MSG_DONTWAIT) == 1) handler_got++;
}

CASE(a_handler_sends_on_the_socket_that_is_read, BOTH | BOTH6)
{
	static char b[1 << 16];
	other = fd;
	install(SIGALRM, send_one, SA_RESTART);
	PEER_LATER({
		static char big[1 << 16];
		for (int i = 0; i < 200; i++) {
			ct_send_all(fd, sizeof big);
			if (i % 20 == 0) ct_nap(2);
		}
		shutdown(fd, SHUT_WR);
		long n = 0, r;
		while ((r = recv(fd, big, sizeof big, 0)) > 0) n += r;
	});
	timer(1, 500);
	long n = 0, r;
	while ((r = recv(fd, b, sizeof b, 0)) > 0) n += r;
	timer(0, 0);
	SHOW(r);
	SHOW(n == 200L << 16);
	SAY("the handler sent: %s", handler_got > 0 ? "yes" : "no");
	shutdown(fd, SHUT_WR);
	PEER_WAIT();
}

static void echo_in_handler(int s)
{
	(void)s;
	char b[64];
	int e = errno;
	ssize_t n = recv(other, b, sizeof b, MSG_DONTWAIT);
	if (n > 0 && send(other, b, n, MSG_DONTWAIT) == n) handler_got += n;
	errno = e;
}

CASE(a_handler_echoes_while_the_thread_sends, BOTH)
{
	/* The handler and the thread work on the same connection, the thread in send() nearly always. */
	static char big[1 << 15];
	other = fd;
	install(SIGALRM, echo_in_handler, SA_RESTART);
	PEER_LATER({
		static char all[1 << 16];
		long n = 0, r;
		for (int i = 0; n < 8L << 20; i++) {
			if (i % 16 == 0 && send(fd, "ping", 4, 0) != 4) _exit(2);
			if ((r = recv(fd, all, sizeof all, 0)) <= 0) _exit(3);
			n += r;
		}
		while ((r = recv(fd, all, sizeof all, 0)) > 0) n += r;
	});
	timer(1, 1000);
	long n = 0, r;
	while (n < 9L << 20 && (r = send(fd, big, sizeof big, 0)) > 0) n += r;
	timer(0, 0);
	SHOW(n >= 9L << 20);
	SAY("the handler echoed: %s", handler_got > 0 ? "yes" : "no");
	shutdown(fd, SHUT_WR);
	PEER_WAIT();
}

static void block_in_handler(int s)
{
	(void)s;
	char b[8];
	handler_got = recv(other, b, sizeof b, 0);
	ran++;
}

CASE(a_handler_blocks_on_the_same_socket, BOTH)
{
	char b[8];
	other = fd;
	install(SIGALRM, block_in_handler, SA_RESTART);
	timer(50, 0);
	PEER_LATER(ct_nap(150); send(fd, "first", 5, 0); ct_nap(100); send(fd, "second", 6, 0));
	TIMED(recv(fd, b, sizeof b, 0), 250);
	SHOW(handler_got);
	SHOW(ran);
}

static void open_and_close(int s)
{
	(void)s;
	int n = dup(other);
	struct pollfd p = {n, POLLOUT, 0};
	if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT)) handler_got++;
	int ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLOUT};
	epoll_ctl(ep, EPOLL_CTL_ADD, n, &e);
	if (epoll_wait(ep, &e, 1, 0) == 1) ran++;
	close(ep);
	close(n);
}

CASE(a_handler_duplicates_polls_and_closes, BOTH)
{
	char b[8];
	other = fd;
	install(SIGALRM, open_and_close, SA_RESTART);
	timer(1, 1000);
	PEER_LATER(for (int i = 0; i < 100; i++) { send(fd, "x", 1, 0); ct_nap(2); });
	long n = 0;
	while (n < 100) {
		long r = recv(fd, b, sizeof b, 0);
		if (r <= 0) break;
		n += r;
	}
	timer(0, 0);
	SHOW(n);
	SAY("it worked in the handler: %s", handler_got > 10 && ran == handler_got ? "yes" : "no");
}

static int nested;
static void outer(int s)
{
	(void)s;
	nested = nested * 10 + 1;
	raise(SIGUSR2);
	send(other, "o", 1, 0);
	nested = nested * 10 + 3;
}
static void inner(int s)
{
	(void)s;
	nested = nested * 10 + 2;
	send(other, "i", 1, 0);
}

CASE(nested_handlers, BOTH)
{
	char b[8];
	other = fd;
	install(SIGALRM, outer, SA_RESTART);
	install(SIGUSR2, inner, SA_RESTART);
	timer(50, 0);
	PEER_LATER(char c[2]; recv(fd, c, 2, MSG_WAITALL); send(fd, c, 2, 0));
	SHOW(recv(fd, b, sizeof b, MSG_WAITALL | MSG_DONTWAIT));
	SHOW(recv(fd, b, 2, MSG_WAITALL));
	ct_show_bytes("order", b, 2);
	SHOW(nested);
}

/* ---- SIGPIPE ---- */

CASE(sigpipe, BOTH)
{
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd); ct_peer_fd = -1);
	SETTLE();
	install(SIGPIPE, count, 0);
	SHOW(send(fd, "x", 1, 0));
	SHOW(ran);
	SHOW(send(fd, "x", 1, 0));
	SHOW(ran);
	SHOW(last == SIGPIPE);
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(ran);
	SHOW(write(fd, "x", 1));
	SHOW(ran);
	pid_t child = fork();
	if (!child) {
		signal(SIGPIPE, SIG_DFL);
		send(fd, "x", 1, 0);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	SHOW(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}
