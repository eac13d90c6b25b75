/* What is in a set, under which number, and for how long (epoll(7), Q6): dup, close, several sets; errors. */
#include "watch.h"

CASE(in_several_sets, BOTH)
{
	int a = watch(fd, EPOLLIN, 1), b = watch(fd, EPOLLIN | EPOLLET, 2), c = watch(fd, EPOLLIN | EPOLLONESHOT, 3);
	PEER(send(fd, "a", 1, 0));
	show_wait(a, 1000);
	show_wait(b, 1000);
	show_wait(c, 1000);
	show_wait(a, 10);
	show_wait(b, 10);
	show_wait(c, 10);
	SHOW(del(a, fd));
	PEER(send(fd, "a", 1, 0));
	show_wait(a, 10);
	show_wait(b, 1000);
	SHOW(close(b));
	SHOW(close(fd));
	show_wait(c, 10);
}

CASE(ctl_errors, BOTH)
{
	int ep = epoll_create1(0), file = open("/proc/self/exe", O_RDONLY), pipes[2];
	struct epoll_event e = {EPOLLIN, {.u64 = 1}};
	SHOW(pipe(pipes));
	SHOW(mod(ep, fd, EPOLLIN, 1));
	SHOW(del(ep, fd));
	SHOW(add(ep, fd, EPOLLIN, 1));
	SHOW(add(ep, fd, EPOLLIN, 1));
	SHOW(epoll_ctl(ep, 0, fd, &e));
	SHOW(epoll_ctl(ep, 4, fd, &e));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(add(ep, file, EPOLLIN, 1));
	SHOW(add(ep, -1, EPOLLIN, 1));
	SHOW(add(ep, 1000, EPOLLIN, 1));
	SHOW(add(-1, fd, EPOLLIN, 1));
	SHOW(add(1000, fd, EPOLLIN, 1));
	SHOW(add(file, fd, EPOLLIN, 1));
	SHOW(add(fd, fd, EPOLLIN, 1));
	SHOW(add(fd, ep, EPOLLIN, 1));
	SHOW(add(pipes[0], fd, EPOLLIN, 1));
	SHOW(add(ep, ep, EPOLLIN, 1));
	SHOW(add(ep, pipes[0], EPOLLIN, 1));
	SHOW(epoll_create(0));
	SHOW(epoll_create(-1));
	SHOW(epoll_create1(12345));
	SHOW(fcntl(epoll_create1(EPOLL_CLOEXEC), F_GETFD));
	SHOW(fcntl(epoll_create(1), F_GETFD));
}

CASE(ctl_errors_of_a_listener, ALONE)
{
	int l = ct_listen(ct_here(1)), ep = epoll_create1(0), file = open("/proc/self/exe", O_RDONLY);
	struct epoll_event e = {EPOLLIN, {.u64 = 1}};
	SHOW(mod(ep, l, EPOLLIN, 1));
	SHOW(del(ep, l));
	SHOW(add(ep, l, EPOLLIN, 1));
	SHOW(add(ep, l, EPOLLIN, 1));
	SHOW(epoll_ctl(ep, 7, l, &e));
	SHOW(add(file, l, EPOLLIN, 1));
	SHOW(add(l, l, EPOLLIN, 1));
	SHOW(add(-1, l, EPOLLIN, 1));
	SHOW(add(ep, l, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
	SHOW(mod(ep, l, EPOLLIN | EPOLLEXCLUSIVE, 1));
	SHOW(mod(ep, l, EPOLLIN, 9));
	PEER(ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	SHOW(del(ep, l));
	SHOW(del(ep, l));
	show_wait(ep, 10);
	SHOW(add(ep, l, EPOLLIN | EPOLLEXCLUSIVE, 3));
	SHOW(mod(ep, l, EPOLLIN, 4));
	show_wait(ep, 1000);
}

CASE(a_duplicate_is_a_member_of_its_own, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), d = dup(fd);
	SHOW(add(ep, d, EPOLLIN, 2));
	SHOW(add(ep, d, EPOLLIN, 2));
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW(del(ep, fd));
	show_wait(ep, 1000);
	SHOW(mod(ep, fd, EPOLLIN, 3));
	SHOW(mod(ep, d, EPOLLOUT, 3));
	show_wait(ep, 1000);
}

CASE(a_duplicate_keeps_the_member, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), d = dup(fd);
	SHOW(close(fd));
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW(del(ep, fd));
	SHOW(del(ep, d));
	SHOW(mod(ep, d, EPOLLIN, 2));
	show_wait(ep, 1000);
	SHOW(close(d));
	show_wait(ep, 20);
}

CASE(a_duplicate_keeps_the_listener, ALONE)
{
	int l = ct_listen(ct_here(1)), ep = watch(l, EPOLLIN, 1), d = dup(l);
	SHOW(close(l));
	PEER(ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	SHOW_OK(accept(d, 0, 0));
	show_wait(ep, 10);
	PEER(ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	SHOW(close(d));
	show_wait(ep, 20);
}

CASE(a_duplicate_keeps_the_datagram_socket, BOUND)
{
	int ep = watch(fd, EPOLLIN, 1);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	int d = dup(fd);
	SHOW(close(fd));
	show_wait(ep, 1000);
	SHOW(drain(d));
	show_wait(ep, 10);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW(close(d));
	show_wait(ep, 20);
}

CASE(dup2_over_a_member, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), ev = eventfd(1, 0);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW_OK(dup2(ev, fd));
	show_wait(ep, 20);
	SHOW(del(ep, fd));
	SHOW(add(ep, fd, EPOLLIN, 2));
	show_wait(ep, 1000);
}

CASE(close_and_the_number_again, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW(close(fd));
	int s = ct_socket(SOCK_STREAM);
	SAY("the same number: %d", s == fd);
	SHOW(mod(ep, s, EPOLLIN, 2));
	SHOW(add(ep, s, EPOLLIN, 2));
	show_wait(ep, 10);
}

CASE(close_range_takes_members, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	PEER(send(fd, "a", 1, 0));
	show_wait(ep, 1000);
	SHOW(close_range(fd, fd, 0));
	show_wait(ep, 20);
}

CASE(a_duplicate_of_the_set, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), other = dup(ep);
	PEER(send(fd, "a", 1, 0));
	show_wait(other, 1000);
	SHOW(close(ep));
	show_wait(other, 1000);
	SHOW(mod(other, fd, EPOLLIN, 2));
	show_wait(other, 1000);
	int third = fcntl(other, F_DUPFD, 100);
	SHOW(close(other));
	show_wait(third, 1000);
	SHOW(epoll_wait(other, &(struct epoll_event){0}, 1, 0));
	SHOW(dup2(third, 90));
	SHOW(close(third));
	show_wait(90, 1000);
	SHOW(close(90));
	SHOW(epoll_wait(90, &(struct epoll_event){0}, 1, 0));
}

CASE(the_set_is_closed_with_members, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	SHOW(close(ep));
	int again = epoll_create1(0);
	SAY("the same number: %d", again == ep);
	SHOW(mod(again, fd, EPOLLIN, 1));
	SHOW(add(again, fd, EPOLLIN, 2));
	PEER(send(fd, "a", 1, 0));
	show_wait(again, 1000);
}

CASE(the_kernels_in_the_same_set, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), ev = eventfd(0, EFD_NONBLOCK), pipes[2];
	SHOW(pipe(pipes));
	add(ep, ev, EPOLLIN | EPOLLET, 2);
	add(ep, pipes[0], EPOLLIN | EPOLLONESHOT, 3);
	add(ep, pipes[1], EPOLLOUT | EPOLLONESHOT, 4);
	show_wait(ep, 100);
	long one = 1;
	SHOW(write(ev, &one, 8));
	SHOW(write(pipes[1], "x", 1));
	PEER(send(fd, "a", 1, 0));
	show_wait_mixed(ep, 1000);
	show_wait_mixed(ep, 1000);
	SHOW(drain(fd));
	show_wait_mixed(ep, 10);
	SHOW(mod(ep, pipes[0], EPOLLIN, 5));
	show_wait_mixed(ep, 10);
	SHOW(close(pipes[1]));
	show_wait_mixed(ep, 10);
}

CASE(a_child_shares_the_set, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	pid_t pid = fork();
	if (!pid) {
		show_wait(ep, 2000);
		SHOW(mod(ep, fd, EPOLLIN, 2));
		close(ep);
		close(fd);
		_exit(0);
	}
	PEER(send(fd, "a", 1, 0));
	waitpid(pid, NULL, 0);
	show_wait(ep, 1000);
	SHOW(drain(fd));
	show_wait(ep, 10);
	PEER(send(fd, "b", 1, 0));
	show_wait(ep, 1000);
}

CASE(a_child_adds_to_the_shared_set, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), d = dup(fd);
	pid_t pid = fork();
	if (!pid) {
		SHOW(add(ep, d, EPOLLOUT | EPOLLET, 5));
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	show_wait(ep, 1000);
	show_wait(ep, 10);
	SHOW(mod(ep, d, EPOLLOUT, 6));
	show_wait(ep, 1000);
}
