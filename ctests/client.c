/* Connecting: blocking, nonblocking, refused; and select. The peer listens. */
#include "ct.h"

static void serve(void)
{
	int l = ct_listen(ct_there(4));
	ct_tell();
	for (int i = 0; i < 2; i++) {
		int fd = accept(l, NULL, NULL);
		char b[16];
		ssize_t n;
		while ((n = recv(fd, b, sizeof b, 0)) > 0) send(fd, b, n, 0);
		close(fd);
	}
}

CASE(session, ALONE)
{
	PEER_LATER(serve());
	ct_wait();
	struct sockaddr_in a = ct_there(4).v4, nobody = ct_there(5).v4, x;
	char b[16] = {0};
	int v;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(recv(fd, b, 1, 0));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	socklen_t len = sizeof x;
	SHOW(getpeername(fd, (struct sockaddr *)&x, &len));
	printf("same peer: %d\n", !memcmp(&x, &a, 8));
	SHOW(write(fd, "ping", 4));
	SHOW(recv(fd, b, 4, MSG_WAITALL));
	printf("%s\n", b);
	fd_set r, w;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	struct timeval t = {0, 1000};
	SHOW(select(fd + 1, &r, &w, NULL, &t));
	printf("r %d w %d\n", FD_ISSET(fd, &r) != 0, FD_ISSET(fd, &w) != 0);
	FD_ZERO(&r);
	FD_SET(fd, &r);
	SHOW(select(fd + 1, &r, NULL, NULL, &t));
	FD_ZERO(&r);
	FD_SET(fd, &r);
	FD_SET(0, &r);
	SHOW(write(fd, "pong", 4));
	FD_CLR(0, &r);
	SHOW(select(fd + 1, &r, NULL, NULL, NULL));
	SHOW(read(fd, b, 16));
	SHOW(close(fd));

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int ep = epoll_create1(0);
	struct epoll_event e = {EPOLLOUT, {.u32 = 1}};
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)); /* before connect, as nginx does */
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(epoll_wait(ep, &e, 1, 2000));
	ct_nap(20);
	len = sizeof v;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len));
	printf("SO_ERROR %d\n", v);
	e.events = EPOLLIN;
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
	SHOW(write(fd, "more", 4));
	SHOW(epoll_wait(ep, &e, 1, 2000));
	SHOW(read(fd, b, 16));
	SHOW(close(fd));

	fd = socket(AF_INET, SOCK_STREAM, 0);
	SHOW(connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	SHOW(close(fd));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SHOW(connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	struct pollfd pf = {fd, POLLOUT, 0};
	SHOW(poll(&pf, 1, 2000));
	printf("revents %#x\n", pf.revents);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len));
	printf("SO_ERROR %s\n", strerrorname_np(v));
	SHOW(close(fd));
	PEER_WAIT();
}
