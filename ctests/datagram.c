/* One datagram socket: sizes, flags, addresses, control messages, errors, several at once. */
#include "common.h"
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static struct sockaddr_in there, peers;

/* The peer sends what a round asks for, and echoes. */
static void peer(int fd)
{
	char b[4096];
	struct sockaddr_in a;
	for (;;) {
		socklen_t len = sizeof a;
		ssize_t n = recvfrom(fd, b, sizeof b, 0, (struct sockaddr *)&a, &len);
		if (n < 0) _exit(1);
		if (n == 4 && !memcmp(b, "quit", 4)) _exit(0);
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

static pid_t start_peer(void)
{
	if (pipe(ct_to_peer) || pipe(ct_to_test)) ct_die("pipe");
	pid_t pid = fork();
	if (pid) {
		ct_wait(0);
		return pid;
	}
	const char *ns = getenv("CT_PEER_NETNS");
	if (ns && setns(open(ns, O_RDONLY | O_CLOEXEC), CLONE_NEWNET)) ct_die("setns");
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(fd, (struct sockaddr *)&peers, sizeof peers)) ct_die("peer's bind");
	ct_tell(1);
	peer(fd);
	_exit(0);
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
	struct sockaddr_in own = ct_addr("CT_ADDR", 0);
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
	struct sockaddr_in a = ct_addr("CT_PEER_ADDR", 7119);
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

int main(void)
{
	signal(SIGPIPE, SIG_DFL);
	there = peers = ct_addr("CT_PEER_ADDR", 7111);
	pid_t p = start_peer();
	struct sockaddr_in a = ct_addr("CT_ADDR", 7110);
	int fd = socket(AF_INET, SOCK_DGRAM, 0), n = -1;
	socklen_t len = sizeof a;
	char b[64] = {0};
	static char huge[66000];
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	SHOW(getsockname(fd, (struct sockaddr *)&a, &len));
	printf("port %d, length %u\n", ntohs(a.sin_port), len);
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
	ct_done(p);
	return 0;
}
