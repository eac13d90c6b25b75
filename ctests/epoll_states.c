/* What epoll reports of a socket in each state: every bit, as tcp_poll and datagram_poll have it. */
#include "watch.h"

CASE(established, BOTH | BOTH6)
{
	int ep = watch(fd, ALL_BITS, 1);
	show_wait(ep, 0);
	PEER(send(fd, "abc", 3, 0));
	show_wait(ep, 1000);
	SHOW(drain(fd));
	show_wait(ep, 0);
}

CASE(each_bit_alone, BOTH)
{
	PEER(send(fd, "abc", 3, 0); send(fd, "!", 1, MSG_OOB); shutdown(fd, SHUT_WR));
	SETTLE();
	int ep = watch(fd, 0, 1);
	show_wait(ep, 0);
	for (unsigned bit = 0; bit < 14; bit++) {
		mod(ep, fd, 1u << bit, bit);
		show_wait(ep, 0);
	}
}

CASE(urgent, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	char b[8];
	PEER(send(fd, "a", 1, 0); send(fd, "!", 1, MSG_OOB));
	SETTLE();
	show_wait(ep, 1000);
	SHOW(recv(fd, b, 1, MSG_OOB));
	show_wait(ep, 0);
	SHOW(recv(fd, b, 8, 0));
	show_wait(ep, 0);
}

CASE(the_peer_has_finished, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	PEER(send(fd, "ab", 2, 0); shutdown(fd, SHUT_WR));
	SETTLE();
	show_wait(ep, 1000);
	SHOW(drain(fd));
	show_wait(ep, 0);
	mod(ep, fd, EPOLLIN, 2);
	show_wait(ep, 0);
	mod(ep, fd, EPOLLRDHUP, 3);
	show_wait(ep, 0);
	mod(ep, fd, 0, 4);
	show_wait(ep, 0);
	SHOW(shutdown(fd, SHUT_WR));
	show_wait(ep, 1000);
	SETTLE();
	show_wait(ep, 0);
}

CASE(we_have_finished, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	SHOW(shutdown(fd, SHUT_WR));
	SETTLE();
	show_wait(ep, 0);
	PEER(send(fd, "ab", 2, 0));
	show_wait(ep, 1000);
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	show_wait(ep, 1000);
	SHOW(drain(fd));
	show_wait(ep, 0);
}

CASE(no_more_reading, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	SHOW(shutdown(fd, SHUT_RD));
	show_wait(ep, 0);
	SHOW(shutdown(fd, SHUT_RDWR));
	show_wait(ep, 0);
}

CASE(reset, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	char b[8];
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd));
	SETTLE();
	show_wait(ep, 1000);
	mod(ep, fd, 0, 2);
	show_wait(ep, 0);
	ct_show_error(fd);
	show_wait(ep, 0);
	SHOW(read(fd, b, 8));
	mod(ep, fd, ALL_BITS, 3);
	show_wait(ep, 0);
}

CASE(no_room, BOTH)
{
	int ep = watch(fd, ALL_BITS, 1);
	show_wait(ep, 0);
	ct_fill(fd);
	show_wait(ep, 0);
	PEER(char b[65536]; while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0 || poll(&(struct pollfd){fd, POLLIN, 0}, 1, 100) > 0) {});
	show_wait(ep, 2000);
}

CASE(not_connected, ALONE | ALONE6 | KERNEL_ONLY)
{
	int s = ct_socket(SOCK_STREAM), ep = watch(s, ALL_BITS, 1);
	show_wait(ep, 0);
	mod(ep, s, EPOLLIN, 2);
	show_wait(ep, 0);
	mod(ep, s, EPOLLOUT | EPOLLET, 3);
	show_wait(ep, 0);
	show_wait(ep, 0);
}

CASE(added_before_connect, ALONE | ALONE6)
{
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK), ep = watch(s, ALL_BITS | EPOLLET, 1);
	show_wait(ep, 0);
	SHOW(connect_to(s, ct_there(1)));
	show_wait(ep, 2000);
	show_wait(ep, 0);
	ct_show_error(s);
	PEER(ct_peer_fd = accept(fd, 0, 0); send(ct_peer_fd, "x", 1, 0));
	show_wait(ep, 2000);
}

CASE(added_while_connecting, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect_to(s, ct_there(1)));
	int ep = watch(s, EPOLLOUT | EPOLLONESHOT, 1);
	show_wait(ep, 2000);
	show_wait(ep, 20);
}

CASE(refused, ALONE | ALONE6)
{
	int s = ct_socket(SOCK_STREAM | SOCK_NONBLOCK);
	SHOW(connect_to(s, ct_there(6)));
	int ep = watch(s, ALL_BITS, 1);
	SETTLE();
	show_wait(ep, 2000);
	ct_show_error(s);
	show_wait(ep, 0);
}

CASE(a_listener, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(1)), ep = watch(l, ALL_BITS, 1);
	nonblocking(l);
	show_wait(ep, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	show_wait(ep, 1000);
	int a = accept(l, 0, 0);
	SHOW_OK(a);
	show_wait(ep, 0);
	SHOW(accept(l, 0, 0));
	SHOW(shutdown(l, SHUT_RD));
	show_wait(ep, 0);
	SHOW(close(l));
	show_wait(ep, 0);
}

CASE(a_listener_added_before_it_listens, ALONE)
{
	int s = ct_socket(SOCK_STREAM), one = 1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	int ep = watch(s, EPOLLIN, 1);
	SHOW(bind_to(s, ct_here(1)));
	show_wait(ep, 0);
	SHOW(listen(s, 5));
	show_wait(ep, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	show_wait(ep, 1000);
	SHOW_OK(accept(s, 0, 0));
	show_wait(ep, 0);
}

CASE(datagrams, DATAGRAM | DATAGRAM6)
{
	int ep = watch(fd, ALL_BITS, 1);
	show_wait(ep, 0);
	PEER(send(fd, "abc", 3, 0));
	show_wait(ep, 1000);
	show_wait(ep, 0);
	SHOW(drain(fd));
	show_wait(ep, 0);
	mod(ep, fd, EPOLLIN | EPOLLET, 2);
	PEER(send(fd, "abc", 3, 0));
	show_wait(ep, 1000);
	show_wait(ep, 10);
	PEER(send(fd, "abc", 3, 0));
	show_wait(ep, 1000);
	show_wait(ep, 10);
}

CASE(datagrams_shut, CONNECTED)
{
	int ep = watch(fd, ALL_BITS, 1);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	SHOW(drain(fd));
	SHOW(shutdown(fd, SHUT_RD));
	show_wait(ep, 0);
	SHOW(shutdown(fd, SHUT_WR));
	show_wait(ep, 0);
}
