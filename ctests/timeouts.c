/* A peer that has gone without a word: what times out, when, and which calls say so. */
#include "ct.h"

static void set_int(int s, int level, int option, int v)
{
	if (setsockopt(s, level, option, &v, sizeof v)) ct_die("setsockopt");
}

static void show_wait(long since, long least, long most)
{
	long took = ct_now_ms() - since;
	if (took < least || took > most) SAY("waited %ld ms, not %ld to %ld", took, least, most);
	else SAY("waited as long as it had to");
}

CASE(user_timeout_ends_a_read, BOTH | BOTH6)
{
	char b;
	signal(SIGPIPE, SIG_IGN);
	PEER(ct_go_deaf(fd));
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 500);
	long before = ct_now_ms();
	SHOW(write(fd, "x", 1));
	SHOW(read(fd, &b, 1));
	show_wait(before, 480, 2500);
	SHOW(read(fd, &b, 1));
	SHOW(write(fd, "x", 1));
	ct_show_error(fd);
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
}

CASE(user_timeout_told_by_poll, BOTH)
{
	PEER(ct_go_deaf(fd));
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 400);
	SHOW(write(fd, "x", 1));
	ct_show_poll(fd, POLLIN | POLLRDHUP, 4000);
	ct_show_error(fd);
	ct_show_error(fd);
	SHOW(read(fd, &(char){0}, 1));
}

CASE(user_timeout_ends_a_write, BOTH)
{
	signal(SIGPIPE, SIG_IGN);
	PEER(ct_keep_small(fd));
	ct_fill(fd);
	PEER(ct_go_deaf(fd));
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 400);
	SHOW(write(fd, "x", 1));
	SHOW(write(fd, "x", 1));
}

CASE(nothing_times_out_while_idle, BOTH)
{
	PEER(ct_go_deaf(fd));
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 200);
	ct_show_poll(fd, POLLIN | POLLRDHUP, 700);
	ct_show_error(fd);
}

CASE(keepalive, BOTH)
{
	PEER(ct_go_deaf(fd));
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 1);
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	long before = ct_now_ms();
	SHOW(read(fd, &(char){0}, 1));
	show_wait(before, 1900, 4500);
	SHOW(read(fd, &(char){0}, 1));
}

CASE(keepalive_answered, BOTH)
{
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 1);
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	ct_show_poll(fd, POLLIN | POLLRDHUP, 2500);
	SHOW(write(fd, "x", 1));
}

CASE(linger_for_a_peer_that_is_gone, BOTH)
{
	struct linger g = {1, 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	PEER(ct_go_deaf(fd));
	long before = ct_now_ms();
	SHOW(close(fd));
	show_wait(before, 950, 2000);
}

CASE(nobody_waits_at_exit, BOTH)
{
	struct linger g = {1, 5};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	PEER(ct_go_deaf(fd));
	write(fd, "x", 1);
	long before = ct_now_ms();
	pid_t child = fork();
	if (!child) {
		close(fd); /* not the last */
		_exit(0);
	}
	waitpid(child, NULL, 0);
	show_wait(before, 0, 2000);
}

CASE(syn_retries, ALONE | ALONE6)
{
	struct ct_address a = ct_there(0), other = ct_there(1);
	PEER(ct_go_deaf(ct_listen(ct_there(0))); ct_listen(ct_there(1)));
	SHOW_OK(ct_connect(other));
	int s = ct_socket(SOCK_STREAM);
	set_int(s, IPPROTO_TCP, TCP_SYNCNT, 1);
	long before = ct_now_ms();
	SHOW(connect(s, AT(a)));
	show_wait(before, 2500, 5000);
	SHOW(connect(s, AT(other)));
}

CASE(receive_timeout, BOTH | BOTH6)
{
	struct timeval t = {0, 150000};
	char b[8];
	struct iovec v = {b, 8};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	TIMED(read(fd, b, 8), 150);
	TIMED(recv(fd, b, 8, MSG_PEEK), 150);
	TIMED(readv(fd, &v, 1), 150);
	TIMED(recvmsg(fd, &m, 0), 150);
	TIMED(recvfrom(fd, b, 8, 0, NULL, NULL), 150);
	TIMED(recv(fd, b, 8, MSG_DONTWAIT), 0);
	PEER_LATER(ct_nap(50); send(fd, "x", 1, 0));
	SHOW(read(fd, b, 8));
}

CASE(odd_timeouts, BOTH)
{
	struct timeval t = {0, 1000000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	t.tv_usec = -1;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	t = (struct timeval){-1, 0};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t)); /* do not wait at all */
	TIMED(read(fd, &(char){0}, 1), 0);
	t = (struct timeval){0, 1};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	TIMED(read(fd, &(char){0}, 1), 0);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, 4));
}
