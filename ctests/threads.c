/* Threads: each worker waits in a set of its own that is empty at first; the main thread adds connections to it while it
 * waits. And two threads that block on one connection, one reading, one writing. */
#include "ct.h"
#include <pthread.h>

enum { WORKERS = 3, CONNECTIONS = 24, ROUNDS = 200 };

static void peer(int first)
{
	struct sockaddr_in a = ct_here(1).v4;
	int fd[CONNECTIONS];
	fd[0] = first;
	for (int i = 1; i < CONNECTIONS; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd[i], (struct sockaddr *)&a, sizeof a)) _exit(1);
	}
	char b[64];
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < CONNECTIONS; i++)
			if (send(fd[i], "sixteen bytes...", 16, 0) != 16) _exit(2);
		for (int i = 0; i < CONNECTIONS; i++)
			if (recv(fd[i], b, 16, MSG_WAITALL) != 16) _exit(3);
	}
	for (int i = 1; i < CONNECTIONS; i++) close(fd[i]);
	shutdown(first, SHUT_WR);
	if (recv(first, b, 1, 0) != 0) _exit(4);
	close(first);
	/* The second part: a stream in both directions at once. */
	int s = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s, (struct sockaddr *)&a, sizeof a)) _exit(5);
	static char big[1 << 16];
	long got = 0;
	ssize_t n;
	if (!fork()) {
		for (int i = 0; i < 64; i++)
			for (long sent = 0; sent < (long)sizeof big; sent += n)
				if ((n = send(s, big + sent, sizeof big - sent, 0)) <= 0) _exit(6);
		shutdown(s, SHUT_WR);
		_exit(0);
	}
	while ((n = recv(s, big, sizeof big, 0)) > 0) got += n;
	int status;
	wait(&status);
	if (got != 64L << 16 || status != 0) _exit(7);
}

static long ended[WORKERS], bytes[WORKERS];

static void *work(void *arg)
{
	int ep = ((int *)arg)[0], me = ((int *)arg)[1];
	struct epoll_event e[16];
	char b[64];
	while (ended[me] < CONNECTIONS / WORKERS) {
		int n = epoll_wait(ep, e, 16, 5000);
		if (n <= 0) {
			printf("worker %d: wait %d %s\n", me, n, n ? strerrorname_np(errno) : "timed out");
			return NULL;
		}
		for (int i = 0; i < n; i++) {
			ssize_t got = read(e[i].data.fd, b, sizeof b);
			if (got > 0) {
				bytes[me] += got;
				if (write(e[i].data.fd, b, got) != got) printf("short write\n");
			} else if (got == 0) {
				close(e[i].data.fd);
				ended[me]++;
			}
		}
	}
	return NULL;
}

static void *send_all(void *arg)
{
	static char big[1 << 16];
	ssize_t n;
	for (int i = 0; i < 64; i++)
		for (long sent = 0; sent < (long)sizeof big; sent += n)
			if ((n = send(*(int *)arg, big + sent, sizeof big - sent, 0)) <= 0) return "failed";
	shutdown(*(int *)arg, SHUT_WR);
	return "ok";
}

static void *receive_all(void *arg)
{
	static char b[1 << 16];
	long got = 0;
	ssize_t n;
	while ((n = recv(*(int *)arg, b, sizeof b, 0)) > 0) got += n;
	return n == 0 && got == 64L << 16 ? "ok" : "failed";
}

CASE(session, ALONE)
{
	int l = ct_listen(ct_here(1)), ep[WORKERS][2];
	pthread_t t[WORKERS];
	for (int i = 0; i < WORKERS; i++) {
		ep[i][0] = epoll_create1(0);
		ep[i][1] = i;
		pthread_create(&t[i], NULL, work, ep[i]);
	}
	ct_nap(50);
	PEER_LATER(peer(ct_connect(ct_here(1))));
	for (int i = 0; i < CONNECTIONS; i++) {
		int fd = accept(l, NULL, NULL);
		struct epoll_event e = {EPOLLIN, {.fd = fd}};
		epoll_ctl(ep[i % WORKERS][0], EPOLL_CTL_ADD, fd, &e);
	}
	for (int i = 0; i < WORKERS; i++) {
		pthread_join(t[i], NULL);
		printf("worker %d: %ld bytes, %ld ended\n", i, bytes[i], ended[i]);
	}
	int s = accept(l, NULL, NULL);
	pthread_t a, b;
	void *ra, *rb;
	pthread_create(&a, NULL, send_all, &s);
	pthread_create(&b, NULL, receive_all, &s);
	pthread_join(a, &ra);
	pthread_join(b, &rb);
	printf("sent %s, received %s\n", (char *)ra, (char *)rb);
	close(s);
	PEER_WAIT();
}
