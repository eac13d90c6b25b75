/* IPPROTO_TCP: what each option is, takes, and tells, in every state of a connection. */
#include "opt.h"

/* netinet/tcp.h lacks these. */
enum { RTO_MAX_MS = 44, RTO_MIN_US = 45, DELACK_MAX_US = 46, IS_MPTCP = 43 };

static const struct opt flags[] = {
	OPT(IPPROTO_TCP, TCP_NODELAY), OPT(IPPROTO_TCP, TCP_CORK), OPT(IPPROTO_TCP, TCP_THIN_DUPACK),
	OPT(IPPROTO_TCP, TCP_INQ), OPT(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE), OPT(IPPROTO_TCP, TCP_SAVE_SYN),
	OPT(IPPROTO_TCP, TCP_FASTOPEN_CONNECT), OPT(IPPROTO_TCP, TCP_FASTOPEN),
};

static const struct opt numbers[] = {
	OPT(IPPROTO_TCP, TCP_KEEPIDLE), OPT(IPPROTO_TCP, TCP_KEEPINTVL), OPT(IPPROTO_TCP, TCP_KEEPCNT),
	OPT(IPPROTO_TCP, TCP_SYNCNT), OPT(IPPROTO_TCP, TCP_LINGER2), OPT(IPPROTO_TCP, TCP_DEFER_ACCEPT),
	OPT(IPPROTO_TCP, TCP_USER_TIMEOUT), OPT(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
};

static const struct opt facts[] = {
	OPT(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS), OPT(IPPROTO_TCP, TCP_REPAIR), OPT(IPPROTO_TCP, TCP_REPAIR_QUEUE),
	OPT(IPPROTO_TCP, TCP_QUEUE_SEQ), OPT(IPPROTO_TCP, TCP_REPAIR_OPTIONS),
	OPT(IPPROTO_TCP, TCP_SAVED_SYN), OPT(IPPROTO_TCP, TCP_ULP), OPT(IPPROTO_TCP, TCP_TX_DELAY),
	OPT(IPPROTO_TCP, TCP_MD5SIG), OPT(IPPROTO_TCP, IS_MPTCP), OPT(IPPROTO_TCP, RTO_MAX_MS),
	OPT(IPPROTO_TCP, RTO_MIN_US), OPT(IPPROTO_TCP, DELACK_MAX_US), OPT(IPPROTO_TCP, TCP_FASTOPEN_KEY), OPT(IPPROTO_TCP, 9999),
};

CASE(flags, BOTH | BOTH6) { TRY_ALL(fd, flags, 1, 2, -1, 0); }

CASE(numbers, BOTH | CLIENT6) { TRY_ALL(fd, numbers, 1, 2, 30, 120, 121, 127, 128, 255, 256, 32767, 32768, 0, -1, 20000); }

CASE(facts, BOTH | BOTH6) { READ_ALL(fd, facts); }

CASE(lengths, BOTH)
{
	LENGTHS_ALL(fd, flags);
	LENGTHS_ALL(fd, numbers);
}

CASE(segments, BOTH | BOTH6)
{
	const struct opt mss = OPT(IPPROTO_TCP, TCP_MAXSEG), clamp = OPT(IPPROTO_TCP, TCP_WINDOW_CLAMP);
	opt_try(fd, &mss, (int[]){500, 88, 87, 32767, 32768, 0, -1}, 7);
	opt_lengths(fd, &mss);
	opt_try(fd, &clamp, (int[]){30000, 1, 100000, 0, -1}, 5);
	opt_lengths(fd, &clamp);
}

CASE(segments_are_capped_by_the_listener, ALONE | ALONE6)
{
	const struct opt mss = OPT(IPPROTO_TCP, TCP_MAXSEG);
	int l = ct_listen(ct_here(0)), v = 700;
	SHOW(setsockopt(l, IPPROTO_TCP, TCP_MAXSEG, &v, sizeof v));
	opt_try(l, &mss, NULL, 0);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	opt_try(s, &mss, NULL, 0);
}

CASE(quick_acknowledgements, BOTH)
{
	const struct opt quick = OPT(IPPROTO_TCP, TCP_QUICKACK);
	opt_set(fd, &quick, 0);
	opt_set(fd, &quick, 1);
	putchar('\n');
	opt_lengths(fd, &quick);
}

CASE(algorithms, BOTH)
{
	char name[32];
	const char *names[] = {"reno", "cubic", "nonsense", "", "averyveryverylongname"};
	for (size_t i = 0; i < LENGTH(names); i++) {
		socklen_t len = sizeof name;
		memset(name, 0, sizeof name);
		SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, names[i], strlen(names[i])));
		SHOW(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
		SAY("%s: %s (%u)", names[i], name, len);
	}
	for (socklen_t n = 0; n < 20; n += 3) {
		socklen_t len = n;
		memset(name, '.', sizeof name);
		int r = getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len);
		SAY("%u: %s %u", n, r ? strerrorname_np(errno) : "ok", len);
		ct_show_bytes("name", name, 20);
	}
}

CASE(facts_of_algorithms, BOTH)
{
	unsigned told[16];
	const char *names[] = {"reno", "cubic"};
	for (size_t i = 0; i < LENGTH(names); i++) {
		socklen_t len = sizeof told;
		SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, names[i], strlen(names[i])));
		SHOW(getsockopt(fd, IPPROTO_TCP, TCP_CC_INFO, told, &len));
		SAY("%s: %u octets", names[i], len);
	}
}

CASE(upper_layers, BOTH)
{
	char name[32];
	socklen_t len = sizeof name;
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "nonsense", 8));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "", 0));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len));
	SAY("(%u)", len);
	SHOW(send(fd, "still here", 10, 0));
	PEER(char b[10]; recv(fd, b, 10, MSG_WAITALL); ct_show_bytes("peer", b, 10));
}

CASE(what_is_for_repair_alone, BOTH)
{
	int v = 1;
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &v, sizeof v));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &v, sizeof v));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &v, sizeof v));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &v, sizeof v));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &v, sizeof v));
	SHOW(setsockopt(fd, IPPROTO_TCP, 9999, &v, sizeof v));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_INFO, NULL, NULL));
}

static void show_info(int fd)
{
	struct tcp_info i;
	socklen_t len = sizeof i;
	memset(&i, 0, sizeof i);
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len));
	SAY("%u octets, state %u, ca %u, retransmits %u, probes %u, backoff %u, options %u, wscales %u %u", len, i.tcpi_state,
	    i.tcpi_ca_state, i.tcpi_retransmits, i.tcpi_probes, i.tcpi_backoff, i.tcpi_options & ~8u, i.tcpi_snd_wscale,
	    i.tcpi_rcv_wscale);
	SAY("mss %u, unacked %u, sacked %u, lost %u, retrans %u, pmtu %u, advmss %u, reordering %u, total_retrans %u", i.tcpi_snd_mss,
	    i.tcpi_unacked, i.tcpi_sacked, i.tcpi_lost, i.tcpi_retrans, i.tcpi_pmtu, i.tcpi_advmss, i.tcpi_reordering,
	    i.tcpi_total_retrans);
}

/* Fields that netinet/tcp.h does not know, by where they are. */
static unsigned long field(const unsigned char *info, int at, int size)
{
	unsigned long v = 0;
	memcpy(&v, info + at, size);
	return v;
}

static void show_counts(int fd)
{
	unsigned char b[300];
	socklen_t len = sizeof b;
	memset(b, 0, sizeof b);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, b, &len)) ct_die("TCP_INFO");
	SAY("%u octets; acked %lu, received %lu, sent %lu, notsent %lu, retrans %lu", len, field(b, 120, 8), field(b, 128, 8),
	    field(b, 200, 8), field(b, 144, 4), field(b, 208, 8));
	SAY("delivered %lu, ce %lu, dsacks %lu, reordered %lu, out of order %lu, rehash %lu, timeouts %lu %lu %lu", field(b, 192, 4),
	    field(b, 196, 4), field(b, 216, 4), field(b, 220, 4), field(b, 224, 4), field(b, 236, 4), field(b, 240, 2),
	    field(b, 242, 2), field(b, 244, 4));
}

CASE(info_of_a_quiet_connection, BOTH | BOTH6)
{
	show_info(fd);
	show_counts(fd);
}

CASE(info_after_some_data, BOTH)
{
	char b[3000] = {0};
	for (int i = 0; i < 3; i++) {
		SHOW(send(fd, b, 100, 0));
		PEER(char b[100]; recv(fd, b, 100, MSG_WAITALL); send(fd, b, 10, 0));
		SHOW(recv(fd, b, 10, MSG_WAITALL));
	}
	SETTLE();
	ct_nap(60);
	show_info(fd);
	show_counts(fd);
	shutdown(fd, SHUT_WR);
	PEER(char b[1]; recv(fd, b, 1, 0); close(fd));
	SETTLE();
	show_counts(fd);
}

/* The peer takes nothing: its window held us up, most of the time. */
CASE(info_of_who_waits_for_a_window, BOTH)
{
	PEER(int v = 5000; setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
	static char b[200000];
	SHOW(send(fd, b, sizeof b, MSG_DONTWAIT) > 5000);
	ct_nap(300);
	unsigned char i[300];
	socklen_t len = sizeof i;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, i, &len);
	unsigned long busy = field(i, 168, 8), window = field(i, 176, 8), buffer = field(i, 184, 8);
	SAY("busy %d, for the window %d, for the buffer %d", busy > 250000 && busy < 600000, window > 200000 && window <= busy,
	    buffer > 100000);
}

CASE(info_of_a_busy_time_that_ended, BOTH)
{
	char b[10] = {0};
	SHOW(send(fd, b, 10, 0));
	ct_nap(100);
	unsigned char i[300];
	socklen_t len = sizeof i;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, i, &len);
	SAY("busy %d, for the window %lu, for the buffer %lu", field(i, 168, 8) < 60000, field(i, 176, 8), field(i, 184, 8));
}

CASE(info_by_length, BOTH)
{
	unsigned char b[400];
	for (int n = -1; n < 300; n += 23) {
		socklen_t len = (socklen_t)n;
		int r = getsockopt(fd, IPPROTO_TCP, TCP_INFO, b, &len);
		SAY("%d: %s %u", n, r ? strerrorname_np(errno) : "ok", len);
	}
}

CASE(what_a_listener_was_told_is_inherited, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), v = 1, n = 20;
	SHOW(setsockopt(l, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	for (size_t i = 0; i < LENGTH(flags) - 3; i++) setsockopt(l, IPPROTO_TCP, flags[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(numbers); i++)
		if (numbers[i].name != TCP_DEFER_ACCEPT) setsockopt(l, IPPROTO_TCP, numbers[i].name, &n, sizeof n);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	READ_ALL(s, flags);
	READ_ALL(s, numbers);
	READ_ALL(s, facts);
	char name[16] = {0};
	socklen_t len = sizeof name;
	getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len);
	SAY("%s", name);
}

CASE(what_a_client_was_told_before_it_connected, ALONE | ALONE6)
{
	int s = ct_socket(SOCK_STREAM), v = 1, n = 20;
	for (size_t i = 0; i < LENGTH(flags) - 3; i++) setsockopt(s, IPPROTO_TCP, flags[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(numbers); i++) setsockopt(s, IPPROTO_TCP, numbers[i].name, &n, sizeof n);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address to = ct_there(1);
	SHOW(connect(s, AT(to)));
	READ_ALL(s, flags);
	READ_ALL(s, numbers);
	READ_ALL(s, facts);
}

CASE(options_of_a_connection_that_ended, BOTH)
{
	PEER(close(fd));
	SETTLE();
	TRY_ALL(fd, flags, 1, 0);
	TRY_ALL(fd, numbers, 5, 40);
	SHOW(shutdown(fd, SHUT_RDWR));
	SETTLE();
	TRY_ALL(fd, flags, 1, 0);
	TRY_ALL(fd, numbers, 5, 40);
	READ_ALL(fd, facts);
}
