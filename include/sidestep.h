/*
 * sidestep.h: what a program may ask of libsidestep.so.
 *
 * A program needs none of this to be served: the library interposes the socket calls. The functions here are exported
 * by libsidestep.so when it is preloaded or linked. Declare them weak (define SIDESTEP_WEAK before including) to run
 * with and without it: an absent function's address is then NULL.
 *
 * All functions may be called from any thread and from signal handlers. None blocks, none allocates.
 */
#ifndef SIDESTEP_H
#define SIDESTEP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef SIDESTEP_WEAK
#define SIDESTEP_API __attribute__((weak))
#else
#define SIDESTEP_API
#endif

/* The version of this header's interface. It grows when a function is added; nothing is ever taken away. */
#define SIDESTEP_API_VERSION 1u

/* The interface version of the library that is loaded: at least as great as the header's, or do not call what is newer. */
SIDESTEP_API uint32_t sidestep_api_version(void);

/* The library's own version, "MAJOR.MINOR.PATCH"; never NULL, valid for ever. */
SIDESTEP_API const char *sidestep_version(void);

/* Who carries a descriptor's traffic. */
enum sidestep_path {
	SIDESTEP_PATH_KERNEL = 0, /* the kernel, as without sidestep */
	SIDESTEP_PATH_USER = 1,   /* a connection in the user-mode stack */
	SIDESTEP_PATH_BOTH = 2    /* a listener, or an epoll set, with the user-mode stack and the kernel behind it */
};

/*
 * One of enum sidestep_path for an open descriptor, a snapshot: a socket is the kernel's until it connects or listens.
 * Returns -1 with errno EBADF when fd is not open.
 */
SIDESTEP_API int sidestep_fd_path(int fd);

#ifdef __cplusplus
}
#endif

#endif
