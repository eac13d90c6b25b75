/* syscall(2), by number: what the functions do, with the kernel's arguments. */
#include "ct.h"
#include <sys/syscall.h>

CASE(data, BOTH | BOTH6)
{
	char b[16];
	struct iovec v = {b, 3};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	struct mmsghdr mm = {.msg_hdr = m};
	PEER(SHOW(send(fd, "abcdefghijklmnop", 16, 0)));
	SETTLE();
	SHOW(syscall(SYS_read, fd, b, 2));
	SHOW(syscall(SYS_readv, fd, &v, 1));
	SHOW(syscall(SYS_recvfrom, fd, b, 2, MSG_PEEK, NULL, NULL));
	SHOW(syscall(SYS_recvmsg, fd, &m, 0));
	SHOW(syscall(SYS_recvmmsg, fd, &mm, 1, 0, NULL));
	SHOW(mm.msg_len);
	SHOW(syscall(SYS_preadv2, fd, &v, 1, -1L, -1L, 0));
	SHOW(syscall(SYS_pread64, fd, b, 2, 0));
	SHOW(syscall(SYS_write, fd, "ab", 2));
	SHOW(syscall(SYS_writev, fd, &v, 1));
	SHOW(syscall(SYS_sendto, fd, "cd", 2, 0, NULL, 0));
	SHOW(syscall(SYS_sendmsg, fd, &m, 0));
	SHOW(syscall(SYS_sendmmsg, fd, &mm, 1, 0));
	SHOW(syscall(SYS_pwritev2, fd, &v, 1, -1L, -1L, 0));
	PEER(char b[32]; SHOW(recv(fd, b, 16, MSG_WAITALL)));
}

CASE(errors, BOTH)
{
	char b[4];
	SHOW(syscall(SYS_read, -1, b, 4));
	SHOW(syscall(SYS_recvfrom, fd, b, 4, MSG_DONTWAIT, NULL, NULL));
	SHOW(syscall(SYS_lseek, fd, 0, SEEK_CUR));
	SHOW(syscall(SYS_getsockopt, fd, SOL_SOCKET, 9999, b, NULL));
	SHOW(syscall(99999));
	SHOW(syscall(SYS_getpid) == getpid());
	SHOW(syscall(SYS_write, fd, "x", 1));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(life_of_a_server, ALONE | ALONE6)
{
	struct ct_address at = ct_here(1), who;
	int one = 1;
	socklen_t len = sizeof one;
	long l = syscall(SYS_socket, ct_family, SOCK_STREAM, 0);
	SHOW(syscall(SYS_setsockopt, l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
	SHOW(syscall(SYS_bind, l, &at.a, at.len));
	SHOW(syscall(SYS_listen, l, 5));
	struct pollfd p = {l, POLLIN, 0};
	struct timespec none = {0, 0};
	SHOW(syscall(SYS_ppoll, &p, 1, &none, NULL, 8));
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	who.len = sizeof who.all;
	long s = syscall(SYS_accept4, l, &who.a, &who.len, SOCK_CLOEXEC);
	ct_show_name("peer", &who.a, who.len);
	SHOW(syscall(SYS_fcntl, s, F_GETFD, 0));
	who.len = sizeof who.all;
	SHOW(syscall(SYS_getsockname, s, &who.a, &who.len));
	ct_show_name("own", &who.a, who.len);
	who.len = sizeof who.all;
	SHOW(syscall(SYS_getpeername, s, &who.a, &who.len));
	SHOW(syscall(SYS_getsockopt, s, SOL_SOCKET, SO_TYPE, &one, &len));
	SHOW(one);
	PEER(SHOW(send(fd, "hello", 5, 0)));
	SETTLE();
	int n = 0;
	SHOW(syscall(SYS_ioctl, s, FIONREAD, &n));
	SHOW(n);
	long d = syscall(SYS_dup3, s, s + 10, O_CLOEXEC);
	SHOW(d == s + 10);
	SHOW(syscall(SYS_close, s));
	SHOW(syscall(SYS_shutdown, d, SHUT_WR));
	PEER(char b[4]; SHOW(recv(fd, b, 4, 0)));
	SHOW(syscall(SYS_close_range, d, d, 0));
	SHOW(syscall(SYS_close, d));
}

CASE(a_client, ALONE)
{
	struct ct_address to = ct_there(1);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	long s = syscall(SYS_socket, ct_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	SHOW(syscall(SYS_connect, s, &to.a, to.len));
	SHOW(syscall(SYS_write, s, "hello", 5));
	PEER(int c = accept(fd, NULL, NULL); char b[8]; SHOW(recv(c, b, 5, MSG_WAITALL)));
	SHOW(close(s));
}

CASE(epoll, BOTH)
{
	struct epoll_event e = {EPOLLIN | EPOLLOUT, {.u32 = 7}}, got[2];
	struct timespec t = {0, 50000000};
	sigset_t none;
	sigemptyset(&none);
	long ep = syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
	SHOW(syscall(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, fd, &e));
	SHOW(syscall(SYS_epoll_pwait, ep, got, 2, 0, NULL, 0));
	SHOW(got[0].events);
	SHOW(got[0].data.u32);
	e.events = EPOLLIN;
	SHOW(syscall(SYS_epoll_ctl, ep, EPOLL_CTL_MOD, fd, &e));
	TIMED(syscall(SYS_epoll_pwait, ep, got, 2, 50, &none, 8), 50);
	SHOW(syscall(SYS_epoll_pwait, ep, got, 2, 50, &none, 16));
	TIMED(syscall(SYS_epoll_pwait2, ep, got, 2, &t, &none, 8), 50);
	SHOW(syscall(SYS_epoll_pwait2, ep, got, 2, &t, &none, 4));
	PEER(SHOW(send(fd, "x", 1, 0)));
	SHOW(syscall(SYS_epoll_pwait, ep, got, 2, 1000, &none, 8));
#ifdef SYS_epoll_wait
	SHOW(syscall(SYS_epoll_wait, ep, got, 2, 1000));
#else
	SHOW(epoll_wait(ep, got, 2, 1000));
#endif
	SHOW(got[0].events);
	SHOW(close(ep));
}

static int about(struct timespec t, long ms)
{
	long left = t.tv_sec * 1000 + t.tv_nsec / 1000000;
	return left >= 0 && left <= ms;
}

/* The kernel's own calls leave what remains of the time, unlike libc's. */
CASE(waits_leave_the_rest_of_the_time, BOTH)
{
	struct timespec t = {5, 0};
	struct pollfd p = {fd, POLLIN, 0};
	sigset_t none;
	struct { const sigset_t *mask; size_t size; } pair = {&none, 8};
	fd_set r;
	sigemptyset(&none);
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	SHOW(syscall(SYS_ppoll, &p, 1, &t, &none, 8));
	SHOW(about(t, 4950));
	PEER_WAIT();
	SHOW(syscall(SYS_ppoll, &p, 1, &t, &none, 16));
	FD_ZERO(&r);
	FD_SET(fd, &r);
	t = (struct timespec){5, 0};
	SHOW(syscall(SYS_pselect6, fd + 1, &r, NULL, NULL, &t, &pair));
	SHOW(FD_ISSET(fd, &r));
	SHOW(t.tv_sec);
	char b;
	SHOW(read(fd, &b, 1));
	t = (struct timespec){0, 50000000};
	TIMED(syscall(SYS_pselect6, fd + 1, &r, NULL, NULL, &t, NULL), 50);
	SHOW(t.tv_sec + t.tv_nsec);
	pair.size = 4;
	FD_SET(fd, &r);
	SHOW(syscall(SYS_pselect6, fd + 1, &r, NULL, NULL, &t, &pair));
#ifdef SYS_poll
	TIMED(syscall(SYS_poll, &p, 1, 50), 50);
#else
	TIMED(poll(&p, 1, 50), 50);
#endif
}

/* The mask holds while the call waits: the pending signal is delivered then. */
static volatile sig_atomic_t seen;
static void on_signal(int s)
{
	seen = s;
}

CASE(the_mask_is_the_waits, BOTH)
{
	struct sigaction a = {.sa_handler = on_signal};
	struct pollfd p = {fd, POLLIN, 0};
	sigset_t block, none;
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigaction(SIGUSR1, &a, NULL);
	sigprocmask(SIG_BLOCK, &block, NULL);
	raise(SIGUSR1);
	SHOW(seen);
	SHOW(syscall(SYS_ppoll, &p, 1, NULL, &none, 8));
	SHOW(seen == SIGUSR1);
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(files_and_splices, BOTH)
{
	int p[2], f = open("/etc/hostname", O_RDONLY);
	struct stat st;
	pipe(p);
	write(p[1], "abc", 3);
	SHOW(syscall(SYS_splice, p[0], NULL, fd, NULL, 3, 0));
	PEER(char b[4]; SHOW(recv(fd, b, 3, MSG_WAITALL)));
	off_t off = 0;
	SHOW(syscall(SYS_sendfile, fd, f, &off, 2));
	PEER(char b[4]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	SHOW(syscall(SYS_fstat, fd, &st));
	SHOW(S_ISSOCK(st.st_mode));
	SHOW(syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
	SHOW(S_ISSOCK(st.st_mode));
}
