/* Descriptors of a connection: dup, dup2, close in another process, close_range, sendfile, EINTR. */
#include "ct.h"

static void peer(int fd)
{
	char b[70000];
	if (recv(fd, b, 6, MSG_WAITALL) != 6 || memcmp(b, "abcdef", 6)) _exit(1);
	if (recv(fd, b, 65536, MSG_WAITALL) != 65536) _exit(2);
	for (int i = 0; i < 65536; i++)
		if (b[i] != (char)(i * 7 + 3)) _exit(3);
	ct_tell();
	if (recv(fd, b, 1, 0) != 0) _exit(4); /* FIN only with the last close */
}

static void on_alarm(int s)
{
	(void)s;
}

CASE(session, ALONE)
{
	int l = ct_listen(ct_here(1));
	PEER_LATER(peer(ct_connect(ct_here(1))));
	fd = accept(l, NULL, NULL);
	int d = dup(fd);
	SHOW(write(d, "ab", 2));
	SHOW(close(fd));
	SHOW(write(d, "cd", 2));
	int z = open("/dev/zero", O_RDONLY);
	SHOW_OK(dup2(d, z));
	SHOW(close(d));
	pid_t c = fork();
	if (!c) _exit(write(z, "ef", 2) == 2 ? 0 : 1);
	int status;
	waitpid(c, &status, 0);
	printf("child: %d\n", WEXITSTATUS(status));

	FILE *f = tmpfile();
	for (int i = 0; i < 65536 + 100; i++) fputc((char)((i - 100) * 7 + 3), f);
	fflush(f);
	off_t off = 100;
	long left = 65536;
	while (left > 0) {
		ssize_t n = sendfile(z, fileno(f), &off, left);
		if (n <= 0) ct_die("sendfile");
		left -= n;
	}
	printf("offset %ld, position %ld\n", (long)off, (long)lseek(fileno(f), 0, SEEK_CUR));
	SHOW(sendfile(z, fileno(f), &off, 10));
	ct_wait();

	struct sigaction s = {.sa_handler = on_alarm};
	sigaction(SIGALRM, &s, NULL);
	alarm(1);
	char b;
	SHOW(read(z, &b, 1));
	struct pollfd pf = {z, POLLIN, 0};
	alarm(1);
	SHOW(poll(&pf, 1, -1));
	SHOW(poll(&pf, 1, 30));
	SHOW_OK(close_range(z, ~0U, 0));
	SHOW(write(z, "x", 1));
	PEER_WAIT();
}
