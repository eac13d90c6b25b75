/* What routers and hosts say of datagrams: the errno of the next call, and the error queue (IP_RECVERR, IPV6_RECVERR). */
#include "opt.h"

static void keep_errors(int fd, int on)
{
	if (ct_family == AF_INET) SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on));
	else SHOW(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on));
}

static void show_error(struct cmsghdr *h)
{
	struct sock_extended_err e;
	struct sockaddr_storage offender = {0};
	size_t len = h->cmsg_len - CMSG_LEN(sizeof e);
	memcpy(&e, CMSG_DATA(h), sizeof e);
	memcpy(&offender, CMSG_DATA(h) + sizeof e, len < sizeof offender ? len : sizeof offender);
	SAY(" %s, origin %u, type %u, code %u, info %u, data %u", strerrorname_np(e.ee_errno), e.ee_origin, e.ee_type, e.ee_code,
	    e.ee_info, e.ee_data);
	SAY(" family %d, port %d", offender.ss_family, ((struct sockaddr_in *)&offender)->sin_port);
	ct_show_name(" offender", &offender, ct_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

/* Whether the queue had one. */
static int show_entry(int fd, size_t room)
{
	char b[64], c[512];
	struct sockaddr_storage name = {0};
	struct iovec i = {b, room};
	struct msghdr m = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &i, .msg_iovlen = 1};
	m.msg_control = c;
	m.msg_controllen = sizeof c;
	long n = recvmsg(fd, &m, MSG_ERRQUEUE);
	if (n < 0) {
		SAY("queue: %s", strerrorname_np(errno));
		return 0;
	}
	SAY("queue: %ld octets, flags %#x, name of %u", n, m.msg_flags, m.msg_namelen);
	ct_show_bytes(" quoted", b, n);
	ct_show_name(" for", &name, m.msg_namelen);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		SAY(" level %d type %d (%zu)", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len);
		if (h->cmsg_type == (h->cmsg_level == IPPROTO_IP ? IP_RECVERR : IPV6_RECVERR)) show_error(h);
	}
	return 1;
}

static void show_queue(int fd)
{
	while (show_entry(fd, 64)) {}
}

CASE(a_connected_socket, CONNECTED | CONNECTED6)
{
	char b[8];
	keep_errors(fd, 1);
	show_queue(fd);
	PEER(close(fd));
	SHOW(send(fd, "hello", 5, 0));
	SETTLE();
	ct_show_poll(fd, POLLIN, 1000);
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
	show_queue(fd);
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
}

CASE(to_whom_no_error_is_pending_after_a_look, CONNECTED | CONNECTED6)
{
	char b[8];
	keep_errors(fd, 1);
	PEER(close(fd));
	SHOW(send(fd, "one", 3, 0));
	SETTLE();
	show_entry(fd, 64);
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	SHOW(send(fd, "two", 3, 0));
	SETTLE();
	SHOW(send(fd, "three", 5, 0));
	SHOW(send(fd, "four", 4, 0));
	SETTLE();
	ct_show_error(fd);
	show_entry(fd, 2);
	ct_show_error(fd);
	show_queue(fd);
	ct_show_error(fd);
}

CASE(an_unconnected_socket, BOUND | BOUND6)
{
	char b[8];
	struct ct_address to = ct_there(5);
	SHOW(sendto(fd, "before", 6, 0, AT(to)));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, MSG_DONTWAIT));
	keep_errors(fd, 1);
	SHOW(sendto(fd, "first", 5, 0, AT(to)));
	SETTLE();
	ct_show_poll(fd, POLLIN, 1000);
	SHOW(sendto(fd, "told", 4, 0, AT(to)));
	show_queue(fd);
	keep_errors(fd, 0);
	SHOW(sendto(fd, "after", 5, 0, AT(to)));
	SETTLE();
	show_queue(fd);
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
}

static void say_of_beyond(int fd, int how)
{
	struct ct_address to = ct_beyond(how);
	struct pollfd p = {fd, 0, 0};
	keep_errors(fd, 1);
	/* A router says so few times in a second. */
	for (int tries = 0; tries < 10 && !p.revents; tries++) {
		if (sendto(fd, "far away", 8, 0, AT(to)) < 0) ct_die("sendto");
		poll(&p, 1, 500);
	}
	ct_show_poll(fd, POLLIN, 100);
	show_entry(fd, 3);
	show_queue(fd);
	ct_show_error(fd);
}

CASE(unreachable_for_a_router, BOUND | BOUND6) { say_of_beyond(fd, 1); }
CASE(prohibited_by_a_router, BOUND | BOUND6) { say_of_beyond(fd, 2); }

CASE(what_is_told_with_it, BOUND)
{
	struct ct_address to = ct_there(5);
	int one = 1;
	keep_errors(fd, 1);
	SHOW(setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one));
	SHOW(sendto(fd, "x", 1, 0, AT(to)));
	SETTLE();
	show_queue(fd);
}

/* A blocking receive ends with what is said. */
CASE(a_waiting_receive, CONNECTED | CONNECTED6)
{
	char b[8];
	keep_errors(fd, 1);
	PEER(close(fd));
	SHOW(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, sizeof b, 0));
	show_queue(fd);
}

/* What is too long is the sender's own error. */
CASE(too_long, CONNECTED | MIXED)
{
	static char b[3000];
	int how = IP_PMTUDISC_DO;
	SHOW(send(fd, "x", 1, 0));
	keep_errors(fd, 1);
	SHOW(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof how));
	SHOW(send(fd, b, sizeof b, 0));
	ct_show_poll(fd, POLLIN | POLLOUT, 0);
	show_queue(fd);
	ct_show_error(fd);
}

CASE(an_edge_tells_of_it, CONNECTED)
{
	int ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLET | EPOLLIN}, got = {0};
	keep_errors(fd, 1);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	SHOW(epoll_wait(ep, &got, 1, 0));
	PEER(close(fd));
	SHOW(send(fd, "x", 1, 0));
	SHOW(epoll_wait(ep, &got, 1, 1000));
	SAY("%#x", got.events);
	SHOW(epoll_wait(ep, &got, 1, 0));
	show_queue(fd);
	SHOW(epoll_wait(ep, &got, 1, 0));
}
