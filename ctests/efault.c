/* Bad pointers: every pointer of every call, on a user socket and on sockets of the kernel; but for the timeouts of ppoll,
 * select and pselect, which glibc reads itself, and crashes. Each is tried as low, as the
 * kernel's, as no address at all, as a page without rights, as a page that can only be read, and across the end of a page. */
#include "ct.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
static char *good;      /* the last bytes of a page that a hole follows */
static char *hole;      /* no rights */
static char *read_only;

static void memory(void)
{
	char *at = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	hole = at + PAGE;
	good = hole;
	read_only = at + 4 * PAGE;
	mprotect(hole, PAGE, PROT_NONE);
	memset(read_only, 0, PAGE);
	mprotect(read_only, PAGE, PROT_READ);
}

/* The pointers that are bad for reading; and for writing, one more. */
#define BAD 5
static const char *bad_names[] = {"null", "low", "the kernel's", "no address", "no rights", "read-only"};
static void *bad(int i)
{
	switch (i) {
	case 0: return NULL;
	case 1: return (void *)16;
	case 2: return (void *)0xffff888000000000;
	case 3: return (void *)0x8000000000000000;
	case 4: return hole;
	default: return read_only;
	}
}

#define TRY(i, call)                                                                                                   \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		long ct_r = (long)(call);                                                                              \
		SAY("%-12s %s = %ld %s", bad_names[i], #call, ct_r, ct_r < 0 ? strerrorname_np(errno) : "");           \
	} while (0)

/* A socket of each kind: the one under test, one of the kernel's. */
static int kernel_pair[2];
static void kernel_socket(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, kernel_pair)) ct_die("socketpair");
}

static void drain(int fd)
{
	char b[4096];
	while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0) {}
}

/* ---- payload ---- */

CASE(receiving, BOTH | BOTH6)
{
	memory();
	for (int i = 0; i <= BAD; i++) {
		PEER(send(fd, "0123456789", 10, 0));
		SETTLE();
		TRY(i, recv(fd, bad(i), 10, 0));
		TRY(i, read(fd, bad(i), 10));
		TRY(i, recvfrom(fd, bad(i), 10, 0, NULL, NULL));
		TRY(i, recv(fd, bad(i), 10, MSG_PEEK));
		TRY(i, recv(fd, bad(i), 10, MSG_DONTWAIT));
		struct iovec v = {bad(i), 10};
		TRY(i, readv(fd, &v, 1));
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		TRY(i, recvmsg(fd, &m, 0));
		char b[16];
		SHOW(recv(fd, b, 16, 0));
		ct_show_bytes("nothing was lost", b, 10);
	}
}

CASE(sending, BOTH | BOTH6)
{
	memory();
	for (int i = 0; i < BAD; i++) {
		TRY(i, send(fd, bad(i), 10, 0));
		TRY(i, write(fd, bad(i), 10));
		TRY(i, sendto(fd, bad(i), 10, 0, NULL, 0));
		TRY(i, send(fd, bad(i), 10, MSG_DONTWAIT));
		TRY(i, send(fd, bad(i), 10, MSG_OOB));
		struct iovec v = {bad(i), 10};
		TRY(i, writev(fd, &v, 1));
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		TRY(i, sendmsg(fd, &m, 0));
	}
	SHOW(send(fd, read_only, 3, 0));
	PEER(char b[16]; SHOW(recv(fd, b, 16, 0)));
}

CASE(across_the_end_of_a_page, BOTH)
{
	memory();
	memcpy(good - 8, "abcdefgh", 8);
	SHOW(send(fd, good - 8, 8, 0));
	SHOW(send(fd, good - 8, 9, 0));
	SHOW(send(fd, good - 8, 1000, 0));
	SHOW(send(fd, good - 8, 4, 0));
	SETTLE();
	PEER(char b[64]; long n = recv(fd, b, 64, 0); ct_show_bytes("peer", b, n); send(fd, "0123456789", 10, 0));
	SETTLE();
	SHOW(recv(fd, good - 4, 5, 0));
	SHOW(recv(fd, good - 4, 10, 0));
	SHOW(recv(fd, good - 4, 4, 0));
	ct_show_bytes("got", good - 4, 4);
	/* Room that is not there does no harm as long as nothing goes there. */
	SHOW(recv(fd, good - 6, 1 << 20, 0));
	ct_show_bytes("got", good - 6, 6);
}

CASE(no_byte_goes_no_byte_is_touched, BOTH)
{
	memory();
	for (int i = 0; i < BAD; i++) {
		TRY(i, send(fd, bad(i), 0, 0));
		TRY(i, recv(fd, bad(i), 0, MSG_DONTWAIT));
	}
	SHOW(recv(fd, hole, 10, MSG_DONTWAIT));
	SHOW(recv(fd, (void *)16, 10, MSG_DONTWAIT));
	SHOW(recv(fd, (void *)0xffff888000000000, 10, MSG_DONTWAIT));
	PEER(send(fd, "0123", 4, 0));
	SETTLE();
	SHOW(recv(fd, hole, 4, MSG_TRUNC));
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(recv(fd, hole, 4, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(send(fd, hole, 4, MSG_NOSIGNAL));
}

CASE(much_is_sent_up_to_the_bad_page, BOTH)
{
	enum { SIZE = 1 << 20 };
	char *big = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(big, 'x', SIZE);
	mprotect(big + SIZE - PAGE, PAGE, PROT_NONE);
	PEER_LATER(static char all[1 << 16]; while (recv(fd, all, sizeof all, 0) > 0) {});
	long n = send(fd, big, SIZE, 0);
	SAY("some: %s", n > SIZE / 2 && n <= SIZE - PAGE ? "yes" : "no");
	SHOW(send(fd, big + SIZE - PAGE - 100, 200, 0));
	shutdown(fd, SHUT_WR);
	PEER_WAIT();
}

CASE(one_of_several_buffers, BOTH)
{
	memory();
	char a[4], b[8] = "good";
	PEER(send(fd, "0123456789", 10, 0));
	SETTLE();
	for (int i = 0; i <= BAD; i++) {
		struct iovec v[2] = {{a, 4}, {bad(i), 4}}, w[2] = {{bad(i), 4}, {a, 4}};
		TRY(i, readv(fd, v, 2));
		TRY(i, readv(fd, w, 2));
		if (i == BAD) break;
		struct iovec x[2] = {{b, 4}, {bad(i), 4}};
		TRY(i, writev(fd, x, 2));
		struct iovec y[2] = {{b, 4}, {bad(i), 0}};
		TRY(i, writev(fd, y, 2));
	}
	/* A buffer that is not reached is not touched. */
	struct iovec z[2] = {{b, 8}, {hole, 100}};
	SHOW(recv(fd, b, 8, 0));
	SHOW(readv(fd, z, 2));
	SETTLE();
	PEER(char c[64]; SHOW(recv(fd, c, 64, 0)));
}

CASE(arrays_and_headers, BOTH)
{
	memory();
	PEER(send(fd, "0123456789", 10, 0));
	SETTLE();
	char b[16];
	for (int i = 0; i < BAD; i++) {
		TRY(i, readv(fd, bad(i), 1));
		TRY(i, writev(fd, bad(i), 1));
		TRY(i, recvmsg(fd, bad(i), 0));
		TRY(i, sendmsg(fd, bad(i), 0));
		struct msghdr m = {.msg_iov = bad(i), .msg_iovlen = 1};
		TRY(i, recvmsg(fd, &m, 0));
		TRY(i, sendmsg(fd, &m, 0));
		TRY(i, recvmmsg(fd, bad(i), 1, 0, NULL));
		TRY(i, sendmmsg(fd, bad(i), 1, 0));
	}
	struct iovec v = {b, 16};
	for (int i = 1; i < BAD; i++) {
		struct mmsghdr mm = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
		TRY(i, recvmmsg(fd, &mm, 1, 0, bad(i)));
	}
	struct iovec negative = {b, -1};
	SHOW(readv(fd, &negative, 1));
	SHOW(writev(fd, &negative, 1));
	SHOW(readv(fd, (struct iovec *)(good - 16), 2));
	SHOW(recv(fd, b, 16, 0));
	/* The data has gone when the header cannot be written. */
	struct msghdr *m = (struct msghdr *)read_only;
	mprotect(read_only, PAGE, PROT_READ | PROT_WRITE);
	*m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1};
	mprotect(read_only, PAGE, PROT_READ);
	PEER(send(fd, "0123456789", 10, 0));
	SETTLE();
	SHOW(recvmsg(fd, m, 0));
	SHOW(recv(fd, b, 16, MSG_DONTWAIT));
}

CASE(where_the_sender_goes, BOTH)
{
	memory();
	char b[16];
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	for (int i = 0; i <= BAD; i++) {
		PEER(send(fd, "0123456789", 10, 0));
		SETTLE();
		TRY(i, recvfrom(fd, b, 10, 0, (struct sockaddr *)&a, bad(i)));
		drain(fd);
		PEER(send(fd, "0123456789", 10, 0));
		SETTLE();
		TRY(i, recvfrom(fd, b, 10, 0, bad(i), &len));
		drain(fd);
		len = sizeof a;
	}
}

CASE(names, BOTH | BOTH6)
{
	memory();
	struct sockaddr_storage a;
	for (int i = 0; i <= BAD; i++) {
		socklen_t len = sizeof a;
		TRY(i, getsockname(fd, (struct sockaddr *)&a, bad(i)));
		TRY(i, getsockname(fd, bad(i), &len));
		TRY(i, getpeername(fd, (struct sockaddr *)&a, bad(i)));
		TRY(i, getpeername(fd, bad(i), &len));
		len = 0;
		TRY(i, getsockname(fd, bad(i), &len));
	}
	socklen_t len = -1;
	SHOW(getsockname(fd, (struct sockaddr *)&a, &len));
	len = 4;
	SHOW(getsockname(fd, (struct sockaddr *)(good - 4), &len));
	len = 16;
	SHOW(getsockname(fd, (struct sockaddr *)(good - 4), &len));
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, good - 1, 1, 0));
}

CASE(options, BOTH)
{
	memory();
	static const struct { int level, name; } all[] = {
		{SOL_SOCKET, SO_ERROR}, {SOL_SOCKET, SO_RCVBUF}, {SOL_SOCKET, SO_LINGER}, {SOL_SOCKET, SO_RCVTIMEO}, {SOL_SOCKET, SO_KEEPALIVE},
		{SOL_SOCKET, SO_REUSEADDR}, {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_INFO}, {IPPROTO_TCP, TCP_CONGESTION},
		{IPPROTO_TCP, TCP_KEEPIDLE}, {IPPROTO_TCP, TCP_QUICKACK},
	};
	char b[256];
	for (unsigned o = 0; o < sizeof all / sizeof *all; o++) {
		SAY("level %d name %d", all[o].level, all[o].name);
		for (int i = 0; i <= BAD; i++) {
			socklen_t len = 16;
			TRY(i, getsockopt(fd, all[o].level, all[o].name, b, bad(i)));
			TRY(i, getsockopt(fd, all[o].level, all[o].name, bad(i), &len));
			if (i == BAD) break;
			TRY(i, setsockopt(fd, all[o].level, all[o].name, bad(i), 16));
		}
	}
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 1, 0));
}

CASE(controls, BOTH)
{
	memory();
	for (int i = 0; i <= BAD; i++) {
		TRY(i, ioctl(fd, FIONREAD, bad(i)));
		TRY(i, ioctl(fd, TIOCOUTQ, bad(i)));
		TRY(i, ioctl(fd, 0x8905 /* SIOCATMARK */, bad(i)));
		if (i < BAD) TRY(i, ioctl(fd, FIONBIO, bad(i)));
	}
	PEER(send(fd, "x", 1, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

/* ---- waiting ---- */

CASE(polling, BOTH)
{
	memory();
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	struct pollfd p = {fd, POLLIN, 0};
	for (int i = 0; i < BAD; i++) {
		TRY(i, poll(bad(i), 1, 0));
		TRY(i, poll(bad(i), 0, 0));
		TRY(i, ppoll(bad(i), 1, NULL, NULL));
		if (i == 0) continue;
		TRY(i, ppoll(&p, 1, NULL, bad(i)));
	}
	struct pollfd *edge = (struct pollfd *)good - 1;
	*edge = p;
	SHOW(poll(edge, 1, 0));
	SHOW(poll(edge, 2, 0));
	mprotect(read_only, PAGE, PROT_READ | PROT_WRITE);
	*(struct pollfd *)read_only = p;
	mprotect(read_only, PAGE, PROT_READ);
	SHOW(poll((struct pollfd *)read_only, 1, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

CASE(selecting, BOTH)
{
	memory();
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	fd_set s;
	struct timeval zero = {0, 0};
	for (int i = 1; i < BAD; i++) {
		FD_ZERO(&s);
		FD_SET(fd, &s);
		TRY(i, select(fd + 1, bad(i), NULL, NULL, &zero));
		TRY(i, select(fd + 1, &s, bad(i), NULL, &zero));
		TRY(i, select(fd + 1, &s, NULL, bad(i), &zero));
		TRY(i, pselect(fd + 1, &s, NULL, NULL, NULL, bad(i)));
	}
	SHOW(FD_ISSET(fd, &s));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

CASE(epoll, BOTH)
{
	memory();
	int ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	for (int i = 0; i < BAD; i++) {
		TRY(i, epoll_ctl(ep, EPOLL_CTL_ADD, fd, bad(i)));
		TRY(i, epoll_ctl(ep, EPOLL_CTL_DEL, fd, bad(i)));
	}
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	for (int i = 0; i < BAD; i++) TRY(i, epoll_ctl(ep, EPOLL_CTL_MOD, fd, bad(i)));
	for (int i = 0; i <= BAD; i++) TRY(i, epoll_wait(ep, bad(i), 1, 0));
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	for (int i = 0; i <= BAD; i++) TRY(i, epoll_wait(ep, bad(i), 1, 0));
	SHOW(epoll_wait(ep, (struct epoll_event *)good - 1, 1, 0));
	SHOW(epoll_wait(ep, (struct epoll_event *)good - 1, 100, 0));
	for (int i = 1; i < BAD; i++) {
		TRY(i, epoll_pwait(ep, &e, 1, 0, bad(i)));
		TRY(i, epoll_pwait2(ep, &e, 1, bad(i), NULL));
	}
	for (int i = 0; i < BAD; i++) TRY(i, epoll_ctl(ep, EPOLL_CTL_DEL, fd, bad(i)) + i * 0);
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

/* ---- the life of a socket ---- */

CASE(before_it_connects, ALONE | ALONE6)
{
	memory();
	int l = ct_listen(ct_here(0));
	for (int i = 0; i < BAD; i++) {
		int s = ct_socket(SOCK_STREAM);
		TRY(i, bind(s, bad(i), 16));
		TRY(i, connect(s, bad(i), 16));
		TRY(i, sendto(s, "x", 1, MSG_NOSIGNAL, bad(i), 16));
		close(s);
		s = ct_socket(SOCK_DGRAM);
		TRY(i, connect(s, bad(i), 16));
		TRY(i, sendto(s, "x", 1, 0, bad(i), 16));
		struct ct_address there = ct_there(1);
		TRY(i, sendto(s, bad(i), 1, 0, AT(there)));
		struct msghdr m = {.msg_name = bad(i), .msg_namelen = 16};
		TRY(i, sendmsg(s, &m, 0));
		TRY(i, bind(s, bad(i), 16));
		close(s);
	}

	for (int i = 0; i <= BAD; i++) {
		PEER(ct_peer_fd = ct_connect(ct_here(0)));
		SETTLE();
		struct sockaddr_storage name;
		socklen_t len = sizeof name;
		if (i) {
			TRY(i, accept(l, bad(i), &len) < 0 ? -1 : 0);
			PEER(char b; SHOW(recv(fd, &b, 1, 0)); close(fd); ct_peer_fd = ct_connect(ct_here(0)));
			SETTLE();
		}
		TRY(i, accept4(l, (struct sockaddr *)&name, bad(i), 0) < 0 ? -1 : 0);
		PEER(char b; SHOW(recv(fd, &b, 1, 0)); close(fd));
	}

	PEER(ct_peer_fd = ct_connect(ct_here(0)); send(fd, "x", 1, 0));
	int s = accept(l, NULL, NULL);
	char b;
	SHOW(recv(s, &b, 1, 0));
}

/* What was to go with the SYN. */
CASE(early_data, ALONE)
{
	memory();
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address there = ct_there(1);
	for (int i = 0; i < BAD; i++) {
		int s = ct_socket(SOCK_STREAM);
		TRY(i, sendto(s, bad(i), 10, MSG_FASTOPEN | MSG_NOSIGNAL, AT(there)));
		struct iovec v[2] = {{bad(i), 10}, {(void *)"x", 1}};
		struct msghdr m = {.msg_name = &there, .msg_namelen = there.len, .msg_iov = v, .msg_iovlen = 2};
		close(s);
		s = ct_socket(SOCK_STREAM);
		TRY(i, sendmsg(s, &m, MSG_FASTOPEN | MSG_NOSIGNAL));
		TRY(i, send(s, "good", 4, MSG_NOSIGNAL));
		close(s);
	}
}

CASE(connect_on_a_connection, BOTH)
{
	memory();
	for (int i = 0; i < BAD; i++) {
		TRY(i, connect(fd, bad(i), 16));
		TRY(i, bind(fd, bad(i), 16));
		TRY(i, sendto(fd, "x", 1, 0, bad(i), 16));
	}
	SHOW(connect(fd, (void *)16, 1000));
	PEER(send(fd, "x", 1, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

/* ---- datagrams ---- */

CASE(datagrams, DATAGRAM)
{
	memory();
	char b[16];
	struct ct_address to = ct_there(0);
	for (int i = 0; i <= BAD; i++) {
		PEER(send(fd, "0123456789", 10, 0); send(fd, "second", 6, 0));
		SETTLE();
		TRY(i, recv(fd, bad(i), 16, MSG_PEEK));
		TRY(i, recv(fd, bad(i), 16, MSG_DONTWAIT));
		SHOW(recv(fd, b, 16, MSG_DONTWAIT));
		drain(fd);
		PEER(send(fd, "0123456789", 10, 0); send(fd, "second", 6, 0));
		SETTLE();
		socklen_t len = 16;
		struct sockaddr_in6 name;
		if (i) TRY(i, recvfrom(fd, b, 16, MSG_DONTWAIT, bad(i), &len));
		TRY(i, recvfrom(fd, b, 16, MSG_DONTWAIT, (struct sockaddr *)&name, bad(i)));
		drain(fd);
		if (i == BAD) break;
		TRY(i, sendto(fd, bad(i), 10, 0, AT(to)));
		if (i) TRY(i, sendto(fd, b, 10, 0, bad(i), 16));
		TRY(i, sendmsg(fd, bad(i), 0));
		TRY(i, recvmsg(fd, bad(i), MSG_DONTWAIT));
		TRY(i, recvmmsg(fd, bad(i), 1, MSG_DONTWAIT, NULL));
		TRY(i, sendmmsg(fd, bad(i), 1, 0));
	}
	/* The second of two cannot be read: the first has gone. */
	struct iovec v = {b, 4}, w = {hole, 4};
	struct mmsghdr mm[2] = {{.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &to.a, .msg_namelen = to.len}},
				{.msg_hdr = {.msg_iov = &w, .msg_iovlen = 1, .msg_name = &to.a, .msg_namelen = to.len}}};
	SHOW(sendmmsg(fd, mm, 2, 0));
	PEER(char c[16]; SHOW(recv(fd, c, 16, 0)));
}

CASE(datagram_headers, DATAGRAM)
{
	memory();
	char b[16];
	int one = 1;
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
	for (int i = 0; i <= BAD; i++) {
		PEER(send(fd, "0123456789", 10, 0));
		SETTLE();
		struct iovec v = {b, 16};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = bad(i), .msg_controllen = 100};
		TRY(i, recvmsg(fd, &m, MSG_DONTWAIT));
		SAY("  control %ld flags %x", (long)m.msg_controllen, m.msg_flags);
		drain(fd);
		if (i == 0) continue;
		PEER(send(fd, "0123456789", 10, 0));
		SETTLE();
		m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_name = bad(i), .msg_namelen = 16};
		TRY(i, recvmsg(fd, &m, MSG_DONTWAIT));
		drain(fd);
		if (i == BAD) break;
		struct ct_address to = ct_there(0);
		m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_name = &to.a, .msg_namelen = to.len,
			.msg_control = bad(i), .msg_controllen = 32};
		TRY(i, sendmsg(fd, &m, 0));
	}
}

/* ---- sockets of the kernel ---- */

CASE(sockets_of_the_kernel, BOTH)
{
	memory();
	kernel_socket();
	int k = kernel_pair[0];
	char b[16];
	socklen_t len = sizeof b;
	for (int i = 0; i < BAD; i++) {
		if (write(kernel_pair[1], "0123", 4) != 4) ct_die("write");
		TRY(i, recv(k, bad(i), 4, 0));
		TRY(i, read(k, bad(i), 4));
		TRY(i, write(k, bad(i), 4));
		TRY(i, send(k, bad(i), 4, 0));
		TRY(i, readv(k, bad(i), 1));
		TRY(i, recvmsg(k, bad(i), 0));
		TRY(i, sendmsg(k, bad(i), 0));
		TRY(i, sendmmsg(k, bad(i), 1, 0));
		TRY(i, recvmmsg(k, bad(i), 1, 0, NULL));
		TRY(i, sendto(k, "x", 1, 0, bad(i), 16));
		TRY(i, getsockname(k, bad(i), &len));
		TRY(i, getsockopt(k, SOL_SOCKET, SO_ERROR, b, bad(i)));
		TRY(i, setsockopt(k, SOL_SOCKET, SO_RCVBUF, bad(i), 4));
		TRY(i, connect(k, bad(i), 16));
		TRY(i, bind(k, bad(i), 16));
		TRY(i, ioctl(k, FIONREAD, bad(i)));
		TRY(i, poll(bad(i), 1, 0));
		int ep = epoll_create1(0);
		TRY(i, epoll_ctl(ep, EPOLL_CTL_ADD, k, bad(i)));
		TRY(i, epoll_wait(ep, bad(i), 1, 0));
		close(ep);
	}
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 1, 0));
}

CASE(a_file_by_sendfile, BOTH)
{
	memory();
	int file = open("/proc/self/exe", O_RDONLY);
	for (int i = 1; i < BAD; i++) TRY(i, sendfile(fd, file, bad(i), 10));
	SHOW(sendfile(fd, file, NULL, 10));
	PEER(char b[16]; SHOW(recv(fd, b, 16, 0)));
	PEER(send(fd, "x", 1, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

/* ---- when the process has its own thoughts about SIGSEGV ---- */

static volatile int faults;
static void on_fault(int s)
{
	(void)s;
	faults++;
	_exit(3);
}

CASE(with_a_handler_for_faults, BOTH)
{
	memory();
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	for (int i = 0; i <= BAD; i++) TRY(i, recv(fd, bad(i), 4, 0));
	signal(SIGSEGV, SIG_IGN);
	for (int i = 0; i <= BAD; i++) TRY(i, recv(fd, bad(i), 4, 0));
	SHOW(faults);
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

static int thread_fd;
static void *in_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i <= BAD; i++) TRY(i, recv(thread_fd, bad(i), 4, 0));
	sigset_t now;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	SHOW(sigismember(&now, SIGSEGV));
	return NULL;
}

CASE(with_all_signals_blocked, BOTH)
{
	memory();
	sigset_t all, before;
	sigfillset(&all);
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	TRY(1, recv(fd, bad(1), 4, 0));
	pthread_sigmask(SIG_BLOCK, &all, &before);
	for (int i = 0; i <= BAD; i++) TRY(i, recv(fd, bad(i), 4, 0));
	for (int i = 0; i < BAD; i++) TRY(i, setsockopt(fd, SOL_SOCKET, SO_RCVBUF, bad(i), 4));
	thread_fd = fd;
	pthread_t t;
	pthread_create(&t, NULL, in_thread, NULL);
	pthread_join(t, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	for (int i = 0; i <= BAD; i++) TRY(i, recv(fd, bad(i), 4, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

CASE(a_file_that_was_cut, BOTH)
{
	char name[] = "/tmp/ct-efault-XXXXXX";
	int file = mkstemp(name);
	unlink(name);
	if (ftruncate(file, PAGE)) ct_die("ftruncate");
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (ftruncate(file, 0)) ct_die("ftruncate");
	PEER(send(fd, "x", 1, 0));
	SETTLE();
	SHOW(recv(fd, at, 4, 0));
	SHOW(send(fd, at, 4, 0));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}
