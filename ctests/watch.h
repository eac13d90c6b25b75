/* epoll, for the cases about waiting: events by name. */
#ifndef WATCH_H
#define WATCH_H
#include "ct.h"
#include <pthread.h>

/* All that can be asked for, by both names. */
#define ALL_BITS                                                                                               \
	(EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDNORM | EPOLLRDBAND | EPOLLWRNORM | EPOLLWRBAND | EPOLLMSG | EPOLLRDHUP)

static inline void print_bits(unsigned bits)
{
	static const struct { unsigned bit; const char *name; } names[] = {
		{EPOLLIN, "IN"}, {EPOLLPRI, "PRI"}, {EPOLLOUT, "OUT"}, {EPOLLERR, "ERR"}, {EPOLLHUP, "HUP"},
		{POLLNVAL, "NVAL"}, {EPOLLRDNORM, "RDNORM"}, {EPOLLRDBAND, "RDBAND"}, {EPOLLWRNORM, "WRNORM"},
		{EPOLLWRBAND, "WRBAND"}, {EPOLLMSG, "MSG"}, {EPOLLRDHUP, "RDHUP"},
	};
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (bits & names[i].bit) printf(" %s", names[i].name);
}

/* One epoll_wait: what came, by data (0 to 63), in the order of data. */
static inline int show_wait_max(int ep, int timeout_ms, int max)
{
	struct epoll_event e[64];
	int n = epoll_wait(ep, e, max, timeout_ms);
	if (n < 0) {
		SAY("wait: %s", strerrorname_np(errno));
		return n;
	}
	printf("wait: %d", n);
	for (unsigned data = 0; data < 64; data++)
		for (int i = 0; i < n; i++)
			if (e[i].data.u64 == data) {
				printf(" [%u:", data);
				print_bits(e[i].events);
				printf("]");
			}
	for (int i = 0; i < n; i++)
		if (e[i].data.u64 >= 64) printf(" [a word nobody gave]");
	SAY("%s", "");
	return n;
}

static inline int show_wait(int ep, int timeout_ms) { return show_wait_max(ep, timeout_ms, 16); }

/* As show_wait when kernel descriptors are in the set too: under sidestep a busy set looks at them every 50 us. */
static inline int show_wait_mixed(int ep, int timeout_ms)
{
	ct_nap(1);
	return show_wait(ep, timeout_ms);
}

static inline int ctl(int ep, int op, int fd, unsigned events, unsigned data)
{
	struct epoll_event e = {events, {.u64 = data}};
	return epoll_ctl(ep, op, fd, &e);
}

static inline int add(int ep, int fd, unsigned events, unsigned data)
{
	return ctl(ep, EPOLL_CTL_ADD, fd, events, data);
}

static inline int mod(int ep, int fd, unsigned events, unsigned data)
{
	return ctl(ep, EPOLL_CTL_MOD, fd, events, data);
}

static inline int del(int ep, int fd) { return ctl(ep, EPOLL_CTL_DEL, fd, 0, 0); }

/* A set with one member. */
static inline int watch(int fd, unsigned events, unsigned data)
{
	int ep = epoll_create1(0);
	if (add(ep, fd, events, data)) SAY("add: %s", strerrorname_np(errno));
	return ep;
}

static inline int nonblocking(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static inline int connect_to(int fd, struct ct_address to) { return connect(fd, AT(to)); }
static inline int bind_to(int fd, struct ct_address to) { return bind(fd, AT(to)); }
static inline long send_to(int fd, const char *text, struct ct_address to) { return sendto(fd, text, strlen(text), 0, AT(to)); }

/* Reads all there is. */
static inline long drain(int fd)
{
	char b[65536];
	long n, sum = 0;
	while ((n = recv(fd, b, sizeof b, MSG_DONTWAIT)) > 0) sum += n;
	return sum;
}

#endif
