/* Reading and writing at an offset, which no socket has; and the v2 forms, which have flags. */
#include "ct.h"

CASE(there_is_no_offset, BOTH | CONNECTED)
{
	char b[8] = "abcdefg";
	struct iovec v = {b, 5};
	SHOW(pread(fd, b, 5, 0));
	SHOW(pread(fd, b, 0, 0));
	SHOW(pread(fd, b, 5, -1));
	SHOW(pwrite(fd, b, 5, 0));
	SHOW(pwrite(fd, b, 5, -1));
	SHOW(preadv(fd, &v, 1, 0));
	SHOW(preadv(fd, &v, 1, -1));
	SHOW(pwritev(fd, &v, 1, 7));
	int many = 2000; /* the compiler knows better */
	__asm__("" : "+r"(many));
	SHOW(pwritev(fd, &v, many, 0));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(pread64(fd, b, 5, 0));
	SHOW(pwritev64(fd, &v, 1, 0));
	SHOW(send(fd, b, 5, 0));
	PEER(char b[8]; SHOW(recv(fd, b, 5, 0)); SHOW(send(fd, b, 5, 0)));
	SHOW(recv(fd, b, 5, 0));
}

CASE(v2_without_offset, BOTH | BOTH6 | CONNECTED)
{
	char a[4] = {0}, b[8] = {0};
	struct iovec v[2] = {{a, 3}, {b, 5}}, w[2] = {{(void *)"ab", 2}, {(void *)"cdef", 4}};
	PEER(SHOW(send(fd, "hello", 5, 0)));
	SHOW(preadv2(fd, v, 2, -1, 0));
	SAY("%s %s", a, b);
	SHOW(pwritev2(fd, w, 2, -1, 0));
	PEER(char b[8]; SHOW(recv(fd, b, 6, 0)));
}

CASE(v2_nowait, BOTH | CONNECTED)
{
	char b[8];
	struct iovec v = {b, 5};
	SHOW(preadv2(fd, &v, 1, -1, RWF_NOWAIT));
	PEER(SHOW(send(fd, "hello", 5, 0)));
	SETTLE();
	SHOW(preadv2(fd, &v, 1, -1, RWF_NOWAIT));
	SHOW(pwritev2(fd, &v, 1, -1, RWF_NOWAIT));
	PEER(char b[8]; SHOW(recv(fd, b, 5, 0)));
}

CASE(v2_flags, BOTH)
{
	char b[8];
	struct iovec v = {b, 5};
	fcntl(fd, F_SETFL, O_NONBLOCK);
	SHOW(preadv2(fd, &v, 1, -1, RWF_HIPRI));
	SHOW(preadv2(fd, &v, 1, -1, RWF_APPEND | RWF_DSYNC | RWF_SYNC));
	SHOW(preadv2(fd, &v, 1, -1, 0x10000));
	SHOW(preadv2(fd, &v, 0, -1, 0x10000));
	int less = -1;
	__asm__("" : "+r"(less));
	SHOW(preadv2(fd, &v, less, -1, 0));
	SHOW(preadv2(fd, &v, 1, 0, 0));
	SHOW(preadv2(fd, &v, 1, -2, 0));
	SHOW(preadv2(fd, &v, 1, 0, 0x10000));
	SHOW(pwritev2(fd, &v, 1, 3, 0));
	SHOW(pwritev2(fd, &v, 1, -1, 0x10000));
	SHOW(pwritev2(fd, &v, 1, -1, RWF_SYNC | RWF_DSYNC));
	PEER(char b[8]; SHOW(recv(fd, b, 5, 0)));
}

CASE(files_keep_theirs, BOTH)
{
	int f = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	char b[8] = {0};
	struct iovec v = {b, 3};
	SHOW(pwrite(f, "abcdef", 6, 0));
	SHOW(pread(f, b, 3, 2));
	SHOW(preadv2(f, &v, 1, 1, 0));
	SHOW(preadv2(f, &v, 1, -1, 0));
	SHOW(lseek(f, 0, SEEK_CUR));
	ct_show_bytes("b", b, 3);
	SHOW(write(fd, "x", 1));
	PEER(char b[8]; SHOW(recv(fd, b, 1, 0)));
}

static void on_abort(int s)
{
	(void)s;
	static const char text[] = "aborted\n";
	if (write(1, text, sizeof text - 1) < 0) _exit(2);
	_exit(0);
}

/* The fortified forms end a program that reads more than its buffer holds. */
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __pread_chk(int, void *, size_t, off_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
int __poll_chk(struct pollfd *, nfds_t, int, size_t);
int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

CASE(fortified_forms, BOTH)
{
	char b[8];
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec t = {1, 0};
	PEER(SHOW(send(fd, "abcdefgh", 8, 0)));
	SHOW(__poll_chk(&p, 1, 1000, sizeof p));
	SHOW(__ppoll_chk(&p, 1, &t, NULL, sizeof p));
	SHOW(__read_chk(fd, b, 2, 8));
	SHOW(__recv_chk(fd, b, 2, 8, 0));
	SHOW(__recvfrom_chk(fd, b, 2, 8, 0, NULL, NULL));
	SHOW(__pread_chk(fd, b, 2, 0, 8));
	for (int which = 0; which < 6; which++) {
		pid_t c = fork();
		if (!c) {
			close(2);
			signal(SIGABRT, on_abort);
			if (which == 0) __read_chk(fd, b, 9, 8);
			if (which == 1) __recv_chk(fd, b, 9, 8, MSG_DONTWAIT);
			if (which == 2) __recvfrom_chk(fd, b, 9, 8, MSG_DONTWAIT, NULL, NULL);
			if (which == 3) __pread_chk(fd, b, 9, 0, 8);
			if (which == 4) __poll_chk(&p, 2, 0, sizeof p);
			if (which == 5) __ppoll_chk(&p, 2, &t, NULL, sizeof p);
			_exit(1);
		}
		int status;
		waitpid(c, &status, 0);
		SAY("%d: %d", which, status);
	}
	SHOW(read(fd, b, 8));
}
