/* Threads on one socket: two that read, one that reads and one that writes, several that accept; what becomes of a call when
 * another thread shuts or closes its socket, or forks. */
#include "ct.h"
#include <pthread.h>

static int sock;
static volatile long results[8];
static volatile int errors[8], entered;

static void *receive(void *arg)
{
	char b[64];
	long i = (long)arg;
	__sync_fetch_and_add(&entered, 1);
	results[i] = recv(sock, b, sizeof b, 0);
	errors[i] = errno;
	return NULL;
}

static pthread_t begin(void *(*run)(void *), long i)
{
	pthread_t t;
	entered = 0;
	results[i] = -2;
	pthread_create(&t, NULL, run, (void *)i);
	while (!entered) sched_yield();
	ct_nap(30);
	return t;
}

static void show(const char *what, long i)
{
	SAY("%s: %ld %s", what, results[i], results[i] < 0 ? strerrorname_np(errors[i]) : "");
}

CASE(two_readers_each_get_a_part, BOTH)
{
	sock = fd;
	pthread_t a = begin(receive, 0), b = begin(receive, 1);
	PEER(send(fd, "one", 3, 0); ct_nap(50); send(fd, "two..", 5, 0));
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	SHOW(results[0] + results[1]);
	SHOW(results[0] == 3 || results[0] == 5);
}

static void *receive_all(void *arg)
{
	long n = 0, r;
	char b[4096];
	__sync_fetch_and_add(&entered, 1);
	while ((r = recv(sock, b, sizeof b, 0)) > 0) n += r;
	results[(long)arg] = n;
	errors[(long)arg] = r < 0 ? errno : 0;
	return NULL;
}

CASE(four_readers_share_a_stream, BOTH | BOTH6)
{
	pthread_t t[4];
	sock = fd;
	for (long i = 0; i < 4; i++) t[i] = begin(receive_all, i);
	PEER(ct_send_all(fd, 1 << 20); shutdown(fd, SHUT_WR));
	long n = 0;
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		n += results[i];
		if (errors[i]) SAY("reader %d: %s", i, strerrorname_np(errors[i]));
	}
	SHOW(n == 1 << 20);
}

static void *send_a_million(void *arg)
{
	__sync_fetch_and_add(&entered, 1);
	ct_send_all(sock, 1 << 20);
	results[(long)arg] = 0;
	return NULL;
}

CASE(a_reader_and_a_writer, BOTH | BOTH6)
{
	sock = fd;
	pthread_t w = begin(send_a_million, 1);
	pthread_t r = begin(receive_all, 0);
	PEER(long n = ct_recv_all(fd, 1 << 20); ct_send_all(fd, 1 << 20); SHOW(n); shutdown(fd, SHUT_WR));
	pthread_join(w, NULL);
	pthread_join(r, NULL);
	SHOW(results[0] == 1 << 20);
}

CASE(writers_do_not_mix_small_sends, BOTH)
{
	pthread_t t[3];
	sock = fd;
	void *send_records(void *arg)
	{
		char b[16];
		memset(b, 'a' + (long)arg, 16);
		entered = 1;
		for (int i = 0; i < 2000; i++)
			if (send(sock, b, 16, 0) != 16) results[(long)arg]++;
		return NULL;
	}
	PEER_LATER({
		char b[16];
		int mixed = 0;
		for (int i = 0; i < 6000; i++) {
			if (recv(fd, b, 16, MSG_WAITALL) != 16) break;
			for (int j = 1; j < 16; j++) mixed += b[j] != b[0];
		}
		SHOW(mixed);
	});
	for (long i = 0; i < 3; i++) results[i] = 0, pthread_create(&t[i], NULL, send_records, (void *)i);
	for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
	PEER_WAIT();
	SHOW(results[0] + results[1] + results[2]);
}

static void *accept_one(void *arg)
{
	__sync_fetch_and_add(&entered, 1);
	long i = (long)arg;
	results[i] = accept(sock, NULL, NULL);
	errors[i] = errno;
	return NULL;
}

CASE(each_acceptor_gets_one, ALONE | ALONE6)
{
	pthread_t t[4];
	char b[4];
	sock = ct_listen(ct_here(0));
	for (long i = 0; i < 4; i++) t[i] = begin(accept_one, i);
	PEER(for (int i = 0; i < 4; i++) { int s = ct_connect(ct_here(0)); send(s, "x", 1, 0); });
	int got = 0;
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		got += results[i] >= 0 && recv(results[i], b, 4, 0) == 1;
	}
	SHOW(got);
}

/* ---- shut and closed by another thread ---- */

CASE(shutdown_wakes_a_reader, BOTH | BOTH6)
{
	sock = fd;
	pthread_t t = begin(receive, 0);
	SHOW(shutdown(fd, SHUT_RD));
	pthread_join(t, NULL);
	show("recv", 0);
	PEER(char b; SHOW(send(fd, "x", 1, MSG_NOSIGNAL)); (void)b);
}

CASE(shutdown_of_both_wakes_a_reader, BOTH)
{
	sock = fd;
	pthread_t t = begin(receive, 0);
	SHOW(shutdown(fd, SHUT_RDWR));
	pthread_join(t, NULL);
	show("recv", 0);
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

static void *send_much(void *arg)
{
	static char big[1 << 22];
	long n;
	__sync_fetch_and_add(&entered, 1);
	while ((n = send(sock, big, sizeof big, MSG_NOSIGNAL)) == (long)sizeof big) {}
	results[(long)arg] = n < 0 ? -1 : send(sock, big, 1, MSG_NOSIGNAL);
	errors[(long)arg] = errno;
	return NULL;
}

CASE(shutdown_wakes_a_writer, BOTH)
{
	sock = fd;
	pthread_t t = begin(send_much, 0);
	ct_nap(300);
	SHOW(shutdown(fd, SHUT_WR));
	pthread_join(t, NULL);
	show("send", 0);
}

CASE(close_leaves_a_reader_alone, BOTH | BOTH6)
{
	sock = fd;
	pthread_t t = begin(receive, 0);
	SHOW(close(fd));
	ct_nap(50);
	SHOW(results[0]);
	PEER(SHOW(send(fd, "late", 4, MSG_NOSIGNAL)));
	pthread_join(t, NULL);
	show("recv", 0);
	SHOW(recv(fd, &t, 1, 0));
	/* Now nobody holds it: it ends. */
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(close_leaves_a_reader_until_the_peer_ends, BOTH)
{
	sock = fd;
	pthread_t t = begin(receive, 0);
	SHOW(close(fd));
	PEER(shutdown(fd, SHUT_WR));
	pthread_join(t, NULL);
	show("recv", 0);
}

CASE(the_number_is_free_while_a_reader_waits, BOTH)
{
	int pair[2];
	sock = fd;
	pthread_t t = begin(receive, 0);
	SHOW(close(fd));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) ct_die("socketpair");
	SHOW(pair[0] == fd || pair[1] == fd);
	int ours = pair[0] == fd ? 0 : 1;
	if (write(pair[!ours], "unix", 4) != 4) ct_die("write");
	ct_nap(30);
	SHOW(results[0]);
	PEER(SHOW(send(fd, "x", 1, MSG_NOSIGNAL)));
	pthread_join(t, NULL);
	show("recv", 0);
	char b[8];
	SHOW(recv(fd, b, 8, 0));
}

static void *poll_it(void *arg)
{
	struct pollfd p = {sock, POLLIN, 0};
	__sync_fetch_and_add(&entered, 1);
	long n = poll(&p, 1, 1000);
	results[(long)arg] = n > 0 ? p.revents : n;
	return NULL;
}

CASE(shutdown_wakes_a_poll, BOTH)
{
	sock = fd;
	pthread_t t = begin(poll_it, 0);
	SHOW(shutdown(fd, SHUT_RDWR));
	pthread_join(t, NULL);
	SHOW(results[0]);
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(close_leaves_an_acceptor_alone, ALONE)
{
	sock = ct_listen(ct_here(0));
	pthread_t t = begin(accept_one, 0);
	SHOW(close(sock));
	ct_nap(30);
	SHOW(results[0]);
	PEER(ct_peer_fd = ct_connect(ct_here(0)); send(ct_peer_fd, "x", 1, 0));
	pthread_join(t, NULL);
	SHOW(results[0] >= 0);
	char b;
	SHOW(recv(results[0], &b, 1, 0));
}

CASE(shutdown_wakes_an_acceptor, ALONE)
{
	sock = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)); send(ct_peer_fd, "x", 1, 0));
	int s = accept(sock, NULL, NULL);
	char b;
	SHOW(recv(s, &b, 1, 0));
	pthread_t t = begin(accept_one, 0);
	SHOW(shutdown(sock, SHUT_RD));
	pthread_join(t, NULL);
	show("accept", 0);
}

/* ---- fork while others block ---- */

CASE(fork_while_a_thread_waits, BOTH)
{
	char b[8];
	sock = fd;
	pthread_t t = begin(receive, 0);
	for (int i = 0; i < 5; i++) {
		pid_t child = fork();
		if (!child) {
			int n = send(fd, "c", 1, 0);
			_exit(n == 1 ? 0 : 1);
		}
		int status;
		waitpid(child, &status, 0);
		SHOW(status);
	}
	SHOW(results[0]);
	PEER(SHOW(recv(fd, (char[8]){0}, 5, MSG_WAITALL)); send(fd, "x", 1, 0));
	pthread_join(t, NULL);
	show("recv", 0);
	PEER(send(fd, "y", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(a_child_reads_what_its_parent_waits_for, BOTH)
{
	sock = fd;
	pid_t child = fork();
	if (!child) {
		char b[8];
		ct_nap(50);
		_exit(recv(fd, b, 8, 0) == 3 ? 0 : 1);
	}
	PEER_LATER(ct_nap(100); send(fd, "one", 3, 0); ct_nap(100); send(fd, "two", 3, 0));
	char b[8];
	SHOW(recv(fd, b, 8, 0));
	int status;
	waitpid(child, &status, 0);
	SHOW(status);
}

/* ---- timeouts ---- */

static void timeout(int fd, int name, int ms)
{
	struct timeval t = {ms / 1000, ms % 1000 * 1000};
	setsockopt(fd, SOL_SOCKET, name, &t, sizeof t);
}

CASE(timeouts_of_receiving, BOTH)
{
	char b[8];
	timeout(fd, SO_RCVTIMEO, 30);
	TIMED(recv(fd, b, 8, 0), 30);
	timeout(fd, SO_RCVTIMEO, 200);
	TIMED(recv(fd, b, 8, 0), 200);
	TIMED(read(fd, b, 8), 200);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	TIMED(recv(fd, b, 8, MSG_WAITALL), 200);
	TIMED(recv(fd, b, 8, MSG_DONTWAIT), 0);
	PEER_LATER(ct_nap(100); send(fd, "abc", 3, 0));
	TIMED(recv(fd, b, 8, 0), 100);
	timeout(fd, SO_RCVTIMEO, 0);
	PEER_LATER(ct_nap(300); send(fd, "abc", 3, 0));
	TIMED(recv(fd, b, 8, 0), 300);
}

CASE(timeouts_of_sending, BOTH)
{
	static char big[1 << 22];
	timeout(fd, SO_SNDTIMEO, 200);
	/* As long as the peer's window moves a little, a send gives a part. */
	long n, t;
	do {
		t = ct_now_ms();
		n = send(fd, big, sizeof big, 0);
	} while (n > 0);
	SHOW(n);
	ct_show_time(ct_now_ms() - t, 200);
}

CASE(timeouts_of_accepting, ALONE)
{
	int l = ct_listen(ct_here(0));
	timeout(l, SO_RCVTIMEO, 100);
	TIMED(accept(l, NULL, NULL), 100);
	PEER_LATER(ct_nap(50); ct_peer_fd = ct_connect(ct_here(0)); send(ct_peer_fd, "x", 1, 0));
	int s = accept(l, NULL, NULL);
	char b;
	SHOW(recv(s, &b, 1, 0));
}
