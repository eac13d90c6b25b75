/* The error queue: completions of zero-copy sends, and what routers and hosts say. */
#include "opt.h"

static void show_queue(int fd)
{
	char b[64], c[512];
	for (;;) {
		struct iovec i = {b, sizeof b};
		struct msghdr m = {.msg_iov = &i, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
		long n = recvmsg(fd, &m, MSG_ERRQUEUE);
		if (n < 0) {
			SAY("queue: %s", strerrorname_np(errno));
			return;
		}
		SAY("queue: %ld octets, flags %#x", n, m.msg_flags);
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
			struct sock_extended_err e;
			memcpy(&e, CMSG_DATA(h), sizeof e);
			SAY("level %d type %d (%zu): errno %s origin %u type %u code %u info %u data %u", h->cmsg_level, h->cmsg_type,
			    (size_t)h->cmsg_len, e.ee_errno ? strerrorname_np(e.ee_errno) : "0", e.ee_origin, e.ee_type, e.ee_code, e.ee_info,
			    e.ee_data);
		}
	}
}

/* How many sends of so many the notices spoke of: how they are put together is a matter of time. */
static void show_completions(int fd, unsigned first, unsigned count)
{
	unsigned next = first, codes = 0, odd = 0;
	for (int tries = 0; tries < 100 && next < first + count; tries++) {
		char c[256];
		struct msghdr m = {.msg_control = c, .msg_controllen = sizeof c};
		struct pollfd p = {fd, 0, 0};
		poll(&p, 1, 1000);
		if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0) {
			ct_nap(10);
			continue;
		}
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		struct sock_extended_err e;
		memcpy(&e, CMSG_DATA(h), sizeof e);
		odd += e.ee_origin != SO_EE_ORIGIN_ZEROCOPY || e.ee_errno != 0 || e.ee_info != next || e.ee_type != 0;
		odd += m.msg_flags != MSG_ERRQUEUE || h->cmsg_level != (ct_family == AF_INET ? SOL_IP : SOL_IPV6);
		odd += h->cmsg_type != (ct_family == AF_INET ? IP_RECVERR : IPV6_RECVERR);
		codes |= e.ee_code;
		next = e.ee_data + 1;
	}
	SAY("sends %u to %u are complete, copied %u, odd %u", first, next - 1, codes & SO_EE_CODE_ZEROCOPY_COPIED, odd);
}

CASE(it_is_empty_at_first, BOTH | DATAGRAM)
{
	opt_begin(fd);
	show_queue(fd);
	ct_show_poll(fd, POLLERR | POLLPRI, 0);
}

CASE(zero_copy_sends_complete, BOTH | BOTH6)
{
	static char b[20000];
	int one = 1;
	SHOW(send(fd, b, 10, MSG_ZEROCOPY));
	show_queue(fd);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one));
	SHOW(send(fd, b, 10, 0));
	SHOW(send(fd, b, 20000, MSG_ZEROCOPY));
	SHOW(send(fd, b, 10, MSG_ZEROCOPY));
	SHOW(send(fd, b, 0, MSG_ZEROCOPY));
	SHOW(send(fd, b, 10, MSG_ZEROCOPY));
	PEER(static char b[20040]; recv(fd, b, 20040, MSG_WAITALL));
	SETTLE();
	show_completions(fd, 0, 3);
	show_queue(fd);
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
	SHOW(send(fd, b, 10, MSG_ZEROCOPY));
	SETTLE();
	ct_show_poll(fd, POLLIN | POLLOUT, 100);
	ct_show_poll(fd, 0, 100);
	show_completions(fd, 3, 1);
	ct_show_poll(fd, 0, 0);
}

CASE(completions_wake, BOTH)
{
	int one = 1, ep = epoll_create1(0);
	struct epoll_event e = {.events = 0}, got = {0};
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	SHOW(epoll_wait(ep, &got, 1, 0));
	SHOW(send(fd, "0123456789", 10, MSG_ZEROCOPY));
	SHOW(epoll_wait(ep, &got, 1, 1000));
	SAY("%#x", got.events);
	show_completions(fd, 0, 1);
	SHOW(epoll_wait(ep, &got, 1, 0));
	fd_set set;
	struct timeval t = {0, 0};
	FD_ZERO(&set);
	FD_SET(fd, &set);
	SHOW(select(fd + 1, NULL, NULL, &set, &t));
}

CASE(an_error_queue_is_no_error, BOTH)
{
	int one = 1;
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one);
	SHOW(send(fd, "x", 1, MSG_ZEROCOPY));
	SETTLE();
	ct_show_error(fd);
	char b[4];
	PEER(send(fd, "y", 1, 0));
	SETTLE();
	SHOW(recv(fd, b, 4, 0));
	SHOW(recv(fd, b, 4, MSG_ERRQUEUE | MSG_DONTWAIT));
	SHOW(recv(fd, b, 4, MSG_ERRQUEUE | MSG_DONTWAIT));
}

CASE(too_late_for_refusals_of_connections, BOTH)
{
	int one = 1, zero = 0;
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &zero, sizeof zero));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof one));
}
