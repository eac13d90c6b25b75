/* Options of an accepted connection: set, read back, refused. */
#include "ct.h"

static void peer(int fd)
{
	char b;
	ct_wait();
	recv(fd, &b, 1, 0);
}

static void show_int(int fd, const char *name, int level, int option, int set)
{
	int v = -1;
	socklen_t len = sizeof v;
	int r = setsockopt(fd, level, option, &set, sizeof set);
	printf("%s set %d: %s", name, set, r ? strerrorname_np(errno) : "ok");
	r = getsockopt(fd, level, option, &v, &len);
	printf(", get: ");
	if (r) printf("%s\n", strerrorname_np(errno));
	else printf("%d (%u)\n", v, len);
}

CASE(session, ALONE)
{
	int l = ct_listen(ct_here(1)), one = 1;
	setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	PEER_LATER(peer(ct_connect(ct_here(1))));
	int v = 0;
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	socklen_t len = sizeof v;
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(fcntl(fd, F_GETFD));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	printf("inherited TCP_NODELAY %d\n", v);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, &len));
	printf("SO_RCVBUF %d\n", v);
	show_int(fd, "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 0);
	show_int(fd, "TCP_CORK", IPPROTO_TCP, TCP_CORK, 1);
	show_int(fd, "TCP_CORK", IPPROTO_TCP, TCP_CORK, 0);
	show_int(fd, "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1);
	show_int(fd, "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 30);
	show_int(fd, "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 0);
	show_int(fd, "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 5);
	show_int(fd, "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 200);
	show_int(fd, "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 1234);
	show_int(fd, "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 50000);
	show_int(fd, "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 50000);
	show_int(fd, "SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 7);
	show_int(fd, "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, -1);
	show_int(fd, "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 2000000000);
	show_int(fd, "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 0);
	show_int(fd, "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1);
	show_int(fd, "TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 20000);
	show_int(fd, "TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0);
	show_int(fd, "TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 30000);
	show_int(fd, "TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 1);
	show_int(fd, "TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 0);
	show_int(fd, "SO_TYPE", SOL_SOCKET, SO_TYPE, 1);
	show_int(fd, "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN, 1);
	show_int(fd, "SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL, 1);
	show_int(fd, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, 1);
	show_int(fd, "TCP 9999", IPPROTO_TCP, 9999, 1);
	struct linger g = {1, 5};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g));
	g = (struct linger){0, 0};
	len = sizeof g;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_LINGER, &g, &len));
	printf("linger %d %d (%u)\n", g.l_onoff, g.l_linger, len);
	struct timeval t = {3, 500000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
	t = (struct timeval){0, 0};
	len = sizeof t;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, &len));
	printf("sndtimeo %ld.%06ld\n", t.tv_sec, t.tv_usec);
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, 2));
	char small = 9;
	len = 1;
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &small, &len));
	printf("one byte: %d (%u)\n", small, len);
	struct tcp_info i;
	len = sizeof i;
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len));
	printf("state %d\n", i.tcpi_state);
	ct_tell();
	close(fd);
	PEER_WAIT();
}
