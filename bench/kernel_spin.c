/* kernel_spin.so: the kernel's own stack with a server that never sleeps. What user-mode stacks gain by spinning alone
 * shows against this column, not against a sleeping kernel. Preloaded into redis and nginx by `make bench`. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int epoll_pwait(int set, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
    int64_t until = timeout < 0 ? INT64_MAX : now_ms() + timeout;
    for (;;) {
        int n = syscall(SYS_epoll_pwait, set, events, max, 0, mask, _NSIG / 8);
        if (n != 0 || timeout == 0 || (timeout > 0 && now_ms() >= until))
            return n;
    }
}

int epoll_wait(int set, struct epoll_event *events, int max, int timeout)
{
    return epoll_pwait(set, events, max, timeout, NULL);
}
