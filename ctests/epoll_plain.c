/* Waits at a set that has descriptors of the kernel's alone, by threads that did so before; and what calls them out of there. */
#include "watch.h"
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/time.h>

static int the_set, the_socket, the_event;

/* A set with an eventfd, at which this thread has waited once. */
static int known_set(void)
{
	the_event = eventfd(0, EFD_NONBLOCK);
	the_set = watch(the_event, EPOLLIN, 7);
	show_wait(the_set, 0);
	return the_set;
}

static void *add_socket(void *unused)
{
	(void)unused;
	ct_nap(60);
	if (add(the_set, the_socket, EPOLLIN, 1)) SAY("add: %s", strerrorname_np(errno));
	return NULL;
}

static pthread_t add_soon(int fd)
{
	pthread_t t;
	the_socket = fd;
	pthread_create(&t, NULL, add_socket, NULL);
	return t;
}

static long cpu_ms(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

/* A wait in vain, which sleeps. */
static void show_sleep(int ep)
{
	long before = cpu_ms();
	TIMED(show_wait(ep, 200), 200);
	SAY("%s", cpu_ms() - before < 100 ? "asleep" : "busy");
}

CASE(first_socket_in_the_midst_of_a_wait, BOTH)
{
	known_set();
	pthread_t t = add_soon(fd);
	TIMED(show_wait(the_set, 200), 200);
	pthread_join(t, NULL);
	show_sleep(the_set);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait(the_set, 1000);
}

CASE(first_socket_with_a_mask, BOTH)
{
	sigset_t none;
	struct epoll_event e[4];
	sigemptyset(&none);
	known_set();
	SHOW(epoll_pwait(the_set, e, 4, 0, &none));
	pthread_t t = add_soon(fd);
	TIMED(epoll_pwait(the_set, e, 4, 200, &none), 200);
	pthread_join(t, NULL);
	show_sleep(the_set);
}

CASE(first_socket_is_ready, BOTH)
{
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	known_set();
	pthread_t t = add_soon(fd);
	TIMED(show_wait(the_set, -1), 60);
	pthread_join(t, NULL);
}

CASE(first_socket_and_an_event_of_the_kernels, BOTH)
{
	known_set();
	pthread_t t = add_soon(fd);
	PEER_LATER(ct_nap(150); send(fd, "a", 1, 0));
	TIMED(show_wait(the_set, -1), 150);
	pthread_join(t, NULL);
	PEER_WAIT();
	eventfd_write(the_event, 1);
	struct epoll_event e[4];
	SHOW(epoll_wait(the_set, e, 4, 1000));
}

CASE(first_socket_in_a_set_within, BOTH)
{
	int inner = epoll_create1(0), outer = watch(inner, EPOLLIN, 2), outermost = watch(outer, EPOLLIN, 3);
	show_wait(inner, 0);
	show_wait(outer, 0);
	show_wait(outermost, 0);
	the_set = inner;
	pthread_t t = add_soon(fd);
	PEER_LATER(ct_nap(150); send(fd, "a", 1, 0));
	TIMED(show_wait(outermost, 1000), 150);
	pthread_join(t, NULL);
	PEER_WAIT();
	SHOW(drain(fd));
	show_sleep(outer);
	show_sleep(outermost);
}

/* ---- several threads ---- */

static long woken, times_right;

static void *wait_twice(void *unused)
{
	struct epoll_event e[4];
	epoll_wait(the_set, e, 4, 0);
	long before = ct_now_ms();
	long n = epoll_wait(the_set, e, 4, 300), took = ct_now_ms() - before;
	__atomic_add_fetch(&woken, n == 1 && e[0].data.u64 == 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&times_right, took > 100 && took < 290, __ATOMIC_SEQ_CST);
	return unused;
}

CASE(first_socket_for_many, BOTH)
{
	pthread_t t[8], adder;
	known_set();
	woken = times_right = 0;
	for (int i = 0; i < 8; i++) pthread_create(&t[i], NULL, wait_twice, NULL);
	ct_nap(20);
	adder = add_soon(fd);
	PEER_LATER(ct_nap(160); send(fd, "a", 1, 0));
	for (int i = 0; i < 8; i++) pthread_join(t[i], NULL);
	pthread_join(adder, NULL);
	PEER_WAIT();
	SHOW(woken);
	SHOW(times_right);
	SHOW(drain(fd));
	show_sleep(the_set);
}

CASE(sets_made_and_closed, BOTH)
{
	struct epoll_event e[4];
	long wrong = 0;
	for (int i = 0; i < 200; i++) {
		int event = eventfd(1, EFD_NONBLOCK), ep = watch(event, EPOLLIN, i);
		wrong += epoll_wait(ep, e, 4, -1) != 1 || e[0].data.u64 != (unsigned)i;
		if (i % 2) {
			wrong += add(ep, fd, EPOLLOUT, 5000) != 0;
			ct_nap(1); /* both halves are looked at: as show_wait_mixed */
		}
		wrong += epoll_wait(ep, e, 4, -1) != 1 + i % 2;
		close(ep);
		close(event);
	}
	SHOW(wrong);
}

/* ---- handlers ---- */

static sigjmp_buf place;

static void jump(int signal) { siglongjmp(place, signal); }

static void alarm_in(int ms)
{
	struct itimerval t = {{0, 0}, {0, ms * 1000}};
	setitimer(ITIMER_REAL, &t, NULL);
}

CASE(a_handler_jumps_out, BOTH)
{
	known_set();
	signal(SIGALRM, jump);
	if (!sigsetjmp(place, 1)) {
		alarm_in(50);
		show_wait(the_set, -1);
	}
	SAY("out of it");
	SHOW(add(the_set, fd, EPOLLIN, 1));
	show_sleep(the_set);
}

static void add_in_handler(int signal)
{
	(void)signal;
	add(the_set, the_socket, EPOLLIN, 1);
}

CASE(a_handler_adds_the_first_socket, BOTH)
{
	known_set();
	the_socket = fd;
	signal(SIGALRM, add_in_handler);
	alarm_in(50);
	TIMED(show_wait(the_set, -1), 50);
	PEER(send(fd, "a", 1, 0));
	SETTLE();
	show_wait(the_set, 1000);
	SHOW(drain(fd));
	show_sleep(the_set);
}

static volatile long handled;

static void wait_in_handler(int signal)
{
	struct epoll_event e[4];
	handled += epoll_wait(the_set, e, 4, 0) == 0 && signal == SIGALRM;
}

CASE(a_handler_waits_too, BOTH)
{
	struct epoll_event e[4];
	known_set();
	handled = 0;
	struct sigaction a = {.sa_handler = wait_in_handler, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &a, NULL);
	long other_results = 0, slow = 0;
	for (int i = 0; i < 600; i++) {
		struct itimerval t = {{0, 60000}, {0, 20 + i % 97 * 3}};
		setitimer(ITIMER_REAL, &t, NULL);
		long before = ct_now_ms();
		if (epoll_wait(the_set, e, 4, 500) != -1 || errno != EINTR) other_results++;
		if (ct_now_ms() - before > 30) slow++;
	}
	alarm_in(0);
	SHOW(other_results);
	SAY("slow: %s; handlers ran: %s", slow < 100 ? "few" : "many", handled >= 600 ? "all" : "not all");
	pthread_t t = add_soon(fd);
	TIMED(show_wait(the_set, 200), 200);
	pthread_join(t, NULL);
	show_sleep(the_set);
}

/* ---- cancellation ---- */

static int how;

static void *cancelled_here(void *unused)
{
	struct epoll_event e[4];
	pthread_setcanceltype(how == 2 ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED, NULL);
	epoll_wait(the_set, e, 4, 0);
	if (how == 1) pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	long before = ct_now_ms(), n = epoll_wait(the_set, e, 4, how == 1 ? 150 : -1);
	SAY("came back with %ld", n);
	ct_show_time(ct_now_ms() - before, 150);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	epoll_wait(the_set, e, 4, -1);
	return unused;
}

CASE(cancelled, BOTH)
{
	known_set();
	for (how = 0; how < 3; how++) {
		pthread_t t;
		void *end;
		pthread_create(&t, NULL, cancelled_here, NULL);
		ct_nap(60);
		SHOW(pthread_cancel(t));
		pthread_join(t, &end);
		SHOW(end == PTHREAD_CANCELED);
	}
	SHOW(add(the_set, fd, EPOLLIN, 1));
	show_sleep(the_set);
}

/* ---- a child ---- */

CASE(a_child_waits_at_its_own, BOTH)
{
	known_set();
	pthread_t t = add_soon(fd);
	pid_t child = fork();
	if (child == 0) {
		struct epoll_event e[4];
		int own = watch(the_event, EPOLLIN, 9);
		long before = ct_now_ms();
		int wrong = epoll_wait(own, e, 4, 0) != 0 || epoll_wait(own, e, 4, 150) != 0 || ct_now_ms() - before < 140;
		_exit(wrong);
	}
	int status = -1;
	TIMED(show_wait(the_set, 200), 200);
	waitpid(child, &status, 0);
	SHOW(status);
	pthread_join(t, NULL);
	show_sleep(the_set);
}
