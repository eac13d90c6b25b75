/* Signals of readiness: O_ASYNC and FIOASYNC, F_SETOWN, F_SETSIG. */
#include "opt.h"
#include <signal.h>

static volatile sig_atomic_t count, last_code, last_fd, last_band, codes;

static void on_signal(__attribute__((unused)) int n, siginfo_t *info, __attribute__((unused)) void *context)
{
	last_code = info->si_code;
	last_band = info->si_band;
	last_fd = info->si_fd;
	if (info->si_code > 0 && info->si_code < 8) codes |= 1 << info->si_code;
	count++;
}

static void watch(int fd, int number)
{
	struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGIO, &a, NULL);
	sigaction(SIGRTMIN + 3, &a, NULL);
	count = codes = 0;
	SHOW(fcntl(fd, F_SETOWN, getpid()));
	if (number) SHOW(fcntl(fd, F_SETSIG, number));
	SHOW(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
	SHOW((fcntl(fd, F_GETFL) & (O_ASYNC | O_NONBLOCK)) == (O_ASYNC | O_NONBLOCK));
}

/* Nobody is in a call on the socket when it comes. */
static void compute_past(int signals)
{
	for (long end = ct_now_ms() + 3000; count <= signals && ct_now_ms() < end;);
	ct_nap(20);
}

static void compute(void) { compute_past(0); }

static void show_signals(int fd)
{
	compute();
	SAY("signals: %s, last: code %d band %#x, of the socket: %d", count ? "yes" : "none", last_code, last_band, last_fd == fd);
	count = codes = 0;
}

CASE(data, BOTH | BOTH6 | DATAGRAM)
{
	char b[8];
	watch(fd, 0);
	PEER(send(fd, "one", 3, 0));
	compute();
	SAY("%d, code %d", count, last_code);
	SHOW(recv(fd, b, sizeof b, 0));
	SHOW(recv(fd, b, sizeof b, 0));
	PEER(send(fd, "two", 3, 0));
	compute_past(1);
	SAY("%d", count);
	SHOW(recv(fd, b, sizeof b, 0));
}

CASE(the_chosen_signal_tells_more, BOTH | DATAGRAM)
{
	char b[8];
	watch(fd, SIGRTMIN + 3);
	PEER(send(fd, "one", 3, 0));
	show_signals(fd);
	SHOW(recv(fd, b, sizeof b, 0));
}

CASE(so_does_sigio_when_chosen, BOTH)
{
	watch(fd, SIGIO);
	PEER(send(fd, "one", 3, 0));
	show_signals(fd);
}

CASE(without_an_owner_there_is_none, BOTH | DATAGRAM)
{
	char b[8];
	struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGIO, &a, NULL);
	SHOW(fcntl(fd, F_SETFL, O_ASYNC));
	PEER(send(fd, "one", 3, 0));
	SHOW(recv(fd, b, sizeof b, 0));
	SAY("%d", count);
}

CASE(it_ends, BOTH | DATAGRAM)
{
	int on = 1, off = 0;
	char b[8];
	watch(fd, 0);
	SHOW(ioctl(fd, FIOASYNC, &off));
	SHOW(fcntl(fd, F_GETFL) & O_ASYNC);
	PEER(send(fd, "one", 3, 0));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, 0));
	SAY("%d", count);
	SHOW(ioctl(fd, FIOASYNC, &on));
	PEER(send(fd, "two", 3, 0));
	compute();
	SAY("%d", count);
	SHOW(recv(fd, b, sizeof b, 0));
	SHOW(fcntl(fd, F_SETFL, 0));
	PEER(send(fd, "three", 5, 0));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, 0));
	SAY("%d", count);
	SHOW(fcntl(fd, F_SETFL, O_ASYNC));
	SHOW(fcntl(fd, F_SETOWN, 0));
	PEER(send(fd, "four", 4, 0));
	SETTLE();
	SHOW(recv(fd, b, sizeof b, 0));
	SAY("%d", count);
}

CASE(the_peers_end, BOTH)
{
	watch(fd, SIGRTMIN + 3);
	PEER(shutdown(fd, SHUT_WR));
	show_signals(fd);
}

CASE(the_end_both_ways, BOTH)
{
	watch(fd, SIGRTMIN + 3);
	SHOW(shutdown(fd, SHUT_WR));
	PEER(shutdown(fd, SHUT_WR));
	compute();
	SETTLE();
	SAY("the end was told of: %d", (codes >> POLL_HUP) & 1);
	show_signals(fd);
}

CASE(a_reset, BOTH)
{
	watch(fd, SIGRTMIN + 3);
	PEER(struct linger l = {1, 0}; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd));
	show_signals(fd);
}

CASE(room, BOTH)
{
	ct_keep_small(fd);
	watch(fd, SIGRTMIN + 3);
	long filled = ct_fill(fd);
	count = codes = 0;
	PEER_WITH(filled, ct_drain(fd, arg));
	compute();
	SAY("room was told of: %d", (codes >> POLL_OUT) & 1);
}

CASE(urgent_data, BOTH)
{
	struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGURG, &a, NULL);
	watch(fd, SIGRTMIN + 3);
	PEER(send(fd, "!", 1, MSG_OOB));
	compute();
	SETTLE();
	SAY("priority was told of: %d", (codes >> POLL_PRI) & 1);
}

CASE(a_datagrams_error, CONNECTED)
{
	watch(fd, SIGRTMIN + 3);
	PEER(close(fd));
	SHOW(send(fd, "x", 1, 0));
	show_signals(fd);
	ct_show_error(fd);
}

CASE(a_connection_to_accept, ALONE)
{
	int l = ct_listen(ct_here(0));
	watch(l, SIGRTMIN + 3);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	show_signals(l);
	SHOW_OK(accept(l, NULL, NULL));
}

CASE(a_connection_that_is_made, ALONE)
{
	PEER(ct_peer_fd = ct_listen(ct_there(0)));
	struct ct_address to = ct_there(0);
	int s = ct_socket(SOCK_STREAM);
	char b[8];
	watch(s, SIGRTMIN + 3);
	SHOW(connect(s, AT(to)));
	show_signals(s);
	PEER(int c = accept(fd, NULL, NULL); send(c, "hi", 2, 0));
	show_signals(s);
	SHOW(recv(s, b, sizeof b, 0));
}

CASE(it_waits_while_blocked, BOTH | DATAGRAM)
{
	sigset_t set, old;
	siginfo_t info;
	char b[8];
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	watch(fd, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &set, &old);
	PEER(send(fd, "one", 3, 0));
	SHOW(sigwaitinfo(&set, &info) == SIGRTMIN + 3);
	SAY("band %#lx, of the socket: %d", info.si_band, info.si_fd == fd);
	SHOW(recv(fd, b, sizeof b, 0));
	PEER(send(fd, "two", 3, 0));
	SETTLE();
	SAY("%d", count);
	sigprocmask(SIG_SETMASK, &old, NULL);
	SAY("%d", count);
}
