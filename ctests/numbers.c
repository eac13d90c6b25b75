/* Descriptor numbers: dup in all its forms, close in all its forms, limits, and the numbers that an application must not meet. */
#include "ct.h"
#include <sys/resource.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#define CLOSE_RANGE_CLOEXEC 4
#endif

/* Whether the connection carries a byte from us. */
static void carries(int fd, const char *b)
{
	SHOW(write(fd, b, 1));
}

CASE(dup_shares_the_connection, BOTH | BOTH6)
{
	int d = dup(fd);
	carries(d, "a");
	SHOW(close(fd));
	carries(d, "b");
	PEER(char b[4]; SHOW(recv(fd, b, 2, MSG_WAITALL)); SHOW(recv(fd, b, 1, MSG_DONTWAIT)));
	SHOW(close(d));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(dup2_onto_itself, BOTH)
{
	SHOW(dup2(fd, fd) == fd);
	SHOW(dup3(fd, fd, 0));
	SHOW(dup3(fd, fd, O_CLOEXEC));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(dup2_onto_a_connection_ends_it, BOTH)
{
	int null = open("/dev/null", O_RDWR);
	SHOW(dup2(null, fd) == fd);
	SHOW(write(fd, "x", 1));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
	struct stat st;
	SHOW(fstat(fd, &st));
	SHOW(S_ISCHR(st.st_mode));
}

CASE(dup2_of_a_connection_onto_another, BOTH)
{
	int l = ct_listen(ct_here(1));
	PEER(ct_connect(ct_here(1)));
	int other = accept(l, NULL, NULL);
	SHOW(dup2(fd, other) == other);
	SHOW(close(fd));
	carries(other, "z");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

/* Nobody listens then, and it is the kernel that refuses. */
CASE(dup2_onto_a_listener_ends_it, BOTH | MIXED)
{
	int l = ct_listen(ct_here(1));
	SHOW(dup2(fd, l) == l);
	carries(l, "q");
	SHOW_OK(accept(l, NULL, NULL));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)); int s = ct_socket(SOCK_STREAM); struct ct_address to = ct_here(1); SHOW(connect(s, AT(to))));
}

CASE(dup_of_a_listener_accepts, SERVER)
{
	int l = ct_listen(ct_here(1)), d = dup(l);
	close(l);
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	int s = accept(d, NULL, NULL);
	SHOW(s >= 0);
	carries(s, "k");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(dup_errors, BOTH)
{
	SHOW(dup(-1));
	SHOW(dup2(fd, -1));
	SHOW(dup2(fd, 1 << 30));
	SHOW(dup2(999, fd));
	SHOW(dup3(fd, 50, 1));
	SHOW(dup3(999, fd, 0));
	SHOW(fcntl(fd, F_DUPFD, -1));
	SHOW(fcntl(fd, F_DUPFD, 1 << 30));
	carries(fd, "s");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(dupfd_cloexec, BOTH)
{
	SHOW(fcntl(fd, F_DUPFD_CLOEXEC, 100));
	SHOW(fcntl(100, F_GETFD));
	SHOW(fcntl(fd, F_DUPFD, 100));
	SHOW(fcntl(101, F_GETFD));
	SHOW(dup3(fd, 105, O_CLOEXEC));
	SHOW(fcntl(105, F_GETFD));
	SHOW(fcntl(fd, F_SETFD, FD_CLOEXEC));
	SHOW(fcntl(fd, F_GETFD));
	SHOW(fcntl(101, F_GETFD));
	carries(105, "d");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(nonblocking_is_the_descriptions, BOTH)
{
	int d = dup(fd);
	char b;
	SHOW(fcntl(d, F_SETFL, O_NONBLOCK));
	SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(read(fd, &b, 1));
	SHOW(fcntl(fd, F_SETFL, 0));
	SHOW((fcntl(d, F_GETFL) & O_NONBLOCK) != 0);
	PEER(SHOW(write(fd, "x", 1)));
	SHOW(read(d, &b, 1));
}

CASE(close_twice, BOTH)
{
	SHOW(close(fd));
	SHOW(close(fd));
	SHOW(write(fd, "x", 1));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(fcntl(fd, F_GETFL));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(a_closed_number_is_a_file_next, BOTH)
{
	close(fd);
	int f = open("/dev/null", O_RDWR);
	SHOW(f == fd);
	SHOW(write(f, "abc", 3));
	SHOW(send(f, "abc", 3, 0));
	SHOW_OK(lseek(f, 0, SEEK_SET));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(close_range_errors_leave_all_open, BOTH)
{
	SHOW(close_range(fd, fd, 1 << 20));
	SHOW(close_range(fd + 1, fd, 0));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(close_range_cloexec_keeps_it, BOTH)
{
	SHOW(close_range(fd, ~0U, CLOSE_RANGE_CLOEXEC));
	SHOW(fcntl(fd, F_GETFD));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(close_range_unshare, BOTH)
{
	SHOW(close_range(fd, fd, CLOSE_RANGE_UNSHARE));
	SHOW(write(fd, "a", 1));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

/* Daemons close what they may have inherited; the library's own descriptors survive that, and sockets work afterwards. */
static void works_afterwards(void)
{
	int l = ct_listen(ct_here(1));
	PEER(ct_peer_fd = ct_connect(ct_here(1)); SHOW(write(ct_peer_fd, "x", 1)));
	int s = accept(l, NULL, NULL);
	char b;
	SHOW(read(s, &b, 1));
	SHOW(write(s, "y", 1));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

/* What the cases need to talk to their peer is at the numbers from 900 on; the standard streams are below fd. */
#define TALK 900
#define TALK_END 910
static int is_talk(int number)
{
	return number >= TALK && number < TALK_END;
}

CASE(a_loop_of_close, BOTH)
{
	long ok = 0;
	for (int i = fd; i < 4096; i++)
		if (!is_talk(i)) ok += close(i) == 0;
	SHOW(ok);
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
	works_afterwards();
}

CASE(close_range_of_all, BOTH)
{
	SHOW(close_range(fd, TALK - 1, 0));
	SHOW(close_range(TALK_END, ~0U, 0));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
	works_afterwards();
}

CASE(closefrom_all, BOTH)
{
	int d = fcntl(fd, F_DUPFD, TALK_END);
	close(fd);
	closefrom(TALK_END);
	SHOW(write(d, "x", 1));
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
	works_afterwards();
}

/* Numbers that the application has not opened are not open, whatever it asks. */
CASE(nothing_else_is_open, BOTH)
{
	long open_ones = 0, dups = 0, stats = 0;
	struct stat st;
	for (int i = fd + 1; i < 20000; i++) {
		if (is_talk(i)) continue;
		open_ones += fcntl(i, F_GETFD) >= 0;
		int d = dup(i);
		dups += d >= 0;
		if (d >= 0) close(d);
		stats += fstat(i, &st) == 0;
	}
	SHOW(open_ones);
	SHOW(dups);
	SHOW(stats);
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

/* A program may put what it has at any number below its limit. */
CASE(every_number_can_be_had, BOTH)
{
	struct rlimit r;
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = 1500;
	SHOW(setrlimit(RLIMIT_NOFILE, &r));
	int null = open("/dev/null", O_RDWR);
	long had = 0, wrong = 0;
	for (int i = 600; i < 1500; i++) {
		if (is_talk(i)) continue;
		had += dup2(null, i) == i;
		wrong += write(i, "abc", 3) != 3;
	}
	SHOW(had);
	SHOW(wrong);
	SHOW(dup2(null, 1500));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
	PEER(ct_nap(20); SHOW(write(fd, "b", 1)));
	char b;
	SHOW(read(fd, &b, 1));
	works_afterwards();
	long left = 0;
	for (int i = 600; i < 1500; i++)
		if (!is_talk(i)) left += close(i) == 0;
	SHOW(left);
}

CASE(the_limit_bounds_accept, SERVER)
{
	int l = ct_listen(ct_here(1)), top = dup(l);
	close(top);
	struct rlimit r, old;
	getrlimit(RLIMIT_NOFILE, &old);
	r = old;
	r.rlim_cur = top;
	SHOW(setrlimit(RLIMIT_NOFILE, &r));
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	SETTLE();
	SHOW(accept(l, NULL, NULL));
	SHOW(dup(fd));
	SHOW(socket(AF_INET, SOCK_STREAM, 0));
	SHOW(setrlimit(RLIMIT_NOFILE, &old));
	int s = accept(l, NULL, NULL);
	SHOW(s == top);
	carries(s, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(the_limit_is_what_was_set, BOTH)
{
	struct rlimit r, s;
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = 333;
	SHOW(setrlimit(RLIMIT_NOFILE, &r));
	works_afterwards();
	getrlimit(RLIMIT_NOFILE, &s);
	SHOW(s.rlim_cur);
}

CASE(fcntl_with_pointers, BOTH)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct f_owner_ex owner = {F_OWNER_PID, 0};
	owner.pid = getpid();
	SHOW(fcntl(fd, F_SETOWN_EX, &owner));
	owner.pid = 0;
	SHOW(fcntl(fd, F_GETOWN_EX, &owner));
	SHOW(owner.pid == getpid());
	SHOW(fcntl(fd, F_SETLK, &lock));
	SHOW(fcntl(fd, F_GETSIG));
	SHOW(fcntl(fd, F_SETLEASE, F_RDLCK));
	SHOW(fcntl(fd, F_SETPIPE_SZ, 4096));
	SHOW(fcntl(fd, F_ADD_SEALS, 0));
	SHOW(fcntl(fd, 9999, 0));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

CASE(socketpairs_are_the_kernels, BOTH)
{
	int p[2];
	char b[8];
	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	SHOW(write(p[0], "unix", 4));
	SHOW(read(p[1], b, 8));
	SHOW(socketpair(AF_INET, SOCK_STREAM, 0, p));
	carries(fd, "a");
	PEER(char b[4]; SHOW(recv(fd, b, 1, 0)));
}

/* Sandboxes take away the right to open anything; what is open goes on. */
CASE(a_limit_of_none, BOTH)
{
	struct epoll_event e = {EPOLLIN, {.fd = 1}};
	struct rlimit r;
	struct timeval t = {2, 0};
	fd_set set;
	char b;
	int ep = epoll_create1(0);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = 0;
	SHOW(setrlimit(RLIMIT_NOFILE, &r));
	PEER_LATER(ct_nap(50); send(fd, "a", 1, 0));
	TIMED(read(fd, &b, 1), 50);
	PEER_WAIT();
	PEER_LATER(ct_nap(50); send(fd, "b", 1, 0));
	TIMED(epoll_wait(ep, &e, 1, 2000), 50);
	PEER_WAIT();
	SHOW(recv(fd, &b, 1, 0));
	FD_ZERO(&set);
	FD_SET(fd, &set);
	PEER_LATER(ct_nap(50); send(fd, "c", 1, 0));
	TIMED(select(fd + 1, &set, NULL, NULL, &t), 50);
	PEER_WAIT();
	SHOW(recv(fd, &b, 1, 0));
	ct_show_poll(fd, POLLIN, 10);
	SHOW(dup(fd));
	SHOW(dup2(fd, ep));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	r.rlim_cur = 1;
	SHOW(setrlimit(RLIMIT_NOFILE, &r));
	PEER_LATER(ct_nap(50); send(fd, "d", 1, 0));
	struct pollfd p = {fd, POLLIN, 0};
	TIMED(poll(&p, 1, 2000), 50);
	PEER_WAIT();
	SHOW(p.revents);
}
