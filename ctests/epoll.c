/* epoll over a listener, an accepted connection and kernel descriptors: level, edge, one-shot, errors, dup and close. */
#include "ct.h"

static void peer(int fd)
{
	char b[16];
	ct_wait();
	send(fd, "ab", 2, 0);
	ct_wait();
	send(fd, "cd", 2, 0);
	ct_wait();
	close(fd);
	(void)b;
	ct_wait();
}

static void show_wait(int ep, int timeout)
{
	struct epoll_event e[8];
	int n = epoll_wait(ep, e, 8, timeout);
	printf("wait: %d", n);
	unsigned seen[64] = {0};
	for (int i = 0; i < n; i++) seen[e[i].data.u32 & 63] |= e[i].events;
	for (int i = 0; i < 64; i++)
		if (seen[i]) printf(" [%d: %#x]", i, seen[i]);
	printf("\n");
	fflush(stdout);
}

static int ctl(int ep, int op, int fd, unsigned events, unsigned data)
{
	struct epoll_event e = {events, {.u32 = data}};
	return epoll_ctl(ep, op, fd, &e);
}

CASE(session, ALONE)
{
	int ep = epoll_create1(0), ev = eventfd(0, EFD_NONBLOCK), l = ct_listen(ct_here(1));
	SHOW(ctl(ep, EPOLL_CTL_ADD, l, EPOLLIN, 1));
	SHOW(ctl(ep, EPOLL_CTL_ADD, ev, EPOLLIN, 2));
	SHOW(ctl(ep, EPOLL_CTL_ADD, l, EPOLLIN, 1));
	show_wait(ep, 0);
	PEER_LATER(peer(ct_connect(ct_here(1))));
	show_wait(ep, 2000);
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	SHOW(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, 3));
	SHOW(ctl(ep, EPOLL_CTL_DEL, fd, 0, 3));
	SHOW(ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, 3));
	SHOW(ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN, 3));
	show_wait(ep, 500);
	show_wait(ep, 20);
	ct_tell();
	show_wait(ep, 2000);
	show_wait(ep, 20); /* edge: not again */
	SHOW(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, 4));
	show_wait(ep, 500); /* level: still there */
	show_wait(ep, 500);
	long one = 1;
	SHOW(write(ev, &one, 8));
	ct_nap(1); /* under sidestep a busy set looks at the kernel's descriptors every 50 us */
	show_wait(ep, 500); /* both kinds */
	char b[16];
	SHOW(read(ev, b, 8));
	SHOW(read(fd, b, 16));
	show_wait(ep, 20);
	SHOW(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, 5));
	ct_tell();
	show_wait(ep, 2000);
	show_wait(ep, 20); /* disabled */
	SHOW(ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLRDHUP, 6));
	show_wait(ep, 500);
	SHOW(read(fd, b, 16));
	int d = dup(fd);
	SHOW(ctl(ep, EPOLL_CTL_ADD, d, EPOLLIN, 7));
	ct_tell();
	ct_nap(100);
	show_wait(ep, 2000);
	SHOW(ctl(ep, EPOLL_CTL_DEL, d, 0, 0));
	SHOW(close(d));
	show_wait(ep, 500);
	SHOW(close(fd));
	show_wait(ep, 20);
	SHOW(ctl(ep, EPOLL_CTL_DEL, fd, 0, 0));
	SHOW(epoll_wait(ep, (struct epoll_event *)b, 0, 0));
	ct_tell();
	PEER_WAIT();
}
