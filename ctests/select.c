/* select and pselect. */
#include "watch.h"
#include <sys/resource.h>

static fd_set r, w, x;

static void ask(int fd)
{
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&x);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	FD_SET(fd, &x);
}

static void show_sets(int fd)
{
	SAY("read %d, write %d, except %d", !!FD_ISSET(fd, &r), !!FD_ISSET(fd, &w), !!FD_ISSET(fd, &x));
}

static void show_select(int fd, int ms)
{
	struct timeval t = {ms / 1000, ms % 1000 * 1000};
	ask(fd);
	SHOW(select(fd + 1, &r, &w, &x, &t));
	show_sets(fd);
}

CASE(states, BOTH | BOTH6)
{
	show_select(fd, 0);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_select(fd, 0);
	PEER(send(fd, "!", 1, MSG_OOB));
	SETTLE();
	show_select(fd, 0);
	SHOW(drain(fd));
	ct_fill(fd);
	show_select(fd, 0);
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	show_select(fd, 1000);
	SHOW(shutdown(fd, SHUT_RDWR));
	show_select(fd, 1000);
}

CASE(states_of_an_error, BOTH)
{
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd));
	SETTLE();
	show_select(fd, 1000);
	ct_show_error(fd);
	show_select(fd, 1000);
}

CASE(states_of_datagrams, DATAGRAM)
{
	show_select(fd, 0);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_select(fd, 0);
}

CASE(one_set_at_a_time, BOTH)
{
	struct timeval t = {0, 20000};
	ask(fd);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	ask(fd);
	SHOW(select(fd + 1, NULL, &w, NULL, NULL));
	show_sets(fd);
	ask(fd);
	t.tv_usec = 20000;
	SHOW(select(fd + 1, NULL, NULL, &x, &t));
	show_sets(fd);
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(shutdown(fd, SHUT_RDWR));
	ask(fd);
	t.tv_usec = 50000;
	TIMED(select(fd + 1, NULL, NULL, &x, &t), 50);
	ask(fd);
	SHOW(select(fd, &r, &w, &x, &(struct timeval){0, 0}));
	show_sets(fd);
}

CASE(waits, BOTH)
{
	ask(fd);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(select(fd + 1, &r, NULL, NULL, NULL), 50);
	PEER_WAIT();
	SHOW(drain(fd));
	ask(fd);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(pselect(fd + 1, &r, NULL, NULL, &(struct timespec){2, 0}, NULL), 50);
	PEER_WAIT();
}

CASE(what_remains_of_the_time, BOTH)
{
	struct timeval t = {0, 60000};
	struct timespec s = {0, 60000000};
	ask(fd);
	TIMED(select(fd + 1, &r, NULL, NULL, &t), 60);
	SAY("%ld %ld", (long)t.tv_sec, (long)t.tv_usec);
	ask(fd);
	TIMED(pselect(fd + 1, &r, NULL, NULL, &s, NULL), 60);
	SAY("%ld %ld", (long)s.tv_sec, s.tv_nsec);
	PEER_LATER(ct_nap(100); send(fd, "a", 1, 0));
	t = (struct timeval){2, 0};
	ask(fd);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	SAY("%s", t.tv_sec == 1 && t.tv_usec > 700000 && t.tv_usec < 920000 ? "as much as it should" : "not so much");
	PEER_WAIT();
	t = (struct timeval){0, 2500000};
	ask(fd);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	SAY("%s", t.tv_sec == 2 && t.tv_usec < 500001 ? "in seconds" : "not so");
	t = (struct timeval){0, 0};
	ask(fd);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	SAY("%ld %ld", (long)t.tv_sec, (long)t.tv_usec);
}

CASE(as_a_sleep, BOTH)
{
	struct timeval t = {0, 50000};
	TIMED(select(0, NULL, NULL, NULL, &t), 50);
	TIMED(pselect(0, NULL, NULL, NULL, &(struct timespec){0, 50000000}, NULL), 50);
	t.tv_usec = 50000;
	ask(fd);
	TIMED(select(0, &r, &w, &x, &t), 50);
	show_sets(fd);
}

CASE(errors, BOTH)
{
	struct timeval t = {0, 0}, negative = {-1, 0}, below = {0, -1};
	struct timespec large = {0, 1000000000};
	ask(fd);
	SHOW(select(-1, &r, NULL, NULL, &t));
	SHOW(select(fd + 1, &r, NULL, NULL, &negative));
	SHOW(select(fd + 1, &r, NULL, NULL, &below));
	SHOW(pselect(fd + 1, &r, NULL, NULL, &large, NULL));
	show_sets(fd);
	FD_SET(900, &r);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	ask(fd);
	int other = dup(fd);
	close(other);
	FD_SET(other, &w);
	SHOW(select(other + 1, &r, &w, NULL, &t));
	show_sets(fd);
	SHOW(close(fd));
	ask(fd);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
}

CASE(bits_beyond_the_count, BOTH)
{
	/* The kernel writes whole words. */
	memset(&r, 0xff, sizeof r);
	for (int i = 0; i < 64; i++)
		if (i != fd && i <= fd) FD_CLR(i, &r);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	SHOW(select(fd + 1, &r, NULL, NULL, NULL));
	int left = 0;
	for (int i = 0; i < 1024; i++) left += !!FD_ISSET(i, &r);
	SAY("bits: %d", left);
}

CASE(larger_sets, BOTH)
{
	static unsigned long many[4096 / 64];
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur < 4096) l.rlim_cur = l.rlim_max < 4096 ? l.rlim_max : 4096;
	setrlimit(RLIMIT_NOFILE, &l);
	int high = fcntl(fd, F_DUPFD, 3000);
	SAY("high: %d", high);
	if (high < 0) return;
	many[high / 64] |= 1ul << (high % 64);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	SHOW(select(high + 1, (fd_set *)many, NULL, NULL, NULL));
	SAY("it is: %d", (int)(many[high / 64] >> (high % 64) & 1));
}

CASE(with_the_kernels, BOTH)
{
	int pipes[2];
	SHOW(pipe(pipes));
	ask(fd);
	FD_CLR(fd, &w);
	FD_SET(pipes[0], &r);
	FD_SET(pipes[1], &w);
	int n = (pipes[1] > fd ? pipes[1] : fd) + 1;
	SHOW(select(n, &r, &w, &x, NULL));
	SAY("%d %d %d", !!FD_ISSET(fd, &r), !!FD_ISSET(pipes[0], &r), !!FD_ISSET(pipes[1], &w));
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	ask(fd);
	FD_SET(pipes[0], &r);
	SHOW(write(pipes[1], "x", 1));
	SHOW(select(n, &r, NULL, NULL, NULL));
	SAY("%d %d", !!FD_ISSET(fd, &r), !!FD_ISSET(pipes[0], &r));
}

CASE(a_hang_up_that_nobody_asked_for, BOTH)
{
	/* The reading end of a pipe whose writer is gone is hung up: no answer to "may I write". */
	int pipes[2];
	SHOW(pipe(pipes));
	close(pipes[1]);
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(fd, &r);
	FD_SET(pipes[0], &w);
	int n = (pipes[0] > fd ? pipes[0] : fd) + 1;
	struct timeval t = {0, 60000};
	TIMED(select(n, &r, &w, NULL, &t), 60);
	FD_SET(fd, &r);
	FD_SET(pipes[0], &w);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(select(n, &r, &w, NULL, NULL), 50);
	PEER_WAIT();
	SAY("%d %d", !!FD_ISSET(fd, &r), !!FD_ISSET(pipes[0], &w));
}

static volatile sig_atomic_t caught;
static void on_signal(int signal) { caught += signal == SIGUSR1; }

CASE(masks, BOTH)
{
	sigset_t blocked, open;
	struct sigaction a = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &a, NULL);
	sigemptyset(&open);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	raise(SIGUSR1);
	ask(fd);
	SHOW(pselect(fd + 1, &r, NULL, NULL, &(struct timespec){0, 20000000}, NULL));
	SAY("caught: %d", caught);
	ask(fd);
	SHOW(pselect(fd + 1, &r, NULL, NULL, NULL, &open));
	SAY("caught: %d, in the set: %d", caught, !!FD_ISSET(fd, &r));
	ask(fd);
	SHOW(pselect(fd + 1, &r, NULL, NULL, &(struct timespec){0, 0}, &open));
}
