/* One datagram socket: sizes, flags, addresses, control messages, errors, several at once. */
#include "ct.h"
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static struct sockaddr_in there;

/* The peer sends what a round asks for, and echoes. */
static void peer(int fd)
{
	char b[4096];
	struct sockaddr_in a;
	for (;;) {
		socklen_t len = sizeof a;
		ssize_t n = recvfrom(fd, b, sizeof b, 0, (struct sockaddr *)&a, &len);
		if (n < 0) _exit(1);
		if (n == 4 && !memcmp(b, "quit", 4)) return;
		if (n == 5 && !memcmp(b, "three", 5)) {
			sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, len);
			sendto(fd, "abcdefgh", 8, 0, (struct sockaddr *)&a, len);
			sendto(fd, "", 0, 0, (struct sockaddr *)&a, len);
			continue;
		}
		if (n == 5 && !memcmp(b, "mark:", 5)) {
			int ttl = 33, tos = 0x28;
			setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
			setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos);
			continue;
		}
		if (n == 5 && !memcmp(b, "other", 5)) {
			int o = socket(AF_INET, SOCK_DGRAM, 0);
			sendto(o, "not from the peer", 17, 0, (struct sockaddr *)&a, len);
			close(o);
			sendto(fd, "from the peer", 13, 0, (struct sockaddr *)&a, len);
			continue;
		}
		sendto(fd, b, n, 0, (struct sockaddr *)&a, len);
	}
}

static void start_peer(void)
{
	struct sockaddr_in peers = ct_there(1).v4;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(fd, (struct sockaddr *)&peers, sizeof peers)) ct_die("peer's bind");
	ct_tell();
	peer(fd);
}

static void say(int fd, const char *text)
{
	if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&there, sizeof there) < 0) ct_die("say");
}

/* Until `n` datagrams wait. They come one after the other, and not by two ways at once. */
static void settle(void) { ct_nap(60); }

static void control_messages(int fd)
{
	int one = 1;
	SHOW(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one));
	say(fd, "mark:");
	say(fd, "to be echoed");
	char b[64], control[256];
	struct iovec v = {b, sizeof b};
	struct sockaddr_in a;
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
			   .msg_name = &a, .msg_namelen = sizeof a};
	SHOW(recvmsg(fd, &m, 0));
	printf("flags %#x, name %u bytes, from the peer: %d, control %zu bytes\n", m.msg_flags, m.msg_namelen,
	       a.sin_port == there.sin_port && a.sin_addr.s_addr == there.sin_addr.s_addr, m.msg_controllen);
	struct sockaddr_in own = ct_here(0).v4;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		printf("control %d/%d, %zu bytes", c->cmsg_level, c->cmsg_type, c->cmsg_len);
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof info);
			printf(" to us: %d %d", info.ipi_addr.s_addr == own.sin_addr.s_addr,
			       info.ipi_spec_dst.s_addr == own.sin_addr.s_addr);
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
			int ttl;
			memcpy(&ttl, CMSG_DATA(c), sizeof ttl);
			printf(" ttl %d", ttl);
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			printf(" tos %#x", *(unsigned char *)CMSG_DATA(c));
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMP) {
			struct timeval t;
			memcpy(&t, CMSG_DATA(c), sizeof t);
			printf(" now: %d", labs(t.tv_sec - time(NULL)) < 2);
		}
		printf("\n");
	}
	/* Room for one and a part. */
	say(fd, "again");
	m.msg_controllen = 44, m.msg_namelen = 4, m.msg_flags = 0;
	SHOW(recvmsg(fd, &m, 0));
	printf("flags %#x, name %u bytes, control %zu bytes\n", m.msg_flags, m.msg_namelen, m.msg_controllen);
	/* From an address of our choice, with marks of our choice. */
	union {
		char bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} out = {{0}};
	struct msghdr s = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &out, .msg_controllen = sizeof out.bytes,
			   .msg_name = &there, .msg_namelen = sizeof there};
	struct cmsghdr *c = CMSG_FIRSTHDR(&s);
	*c = (struct cmsghdr){CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
	struct in_pktinfo info = {.ipi_spec_dst = own.sin_addr};
	memcpy(CMSG_DATA(c), &info, sizeof info);
	c = CMSG_NXTHDR(&s, c);
	*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), IPPROTO_IP, IP_TTL};
	int ttl = 12;
	memcpy(CMSG_DATA(c), &ttl, sizeof ttl);
	v.iov_len = 3;
	SHOW(sendmsg(fd, &s, 0));
	SHOW(recv(fd, b, sizeof b, 0));
	ttl = 300;
	memcpy(CMSG_DATA(c), &ttl, sizeof ttl);
	SHOW(sendmsg(fd, &s, 0));
	one = 0;
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
	setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one);
	setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one);
}

static void several(int fd)
{
	char b[8][64];
	struct iovec v[8];
	struct mmsghdr m[8];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 5; i++) {
		sprintf(b[i], "message %d", i);
		v[i] = (struct iovec){b[i], strlen(b[i])};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1, .msg_name = &there, .msg_namelen = sizeof there};
	}
	SHOW(sendmmsg(fd, m, 5, 0));
	printf("lengths %u %u\n", m[0].msg_len, m[4].msg_len);
	settle();
	for (int i = 0; i < 8; i++) {
		v[i] = (struct iovec){b[i], sizeof b[i]};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	}
	SHOW(recvmmsg(fd, m, 3, 0, NULL));
	SHOW(recvmmsg(fd, m, 8, MSG_WAITFORONE, NULL));
	SHOW(recvmmsg(fd, m, 8, MSG_DONTWAIT, NULL));
	/* Cut into datagrams by the stack. */
	char big[2500];
	memset(big, 'x', sizeof big);
	int size = 1000;
	SHOW(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size));
	SHOW(sendto(fd, big, sizeof big, 0, (struct sockaddr *)&there, sizeof there));
	size = 0;
	SHOW(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size));
	settle();
	for (int i = 0; i < 3; i++) SHOW(recv(fd, big, sizeof big, 0));
	SHOW(recv(fd, big, sizeof big, MSG_DONTWAIT));
	/* Put together by MSG_MORE. */
	SHOW(sendto(fd, "one ", 4, MSG_MORE, (struct sockaddr *)&there, sizeof there));
	SHOW(sendto(fd, "two", 3, 0, (struct sockaddr *)&there, sizeof there));
	SHOW(recv(fd, big, sizeof big, 0));
}

static void refused(void)
{
	struct sockaddr_in a = ct_there(3).v4;
	char b[16];
	int fd = socket(AF_INET, SOCK_DGRAM, 0), n = 0;
	socklen_t len = sizeof n;
	struct pollfd p = {fd, POLLIN | POLLOUT, 0};
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(send(fd, "x", 1, 0));
	settle();
	SHOW(poll(&p, 1, 1000));
	printf("revents %#x\n", p.revents);
	SHOW(recv(fd, b, sizeof b, 0));
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(send(fd, "x", 1, 0));
	settle();
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &n, &len));
	printf("SO_ERROR %s\n", strerrorname_np(n));
	SHOW(write(fd, "x", 1));
	settle();
	SHOW(write(fd, "x", 1));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(write(fd, "x", 1));
	SHOW(shutdown(fd, SHUT_RD));
	p.revents = 0;
	SHOW(poll(&p, 1, 0));
	printf("revents %#x\n", p.revents);
	SHOW(read(fd, b, sizeof b));
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(close(fd));
}

static void connections(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	char b[64];
	SHOW(connect(fd, (struct sockaddr *)&there, sizeof there));
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	printf("length %u\n", len);
	SHOW(send(fd, "other", 5, 0));
	memset(b, 0, sizeof b);
	SHOW(read(fd, b, sizeof b));
	printf("%s\n", b);
	settle(); /* The other one is for nobody: the kernel says so, and it takes a moment to get there. */
	SHOW(write(fd, "", 0));
	SHOW(recv(fd, b, sizeof b, 0));
	struct iovec v[2] = {{"ab", 2}, {"cde", 3}}, r[2] = {{b, 1}, {b + 10, 20}};
	SHOW(writev(fd, v, 2));
	SHOW(readv(fd, r, 2));
	printf("%.1s %.4s\n", b, b + 10);
	SHOW(sendto(fd, "named", 5, 0, (struct sockaddr *)&there, sizeof there));
	SHOW(recv(fd, b, sizeof b, 0));
	a.sin_family = AF_UNSPEC;
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	SHOW(send(fd, "x", 1, 0));
}

static void sets(int fd)
{
	char b[16];
	int ep = epoll_create1(0);
	struct epoll_event e = {EPOLLIN | EPOLLOUT | EPOLLET, {.u32 = 7}}, got[4];
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	SHOW(epoll_wait(ep, got, 4, 1000));
	printf("events %#x, data %u\n", got[0].events, got[0].data.u32);
	SHOW(epoll_wait(ep, got, 4, 0));
	e.events = EPOLLIN;
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
	say(fd, "set");
	SHOW(epoll_wait(ep, got, 4, 1000));
	printf("events %#x\n", got[0].events);
	SHOW(epoll_wait(ep, got, 4, 0));
	SHOW(recv(fd, b, sizeof b, 0));
	SHOW(epoll_wait(ep, got, 4, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	close(ep);
	fd_set in;
	struct timeval t = {0, 0};
	FD_ZERO(&in);
	FD_SET(fd, &in);
	SHOW(select(fd + 1, &in, NULL, NULL, &t));
}

CASE(session, ALONE | MIXED)
{
	signal(SIGPIPE, SIG_DFL);
	there = ct_there(1).v4;
	PEER_LATER(start_peer());
	ct_wait();
	struct sockaddr_in a = ct_here(1).v4;
	int n = -1;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof a;
	char b[64] = {0};
	static char huge[66000];
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	SHOW(getsockname(fd, (struct sockaddr *)&a, &len));
	printf("port +%d, length %u\n", ntohs(a.sin_port) - ct_port(0), len);
	SHOW(listen(fd, 1));
	SHOW(accept(fd, NULL, NULL));
	SHOW(send(fd, "x", 1, 0));
	a = there;
	a.sin_port = 0;
	SHOW(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a));
	a.sin_family = AF_INET6;
	SHOW(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a));
	SHOW(sendto(fd, "x", 1, 0, (struct sockaddr *)&there, 3));
	SHOW(sendto(fd, "x", 1, MSG_OOB, (struct sockaddr *)&there, sizeof there));
	SHOW(sendto(fd, huge, 65508, 0, (struct sockaddr *)&there, sizeof there));
	struct sockaddr_in everybody = there;
	everybody.sin_addr.s_addr = INADDR_BROADCAST;
	SHOW(sendto(fd, "x", 1, 0, (struct sockaddr *)&everybody, sizeof everybody));
	struct pollfd pf = {fd, POLLIN | POLLOUT, 0};
	SHOW(poll(&pf, 1, 0));
	printf("revents %#x\n", pf.revents);
	/* The first ones find the way; let them come back before order matters. */
	say(fd, "warm");
	SHOW(recv(fd, b, sizeof b, 0));
	settle();
	say(fd, "three");
	settle();
	SHOW(ioctl(fd, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	SHOW(recv(fd, b, 2, MSG_PEEK));
	SHOW(recv(fd, b, 2, MSG_PEEK | MSG_TRUNC));
	SHOW(recv(fd, b, sizeof b, 0));
	struct iovec v = {b, 3};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	SHOW(recvmsg(fd, &m, 0));
	printf("%.3s, flags %#x\n", b, m.msg_flags);
	pf.revents = 0;
	SHOW(poll(&pf, 1, 0));
	printf("revents %#x\n", pf.revents);
	n = -1;
	SHOW(ioctl(fd, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	SHOW(read(fd, b, 0));
	len = 4;
	SHOW(recvfrom(fd, b, sizeof b, 0, (struct sockaddr *)&a, &len));
	printf("address %u bytes\n", len);
	n = -1;
	SHOW(ioctl(fd, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	struct timeval t = {0, 50000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	SHOW(recv(fd, b, sizeof b, 0));
	t.tv_usec = 0;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	SHOW(recv(fd, b, sizeof b, MSG_ERRQUEUE | MSG_DONTWAIT));
	SHOW(shutdown(fd, SHUT_WR + 7));
	n = 5000;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n));
	len = sizeof n;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, &len));
	printf("SO_RCVBUF %d\n", n);
	n = 200000;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(read(fd, b, sizeof b));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	n = 0;
	SHOW(ioctl(fd, FIONBIO, &n));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	control_messages(fd);
	several(fd);
	sets(fd);
	connections(fd);
	refused();
	int twin = dup(fd);
	SHOW(close(fd));
	say(twin, "twin");
	SHOW(recv(twin, b, sizeof b, 0));
	say(twin, "quit");
	SHOW(close(twin));
	SHOW(recv(twin, b, sizeof b, 0));
	PEER_WAIT();
}

/* ---- small ones ---- */

static void show_from(int s, char *b, size_t room, int flags)
{
	struct ct_address a = {.len = sizeof a.all};
	errno = 0;
	long n = recvfrom(s, b, room, flags, &a.a, &a.len);
	if (n < 0) SAY("recvfrom: %s", strerrorname_np(errno));
	else printf("recvfrom %ld, ", n), ct_show_name("from", &a.a, a.len);
}

CASE(boundaries, DATAGRAM | DATAGRAM6)
{
	char b[16] = {0};
	PEER(send(fd, "one", 3, 0); send(fd, "", 0, 0); send(fd, "three", 5, 0));
	SETTLE();
	show_from(fd, b, 16, 0);
	show_from(fd, b, 16, 0);
	show_from(fd, b, 2, 0); /* the rest of it is lost */
	show_from(fd, b, 16, MSG_DONTWAIT);
}

CASE(cut, DATAGRAM | DATAGRAM6)
{
	char b[16] = {0};
	PEER(for (int i = 0; i < 6; i++) send(fd, "0123456789", 10, 0));
	SETTLE();
	SHOW(recv(fd, b, 4, MSG_PEEK));
	SHOW(recv(fd, b, 4, MSG_PEEK | MSG_TRUNC));
	SHOW(recv(fd, b, 4, MSG_TRUNC));
	SHOW(recv(fd, NULL, 0, MSG_TRUNC));
	SHOW(recv(fd, b, 0, 0));
	SHOW(read(fd, b, 3));
	struct iovec v[3] = {{b, 1}, {NULL, 0}, {b + 1, 2}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
	SHOW(recvmsg(fd, &m, MSG_PEEK));
	SHOW(m.msg_flags);
	SHOW(recvmsg(fd, &m, MSG_TRUNC));
	SHOW(m.msg_flags);
	SHOW(readv(fd, v, 3));
	SHOW(recv(fd, b, 16, MSG_DONTWAIT));
}

CASE(read_of_nothing_leaves_it, DATAGRAM)
{
	char b[8];
	PEER(send(fd, "ab", 2, 0));
	SETTLE();
	SHOW(read(fd, b, 0));
	SHOW(recv(fd, b, 8, 0));
	PEER(send(fd, "", 0, 0));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT, 100);
	int n = -1;
	SHOW(ioctl(fd, FIONREAD, &n));
	SHOW(n);
	SHOW(read(fd, b, 8));
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
}

CASE(longest, DATAGRAM | DATAGRAM6 | MIXED)
{
	static char b[70000];
	int v6 = ct_family == AF_INET6, most = v6 ? 65527 : 65507, packet = v6 ? 1452 : 1472;
	struct ct_address to = ct_there(0);
	SHOW(sendto(fd, b, packet, 0, AT(to)));
	PEER(static char b[70000]; SHOW(recv(fd, b, sizeof b, 0)));
	SHOW(sendto(fd, b, packet + 1, 0, AT(to)));
	PEER(static char b[70000]; SHOW(recv(fd, b, sizeof b, 0)));
	SHOW(sendto(fd, b, most, 0, AT(to)) == most);
	PEER(static char b[70000]; SHOW(recv(fd, b, sizeof b, 0)); SHOW(send(fd, b, 30000, 0)));
	SHOW(recv(fd, b, sizeof b, 0));
	SHOW(sendto(fd, b, most + 1, 0, AT(to)));
	SHOW(sendto(fd, b, (size_t)-1, 0, AT(to)));
	SHOW(send(fd, b, sizeof b, 0));
}

CASE(connected_and_not, BOUND | BOUND6)
{
	struct ct_address to = ct_there(0), none = {.a.sa_family = AF_UNSPEC, .len = 16};
	SHOW(send(fd, "x", 1, 0));
	SHOW(write(fd, "x", 1));
	SHOW(connect(fd, AT(to)));
	SHOW(write(fd, "a", 1));
	SHOW(sendto(fd, "b", 1, 0, AT(to)));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); SHOW(recv(fd, &b, 1, 0)));
	SHOW(connect(fd, AT(none)));
	SHOW(send(fd, "x", 1, 0));
	SHOW(connect(fd, AT(none)));
	SHOW(sendto(fd, "c", 1, 0, AT(to)));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); send(fd, "d", 1, 0));
	SHOW(recv(fd, &(char){0}, 1, 0));
}

CASE(only_the_peers, CONNECTED | CONNECTED6)
{
	struct ct_address own = {.len = sizeof own.all};
	getsockname(fd, &own.a, &own.len);
	/* Somebody else's datagrams are not for a connected socket. */
	PEER_WITH(own.v4.sin_port, struct ct_address to = ct_here(0); to.v4.sin_port = arg; int s = ct_socket(SOCK_DGRAM);
		  sendto(s, "other", 5, 0, AT(to)); ct_nap(10); send(fd, "mine", 4, 0));
	char b[8] = {0};
	SHOW(read(fd, b, 8));
	SAY("%s", b);
	SHOW(recv(fd, b, 8, MSG_DONTWAIT));
}

CASE(refused_ones, ALONE | ALONE6)
{
	struct ct_address to = ct_there(3);
	char b[4];
	int s = ct_socket(SOCK_DGRAM);
	SHOW(connect(s, AT(to)));
	SHOW(send(s, "x", 1, 0));
	ct_show_poll(s, POLLIN, 2000); /* until the error is there */
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	ct_show_error(s);
	ct_show_poll(s, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(send(s, "x", 1, 0));
	SETTLE();
	SHOW(send(s, "x", 1, 0));
	SHOW(send(s, "x", 1, 0));
	SETTLE();
	SHOW(recv(s, b, 4, 0));
	SHOW(recv(s, b, 4, MSG_DONTWAIT));
	PEER(struct ct_address at = ct_there(3); ct_peer_fd = ct_socket(SOCK_DGRAM); bind(ct_peer_fd, AT(at)));
	SHOW(send(s, "y", 1, 0));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(wrong_addresses, BOUND | MIXED)
{
	struct ct_address a = ct_there(0);
	SHOW(sendto(fd, "x", 1, 0, &a.a, 0));
	SHOW(sendto(fd, "x", 1, 0, &a.a, 8));
	SHOW(sendto(fd, "x", 1, 0, &a.a, 200));
	a.a.sa_family = AF_UNIX;
	SHOW(sendto(fd, "x", 1, 0, AT(a)));
	a.a.sa_family = AF_UNSPEC; /* stands for AF_INET */
	SHOW(sendto(fd, "y", 1, 0, AT(a)));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); SAY("%c", b); send(fd, "z", 1, 0));
	SHOW(recv(fd, &(char){0}, 1, 0));
	a = ct_there(0);
	a.v4.sin_port = 0;
	SHOW(sendto(fd, "x", 1, 0, AT(a)));
	SHOW(sendto(fd, "x", 1, MSG_OOB, AT(a)));
	inet_pton(AF_INET, "198.51.100.1", &a.v4.sin_addr);
	a.v4.sin_port = 1;
	SHOW(sendto(fd, "x", 1, 0, AT(a)));
	SHOW(sendto(fd, NULL, 0, 0, NULL, 0));
}

CASE(stream_calls, DATAGRAM)
{
	SHOW(listen(fd, 1));
	SHOW(accept(fd, NULL, NULL));
	SHOW(recv(fd, &(char){0}, 1, MSG_OOB | MSG_DONTWAIT));
	SHOW(ioctl(fd, SIOCATMARK, &(int){0}));
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, &(char){0}, 1, MSG_WAITALL));
}

CASE(shut, DATAGRAM | DATAGRAM6)
{
	char b[8];
	struct ct_address to = ct_there(0);
	signal(SIGPIPE, SIG_IGN);
	PEER(send(fd, "before", 6, 0));
	SETTLE();
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(recv(fd, b, 8, MSG_DONTWAIT));
	SHOW(recv(fd, b, 8, MSG_DONTWAIT));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(sendto(fd, "x", 1, 0, AT(to)));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(sendto(fd, "x", 1, 0, AT(to)));
	ct_show_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0);
	SHOW(shutdown(fd, 3));
}

CASE(waits, DATAGRAM | DATAGRAM6)
{
	char b[8];
	PEER_LATER(ct_nap(80); send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
	struct timeval t = {0, 100000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	TIMED(recv(fd, b, 8, 0), 100);
	TIMED(recv(fd, b, 8, MSG_WAITALL), 100);
	SHOW(recv(fd, b, 8, MSG_DONTWAIT));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	SHOW(read(fd, b, 8));
}

CASE(messages_in_one_call, DATAGRAM | DATAGRAM6)
{
	char b[6][8];
	struct iovec v[6];
	struct mmsghdr m[6];
	struct timespec t = {0, 100000000};
	memset(m, 0, sizeof m);
	for (int i = 0; i < 6; i++) {
		v[i] = (struct iovec){b[i], 4};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	}
	SHOW(recvmmsg(fd, m, 6, MSG_DONTWAIT, NULL));
	PEER(send(fd, "1", 1, 0); send(fd, "22", 2, 0); send(fd, "", 0, 0); send(fd, "55555", 5, 0));
	SETTLE();
	SHOW(recvmmsg(fd, m, 3, 0, NULL));
	SAY("%u %u %u", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	SHOW(recvmmsg(fd, m, 6, MSG_WAITFORONE, NULL));
	SAY("%u, flags %#x", m[0].msg_len, m[0].msg_hdr.msg_flags);
	PEER(send(fd, "1", 1, 0));
	SETTLE();
	SHOW(recvmmsg(fd, m, 2, MSG_DONTWAIT, &t));
	SHOW(recvmmsg(fd, m, 0, MSG_DONTWAIT, NULL));
	t.tv_nsec = 2000000000;
	SHOW(recvmmsg(fd, m, 2, MSG_DONTWAIT, &t));
}

CASE(several_sent_in_one_call, CONNECTED | CONNECTED6)
{
	struct iovec v[4] = {{"a", 1}, {"", 0}, {"ccc", 3}, {"dddd", 4}};
	struct mmsghdr m[4];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 4; i++) m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	SHOW(sendmmsg(fd, m, 4, 0));
	SAY("%u %u %u %u", m[0].msg_len, m[1].msg_len, m[2].msg_len, m[3].msg_len);
	PEER(char b[8]; for (int i = 0; i < 4; i++) SHOW(recv(fd, b, 8, 0)));
	struct ct_address wrong = {.a.sa_family = 99, .len = 16};
	m[2].msg_hdr.msg_name = &wrong.a, m[2].msg_hdr.msg_namelen = 16;
	SHOW(sendmmsg(fd, m, 4, 0)); /* as many as went before the wrong one */
	SHOW(sendmmsg(fd, m + 2, 2, 0));
	PEER(char b[8]; for (int i = 0; i < 2; i++) SHOW(recv(fd, b, 8, 0)));
}

CASE(gathered, DATAGRAM | DATAGRAM6)
{
	struct iovec v[4] = {{"ab", 2}, {NULL, 0}, {"cde", 3}, {"", 0}};
	struct ct_address to = ct_there(0);
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 4, .msg_name = &to.all, .msg_namelen = to.len}, none = {.msg_name = &to.all, .msg_namelen = to.len};
	SHOW(sendmsg(fd, &m, 0));
	SHOW(sendmsg(fd, &none, 0));
	PEER(char b[8] = {0}; SHOW(recv(fd, b, 8, 0)); SAY("%s", b); SHOW(recv(fd, b, 8, 0)));
	m.msg_iovlen = 1025;
	SHOW(sendmsg(fd, &m, 0));
	SHOW(recvmsg(fd, &m, MSG_DONTWAIT));
}

CASE(room_for_names, DATAGRAM | DATAGRAM6)
{
	for (int room = 0; room <= 32; room += 8) {
		unsigned char name[64];
		socklen_t len = room;
		char b[8];
		memset(name, 0xee, sizeof name);
		PEER(send(fd, "x", 1, 0));
		long n = recvfrom(fd, b, 8, 0, (struct sockaddr *)name, &len);
		SAY("room %d: %ld, length %u, untouched behind: %d", room, n, len, name[(int)len < room ? (int)len : room] == 0xee);
	}
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	struct ct_address a;
	socklen_t len = -1;
	SHOW(recvfrom(fd, &(char){0}, 1, 0, &a.a, &len));
	SHOW(recvfrom(fd, &(char){0}, 1, MSG_DONTWAIT, NULL, NULL));
}

CASE(binding, ALONE | ALONE6)
{
	struct ct_address a = ct_here(0), name = {.len = sizeof name.all};
	int s = ct_socket(SOCK_DGRAM), t = ct_socket(SOCK_DGRAM);
	SHOW(bind(s, AT(a)));
	SHOW(bind(s, AT(a)));
	SHOW(bind(t, AT(a)));
	SHOW(recv(s, &(char){0}, 1, MSG_DONTWAIT));
	PEER(ct_peer_fd = ct_socket(SOCK_DGRAM); struct ct_address to = ct_here(0); connect(ct_peer_fd, AT(to)); send(ct_peer_fd, "x", 1, 0));
	SHOW(recvfrom(s, &(char){0}, 1, 0, &name.a, &name.len));
	SHOW(close(s));
	SHOW(bind(t, AT(a)));
	SHOW(sendto(t, "back", 4, 0, AT(name)));
	PEER(char b[8]; SHOW(recv(fd, b, 8, 0)));
}

CASE(bound_to_port_zero, ALONE | ALONE6)
{
	struct ct_address a = ct_here(0), name = {.len = sizeof name.all}, later = {.len = sizeof later.all}, to = ct_there(0);
	if (ct_family == AF_INET6) a.v6.sin6_port = 0;
	else a.v4.sin_port = 0;
	int s = ct_socket(SOCK_DGRAM);
	PEER(struct ct_address at = ct_there(0); ct_peer_fd = ct_socket(SOCK_DGRAM); bind(ct_peer_fd, AT(at)));
	SHOW(bind(s, AT(a)));
	SHOW(getsockname(s, &name.a, &name.len));
	ct_show_name("own name", &name.a, name.len);
	SHOW(sendto(s, "x", 1, 0, AT(to)));
	SHOW(getsockname(s, &later.a, &later.len));
	SAY("the port stays: %d", !memcmp(&name.all, &later.all, name.len));
	PEER(struct ct_address a = {.len = sizeof a.all}; char b; SHOW(recvfrom(fd, &b, 1, 0, &a.a, &a.len)); sendto(fd, "y", 1, 0, AT(a)));
	SHOW(recv(s, &(char){0}, 1, 0));
}

/* ---- what routers say ---- */

static void send_beyond(int how)
{
	struct ct_address a = ct_beyond(how);
	int s = ct_socket(SOCK_DGRAM), u = ct_socket(SOCK_DGRAM);
	SHOW(connect(s, AT(a)));
	SHOW(send(s, "x", 1, 0));
	ct_show_poll(s, POLLIN, 200); /* time for the error */
	ct_show_poll(s, POLLIN | POLLOUT, 0);
	SHOW(recv(s, &(char){0}, 1, MSG_DONTWAIT));
	SHOW(send(s, "x", 1, 0));
	SHOW(poll(&(struct pollfd){s, POLLIN, 0}, 1, 200));
	ct_show_error(s);
	ct_show_error(s);
	SHOW(sendto(u, "x", 1, 0, AT(a))); /* not connected: nobody is told */
	SETTLE();
	ct_show_error(u);
	SHOW(sendto(u, "x", 1, 0, AT(a)));
}

/* Over IPv4 a Linux router says so five times in a row, and then once a second (net.ipv4.route.error_cost). */
CASE(unreachable, ALONE6) { send_beyond(1); }
CASE(prohibited, ALONE6) { send_beyond(2); }
CASE(into_a_black_hole, CONNECTED | CONNECTED6) { send_beyond(3); }
