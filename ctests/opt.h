/* What the families about options share: setting and reading them, printed. */
#ifndef OPT_H
#define OPT_H
#include "ct.h"
#include <limits.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <netinet/udp.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

struct opt {
	int level, name;
	const char *text;
};
#define OPT(level, name) {level, name, #name}

__attribute__((unused)) static void opt_get(int fd, const struct opt *o)
{
	unsigned char b[64];
	int v = -77;
	socklen_t len = sizeof v;
	memset(b, 0xee, sizeof b);
	int r = getsockopt(fd, o->level, o->name, b, &len);
	memcpy(&v, b, sizeof v);
	if (r) printf(" %s", strerrorname_np(errno));
	else if (len == 4) printf(" %d", v);
	else if (len == 1) printf(" octet %d", b[0]);
	else printf(" %u octets", len);
}

/* Sets an int and reads it back. */
__attribute__((unused)) static void opt_set(int fd, const struct opt *o, int v)
{
	int r = setsockopt(fd, o->level, o->name, &v, sizeof v);
	printf(" | %d: %s", v, r ? strerrorname_np(errno) : "ok");
	opt_get(fd, o);
}

/* What it is, and what comes of each value. */
__attribute__((unused)) static void opt_try(int fd, const struct opt *o, const int *values, int n)
{
	printf("%s:", o->text);
	opt_get(fd, o);
	for (int i = 0; i < n; i++) opt_set(fd, o, values[i]);
	putchar('\n');
	fflush(stdout);
}

/* Lengths that are not an int's. */
__attribute__((unused)) static void opt_lengths(int fd, const struct opt *o)
{
	char b[16] = {1};
	printf("%s set by length:", o->text);
	for (int len = -1; len <= 8; len++) {
		int r = setsockopt(fd, o->level, o->name, b, (socklen_t)len);
		printf(" %d %s", len, r ? strerrorname_np(errno) : "ok");
	}
	printf("; read by length:");
	for (int len = -1; len <= 8; len++) {
		socklen_t l = (socklen_t)len;
		memset(b, 0x55, sizeof b);
		int r = getsockopt(fd, o->level, o->name, b, &l);
		if (r) printf(" %d %s", len, strerrorname_np(errno));
		else printf(" %d %u:%02x%02x%02x%02x%02x", len, l, b[0] & 255, b[1] & 255, b[2] & 255, b[3] & 255, b[4] & 255);
	}
	putchar('\n');
	fflush(stdout);
}

/* A datagram socket becomes a user socket by being used. */
__attribute__((unused)) static void opt_begin(int fd)
{
	int type = 0;
	socklen_t len = sizeof type;
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	if (type != SOCK_DGRAM) return;
	char b[4];
	PEER_LATER(ct_nap(20); send(fd, "x", 1, 0));
	recv(fd, b, sizeof b, 0);
	PEER_WAIT();
}

#define TRY_ALL(fd, table, ...)                                                                                \
	do {                                                                                                   \
		static const int opt_values[] = {__VA_ARGS__};                                                 \
		for (size_t opt_i = 0; opt_i < LENGTH(table); opt_i++)                                         \
			opt_try(fd, &(table)[opt_i], opt_values, LENGTH(opt_values));                          \
	} while (0)
#define LENGTHS_ALL(fd, table)                                                                                 \
	do {                                                                                                   \
		for (size_t opt_i = 0; opt_i < LENGTH(table); opt_i++) opt_lengths(fd, &(table)[opt_i]);       \
	} while (0)
#define READ_ALL(fd, table)                                                                                    \
	do {                                                                                                   \
		for (size_t opt_i = 0; opt_i < LENGTH(table); opt_i++)                                         \
			opt_try(fd, &(table)[opt_i], NULL, 0);                                                 \
	} while (0)

#endif
