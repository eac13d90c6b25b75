/* A socket before it has anybody to talk to: socket(), bind(), listen(), close(). Most of it is the kernel's own answer, which has
 * to come through unchanged. */
#include "ct.h"

static int is_nonblocking(int s) { return (fcntl(s, F_GETFL) & O_NONBLOCK) != 0; }

CASE(types_and_flags, ALONE | ALONE6 | KERNEL_ONLY)
{
	int s;
	SHOW_OK(s = ct_socket(SOCK_STREAM));
	SHOW(fcntl(s, F_GETFD));
	SHOW(is_nonblocking(s));
	close(s);
	SHOW_OK(s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC));
	SHOW(fcntl(s, F_GETFD));
	SHOW(is_nonblocking(s));
	close(s);
	SHOW_OK(s = ct_socket(SOCK_DGRAM | SOCK_NONBLOCK));
	SHOW(fcntl(s, F_GETFD));
	SHOW(is_nonblocking(s));
	close(s);
	SHOW_OK(socket(ct_family, SOCK_STREAM, IPPROTO_TCP));
	SHOW_OK(socket(ct_family, SOCK_DGRAM, IPPROTO_UDP));
}

CASE(refused_kinds, ALONE | KERNEL_ONLY)
{
	SHOW(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	SHOW(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
	SHOW(socket(AF_INET, 77, 0));
	SHOW(socket(AF_INET, SOCK_STREAM | 0x100000, 0));
	SHOW(socket(9999, SOCK_STREAM, 0));
	SHOW(socket(-1, SOCK_STREAM, 0));
	SHOW(socket(AF_INET, SOCK_STREAM, 9999));
	SHOW(socket(AF_INET6, SOCK_SEQPACKET, 0));
	SHOW(socket(AF_UNIX, SOCK_STREAM, 5));
}

CASE(lowest_number, ALONE | KERNEL_ONLY)
{
	int a = ct_socket(SOCK_STREAM), b = ct_socket(SOCK_DGRAM), c = ct_socket(SOCK_STREAM);
	SHOW(b - a);
	SHOW(c - b);
	close(b);
	SHOW(ct_socket(SOCK_STREAM) - a);
	close(a);
	SHOW(open("/dev/null", O_RDONLY) - a);
}

/* Whatever number socket() gave last, accept() takes the lowest that is free. */
CASE(lowest_number_of_accept, SERVER)
{
	int low = dup(0), l = ct_listen(ct_here(1));
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	close(low);
	SHOW(accept(l, NULL, NULL) - low);
}

CASE(bad_numbers, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0);
	char b[4];
	int null = open("/dev/null", O_RDWR);
	SHOW(bind(-1, AT(a)));
	SHOW(bind(880, AT(a)));
	SHOW(bind(null, AT(a)));
	SHOW(listen(880, 1));
	SHOW(listen(null, 1));
	SHOW(accept(880, NULL, NULL));
	SHOW(accept(null, NULL, NULL));
	SHOW(connect(880, AT(a)));
	SHOW(connect(null, AT(a)));
	SHOW(shutdown(880, SHUT_WR));
	SHOW(shutdown(null, SHUT_WR));
	SHOW(getsockname(880, &a.a, &a.len));
	SHOW(getpeername(null, &a.a, &a.len));
	SHOW(send(880, b, 1, 0));
	SHOW(send(null, b, 1, 0));
	SHOW(recv(null, b, 1, 0));
	SHOW(sendto(null, b, 1, 0, AT(a)));
	SHOW(read(880, b, 1));
	SHOW(write(-1, b, 1));
	SHOW(close(880));
	SHOW(close(-1));
	SHOW(dup(880));
	SHOW(fcntl(880, F_GETFL));
}

CASE(bind_in_use, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), any = ct_here(0);
	memset(ct_family == AF_INET6 ? (void *)&any.v6.sin6_addr : (void *)&any.v4.sin_addr, 0, ct_family == AF_INET6 ? 16 : 4);
	int s = ct_socket(SOCK_STREAM), t = ct_socket(SOCK_STREAM), one = 1;
	SHOW(bind(s, AT(a)));
	SHOW(bind(t, AT(a)));
	SHOW(bind(t, AT(any)));
	SHOW(bind(s, AT(a)));
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	SHOW(bind(t, AT(a)));
	SHOW(listen(s, 1));
	SHOW(listen(t, 1));
	close(s);
	SHOW(listen(t, 1));
	int u = ct_socket(SOCK_DGRAM);
	SHOW(bind(u, AT(a))); /* another protocol */
}

CASE(bind_wrong_addresses, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), there = ct_there(0);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	SHOW(bind(s, AT(there)));
	SHOW(bind(u, AT(there)));
	SHOW(bind(s, &a.a, 15));
	SHOW(bind(s, &a.a, 0));
	SHOW(bind(s, &a.a, 1000));
	SHOW(bind(u, &a.a, 3));
	a.a.sa_family = AF_INET6;
	SHOW(bind(s, AT(a)));
	SHOW(bind(u, AT(a)));
	a.a.sa_family = AF_UNIX;
	SHOW(bind(s, AT(a)));
	a.a.sa_family = AF_UNSPEC; /* which stands for AF_INET, but with INADDR_ANY alone */
	SHOW(bind(s, AT(a)));
	a.v4.sin_addr.s_addr = INADDR_ANY;
	SHOW(bind(s, AT(a)));
	struct ct_address name = {.len = sizeof name.all};
	SHOW(getsockname(s, &name.a, &name.len));
	ct_show_name("bound", &name.a, name.len);
}

CASE(bind_wrong_addresses_6, ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), there = ct_there(0);
	int s = ct_socket(SOCK_STREAM);
	SHOW(bind(s, AT(there)));
	SHOW(bind(s, &a.a, 23));
	a.a.sa_family = AF_INET;
	SHOW(bind(s, AT(a)));
	a.a.sa_family = AF_UNSPEC;
	SHOW(bind(s, AT(a)));
	a.a.sa_family = AF_INET6;
	inet_pton(AF_INET6, "fe80::1", &a.v6.sin6_addr);
	SHOW(bind(s, AT(a)));
	SHOW(bind(s, &a.a, 24));
	a = ct_here(0);
	SHOW(bind(s, &a.a, 24));
}

CASE(bind_without_privilege, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0);
	if (ct_family == AF_INET6) a.v6.sin6_port = htons(81);
	else a.v4.sin_port = htons(81);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	SHOW(seteuid(65534));
	SHOW(bind(s, AT(a)));
	SHOW(bind(u, AT(a)));
	SHOW(seteuid(0));
	SHOW(bind(s, AT(a)));
}

CASE(bind_v4_and_v6_on_one_port, ALONE6 | KERNEL_ONLY)
{
	struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(ct_port(0))};
	struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(ct_port(0))};
	int s = socket(AF_INET6, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	SHOW(bind(s, (struct sockaddr *)&any6, sizeof any6));
	SHOW(bind(t, (struct sockaddr *)&any4, sizeof any4));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	SHOW(bind(s, (struct sockaddr *)&any6, sizeof any6));
	SHOW(bind(t, (struct sockaddr *)&any4, sizeof any4));
	SHOW(listen(s, 1));
	SHOW(listen(t, 1));
	SHOW(setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
}

CASE(bind_after_connect, CLIENT | CLIENT6)
{
	struct ct_address a = ct_here(1);
	SHOW(bind(fd, AT(a)));
	SHOW(listen(fd, 1));
}

CASE(bind_of_accepted, SERVER | SERVER6)
{
	struct ct_address a = ct_here(1);
	SHOW(bind(fd, AT(a)));
	SHOW(listen(fd, 1));
	SHOW(accept(fd, NULL, NULL));
}

CASE(listen_in_every_state, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), name = {.len = sizeof name.all};
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM), x = socket(AF_UNIX, SOCK_STREAM, 0);
	SHOW(listen(s, 5)); /* without bind */
	SHOW(getsockname(s, &name.a, &name.len));
	ct_show_name("name", &name.a, name.len);
	SHOW(listen(s, 0));
	SHOW(listen(s, -1));
	SHOW(listen(s, 1 << 30));
	SHOW(bind(s, AT(a)));
	SHOW(listen(u, 1));
	SHOW(listen(x, 1));
}

static int has_shown_up(int l) { return poll(&(struct pollfd){l, POLLIN, 0}, 1, 300); }

CASE(listen_without_bind_serves, ALONE)
{
	struct ct_address name = {.len = sizeof name.all};
	int s = ct_socket(SOCK_STREAM), c;
	SHOW(listen(s, 5));
	getsockname(s, &name.a, &name.len);
	SHOW(has_shown_up(s));
	PEER_WITH(name.v4.sin_port, struct ct_address a = ct_here(0); a.v4.sin_port = arg; ct_peer_fd = ct_connect(a));
	SHOW(has_shown_up(s));
	SHOW_OK(c = accept(s, NULL, NULL));
	PEER(write(fd, "x", 1));
	SHOW(read(c, &(char){0}, 1));
}

static int peers[16], connected;
static void connect_many(int n)
{
	struct ct_address a = ct_here(0);
	int up = 0;
	for (connected = 0; connected < n; connected++) {
		peers[connected] = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
		connect(peers[connected], AT(a));
		struct pollfd p = {peers[connected], POLLOUT, 0};
		up += poll(&p, 1, 40) == 1 && p.revents == POLLOUT; /* one after the other */
		ct_nap(5);
	}
	SAY("connected: %d of %d", up, n);
}

CASE(backlog_bounds_connections, ALONE)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	bind(s, AT(a));
	SHOW(listen(s, 3));
	SHOW(accept(s, NULL, NULL));
	PEER(connect_many(8));
	int n = 0;
	while (accept(s, NULL, NULL) >= 0) n++;
	SAY("accepted %d", n);
}

CASE(backlog_of_zero_takes_one, ALONE | ALONE6)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	bind(s, AT(a));
	SHOW(listen(s, 0));
	SHOW(accept(s, NULL, NULL));
	PEER(connect_many(4));
	SHOW_OK(accept(s, NULL, NULL));
	SHOW(accept(s, NULL, NULL));
}

CASE(backlog_is_raised_by_listen, ALONE)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	bind(s, AT(a));
	SHOW(listen(s, 1));
	SHOW(accept(s, NULL, NULL));
	SHOW(listen(s, 10));
	PEER(connect_many(6));
	int n = 0;
	while (accept(s, NULL, NULL) >= 0) n++;
	SAY("accepted %d", n);
}

/* Nobody listens then, and it is the kernel that refuses. */
CASE(closed_listener_refuses, ALONE | ALONE6 | MIXED)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW(close(l));
	SETTLE();
	/* The one that nobody accepted is reset, and nobody is there for the next. */
	PEER(char b; SHOW(read(fd, &b, 1)));
	PEER(int s = ct_socket(SOCK_STREAM); struct ct_address a = ct_here(0); SHOW(connect(s, AT(a))));
}

CASE(shut_listener_can_listen_again, ALONE)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW(shutdown(l, SHUT_RD));
	SHOW(accept(l, NULL, NULL));
	SETTLE();
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(listen(l, 4));
	ct_show_poll(l, POLLIN, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	ct_show_poll(l, POLLIN, 500);
	SHOW_OK(accept(l, NULL, NULL));
}

CASE(listener_shut_for_writing_listens_on, ALONE)
{
	int l = ct_listen(ct_here(0));
	SHOW(shutdown(l, SHUT_WR));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW_OK(accept(l, NULL, NULL));
	SHOW(shutdown(l, 7));
	SHOW(shutdown(l, -1));
}

CASE(data_calls_on_a_listener, ALONE)
{
	struct ct_address a = ct_there(0);
	int l = ct_listen(ct_here(0));
	char b[4];
	signal(SIGPIPE, SIG_IGN);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW(read(l, b, 4));
	SHOW(recv(l, b, 4, MSG_DONTWAIT));
	SHOW(write(l, b, 4));
	SHOW(send(l, b, 4, 0));
	SHOW(sendto(l, b, 4, 0, AT(a)));
	SHOW(connect(l, AT(a)));
	SHOW(getpeername(l, &a.a, &a.len));
	int n = -1;
	SHOW(ioctl(l, FIONREAD, &n));
	SHOW(sendfile(l, 0, NULL, 1));
	ct_show_error(l);
}
