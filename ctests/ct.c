/* The frame of a parity program: `PROGRAM --list`, `PROGRAM CASE SIDE`, and `PROGRAM --peer SIDE`, all started by run.py.
 *
 * CT_HERE, CT_THERE and their 6 forms are the addresses of the process under test and of the peer, CT_PORT the first of eight
 * ports. Two descriptors join both processes: CT_CONTROL carries steps and answers, CT_STEPS the tokens of tell and wait. */
#include "ct.h"
#include <linux/filter.h>
#include <sys/prctl.h>

int ct_family = AF_INET, ct_is_server, ct_peer_fd = -1;
static struct ct_case *cases, **last_case = &cases;
static int control = -1, steps = -1, owed, is_peer;

struct order {
	long offset, arg; /* of the function, from ct_register */
};

void ct_register(struct ct_case *c)
{
	*last_case = c;
	last_case = &c->next;
}

/* ---- printing ---- */

void ct_die(const char *what)
{
	printf("FATAL %s%s: %s\n", is_peer ? "peer: " : "", what, strerrorname_np(errno));
	fflush(stdout);
	_exit(3);
}

long ct_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void ct_show_time(long took_ms, long wanted_ms)
{
	/* A machine that is busy wakes late, and so begins late to measure; nothing may be early. */
	if (took_ms < wanted_ms - wanted_ms / 3) SAY("  after %ld ms, before %ld", took_ms, wanted_ms);
	else if (took_ms > wanted_ms + wanted_ms / 2 + 150) SAY("  after %ld ms, long after %ld", took_ms, wanted_ms);
	else SAY("  after %ld ms", wanted_ms);
}

void ct_show_bytes(const char *what, const void *bytes, long len)
{
	printf("%s: \"", what);
	for (const unsigned char *c = bytes; len-- > 0; c++) printf(*c >= 32 && *c < 127 ? "%c" : "\\x%02x", *c);
	SAY("\"");
}

void ct_show_poll(int fd, short events, int timeout_ms)
{
	static const struct { short bit; const char *name; } names[] = {
		{POLLIN, "IN"}, {POLLPRI, "PRI"}, {POLLOUT, "OUT"}, {POLLERR, "ERR"}, {POLLHUP, "HUP"}, {POLLNVAL, "NVAL"},
		{POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"}, {POLLWRNORM, "WRNORM"}, {POLLWRBAND, "WRBAND"}, {POLLRDHUP, "RDHUP"},
	};
	struct pollfd p = {fd, events, 0};
	int n = poll(&p, 1, timeout_ms);
	printf("poll: %d", n);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (p.revents & names[i].bit) printf(" %s", names[i].name);
	SAY("%s", "");
}

void ct_show_error(int fd)
{
	int error = -1;
	socklen_t len = sizeof error;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len)) SAY("SO_ERROR: getsockopt says %s", strerrorname_np(errno));
	else SAY("SO_ERROR: %s", error ? strerrorname_np(error) : "0");
}

void ct_show_name(const char *what, const void *address, socklen_t len)
{
	struct ct_address a = {.all = {0}}, h = ct_here(0), t = ct_there(0);
	memcpy(&a, address, len < sizeof a.all ? len : sizeof a.all);
	int v6 = a.a.sa_family == AF_INET6, port = ntohs(v6 ? a.v6.sin6_port : a.v4.sin_port);
	unsigned char *ip = v6 ? a.v6.sin6_addr.s6_addr : (unsigned char *)&a.v4.sin_addr;
	char text[64] = "?";
	inet_ntop(a.a.sa_family, ip, text, sizeof text);
	const char *where = text;
	unsigned char *of_here = h.a.sa_family == AF_INET6 ? h.v6.sin6_addr.s6_addr : (unsigned char *)&h.v4.sin_addr;
	unsigned char *of_there = t.a.sa_family == AF_INET6 ? t.v6.sin6_addr.s6_addr : (unsigned char *)&t.v4.sin_addr;
	if (a.a.sa_family == h.a.sa_family && !memcmp(ip, of_here, v6 ? 16 : 4)) where = "here";
	if (a.a.sa_family == t.a.sa_family && !memcmp(ip, of_there, v6 ? 16 : 4)) where = "there";
	printf("%s: family %d, length %u, %s", what, a.a.sa_family, len, where);
	if (port >= ct_port(0) && port < ct_port(8)) SAY(", port +%d", port - ct_port(0));
	else SAY(", %s", port ? "some port" : "no port");
}

/* ---- addresses ---- */

static struct ct_address address(const char *variable, int port)
{
	struct ct_address a = {.all = {0}};
	char name[32];
	snprintf(name, sizeof name, "%s%s", variable, ct_family == AF_INET6 ? "6" : "");
	const char *text = getenv(name);
	a.a.sa_family = ct_family;
	if (ct_family == AF_INET6) {
		inet_pton(AF_INET6, text ? text : "::1", &a.v6.sin6_addr);
		a.v6.sin6_port = htons(ct_port(port));
		a.len = sizeof a.v6;
	} else {
		inet_pton(AF_INET, text ? text : "127.0.0.1", &a.v4.sin_addr);
		a.v4.sin_port = htons(ct_port(port));
		a.len = sizeof a.v4;
	}
	return a;
}

struct ct_address ct_here(int port) { return address("CT_HERE", port); }
struct ct_address ct_there(int port) { return address("CT_THERE", port); }

struct ct_address ct_beyond(int how)
{
	struct ct_address a = ct_there(0);
	inet_pton(ct_family, ct_family == AF_INET6 ? "fd78::" : "10.78.0.0",
		  ct_family == AF_INET6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr);
	((unsigned char *)(ct_family == AF_INET6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr))[ct_family == AF_INET6 ? 15 : 3] = how;
	return a;
}

int ct_port(int n)
{
	const char *text = getenv("CT_PORT");
	return (text ? atoi(text) : 7100) + n;
}

int ct_socket(int type) { return socket(ct_family, type, 0); }

int ct_listen(struct ct_address at)
{
	int fd = ct_socket(SOCK_STREAM), one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* A process of the case before may be about to end, and has the port yet. */
	for (int tries = 0; bind(fd, AT(at)) || listen(fd, 16); tries++) {
		if (errno != EADDRINUSE || tries == 100) ct_die("listen");
		close(fd);
		ct_nap(20);
		fd = ct_socket(SOCK_STREAM);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	}
	/* The first look joins the port's group: connections before it would go to the kernel. */
	struct pollfd p = {fd, POLLIN, 0};
	poll(&p, 1, 0);
	return fd;
}

int ct_connect(struct ct_address to)
{
	int fd = ct_socket(SOCK_STREAM);
	if (connect(fd, AT(to))) ct_die("connect");
	return fd;
}

static void ct_tour(void);

/* ---- the peer ---- */

/* The program has two processes; a function is at the same distance from this one in both. */
static long place_of(void (*step)(int, long)) { return (char *)step - (char *)ct_register; }

void ct_peer_run(void (*step)(int fd, long arg), long arg, int later)
{
	ct_peer_wait();
	struct order order = {place_of(step), arg};
	fflush(stdout);
	if (write(control, &order, sizeof order) != sizeof order) ct_die("order");
	owed = 1;
	if (!later) ct_peer_wait();
}

void ct_peer_wait(void)
{
	char done;
	errno = 0;
	if (owed && read(control, &done, 1) != 1 && errno != EBADF) { /* the case may have closed all it has */
		SAY("the peer ended early");
		_exit(3);
	}
	/* What it sent last is still under way, perhaps. */
	if (owed) ct_nap(2), ct_tour();
	owed = 0;
}

static void obey(void)
{
	struct order order;
	is_peer = 1;
	while (read(control, &order, sizeof order) == sizeof order) {
		((void (*)(int, long))((char *)ct_register + order.offset))(ct_peer_fd, order.arg);
		fflush(stdout);
		if (send(control, "x", 1, MSG_NOSIGNAL) != 1) return;
	}
}

void ct_tell(void)
{
	if (write(steps, "x", 1) != 1) ct_die("tell");
}

void ct_wait(void)
{
	char c;
	if (read(steps, &c, 1) != 1) exit(4);
}

void ct_nap(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&t, &t) && errno == EINTR) {}
}

/* Runs on every processor once. Where somebody else has one for a while (a hypervisor has), what is under way there waits too. */
static void ct_tour(void)
{
	cpu_set_t usual, one;
	if (sched_getaffinity(0, sizeof usual, &usual)) return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &usual)) continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof one, &one);
	}
	sched_setaffinity(0, sizeof usual, &usual);
}

void ct_settle(void)
{
	ct_nap(20);
	ct_tour();
	ct_nap(10);
}

static unsigned char pattern(long i) { return (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 16) * 5); }

void ct_send_all(int fd, long n)
{
	unsigned char b[8192];
	for (long at = 0, sent; at < n; at += sent) {
		long part = n - at < (long)sizeof b ? n - at : (long)sizeof b;
		for (long i = 0; i < part; i++) b[i] = pattern(at + i);
		if ((sent = send(fd, b, part, MSG_NOSIGNAL)) < 0) {
			SAY("%ssend_all: %s", is_peer ? "peer's " : "", strerrorname_np(errno));
			return;
		}
	}
}

long ct_recv_all(int fd, long n)
{
	unsigned char b[8192];
	for (long at = 0, got; ; at += got) {
		if (at == n) return n;
		got = recv(fd, b, n - at < (long)sizeof b ? n - at : (long)sizeof b, 0);
		if (got <= 0) return at;
		for (long i = 0; i < got; i++)
			if (b[i] != pattern(at + i)) return -(at + i);
	}
}

long ct_fill(int fd)
{
	static char b[65536];
	long sent = 0, n;
	for (int quiet = 0; quiet < 3; ct_nap(40), quiet++)
		while ((n = send(fd, b, sizeof b, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) sent += n, quiet = 0;
	return sent;
}

void ct_drain(int fd, long n)
{
	static char b[65536];
	long got = 1;
	while (n > 0 && (got = recv(fd, b, n < (long)sizeof b ? n : (long)sizeof b, 0)) > 0) n -= got;
}

void ct_keep_small(int fd)
{
	int n = 8192;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
}

void ct_go_deaf(int fd)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {1, &nothing};
	struct linger g = {1, 0}; /* it leaves nothing that would go on asking after the case */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &g, sizeof g);
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) ct_die("SO_ATTACH_FILTER");
}

/* ---- the pair that a case begins with ---- */

static void peer_connects(__attribute__((unused)) int fd, __attribute__((unused)) long arg)
{
	ct_peer_fd = ct_connect(ct_here(0));
}

static int peers_listener;
static void peer_listens(__attribute__((unused)) int fd, __attribute__((unused)) long arg)
{
	peers_listener = ct_listen(ct_there(0));
}

static void peer_accepts(__attribute__((unused)) int fd, __attribute__((unused)) long arg)
{
	if ((ct_peer_fd = accept(peers_listener, NULL, NULL)) < 0) ct_die("accept");
	close(peers_listener);
}

static void peer_binds(__attribute__((unused)) int fd, long to_here)
{
	struct ct_address at = ct_there(0), to = ct_here(0);
	ct_peer_fd = ct_socket(SOCK_DGRAM);
	if (bind(ct_peer_fd, AT(at)) || (to_here && connect(ct_peer_fd, AT(to)))) ct_die("bind");
}

static void peer_answers(int fd, __attribute__((unused)) long arg)
{
	struct ct_address from = {.len = sizeof from.all};
	char b[16];
	if (recvfrom(fd, b, sizeof b, 0, &from.a, &from.len) < 0 || connect(fd, AT(from))) ct_die("recvfrom");
	if (send(fd, "hello", 5, 0) != 5) ct_die("send");
}

static void peer_greets(int fd, __attribute__((unused)) long arg)
{
	if (send(fd, "hello", 5, 0) != 5) ct_die("send");
}

static int stream_pair(void)
{
	int fd;
	if (ct_is_server) {
		int l = ct_listen(ct_here(0));
		ct_peer_run(peer_connects, 0, 1);
		if ((fd = accept(l, NULL, NULL)) < 0) ct_die("accept");
		ct_peer_wait();
		close(l);
	} else {
		ct_peer_run(peer_listens, 0, 0);
		fd = ct_connect(ct_there(0));
		ct_peer_run(peer_accepts, 0, 0);
	}
	return fd;
}

static int datagram_pair(void)
{
	struct ct_address at = ct_here(0), to = ct_there(0);
	int fd = ct_socket(SOCK_DGRAM);
	char b[16];
	ct_peer_run(peer_binds, ct_is_server, 0);
	if (ct_is_server) {
		if (bind(fd, AT(at))) ct_die("bind");
		recv(fd, b, sizeof b, MSG_DONTWAIT); /* the first look */
		ct_peer_run(peer_greets, 0, 0);
	} else {
		if (connect(fd, AT(to)) || send(fd, "hello", 5, 0) != 5) ct_die("connect");
		ct_peer_run(peer_answers, 0, 0);
	}
	if (recv(fd, b, sizeof b, 0) != 5) ct_die("recv");
	return fd;
}

/* ---- main ---- */

static const struct { const char *name; unsigned bit; int family, is_server; } sides[] = {
	{"server", SERVER, AF_INET, 1}, {"client", CLIENT, AF_INET, 0}, {"server6", SERVER6, AF_INET6, 1}, {"client6", CLIENT6, AF_INET6, 0},
	{"bound", BOUND, AF_INET, 1}, {"connected", CONNECTED, AF_INET, 0},
	{"bound6", BOUND6, AF_INET6, 1}, {"connected6", CONNECTED6, AF_INET6, 0},
	{"alone", ALONE, AF_INET, 0}, {"alone6", ALONE6, AF_INET6, 0},
};
enum { SIDES = sizeof sides / sizeof *sides };

static int list(void)
{
	for (struct ct_case *c = cases; c; c = c->next)
		for (int i = 0; i < SIDES; i++)
			if (c->sides & sides[i].bit)
				printf("%s %s %s\n", c->name, sides[i].name,
				       c->sides & KERNEL_ONLY ? "kernel_only" : c->sides & MIXED ? "mixed" : "user_stack");
	return 0;
}

/* Out of the way of the numbers that a case sees. */
static int move_up(const char *variable)
{
	const char *text = getenv(variable);
	int old = text ? atoi(text) : -1, fd = fcntl(old, F_DUPFD_CLOEXEC, 900);
	if (fd < 0) ct_die(variable);
	close(old);
	return fd;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--list")) return list();
	if (argc != 3) return fprintf(stderr, "usage: %s --list | CASE SIDE (by run.py)\n", argv[0]), 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	unsigned bit = 0;
	for (int i = 0; i < SIDES; i++)
		if (!strcmp(argv[2], sides[i].name)) bit = sides[i].bit, ct_family = sides[i].family, ct_is_server = sides[i].is_server;
	control = move_up("CT_CONTROL"), steps = move_up("CT_STEPS");
	if (!strcmp(argv[1], "--peer")) return obey(), 0;
	struct ct_case *c = cases;
	while (c && strcmp(c->name, argv[1])) c = c->next;
	if (!c || !(c->sides & bit)) return fprintf(stderr, "no such case or side\n"), 2;
	int fd = bit & (BOTH | BOTH6) ? stream_pair() : bit & (DATAGRAM | DATAGRAM6) ? datagram_pair() : -1;
	c->run(fd);
	/* The peer ends first: what it still had to say is then behind us. */
	ct_peer_wait();
	shutdown(control, SHUT_WR);
	while (read(control, &(char){0}, 1) > 0) {}
	return 0;
}
