/* Sockets that processes share: a child's doings are its parent's too, except for what it closes. */
#include "ct.h"

static int child_says(int (*does)(int fd), int fd)
{
	int status = -1;
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		int r = does(fd);
		fflush(stdout);
		_exit(r);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int writes(int fd) { return write(fd, "child", 5); }
static int reads(int fd) { char b[8]; return read(fd, b, 3); }
static int closes(int fd) { return close(fd); }
static int shuts(int fd) { return shutdown(fd, SHUT_WR); }
static int makes_nonblocking(int fd) { return fcntl(fd, F_SETFL, O_NONBLOCK); }
static int sets_nodelay(int fd) { return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }
static int exits(int fd) { return fd < 0; }

CASE(child_writes, BOTH | BOTH6)
{
	SHOW(write(fd, "parent", 6));
	SHOW(child_says(writes, fd));
	SHOW(write(fd, "again", 5));
	PEER(char b[17] = {0}; SHOW(recv(fd, b, 16, MSG_WAITALL)); SAY("%s", b));
}

CASE(child_reads, BOTH | BOTH6)
{
	char b[8] = {0};
	PEER(send(fd, "abcdef", 6, 0));
	SHOW(child_says(reads, fd));
	SHOW(read(fd, b, 8));
	SAY("%s", b);
}

CASE(child_closes, BOTH)
{
	SHOW(child_says(closes, fd));
	SHOW(child_says(exits, fd));
	SHOW(write(fd, "still here", 10));
	PEER(char b[11] = {0}; SHOW(recv(fd, b, 10, MSG_WAITALL)); send(fd, "x", 1, 0));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(parent_closes, BOTH | BOTH6)
{
	pid_t child = fork();
	if (!child) {
		ct_nap(50);
		char b[8] = {0};
		_exit(write(fd, "child", 5) == 5 && read(fd, b, 8) == 2 ? 0 : 1);
	}
	SHOW(close(fd));
	PEER(char b[6] = {0}; SHOW(recv(fd, b, 5, MSG_WAITALL)); SAY("%s", b); send(fd, "ok", 2, 0); SHOW(read(fd, b, 1)));
	int status;
	waitpid(child, &status, 0);
	SHOW(WEXITSTATUS(status));
}

CASE(child_shuts, BOTH)
{
	signal(SIGPIPE, SIG_IGN);
	SHOW(child_says(shuts, fd));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
}

CASE(file_status_is_shared, BOTH)
{
	SHOW(child_says(makes_nonblocking, fd));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(read(fd, &(char){0}, 1));
	PEER(send(fd, "x", 1, 0));
	ct_show_poll(fd, POLLIN, 500);
	SHOW(read(fd, &(char){0}, 1));
}

CASE(options_are_shared, BOTH)
{
	int v = 0;
	socklen_t len = sizeof v;
	SHOW(child_says(sets_nodelay, fd));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	SHOW(v);
	PEER(send(fd, "x", 1, 0));
	SHOW(read(fd, &(char){0}, 1));
}

static int accepts(int l)
{
	int s = accept(l, NULL, NULL);
	return s < 0 ? 99 : write(s, "hi", 2);
}

CASE(child_accepts, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	PEER_LATER(ct_nap(50); ct_peer_fd = ct_connect(ct_here(0)));
	SHOW(child_says(accepts, l));
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)); SHOW(read(fd, b, 1)));
	PEER_LATER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW_OK(accept(l, NULL, NULL));
}

CASE(several_children_accept, ALONE)
{
	int l = ct_socket(SOCK_STREAM), ready[2];
	pid_t children[3];
	struct ct_address a = ct_here(0);
	bind(l, AT(a));
	listen(l, 16);
	if (pipe(ready)) ct_die("pipe");
	for (int i = 0; i < 3; i++)
		if (!(children[i] = fork())) {
			poll(&(struct pollfd){l, POLLIN, 0}, 1, 0); /* the first look, as in ct_listen */
			write(ready[1], "x", 1);
			for (;;) {
				int s = accept(l, NULL, NULL);
				char c = 0;
				if (read(s, &c, 1) != 1 || (c++, write(s, &c, 1)) != 1) _exit(1);
				close(s);
			}
		}
	for (int i = 0; i < 3; i++) read(ready[0], &(char){0}, 1);
	for (int i = 1; i <= 6; i++) PEER_WITH(i, char c = arg; int s = ct_connect(ct_here(0)); write(s, &c, 1); SHOW(read(s, &c, 1)); SHOW(c); SHOW(read(s, &c, 1)); close(s));
	for (int i = 0; i < 3; i++) {
		SHOW(kill(children[i], SIGKILL));
		waitpid(children[i], NULL, 0);
	}
}

CASE(connects_in_the_child, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	fflush(stdout);
	int status;
	pid_t child = fork();
	if (!child) {
		int s = ct_connect(ct_there(0));
		_exit(write(s, "x", 1) == 1 ? 0 : 1);
	}
	PEER(char b; int s = accept(fd, NULL, NULL); SHOW(read(s, &b, 1)); SHOW(read(s, &b, 1)));
	waitpid(child, &status, 0);
	SHOW(WEXITSTATUS(status));
}

CASE(killed_child, BOTH)
{
	char b;
	pid_t child = fork();
	if (!child) {
		while (1) read(fd, &b, 1);
	}
	ct_nap(50);
	SHOW(kill(child, SIGKILL));
	waitpid(child, NULL, 0);
	PEER(send(fd, "x", 1, 0));
	SHOW(read(fd, &b, 1)); /* the parent has it still */
	SHOW(write(fd, "y", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
}

CASE(shutdown_ends_the_others_write, BOTH)
{
	signal(SIGPIPE, SIG_IGN);
	PEER(ct_keep_small(fd));
	ct_fill(fd);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		ct_nap(100);
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	SHOW(write(fd, "x", 1));
	waitpid(child, NULL, 0);
}

CASE(datagrams_are_shared, DATAGRAM | DATAGRAM6)
{
	char b[8];
	struct ct_address to = ct_there(0);
	PEER(send(fd, "abc", 3, 0); send(fd, "de", 2, 0));
	SETTLE();
	SHOW(child_says(reads, fd));
	SHOW(recv(fd, b, 8, 0));
	SHOW(child_says(closes, fd));
	SHOW(sendto(fd, "x", 1, 0, AT(to)));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}
