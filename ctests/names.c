/* getsockname() and getpeername() in every state, cut to the room there is, over IPv4, IPv6 and IPv4 in IPv6. */
#include "ct.h"

static void show_names(const char *when, int s)
{
	struct ct_address a = {.len = sizeof a.all};
	printf("%s, ", when);
	if (getsockname(s, &a.a, &a.len)) SAY("own name: %s", strerrorname_np(errno));
	else ct_show_name("own name", &a.a, a.len);
	a.len = sizeof a.all;
	printf("%s, ", when);
	if (getpeername(s, &a.a, &a.len)) SAY("peer's: %s", strerrorname_np(errno));
	else ct_show_name("peer's", &a.a, a.len);
}

CASE(before_any_connection, ALONE | ALONE6 | KERNEL_ONLY)
{
	struct ct_address a = ct_here(0), any = ct_here(1);
	int s = ct_socket(SOCK_STREAM), u = ct_socket(SOCK_DGRAM);
	show_names("fresh", s);
	show_names("fresh datagram", u);
	bind(s, AT(a));
	show_names("bound", s);
	listen(s, 1);
	show_names("listening", s);
	memset(ct_family == AF_INET6 ? (void *)&any.v6.sin6_addr : (void *)&any.v4.sin_addr, 0, ct_family == AF_INET6 ? 16 : 4);
	bind(u, AT(any));
	show_names("bound to any", u);
}

CASE(of_a_connection, BOTH | BOTH6)
{
	show_names("connected", fd);
	PEER(shutdown(fd, SHUT_WR));
	SHOW(read(fd, &(char){0}, 1));
	show_names("after its end", fd);
	SHOW(shutdown(fd, SHUT_WR));
	SETTLE();
	show_names("after both ends", fd);
}

CASE(after_a_reset, BOTH | BOTH6)
{
	PEER(struct linger g = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(fd); ct_peer_fd = -1);
	SETTLE();
	show_names("reset, not noticed", fd);
	SHOW(read(fd, &(char){0}, 1));
	show_names("reset", fd);
}

CASE(after_own_close_of_writing, BOTH)
{
	SHOW(shutdown(fd, SHUT_WR));
	show_names("FIN sent", fd);
	SHOW(shutdown(fd, SHUT_RDWR));
	show_names("shut both ways", fd);
}

CASE(cut_to_the_room, BOTH | BOTH6)
{
	for (socklen_t room = 0; room <= 32; room += 4) {
		unsigned char b[64];
		socklen_t len = room;
		memset(b, 0xee, sizeof b);
		int r = getsockname(fd, (struct sockaddr *)b, &len);
		printf("room %u: %d, length %u, untouched behind: %d; ", room, r, len, b[len < room ? len : room] == 0xee);
		len = room;
		r = getpeername(fd, (struct sockaddr *)b, &len);
		SAY("peer's %d, length %u", r, len);
	}
	unsigned char b[64];
	socklen_t len = -1;
	SHOW(getsockname(fd, (struct sockaddr *)b, &len));
	len = -5;
	SHOW(getpeername(fd, (struct sockaddr *)b, &len));
	len = 1000;
	SHOW(getpeername(fd, (struct sockaddr *)b, &len));
	SHOW(len);
}

/* Zeroes where a sockaddr_in has padding, no flow, no scope. */
CASE(whole_structures, BOTH | BOTH6)
{
	struct ct_address a = {.len = sizeof a.all};
	memset(&a.all, 0xee, sizeof a.all);
	getpeername(fd, &a.a, &a.len);
	if (ct_family == AF_INET) ct_show_bytes("padding", a.v4.sin_zero, 8);
	else SAY("flow %u scope %u", a.v6.sin6_flowinfo, a.v6.sin6_scope_id);
}

CASE(mapped_client, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(ct_port(0))};
	inet_pton(AF_INET6, "::ffff:0:0", &to.sin6_addr);
	struct ct_address there = ct_there(0);
	memcpy(&to.sin6_addr.s6_addr[12], &there.v4.sin_addr, 4);
	int s = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
	SHOW(connect(s, (struct sockaddr *)&to, sizeof to));
	show_names("mapped", s);
	PEER(ct_peer_fd = accept(fd, NULL, NULL); show_names("at the peer", ct_peer_fd));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	SHOW(connect(s, (struct sockaddr *)&to, sizeof to));
}

CASE(mapped_server, ALONE)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(ct_port(0))}, from;
	socklen_t len = sizeof from;
	int l = socket(AF_INET6, SOCK_STREAM, 0);
	SHOW(bind(l, (struct sockaddr *)&any, sizeof any));
	SHOW(listen(l, 4));
	ct_show_poll(l, POLLIN, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, (struct sockaddr *)&from, &len);
	ct_show_name("from", &from, len);
	show_names("mapped", s);
	SHOW(write(s, "x", 1));
	PEER(char b; SHOW(read(fd, &b, 1)));
}

CASE(of_datagram_sockets, DATAGRAM | DATAGRAM6)
{
	show_names("as it is", fd);
	struct ct_address there = ct_there(0), none = {.a.sa_family = AF_UNSPEC, .len = 16};
	SHOW(connect(fd, AT(there)));
	show_names("connected", fd);
	SHOW(send(fd, "x", 1, 0));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	SHOW(connect(fd, AT(none)));
	struct ct_address a = {.len = sizeof a.all};
	SHOW(getpeername(fd, &a.a, &a.len));
}

CASE(of_a_failed_connection, ALONE | ALONE6)
{
	struct ct_address a = ct_there(5);
	int s = ct_socket(SOCK_STREAM);
	SHOW(connect(s, AT(a)));
	show_names("refused", s); /* the port stays, the address goes */
	a = ct_here(0);
	if (ct_family == AF_INET6) a.v6.sin6_port = 0;
	else a.v4.sin_port = 0;
	s = ct_socket(SOCK_STREAM);
	SHOW(bind(s, AT(a)));
	a = ct_there(5);
	SHOW(connect(s, AT(a)));
	show_names("refused, bound", s);
	SHOW(connect(s, AT(a)));
}

CASE(under_way, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct ct_address to = ct_there(0);
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect(s, AT(to)));
	ct_show_poll(s, POLLOUT, 500);
	show_names("connected", s);
}
