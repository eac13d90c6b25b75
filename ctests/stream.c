/* One accepted connection: data, flags, addresses, options, the end. */
#include "ct.h"

static void peer(int fd)
{
	char b[256];
	if (send(fd, "hello", 5, 0) != 5) _exit(1);
	ct_wait();
	if (recv(fd, b, sizeof b, MSG_PEEK) < 1) _exit(1);
	if (recv(fd, b, 11, MSG_WAITALL) != 11 || memcmp(b, "one two six", 11)) _exit(2);
	if (send(fd, "abcdefgh", 8, 0) != 8) _exit(1);
	ct_tell();
	ct_wait();
	shutdown(fd, SHUT_WR);
	if (recv(fd, b, sizeof b, MSG_WAITALL) != 4 || memcmp(b, "last", 4)) _exit(3);
	ct_tell();
	close(fd);
}

CASE(session, ALONE)
{
	signal(SIGPIPE, SIG_IGN);
	int l = ct_listen(ct_here(1)), n = 0;
	PEER_LATER(peer(ct_connect(ct_here(1))));
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	fd = accept(l, (struct sockaddr *)&a, &len);
	printf("accept: family %d, length %u\n", a.sin_family, len);
	char b[64] = {0};
	SHOW(recv(fd, b, 5, MSG_WAITALL));
	printf("%s\n", b);
	SHOW(recv(fd, b, 5, MSG_DONTWAIT));
	SHOW(recv(fd, b, 5, MSG_OOB));
	SHOW(recv(fd, b, 5, MSG_ERRQUEUE));
	SHOW(read(fd, b, 0));
	len = sizeof a;
	SHOW(getsockname(fd, (struct sockaddr *)&a, &len));
	printf("port +%d, length %u\n", ntohs(a.sin_port) - ct_port(0), len);
	len = 4;
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	printf("length %u\n", len);
	struct iovec v[3] = {{"one ", 4}, {"", 0}, {"two ", 4}};
	SHOW(writev(fd, v, 3));
	SHOW(send(fd, "s", 1, MSG_MORE));
	SHOW(write(fd, "ix", 2));
	ct_tell();
	ct_wait();
	SHOW(recv(fd, b, 3, MSG_PEEK));
	SHOW(ioctl(fd, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	SHOW(recv(fd, NULL, 2, MSG_TRUNC));
	struct iovec r[2] = {{b, 2}, {b + 2, 10}};
	struct msghdr m = {.msg_iov = r, .msg_iovlen = 2};
	SHOW(recvmsg(fd, &m, 0));
	printf("%.6s, flags %d\n", b, m.msg_flags);
	SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(read(fd, b, 1));
	n = 0;
	SHOW(ioctl(fd, FIONBIO, &n));
	SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
	struct timeval t = {0, 50000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	SHOW(read(fd, b, 1));
	struct stat st;
	SHOW(fstat(fd, &st));
	printf("socket: %d\n", S_ISSOCK(st.st_mode));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(listen(fd, 1));
	ct_tell();
	t.tv_usec = 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	SHOW(read(fd, b, 1));
	SHOW(read(fd, b, 1));
	struct pollfd pf = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
	SHOW(poll(&pf, 1, 1000));
	printf("revents %#x\n", pf.revents);
	SHOW(write(fd, "last", 4));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(write(fd, "x", 1));
	ct_wait();
	ct_nap(100);
	pf.revents = 0;
	SHOW(poll(&pf, 1, 1000));
	printf("revents %#x\n", pf.revents);
	SHOW(shutdown(fd, SHUT_RDWR));
	len = sizeof n;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &n, &len));
	printf("SO_ERROR %d\n", n);
	SHOW(close(fd));
	SHOW(close(fd));
	SHOW(read(fd, b, 1));
	PEER_WAIT();
}

/* ---- reading ---- */

CASE(partial_reads, BOTH | BOTH6)
{
	char b[16] = {0};
	PEER(send(fd, "abcdefghij", 10, 0));
	SHOW(read(fd, b, 3));
	SHOW(recv(fd, b + 3, 4, 0));
	SHOW(read(fd, b + 7, 9));
	ct_show_bytes("all", b, 10);
	SHOW(recv(fd, b, 1, MSG_DONTWAIT));
}

CASE(wait_for_all, BOTH | BOTH6)
{
	char b[32] = {0};
	PEER_LATER(send(fd, "abc", 3, 0); ct_nap(40); send(fd, "defg", 4, 0); ct_nap(40); send(fd, "hij", 3, 0));
	SHOW(recv(fd, b, 8, MSG_WAITALL));
	ct_show_bytes("got", b, 8);
	PEER(send(fd, "klm", 3, 0); shutdown(fd, SHUT_WR));
	SHOW(recv(fd, b, 20, MSG_WAITALL)); /* the end comes first */
	SHOW(recv(fd, b, 20, MSG_WAITALL));
}

CASE(wait_for_all_peeking, BOTH)
{
	char b[16] = {0};
	PEER_LATER(send(fd, "abc", 3, 0); ct_nap(100); send(fd, "def", 3, 0); ct_nap(20));
	SHOW(recv(fd, b, 3, MSG_PEEK | MSG_WAITALL));
	SHOW(recv(fd, b, 6, MSG_PEEK | MSG_WAITALL));
	PEER_WAIT();
	SHOW(recv(fd, b, 6, MSG_PEEK));
	SHOW(recv(fd, b, 16, MSG_WAITALL | MSG_DONTWAIT));
	SHOW(recv(fd, b, 16, MSG_WAITALL | MSG_DONTWAIT));
}

CASE(wait_for_all_until_timeout, BOTH)
{
	char b[16];
	struct timeval t = {0, 100000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	PEER(send(fd, "abc", 3, 0));
	TIMED(recv(fd, b, 8, MSG_WAITALL), 100);
	TIMED(recv(fd, b, 8, MSG_WAITALL), 100);
}

CASE(wait_for_all_until_reset, BOTH)
{
	char b[16];
	PEER(send(fd, "abc", 3, 0));
	PEER_LATER(ct_nap(50); struct linger g = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(fd));
	SHOW(recv(fd, b, 8, MSG_WAITALL));
	SHOW(recv(fd, b, 8, MSG_WAITALL));
	SHOW(recv(fd, b, 8, MSG_WAITALL));
}

CASE(peek, BOTH | BOTH6)
{
	char b[16] = {0};
	PEER(send(fd, "abcdef", 6, 0));
	SHOW(recv(fd, b, 2, MSG_PEEK));
	SHOW(recv(fd, b, 16, MSG_PEEK));
	SHOW(recv(fd, b, 2, MSG_PEEK | MSG_TRUNC));
	SHOW(recv(fd, b, 16, 0));
	SHOW(recv(fd, b, 1, MSG_PEEK | MSG_DONTWAIT));
	PEER(shutdown(fd, SHUT_WR));
	SHOW(recv(fd, b, 1, MSG_PEEK));
	SHOW(recv(fd, b, 1, MSG_PEEK));
}

CASE(peek_over_several_buffers, BOTH | BOTH6)
{
	char b[32] = {0};
	struct iovec v[4] = {{b, 2}, {NULL, 0}, {b + 10, 3}, {b + 20, 8}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 4};
	PEER(send(fd, "abcd", 4, 0); ct_nap(10); send(fd, "efghij", 6, 0));
	/* The second waits for the acknowledgement of the first (Nagle), which may be delayed. */
	for (int n = 0, tries = 0; n < 10 && tries < 300; tries++, ct_nap(10)) ioctl(fd, FIONREAD, &n);
	SHOW(recvmsg(fd, &m, MSG_PEEK));
	ct_show_bytes("first", b, 2);
	ct_show_bytes("second", b + 10, 3);
	ct_show_bytes("third", b + 20, 8);
	memset(b, 0, sizeof b);
	SHOW(readv(fd, v, 4));
	ct_show_bytes("read", b, 32);
}

static long big_peek(int fd)
{
	static unsigned char b[200000];
	struct iovec v[3] = {{b, 1000}, {b + 1000, 50000}, {b + 51000, 9000}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
	long n = recvmsg(fd, &m, MSG_PEEK | MSG_WAITALL), right = 0;
	for (long i = 0; i < n; i++) right += b[i] == (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 16) * 5);
	return right;
}

CASE(peek_over_much, BOTH)
{
	PEER(ct_send_all(fd, 60000));
	SHOW(big_peek(fd));
	SHOW(ct_recv_all(fd, 60000));
}

CASE(into_nothing, BOTH)
{
	char b[16];
	PEER(send(fd, "abcdefgh", 8, 0));
	SHOW(recv(fd, NULL, 3, MSG_TRUNC));
	SHOW(recv(fd, b, 2, MSG_TRUNC));
	memset(b, '.', sizeof b);
	SHOW(recv(fd, b, 16, MSG_TRUNC | MSG_PEEK));
	ct_show_bytes("untouched", b, 3);
	SHOW(recv(fd, NULL, 2, MSG_TRUNC | MSG_PEEK));
	SHOW(read(fd, b, 16));
	ct_show_bytes("rest", b, 3);
}

CASE(nothing_asked_for, BOTH | BOTH6)
{
	char b[4];
	struct iovec v[2] = {{b, 0}, {NULL, 0}};
	struct msghdr none = {.msg_iov = NULL, .msg_iovlen = 0}, empty = {.msg_iov = v, .msg_iovlen = 2};
	SHOW(read(fd, b, 0)); /* and nothing is there */
	SHOW(recv(fd, b, 0, MSG_DONTWAIT));
	SHOW(readv(fd, v, 2));
	SHOW(readv(fd, v, 0));
	SHOW(recvmsg(fd, &none, MSG_DONTWAIT));
	SHOW(recvmsg(fd, &empty, MSG_DONTWAIT));
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 0, 0));
	SHOW(recv(fd, NULL, 0, 0));
	SHOW(recvmsg(fd, &none, 0));
	SHOW(recvmsg(fd, &empty, 0));
	SHOW(read(fd, b, 4));
	SHOW(write(fd, b, 0));
	SHOW(send(fd, NULL, 0, 0));
	SHOW(writev(fd, v, 2));
	SHOW(writev(fd, v, 0));
	SHOW(sendmsg(fd, &none, 0));
	SHOW(sendmsg(fd, &empty, 0));
	PEER(char b[4]; SHOW(recv(fd, b, 4, MSG_DONTWAIT)));
}

/* Nothing to do is a success only while there is a connection to do it on. */
CASE(nothing_asked_for_after_the_end, BOTH)
{
	char b[4];
	signal(SIGPIPE, SIG_IGN);
	PEER(close(fd); ct_peer_fd = -1);
	SETTLE();
	SHOW(recv(fd, b, 0, 0));
	SHOW(write(fd, b, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(write(fd, b, 0));
	SHOW(send(fd, b, 0, 0));
	struct iovec v[2] = {{b, 0}, {NULL, 0}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	SHOW(writev(fd, v, 2));
	SHOW(writev(fd, v, 1));
	SHOW(sendmsg(fd, &m, 0));
}

/* It waits until there is something, and leaves it there. */
CASE(nothing_asked_for_waits, BOTH)
{
	char b[4];
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	long before = ct_now_ms();
	SHOW(recv(fd, b, 0, 0));
	SAY("waited: %d", ct_now_ms() - before > 50);
	SHOW(recv(fd, b, 4, 0));
}

CASE(nothing_asked_for_unconnected, ALONE | KERNEL_ONLY)
{
	char b[4];
	int s = ct_socket(SOCK_STREAM);
	signal(SIGPIPE, SIG_IGN);
	SHOW(read(s, b, 0));
	SHOW(recv(s, b, 0, 0));
	SHOW(write(s, b, 0));
	SHOW(send(s, b, 0, 0));
	SHOW(read(s, b, 4));
	SHOW(write(s, b, 4));
	SHOW(send(s, b, 4, 0));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
}

CASE(scattered, BOTH | BOTH6)
{
	char b[64];
	struct iovec out[5] = {{"ab", 2}, {"", 0}, {"cdefg", 5}, {NULL, 0}, {"h", 1}}, in[4] = {{b, 1}, {b + 8, 0}, {b + 16, 4}, {b + 32, 20}};
	struct msghdr m = {.msg_iov = out, .msg_iovlen = 5};
	memset(b, '.', sizeof b);
	SHOW(writev(fd, out, 5));
	SHOW(sendmsg(fd, &m, 0));
	PEER(char b[17] = {0}; SHOW(recv(fd, b, 16, MSG_WAITALL)); SAY("%s", b); send(fd, "0123456789", 10, 0));
	SHOW(readv(fd, in, 4));
	ct_show_bytes("in its places", b, 48);
}

CASE(too_many_buffers, BOTH)
{
	static struct iovec v[1025];
	static char octets[1025], b[8];
	for (int i = 0; i < 1025; i++) v[i] = (struct iovec){octets + i, 1};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 1025};
	SHOW(writev(fd, v, 1025));
	SHOW(writev(fd, v, -1));
	SHOW(readv(fd, v, 1025));
	SHOW(readv(fd, v, -1));
	SHOW(sendmsg(fd, &m, 0));
	SHOW(recvmsg(fd, &m, MSG_DONTWAIT));
	SHOW(writev(fd, v, 1024));
	PEER(static char b[1024]; SHOW(recv(fd, b, 1024, MSG_WAITALL)); send(fd, b, 1024, 0));
	SETTLE();
	SHOW(readv(fd, v, 1024));
	v[0].iov_len = -1;
	SHOW(writev(fd, v, 2));
	SHOW(readv(fd, v, 2));
	SHOW(recv(fd, b, 8, MSG_DONTWAIT));
}

static char *megabytes(void)
{
	static char *m;
	if (!m) m = calloc(1, 4 << 20);
	return m;
}

CASE(long_counts, BOTH)
{
	PEER(send(fd, "0123456789", 10, 0));
	/* More than there is memory behind: what arrives is what counts. */
	SHOW(read(fd, megabytes(), 4 << 20));
	PEER(send(fd, "0123456789", 10, 0));
	SHOW(recv(fd, megabytes(), 0x7fffffff, 0));
	PEER(send(fd, "0123456789", 10, 0));
	SHOW(recv(fd, megabytes(), (size_t)-1, 0));
	SHOW(read(fd, megabytes(), (size_t)-1));
	SHOW(write(fd, megabytes(), (size_t)-1));
}

/* ---- writing ---- */

CASE(full_buffers, BOTH | BOTH6)
{
	long sent = 0, n;
	int unsent;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while ((n = write(fd, megabytes(), 65536)) > 0) sent += n;
	SAY("full: %ld %s, more than 100 kB: %d", n, strerrorname_np(errno), sent > 100000);
	ct_show_poll(fd, POLLIN | POLLOUT, 50);
	SHOW(send(fd, "x", 1, MSG_DONTWAIT));
	SHOW(ioctl(fd, TIOCOUTQ, &unsent));
	PEER_WITH(sent, ct_drain(fd, arg));
	ct_show_poll(fd, POLLIN | POLLOUT, 500);
	SHOW(write(fd, "x", 1));
}

CASE(blocks_until_there_is_room, BOTH)
{
	ct_fill(fd);
	PEER_LATER(ct_nap(100); ct_drain(fd, 1L << 40));
	SHOW(write(fd, megabytes(), 4 << 20)); /* all of it, however long that takes */
	SHOW(shutdown(fd, SHUT_WR));
}

CASE(send_timeout, BOTH)
{
	struct timeval t = {0, 100000};
	PEER(ct_keep_small(fd));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	ct_fill(fd);
	TIMED(write(fd, "x", 1), 100);
	SHOW(write(fd, megabytes(), 1));
}

CASE(much_in_both_directions, BOTH | BOTH6)
{
	PEER_LATER(if (ct_recv_all(fd, 3000000) != 3000000) SAY("wrong"); ct_send_all(fd, 3000000));
	ct_send_all(fd, 3000000);
	SHOW(ct_recv_all(fd, 3000000));
}

static volatile int pipes;
static void on_pipe(int s) { pipes += s == SIGPIPE; }

CASE(broken_pipe, BOTH | BOTH6)
{
	signal(SIGPIPE, on_pipe);
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(write(fd, "x", 1));
	SHOW(pipes);
	SHOW(send(fd, "x", 1, 0));
	SHOW(pipes);
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(pipes);
	struct iovec v = {"x", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	SHOW(writev(fd, &v, 1));
	SHOW(pipes);
	SHOW(sendmsg(fd, &m, 0));
	SHOW(pipes);
	SHOW(sendmsg(fd, &m, MSG_NOSIGNAL));
	SHOW(pipes);
	SHOW(sendfile(fd, open("/proc/self/exe", O_RDONLY), NULL, 10));
	SHOW(pipes);
}

CASE(broken_pipe_kills, BOTH)
{
	shutdown(fd, SHUT_WR);
	int status = 0;
	pid_t child = fork();
	if (!child) {
		write(fd, "x", 1);
		_exit(0);
	}
	waitpid(child, &status, 0);
	SAY("signal %d", WTERMSIG(status));
}

CASE(broken_pipe_blocked, BOTH)
{
	sigset_t pipe, pending;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigprocmask(SIG_BLOCK, &pipe, NULL);
	shutdown(fd, SHUT_WR);
	SHOW(write(fd, "x", 1));
	sigpending(&pending);
	SHOW(sigismember(&pending, SIGPIPE));
}

CASE(to_a_name, BOTH)
{
	struct ct_address a = ct_there(5);
	SHOW(sendto(fd, "ab", 2, 0, AT(a))); /* a stream does not look at it */
	SHOW(sendto(fd, "cd", 2, 0, &a.a, 3));
	PEER(char b[8]; SHOW(recv(fd, b, 4, MSG_WAITALL)); send(fd, "x", 1, 0));
	a.len = sizeof a.all;
	SHOW(recvfrom(fd, &(char){0}, 1, 0, &a.a, &a.len));
	SHOW(a.len);
}

CASE(several_messages, BOTH)
{
	struct iovec v[3] = {{"ab", 2}, {"cde", 3}, {"f", 1}};
	struct mmsghdr m[3];
	char b[3][4];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 3; i++) m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	SHOW(sendmmsg(fd, m, 3, 0));
	SAY("%u %u %u", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	PEER(char b[8]; SHOW(recv(fd, b, 6, MSG_WAITALL)); send(fd, "0123456", 7, 0));
	SETTLE();
	for (int i = 0; i < 3; i++) v[i] = (struct iovec){b[i], 4};
	SHOW(recvmmsg(fd, m, 3, MSG_WAITFORONE, NULL));
	SAY("%u %u", m[0].msg_len, m[1].msg_len);
	SHOW(recvmmsg(fd, m, 3, MSG_DONTWAIT, NULL));
	SHOW(sendmmsg(fd, m, 0, 0));
}

CASE(message_flags, BOTH)
{
	char b[8], control[64];
	struct iovec v = {b, 8};
	struct ct_address a;
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &a.all, .msg_namelen = sizeof a.all,
			   .msg_control = control, .msg_controllen = sizeof control, .msg_flags = -1};
	PEER(send(fd, "0123", 4, 0));
	SHOW(recvmsg(fd, &m, 0));
	SAY("name %u, control %zu, flags %#x", m.msg_namelen, m.msg_controllen, m.msg_flags);
	m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_flags = -1};
	PEER(send(fd, "0123", 4, 0));
	SHOW(recvmsg(fd, &m, MSG_CMSG_CLOEXEC));
	SAY("flags %#x", m.msg_flags);
}

CASE(low_water_mark, BOTH | BOTH6)
{
	char b[16];
	int five = 5;
	struct timeval t = {0, 150000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &five, sizeof five));
	PEER(send(fd, "abc", 3, 0));
	ct_show_poll(fd, POLLIN, 50);
	SHOW(recv(fd, b, 16, MSG_DONTWAIT)); /* who does not wait gets what is there */
	PEER(send(fd, "abc", 3, 0));
	PEER_LATER(ct_nap(80); send(fd, "defgh", 5, 0)); /* as many again: Linux counts from where it has read to */
	SHOW(recv(fd, b, 16, 0));
	PEER(send(fd, "abc", 3, 0));
	SHOW(recv(fd, b, 2, 0)); /* less than the mark is asked for */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	TIMED(recv(fd, b, 16, 0), 150);
	PEER(send(fd, "abcd", 4, 0); shutdown(fd, SHUT_WR));
	SHOW(recv(fd, b, 16, 0));
	SHOW(recv(fd, b, 16, 0));
}
