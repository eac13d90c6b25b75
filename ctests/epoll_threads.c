/* Many threads at one set and at many: nothing is lost, nothing is reported twice. */
#include "watch.h"
#include <stdatomic.h>

#define SOCKETS 16
#define THREADS 12
#define SLEEPERS 48

static int set, sock[SOCKETS];
static atomic_long reported[SOCKETS], taken[SOCKETS], twice, ended;
static atomic_int busy[SOCKETS], go_on;
static long goal;
static int one_by_one; /* each octet is answered for */

/* The server's ends of SOCKETS connections, in sock[]. */
static void open_sockets(int l)
{
	PEER(for (int i = 0, one = 1; i < SOCKETS; i++) {
		sock[i] = ct_connect(ct_here(1));
		setsockopt(sock[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	});
	for (int i = 0; i < SOCKETS; i++) {
		sock[i] = accept4(l, 0, 0, SOCK_NONBLOCK);
		reported[i] = taken[i] = busy[i] = 0;
	}
	twice = ended = 0;
	go_on = 1;
}

static long all(atomic_long *of)
{
	long sum = 0;
	for (int i = 0; i < SOCKETS; i++) sum += of[i];
	return sum;
}

/* One-shot: between report and MOD a socket is this thread's alone. */
static void *one_shot_worker(void *unused)
{
	(void)unused;
	while (go_on) {
		struct epoll_event e[4];
		int n = epoll_wait(set, e, 4, 1000);
		for (int i = 0; i < n; i++) {
			int k = (int)e[i].data.u64;
			if (atomic_fetch_add(&busy[k], 1)) twice++;
			char b[64];
			long got = recv(sock[k], b, sizeof b, 0);
			if (got > 0) taken[k] += got;
			reported[k]++;
			atomic_fetch_sub(&busy[k], 1);
			mod(set, sock[k], EPOLLIN | EPOLLONESHOT, k);
			if (one_by_one) ct_tell();
		}
		if (all(taken) >= goal) go_on = 0;
	}
	return NULL;
}

/* Edge: whoever is told reads it all. A second report of what one has read is a double one. */
static void *edge_worker(void *unused)
{
	(void)unused;
	while (go_on) {
		struct epoll_event e[4];
		int n = epoll_wait(set, e, 4, 1000);
		for (int i = 0; i < n; i++) {
			int k = (int)e[i].data.u64;
			reported[k]++;
			char b[64];
			long got;
			while ((got = recv(sock[k], b, sizeof b, 0)) > 0) {
				taken[k] += got;
				if (one_by_one) {
					ct_tell();
					break; /* the next octet may be here already: it has an edge of its own */
				}
			}
		}
		if (all(taken) >= goal) go_on = 0;
	}
	return NULL;
}

static long rounds(void)
{
	const char *text = getenv("CT_ROUNDS");
	return text && *text ? atol(text) : 500;
}

static pthread_t workers[THREADS];

/* All sockets in a set that `worker`, many times over, waits at until `octets` were taken. */
static void begin(void *(*worker)(void *), unsigned events, long octets)
{
	open_sockets(ct_listen(ct_here(1)));
	set = epoll_create1(0);
	goal = octets;
	for (int i = 0; i < SOCKETS; i++) add(set, sock[i], events, i);
	for (int i = 0; i < THREADS; i++) pthread_create(&workers[i], NULL, worker, NULL);
}

static void end(void)
{
	for (int i = 0; i < THREADS; i++) pthread_join(workers[i], NULL);
	PEER_WAIT();
}

/* Octets to all sockets, as fast as they go. */
static void flood(void *(*worker)(void *), unsigned events)
{
	begin(worker, events, rounds() * SOCKETS);
	PEER_LATER(long n = rounds(); for (long r = 0; r < n; r++) for (int i = 0; i < SOCKETS; i++) send(sock[i], "x", 1, 0));
	end();
}

CASE(one_shot, ALONE)
{
	flood(one_shot_worker, EPOLLIN | EPOLLONESHOT);
	SAY("octets: %s, at the same time: %ld", all(taken) == goal ? "all" : "LOST", twice);
}

CASE(edge, ALONE)
{
	flood(edge_worker, EPOLLIN | EPOLLET);
	SAY("octets: %s", all(taken) == goal ? "all" : "LOST");
}

/* Each octet only after the last was reported: so there are as many reports as octets, no more and no fewer. */
static void report_each(void *(*worker)(void *), unsigned events)
{
	one_by_one = 1;
	begin(worker, events, 4 * rounds());
	PEER_LATER(long n = 4 * rounds(); for (long r = 0; r < n; r++) { send(sock[r % SOCKETS], "x", 1, 0); ct_wait(); });
	end();
	SAY("octets: %s, reports: %s", all(taken) == goal ? "all" : "LOST", all(reported) == goal ? "as many" : "OTHER");
	if (all(reported) != goal) SAY("%ld reports of %ld", all(reported), goal);
}

CASE(one_edge_one_report, ALONE) { report_each(edge_worker, EPOLLIN | EPOLLET); }
CASE(one_shot_one_report, ALONE) { report_each(one_shot_worker, EPOLLIN | EPOLLONESHOT); }
CASE(one_edge_shot_one_report, ALONE) { report_each(one_shot_worker, EPOLLIN | EPOLLONESHOT | EPOLLET); }

static void *sleeper(void *ep)
{
	struct epoll_event e;
	long begun = ct_now_ms();
	if (epoll_wait((int)(long)ep, &e, 1, 5000) == 1 && ct_now_ms() - begun < 4000) ended++;
	return NULL;
}

CASE(many_sleep_at_one_set, ALONE)
{
	open_sockets(ct_listen(ct_here(1)));
	set = epoll_create1(0);
	for (int i = 0; i < SOCKETS; i++) add(set, sock[i], EPOLLIN, i);
	pthread_t t[SLEEPERS];
	for (int i = 0; i < SLEEPERS; i++) pthread_create(&t[i], NULL, sleeper, (void *)(long)set);
	ct_nap(100);
	PEER(send(sock[3], "x", 1, 0));
	for (int i = 0; i < SLEEPERS; i++) pthread_join(t[i], NULL);
	SAY("woken: %ld of %d", ended, SLEEPERS);
}

static void *reader(void *fd)
{
	char b[4];
	if (recv((int)(long)fd, b, 1, 0) == 1) ended++;
	return NULL;
}

CASE(many_sleep_each_on_its_own, ALONE)
{
	int l = ct_listen(ct_here(1)), fds[SLEEPERS];
	pthread_t t[SLEEPERS];
	ended = 0;
	PEER_LATER(int fds[SLEEPERS]; for (int i = 0; i < SLEEPERS; i++) fds[i] = ct_connect(ct_here(1));
		ct_wait(); for (int i = 0; i < SLEEPERS; i++) { send(fds[i], "x", 1, 0); ct_nap(1); } ct_wait());
	for (int i = 0; i < SLEEPERS; i++) {
		fds[i] = accept(l, 0, 0);
		void *(*how)(void *) = i % 2 ? sleeper : reader;
		pthread_create(&t[i], NULL, how, (void *)(long)(i % 2 ? watch(fds[i], EPOLLIN | EPOLLET, 1) : fds[i]));
	}
	ct_nap(100);
	ct_tell();
	for (int i = 0; i < SLEEPERS; i++) pthread_join(t[i], NULL);
	ct_tell();
	PEER_WAIT();
	SAY("woken: %ld of %d", ended, SLEEPERS);
}

/* Exclusive members of many sets: each connection finds somebody. */
static int listener;

static void *acceptor(void *unused)
{
	(void)unused;
	int ep = watch(listener, EPOLLIN | EPOLLEXCLUSIVE, 1);
	struct epoll_event e;
	while (go_on) {
		if (epoll_wait(ep, &e, 1, 500) == 1) {
			int s = accept4(listener, 0, 0, SOCK_NONBLOCK);
			if (s >= 0) { ended++; close(s); }
		}
	}
	close(ep);
	return NULL;
}

CASE(exclusive_acceptors, ALONE)
{
	pthread_t t[THREADS];
	listener = ct_listen(ct_here(1));
	nonblocking(listener);
	ended = 0;
	go_on = 1;
	for (int i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, acceptor, NULL);
	PEER_LATER(for (int i = 0; i < 200; i++) { char c; int s = ct_connect(ct_here(1)); if (read(s, &c, 1)) {} close(s); });
	PEER_WAIT();
	go_on = 0;
	for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
	SAY("accepted: %ld", ended);
}
