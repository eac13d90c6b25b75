/* Handlers: what they are told, what sigaction reads back, faults of the application's own, jumps out of calls. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "handler.h"
#include <setjmp.h>

static int other = -1;
static sigjmp_buf out;

/* ---- what a handler is told ---- */

static volatile int values[256], value_count;
static void take_value(int s, siginfo_t *info, void *context)
{
	(void)s;
	(void)context;
	if (info->si_code == SI_QUEUE && value_count < 256) values[value_count++] = info->si_value.sival_int;
}

CASE(queued_signals_keep_order_and_values, BOTH)
{
	struct sigaction a = {.sa_sigaction = take_value, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGRTMIN + 3, &a, NULL);
	pid_t me = getpid();
	if (!fork()) {
		for (int i = 0; i < 200; i++) {
			union sigval v = {.sival_int = i};
			sigqueue(me, SIGRTMIN + 3, v);
		}
		_exit(0);
	}
	char b[16];
	PEER_LATER(char c[16]; for (int i = 0; i < 2000; i++) if (recv(fd, c, 16, MSG_WAITALL) != 16 || send(fd, c, 16, 0) != 16) _exit(1));
	int rounds = 0;
	for (; rounds < 2000; rounds++)
		if (send(fd, "sixteen bytes...", 16, 0) != 16 || recv(fd, b, 16, MSG_WAITALL) != 16) break;
	SHOW(rounds);
	wait(NULL);
	SHOW(value_count);
	int in_order = 1;
	for (int i = 0; i < value_count; i++) in_order &= values[i] == i;
	SHOW(in_order);
}

static char *stack_low, *stack_high;
static void where(int s)
{
	char here;
	ran = &here >= stack_low && &here < stack_high ? 1 : 2;
	(void)s;
}

CASE(a_handler_has_its_own_stack, BOTH)
{
	char b[8];
	stack_low = malloc(1 << 16);
	stack_high = stack_low + (1 << 16);
	stack_t s = {.ss_sp = stack_low, .ss_size = 1 << 16};
	sigaltstack(&s, NULL);
	install(SIGALRM, where, SA_ONSTACK);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	SHOW(ran);
	install(SIGALRM, where, 0);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	SHOW(ran);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

static volatile int had_mask;
static void show_mask(int s)
{
	sigset_t now;
	(void)s;
	sigprocmask(SIG_BLOCK, NULL, &now);
	had_mask = sigismember(&now, SIGALRM) * 4 + sigismember(&now, SIGUSR1) * 2 + sigismember(&now, SIGUSR2);
	ran++;
}

CASE(masks_of_handlers, BOTH)
{
	char b[8];
	struct sigaction a = {.sa_handler = show_mask};
	sigset_t now;
	sigemptyset(&a.sa_mask);
	sigaddset(&a.sa_mask, SIGUSR1);
	sigaction(SIGALRM, &a, NULL);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	SHOW(had_mask);
	a.sa_flags = SA_NODEFER;
	sigaction(SIGALRM, &a, NULL);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	SHOW(had_mask);
	sigprocmask(SIG_BLOCK, NULL, &now);
	SHOW(sigisemptyset(&now));
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

/* ---- what the application reads back ---- */

static void show_action(const char *what, int s)
{
	struct sigaction a;
	memset(&a, 0x55, sizeof a);
	int r = sigaction(s, NULL, &a);
	const char *who = a.sa_handler == SIG_DFL ? "default" : a.sa_handler == SIG_IGN ? "ignored" : a.sa_handler == count ? "count"
		: a.sa_sigaction == take_value ? "take_value" : "?";
	SAY("%s: %d %s flags %x mask %d%d%d", what, r, who, a.sa_flags, sigismember(&a.sa_mask, s), sigismember(&a.sa_mask, SIGUSR1),
		sigismember(&a.sa_mask, SIGUSR2));
}

CASE(actions_are_read_back, BOTH)
{
	char b[2];
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 1, 0));
	struct sigaction a = {.sa_sigaction = take_value, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	sigaddset(&a.sa_mask, SIGUSR2);
	for (int i = 0; i < 3; i++) {
		int s = i == 0 ? SIGALRM : i == 1 ? SIGSEGV : SIGBUS;
		show_action("at first", s);
		install(s, count, SA_RESTART);
		show_action("with restart", s);
		sigaction(s, &a, NULL);
		show_action("with information", s);
		SHOW(signal(s, count) == (void (*)(int))(void *)take_value);
		show_action("by signal()", s);
		SHOW(signal(s, SIG_IGN) == count);
		show_action("ignored", s);
		SHOW(signal(s, SIG_DFL) == SIG_IGN);
		show_action("default again", s);
	}
	SHOW(sigaction(SIGKILL, &a, NULL));
	SHOW(sigaction(0, &a, NULL));
	SHOW(sigaction(65, &a, NULL));
	SHOW(sigaction(32, &a, NULL));
	SHOW(signal(70, count) == SIG_ERR);
	SHOW(signal(SIGUSR1, SIG_ERR) == SIG_ERR);
	SHOW(siginterrupt(70, 1));
}

extern void (*sysv_signal(int, void (*)(int)))(int);
extern void (*bsd_signal(int, void (*)(int)))(int);


CASE(other_ways_to_install, BOTH)
{
	char b[8];
	SHOW(bsd_signal(SIGALRM, count) == SIG_DFL);
	show_action("bsd_signal", SIGALRM);
	siginterrupt(SIGALRM, 1);
	show_action("siginterrupt", SIGALRM);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	signal(SIGALRM, count);
	show_action("signal after siginterrupt", SIGALRM);
	siginterrupt(SIGALRM, 0);
	show_action("siginterrupt off", SIGALRM);
	SHOW(sysv_signal(SIGALRM, count) == count);
	show_action("sysv_signal", SIGALRM);
	timer(50, 0);
	SHOW(recv(fd, b, 8, 0));
	show_action("once", SIGALRM);
	SHOW(ran);
	SHOW(sigset(SIGUSR1, count) == SIG_DFL);
	show_action("sigset", SIGUSR1);
	SHOW(sigset(SIGUSR1, SIG_HOLD) == count);
	raise(SIGUSR1);
	SHOW(ran);
	SHOW(sigset(SIGUSR1, count) == SIG_HOLD);
	SHOW(ran);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(a_handler_for_once, BOTH)
{
	char b[8];
	install(SIGUSR1, count, SA_RESETHAND | SA_RESTART);
	other = fd;
	raise(SIGUSR1);
	SHOW(ran);
	show_action("after it ran", SIGUSR1);
	pid_t child = fork();
	if (!child) {
		raise(SIGUSR1);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	SHOW(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(a_child_has_its_parents_handlers, BOTH)
{
	char b[8];
	install(SIGALRM, count, 0);
	pid_t child = fork();
	if (!child) {
		show_action("child", SIGALRM);
		timer(50, 0);
		SHOW(recv(fd, b, 8, 0));
		SHOW(ran);
		install(SIGALRM, SIG_DFL, 0);
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	show_action("parent", SIGALRM);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
}

CASE(a_program_begins_with_default_actions, BOTH)
{
	char b[8];
	install(SIGUSR1, count, 0);
	signal(SIGUSR2, SIG_IGN);
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
	SHOW(system("kill -USR2 $$; echo still here; kill -USR1 $$; echo not reached"));
	SHOW(system("kill -SEGV $$"));
}

/* ---- faults of the application's own ---- */

static void jump_out(int s)
{
	siglongjmp(out, s);
}

CASE(a_fault_of_its_own_has_its_handler, BOTH)
{
	char b[8];
	PEER(send(fd, "x", 1, 0));
	SHOW(recv(fd, b, 8, 0));
	install(SIGSEGV, jump_out, 0);
	for (int i = 0; i < 3; i++) {
		int s = sigsetjmp(out, 1);
		if (!s) *(volatile int *)16 = 1;
		SHOW(s == SIGSEGV);
	}
	signal(SIGSEGV, SIG_IGN);
	raise(SIGSEGV);
	SAY("ignored");
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		if (!child) {
			if (i) signal(SIGSEGV, SIG_DFL);
			*(volatile int *)16 = 1;
			_exit(0);
		}
		int status;
		waitpid(child, &status, 0);
		SHOW(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	if (!fork()) {
		signal(SIGSEGV, SIG_DFL);
		kill(getpid(), SIGSEGV);
		_exit(0);
	}
	int status;
	wait(&status);
	SHOW(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* ---- jumps out of calls ---- */

static void jump_on_alarm(int s)
{
	(void)s;
	siglongjmp(out, 1);
}

CASE(jumping_out_of_recv, BOTH | BOTH6)
{
	char b[8];
	volatile int jumps = 0;
	install(SIGALRM, jump_on_alarm, 0);
	for (volatile int i = 0; i < 60; i++) {
		timer(3, 0);
		if (sigsetjmp(out, 1)) jumps++;
		else recv(fd, b, sizeof b, 0);
	}
	SHOW(jumps);
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	TIMED(recv(fd, b, sizeof b, 0), 100);
}

CASE(jumping_out_of_waits, BOTH)
{
	char b[8];
	volatile int jumps = 0;
	struct pollfd p = {fd, POLLIN, 0};
	int ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	install(SIGALRM, jump_on_alarm, 0);
	for (volatile int i = 0; i < 60; i++) {
		timer(3, 0);
		if (sigsetjmp(out, 1)) jumps++;
		else if (i % 3 == 0) poll(&p, 1, -1);
		else if (i % 3 == 1) epoll_wait(ep, &e, 1, -1);
		else {
			fd_set s;
			FD_ZERO(&s);
			FD_SET(fd, &s);
			select(fd + 1, &s, NULL, NULL, NULL);
		}
	}
	SHOW(jumps);
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	TIMED(epoll_wait(ep, &e, 1, 1000), 100);
	SHOW(recv(fd, b, sizeof b, 0));
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	TIMED(poll(&p, 1, 1000), 100);
	SHOW(poll(&p, 1, 0));
}

CASE(jumping_out_at_any_moment, BOTH)
{
	/* A timer that is as long as a round trip: the jump leaves calls at all their places. */
	char b[16];
	volatile long jumps = 0;
	install(SIGALRM, jump_on_alarm, 0);
	PEER_LATER(char c[64]; long r; while ((r = recv(fd, c, sizeof c, 0)) > 0) if (send(fd, c, r, MSG_NOSIGNAL) != r) break; shutdown(fd, SHUT_WR));
	long t = ct_now_ms();
	while (ct_now_ms() - t < 700) {
		if (sigsetjmp(out, 1)) {
			jumps++;
			continue;
		}
		struct itimerval once = {{0, 0}, {0, 30 + jumps % 100}};
		setitimer(ITIMER_REAL, &once, NULL);
		for (;;) {
			send(fd, "x", 1, 0);
			recv(fd, b, 1, 0);
		}
	}
	timer(0, 0);
	signal(SIGALRM, SIG_IGN);
	SAY("jumps: %s", jumps > 20 ? "many" : "few");
	shutdown(fd, SHUT_WR);
	long r;
	while ((r = recv(fd, b, sizeof b, 0)) > 0) {}
	SHOW(r);
	PEER_WAIT();
}
