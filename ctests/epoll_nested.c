/* Sets inside sets, and inside poll and select. */
#include "watch.h"


CASE(a_set_in_a_set, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), outer = watch(inner, ALL_BITS, 2);
	show_wait(outer, 10);
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
	show_wait(outer, 1000);
	show_wait(inner, 1000);
	show_wait(outer, 1000);
	SHOW(drain(fd));
	show_wait(outer, 10);
	show_wait(inner, 10);
}

CASE(blocked_at_the_outer_set, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), outer = watch(inner, EPOLLIN, 2);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(show_wait(outer, 2000), 50);
	PEER_WAIT();
}

CASE(edge_at_the_outer_set, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), outer = watch(inner, EPOLLIN | EPOLLET, 2);
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
	show_wait(outer, 10);
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
	show_wait(outer, 10);
	show_wait(inner, 10);
	show_wait(outer, 10);
	SHOW(drain(fd));
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
}

CASE(edge_at_the_inner_set, BOTH)
{
	int inner = watch(fd, EPOLLIN | EPOLLET, 1), outer = watch(inner, EPOLLIN, 2);
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
	show_wait(outer, 1000);
	show_wait(inner, 1000);
	show_wait(outer, 10);
}

CASE(one_shot_at_either, BOTH)
{
	int inner = watch(fd, EPOLLIN | EPOLLONESHOT, 1), outer = watch(inner, EPOLLIN | EPOLLONESHOT, 2);
	PEER(send(fd, "a", 1, 0));
	show_wait(outer, 1000);
	show_wait(outer, 10);
	SHOW(mod(outer, inner, EPOLLIN | EPOLLONESHOT, 3));
	show_wait(outer, 1000);
	show_wait(inner, 1000);
	SHOW(mod(outer, inner, EPOLLIN, 4));
	show_wait(outer, 10);
	SHOW(mod(inner, fd, EPOLLIN, 5));
	show_wait(outer, 1000);
}

CASE(nested_before_it_has_sockets, BOTH)
{
	int inner = epoll_create1(0), outer = watch(inner, EPOLLIN, 2), outermost = watch(outer, EPOLLIN, 3);
	show_wait(outermost, 10);
	SHOW(add(inner, fd, EPOLLIN, 1));
	show_wait(outermost, 10);
	PEER(send(fd, "a", 1, 0));
	show_wait(outermost, 1000);
	show_wait(outer, 1000);
	show_wait(inner, 1000);
	SHOW(del(inner, fd));
	show_wait(outermost, 10);
	show_wait(outer, 10);
}

static int to_set, to_fd;

static void *add_later(void *unused)
{
	(void)unused;
	ct_nap(60);
	if (add(to_set, to_fd, EPOLLIN, 1)) SAY("add: %s", strerrorname_np(errno));
	return NULL;
}

CASE(added_while_blocked_at_the_outermost, BOTH)
{
	int inner = epoll_create1(0), outer = watch(inner, EPOLLIN, 2), outermost = watch(outer, EPOLLIN, 3);
	pthread_t t;
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	to_set = inner, to_fd = fd;
	pthread_create(&t, NULL, add_later, NULL);
	TIMED(show_wait(outermost, 2000), 60);
	pthread_join(t, NULL);
	show_wait(outermost, 0);
	SHOW(drain(fd));
	show_wait(outermost, 10);
}

CASE(added_while_blocked_and_ready_later, BOTH)
{
	int inner = epoll_create1(0), outer = watch(inner, EPOLLIN, 2);
	pthread_t t;
	to_set = inner, to_fd = fd;
	pthread_create(&t, NULL, add_later, NULL);
	PEER_LATER(ct_nap(150); send(fd, "a", 1, 0));
	TIMED(show_wait(outer, 2000), 150);
	pthread_join(t, NULL);
	PEER_WAIT();
}

CASE(loops_and_depth, BOTH)
{
	int a = epoll_create1(0), b = epoll_create1(0), set[8];
	SHOW(add(a, fd, EPOLLIN, 1));
	SHOW(add(b, a, EPOLLIN, 1));
	SHOW(add(a, b, EPOLLIN, 1));
	SHOW(add(a, a, EPOLLIN, 1));
	SHOW(add(b, a, EPOLLIN, 1));
	for (int i = 0; i < 8; i++) set[i] = epoll_create1(0);
	SHOW(add(set[0], fd, EPOLLIN, 0));
	for (int i = 1; i < 8; i++) SHOW(add(set[i], set[i - 1], EPOLLIN, i));
	PEER(send(fd, "a", 1, 0));
	for (int i = 0; i < 8; i++) show_wait(set[i], i ? 10 : 1000);
}

CASE(both_kinds_inside, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), ev = eventfd(0, 0), outer = watch(inner, EPOLLIN, 2);
	long one = 1;
	add(inner, ev, EPOLLIN, 3);
	SHOW(write(ev, &one, 8));
	show_wait_mixed(outer, 1000);
	show_wait_mixed(inner, 1000);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait_mixed(outer, 1000);
	show_wait_mixed(inner, 1000);
	SHOW(read(ev, &one, 8));
	show_wait_mixed(outer, 1000);
	SHOW(drain(fd));
	show_wait_mixed(outer, 10);
}

CASE(a_socket_and_its_set, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), outer = watch(inner, EPOLLIN, 2);
	add(outer, fd, EPOLLIN, 3);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait(outer, 1000);
	SHOW(del(outer, inner));
	show_wait(outer, 1000);
	SHOW(add(outer, inner, EPOLLIN, 4));
	show_wait(outer, 1000);
	SHOW(close(inner));
	show_wait(outer, 1000);
	SHOW(mod(outer, inner, EPOLLIN, 4));
}

CASE(members_errors, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1), outer = watch(inner, EPOLLIN, 2);
	SHOW(add(outer, inner, EPOLLIN, 2));
	SHOW(mod(outer, fd, EPOLLIN, 2));
	SHOW(add(outer, inner, EPOLLIN | EPOLLEXCLUSIVE, 2));
	SHOW(mod(outer, inner, EPOLLIN | EPOLLEXCLUSIVE, 2));
	SHOW(del(outer, inner));
	SHOW(del(outer, inner));
	SHOW(mod(outer, inner, EPOLLIN, 2));
}

CASE(in_poll_and_select, BOTH)
{
	int inner = watch(fd, EPOLLIN, 1);
	fd_set r;
	ct_show_poll(inner, ~0, 10);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	struct pollfd p = {inner, POLLIN, 0};
	TIMED(poll(&p, 1, 2000), 50);
	PEER_WAIT();
	ct_show_poll(inner, ~0, 0);
	FD_ZERO(&r);
	FD_SET(inner, &r);
	SHOW(select(inner + 1, &r, NULL, NULL, NULL));
	SHOW(drain(fd));
	ct_show_poll(inner, ~0, 0);
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(select(inner + 1, &r, NULL, NULL, &(struct timeval){2, 0}), 50);
	PEER_WAIT();
}

CASE(in_poll_before_it_has_sockets, BOTH)
{
	int inner = epoll_create1(0);
	struct pollfd p = {inner, POLLIN, 0};
	pthread_t t;
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	to_set = inner, to_fd = fd;
	pthread_create(&t, NULL, add_later, NULL);
	TIMED(poll(&p, 1, 2000), 60);
	pthread_join(t, NULL);
	SHOW(del(inner, fd));
	SHOW(poll(&p, 1, 10));
}

CASE(a_listener_inside, ALONE)
{
	int l = ct_listen(ct_here(1)), inner = watch(l, EPOLLIN, 1), outer = watch(inner, EPOLLIN, 2);
	PEER_LATER(ct_nap(50); ct_connect(ct_here(1)));
	TIMED(show_wait(outer, 2000), 50);
	PEER_WAIT();
	show_wait(inner, 0);
	SHOW_OK(accept(l, 0, 0));
	show_wait(outer, 10);
}

CASE(many_in_one, BOTH)
{
	enum { MANY = 40 };
	int outer = epoll_create1(0), inner[MANY];
	for (int i = 0; i < MANY; i++) add(outer, inner[i] = watch(fd, EPOLLIN, i), EPOLLIN, i);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait_max(outer, 1000, 64);
	for (int i = 0; i < MANY; i += 2) close(inner[i]);
	show_wait_max(outer, 1000, 64);
	SHOW(drain(fd));
	show_wait_max(outer, 10, 64);
}

static void *poll_it(void *ep)
{
	struct pollfd p = {(int)(long)ep, POLLIN, 0};
	return (void *)(long)poll(&p, 1, 300);
}

CASE(several_poll_before_there_are_sockets, BOTH)
{
	int sets[6];
	pthread_t t[6], adder;
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, poll_it, (void *)(long)(sets[i] = epoll_create1(0)));
	to_set = sets[2], to_fd = fd;
	pthread_create(&adder, NULL, add_later, NULL);
	for (long i = 0; i < 6; i++) {
		void *ready;
		pthread_join(t[i], &ready);
		SAY("set %ld: %ld", i, (long)ready);
	}
	pthread_join(adder, NULL);
}
