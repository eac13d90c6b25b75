/* The end of a connection: shutdown() in every state, close() with data unread or unsent, resets, and SO_LINGER. */
#include "ct.h"

static void reset_by_peer(int fd)
{
	struct linger g = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	close(fd);
	ct_peer_fd = -1;
}

static void show_end(int fd) /* in the peer: how the connection ended */
{
	char b[64];
	ssize_t n;
	long got = 0;
	while ((n = recv(fd, b, sizeof b, 0)) > 0) got += n;
	SAY("the peer read %ld bytes, then %s", got, n == 0 ? "the end" : strerrorname_np(errno));
}

CASE(peer_closes, BOTH | BOTH6)
{
	char b[8];
	signal(SIGPIPE, SIG_IGN);
	PEER(send(fd, "last", 4, 0); close(fd); ct_peer_fd = -1);
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(read(fd, b, 8));
	SHOW(read(fd, b, 8));
	SHOW(read(fd, b, 8));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(write(fd, "x", 1)); /* answered by a reset */
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(write(fd, "x", 1));
	ct_show_error(fd);
	SHOW(read(fd, b, 8));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
}

CASE(peer_closes_half, BOTH | BOTH6)
{
	char b[8];
	PEER(send(fd, "ab", 2, 0); shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(read(fd, b, 8));
	SHOW(read(fd, b, 8));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(write(fd, "still", 5));
	SHOW(write(fd, "open", 4));
	SHOW(shutdown(fd, SHUT_WR));
	PEER(show_end(fd));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
}

CASE(closes_half, BOTH | BOTH6)
{
	char b[8];
	SHOW(write(fd, "bye", 3));
	SHOW(shutdown(fd, SHUT_WR));
	PEER(show_end(fd); send(fd, "still", 5, 0); send(fd, "here", 4, 0); ct_nap(10));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(recv(fd, b, 5, MSG_WAITALL));
	SHOW(recv(fd, b, 4, MSG_WAITALL));
	SHOW(recv(fd, b, 4, MSG_DONTWAIT));
	PEER(close(fd); ct_peer_fd = -1);
	SHOW(read(fd, b, 8));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
}

CASE(both_close_at_once, BOTH)
{
	SHOW(shutdown(fd, SHUT_WR));
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(read(fd, &(char){0}, 1));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(shutdown(fd, SHUT_RDWR));
	SHOW(shutdown(fd, SHUT_WR));
	ct_show_error(fd);
}

CASE(for_reading, BOTH | BOTH6)
{
	char b[16];
	SHOW(shutdown(fd, SHUT_RD));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(read(fd, b, 16));
	PEER(SHOW(send(fd, "abc", 3, 0)));
	SETTLE();
	int n = -1;
	SHOW(ioctl(fd, FIONREAD, &n));
	SHOW(n);
	SHOW(read(fd, b, 16)); /* what comes can be read all the same */
	SHOW(read(fd, b, 16));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(shutdown(fd, SHUT_RD));
}

CASE(for_reading_with_data_there, BOTH)
{
	char b[16];
	PEER(send(fd, "abc", 3, 0));
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(read(fd, b, 2));
	SHOW(read(fd, b, 16));
	SHOW(read(fd, b, 16));
	SHOW(recv(fd, b, 16, MSG_DONTWAIT));
}

CASE(ends_a_read_that_waits, BOTH | BOTH6)
{
	/* Another process does it: shutdown is the socket's, not the descriptor's. */
	pid_t child = fork();
	if (!child) {
		ct_nap(100);
		shutdown(fd, SHUT_RD);
		_exit(0);
	}
	TIMED(read(fd, &(char){0}, 1), 100);
	waitpid(child, NULL, 0);
}

CASE(in_every_state, BOTH)
{
	SHOW(shutdown(fd, 3));
	SHOW(shutdown(fd, -1));
	SHOW(shutdown(fd, SHUT_RDWR));
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(shutdown(fd, SHUT_WR));
	PEER(show_end(fd); close(fd); ct_peer_fd = -1);
	SETTLE();
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(shutdown(fd, SHUT_RDWR));
	SHOW(shutdown(fd, 3));
}

CASE(of_others, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	SHOW(shutdown(s, SHUT_RD));
	SHOW(shutdown(s, SHUT_RDWR));
	SHOW(shutdown(s, 9));
	bind(s, AT(a));
	SHOW(shutdown(s, SHUT_WR));
	SHOW(shutdown(u, SHUT_RDWR));
}

CASE(reset_by_the_peer, BOTH | BOTH6)
{
	char b[8];
	signal(SIGPIPE, SIG_IGN);
	PEER(reset_by_peer(fd));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(read(fd, b, 8));
	SHOW(read(fd, b, 8));
	SHOW(write(fd, "x", 1));
	ct_show_error(fd);
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(shutdown(fd, SHUT_WR));
}

CASE(reset_told_by_write, BOTH)
{
	signal(SIGPIPE, SIG_IGN);
	PEER(reset_by_peer(fd));
	SETTLE();
	SHOW(write(fd, "x", 1));
	SHOW(write(fd, "x", 1));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(reset_told_by_so_error, BOTH)
{
	PEER(reset_by_peer(fd));
	SETTLE();
	ct_show_error(fd);
	ct_show_error(fd);
	SHOW(read(fd, &(char){0}, 1));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
}

CASE(data_before_a_reset, BOTH | BOTH6)
{
	char b[8];
	int n = -1;
	PEER(send(fd, "abcdef", 6, 0); ct_nap(10); reset_by_peer(fd));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(ioctl(fd, FIONREAD, &n));
	SHOW(n);
	SHOW(read(fd, b, 4));
	SHOW(read(fd, b, 4));
	SHOW(read(fd, b, 4));
	SHOW(read(fd, b, 4));
}

CASE(reset_ends_waiting, BOTH)
{
	PEER_LATER(ct_nap(60); reset_by_peer(fd));
	TIMED(read(fd, &(char){0}, 1), 60);
	SHOW(read(fd, &(char){0}, 1));
}

CASE(reset_after_half_close, BOTH)
{
	SHOW(shutdown(fd, SHUT_WR));
	PEER(show_end(fd); reset_by_peer(fd));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(read(fd, &(char){0}, 1));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(reset_after_the_peers_end, BOTH)
{
	signal(SIGPIPE, SIG_IGN);
	PEER(shutdown(fd, SHUT_WR); ct_nap(10); reset_by_peer(fd));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(read(fd, &(char){0}, 1));
	SHOW(write(fd, "x", 1));
	SHOW(write(fd, "x", 1));
	ct_show_error(fd);
}

/* ---- close ---- */

CASE(close_ends_it, BOTH | BOTH6)
{
	SHOW(write(fd, "last words", 10));
	SHOW(close(fd));
	PEER(show_end(fd));
	SHOW(write(fd, "x", 1));
	SHOW(read(fd, &(char){0}, 1));
	SHOW(close(fd));
}

CASE(close_with_unread_data_resets, BOTH | BOTH6)
{
	PEER(send(fd, "unread", 6, 0));
	SETTLE();
	SHOW(close(fd));
	PEER(show_end(fd); ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0));
}

CASE(close_with_some_read_resets, BOTH)
{
	char b[4];
	PEER(send(fd, "unread", 6, 0));
	SHOW(read(fd, b, 4));
	SHOW(write(fd, "answer", 6));
	SHOW(close(fd));
	SETTLE();
	PEER(show_end(fd));
}

CASE(close_then_data_comes_resets, BOTH)
{
	SHOW(close(fd));
	PEER(signal(SIGPIPE, SIG_IGN); show_end(fd); SHOW(send(fd, "late", 4, 0)); ct_nap(30); SHOW(send(fd, "late", 4, 0)));
}

CASE(close_of_a_copy_does_nothing, BOTH)
{
	int d = dup(fd);
	SHOW(close(fd));
	SHOW(write(d, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(close(d));
	PEER(show_end(fd));
}

CASE(much_is_delivered_after_close, BOTH | BOTH6)
{
	static char b[200000];
	PEER_LATER(ct_nap(100); show_end(fd));
	SHOW(send(fd, b, sizeof b, 0));
	SHOW(close(fd));
}

/* ---- SO_LINGER ---- */

static void linger(int fd, int on, int seconds)
{
	struct linger g = {on, seconds};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g));
}

CASE(linger_of_zero_resets, BOTH | BOTH6)
{
	linger(fd, 1, 0);
	SHOW(write(fd, "lost", 4));
	SHOW(close(fd));
	PEER(show_end(fd));
}

CASE(linger_of_zero_counts_for_the_last_copy, BOTH)
{
	int d = dup(fd);
	linger(fd, 1, 0);
	SHOW(close(fd));
	SHOW(write(d, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(close(d));
	PEER(show_end(fd));
}

CASE(linger_with_nothing_to_wait_for, BOTH | BOTH6)
{
	linger(fd, 1, 3);
	TIMED(close(fd), 0);
	PEER(show_end(fd));
}

/* A window that was shut opens with the next probe of it. */
static void show_wait(long since, long ms)
{
	long took = ct_now_ms() - since;
	SAY("waited as long as it had to: %d", took >= ms - 5 && took < ms + 2000);
}

/* What close() waits for: that the peer has acknowledged all data and the end. */
static void fill(int fd)
{
	PEER(ct_keep_small(fd));
	ct_fill(fd);
}

CASE(linger_waits, BOTH | BOTH6)
{
	linger(fd, 1, 5);
	fill(fd);
	long before = ct_now_ms();
	PEER_LATER(ct_nap(300); ct_drain(fd, 1L << 40));
	SHOW(close(fd));
	show_wait(before, 300);
	SHOW(close(fd));
}

CASE(linger_runs_out, BOTH)
{
	linger(fd, 1, 1);
	fill(fd);
	TIMED(close(fd), 1000);
}

CASE(linger_off_does_not_wait, BOTH)
{
	linger(fd, 0, 5);
	fill(fd);
	TIMED(close(fd), 0);
}

CASE(linger_waits_also_when_nonblocking, BOTH)
{
	linger(fd, 1, 1);
	fill(fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	long before = ct_now_ms();
	SHOW(close(fd));
	show_wait(before, 1000);
}

CASE(linger_waits_when_a_number_is_reused, BOTH)
{
	linger(fd, 1, 5);
	fill(fd);
	long before = ct_now_ms();
	PEER_LATER(ct_nap(200); ct_drain(fd, 1L << 40));
	SHOW_OK(dup2(0, fd)); /* closes what was there, and waits as close does */
	show_wait(before, 200);
}

CASE(linger_is_not_shutdowns, BOTH)
{
	linger(fd, 1, 5);
	fill(fd);
	long before;
	TIMED(shutdown(fd, SHUT_WR), 0);
	PEER_LATER(ct_nap(200); ct_drain(fd, 1L << 40));
	before = ct_now_ms();
	SHOW(close(fd));
	show_wait(before, 200);
}

CASE(linger_ended_by_a_reset, BOTH)
{
	linger(fd, 1, 5);
	fill(fd);
	long before = ct_now_ms();
	PEER_LATER(ct_nap(200); reset_by_peer(fd));
	SHOW(close(fd));
	show_wait(before, 200);
}
