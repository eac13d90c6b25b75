/* sendfile(): offsets, what it may be from and to, and its errors. */
#include "ct.h"

static int file_of(long n)
{
	static unsigned char b[1 << 20];
	FILE *f = tmpfile();
	for (long i = 0; i < n; i++) b[i] = (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 16) * 5);
	fwrite(b, 1, n, f);
	fflush(f);
	rewind(f);
	return fileno(f);
}

static long position(int file) { return lseek(file, 0, SEEK_CUR); }

CASE(moves_the_files_position, BOTH | BOTH6)
{
	int file = file_of(1000);
	SHOW(sendfile(fd, file, NULL, 400));
	SHOW(position(file));
	SHOW(sendfile(fd, file, NULL, 10000));
	SHOW(position(file));
	SHOW(sendfile(fd, file, NULL, 1));
	PEER(SHOW(ct_recv_all(fd, 1000)));
}

CASE(moves_an_offset, BOTH)
{
	int file = file_of(1000);
	off_t at = 0, end = 5000;
	SHOW(lseek(file, 500, SEEK_SET));
	SHOW(sendfile(fd, file, &at, 300));
	SHOW(at);
	SHOW(sendfile(fd, file, &at, 5000));
	SHOW(at);
	SHOW(position(file));
	SHOW(sendfile(fd, file, &end, 10));
	SHOW(end);
	at = -1;
	SHOW(sendfile(fd, file, &at, 10));
	PEER(SHOW(ct_recv_all(fd, 1000)));
}

CASE(nothing_to_send, BOTH)
{
	int file = file_of(10);
	off_t at = 3;
	SHOW(sendfile(fd, file, NULL, 0));
	SHOW(sendfile(fd, file, &at, 0));
	SHOW(at);
	PEER(send(fd, "x", 1, 0));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(much, BOTH | BOTH6)
{
	int file = file_of(1 << 20);
	off_t at = 0;
	PEER_LATER(SHOW(ct_recv_all(fd, 1 << 20)));
	long sent = sendfile(fd, file, &at, 1 << 20);
	PEER_WAIT(); /* what it says comes first, whoever was first */
	SHOW(sent);
	SHOW(at);
}

CASE(nonblocking, BOTH)
{
	int file = file_of(1 << 20);
	off_t at = 0;
	long sent = 0, n;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (sent < 64 << 20 && (n = sendfile(fd, file, &at, 1 << 20)) > 0) sent += n, at = 0;
	SAY("%ld %s, offset stays: %d", n, strerrorname_np(errno), at == 0);
	PEER_WITH(sent, ct_drain(fd, arg));
	SETTLE();
	SHOW(sendfile(fd, file, &at, 10));
}

CASE(from_what_cannot_be_mapped, BOTH)
{
	int p[2], sock = ct_socket(SOCK_STREAM), sp[2];
	off_t at = 0;
	if (pipe(p) || socketpair(AF_UNIX, SOCK_STREAM, 0, sp)) ct_die("pipe");
	write(p[1], "piped", 5);
	SHOW(sendfile(fd, p[0], &at, 5));
	SHOW(sendfile(fd, sock, NULL, 5));
	SHOW(sendfile(fd, fd, NULL, 5));
	SHOW(sendfile(fd, sp[0], NULL, 5));
	SHOW(sendfile(fd, epoll_create1(0), NULL, 5));
	SHOW(sendfile(fd, open("/tmp", O_RDONLY | O_DIRECTORY), NULL, 5));
	SHOW(sendfile(fd, open("/dev/zero", O_RDONLY), NULL, 5));
	PEER(char b[5]; SHOW(recv(fd, b, 5, MSG_WAITALL)));
}

CASE(from_a_pipe, BOTH)
{
	int p[2];
	if (pipe(p)) ct_die("pipe");
	write(p[1], "piped", 5);
	SHOW(sendfile(fd, p[0], NULL, 5));
	PEER(send(fd, "x", 1, 0));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(wrong_descriptors, BOTH)
{
	int file = file_of(10), write_only = open("/dev/null", O_WRONLY), append = open("/dev/null", O_WRONLY | O_APPEND);
	SHOW(sendfile(fd, -1, NULL, 5));
	SHOW(sendfile(fd, 880, NULL, 5));
	SHOW(sendfile(880, file, NULL, 5));
	SHOW(sendfile(fd, write_only, NULL, 5));
	SHOW(sendfile(append, file, NULL, 5));
	SHOW(sendfile(write_only, file, NULL, 5));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)); send(fd, "y", 1, 0));
	SHOW(read(fd, &(char){0}, 1));
}

CASE(of_a_file_that_is_a_socket, BOTH)
{
	int out = open("/dev/null", O_WRONLY);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	SHOW(sendfile(out, fd, NULL, 3));
	SHOW(read(fd, (char[8]){0}, 8));
}

CASE(after_shutdown, BOTH)
{
	int file = file_of(10);
	signal(SIGPIPE, SIG_IGN);
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(sendfile(fd, file, NULL, 5));
	SHOW(position(file));
	SHOW(sendfile(fd, file, NULL, 0));
}

CASE(unconnected, ALONE | KERNEL_ONLY)
{
	int file = file_of(10), s = ct_socket(SOCK_STREAM);
	signal(SIGPIPE, SIG_IGN);
	SHOW(sendfile(s, file, NULL, 5));
	SHOW(position(file));
}

CASE(while_the_file_ends, BOTH)
{
	int file = file_of(100000);
	off_t at = 99990;
	SHOW(sendfile(fd, file, &at, 100));
	SHOW(at);
	SHOW(ftruncate(file, 50));
	at = 20;
	SHOW(sendfile(fd, file, &at, 100));
	SHOW(at);
	PEER(char b[64]; SHOW(recv(fd, b, 40, MSG_WAITALL)));
}

CASE(timeout, BOTH)
{
	int file = file_of(1 << 20);
	off_t at;
	struct timeval t = {0, 100000};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	long n;
	for (int failures = 0; failures < 3;) /* the last times nothing moves for as long as that */
		if (at = 0, (n = sendfile(fd, file, &at, 1 << 20)) < 0) failures++;
	SHOW(n < 0);
	TIMED(sendfile(fd, file, &at, 1 << 20), 100);
	SHOW(at);
}
