/* Signals, for the cases about them: handlers that count, and how they are installed. */
#ifndef HANDLER_H
#define HANDLER_H
#include "ct.h"
#include <sys/time.h>

static volatile int ran, last;

static inline void count(int s)
{
	ran++;
	last = s;
}

static inline void install(int s, void (*handler)(int), int flags)
{
	struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
	sigemptyset(&a.sa_mask);
	if (sigaction(s, &a, NULL)) ct_die("sigaction");
}

/* SIGALRM after `ms`, and then every `every_us`. */
static inline void timer(int ms, int every_us)
{
	struct itimerval t = {{every_us / 1000000, every_us % 1000000}, {ms / 1000, ms % 1000 * 1000}};
	setitimer(ITIMER_REAL, &t, NULL);
}

#endif
