/* SOL_SOCKET: what each option is, takes, and tells, on connections, listeners and datagram sockets. */
#include "opt.h"
#include <linux/filter.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_RESERVE_MEM
#define SO_RESERVE_MEM 73
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74
#endif
#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static const struct opt flags[] = {
	OPT(SOL_SOCKET, SO_KEEPALIVE), OPT(SOL_SOCKET, SO_OOBINLINE), OPT(SOL_SOCKET, SO_BROADCAST),
	OPT(SOL_SOCKET, SO_REUSEADDR), OPT(SOL_SOCKET, SO_REUSEPORT), OPT(SOL_SOCKET, SO_NO_CHECK),
	OPT(SOL_SOCKET, SO_TIMESTAMP), OPT(SOL_SOCKET, SO_TIMESTAMPNS), OPT(SOL_SOCKET, SO_RXQ_OVFL),
	OPT(SOL_SOCKET, SO_SELECT_ERR_QUEUE), OPT(SOL_SOCKET, SO_ZEROCOPY), OPT(SOL_SOCKET, SO_TXREHASH),
	OPT(SOL_SOCKET, SO_BUF_LOCK), OPT(SOL_SOCKET, SO_PREFER_BUSY_POLL), OPT(SOL_SOCKET, SO_RCVMARK),
};

static const struct opt numbers[] = {
	OPT(SOL_SOCKET, SO_RCVLOWAT), OPT(SOL_SOCKET, SO_PRIORITY), OPT(SOL_SOCKET, SO_BUSY_POLL),
	OPT(SOL_SOCKET, SO_BUSY_POLL_BUDGET), OPT(SOL_SOCKET, SO_SNDLOWAT),
};

static const struct opt facts[] = {
	OPT(SOL_SOCKET, SO_TYPE), OPT(SOL_SOCKET, SO_DOMAIN), OPT(SOL_SOCKET, SO_PROTOCOL), OPT(SOL_SOCKET, SO_ACCEPTCONN),
	OPT(SOL_SOCKET, SO_ERROR), OPT(SOL_SOCKET, SO_DEBUG), OPT(SOL_SOCKET, SO_DONTROUTE), OPT(SOL_SOCKET, SO_MARK),
	OPT(SOL_SOCKET, SO_PEEK_OFF), OPT(SOL_SOCKET, SO_BINDTOIFINDEX), OPT(SOL_SOCKET, SO_LOCK_FILTER),
	OPT(SOL_SOCKET, SO_WIFI_STATUS), OPT(SOL_SOCKET, SO_NOFCS), OPT(SOL_SOCKET, SO_PASSCRED), OPT(SOL_SOCKET, SO_PASSSEC),
	OPT(SOL_SOCKET, SO_TXTIME), OPT(SOL_SOCKET, SO_TIMESTAMPING), OPT(SOL_SOCKET, SO_RESERVE_MEM),
	OPT(SOL_SOCKET, SO_ATTACH_FILTER), OPT(SOL_SOCKET, 9999),
};

CASE(flags, BOTH | BOTH6 | DATAGRAM | DATAGRAM6) { opt_begin(fd); TRY_ALL(fd, flags, 1, 2, -1, 0); }

CASE(numbers, BOTH | CLIENT6 | DATAGRAM) { opt_begin(fd); TRY_ALL(fd, numbers, 1, 3, 6, 0, -1, 100000); }

CASE(facts, BOTH | BOTH6 | DATAGRAM | DATAGRAM6) { opt_begin(fd); READ_ALL(fd, facts); }

CASE(facts_are_not_set, BOTH | DATAGRAM)
{
	opt_begin(fd);
	static const struct opt fixed[] = {
		OPT(SOL_SOCKET, SO_TYPE), OPT(SOL_SOCKET, SO_DOMAIN), OPT(SOL_SOCKET, SO_PROTOCOL), OPT(SOL_SOCKET, SO_ACCEPTCONN),
		OPT(SOL_SOCKET, SO_ERROR), OPT(SOL_SOCKET, SO_PEERCRED), OPT(SOL_SOCKET, SO_PEERNAME), OPT(SOL_SOCKET, SO_COOKIE),
		OPT(SOL_SOCKET, SO_MEMINFO), OPT(SOL_SOCKET, SO_SNDLOWAT), OPT(SOL_SOCKET, SO_INCOMING_NAPI_ID),
		OPT(SOL_SOCKET, SO_NETNS_COOKIE), OPT(SOL_SOCKET, 9999), OPT(9999, 1),
	};
	for (size_t i = 0; i < LENGTH(fixed); i++) {
		int v = 1;
		printf("%s: ", fixed[i].text);
		SHOW(setsockopt(fd, fixed[i].level, fixed[i].name, &v, sizeof v));
	}
}

CASE(lengths, BOTH | SERVER6 | DATAGRAM)
{
	opt_begin(fd);
	LENGTHS_ALL(fd, flags);
	LENGTHS_ALL(fd, numbers);
}

CASE(buffers, BOTH | DATAGRAM)
{
	opt_begin(fd);
	static const struct opt sizes[] = {
		OPT(SOL_SOCKET, SO_SNDBUF), OPT(SOL_SOCKET, SO_RCVBUF), OPT(SOL_SOCKET, SO_SNDBUFFORCE),
		OPT(SOL_SOCKET, SO_RCVBUFFORCE),
	};
	for (size_t i = 0; i < 4; i++) {
		const struct opt *told = &sizes[i & 1];
		const int values[] = {0, 1, 1000, 5000, 100000, 300000, 2000000000, INT_MAX, -1, INT_MIN};
		printf("%s:", sizes[i].text);
		for (size_t j = 0; j < LENGTH(values); j++) {
			int r = setsockopt(fd, SOL_SOCKET, sizes[i].name, &values[j], sizeof values[j]);
			printf(" | %d: %s", values[j], r ? strerrorname_np(errno) : "ok");
			opt_get(fd, told);
		}
		putchar('\n');
	}
	LENGTHS_ALL(fd, sizes);
}

CASE(buffers_are_locked_by_being_set, BOTH)
{
	const struct opt lock = OPT(SOL_SOCKET, SO_BUF_LOCK);
	int v = 40000;
	printf("at first:"), opt_get(fd, &lock);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof v);
	printf(" sndbuf:"), opt_get(fd, &lock);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof v);
	printf(" both:"), opt_get(fd, &lock);
	for (v = 0; v < 5; v++) opt_set(fd, &lock, v);
	putchar('\n');
}

CASE(linger, BOTH | DATAGRAM)
{
	opt_begin(fd);
	const struct linger values[] = {{1, 5}, {0, 7}, {1, 0}, {2, 65535}, {1, 65536}, {1, 10000000}, {1, -1}, {0, 0}};
	for (size_t i = 0; i < LENGTH(values); i++) {
		struct linger told = {-1, -1};
		socklen_t len = sizeof told;
		SHOW(setsockopt(fd, SOL_SOCKET, SO_LINGER, &values[i], sizeof values[i]));
		getsockopt(fd, SOL_SOCKET, SO_LINGER, &told, &len);
		SAY("{%d, %d}: {%d, %d} (%u)", values[i].l_onoff, values[i].l_linger, told.l_onoff, told.l_linger, len);
	}
	char b[16] = {1, 0, 0, 0, 3};
	for (socklen_t n = 0; n <= 12; n++) {
		socklen_t len = n;
		int r = setsockopt(fd, SOL_SOCKET, SO_LINGER, b, n), e = errno;
		int g = getsockopt(fd, SOL_SOCKET, SO_LINGER, b + 8, &len);
		SAY("%u: %s, %s %u", n, r ? strerrorname_np(e) : "ok", g ? strerrorname_np(errno) : "ok", len);
	}
	struct linger off = {0, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

static void timeouts(int fd, int name)
{
	const struct timeval values[] = {{3, 500000}, {0, 1}, {0, 999999}, {0, 1000000}, {0, -1}, {-1, 0}, {-5, 3}, {1L << 40, 0},
		{LONG_MAX, 0}, {0, 4000}, {0, 0}};
	for (size_t i = 0; i < LENGTH(values); i++) {
		struct timeval told = {-7, -7};
		socklen_t len = sizeof told;
		SHOW(setsockopt(fd, SOL_SOCKET, name, &values[i], sizeof values[i]));
		getsockopt(fd, SOL_SOCKET, name, &told, &len);
		SAY("{%ld, %ld}: {%ld, %ld} (%u)", values[i].tv_sec, values[i].tv_usec, told.tv_sec, told.tv_usec, len);
	}
	char b[24] = {2};
	for (socklen_t n = 0; n <= 20; n += 4) {
		socklen_t len = n;
		int r = setsockopt(fd, SOL_SOCKET, name, b, n), e = errno;
		int g = getsockopt(fd, SOL_SOCKET, name, b, &len);
		SAY("%u: %s, %s %u", n, r ? strerrorname_np(e) : "ok", g ? strerrorname_np(errno) : "ok", len);
	}
	struct timeval zero = {0, 0};
	setsockopt(fd, SOL_SOCKET, name, &zero, sizeof zero);
}

/* The numbers that a libc with 64-bit time on 32 bits uses; on 64 bits both forms are there. */
enum { RCVTIMEO_NEW = 66, SNDTIMEO_NEW = 67 };

CASE(timeouts, BOTH | DATAGRAM)
{
	opt_begin(fd);
	timeouts(fd, SO_RCVTIMEO);
	timeouts(fd, SO_SNDTIMEO);
	timeouts(fd, RCVTIMEO_NEW);
	timeouts(fd, SNDTIMEO_NEW);
}

CASE(timeouts_are_one_in_both_forms, BOTH | DATAGRAM)
{
	opt_begin(fd);
	struct timeval t = {0, 60000}, told = {0, 0};
	socklen_t len = sizeof told;
	char b;
	SHOW(setsockopt(fd, SOL_SOCKET, RCVTIMEO_NEW, &t, sizeof t));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &told, &len));
	SAY("%ld.%06ld", told.tv_sec, told.tv_usec);
	TIMED(recv(fd, &b, 1, 0), 60);
}

CASE(a_negative_timeout_does_not_wait, BOTH | DATAGRAM)
{
	opt_begin(fd);
	struct timeval t = {-1, 0};
	char b;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	TIMED(recv(fd, &b, 1, 0), 0);
}

CASE(pacing_rates, BOTH | DATAGRAM)
{
	opt_begin(fd);
	const struct opt rate = OPT(SOL_SOCKET, SO_MAX_PACING_RATE);
	opt_try(fd, &rate, (int[]){-1, 1000000, INT_MIN, 5, 0}, 5);
	opt_lengths(fd, &rate);
	const unsigned long values[] = {1UL << 33, ~0UL, 4000000000UL, 12345};
	for (size_t i = 0; i < LENGTH(values); i++) {
		unsigned long told = 0;
		unsigned small = 0;
		socklen_t len = sizeof told, short_len = sizeof small;
		SHOW(setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &values[i], sizeof values[i]));
		getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &told, &len);
		getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &small, &short_len);
		SAY("%lu: %lu (%u), %u (%u)", values[i], told, len, small, short_len);
	}
}

CASE(identities, BOTH | BOTH6 | DATAGRAM)
{
	opt_begin(fd);
	struct { int pid, uid, gid; } peer = {7, 7, 7};
	unsigned long cookie = 0, again = 0;
	socklen_t len = sizeof peer;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len));
	SAY("%d %d %d (%u)", peer.pid, peer.uid, peer.gid, len);
	len = sizeof cookie;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len));
	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &again, &len);
	SAY("a cookie: %d, the same again: %d", cookie != 0, cookie == again);
	len = 4;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len));
	unsigned mem[9] = {0};
	for (socklen_t n = 0; n <= sizeof mem; n += 4) {
		len = n;
		int r = getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len);
		SAY("SO_MEMINFO %u: %s %u", n, r ? strerrorname_np(errno) : "ok", len);
	}
	int v = -1;
	len = sizeof v;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &v, &len));
	SAY("a processor: %d", v >= -1 && v < 1024);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_INCOMING_NAPI_ID, &v, &len));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len));
	char name[32];
	len = sizeof name;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len));
	SAY("(%u)", len);
	len = sizeof name;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, name, &len));
	len = sizeof name;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERSEC, name, &len));
}

CASE(peers_have_different_cookies, ALONE)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)); ct_connect(ct_here(0)));
	int a = accept(l, NULL, NULL), b = accept(l, NULL, NULL);
	unsigned long x = 0, y = 0, z = 0;
	socklen_t len = sizeof x;
	getsockopt(a, SOL_SOCKET, SO_COOKIE, &x, &len);
	getsockopt(b, SOL_SOCKET, SO_COOKIE, &y, &len);
	getsockopt(l, SOL_SOCKET, SO_COOKIE, &z, &len);
	SAY("%d %d %d", x != y, x != z, y != z);
}

CASE(the_peers_name, BOTH | BOTH6)
{
	struct sockaddr_storage a;
	memset(&a, 0, sizeof a);
	socklen_t len = ct_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &a, &len));
	ct_show_name("peer", &a, len);
	for (socklen_t n = 0; n < 40; n += 4) {
		len = n;
		int r = getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &a, &len);
		SAY("%u: %s %u", n, r ? strerrorname_np(errno) : "ok", len);
	}
}

CASE(what_no_listener_was_told_is_not_inherited, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), none = 0;
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &none, sizeof none);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	READ_ALL(s, flags);
	READ_ALL(s, numbers);
	READ_ALL(s, facts);
}

CASE(what_a_listener_was_told_is_inherited, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), v = 1, size = 33333;
	struct linger g = {1, 9};
	struct timeval t = {4, 500000};
	for (size_t i = 0; i < LENGTH(flags); i++) setsockopt(l, SOL_SOCKET, flags[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(numbers); i++) setsockopt(l, SOL_SOCKET, numbers[i].name, &v, sizeof v);
	setsockopt(l, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	setsockopt(l, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(l, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	setsockopt(l, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	READ_ALL(s, flags);
	READ_ALL(s, numbers);
	READ_ALL(s, facts);
	const struct opt sizes[] = {OPT(SOL_SOCKET, SO_SNDBUF), OPT(SOL_SOCKET, SO_RCVBUF)};
	READ_ALL(s, sizes);
	socklen_t len = sizeof g;
	getsockopt(s, SOL_SOCKET, SO_LINGER, &g, &len);
	SAY("linger %d %d", g.l_onoff, g.l_linger);
	memset(&t, 0, sizeof t), len = sizeof t;
	getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, &len);
	SAY("rcvtimeo %ld.%06ld", t.tv_sec, t.tv_usec);
	getsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, &len);
	SAY("sndtimeo %ld.%06ld", t.tv_sec, t.tv_usec);
	/* And a connection's own settings are no other's. */
	int off = 0;
	setsockopt(s, SOL_SOCKET, SO_BROADCAST, &off, sizeof off);
	PEER(ct_connect(ct_here(0)));
	int other = accept(l, NULL, NULL);
	opt_try(s, &flags[2], NULL, 0);
	opt_try(other, &flags[2], NULL, 0);
}

CASE(what_a_client_was_told_before_it_connected, ALONE | ALONE6)
{
	int s = ct_socket(SOCK_STREAM), v = 1;
	for (size_t i = 0; i < LENGTH(flags); i++) setsockopt(s, SOL_SOCKET, flags[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(numbers); i++) setsockopt(s, SOL_SOCKET, numbers[i].name, &v, sizeof v);
	struct timeval t = {4, 500000};
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address to = ct_there(1);
	SHOW(connect(s, AT(to)));
	READ_ALL(s, flags);
	READ_ALL(s, numbers);
	memset(&t, 0, sizeof t);
	socklen_t len = sizeof t;
	getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, &len);
	SAY("rcvtimeo %ld.%06ld", t.tv_sec, t.tv_usec);
}

CASE(options_of_a_connection_that_ended, BOTH)
{
	PEER(close(fd));
	SETTLE();
	TRY_ALL(fd, flags, 1, 0);
	struct linger g = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	SHOW(shutdown(fd, SHUT_RDWR));
	SETTLE();
	TRY_ALL(fd, flags, 1, 0);
	READ_ALL(fd, facts);
}

CASE(an_error_is_told_once, BOTH)
{
	PEER(struct linger g = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(fd));
	SETTLE();
	ct_show_error(fd);
	ct_show_error(fd);
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

static const struct opt foreign[] = {
	OPT(SOL_SOCKET, SO_MARK), OPT(SOL_SOCKET, SO_DONTROUTE), OPT(SOL_SOCKET, SO_PEEK_OFF), OPT(SOL_SOCKET, SO_TIMESTAMPING),
};

/* What only the kernel has: a socket that is given it before it is used is the kernel's. */
CASE(foreign_options_before_connecting, ALONE | KERNEL_ONLY)
{
	for (size_t i = 0; i < LENGTH(foreign); i++) {
		int s = ct_socket(SOCK_STREAM), v = 2;
		SHOW(setsockopt(s, SOL_SOCKET, foreign[i].name, &v, sizeof v));
		PEER(static int l; if (!l) ct_peer_fd = l = ct_listen(ct_there(1)));
		struct ct_address to = ct_there(1);
		SHOW(connect(s, AT(to)));
		opt_try(s, &foreign[i], NULL, 0);
		close(s);
	}
}

CASE(foreign_options_before_listening, ALONE | KERNEL_ONLY)
{
	struct ct_address here = ct_here(0);
	int s = ct_socket(SOCK_STREAM), v = 7;
	SHOW(setsockopt(s, SOL_SOCKET, SO_MARK, &v, sizeof v));
	SHOW(bind(s, AT(here)));
	SHOW(listen(s, 4));
	struct pollfd p = {s, POLLIN, 0};
	SHOW(poll(&p, 1, 0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int a = accept(s, NULL, NULL);
	opt_try(a, &foreign[0], NULL, 0);
}

CASE(foreign_options_of_datagrams, ALONE | KERNEL_ONLY)
{
	for (size_t i = 0; i < LENGTH(foreign); i++) {
		struct ct_address here = ct_here(2 + (int)i);
		int s = ct_socket(SOCK_DGRAM), v = 2;
		SHOW(setsockopt(s, SOL_SOCKET, foreign[i].name, &v, sizeof v));
		SHOW(bind(s, AT(here)));
		PEER_WITH(2 + (long)i, struct ct_address to = ct_here((int)arg); int p = ct_socket(SOCK_DGRAM);
		          sendto(p, "x", 1, 0, AT(to)); close(p));
		char b;
		SHOW(recv(s, &b, 1, 0));
		opt_try(s, &foreign[i], NULL, 0);
	}
}

/* On a connection they are refused; what changes nothing is not. */
CASE(foreign_options_of_connections, BOTH)
{
	for (size_t i = 0; i < LENGTH(foreign); i++) {
		int v = 0;
		socklen_t len = sizeof v;
		getsockopt(fd, SOL_SOCKET, foreign[i].name, &v, &len);
		printf("%s as it is: ", foreign[i].text);
		SHOW(setsockopt(fd, SOL_SOCKET, foreign[i].name, &v, sizeof v));
		opt_try(fd, &foreign[i], (int[]){2}, 1);
	}
}

/* A datagram socket in use sends by the kernel then, marks and all. */
CASE(marks_of_datagrams_in_use, CONNECTED | MIXED)
{
	opt_begin(fd);
	int v = 7;
	const struct opt mark = OPT(SOL_SOCKET, SO_MARK);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_MARK, &v, sizeof v));
	opt_try(fd, &mark, NULL, 0);
	SHOW(send(fd, "still", 5, 0));
	PEER(char b[8]; long n = recv(fd, b, 8, 0); ct_show_bytes("peer", b, n); fflush(stdout));
}

CASE(devices, ALONE)
{
	struct ct_address to = ct_there(1);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	int s = ct_socket(SOCK_STREAM);
	SHOW(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "nosuch", 6));
	SHOW(connect(s, AT(to)));
	char name[32];
	socklen_t len = sizeof name;
	SHOW(getsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, name, &len));
	SAY("(%u)", len);
	SHOW(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
}

CASE(another_device, ALONE | KERNEL_ONLY)
{
	struct ct_address to = ct_there(1);
	int s = ct_socket(SOCK_STREAM);
	SHOW(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
	fcntl(s, F_SETFL, O_NONBLOCK);
	SHOW(connect(s, AT(to)) < 0);
}

/* A filter on a listener is the kernel's business: it stays there. */
CASE(filters_before_listening, ALONE | KERNEL_ONLY)
{
	struct ct_address here = ct_here(0);
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
	struct sock_fprog program = {1, &all};
	int s = ct_socket(SOCK_STREAM), v = 1;
	SHOW(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
	SHOW(setsockopt(s, SOL_SOCKET, SO_DETACH_FILTER, &v, sizeof v));
	SHOW(setsockopt(s, SOL_SOCKET, SO_DETACH_FILTER, &v, sizeof v));
	SHOW(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
	SHOW(bind(s, AT(here)));
	SHOW(listen(s, 4));
	struct pollfd p = {s, POLLIN, 0};
	SHOW(poll(&p, 1, 0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	SHOW_OK(accept(s, NULL, NULL));
}

CASE(filters_of_connections, BOTH)
{
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
	struct sock_fprog program = {1, &all}, empty = {0, NULL};
	int v = 1;
	SHOW(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &v, sizeof v));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &empty, sizeof empty));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, 3));
}

/* Its connections could not have it. */
CASE(foreign_options_of_listeners_in_use, ALONE)
{
	int l = ct_listen(ct_here(0)), v = 2;
	SHOW(setsockopt(l, SOL_SOCKET, SO_MARK, &v, sizeof v));
	opt_try(l, &foreign[0], NULL, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	opt_try(s, &foreign[0], NULL, 0);
}

CASE(signals_of_data_before_connecting, ALONE)
{
	struct ct_address to = ct_there(1);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	int s = ct_socket(SOCK_STREAM);
	SHOW(fcntl(s, F_SETFL, O_ASYNC));
	SHOW(connect(s, AT(to)));
	SHOW((fcntl(s, F_GETFL) & O_ASYNC) != 0);
}
