/* splice, tee, vmsplice, copy_file_range and sendfile between sockets, pipes and files. */
#include "ct.h"

CASE(socket_to_pipe, BOTH | BOTH6)
{
	int p[2];
	char b[32];
	SHOW(pipe(p));
	PEER(SHOW(send(fd, "hello world", 11, 0)));
	SETTLE();
	SHOW(splice(fd, NULL, p[1], NULL, 5, 0));
	SHOW(splice(fd, NULL, p[1], NULL, 100, SPLICE_F_MOVE));
	SHOW(read(p[0], b, 32));
	ct_show_bytes("read", b, 11);
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
}

CASE(pipe_to_socket, BOTH | BOTH6)
{
	int p[2];
	SHOW(pipe(p));
	SHOW(write(p[1], "hello world", 11));
	SHOW(splice(p[0], NULL, fd, NULL, 5, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 100, 0));
	PEER(char b[32]; SHOW(recv(fd, b, 11, MSG_WAITALL)); ct_show_bytes("peer", b, 11));
	SHOW(close(p[1]));
	SHOW(splice(p[0], NULL, fd, NULL, 100, 0));
}

CASE(nonblocking, BOTH)
{
	int p[2];
	pipe(p);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	SHOW(splice(fd, NULL, p[1], NULL, 10, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 10, SPLICE_F_NONBLOCK));
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	SHOW(splice(p[0], NULL, fd, NULL, 10, 0));
	SHOW(write(p[1], "abc", 3));
	SHOW(splice(p[0], NULL, fd, NULL, 10, 0));
	PEER(char b[8]; SHOW(recv(fd, b, 3, MSG_WAITALL)));
}

/* SPLICE_F_NONBLOCK is about the pipe: the socket's own flag says whether it waits. */
CASE(nonblocking_flag_is_the_pipes, BOTH)
{
	int p[2];
	struct timeval t = {0, 100000};
	pipe(p);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	TIMED(splice(fd, NULL, p[1], NULL, 10, SPLICE_F_NONBLOCK), 100);
	TIMED(splice(fd, NULL, p[1], NULL, 10, 0), 100);
	PEER(SHOW(send(fd, "x", 1, 0)));
	SETTLE();
	SHOW(splice(fd, NULL, p[1], NULL, 10, 0));
}

CASE(a_full_pipe, BOTH)
{
	int p[2];
	static char page[4096];
	pipe(p);
	SHOW(fcntl(p[1], F_SETPIPE_SZ, 4096));
	SHOW(write(p[1], page, 4096));
	PEER(SHOW(send(fd, "data", 4, 0)));
	SETTLE();
	SHOW(splice(fd, NULL, p[1], NULL, 4, SPLICE_F_NONBLOCK));
	SHOW(read(p[0], page, 4096));
	SHOW(splice(fd, NULL, p[1], NULL, 4, SPLICE_F_NONBLOCK));
	SHOW(read(p[0], page, 4096));
	ct_show_bytes("read", page, 4);
}

/* The splice waits for room in the pipe while another process reads it. */
CASE(waits_for_the_pipe, BOTH)
{
	int p[2];
	static char page[4096];
	pipe(p);
	fcntl(p[1], F_SETPIPE_SZ, 4096);
	write(p[1], page, 4096);
	PEER(SHOW(send(fd, "data", 4, 0)));
	SETTLE();
	pid_t child = fork();
	if (!child) {
		ct_nap(100);
		_exit(read(p[0], page, 4096) == 4096 ? 0 : 1);
	}
	TIMED(splice(fd, NULL, p[1], NULL, 4, 0), 100);
	waitpid(child, NULL, 0);
	SHOW(read(p[0], page, 4096));
}

CASE(a_broken_pipe, BOTH)
{
	int p[2];
	char b[8];
	signal(SIGPIPE, SIG_IGN);
	pipe(p);
	close(p[0]);
	PEER(SHOW(send(fd, "data", 4, 0)));
	SETTLE();
	SHOW(splice(fd, NULL, p[1], NULL, 4, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(after_shutdown, BOTH)
{
	int p[2];
	char b[4];
	signal(SIGPIPE, SIG_IGN);
	pipe(p);
	write(p[1], "abc", 3);
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(splice(p[0], NULL, fd, NULL, 3, 0));
	SHOW(read(p[0], b, 3));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(errors, BOTH)
{
	int p[2], f = open("/etc/passwd", O_RDONLY), o = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	off_t off = 0;
	pipe(p);
	write(p[1], "abc", 3);
	SHOW(splice(p[0], NULL, fd, NULL, 0, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 4, 99));
	SHOW(splice(p[0], NULL, fd, NULL, 0, 0xff));
	SHOW(splice(p[0], &off, fd, NULL, 4, 0));
	SHOW(splice(p[0], NULL, fd, &off, 4, 0));
	SHOW(splice(fd, &off, p[1], NULL, 4, 0));
	SHOW(splice(fd, NULL, p[1], &off, 4, 0));
	SHOW(splice(p[1], NULL, fd, NULL, 4, 0));
	SHOW(splice(fd, NULL, p[0], NULL, 4, 0));
	SHOW(splice(f, NULL, fd, NULL, 4, 0));
	SHOW(splice(fd, NULL, o, NULL, 4, 0));
	SHOW(splice(fd, NULL, fd, NULL, 4, 0));
	SHOW(splice(999, NULL, fd, NULL, 4, 0));
	SHOW(splice(fd, NULL, 999, NULL, 4, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 3, 0));
	PEER(char b[8]; SHOW(recv(fd, b, 3, MSG_WAITALL)));
}

CASE(what_takes_no_socket, BOTH)
{
	int p[2], f = open("/etc/passwd", O_RDONLY), o = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	char b[8] = "abc";
	struct iovec v = {b, 3};
	pipe(p);
	write(p[1], "abc", 3);
	SHOW(tee(fd, p[1], 10, 0));
	SHOW(tee(p[0], fd, 10, 0));
	SHOW(vmsplice(fd, &v, 1, 0));
	SHOW(copy_file_range(fd, NULL, o, NULL, 10, 0));
	SHOW(copy_file_range(f, NULL, fd, NULL, 10, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 3, 0));
	PEER(char b[8]; SHOW(recv(fd, b, 3, MSG_WAITALL)));
}

CASE(sendfile_from_a_socket, BOTH)
{
	int p[2], o = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	off_t off = 0;
	char b[8];
	pipe(p);
	PEER(SHOW(send(fd, "abcdef", 6, 0)));
	SETTLE();
	SHOW(sendfile(o, fd, NULL, 3));
	SHOW(sendfile(p[1], fd, &off, 3));
	SHOW(sendfile(fd, fd, NULL, 3));
	SHOW(sendfile(fd, p[0], NULL, 3));
	SHOW(sendfile(p[1], fd, NULL, 4));
	SHOW(read(p[0], b, 8));
	SHOW(recv(fd, b, 8, 0));
}

/* What a proxy does: a megabyte in, through a pipe, and out again, with as much in the pipe as fits. */
CASE(echo_a_megabyte, BOTH | BOTH6)
{
	int p[2];
	long in = 0, out = 0;
	pipe(p);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	PEER_LATER(pid_t c = fork(); if (!c) { ct_send_all(fd, 1 << 20); shutdown(fd, SHUT_WR); _exit(0); }
	           SAY("echoed %ld", ct_recv_all(fd, 1 << 20)); waitpid(c, NULL, 0));
	for (int ended = 0; !ended || out < in;) {
		ssize_t n = ended ? -1 : splice(fd, NULL, p[1], NULL, 1 << 20, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n == 0) ended = 1;
		if (n > 0) in += n;
		ssize_t m = in > out ? splice(p[0], NULL, fd, NULL, in - out, SPLICE_F_MOVE | SPLICE_F_NONBLOCK) : -1;
		if (m > 0) out += m;
		if (n <= 0 && m <= 0 && !ended) {
			struct pollfd w = {fd, POLLIN | (in > out ? POLLOUT : 0), 0};
			poll(&w, 1, 1000);
		} else if (ended && m <= 0 && out < in) {
			struct pollfd w = {fd, POLLOUT, 0};
			poll(&w, 1, 1000);
		}
	}
	shutdown(fd, SHUT_WR);
	PEER_WAIT();
	SHOW(in);
	SHOW(out);
}

CASE(blocking_transfer, BOTH)
{
	int p[2];
	long n, total = 0;
	pipe(p);
	PEER_LATER(ct_send_all(fd, 300000); shutdown(fd, SHUT_WR));
	pid_t child = fork();
	if (!child) {
		close(p[1]);
		static char b[4096];
		long got = 0, m;
		while ((m = read(p[0], b, sizeof b)) > 0) got += m;
		_exit(got == 300000 ? 0 : 1);
	}
	close(p[0]);
	while ((n = splice(fd, NULL, p[1], NULL, 65536, 0)) > 0)
		total += n;
	SHOW(n);
	SHOW(total);
	close(p[1]);
	int status;
	waitpid(child, &status, 0);
	SHOW(WEXITSTATUS(status));
	PEER_WAIT();
}

CASE(unconnected, KERNEL_ONLY | ALONE)
{
	int p[2], s = ct_socket(SOCK_STREAM);
	signal(SIGPIPE, SIG_IGN);
	pipe(p);
	write(p[1], "abc", 3);
	SHOW(splice(s, NULL, p[1], NULL, 3, 0));
	SHOW(splice(p[0], NULL, s, NULL, 3, 0));
}
