/* One accepted connection: data, flags, addresses, options, the end. */
#include "common.h"

static void peer(int fd)
{
	char b[256];
	if (send(fd, "hello", 5, 0) != 5) _exit(1);
	ct_wait(1);
	if (recv(fd, b, sizeof b, MSG_PEEK) < 1) _exit(1);
	if (recv(fd, b, 11, MSG_WAITALL) != 11 || memcmp(b, "one two six", 11)) _exit(2);
	if (send(fd, "abcdefgh", 8, 0) != 8) _exit(1);
	ct_tell(1);
	ct_wait(1);
	shutdown(fd, SHUT_WR);
	if (recv(fd, b, sizeof b, MSG_WAITALL) != 4 || memcmp(b, "last", 4)) _exit(3);
	ct_tell(1);
	close(fd);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	int l = ct_listen(7101), n = 0;
	pid_t p = ct_peer(7101, peer);
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	int fd = accept(l, (struct sockaddr *)&a, &len);
	printf("accept: family %d, length %u\n", a.sin_family, len);
	char b[64] = {0};
	SHOW(recv(fd, b, 5, MSG_WAITALL));
	printf("%s\n", b);
	SHOW(recv(fd, b, 5, MSG_DONTWAIT));
	SHOW(recv(fd, b, 5, MSG_OOB));
	SHOW(recv(fd, b, 5, MSG_ERRQUEUE));
	SHOW(read(fd, b, 0));
	len = sizeof a;
	SHOW(getsockname(fd, (struct sockaddr *)&a, &len));
	printf("port %d, length %u\n", ntohs(a.sin_port), len);
	len = 4;
	SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
	printf("length %u\n", len);
	struct iovec v[3] = {{"one ", 4}, {"", 0}, {"two ", 4}};
	SHOW(writev(fd, v, 3));
	SHOW(send(fd, "s", 1, MSG_MORE));
	SHOW(write(fd, "ix", 2));
	ct_tell(0);
	ct_wait(0);
	SHOW(recv(fd, b, 3, MSG_PEEK));
	SHOW(ioctl(fd, FIONREAD, &n));
	printf("FIONREAD %d\n", n);
	SHOW(recv(fd, NULL, 2, MSG_TRUNC));
	struct iovec r[2] = {{b, 2}, {b + 2, 10}};
	struct msghdr m = {.msg_iov = r, .msg_iovlen = 2};
	SHOW(recvmsg(fd, &m, 0));
	printf("%.6s, flags %d\n", b, m.msg_flags);
	SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(read(fd, b, 1));
	n = 0;
	SHOW(ioctl(fd, FIONBIO, &n));
	SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
	struct timeval t = {0, 50000};
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	SHOW(read(fd, b, 1));
	struct stat st;
	SHOW(fstat(fd, &st));
	printf("socket: %d\n", S_ISSOCK(st.st_mode));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(listen(fd, 1));
	ct_tell(0);
	t.tv_usec = 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	SHOW(read(fd, b, 1));
	SHOW(read(fd, b, 1));
	struct pollfd pf = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
	SHOW(poll(&pf, 1, 1000));
	printf("revents %#x\n", pf.revents);
	SHOW(write(fd, "last", 4));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(write(fd, "x", 1));
	ct_wait(0);
	ct_nap(100);
	pf.revents = 0;
	SHOW(poll(&pf, 1, 1000));
	printf("revents %#x\n", pf.revents);
	SHOW(shutdown(fd, SHUT_RDWR));
	len = sizeof n;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &n, &len));
	printf("SO_ERROR %d\n", n);
	SHOW(close(fd));
	SHOW(close(fd));
	SHOW(read(fd, b, 1));
	ct_done(p);
	return 0;
}
