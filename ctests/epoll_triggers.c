/* When epoll reports: level, edge, one-shot, exclusive; what MOD and DEL do to what is pending. */
#include "watch.h"

CASE(level, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	char b[1];
	PEER(send(fd, "abc", 3, 0));
	for (int i = 0; i < 4; i++) {
		show_wait(ep, i ? 0 : 1000);
		SHOW(recv(fd, b, 1, MSG_DONTWAIT));
	}
}

CASE(edge, BOTH)
{
	int ep = watch(fd, EPOLLIN | EPOLLET, 1);
	char b[1];
	PEER(send(fd, "abc", 3, 0));
	show_wait(ep, 1000);
	SHOW(recv(fd, b, 1, 0));
	show_wait(ep, 10);
	PEER(send(fd, "d", 1, 0));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	SHOW(drain(fd));
	show_wait(ep, 10);
	PEER(shutdown(fd, SHUT_WR));
	show_wait(ep, 1000);
	show_wait(ep, 10);
}

CASE(edge_reports_all_that_is_ready, BOTH)
{
	int ep = watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1);
	show_wait(ep, 0);
	show_wait(ep, 0);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	PEER(shutdown(fd, SHUT_WR));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	SHOW(drain(fd));
	show_wait(ep, 10);
}

CASE(by_the_other_names, BOTH)
{
	int ep = watch(fd, EPOLLRDNORM | EPOLLET, 1), room = watch(fd, EPOLLWRNORM, 2);
	show_wait(room, 0);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	ct_fill(fd);
	show_wait(room, 10);
	PEER_LATER(char b[65536]; while (poll(&(struct pollfd){fd, POLLIN, 0}, 1, 200) > 0 && recv(fd, b, sizeof b, 0) > 0) {});
	show_wait(room, 2000);
	PEER_WAIT();
}

CASE(edge_of_data_that_was_read_meanwhile, BOTH)
{
	int ep = watch(fd, EPOLLIN | EPOLLET, 1);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	SHOW(drain(fd));
	show_wait(ep, 10);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
}

CASE(edge_of_room, BOTH)
{
	int ep = watch(fd, EPOLLOUT | EPOLLET, 1);
	show_wait(ep, 0);
	SHOW(send(fd, "a", 1, 0));
	SETTLE();
	show_wait(ep, 10);
	ct_fill(fd);
	show_wait(ep, 10);
	PEER_LATER(char b[65536]; while (poll(&(struct pollfd){fd, POLLIN, 0}, 1, 200) > 0 && recv(fd, b, sizeof b, 0) > 0) {});
	show_wait(ep, 2000);
	PEER_WAIT();
}

CASE(edge_again_by_mod, BOTH)
{
	int ep = watch(fd, EPOLLOUT | EPOLLET, 1);
	show_wait(ep, 0);
	show_wait(ep, 0);
	SHOW(mod(ep, fd, EPOLLOUT | EPOLLET, 2));
	show_wait(ep, 0);
	show_wait(ep, 0);
	SHOW(mod(ep, fd, EPOLLIN | EPOLLET, 3));
	show_wait(ep, 0);
	SHOW(del(ep, fd));
	SHOW(add(ep, fd, EPOLLOUT | EPOLLET, 4));
	show_wait(ep, 0);
	show_wait(ep, 0);
}

CASE(one_shot, BOTH)
{
	int ep = watch(fd, EPOLLIN | EPOLLONESHOT, 1);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	PEER(send(fd, "a", 1, 0); shutdown(fd, SHUT_WR));
	show_wait(ep, 10);
	SHOW(mod(ep, fd, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT | EPOLLET, 2));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	SHOW(add(ep, fd, EPOLLIN, 3));
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd));
	SETTLE();
	show_wait(ep, 10);
	SHOW(mod(ep, fd, 0, 3));
	show_wait(ep, 10);
	SHOW(del(ep, fd));
	SHOW(mod(ep, fd, EPOLLIN, 3));
}

CASE(one_shot_listener, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(1)), ep = watch(l, EPOLLIN | EPOLLONESHOT, 1);
	for (int i = 0; i < 3; i++) {
		PEER(ct_connect(ct_here(1)));
		show_wait(ep, i ? 20 : 1000);
	}
	SHOW(mod(ep, l, EPOLLIN | EPOLLONESHOT, 2));
	show_wait(ep, 1000);
	show_wait(ep, 20);
	for (int i = 0; i < 3; i++) SHOW_OK(accept(l, 0, 0));
	SHOW(mod(ep, l, EPOLLIN | EPOLLONESHOT, 3));
	show_wait(ep, 20);
	PEER(ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	show_wait(ep, 20);
}

/* Connections from the host itself come by loopback: both of the listener's halves have one. */
CASE(a_listener_with_both_kinds, ALONE | MIXED)
{
	int l = ct_listen(ct_here(1)), ep = watch(l, EPOLLIN, 1), shot = watch(l, EPOLLIN | EPOLLONESHOT, 2);
	int edge = watch(l, EPOLLIN | EPOLLET, 3);
	PEER(ct_connect(ct_here(1)));
	int c = ct_connect(ct_here(1));
	SETTLE();
	show_wait(ep, 1000);
	show_wait_mixed(ep, 1000);
	show_wait(shot, 1000);
	show_wait_mixed(shot, 20);
	show_wait(edge, 1000);
	show_wait_mixed(edge, 20);
	SHOW_OK(accept(l, 0, 0));
	show_wait_mixed(ep, 1000);
	SHOW(mod(shot, l, EPOLLIN | EPOLLONESHOT, 4));
	show_wait_mixed(shot, 1000);
	show_wait_mixed(shot, 20);
	SHOW_OK(accept(l, 0, 0));
	show_wait_mixed(ep, 20);
	show_wait_mixed(edge, 20);
	close(c);
}

CASE(a_datagram_socket_with_both_kinds, BOUND | MIXED)
{
	int ep = watch(fd, EPOLLIN, 1), shot = watch(fd, EPOLLIN | EPOLLONESHOT, 2), edge = watch(fd, EPOLLIN | EPOLLET, 3);
	PEER(send(fd, "far", 3, 0));
	int s = ct_socket(SOCK_DGRAM);
	SHOW(send_to(s, "near", ct_here(0)));
	SETTLE();
	show_wait(ep, 1000);
	show_wait_mixed(ep, 1000);
	show_wait_mixed(shot, 1000);
	show_wait_mixed(shot, 20);
	show_wait_mixed(edge, 1000);
	show_wait_mixed(edge, 20);
	SHOW(drain(fd));
	show_wait_mixed(ep, 20);
	SHOW(mod(shot, fd, EPOLLIN | EPOLLONESHOT, 4));
	show_wait_mixed(shot, 20);
	SHOW(send_to(s, "near", ct_here(0)));
	show_wait_mixed(shot, 1000);
	show_wait_mixed(shot, 20);
	show_wait_mixed(edge, 1000);
	PEER(send(fd, "far", 3, 0));
	show_wait_mixed(shot, 20);
	show_wait_mixed(edge, 1000);
}

CASE(members_with_the_same_word, BOTH | MIXED)
{
	/* Two members may have the same data: they are two events all the same. */
	int l = ct_listen(ct_here(1)), ep = watch(fd, EPOLLIN, 7), ev = eventfd(1, 0);
	add(ep, l, EPOLLIN, 7);
	add(ep, ev, EPOLLIN, 7);
	int c = ct_connect(ct_here(1));
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait_mixed(ep, 1000);
	close(c);
}

CASE(exclusive_errors, BOTH)
{
	int ep = epoll_create1(0), other = epoll_create1(0);
	unsigned bad[] = {EPOLLONESHOT, EPOLLRDHUP, EPOLLPRI, EPOLLRDNORM, EPOLLWRNORM};
	for (int i = 0; i < 5; i++) SHOW(add(ep, fd, EPOLLIN | EPOLLEXCLUSIVE | bad[i], 1));
	SHOW(mod(ep, fd, EPOLLIN | EPOLLEXCLUSIVE, 1));
	SHOW(mod(ep, fd, EPOLLIN, 1));
	SHOW(add(ep, fd, EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE, 1));
	SHOW(add(ep, fd, EPOLLIN | EPOLLEXCLUSIVE, 1));
	SHOW(mod(ep, fd, EPOLLIN, 1));
	SHOW(mod(ep, fd, EPOLLIN | EPOLLEXCLUSIVE, 1));
	SHOW(add(ep, other, EPOLLIN | EPOLLEXCLUSIVE, 1));
	show_wait(ep, 0);
	SHOW(del(ep, fd));
	SHOW(add(ep, fd, EPOLLIN | EPOLLWAKEUP | EPOLLONESHOT, 2));
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
}

CASE(exclusive_level, BOTH)
{
	int a = watch(fd, EPOLLIN | EPOLLEXCLUSIVE, 1), b = watch(fd, EPOLLIN | EPOLLEXCLUSIVE, 2);
	PEER(send(fd, "a", 1, 0));
	/* Nobody waits: it is for both. */
	show_wait(a, 1000);
	show_wait(b, 1000);
	SHOW(drain(fd));
	show_wait(a, 10);
	show_wait(b, 10);
}

static int woken;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *wait_for_one(void *set)
{
	struct epoll_event e;
	if (epoll_wait((int)(long)set, &e, 1, 400) == 1) {
		pthread_mutex_lock(&lock);
		woken++;
		pthread_mutex_unlock(&lock);
		ct_nap(50);
	}
	return NULL;
}

CASE(exclusive_wakes_one, ALONE)
{
	int l = ct_listen(ct_here(1));
	pthread_t t[4];
	for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, wait_for_one, (void *)(long)watch(l, EPOLLIN | EPOLLEXCLUSIVE, 1));
	ct_nap(50);
	PEER(ct_connect(ct_here(1)));
	for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
	SAY("woken: %d", woken);
}

CASE(without_exclusive_all_wake, ALONE)
{
	int l = ct_listen(ct_here(1));
	pthread_t t[4];
	woken = 0;
	for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, wait_for_one, (void *)(long)watch(l, EPOLLIN, 1));
	ct_nap(50);
	PEER(ct_connect(ct_here(1)));
	for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
	SAY("woken: %d", woken);
}

CASE(modified_while_pending, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	SHOW(mod(ep, fd, EPOLLPRI, 2));
	show_wait(ep, 10);
	SHOW(mod(ep, fd, EPOLLIN | EPOLLPRI, 3));
	show_wait(ep, 1000);
	SHOW(del(ep, fd));
	show_wait(ep, 10);
	SHOW(add(ep, fd, EPOLLIN | EPOLLONESHOT, 4));
	SHOW(del(ep, fd));
	show_wait(ep, 10);
	SHOW(add(ep, fd, EPOLLIN, 5));
	show_wait(ep, 1000);
}

CASE(members_take_turns, ALONE)
{
	int l = ct_listen(ct_here(1)), ep = epoll_create1(0), seen[8] = {0};
	PEER(for (int i = 0; i < 8; i++) send(ct_connect(ct_here(1)), "x", 1, 0));
	for (unsigned i = 0; i < 8; i++) add(ep, accept(l, 0, 0), EPOLLIN, i);
	SETTLE();
	struct epoll_event e[3];
	for (int i = 0; i < 16; i++) {
		int n = epoll_wait(ep, e, 3, 1000);
		for (int k = 0; k < n; k++) seen[e[k].data.u32]++;
	}
	for (int i = 0; i < 8; i++) SAY("member %d: %d times", i, seen[i]);
}

CASE(kernel_descriptors_take_turns_with_sockets, BOTH)
{
	int ep = watch(fd, EPOLLOUT, 0), seen[4] = {0};
	for (unsigned i = 1; i < 4; i++) add(ep, eventfd(1, 0), EPOLLIN, i);
	struct epoll_event e;
	for (int i = 0; i < 400; i++) {
		if (epoll_wait(ep, &e, 1, 0) == 1) seen[e.data.u32]++;
		if (i % 4 == 0) ct_nap(1);
	}
	for (int i = 0; i < 4; i++) SAY("member %d: %s", i, seen[i] >= 10 ? "has its turns" : "starves");
}
