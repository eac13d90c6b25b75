/* accept(): flags, what the connection inherits, the peer's address, and the states in which there is nothing to accept. */
#include "ct.h"
#include <sys/resource.h>

CASE(flags, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), s;
	static const int flags[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};
	fcntl(l, F_SETFL, O_NONBLOCK); /* which is not inherited */
	for (int i = 0; i < 4; i++) {
		PEER(ct_connect(ct_here(0)));
		ct_show_poll(l, POLLIN, 500);
		SHOW_OK(s = accept4(l, NULL, NULL, flags[i]));
		SAY("nonblocking %d, close-on-exec %d", (fcntl(s, F_GETFL) & O_NONBLOCK) != 0, fcntl(s, F_GETFD));
		SHOW(fcntl(s, F_GETFL) & O_ACCMODE);
	}
	SHOW(accept4(l, NULL, NULL, 1));
	SHOW(accept4(l, NULL, NULL, SOCK_NONBLOCK | 0x40));
	SHOW(accept4(l, NULL, NULL, -1));
}

CASE(nothing_there, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	fcntl(l, F_SETFL, O_NONBLOCK);
	SHOW(accept(l, NULL, NULL));
	ct_show_poll(l, POLLIN | POLLOUT, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	ct_show_poll(l, POLLIN | POLLOUT, 500);
	SHOW_OK(accept(l, NULL, NULL));
	SHOW(accept(l, NULL, NULL));
	struct timeval t = {0, 100000};
	SHOW(fcntl(l, F_SETFL, 0));
	SHOW(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	TIMED(accept(l, NULL, NULL), 100);
}

CASE(waits, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	long before = ct_now_ms();
	PEER_LATER(ct_nap(100); ct_peer_fd = ct_connect(ct_here(0)));
	SHOW_OK(accept(l, NULL, NULL));
	ct_show_time(ct_now_ms() - before, 100);
}

CASE(address_of_the_peer, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	struct ct_address a;
	for (socklen_t room = 0; room <= 32; room += 8) {
		PEER(struct ct_address from = ct_there(1), to = ct_here(0); int s = ct_socket(SOCK_STREAM), one = 1;
		     setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); struct linger g = {1, 0};
		     setsockopt(s, SOL_SOCKET, SO_LINGER, &g, sizeof g);
		     SHOW(bind(s, AT(from))); SHOW(connect(s, AT(to))); ct_nap(5); close(ct_peer_fd); ct_peer_fd = s);
		memset(&a.all, 0xee, sizeof a.all);
		a.len = room;
		SHOW_OK(accept(l, &a.a, &a.len));
		SAY("room %u, length %u, untouched behind: %d", room, a.len, ((unsigned char *)&a.all)[a.len < room ? a.len : room] == 0xee);
		if (room == 32) ct_show_name("peer", &a.a, a.len);
		PEER(struct linger g = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(fd); ct_peer_fd = -1);
	}
}

static void show_int(int s, const char *name, int level, int option)
{
	int v = -1;
	socklen_t len = sizeof v;
	int r = getsockopt(s, level, option, &v, &len);
	if (r) SAY("%s: %s", name, strerrorname_np(errno));
	else SAY("%s: %d", name, v);
}
#define SHOW_INT(s, level, option) show_int(s, #option, level, option)

static void set_int(int s, int level, int option, int v) { setsockopt(s, level, option, &v, sizeof v); }

CASE(inherits_options, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0));
	struct timeval t = {2, 500000}, u = {3, 0}, got;
	struct linger g = {1, 7}, had;
	socklen_t len = sizeof got;
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	setsockopt(l, SOL_SOCKET, SO_SNDTIMEO, &u, sizeof u);
	setsockopt(l, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	set_int(l, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(l, SOL_SOCKET, SO_OOBINLINE, 1);
	set_int(l, SOL_SOCKET, SO_RCVLOWAT, 5);
	set_int(l, SOL_SOCKET, SO_RCVBUF, 30000);
	set_int(l, SOL_SOCKET, SO_SNDBUF, 40000);
	set_int(l, IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(l, IPPROTO_TCP, TCP_KEEPIDLE, 11);
	set_int(l, IPPROTO_TCP, TCP_KEEPINTVL, 12);
	set_int(l, IPPROTO_TCP, TCP_KEEPCNT, 3);
	set_int(l, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234);
	set_int(l, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4567);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	SHOW(getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &got, &len));
	SAY("SO_RCVTIMEO %ld.%06ld", (long)got.tv_sec, (long)got.tv_usec);
	SHOW(getsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &got, &len));
	SAY("SO_SNDTIMEO %ld.%06ld", (long)got.tv_sec, (long)got.tv_usec);
	len = sizeof had;
	SHOW(getsockopt(s, SOL_SOCKET, SO_LINGER, &had, &len));
	SAY("SO_LINGER %d %d", had.l_onoff, had.l_linger);
	SHOW_INT(s, SOL_SOCKET, SO_KEEPALIVE);
	SHOW_INT(s, SOL_SOCKET, SO_OOBINLINE);
	SHOW_INT(s, SOL_SOCKET, SO_RCVLOWAT);
	SHOW_INT(s, SOL_SOCKET, SO_RCVBUF);
	SHOW_INT(s, SOL_SOCKET, SO_SNDBUF);
	SHOW_INT(s, SOL_SOCKET, SO_ACCEPTCONN);
	SHOW_INT(s, IPPROTO_TCP, TCP_NODELAY);
	SHOW_INT(s, IPPROTO_TCP, TCP_KEEPIDLE);
	SHOW_INT(s, IPPROTO_TCP, TCP_KEEPINTVL);
	SHOW_INT(s, IPPROTO_TCP, TCP_KEEPCNT);
	SHOW_INT(s, IPPROTO_TCP, TCP_USER_TIMEOUT);
	SHOW_INT(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT);
}

CASE(inherited_timeout_counts, ALONE)
{
	int l = ct_listen(ct_here(0));
	struct timeval t = {0, 100000}, none = {0, 0};
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	PEER(ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
	TIMED(read(s, &(char){0}, 1), 100);
}

CASE(reset_before_accept, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), s;
	struct ct_address a = {.len = sizeof a.all};
	PEER(int s = ct_connect(ct_here(0)); write(s, "data", 4); struct linger g = {1, 0}; setsockopt(s, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(s));
	SETTLE();
	ct_show_poll(l, POLLIN, 200);
	SHOW_OK(s = accept(l, &a.a, &a.len));
	SAY("length %u", a.len);
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(getpeername(s, &a.a, &a.len));
	SHOW(read(s, &(char){0}, 1));
	SHOW(read(s, &(char){0}, 1));
	ct_show_error(s);
}

CASE(closed_before_accept, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), s;
	char b[8];
	PEER(int s = ct_connect(ct_here(0)); write(s, "data", 4); close(s));
	SETTLE();
	SHOW_OK(s = accept(l, NULL, NULL));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 100);
	SHOW(read(s, b, 8));
	SHOW(read(s, b, 8));
}

CASE(wrong_states, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	SHOW(accept(s, NULL, NULL));
	bind(s, AT(a));
	SHOW(accept(s, NULL, NULL));
	SHOW(accept(u, NULL, NULL));
	SHOW(accept4(u, NULL, NULL, 1));
}

CASE(on_a_connection, BOTH)
{
	SHOW(accept(fd, NULL, NULL));
	SHOW(accept4(fd, NULL, NULL, 1));
	SHOW(write(fd, "x", 1));
}

CASE(order, ALONE)
{
	int l = ct_listen(ct_here(0));
	char b;
	for (int i = 'a'; i < 'e'; i++) PEER_WITH(i, char c = arg; write(ct_connect(ct_here(0)), &c, 1));
	for (int i = 0; i < 4; i++) {
		int s = accept(l, NULL, NULL);
		SHOW(read(s, &b, 1));
		SAY("%c", b);
	}
}

CASE(no_descriptor_left, ALONE)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SETTLE();
	struct rlimit all, few;
	getrlimit(RLIMIT_NOFILE, &all);
	few = all;
	SHOW_OK(few.rlim_cur = dup(0));
	close(few.rlim_cur);
	SHOW(setrlimit(RLIMIT_NOFILE, &few));
	SHOW(accept(l, NULL, NULL));
	ct_show_poll(l, POLLIN, 0);
	SHOW(setrlimit(RLIMIT_NOFILE, &all));
	SHOW_OK(accept(l, NULL, NULL)); /* it was not lost */
}

CASE(by_dup_of_a_listener, ALONE)
{
	int l = ct_listen(ct_here(0)), d = dup(l), s;
	SHOW(close(l));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW_OK(s = accept(d, NULL, NULL));
	SHOW(write(s, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
}
