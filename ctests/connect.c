/* connect(): refused, unreachable, under way, done, again; and what the socket is good for afterwards. */
#include "ct.h"

static struct ct_address nobody_on(void) /* an address of the peer's network that no host has: its neighbour is not found */
{
	struct ct_address a = ct_there(0);
	if (ct_family == AF_INET6) a.v6.sin6_addr.s6_addr[15] += 9;
	else a.v4.sin_addr.s_addr = htonl(ntohl(a.v4.sin_addr.s_addr) + 9);
	return a;
}

static int connect_nonblocking(int s, struct ct_address to)
{
	fcntl(s, F_SETFL, O_NONBLOCK);
	return connect(s, AT(to));
}

CASE(refused, ALONE | ALONE6)
{
	struct ct_address a = ct_there(0);
	char b;
	int s = ct_socket(SOCK_STREAM);
	signal(SIGPIPE, SIG_IGN);
	SHOW(connect(s, AT(a)));
	ct_show_error(s);
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(read(s, &b, 1));
	SHOW(write(s, &b, 1));
	SHOW(shutdown(s, SHUT_WR));
	SHOW(connect(s, AT(a))); /* once more */
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	SHOW(connect(s, AT(a)));
	SHOW(write(s, &b, 1));
	PEER(char b; SHOW(read(accept(fd, NULL, NULL), &b, 1)));
}

CASE(refused_nonblocking, ALONE | ALONE6)
{
	struct ct_address a = ct_there(0);
	char b;
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	signal(SIGPIPE, SIG_IGN);
	SHOW(connect(s, AT(a)));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 500);
	ct_show_error(s);
	ct_show_error(s);
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(read(s, &b, 1));
	SHOW(write(s, &b, 1));
	SHOW(connect(s, AT(a)));
	SHOW(poll(&(struct pollfd){s, POLLOUT, 0}, 1, 500));
	SHOW(read(s, &b, 1)); /* the error is told once, by whoever asks first */
	SHOW(read(s, &b, 1));
	ct_show_error(s);
}

CASE(refused_told_by_connect, ALONE)
{
	struct ct_address a = ct_there(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect(s, AT(a)));
	SETTLE();
	SHOW(connect(s, AT(a)));
	SHOW(connect(s, AT(a)));
	SETTLE();
	SHOW(write(s, "x", 1));
	SHOW(connect(s, AT(a)));
	SETTLE();
	ct_show_error(s);
	SHOW(connect(s, AT(a)));
	SETTLE();
}

CASE(completes_nonblocking, ALONE | ALONE6)
{
	struct ct_address a = ct_there(0);
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect(s, AT(a)));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 500);
	ct_show_error(s);
	SHOW(connect(s, AT(a)));
	SHOW(connect(s, AT(a)));
	SHOW(read(s, &(char){0}, 1));
	SHOW(write(s, "x", 1));
}

CASE(while_under_way, ALONE | MIXED)
{
	struct ct_address a = ct_there(0), b = nobody_on(), c = ct_there(1);
	char octet;
	int n = -1;
	/* Traffic that is the user stack's, so that the case has some. */
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	SHOW_OK(ct_connect(a));
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect_nonblocking(s, b));
	SHOW(connect(s, AT(b)));
	SHOW(connect(s, AT(c)));
	SHOW(read(s, &octet, 1));
	SHOW(recv(s, &octet, 1, MSG_PEEK));
	SHOW(write(s, &octet, 1));
	SHOW(send(s, &octet, 1, MSG_OOB));
	SHOW(ioctl(s, FIONREAD, &n));
	SHOW(getpeername(s, &c.a, &c.len));
	SHOW(listen(s, 1));
	SHOW(accept(s, NULL, NULL));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	ct_show_error(s);
}

CASE(given_up_by_shutdown, ALONE | MIXED)
{
	struct ct_address a = ct_there(0), b = nobody_on();
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	SHOW_OK(ct_connect(a));
	int s = ct_socket(SOCK_STREAM);
	signal(SIGPIPE, SIG_IGN);
	SHOW(connect_nonblocking(s, b));
	SHOW(shutdown(s, SHUT_RD));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(read(s, &(char){0}, 1));
	SHOW(write(s, "x", 1));
	ct_show_error(s);
	SHOW(connect(s, AT(a)));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 500);
}

CASE(neighbour_not_found, ALONE | MIXED)
{
	struct ct_address a = ct_there(0), b = nobody_on();
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	SHOW_OK(ct_connect(a));
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect(s, AT(b)));
	ct_show_error(s);
	SHOW(connect(s, AT(a)));
}

/* A peer that lets segments fall: nobody answers, and nobody says that there is nobody. */
static int in_its_queue;
static void listen_and_fill(void)
{
	struct ct_address a = ct_there(0);
	ct_peer_fd = ct_socket(SOCK_STREAM);
	int one = 1;
	setsockopt(ct_peer_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(ct_peer_fd, AT(a)) || listen(ct_peer_fd, 0)) ct_die("listen");
	in_its_queue = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	connect(in_its_queue, AT(a)); /* the only place in its queue is taken: it drops SYNs from now on */
	ct_nap(10);
}

CASE(user_timeout, ALONE | ALONE6 | MIXED)
{
	struct ct_address a = ct_there(0), other = ct_there(1);
	PEER(listen_and_fill(); ct_listen(ct_there(1)));
	SHOW_OK(ct_connect(other));
	int s = ct_socket(SOCK_STREAM), ms = 300;
	SHOW(setsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms));
	SHOW(connect(s, AT(a)));
	ct_show_error(s);
	SHOW(send(s, "x", 1, MSG_NOSIGNAL));
}

CASE(send_timeout_bounds_it, ALONE | MIXED)
{
	struct ct_address a = ct_there(0), other = ct_there(1);
	PEER(listen_and_fill(); ct_listen(ct_there(1)));
	SHOW_OK(ct_connect(other));
	int s = ct_socket(SOCK_STREAM);
	struct timeval t = {0, 200000};
	SHOW(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
	TIMED(connect(s, AT(a)), 200);
	TIMED(connect(s, AT(a)), 200);
	ct_show_error(s);
	ct_show_poll(s, POLLIN | POLLOUT, 0);
}

CASE(closed_while_under_way, ALONE | MIXED)
{
	struct ct_address a = ct_there(0), other = ct_there(1);
	PEER(listen_and_fill(); ct_listen(ct_there(1)));
	SHOW_OK(ct_connect(other));
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect_nonblocking(s, a));
	SHOW(close(s));
	SHOW(connect(s, AT(a)));
}

CASE(already_connected, BOTH | BOTH6)
{
	struct ct_address a = ct_there(0), h = ct_here(5);
	SHOW(connect(fd, AT(a)));
	SHOW(connect(fd, AT(h)));
	SHOW(connect(fd, &a.a, 3));
	SHOW(connect(fd, &a.a, 0));
	a.a.sa_family = AF_UNIX;
	SHOW(connect(fd, AT(a)));
	PEER(close(fd); ct_peer_fd = -1);
	SHOW(read(fd, &(char){0}, 1));
	a = ct_there(0);
	SHOW(connect(fd, AT(a)));
}

/* connect() to AF_UNSPEC ends a connection, and the socket is as new. */
CASE(unspecified_disconnects, CLIENT | CLIENT6)
{
	struct ct_address none = {.a.sa_family = AF_UNSPEC, .len = 16}, a = ct_there(1);
	signal(SIGPIPE, SIG_IGN);
	PEER(ct_listen(ct_there(1)); write(fd, "unread", 6));
	SETTLE();
	SHOW(connect(fd, AT(none)));
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(read(fd, &(char){0}, 1));
	SHOW(write(fd, "x", 1));
	SHOW(getpeername(fd, &a.a, &a.len));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	ct_show_error(fd);
	SHOW(connect(fd, AT(none)));
	a.len = sizeof a.all;
	getsockname(fd, &a.a, &a.len);
	ct_show_name("own name", &a.a, a.len);
	a = ct_there(1);
	SHOW(connect(fd, AT(a)));
	SHOW(write(fd, "x", 1));
}

CASE(unspecified_disconnects_accepted, SERVER)
{
	struct ct_address none = {.a.sa_family = AF_UNSPEC, .len = 16};
	signal(SIGPIPE, SIG_IGN);
	SHOW(connect(fd, AT(none)));
	SETTLE();
	PEER(char b; SHOW(read(fd, &b, 1)));
	SHOW(write(fd, "x", 1));
	SHOW(getpeername(fd, &none.a, &none.len));
}

CASE(unspecified_on_others, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address none = {.a.sa_family = AF_UNSPEC, .len = 16};
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM), l = ct_listen(ct_here(0));
	SHOW(connect(s, AT(none)));
	SHOW(connect(s, &none.a, 2));
	SHOW(connect(s, &none.a, 1));
	SHOW(connect(u, AT(none)));
	(void)l;
}

CASE(wrong_addresses, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_there(0);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	SHOW(connect(s, &a.a, 0));
	SHOW(connect(s, &a.a, 1));
	SHOW(connect(s, &a.a, 15));
	SHOW(connect(s, &a.a, 2000));
	SHOW(connect(u, &a.a, 15));
	a.a.sa_family = AF_INET6;
	SHOW(connect(s, AT(a)));
	SHOW(connect(u, AT(a)));
	a.a.sa_family = AF_UNIX;
	SHOW(connect(s, AT(a)));
	a = ct_there(0);
	a.v4.sin_addr.s_addr = INADDR_BROADCAST;
	SHOW(connect(s, AT(a)));
	inet_pton(AF_INET, "224.0.0.1", &a.v4.sin_addr);
	SHOW(connect(s, AT(a)));
	inet_pton(AF_INET, "198.51.100.1", &a.v4.sin_addr); /* no route */
	SHOW(connect(s, AT(a)));
	SHOW(connect(u, AT(a)));
}

CASE(wrong_addresses_6, ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_there(0);
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect(s, &a.a, 23));
	a.a.sa_family = AF_INET;
	a.len = 16;
	a.v4.sin_addr.s_addr = htonl(0xc6336401);
	SHOW(connect(s, AT(a)));
	a = ct_there(0);
	inet_pton(AF_INET6, "ff02::1", &a.v6.sin6_addr);
	SHOW(connect(s, AT(a)));
	inet_pton(AF_INET6, "fe80::77", &a.v6.sin6_addr); /* without a scope */
	SHOW(connect(s, AT(a)));
	inet_pton(AF_INET6, "2001:db8::1", &a.v6.sin6_addr); /* no route */
	SHOW(connect(s, AT(a)));
}

CASE(to_own_listener, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), name = {.len = sizeof name.all};
	int l = ct_listen(a), s = ct_socket(SOCK_STREAM), c;
	char b[8] = {0};
	SHOW(connect(s, AT(a)));
	ct_show_poll(l, POLLIN, 200);
	SHOW_OK(c = accept(l, &name.a, &name.len));
	SHOW(write(s, "ping", 4));
	SHOW(read(c, b, 8));
	SHOW(write(c, "pong", 4));
	SHOW(read(s, b, 8));
	SHOW(close(c));
	SHOW(read(s, b, 8));
}

CASE(to_itself, ALONE | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0);
	int s = ct_socket(SOCK_STREAM);
	char b[8] = {0};
	SHOW(bind(s, AT(a)));
	SHOW(connect(s, AT(a)));
	SHOW(write(s, "self", 4));
	SHOW(read(s, b, 8));
	SHOW(shutdown(s, SHUT_WR));
	SHOW(read(s, b, 8));
}

CASE(from_a_bound_address, ALONE | ALONE6)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct ct_address a = ct_here(0), to = ct_there(0), name = {.len = sizeof name.all};
	if (ct_family == AF_INET6) a.v6.sin6_port = 0;
	else a.v4.sin_port = 0;
	int s = ct_socket(SOCK_STREAM), one = 1;
	SHOW(setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one));
	SHOW(bind(s, AT(a)));
	SHOW(connect(s, AT(to)));
	getsockname(s, &name.a, &name.len);
	ct_show_name("from", &name.a, name.len);
}

/* It has seen the port that it was given: that is the one it connects from. */
CASE(from_a_port_that_it_knows, ALONE | ALONE6 | KERNEL_ONLY)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct ct_address a = ct_here(0), to = ct_there(0), name = {.len = sizeof name.all};
	if (ct_family == AF_INET6) a.v6.sin6_port = 0;
	else a.v4.sin_port = 0;
	int s = ct_socket(SOCK_STREAM);
	SHOW(bind(s, AT(a)));
	SHOW(getsockname(s, &name.a, &name.len));
	struct ct_address later = {.len = sizeof later.all};
	SHOW(connect(s, AT(to)));
	SHOW(getsockname(s, &later.a, &later.len));
	SAY("the port stays: %d", !memcmp(&name.all, &later.all, later.len));
}

CASE(reset_in_the_middle, ALONE | ALONE6)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct ct_address a = ct_there(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect(s, AT(a)));
	PEER(int c = accept(fd, NULL, NULL); struct linger g = {1, 0}; setsockopt(c, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(c));
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 500);
	SHOW(connect(s, AT(a)));
	ct_show_error(s);
	SHOW(connect(s, AT(a)));
}

/* ---- what routers say ---- */

/* On a veth pair the answer comes while the kernel still sends, which it takes for a soft error: the SYN that follows is the one
 * that counts, and SO_ERROR has a rest of the first. So nobody asks for that. */

CASE(unreachable, ALONE | ALONE6)
{
	struct ct_address a = ct_beyond(1);
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect(s, AT(a)));
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	a = ct_there(0);
	SHOW(connect(s, AT(a)));
}

CASE(prohibited, ALONE | ALONE6)
{
	struct ct_address a = ct_beyond(2);
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect(s, AT(a)));
}

CASE(into_a_black_hole, ALONE | ALONE6)
{
	struct ct_address a = ct_beyond(3), other = ct_there(1);
	PEER(ct_listen(ct_there(1)));
	SHOW_OK(ct_connect(other));
	int s = ct_socket(SOCK_STREAM), t = ct_socket(SOCK_STREAM), ms = 400;
	SHOW(setsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms));
	SHOW(connect(s, AT(a)));
	ct_show_error(s);
	struct timeval time = {0, 150000};
	SHOW(setsockopt(t, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time));
	TIMED(connect(t, AT(a)), 150);
	SHOW(shutdown(t, SHUT_RDWR));
	SHOW(read(t, &(char){0}, 1));
	SHOW(connect(t, AT(other)));
}
