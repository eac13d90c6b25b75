/*
 * sidestep.h: what a program may ask of libsidestep.so.
 *
 * A program needs none of this to be served: the library interposes the socket calls. The functions here are exported by
 * libsidestep.so when it is preloaded (`sidestep run`, LD_PRELOAD) or linked (`pkg-config --libs sidestep`).
 *
 * To run with and without the library, define SIDESTEP_WEAK before including this and do not link it: an absent function's
 * address is then NULL.
 *
 *     #define SIDESTEP_WEAK
 *     #include <sidestep.h>
 *     if (sidestep_api_version && sidestep_api_version() >= 2 && sidestep_fd_reason(fd) != SIDESTEP_REASON_USER)
 *             fprintf(stderr, "on the kernel: %s\n", sidestep_reason_text(sidestep_fd_reason(fd)));
 *
 * Unless a function says otherwise, it may be called from any thread and from a signal handler that interrupted no call on
 * a socket; it does not block and does not allocate. Functions that fail return -1 and set errno. Times are microseconds.
 * Names that begin with sidestep_ and SIDESTEP_ belong to this header.
 */
#ifndef SIDESTEP_H
#define SIDESTEP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef SIDESTEP_WEAK
#define SIDESTEP_API __attribute__((weak))
#else
#define SIDESTEP_API
#endif

/*
 * The version of this header's interface. It grows when something is added; nothing is ever taken away or changed, numbers of
 * enums included. Each function names the version that it came with.
 */
#define SIDESTEP_API_VERSION 2u

/*
 * The interface version of the library that is loaded (since 1). A function that came with a later version is not there.
 * A program that was built with this header may rely on all of it when the result is at least SIDESTEP_API_VERSION.
 */
SIDESTEP_API uint32_t sidestep_api_version(void);

/* The library's own version, "MAJOR.MINOR.PATCH"; never NULL, valid for ever (since 1). */
SIDESTEP_API const char *sidestep_version(void);

/* Who carries a descriptor's traffic. */
enum sidestep_path {
	SIDESTEP_PATH_KERNEL = 0, /* the kernel, as without sidestep */
	SIDESTEP_PATH_USER = 1,   /* a connection in the user-mode stack */
	SIDESTEP_PATH_BOTH = 2    /* a listener, a datagram socket or an epoll set, with the user-mode stack and the kernel behind it */
};

/*
 * One of enum sidestep_path for an open descriptor, a snapshot: a socket is the kernel's until it connects, is accepted
 * from, or (UDP) is used (since 1). EBADF: fd is not open.
 */
SIDESTEP_API int sidestep_fd_path(int fd);

/* Why a descriptor is the kernel's. */
enum sidestep_reason {
	SIDESTEP_REASON_USER = 0,             /* it is not: the user-mode stack has it, alone or beside the kernel */
	SIDESTEP_REASON_NOT_SOCKET = 1,       /* a file, a pipe, an epoll set without user sockets, … */
	SIDESTEP_REASON_NOT_SERVED = 2,       /* not a TCP or UDP socket over IP */
	SIDESTEP_REASON_UNDECIDED = 3,        /* it has not connected, is not yet accepted from or used */
	SIDESTEP_REASON_NO_DEVICE = 4,        /* none is named (SIDESTEP_DEV), and not exactly one has a daemon here */
	SIDESTEP_REASON_NO_DAEMON = 5,        /* nobody serves the device: sidestep up DEV */
	SIDESTEP_REASON_REFUSED = 6,          /* the daemon refused this process: sidestep up --allow */
	SIDESTEP_REASON_MISMATCH = 7,         /* library and daemon are of different builds */
	SIDESTEP_REASON_ATTACH = 8,           /* the stack could not be mapped into the process */
	SIDESTEP_REASON_FULL = 9,             /* a table of the library or the stack is full */
	SIDESTEP_REASON_PORT_OFF = 10,        /* sidestep port off */
	SIDESTEP_REASON_PORT_NOT_LISTED = 11, /* not among sidestep run --port */
	SIDESTEP_REASON_LOOPBACK = 12,        /* bound or connected to a loopback address */
	SIDESTEP_REASON_OTHER_WAY = 13,       /* the way leads over another device, or to this machine itself */
	SIDESTEP_REASON_BOUND_FIRST = 14,     /* it was bound to a port before it connected */
	SIDESTEP_REASON_SEVERAL_SETS = 15,    /* it was in several epoll sets before it was decided */
	SIDESTEP_REASON_DUPLICATED = 16,      /* it was duplicated before it was decided */
	SIDESTEP_REASON_ERROR_QUEUE = 17,     /* not given any more: error queues are the user stack's too */
	SIDESTEP_REASON_STACK = 18,           /* the stack could not take it */
	SIDESTEP_REASON_KERNEL_ACCEPTED = 19, /* its connection came over loopback or another device, or before the port was on */
	SIDESTEP_REASON_NOT_SEEN = 20,        /* made before the library was there, by another process, or by raw system calls */
	SIDESTEP_REASON_OPTION = 21           /* it was given an option that only the kernel has */
};

/*
 * One of enum sidestep_reason for an open descriptor, a snapshot (since 2). Later libraries may know more reasons.
 * EBADF: fd is not open.
 */
SIDESTEP_API int sidestep_fd_reason(int fd);

/* A reason in words, never NULL, valid for ever; an unknown number has some too (since 2). */
SIDESTEP_API const char *sidestep_reason_text(int reason);

/*
 * What the user-mode stack knows of one connection. More fields may be added at the end; `size` says how many bytes of the
 * record are filled in. Counts are from the connection's beginning.
 */
struct sidestep_stats {
	uint32_t size;              /* in: sizeof the caller's record; out: bytes that were filled in */
	uint32_t mss_bytes;         /* payload of a full segment */
	uint64_t sent_bytes;        /* payload sent, retransmissions included */
	uint64_t acked_bytes;       /* of it, acknowledged by the peer */
	uint64_t resent_bytes;      /* of it, sent again */
	uint64_t received_bytes;    /* payload received in order */
	uint32_t sent_segments;     /* with acknowledgements */
	uint32_t received_segments; /* with acknowledgements */
	uint32_t resent_segments;
	uint32_t reordered_segments; /* received out of order */
	uint32_t rtt_us;             /* smoothed round trip, 0: not measured yet */
	uint32_t rtt_var_us;         /* its variation */
	uint32_t rtt_min_us;         /* the shortest */
	uint32_t rto_us;             /* retransmission timeout */
	uint32_t cwnd_bytes;         /* congestion window */
	uint32_t peer_window_bytes;  /* what the peer allows */
	uint32_t own_window_bytes;   /* what we allow the peer */
	uint32_t unsent_bytes;       /* written by the application and not sent */
	uint32_t unacked_bytes;      /* sent and not acknowledged */
	uint32_t unread_bytes;       /* received and not read by the application */
	uint64_t pacing_bytes_s;     /* how fast data is sent, bytes per second */
	uint64_t delivery_bytes_s;   /* how fast it was delivered lately, bytes per second */
};

/*
 * Fills in what is known of a connection (since 2). Set stats->size first. Takes the stack's lock for a moment, so not for
 * signal handlers. EBADF: fd is not open; EOPNOTSUPP: it is not a connection in the user-mode stack; EINVAL: size is below 8;
 * EFAULT: stats is NULL, or no address that can be written.
 */
SIDESTEP_API int sidestep_fd_stats(int fd, struct sidestep_stats *stats);

/* Whose spinning a call is about. */
enum sidestep_scope {
	SIDESTEP_THREAD = 0, /* the calling thread */
	SIDESTEP_PROCESS = 1 /* all threads that have no value of their own */
};

/* Back to what holds without a call: a thread follows its process, a process SIDESTEP_SPIN_US. */
#define SIDESTEP_SPIN_DEFAULT UINT32_MAX

/*
 * How long, in microseconds, a call that waits looks at the device's rings before it sleeps; 0: it sleeps at once; at most
 * 1000000 (since 2). It is an upper bound: threads that spin in vain spin less. Children made by fork inherit both values of
 * the thread that forks. EINVAL: unknown scope, or too long.
 */
SIDESTEP_API int sidestep_set_spin_us(int scope, uint32_t us);

/* The value that holds for the scope now, in microseconds (since 2); SIDESTEP_SPIN_DEFAULT with errno EINVAL for an unknown scope. */
SIDESTEP_API uint32_t sidestep_spin_us(int scope);

/*
 * Room for what comes later: zero-copy sending and receiving, and connections without a descriptor. They will have names of
 * their own (sidestep_buffer_…, sidestep_conn_…) and raise SIDESTEP_API_VERSION.
 */

#ifdef __cplusplus
}
#endif

#endif
