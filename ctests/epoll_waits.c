/* The wait itself: arguments, timeouts, signal masks. */
#include "watch.h"
#include <limits.h>

static volatile sig_atomic_t caught;

static void on_signal(int signal) { caught += signal == SIGUSR1 ? 1 : 100; }

static void catch_usr1(int flags)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = flags};
	sigaction(SIGUSR1, &a, NULL);
	caught = 0;
}

static sigset_t set_of(int signal)
{
	sigset_t s;
	sigemptyset(&s);
	if (signal) sigaddset(&s, signal);
	return s;
}

/* SIGUSR1 to the first thread, in a while. */
static pthread_t target;

static void *signal_later(void *unused)
{
	(void)unused;
	ct_nap(60);
	pthread_kill(target, SIGUSR1);
	return NULL;
}

static pthread_t signal_soon(void)
{
	pthread_t t;
	target = pthread_self();
	pthread_create(&t, NULL, signal_later, NULL);
	return t;
}

CASE(arguments, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1), file = open("/proc/self/exe", O_RDONLY);
	struct epoll_event e[4];
	volatile int many = INT_MAX / (int)sizeof *e, below_0 = -1, least = INT_MIN; /* the compiler would know better */
	SHOW(epoll_wait(ep, e, 0, 0));
	SHOW(epoll_wait(ep, e, below_0, 0));
	SHOW(epoll_wait(ep, e, least, 0));
	SHOW(epoll_wait(ep, e, many + 1, 0));
	SHOW(epoll_wait(-1, e, 4, 0));
	SHOW(epoll_wait(1000, e, 4, 0));
	SHOW(epoll_wait(fd, e, 4, 0));
	SHOW(epoll_wait(file, e, 4, 0));
	SHOW(epoll_wait(-1, e, 0, 0));
	SHOW(epoll_pwait(ep, e, 0, 0, NULL));
	SHOW(epoll_pwait(fd, e, 1, 0, NULL));
	struct timespec zero = {0, 0}, negative = {-1, 0}, large = {0, 1000000000}, below = {0, -1};
	SHOW(epoll_pwait2(ep, e, 4, &zero, NULL));
	SHOW(epoll_pwait2(ep, e, 0, &zero, NULL));
	SHOW(epoll_pwait2(ep, e, 4, &negative, NULL));
	SHOW(epoll_pwait2(ep, e, 4, &large, NULL));
	SHOW(epoll_pwait2(ep, e, 4, &below, NULL));
	SHOW(epoll_pwait2(-1, e, 4, &negative, NULL));
}

CASE(timeouts, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	struct epoll_event e[4];
	struct timespec t = {0, 60 * 1000 * 1000}, zero = {0, 0};
	TIMED(epoll_wait(ep, e, 4, 0), 0);
	TIMED(epoll_wait(ep, e, 4, 60), 60);
	TIMED(epoll_pwait(ep, e, 4, 60, NULL), 60);
	TIMED(epoll_pwait2(ep, e, 4, &t, NULL), 60);
	SAY("left alone: %ld", t.tv_nsec);
	TIMED(epoll_pwait2(ep, e, 4, &zero, NULL), 0);
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(epoll_pwait2(ep, e, 4, NULL, NULL), 60);
	PEER_WAIT();
	SHOW(drain(fd));
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(epoll_wait(ep, e, 4, -1), 60);
	PEER_WAIT();
	TIMED(epoll_wait(ep, e, 4, INT_MAX), 0);
	SHOW(drain(fd));
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(epoll_wait(ep, e, 4, INT_MIN), 60);
	PEER_WAIT();
}

CASE(short_timeouts, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	struct epoll_event e[4];
	struct timespec begin, end, t = {0, 200 * 1000};
	int early = 0, late = 0;
	for (int i = 0; i < 50; i++) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		if (epoll_pwait2(ep, e, 4, &t, NULL)) ct_die("epoll_pwait2");
		clock_gettime(CLOCK_MONOTONIC, &end);
		long us = (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000;
		early += us < 200, late += us > 2000;
	}
	/* Half of them may be late: a machine that is busy wakes late. */
	SAY("50 waits of 200 us: %d early, %s", early, late <= 25 ? "about right" : "too long");
}

CASE(a_signal_ends_the_wait, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	struct epoll_event e[4];
	for (int restart = 0; restart < 2; restart++) {
		catch_usr1(restart ? SA_RESTART : 0);
		pthread_t t = signal_soon();
		TIMED(epoll_wait(ep, e, 4, 2000), 60);
		pthread_join(t, NULL);
		SAY("caught: %d", caught);
	}
}

CASE(a_mask_for_the_wait, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	struct epoll_event e[4];
	sigset_t blocked = set_of(SIGUSR1), open = set_of(0), now;
	catch_usr1(0);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	pthread_kill(pthread_self(), SIGUSR1);
	SHOW(epoll_pwait(ep, e, 4, 0, &open));
	SAY("caught: %d", caught);
	TIMED(epoll_pwait(ep, e, 4, 2000, &open), 0);
	SAY("caught: %d", caught);
	TIMED(epoll_pwait(ep, e, 4, 30, &open), 30);
	pthread_t t = signal_soon();
	TIMED(epoll_pwait2(ep, e, 4, &(struct timespec){2, 0}, &open), 60);
	pthread_join(t, NULL);
	SAY("caught: %d", caught);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	SAY("blocked again: %d", sigismember(&now, SIGUSR1));
	/* And the other way round: blocked for the wait alone. */
	pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
	t = signal_soon();
	TIMED(epoll_pwait(ep, e, 4, 150, &blocked), 150);
	pthread_join(t, NULL);
	SAY("caught: %d", caught);
}

CASE(a_mask_when_something_is_ready, BOTH)
{
	int ep = watch(fd, EPOLLIN, 1);
	struct epoll_event e[4];
	sigset_t blocked = set_of(SIGUSR1), open = set_of(0);
	catch_usr1(0);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	pthread_kill(pthread_self(), SIGUSR1);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	SHOW(epoll_pwait(ep, e, 4, 1000, &open));
	SAY("caught: %d", caught);
	struct pollfd p = {fd, POLLIN, 0};
	SHOW(ppoll(&p, 1, NULL, &open));
	SAY("caught: %d", caught);
}

static int shared_set;

static void *close_it(void *unused)
{
	(void)unused;
	ct_nap(60);
	close(shared_set);
	return NULL;
}

CASE(the_set_is_closed_meanwhile, BOTH)
{
	struct epoll_event e[4];
	pthread_t t;
	shared_set = watch(fd, EPOLLIN, 1);
	pthread_create(&t, NULL, close_it, NULL);
	TIMED(epoll_wait(shared_set, e, 4, 150), 150);
	pthread_join(t, NULL);
	SHOW(epoll_wait(shared_set, e, 4, 0));
}

static int changed_fd;
static void (*change)(void);

static void *change_later(void *unused)
{
	(void)unused;
	ct_nap(60);
	change();
	return NULL;
}

static void add_it(void) { add(shared_set, changed_fd, EPOLLIN, 1); }
static void enable_it(void) { mod(shared_set, changed_fd, EPOLLIN | EPOLLONESHOT, 2); }
static void delete_it(void) { del(shared_set, changed_fd); }
static void close_member(void) { close(changed_fd); }
static void shut_it(void) { shutdown(changed_fd, SHUT_RDWR); }

static void wait_while(void (*it)(void), int expected_ms)
{
	pthread_t t;
	change = it;
	pthread_create(&t, NULL, change_later, NULL);
	TIMED(show_wait(shared_set, 150), expected_ms);
	pthread_join(t, NULL);
}

CASE(changes_while_one_waits, BOTH)
{
	shared_set = epoll_create1(0), changed_fd = fd;
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	wait_while(add_it, 60);
	SHOW(mod(shared_set, fd, 0, 2));
	wait_while(enable_it, 60);
	wait_while(enable_it, 60);
	SHOW(mod(shared_set, fd, EPOLLPRI, 2));
	wait_while(delete_it, 150);
	SHOW(add(shared_set, fd, EPOLLPRI, 2));
	wait_while(shut_it, 60);
	ct_nap(100); /* the FIN is acknowledged, which is an edge */
	SHOW(mod(shared_set, fd, EPOLLPRI | EPOLLET, 2));
	show_wait(shared_set, 0);
	wait_while(close_member, 150);
}

CASE(first_member_while_one_waits_in_the_kernel, BOTH)
{
	int ev = eventfd(0, 0);
	shared_set = watch(ev, EPOLLIN, 7), changed_fd = fd;
	wait_while(add_it, 150);
	PEER_LATER(ct_nap(60); send(fd, "a", 1, 0));
	TIMED(show_wait(shared_set, 2000), 60);
	PEER_WAIT();
}

CASE(a_listener_is_shut_while_one_waits, ALONE)
{
	changed_fd = ct_listen(ct_here(1));
	shared_set = watch(changed_fd, EPOLLIN, 1);
	PEER(ct_connect(ct_here(1)));
	SHOW_OK(accept(changed_fd, 0, 0));
	wait_while(shut_it, 60);
	SHOW(listen(changed_fd, 5));
	show_wait(shared_set, 20);
	PEER(ct_connect(ct_here(1)));
	show_wait(shared_set, 1000);
	SHOW_OK(accept(changed_fd, 0, 0));
}
