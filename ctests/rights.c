/* SCM_RIGHTS: sockets that go to another process in a message over a unix socket. */
#include "ct.h"

static int pair[2];

static void pass(int over, const int *fds, int n)
{
	char byte = 'r', room[CMSG_SPACE(8 * sizeof(int))] = {0};
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	SHOW(sendmsg(over, &m, 0));
}

static int take(int over, int *fds, int n)
{
	char byte, room[CMSG_SPACE(8 * sizeof(int))];
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	if (recvmsg(over, &m, 0) != 1) return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS) return -2;
	int got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(c), (got < n ? got : n) * sizeof(int));
	return got;
}

/* A process that has no socket yet, as a worker of node has none: it is forked before there is a connection. */
static pid_t helper(void (*does)(void))
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) ct_die("socketpair");
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		close(pair[0]);
		does();
		fflush(stdout);
		_exit(0);
	}
	close(pair[1]);
	return c;
}

static void end(pid_t c)
{
	int status = -1;
	waitpid(c, &status, 0);
	SHOW(status);
}

static int received(void)
{
	int fd = -1;
	if (take(pair[1], &fd, 1) != 1) ct_die("take");
	return fd;
}

/* The connection of a case whose helper was there before it. */
static int late_connection(void)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	close(l);
	return s;
}

static void echoes(void)
{
	char b[64];
	long n;
	int fd = received();
	close(pair[1]);
	while ((n = read(fd, b, sizeof b)) > 0) write(fd, b, n);
	close(fd);
}

CASE(a_connection, ALONE | ALONE6)
{
	pid_t c = helper(echoes);
	int s = late_connection();
	pass(pair[0], &s, 1);
	SHOW(close(s));
	PEER(char b[5]; SHOW(send(fd, "hello", 5, 0)); SHOW(recv(fd, b, 5, MSG_WAITALL)); SHOW(shutdown(fd, SHUT_WR)); SHOW(recv(fd, b, 1, 0)));
	end(c);
}

CASE(a_connection_to_a_child_that_has_it, BOTH)
{
	pid_t c = helper(echoes);
	pass(pair[0], &fd, 1);
	SHOW(close(fd));
	PEER(char b[5]; SHOW(send(fd, "hello", 5, 0)); SHOW(recv(fd, b, 5, MSG_WAITALL)); SHOW(shutdown(fd, SHUT_WR)));
	end(c);
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(to_oneself, BOTH)
{
	int got = -1;
	char b;
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	pass(pair[0], &fd, 1);
	SHOW(close(fd));
	ct_nap(100);
	SHOW(take(pair[1], &got, 1));
	PEER(send(fd, "x", 1, 0));
	SHOW(read(got, &b, 1));
	SHOW(write(got, "y", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	SHOW(close(got));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(in_flight_it_lives, BOTH)
{
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	pass(pair[0], &fd, 1);
	SHOW(close(fd));
	PEER_LATER(char b; TIMED(recv(fd, &b, 1, 0), 300));
	ct_nap(300);
	/* Nobody receives it: it ends with the message. */
	close(pair[0]);
	close(pair[1]);
	PEER_WAIT();
}

CASE(a_message_that_is_read_without_room, BOTH)
{
	char b;
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	pass(pair[0], &fd, 1);
	SHOW(close(fd));
	SHOW(read(pair[1], &b, 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(both_use_it, ALONE)
{
	pid_t c = helper(echoes);
	int s = late_connection();
	pass(pair[0], &s, 1);
	PEER(char b[2]; SHOW(send(fd, "hi", 2, 0)); SHOW(recv(fd, b, 2, MSG_WAITALL)));
	SHOW(write(s, "parent", 6));
	PEER(char b[6]; SHOW(recv(fd, b, 6, MSG_WAITALL)); SHOW(shutdown(fd, SHUT_WR)));
	end(c);
	SHOW(write(s, "still", 5));
	PEER(char b[5]; SHOW(recv(fd, b, 5, MSG_WAITALL)));
	SHOW(close(s));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

static void dies(void)
{
	received();
	raise(SIGKILL);
}

CASE(the_receiver_is_killed, ALONE)
{
	pid_t c = helper(dies);
	int s = late_connection();
	pass(pair[0], &s, 1);
	SHOW(close(s));
	end(c);
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

static void greets_all(void)
{
	int fds[4];
	if (take(pair[1], fds, 4) != 4) _exit(6);
	for (int i = 0; i < 4; i++) write(fds[i], "0123" + i, 1);
}

CASE(several_in_a_message, ALONE)
{
	pid_t c = helper(greets_all);
	int l = ct_listen(ct_here(0)), fds[4];
	static int ends[4];
	(void)ends;
	for (int i = 0; i < 4; i++) {
		PEER_WITH(i, ends[arg] = ct_connect(ct_here(0)));
		fds[i] = accept(l, NULL, NULL);
	}
	pass(pair[0], fds, 4);
	for (int i = 0; i < 4; i++) close(fds[i]);
	end(c);
	for (int i = 0; i < 4; i++) PEER_WITH(i, char b = 0; SHOW(recv(ends[arg], &b, 1, 0)); SAY("%c", b); SHOW(recv(ends[arg], &b, 1, 0)));
}

static void accepts(void)
{
	char b = 0;
	int l = received();
	poll(&(struct pollfd){l, POLLIN, 0}, 1, 0); /* the first look, as in ct_listen */
	write(pair[1], "r", 1);
	int s = accept(l, NULL, NULL);
	if (read(s, &b, 1) != 1 || write(s, "l", 1) != 1) _exit(5);
}

CASE(a_listener, ALONE | ALONE6)
{
	pid_t c = helper(accepts);
	int l = ct_listen(ct_here(0));
	pass(pair[0], &l, 1);
	SHOW(close(l));
	SHOW(read(pair[0], &(char){0}, 1));
	PEER(char b; int s = ct_connect(ct_here(0)); SHOW(write(s, "x", 1)); SHOW(read(s, &b, 1)); SHOW(read(s, &b, 1)));
	end(c);
}

CASE(a_listener_that_was_never_looked_at, ALONE)
{
	pid_t c = helper(accepts);
	int l = ct_socket(SOCK_STREAM);
	struct ct_address a = ct_here(0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	bind(l, AT(a));
	listen(l, 5);
	pass(pair[0], &l, 1);
	SHOW(close(l));
	SHOW(read(pair[0], &(char){0}, 1));
	PEER(char b; int s = ct_connect(ct_here(0)); SHOW(write(s, "x", 1)); SHOW(read(s, &b, 1)); SHOW(read(s, &b, 1)));
	end(c);
}

CASE(a_fresh_socket, ALONE | MIXED)
{
	int got = -1, s = ct_socket(SOCK_STREAM);
	char b;
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	pass(pair[0], &s, 1);
	SHOW(take(pair[1], &got, 1));
	struct ct_address to = ct_there(0);
	SHOW(connect(got, AT(to)));
	SHOW(write(s, "x", 1));
	PEER(char b; int s = accept(fd, NULL, NULL); SHOW(read(s, &b, 1)); SHOW(write(s, "y", 1)));
	SHOW(read(got, &b, 1));
	int u = ct_connect(ct_there(0));
	SHOW(write(u, "z", 1));
	PEER(char b; int s = accept(fd, NULL, NULL); SHOW(read(s, &b, 1)));
}

CASE(bad_messages, BOTH)
{
	char byte = 0;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = (void *)8, .msg_controllen = 64};
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
	SHOW(sendmsg(pair[0], &m, 0));
	SHOW(sendmsg(pair[0], NULL, 0));
	SHOW(sendmsg(pair[0], (void *)8, 0));
	SHOW(recvmsg(pair[1], (void *)8, 0));
	SHOW(recvmsg(pair[1], NULL, 0));
	SHOW(recvmsg(pair[1], &m, 0));
	int bad = 999;
	pass(pair[0], &bad, 1);
	pass(pair[0], &fd, 1);
	SHOW(recvmsg(pair[1], &(struct msghdr){.msg_iov = &v, .msg_iovlen = 1}, 0));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}
