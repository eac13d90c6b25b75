/* waits [threads]: nanoseconds of one wait at an eventfd that is always ready, the best of many rounds. Asked for threads, another one
 * is there, asleep. A datagram socket is connected before, so that a shim has its device. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 40, CALLS = 20000 };

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int set, ready;
static struct pollfd asked;
static struct epoll_event event;
static const struct timespec second = {1, 0};

static int wait_for_ever(void) { return epoll_wait(set, &event, 1, -1); }
static int wait_some_time(void) { return epoll_wait(set, &event, 1, 1000); }
static int wait_not(void) { return epoll_wait(set, &event, 1, 0); }
static int wait_with_mask(void) { return epoll_pwait(set, &event, 1, -1, NULL); }
static int poll_it(void) { return poll(&asked, 1, -1); }
static int ppoll_it(void) { return ppoll(&asked, 1, &second, NULL); }

static int select_it(void)
{
	fd_set in;
	struct timeval time = {1, 0};
	FD_ZERO(&in);
	FD_SET(ready, &in);
	return select(ready + 1, &in, NULL, NULL, &time);
}

static int pselect_it(void)
{
	fd_set in;
	FD_ZERO(&in);
	FD_SET(ready, &in);
	return pselect(ready + 1, &in, NULL, NULL, &second, NULL);
}

static const struct {
	const char *name;
	int (*call)(void);
} calls[] = {
	{"epoll_wait(-1)", wait_for_ever}, {"epoll_wait(1000)", wait_some_time}, {"epoll_wait(0)", wait_not},
	{"epoll_pwait", wait_with_mask}, {"poll", poll_it}, {"ppoll", ppoll_it}, {"select", select_it}, {"pselect", pselect_it},
};

static void *sleep_on(void *nothing)
{
	pause();
	return nothing;
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = inet_addr("10.77.0.2")};
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	pthread_t other;
	if (connect(s, (struct sockaddr *)&there, sizeof there) != 0) return perror("connect"), 1;
	if (argc > 1 && strcmp(argv[1], "threads") == 0 && pthread_create(&other, NULL, sleep_on, NULL) != 0) return 1;
	set = epoll_create1(0), ready = eventfd(1, 0);
	asked = (struct pollfd){ready, POLLIN, 0};
	event = (struct epoll_event){.events = EPOLLIN};
	if (epoll_ctl(set, EPOLL_CTL_ADD, ready, &event) != 0) return perror("epoll_ctl"), 1;
	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
		double best = 1e9;
		for (int round = 0; round < ROUNDS; round++) {
			double since = now_ns();
			for (int n = 0; n < CALLS; n++)
				if (calls[i].call() != 1) return fprintf(stderr, "%s found nothing\n", calls[i].name), 1;
			double each = (now_ns() - since) / CALLS;
			if (each < best) best = each;
		}
		printf("%s %.1f\n", calls[i].name, best);
	}
}
