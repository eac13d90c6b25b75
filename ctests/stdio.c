/* Streams (FILE) upon sockets: fdopen, dprintf, the standard streams on a socket's number, freopen. */
#include "ct.h"
#include <err.h>
#include <stdarg.h>
#include <stdio_ext.h>

CASE(write_stream, BOTH | BOTH6)
{
	FILE *f = fdopen(fd, "w");
	SHOW(fileno(f) == fd);
	SHOW(fprintf(f, "%s %d %.2f\n", "text", 42, 2.5));
	PEER(char b[32]; SHOW(recv(fd, b, 32, MSG_DONTWAIT)));
	SHOW(fflush(f));
	PEER(char b[32]; SHOW(recv(fd, b, 13, MSG_WAITALL)); ct_show_bytes("peer", b, 13));
	SHOW(fputs("last", f));
	SHOW(fclose(f));
	PEER(char b[32]; SHOW(recv(fd, b, 32, MSG_WAITALL)); SHOW(recv(fd, b, 32, 0)));
	SHOW(close(fd));
}

CASE(read_lines, BOTH | BOTH6)
{
	FILE *f = fdopen(fd, "r");
	char *line = NULL, b[16];
	size_t room = 0;
	PEER(SHOW(send(fd, "one\ntwo\nthr", 11, 0)));
	SHOW(getline(&line, &room, f));
	ct_show_bytes("line", line, 4);
	SHOW(fgets(b, sizeof b, f) == b);
	ct_show_bytes("line", b, 4);
	PEER(SHOW(send(fd, "ee\nend", 6, 0)); shutdown(fd, SHUT_WR));
	SHOW(fscanf(f, "%15s", b));
	SHOW(strcmp(b, "three"));
	SHOW(getc(f));
	SHOW(getline(&line, &room, f));
	SHOW(getline(&line, &room, f));
	SHOW(feof(f) != 0);
	SHOW(ferror(f) != 0);
	free(line);
	SHOW(fclose(f));
}

/* As inetd's children and many clients: a stream each way, upon duplicates. */
CASE(a_stream_each_way, BOTH)
{
	FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
	char b[32];
	setlinebuf(out);
	SHOW(fprintf(out, "HELO %d\r\n", 1));
	PEER(char b[32]; SHOW(recv(fd, b, 8, MSG_WAITALL)); SHOW(send(fd, "250 ok\r\n", 8, 0)));
	SHOW(fgets(b, sizeof b, in) == b);
	SHOW(fclose(in));
	SHOW(fprintf(out, "QUIT\r\n"));
	PEER(char b[32]; SHOW(recv(fd, b, 6, MSG_WAITALL)));
	SHOW(fclose(out));
	PEER(char b[32]; SHOW(recv(fd, b, 6, 0)));
}

CASE(read_and_write_in_turn, BOTH)
{
	FILE *f = fdopen(fd, "r+");
	char b[32];
	SHOW(fputs("ping\n", f) >= 0);
	SHOW(fflush(f));
	PEER(char b[32]; SHOW(recv(fd, b, 5, MSG_WAITALL)); SHOW(send(fd, "pong\n", 5, 0)));
	SHOW(fgets(b, sizeof b, f) == b);
	SHOW(fseek(f, 0, SEEK_CUR));
	SHOW(fputs("more\n", f) >= 0);
	SHOW(fflush(f));
	PEER(char b[32]; SHOW(recv(fd, b, 5, MSG_WAITALL)));
	SHOW(ftell(f));
	rewind(f);
	SHOW(fclose(f));
}

CASE(unbuffered_and_big, BOTH)
{
	FILE *f = fdopen(fd, "w");
	static char big[300000];
	setvbuf(f, NULL, _IONBF, 0);
	SHOW(putc('a', f));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	setvbuf(f, NULL, _IOFBF, 0);
	PEER_LATER(static char b[300000]; SHOW(recv(fd, b, sizeof b, MSG_WAITALL)));
	long n = fwrite(big, 1, sizeof big, f);
	int flushed = fflush(f);
	PEER_WAIT();
	SHOW(n);
	SHOW(flushed);
	SHOW(fclose(f));
}

/* A stream that blocks until the peer has read some of what is on its way. */
CASE(blocks_when_full, BOTH)
{
	FILE *f = fdopen(fd, "w");
	int small = 8192;
	static char line[1000];
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	memset(line, 'x', 999);
	PEER_LATER(ct_nap(100); static char b[999 * 3000]; SHOW(recv(fd, b, sizeof b, MSG_WAITALL)));
	long n = 0;
	for (int i = 0; i < 3000; i++) n += fprintf(f, "%s", line);
	int closed = fclose(f);
	PEER_WAIT();
	SHOW(closed);
	SHOW(n);
}

CASE(errors_are_the_sockets, BOTH)
{
	FILE *f = fdopen(fd, "r+");
	char b[8];
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(fgets(b, 8, f) == NULL);
	SHOW(ferror(f) != 0);
	clearerr(f);
	signal(SIGPIPE, SIG_IGN);
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(fputs("x", f) >= 0);
	SHOW(fflush(f));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
	SHOW(fdopen(fd, "q") == NULL);
	SHOW(fdopen(-1, "r") == NULL);
	fclose(f);
}

static int print(int fd, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int n = vdprintf(fd, format, list);
	va_end(list);
	return n;
}

int __dprintf_chk(int, int, const char *, ...);

CASE(dprintf_forms, BOTH | BOTH6 | CONNECTED)
{
	SHOW(dprintf(fd, "%d-%s-%c-%ld-%x-%d\n", 1, "two", '3', 4L, 5, 6));
	PEER(char b[64] = {0}; SHOW(recv(fd, b, 14, 0)); ct_show_bytes("peer", b, 14));
	SHOW(dprintf(fd, "%g %g %g %g %g %g %g %g %g %g\n", 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.5));
	PEER(char b[64] = {0}; SHOW(recv(fd, b, 23, 0)); ct_show_bytes("peer", b, 23));
	SHOW(print(fd, "%s %s %d\n", "a", "b", 3));
	PEER(char b[64] = {0}; SHOW(recv(fd, b, 6, 0)); ct_show_bytes("peer", b, 6));
	SHOW(__dprintf_chk(fd, 1, "%d %d %d %d %d %d\n", 1, 2, 3, 4, 5, 6));
	PEER(char b[64] = {0}; SHOW(recv(fd, b, 12, 0)); SHOW(send(fd, "x", 1, 0)));
	SHOW(dprintf(fd, "%s", ""));
	SHOW(dprintf(-1, "x"));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

CASE(stdout_is_a_socket, BOTH)
{
	int keep = dup(1);
	fflush(stdout);
	SHOW(dup2(fd, 1) == 1); /* its line is on its way to the peer when this returns */
	printf("printed %d\n", 7);
	puts("put");
	putchar('c');
	fwrite("dd", 1, 2, stdout);
	int moved = fileno(stdout);
	fflush(stdout);
	write(1, "raw\n", 4);
	printf("kept in the buffer\n");
	dup2(keep, 1);
	fflush(stdout);
	SHOW(moved);
	PEER(char b[128] = {0}; ct_nap(20); long n = recv(fd, b, sizeof b, 0); ct_show_bytes("peer", b, n));
	PEER(char b[8]; SHOW(recv(fd, b, 8, MSG_DONTWAIT)));
	close(fd);
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}

CASE(stderr_and_stdin_are_sockets, BOTH)
{
	int keep = dup(2), from = dup(0);
	char b[32];
	dup2(fd, 2);
	dup2(fd, 0);
	errno = EBADF;
	perror("oops");
	warnx("%d", 5);
	dup2(keep, 2);
	PEER(char b[128] = {0}; ct_nap(20); long n = recv(fd, b, sizeof b, 0); SAY("%ld", (long)!!strstr(b, "oops: Bad file descriptor\n"));
	     SAY("%d", n > 0 && b[n - 1] == '\n'); send(fd, "line one\nline two\n", 18, 0));
	SHOW(fgets(b, sizeof b, stdin) == b);
	ct_show_bytes("stdin", b, 9);
	SHOW(scanf("%31[^\n]", b));
	ct_show_bytes("stdin", b, 8);
	dup2(from, 0);
	SHOW(fileno(stdin));
}

/* The program said before how its output is buffered, and had read ahead. */
CASE(buffering_stays, BOTH)
{
	fflush(stdout);
	int p[2];
	pipe(p);
	write(p[1], "one\ntwo\n", 8);
	pid_t c = fork();
	if (!c) {
		char line[64];
		dup2(p[0], 0);
		setlinebuf(stdout);
		if (!fgets(line, sizeof line, stdin) || strcmp(line, "one\n")) _exit(1);
		dup2(fd, 0);
		dup2(fd, 1);
		if (!fgets(line, sizeof line, stdin) || strcmp(line, "two\n")) _exit(2);
		while (fgets(line, sizeof line, stdin)) printf("you said %s", line);
		_exit(0); /* which flushes nothing */
	}
	close(fd);
	PEER(char b[64] = {0}; send(fd, "hello\n", 6, 0); SHOW(recv(fd, b, 15, MSG_WAITALL)); ct_show_bytes("peer", b, 15);
	     shutdown(fd, SHUT_WR); SHOW(recv(fd, b, 64, 0)));
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
}

/* Closed as a stream, and again a socket's. */
CASE(standard_streams_come_and_go, SERVER)
{
	int l = ct_listen(ct_here(1)), keep = dup(0);
	char b[16];
	PEER(for (int i = 0; i < 3; i++) { int s = ct_connect(ct_here(1)); char c[] = "0\n"; c[0] += i; send(s, c, 2, 0); });
	for (int i = 0; i < 3; i++) {
		int s = accept(l, NULL, NULL);
		SHOW(dup2(s, 0));
		close(s);
		SHOW(fgets(b, sizeof b, stdin) == b);
		ct_show_bytes("stdin", b, 2);
		if (i == 1) {
			SHOW(dup2(keep, 0));
			SHOW(fileno(stdin));
		}
	}
	SHOW(fclose(stdin));
}

/* inetd: the child has the connection as all three. */
CASE(inetd_child, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		char line[64];
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		close(fd);
		while (fgets(line, sizeof line, stdin)) {
			printf("you said %s", line);
			fflush(stdout);
		}
		printf("bye\n");
		exit(0); /* which flushes */
	}
	close(fd);
	PEER(char b[64] = {0}; send(fd, "hello\n", 6, 0); SHOW(recv(fd, b, 15, MSG_WAITALL)); shutdown(fd, SHUT_WR);
	     SHOW(recv(fd, b, 64, MSG_WAITALL)); ct_show_bytes("peer", b, 4); SHOW(recv(fd, b, 1, 0)));
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
}

/* A new connection may get the number of a standard stream that was closed. */
CASE(accept_as_stdin, SERVER)
{
	int l = ct_listen(ct_here(1));
	char b[16];
	close(0);
	PEER(ct_peer_fd = ct_connect(ct_here(1)); send(ct_peer_fd, "hello\n", 6, 0));
	SHOW(accept(l, NULL, NULL));
	SHOW(fgets(b, sizeof b, stdin) == b);
	ct_show_bytes("stdin", b, 6);
	SHOW(fclose(stdin));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}

CASE(freopen_ends_the_connection, BOTH)
{
	FILE *f = fdopen(fd, "r+");
	char b[8] = {0};
	SHOW(freopen("/dev/zero", "r", f) == f);
	SHOW(fileno(f) == fd);
	SHOW(fread(b, 1, 4, f));
	SHOW(write(fd, "x", 1));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
	SHOW(fclose(f));
	int s = open("/dev/null", O_RDONLY);
	SHOW(s == fd);
}

CASE(freopen_of_a_standard_stream, BOTH)
{
	char text[32] = {0};
	int keep = dup(1), where = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", where);
	fflush(stdout);
	dup2(fd, 1);
	close(fd);
	printf("to the socket\n");
	int same = freopen(path, "w", stdout) != NULL, number = fileno(stdout);
	printf("to the file\n");
	fflush(stdout);
	dup2(keep, 1);
	SHOW(same);
	SHOW(number);
	PEER(char b[32] = {0}; SHOW(recv(fd, b, 14, MSG_WAITALL)); ct_show_bytes("peer", b, 14); SHOW(recv(fd, b, 8, 0)));
	SHOW(pread(where, text, 31, 0));
	ct_show_bytes("file", text, 12);
}

CASE(freopen_that_fails, BOTH)
{
	FILE *f = fdopen(fd, "r+");
	SHOW(freopen("/nowhere/at/all", "r", f) == NULL);
	SHOW(fcntl(fd, F_GETFD));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}

CASE(what_exit_flushes, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		FILE *f = fdopen(fd, "w");
		fprintf(f, "last words");
		exit(0);
	}
	waitpid(c, NULL, 0);
	PEER(char b[16]; SHOW(recv(fd, b, 10, MSG_WAITALL)); ct_show_bytes("peer", b, 10));
}

/* A stream that is made before the socket connects. */
CASE(stream_before_connect, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address to = ct_there(1);
	int s = ct_socket(SOCK_STREAM);
	FILE *f = fdopen(s, "r+");
	SHOW(fileno(f) == s);
	SHOW(connect(s, AT(to)));
	SHOW(fprintf(f, "hello"));
	SHOW(fflush(f));
	PEER(int c = accept(fd, NULL, NULL); char b[8]; SHOW(recv(c, b, 5, MSG_WAITALL)); close(fd); ct_peer_fd = c);
	SHOW(fclose(f));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}

CASE(files_are_files, BOTH)
{
	FILE *f = tmpfile(), *g = fdopen(dup(fileno(f)), "r+");
	char b[16];
	SHOW(fprintf(f, "text\n"));
	SHOW(fflush(f));
	rewind(g);
	SHOW(fgets(b, sizeof b, g) == b);
	SHOW(ftell(g));
	SHOW(fclose(g));
	SHOW(dprintf(fileno(f), "%d\n", 5));
	SHOW(fclose(f));
	SHOW(write(fd, "x", 1));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}
