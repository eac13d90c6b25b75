/* Urgent data: the octet out of line and in line, the mark, readiness, and what is refused. */
#include "ct.h"

static int at_mark(int fd)
{
	int at = -1;
	ioctl(fd, SIOCATMARK, &at);
	return at;
}

static void look(const char *what, int fd)
{
	int n = -1;
	struct pollfd p = {fd, POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND, 0};
	poll(&p, 1, 0);
	ioctl(fd, FIONREAD, &n);
	printf("%s: mark %d, sockatmark %d, FIONREAD %d, poll %#x\n", what, at_mark(fd), sockatmark(fd), n, p.revents);
	fflush(stdout);
}

static void show(const char *what, int fd, int len, int flags)
{
	char b[64] = {0};
	errno = 0;
	int n = recv(fd, b, len, flags);
	if (n < 0) printf("%s: %s\n", what, strerrorname_np(errno));
	else printf("%s: %d \"%.*s\"\n", what, n, n, b);
	fflush(stdout);
}

/* The peer sends `urgent` with MSG_OOB behind `before`, then `after`; the process under test waits for all of it. */
static const char *steps[][3] = {
	{"abc", "xyZ", "def"}, {NULL, "1", NULL}, {NULL, "2", NULL}, {NULL, "3", NULL}, {"p", "4", NULL},
	{NULL, "5", NULL}, {NULL, "abcD", "e"}, {NULL, "q", "r"}, {"ab", "C", "de"}, {NULL, "s", NULL},
};

static void peer(int fd)
{
	char b[16];
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
		ct_wait();
		for (int part = 0; part < 3; part++) {
			const char *s = steps[i][part];
			if (s && send(fd, s, strlen(s), part == 1 ? MSG_OOB : 0) != (int)strlen(s)) _exit(1);
		}
		ct_nap(30);
		ct_tell();
	}
	/* What the process under test sends: two octets, the second of them urgent, then one more. */
	ct_wait();
	struct pollfd p = {fd, POLLPRI, 0};
	if (poll(&p, 1, 2000) != 1 || !(p.revents & POLLPRI)) _exit(2);
	if (recv(fd, b, 1, MSG_OOB) != 1 || b[0] != 'V') _exit(3);
	if (recv(fd, b, sizeof b, 0) != 1 || b[0] != 'u' || !at_mark(fd)) _exit(4);
	if (recv(fd, b, sizeof b, 0) != 1 || b[0] != 'w') _exit(5);
	if (send(fd, "y", 1, MSG_OOB) != 1 || shutdown(fd, SHUT_WR)) _exit(6);
	ct_nap(30);
	ct_tell();
	ct_wait();
}

static void step(void)
{
	ct_tell();
	ct_wait();
}

CASE(session, ALONE)
{
	signal(SIGPIPE, SIG_IGN);
	int l = ct_listen(ct_here(1)), one = 1;
	PEER_LATER(peer(ct_connect(ct_here(1))));
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	char b[64];
	look("at first", fd);
	show("oob without a mark", fd, 1, MSG_OOB);
	step();
	look("three sends", fd);
	show("peek", fd, 60, MSG_PEEK);
	show("peek oob", fd, 1, MSG_OOB | MSG_PEEK);
	show("wait for all, up to the mark", fd, 60, MSG_WAITALL);
	look("at the mark", fd);
	show("peek over it", fd, 60, MSG_PEEK);
	show("oob", fd, 10, MSG_OOB);
	look("fetched", fd);
	show("oob again", fd, 10, MSG_OOB);
	show("behind the mark", fd, 60, 0);
	look("passed", fd);
	step();
	look("alone", fd);
	show("only the urgent octet", fd, 10, 0);
	look("passed over", fd);
	show("oob", fd, 1, MSG_OOB);
	step();
	show("oob", fd, 1, MSG_OOB);
	look("fetched, at the mark", fd);
	step();
	look("the next one", fd);
	step();
	look("and one more", fd);
	show("before it", fd, 10, 0);
	step();
	show("the newest", fd, 1, MSG_OOB);
	show("in line", fd, 10, 0);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one));
	int v = -1;
	socklen_t len = sizeof v;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &v, &len));
	printf("SO_OOBINLINE %d (%u)\n", v, len);
	step();
	look("in line", fd);
	show("oob", fd, 1, MSG_OOB);
	show("to the mark", fd, 10, 0);
	look("at the mark", fd);
	show("over it", fd, 10, 0);
	look("passed", fd);
	one = 0;
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
	step();
	struct iovec v2[2] = {{b, 1}, {b + 1, 10}};
	struct msghdr m = {.msg_iov = v2, .msg_iovlen = 2};
	SHOW(recvmsg(fd, &m, MSG_OOB));
	printf("%c, MSG_OOB %d\n", b[0], m.msg_flags == MSG_OOB);
	SHOW(recvmsg(fd, &m, 0));
	printf("%c, flags %d\n", b[0], m.msg_flags);
	step();
	struct iovec v3[2] = {{b, 2}, {b + 2, 10}};
	SHOW(readv(fd, v3, 2));
	look("readv stops", fd);
	SHOW(readv(fd, v3, 2));
	v = 2;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v));
	step();
	look("less than SO_RCVLOWAT", fd);
	v = 1;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v);
	show("nothing but urgent", fd, 10, 0);
	SHOW(send(fd, "uV", 2, MSG_OOB));
	SHOW(send(fd, "w", 1, 0));
	step();
	look("urgent and the end", fd);
	show("the end", fd, 10, 0);
	look("behind", fd);
	show("oob", fd, 1, MSG_OOB);
	close(fd);
	ct_tell();
	PEER_WAIT();
	int u = socket(AF_INET, SOCK_STREAM, 0);
	show("unconnected", u, 1, MSG_OOB);
	SHOW(send(u, "x", 1, MSG_OOB));
	show("listener", l, 1, MSG_OOB);
}
