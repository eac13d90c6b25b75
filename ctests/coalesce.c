/* UDP_GRO: several datagrams of one sender in one receive; and what a receive buffer holds of small ones. */
#include "ct.h"
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

static void show_receive(int fd, size_t room, int flags)
{
	static char b[70000];
	char c[256];
	struct sockaddr_storage name = {0};
	struct iovec i[2] = {{b, room / 3}, {b + room / 3, room - room / 3}};
	struct msghdr m = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = i, .msg_iovlen = 2};
	m.msg_control = c;
	m.msg_controllen = sizeof c;
	memset(b, 0, sizeof b);
	long n = recvmsg(fd, &m, flags | MSG_DONTWAIT);
	if (n < 0) {
		SAY("receive: %s", strerrorname_np(errno));
		return;
	}
	unsigned sum = 0;
	for (size_t at = 0; at < room; at++) sum = sum * 31 + (unsigned char)b[at];
	SAY("receive: %ld, flags %#x, sum %u", n, m.msg_flags, sum);
	ct_show_name(" from", &name, m.msg_namelen);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		int v = -1;
		memcpy(&v, CMSG_DATA(h), sizeof v);
		SAY(" level %d type %d (%zu): %d", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len, v);
	}
}

/* `arg`: the size of a segment, and 65536 times the length of all. */
static void send_segments(int fd, long arg)
{
	static char b[65000];
	int size = arg & 0xffff, len = arg >> 16;
	for (int i = 0; i < len; i++) b[i] = 'a' + i / size;
	if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size)) ct_die("UDP_SEGMENT");
	if (send(fd, b, len, 0) != len) ct_die("send");
}

static void coalesce(int fd, int on)
{
	int is = -1;
	socklen_t len = sizeof is;
	SHOW(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on));
	SHOW(getsockopt(fd, IPPROTO_UDP, UDP_GRO, &is, &len));
	SAY("%d", is);
}

CASE(segments_are_one_receive, DATAGRAM | DATAGRAM6)
{
	coalesce(fd, 1);
	PEER_WITH(1000 + 2500 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, MSG_PEEK);
	show_receive(fd, 65536, 0);
	show_receive(fd, 65536, 0);
	PEER_WITH(100 + 1000 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, 0);
	show_receive(fd, 65536, 0);
	PEER_WITH(100 + 100 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, 0);
}

CASE(not_asked_for_they_are_single, DATAGRAM | DATAGRAM6)
{
	PEER_WITH(1000 + 2500 * 65536L, send_segments(fd, arg));
	SETTLE();
	for (int i = 0; i < 4; i++) show_receive(fd, 65536, 0);
	coalesce(fd, 1);
	PEER_WITH(1000 + 2500 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, 0);
	coalesce(fd, 0);
	PEER_WITH(1000 + 2500 * 65536L, send_segments(fd, arg));
	SETTLE();
	for (int i = 0; i < 4; i++) show_receive(fd, 65536, 0);
}

CASE(with_other_messages, BOUND)
{
	int one = 1;
	coalesce(fd, 1);
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one));
	PEER_WITH(500 + 1400 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, 0);
}

CASE(with_other_messages_v6, BOUND6)
{
	int one = 1;
	coalesce(fd, 1);
	SHOW(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one));
	PEER_WITH(500 + 1400 * 65536L, send_segments(fd, arg));
	SETTLE();
	show_receive(fd, 65536, 0);
}

/* What one send is cut into, by a control message. */
CASE(a_control_message_cuts, DATAGRAM)
{
	char b[2500] = {0};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(uint16_t))];
	} c = {.h = {.cmsg_len = CMSG_LEN(sizeof(uint16_t)), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT}};
	uint16_t size = 900;
	struct iovec i = {b, sizeof b};
	struct ct_address to = ct_there(0);
	struct msghdr m = {.msg_iov = &i, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	memcpy(CMSG_DATA(&c.h), &size, sizeof size);
	if (ct_is_server) {
		struct sockaddr_storage from;
		socklen_t len = sizeof from;
		PEER(send(fd, "where", 5, 0));
		SHOW(recvfrom(fd, b, sizeof b, 0, (struct sockaddr *)&from, &len));
		memcpy(&to.all, &from, len);
		m.msg_name = &to;
		m.msg_namelen = len;
	}
	SHOW(sendmsg(fd, &m, 0));
	PEER(char b[3000]; for (int i = 0; i < 3; i++) SHOW(recv(fd, b, sizeof b, 0)));
}

/* How many datagrams of so many octets wait for a slow reader: at least as many as in the kernel, and not without end. */
static void flood(int fd, long len)
{
	char b[1500] = {0};
	for (int i = 0; i < 600; i++) {
		send(fd, b, len, 0);
		if (i % 50 == 49) ct_nap(5);
	}
}

static void show_held(int fd, int least)
{
	char b[1500];
	int n = 0;
	SETTLE();
	while (recv(fd, b, sizeof b, MSG_DONTWAIT) >= 0) n++;
	SAY("at least %d: %s; all: %s", least, n >= least ? "yes" : "no", n == 600 ? "yes" : "no");
	if (n < least) SAY("%d", n);
}

CASE(a_buffer_holds_small_ones, BOUND)
{
	PEER(flood(fd, 1));
	show_held(fd, 256);
	PEER(flood(fd, 100));
	show_held(fd, 256);
	PEER(flood(fd, 500));
	show_held(fd, 166);
	PEER(flood(fd, 1400));
	show_held(fd, 92);
}
