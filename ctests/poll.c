/* poll and ppoll. */
#include "watch.h"
#include <sys/resource.h>

static volatile sig_atomic_t caught;

static void on_signal(int signal) { caught += signal == SIGUSR1; }

static void catch_usr1(void)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &a, NULL);
	caught = 0;
}

static int show_polled(struct pollfd *p, int n, int timeout_ms)
{
	int ready = poll(p, n, timeout_ms);
	printf("poll: %d", ready);
	if (ready < 0) printf(" %s", strerrorname_np(errno));
	for (int i = 0; i < n; i++) {
		printf(" [%d:", i);
		print_bits((unsigned short)p[i].revents);
		printf("]");
	}
	SAY("%s", "");
	return ready;
}

CASE(states, BOTH | BOTH6)
{
	char b[4];
	ct_show_poll(fd, ~0, 0);
	PEER(send(fd, "a", 1, 0));
	ct_show_poll(fd, ~0, 1000);
	PEER(send(fd, "!", 1, MSG_OOB));
	SETTLE();
	ct_show_poll(fd, ~0, 1000);
	SHOW(recv(fd, b, 1, MSG_OOB));
	SHOW(drain(fd));
	ct_show_poll(fd, ~0, 0);
	ct_fill(fd);
	ct_show_poll(fd, ~0, 0);
	PEER(shutdown(fd, SHUT_WR));
	ct_show_poll(fd, ~0, 1000);
	ct_show_poll(fd, POLLIN, 1000);
	ct_show_poll(fd, POLLRDHUP, 1000);
	ct_show_poll(fd, POLLPRI, 0);
	SHOW(shutdown(fd, SHUT_RDWR));
	ct_show_poll(fd, 0, 0);
	ct_show_poll(fd, ~0, 0);
}

CASE(states_of_an_error, BOTH)
{
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd));
	SETTLE();
	ct_show_poll(fd, 0, 1000);
	ct_show_poll(fd, ~0, 0);
	ct_show_error(fd);
	ct_show_poll(fd, ~0, 0);
}

CASE(states_of_datagrams, DATAGRAM)
{
	ct_show_poll(fd, ~0, 0);
	PEER(send(fd, "a", 1, 0));
	ct_show_poll(fd, ~0, 1000);
	ct_show_poll(fd, POLLRDNORM, 1000);
	ct_show_poll(fd, POLLWRBAND, 1000);
	SHOW(drain(fd));
	ct_show_poll(fd, POLLIN, 10);
}

CASE(no_descriptors, BOTH)
{
	TIMED(poll(NULL, 0, 50), 50);
	TIMED(poll(NULL, 0, 0), 0);
	struct pollfd none[2] = {{-1, POLLIN, 77}, {-fd, POLLIN, 77}};
	TIMED(poll(none, 2, 50), 50);
	SAY("%d %d", none[0].revents, none[1].revents);
}

CASE(negative_and_bad_among_ours, BOTH)
{
	struct pollfd p[5] = {{-1, POLLIN, 99}, {fd, POLLIN, 99}, {1000, POLLIN, 99}, {-fd, POLLIN, 99}, {fd, POLLOUT, 99}};
	show_polled(p, 2, 10);
	show_polled(p, 5, 1000);
	show_polled(p, 3, 1000);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_polled(p, 5, 1000);
	SHOW(close(fd));
	show_polled(p, 5, 1000);
}

CASE(the_same_twice, BOTH)
{
	struct pollfd p[4] = {{fd, POLLIN, 0}, {fd, POLLIN | POLLOUT, 0}, {fd, POLLIN, 0}, {dup(fd), POLLIN, 0}};
	show_polled(p, 4, 1000);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_polled(p, 4, 1000);
}

CASE(with_the_kernels, BOTH)
{
	int pipes[2], ev = eventfd(0, 0);
	long one = 1;
	SHOW(pipe(pipes));
	struct pollfd p[4] = {{fd, POLLIN, 0}, {pipes[0], POLLIN, 0}, {ev, POLLIN, 0}, {pipes[1], POLLIN, 0}};
	show_polled(p, 4, 10);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(poll(p, 4, 2000), 50);
	PEER_WAIT();
	SHOW(write(ev, &one, 8));
	show_polled(p, 4, 1000);
	SHOW(drain(fd));
	show_polled(p, 4, 1000);
	SHOW(close(pipes[0]));
	show_polled(p, 4, 1000);
}

CASE(wakes_for_either, BOTH)
{
	int pipes[2];
	SHOW(pipe(pipes));
	struct pollfd p[2] = {{fd, POLLIN, 0}, {pipes[0], POLLIN, 0}};
	if (!fork()) {
		ct_nap(50);
		_exit(write(pipes[1], "x", 1) != 1);
	}
	TIMED(show_polled(p, 2, 2000), 50);
	wait(NULL);
}

CASE(many, BOTH)
{
	enum { MANY = 700 };
	static struct pollfd p[MANY];
	for (int i = 0; i < MANY; i++) p[i] = (struct pollfd){i % 3 ? -1 : fd, POLLIN, 0};
	SHOW(poll(p, MANY, 10));
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(poll(p, MANY, 2000), 50);
	PEER_WAIT();
}

CASE(more_than_may_be_open, BOTH)
{
	static struct pollfd p[80];
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &l);
	for (int i = 0; i < 80; i++) p[i] = (struct pollfd){i ? -1 : fd, POLLIN, 0};
	SHOW(poll(p, 65, 0));
	SHOW(poll(p, 64, 0));
	SHOW(poll(p, 80, 20));
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(poll(p, 64, 2000), 50);
	PEER_WAIT();
	SHOW(poll(p, 65, 0));
}

CASE(timeouts, BOTH)
{
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec t = {0, 60000000}, negative = {-1, 0}, large = {0, 1000000000};
	TIMED(poll(&p, 1, 0), 0);
	TIMED(poll(&p, 1, 60), 60);
	TIMED(ppoll(&p, 1, &t, NULL), 60);
	SAY("left alone: %ld", t.tv_nsec);
	SHOW(ppoll(&p, 1, &negative, NULL));
	SHOW(ppoll(&p, 1, &large, NULL));
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(poll(&p, 1, -5), 60);
	PEER_WAIT();
	SHOW(drain(fd));
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(ppoll(&p, 1, NULL, NULL), 60);
	PEER_WAIT();
}

CASE(masks, BOTH)
{
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec zero = {0, 0}, t = {0, 60000000};
	sigset_t blocked, open;
	sigemptyset(&open);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	catch_usr1();
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	raise(SIGUSR1);
	TIMED(ppoll(&p, 1, &t, NULL), 60);
	SAY("caught: %d", caught);
	SHOW(ppoll(&p, 1, &zero, &open));
	SAY("caught: %d", caught);
	raise(SIGUSR1);
	SHOW(ppoll(&p, 1, NULL, &open));
	SAY("caught: %d", caught);
	SHOW(ppoll(&p, 1, &zero, &open));
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	if (!fork()) {
		ct_nap(60);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	TIMED(poll(&p, 1, 1000), 60);
	SAY("caught: %d", caught);
	wait(NULL);
}

CASE(listeners_and_connections, ALONE)
{
	int l = ct_listen(ct_here(1));
	struct pollfd p[2] = {{l, POLLIN | POLLOUT, 0}, {-1, POLLIN, 0}};
	show_polled(p, 2, 0);
	PEER_LATER(ct_nap(50); ct_peer_fd = ct_connect(ct_here(1)));
	TIMED(show_polled(p, 2, 2000), 50);
	PEER_WAIT();
	p[1].fd = accept(l, 0, 0);
	show_polled(p, 2, 10);
	PEER_LATER(ct_nap(50); send(ct_peer_fd, "x", 1, 0));
	TIMED(show_polled(p, 2, 2000), 50);
	PEER_WAIT();
	SHOW(shutdown(l, SHUT_RDWR));
	show_polled(p, 2, 0);
}

static int unbound;

static void *send_from_it(void *unused)
{
	(void)unused;
	ct_nap(60);
	send_to(unbound, "hello", ct_there(1));
	return NULL;
}

CASE(a_socket_that_another_thread_begins_to_use, ALONE)
{
	static int there;
	pthread_t t;
	PEER(there = ct_socket(SOCK_DGRAM); bind_to(there, ct_there(1)));
	/* The first datagram finds the neighbour. */
	unbound = ct_socket(SOCK_DGRAM);
	send_to(unbound, "first", ct_there(1));
	PEER(char b[8]; if (read(there, b, 8)) {});
	close(unbound);
	unbound = ct_socket(SOCK_DGRAM);
	struct pollfd p = {unbound, POLLIN, 0};
	pthread_create(&t, NULL, send_from_it, NULL);
	PEER_LATER(char b[8]; struct sockaddr_storage a; socklen_t len = sizeof a;
		recvfrom(there, b, 8, 0, (struct sockaddr *)&a, &len); sendto(there, "you", 3, 0, (struct sockaddr *)&a, len));
	TIMED(poll(&p, 1, 2000), 60);
	pthread_join(t, NULL);
	PEER_WAIT();
	SHOW(drain(unbound));
}
