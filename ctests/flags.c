/* The flags of send and recv, and control messages of streams. */
#include "opt.h"

static const int all_flags[] = {MSG_OOB, MSG_PEEK, MSG_DONTROUTE, MSG_CTRUNC, MSG_PROXY, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR, MSG_WAITALL,
	MSG_FIN, MSG_SYN, MSG_CONFIRM, MSG_RST, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_MORE, MSG_WAITFORONE, MSG_BATCH, MSG_ZEROCOPY,
	MSG_FASTOPEN, MSG_CMSG_CLOEXEC, 0x00800000, 0x08000000, 0x10000000};

/* Every flag by itself, with one octet there to be read. */
CASE(receiving_with_each_flag, BOTH)
{
	PEER(int v = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof v));
	for (size_t i = 0; i < LENGTH(all_flags); i++) {
		char b[4] = "....";
		PEER(send(fd, "x", 1, 0));
		SETTLE();
		int flags = all_flags[i] | (all_flags[i] == MSG_WAITALL ? 0 : MSG_DONTWAIT);
		printf("%#x: ", all_flags[i]);
		SHOW(recv(fd, b, all_flags[i] == MSG_WAITALL ? 1 : 4, flags));
		SAY("%.4s", b);
		while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0);
	}
}

CASE(receiving_with_each_flag_and_nothing_there, BOTH | DATAGRAM)
{
	opt_begin(fd);
	for (size_t i = 0; i < LENGTH(all_flags); i++) {
		char b[4];
		printf("%#x: ", all_flags[i]);
		SHOW(recv(fd, b, 4, all_flags[i] | MSG_DONTWAIT));
	}
}

CASE(sending_with_each_flag, BOTH)
{
	for (size_t i = 0; i < LENGTH(all_flags); i++) {
		printf("%#x: ", all_flags[i]);
		SHOW(send(fd, "x", 1, all_flags[i]));
	}
	SHOW(send(fd, "end", 3, 0));
	PEER(char b[64]; ct_nap(150); long n = recv(fd, b, 64, 0); ct_show_bytes("peer", b, n); fflush(stdout));
}

CASE(sending_datagrams_with_each_flag, CONNECTED | MIXED)
{
	opt_begin(fd);
	for (size_t i = 0; i < LENGTH(all_flags); i++) {
		if (all_flags[i] == MSG_MORE || all_flags[i] == MSG_ZEROCOPY) continue;
		printf("%#x: ", all_flags[i]);
		SHOW(send(fd, "x", 1, all_flags[i]));
	}
}

static long receive(int fd, int flags, int room, struct msghdr *m)
{
	static char b[64], c[512];
	static struct iovec i;
	i = (struct iovec){b, sizeof b};
	memset(c, 0x77, sizeof c);
	*m = (struct msghdr){.msg_iov = &i, .msg_iovlen = 1, .msg_control = room ? c : NULL, .msg_controllen = room, .msg_flags = 0x7777};
	return recvmsg(fd, m, flags);
}

CASE(flags_that_come_back, BOTH)
{
	struct msghdr m;
	PEER(send(fd, "abcdef", 6, 0));
	SETTLE();
	const int flags[] = {MSG_PEEK, MSG_PEEK | MSG_TRUNC, MSG_CMSG_CLOEXEC | MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT};
	for (size_t i = 0; i < LENGTH(flags); i++) {
		printf("%#x: ", flags[i]);
		SHOW(receive(fd, flags[i], 100, &m));
		SAY("flags %#x, control %zu, name %u", m.msg_flags, m.msg_controllen, m.msg_namelen);
	}
}

static void send_control(int fd, int level, int kind, const void *data, size_t size, size_t claimed)
{
	char c[128] = {0};
	struct iovec i = {(char *)"x", 1};
	struct msghdr m = {.msg_iov = &i, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(size)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = level, h->cmsg_type = kind, h->cmsg_len = claimed ? claimed : CMSG_LEN(size);
	memcpy(CMSG_DATA(h), data, size);
	printf("%d %d (%zu): ", level, kind, (size_t)h->cmsg_len);
	SHOW(sendmsg(fd, &m, MSG_DONTWAIT));
}

CASE(control_messages_to_streams, BOTH)
{
	int v = 1;
	struct ucred cred = {getpid(), getuid(), getgid()};
	send_control(fd, SOL_SOCKET, SCM_RIGHTS, &v, sizeof v, 0);
	send_control(fd, SOL_SOCKET, SCM_CREDENTIALS, &cred, sizeof cred, 0);
	send_control(fd, SOL_SOCKET, 9999, &v, sizeof v, 0);
	send_control(fd, IPPROTO_IP, IP_TTL, &v, sizeof v, 0);
	send_control(fd, IPPROTO_IP, IP_PKTINFO, &v, sizeof v, 0);
	send_control(fd, IPPROTO_TCP, 1, &v, sizeof v, 0);
	send_control(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, sizeof v, 0);
	send_control(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, 2, 0);
	send_control(fd, SOL_SOCKET, SO_MARK, &v, sizeof v, 0);
	send_control(fd, SOL_SOCKET, SCM_RIGHTS, &v, sizeof v, 3);
	send_control(fd, SOL_SOCKET, SCM_RIGHTS, &v, sizeof v, 1000);
	struct iovec i = {(char *)"y", 1};
	char c[8] = {0};
	struct msghdr m = {.msg_iov = &i, .msg_iovlen = 1, .msg_control = c, .msg_controllen = 8};
	SHOW(sendmsg(fd, &m, 0));
	m.msg_controllen = 0;
	SHOW(sendmsg(fd, &m, 0));
	m.msg_control = NULL, m.msg_controllen = 100;
	SHOW(sendmsg(fd, &m, 0));
}

static void show_control(const struct msghdr *m)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR((struct msghdr *)m, h)) {
		long t[6] = {0};
		int n = 0;
		memcpy(t, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0) < sizeof t ? h->cmsg_len - CMSG_LEN(0) : sizeof t);
		memcpy(&n, CMSG_DATA(h), 4);
		if (h->cmsg_level == SOL_SOCKET) SAY("level %d type %d (%zu): recent %d", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len,
		    t[0] >= now.tv_sec - 2 && t[0] <= now.tv_sec);
		else SAY("level %d type %d (%zu): %d", h->cmsg_level, h->cmsg_type, (size_t)h->cmsg_len, n);
	}
	SAY("flags %#x, control %zu", m->msg_flags, m->msg_controllen);
}

CASE(times_of_data, BOTH | BOTH6)
{
	const int names[] = {SO_TIMESTAMP, SO_TIMESTAMPNS, 63, 64};
	/* The kernel begins to note times a moment after the first socket asks for them. */
	int one = 1, zero = 0, first = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(first, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one);
	ct_nap(50);
	for (size_t i = 0; i < LENGTH(names); i++) {
		struct msghdr m;
		SHOW(setsockopt(fd, SOL_SOCKET, names[i], &one, sizeof one));
		PEER(send(fd, "abc", 3, 0));
		SETTLE();
		SHOW(receive(fd, MSG_PEEK, 200, &m));
		show_control(&m);
		SHOW(receive(fd, MSG_PEEK, 20, &m));
		SAY("flags %#x, control %zu", m.msg_flags, m.msg_controllen);
		SHOW(receive(fd, MSG_PEEK, 0, &m));
		SAY("flags %#x, control %zu", m.msg_flags, m.msg_controllen);
		SHOW(receive(fd, 0, 200, &m));
		show_control(&m);
		SHOW(setsockopt(fd, SOL_SOCKET, names[i], &zero, sizeof zero));
	}
	struct msghdr m;
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
}

CASE(what_is_queued_is_told, BOTH)
{
	int one = 1;
	struct msghdr m;
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_INQ, &one, sizeof one));
	static char more[100];
	PEER(static char b[100]; send(fd, b, 100, 0));
	SETTLE();
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
	PEER(send(fd, "z", 1, 0); shutdown(fd, SHUT_WR));
	SETTLE();
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
	SHOW(recv(fd, more, sizeof more, 0));
}

CASE(what_is_queued_and_when_it_came, SERVER)
{
	int one = 1;
	struct msghdr m;
	setsockopt(fd, IPPROTO_TCP, TCP_INQ, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
	SETTLE(); /* the kernel begins to note times in its own time */
	PEER(static char b[100]; send(fd, b, 100, 0));
	SETTLE();
	SHOW(receive(fd, 0, 200, &m));
	show_control(&m);
}

static volatile sig_atomic_t pipes;
static void on_pipe(int n) { (void)n, pipes++; }

CASE(broken_pipes, BOTH)
{
	signal(SIGPIPE, on_pipe);
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SAY("%d", pipes);
	SHOW(send(fd, "x", 1, 0));
	SAY("%d", pipes);
	SHOW(write(fd, "x", 1));
	SAY("%d", pipes);
	struct iovec i = {(char *)"x", 1};
	SHOW(writev(fd, &i, 1));
	SAY("%d", pipes);
	SHOW(send(fd, "", 0, 0));
	SAY("%d", pipes);
	SHOW(send(fd, "x", 1, MSG_OOB));
	SAY("%d", pipes);
}

CASE(broken_pipes_after_a_reset, BOTH)
{
	signal(SIGPIPE, on_pipe);
	PEER(struct linger g = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(fd));
	SETTLE();
	SHOW(send(fd, "x", 1, 0));
	SAY("%d", pipes);
	SHOW(send(fd, "x", 1, 0));
	SAY("%d", pipes);
}

CASE(waiting_for_all, BOTH)
{
	char b[8];
	PEER_LATER(send(fd, "abc", 3, 0); ct_nap(60); send(fd, "def", 3, 0); ct_nap(30); send(fd, "gh", 2, 0));
	TIMED(recv(fd, b, 8, MSG_WAITALL), 90);
	PEER_WAIT();
	struct timeval t = {0, 50000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	PEER(send(fd, "ab", 2, 0));
	TIMED(recv(fd, b, 8, MSG_WAITALL), 50);
	PEER(send(fd, "ab", 2, 0); shutdown(fd, SHUT_WR));
	TIMED(recv(fd, b, 8, MSG_WAITALL), 0);
	SHOW(recv(fd, b, 8, MSG_WAITALL));
}

CASE(more_to_come, BOTH)
{
	SHOW(send(fd, "ab", 2, MSG_MORE));
	PEER(char b[8]; ct_nap(40); printf("peer: %zd\n", recv(fd, b, 8, MSG_DONTWAIT)); fflush(stdout));
	SHOW(send(fd, "cd", 2, 0));
	PEER(char b[8]; ct_nap(40); printf("peer: %zd\n", recv(fd, b, 8, MSG_DONTWAIT)); fflush(stdout));
}
