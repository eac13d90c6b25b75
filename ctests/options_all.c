/* Every number that could be an option, of every level that a socket has: what reading and setting it says. The families by level know what
 * options mean; this one finds what nobody thought of. */
#include "opt.h"

static const int levels[] = {
	SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_RAW, 282 /* SOL_TLS */, 284 /* SOL_MPTCP */, -1, 9999,
};
enum { NAMES = 140, MULTICAST_TTL = 33, PROTOCOL = 52, TIMESTAMP = 24, ZEROCOPY_RECEIVE = 35, NETNS_COOKIE = 71 };

struct number {
	int level, name;
};

/* Told, but not the same twice, or not the same there. */
static const struct number left_out[] = {
	{SOL_SOCKET, SO_COOKIE}, {SOL_SOCKET, NETNS_COOKIE}, {SOL_SOCKET, SO_INCOMING_CPU}, {SOL_SOCKET, SO_PEERNAME},
	{IPPROTO_IP, PROTOCOL}, /* a port */
	{IPPROTO_TCP, TIMESTAMP},
	/* The kernel's depends on how it was built, and the algorithm (options_socket.c looks at what is set). */
	{SOL_SOCKET, SO_SNDBUF},
	/* Of who was accepted the SYN's, which mean nothing to a stream. */
	{IPPROTO_IP, MULTICAST_TTL}, {IPPROTO_IPV6, IPV6_MULTICAST_IF}, {IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
	/* Refused, as by a kernel without it. */
	{IPPROTO_TCP, ZEROCOPY_RECEIVE},
};

/* What a connection or a datagram socket in use refuses (docs/sockets.md; options_socket.c shows how), or what a setting before changes:
 * a filter's lock, the route that an MTU is of, a window. */
static const struct number not_set[] = {
	{SOL_SOCKET, SO_DONTROUTE}, {SOL_SOCKET, SO_DETACH_FILTER}, {SOL_SOCKET, SO_MARK}, {SOL_SOCKET, SO_TIMESTAMPING},
	{SOL_SOCKET, SO_PEEK_OFF}, {SOL_SOCKET, SO_ATTACH_BPF}, {SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF}, {SOL_SOCKET, 62 /* SO_BINDTOIFINDEX */},
	{SOL_SOCKET, 63 /* SO_TIMESTAMP_NEW */}, {SOL_SOCKET, 64 /* SO_TIMESTAMPNS_NEW */}, {SOL_SOCKET, 65 /* SO_TIMESTAMPING_NEW */},
	{SOL_SOCKET, 80 /* SO_DEVMEM_DONTNEED */},
	{IPPROTO_IP, IP_OPTIONS}, {IPPROTO_IP, IP_RECVOPTS}, {IPPROTO_IP, IP_RETOPTS}, {IPPROTO_IP, IP_MTU_DISCOVER}, {IPPROTO_IP, IP_RECVERR},
	{IPPROTO_IP, IP_MTU}, {IPPROTO_IP, IP_PASSSEC}, {IPPROTO_IP, IP_TRANSPARENT}, {IPPROTO_IP, IP_MINTTL},
	{IPPROTO_IP, 23 /* IP_CHECKSUM */}, {IPPROTO_IP, 25 /* IP_RECVFRAGSIZE */}, {IPPROTO_IP, 26 /* IP_RECVERR_RFC4884 */},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP}, {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS}, {IPPROTO_TCP, TCP_REPAIR},
	{IPPROTO_TCP, 33 /* TCP_FASTOPEN_KEY */}, {IPPROTO_TCP, 37 /* TCP_TX_DELAY */},
	{IPPROTO_UDP, 100 /* UDP_ENCAP */},
	{IPPROTO_IPV6, IPV6_2292PKTINFO}, {IPPROTO_IPV6, IPV6_2292HOPOPTS}, {IPPROTO_IPV6, IPV6_2292DSTOPTS}, {IPPROTO_IPV6, IPV6_2292RTHDR},
	{IPPROTO_IPV6, IPV6_2292HOPLIMIT}, {IPPROTO_IPV6, 11 /* IPV6_FLOWINFO */}, {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER}, {IPPROTO_IPV6, IPV6_MTU}, {IPPROTO_IPV6, IPV6_RECVERR},
	{IPPROTO_IPV6, 30 /* IPV6_ROUTER_ALERT_ISOLATE */}, {IPPROTO_IPV6, 31 /* IPV6_RECVERR_RFC4884 */}, {IPPROTO_IPV6, IPV6_PKTINFO},
	{IPPROTO_IPV6, IPV6_RECVHOPOPTS}, {IPPROTO_IPV6, IPV6_HOPOPTS}, {IPPROTO_IPV6, IPV6_RTHDRDSTOPTS}, {IPPROTO_IPV6, IPV6_RECVRTHDR},
	{IPPROTO_IPV6, IPV6_RECVDSTOPTS}, {IPPROTO_IPV6, IPV6_DSTOPTS}, {IPPROTO_IPV6, 73 /* IPV6_MINHOPCOUNT */},
	{IPPROTO_IPV6, IPV6_TRANSPARENT}, {IPPROTO_IPV6, 77 /* IPV6_RECVFRAGSIZE */},
};

static int is_among(const struct number *numbers, unsigned n, int level, int name)
{
	for (unsigned i = 0; i < n; i++)
		if (numbers[i].level == level && numbers[i].name == name) return 1;
	return 0;
}
#define IS_AMONG(numbers, level, name) is_among(numbers, LENGTH(numbers), level, name)

static void read_one(int fd, int level, int name, socklen_t len)
{
	unsigned char b[512];
	int v;
	memset(b, 0xee, sizeof b);
	int r = getsockopt(fd, level, name, b, &len);
	memcpy(&v, b, sizeof v);
	if (r) printf(" %s", strerrorname_np(errno));
	else printf(" %u:%d", len, v);
}

static void read_by_length(int fd, int level, int name)
{
	for (unsigned len = 0; len <= 512; len = len ? len * 2 : 1) read_one(fd, level, name, len);
}

/* Sets it to this and that, and back. */
static void set_values(int fd, int level, int name)
{
	static const int values[] = {0, 1, 2, -1, 77, 1 << 20};
	int before = 0;
	socklen_t len = sizeof before;
	int can_read = getsockopt(fd, level, name, &before, &len) == 0;
	for (unsigned i = 0; i < LENGTH(values); i++) {
		int r = setsockopt(fd, level, name, &values[i], sizeof values[i]);
		printf(" %s", r ? strerrorname_np(errno) : "ok");
		read_one(fd, level, name, 4);
	}
	if (can_read) setsockopt(fd, level, name, &before, len);
}

static void set_by_length(int fd, int level, int name)
{
	char zeroes[256] = {0};
	for (unsigned len = 0; len <= sizeof zeroes; len = len ? len * 2 : 1) {
		int r = setsockopt(fd, level, name, zeroes, len);
		printf(" %s", r ? strerrorname_np(errno) : "ok");
	}
}

static void do_all(int fd, void (*act)(int, int, int), const struct number *but, unsigned n)
{
	for (unsigned l = 0; l < LENGTH(levels); l++)
		for (int name = -1; name < NAMES; name++) {
			if (IS_AMONG(left_out, levels[l], name) || is_among(but, n, levels[l], name)) continue;
			printf("%d %d:", levels[l], name);
			act(fd, levels[l], name);
			putchar('\n');
		}
}

CASE(are_read, BOTH | BOTH6 | DATAGRAM | DATAGRAM6) { do_all(fd, read_by_length, NULL, 0); }

CASE(are_set, BOTH | BOTH6 | DATAGRAM | DATAGRAM6) { do_all(fd, set_values, not_set, LENGTH(not_set)); }

CASE(are_set_by_length, BOTH | BOTH6 | DATAGRAM | DATAGRAM6) { do_all(fd, set_by_length, not_set, LENGTH(not_set)); }
