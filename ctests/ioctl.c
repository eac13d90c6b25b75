/* ioctl and fcntl on sockets. */
#include "opt.h"
#include <net/if.h>

static void show_int(int fd, const char *text, unsigned long request)
{
	int v = -77;
	int r = ioctl(fd, request, &v);
	if (r) SAY("%s: %s", text, strerrorname_np(errno));
	else SAY("%s: %d", text, v);
}
#define INT(fd, request) show_int(fd, #request, request)

CASE(queues, BOTH)
{
	INT(fd, FIONREAD);
	INT(fd, SIOCINQ);
	INT(fd, SIOCOUTQ);
	INT(fd, SIOCOUTQNSD);
	INT(fd, SIOCATMARK);
	PEER(send(fd, "abcde", 5, 0));
	SETTLE();
	INT(fd, FIONREAD);
	INT(fd, SIOCINQ);
	SHOW(send(fd, "xyz", 3, 0));
	PEER(char b[3]; recv(fd, b, 3, MSG_WAITALL));
	SETTLE();
	ct_nap(50);
	INT(fd, SIOCOUTQ);
	INT(fd, SIOCOUTQNSD);
	PEER(shutdown(fd, SHUT_WR));
	SETTLE();
	INT(fd, FIONREAD);
	char b[5];
	recv(fd, b, 5, 0);
	INT(fd, FIONREAD);
	INT(fd, SIOCATMARK);
}

CASE(queues_of_datagrams, DATAGRAM)
{
	opt_begin(fd);
	INT(fd, FIONREAD);
	INT(fd, SIOCOUTQ);
	INT(fd, SIOCATMARK);
	INT(fd, SIOCOUTQNSD);
	PEER(send(fd, "abcde", 5, 0); send(fd, "ab", 2, 0));
	SETTLE();
	INT(fd, FIONREAD);
}

CASE(queues_of_listeners, ALONE)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	INT(l, FIONREAD);
	INT(l, SIOCOUTQ);
	INT(l, SIOCOUTQNSD);
	INT(l, SIOCATMARK);
	close(accept(l, NULL, NULL));
}

CASE(marks, BOTH)
{
	PEER(send(fd, "ab", 2, 0); send(fd, "!", 1, MSG_OOB); send(fd, "cd", 2, 0));
	SETTLE();
	char b[8];
	INT(fd, SIOCATMARK);
	INT(fd, FIONREAD);
	SHOW(sockatmark(fd));
	SHOW(recv(fd, b, 8, 0));
	INT(fd, SIOCATMARK);
	SHOW(sockatmark(fd));
	INT(fd, FIONREAD);
	SHOW(recv(fd, b, 8, MSG_OOB));
	SHOW(recv(fd, b, 8, 0));
	INT(fd, SIOCATMARK);
}

CASE(nonblocking, BOTH | DATAGRAM)
{
	opt_begin(fd);
	int one = 1, zero = 0;
	char b;
	SHOW(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
	SHOW(ioctl(fd, FIONBIO, &one));
	SHOW(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
	SHOW(recv(fd, &b, 1, 0));
	SHOW(ioctl(fd, FIONBIO, &zero));
	SHOW(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(recv(fd, &b, 1, 0));
	SHOW(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
	SHOW(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
	SHOW(fcntl(fd, F_SETFL, O_DIRECT));
	SHOW(fcntl(fd, F_SETFL, O_RDONLY | O_CREAT | O_EXCL));
	SHOW(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
	SHOW(fcntl(fd, F_SETFL, 0));
}

CASE(descriptor_flags, BOTH | DATAGRAM)
{
	opt_begin(fd);
	SHOW(fcntl(fd, F_GETFD));
	SHOW(ioctl(fd, FIOCLEX));
	SHOW(fcntl(fd, F_GETFD));
	SHOW(ioctl(fd, FIONCLEX));
	SHOW(fcntl(fd, F_GETFD));
	SHOW(fcntl(fd, F_SETFD, FD_CLOEXEC));
	SHOW(fcntl(fd, F_GETFD));
}

/* What is of devices, not of the socket. */
CASE(devices, BOTH | DATAGRAM)
{
	opt_begin(fd);
	struct ifreq r = {0};
	strcpy(r.ifr_name, "lo");
	SHOW(ioctl(fd, SIOCGIFINDEX, &r));
	SAY("index %d", r.ifr_ifindex);
	SHOW(ioctl(fd, SIOCGIFMTU, &r));
	SAY("mtu %d", r.ifr_mtu);
	SHOW(ioctl(fd, SIOCGIFFLAGS, &r));
	strcpy(r.ifr_name, "nosuch");
	SHOW(ioctl(fd, SIOCGIFINDEX, &r));
	struct ifconf c = {0};
	SHOW(ioctl(fd, SIOCGIFCONF, &c));
	SAY("some: %d", c.ifc_len > 0);
}

CASE(unknown_ones, BOTH | DATAGRAM)
{
	opt_begin(fd);
	int v = 0;
	SHOW(ioctl(fd, 0x5401, &v)); /* TCGETS */
	SHOW(ioctl(fd, 0x12345678, &v));
	SHOW(isatty(fd));
	SHOW(fcntl(fd, 9999, 0));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(fsync(fd));
	SHOW(ftruncate(fd, 0));
}

CASE(owners, BOTH | DATAGRAM)
{
	opt_begin(fd);
	int owner = -7, pid = getpid();
	SHOW(fcntl(fd, F_GETOWN));
	SHOW(fcntl(fd, F_GETSIG));
	SHOW(ioctl(fd, FIOGETOWN, &owner));
	SHOW(ioctl(fd, SIOCGPGRP, &owner));
	SAY("%d", owner);
	SHOW(fcntl(fd, F_SETOWN, pid));
	SHOW(fcntl(fd, F_GETOWN) == pid);
	SHOW(fcntl(fd, F_SETOWN, 0));
	SHOW(ioctl(fd, FIOSETOWN, &pid));
	SHOW(ioctl(fd, SIOCGPGRP, &owner));
	SAY("%d", owner == pid);
	pid = 0;
	SHOW(ioctl(fd, SIOCSPGRP, &pid));
	SHOW(fcntl(fd, F_GETOWN));
	SHOW(fcntl(fd, F_SETOWN, 1 << 30));
	struct f_owner_ex ex = {F_OWNER_TID, getpid()};
	SHOW(fcntl(fd, F_SETOWN_EX, &ex));
	memset(&ex, 0, sizeof ex);
	SHOW(fcntl(fd, F_GETOWN_EX, &ex));
	SAY("%d %d", ex.type, ex.pid == getpid());
	SHOW(fcntl(fd, F_SETSIG, SIGUSR1));
	SHOW(fcntl(fd, F_GETSIG));
	SHOW(fcntl(fd, F_SETSIG, 1000));
}

/* One connection's owner is no other's. */
CASE(owners_are_each_sockets_own, ALONE)
{
	int l = ct_listen(ct_here(0));
	PEER(ct_peer_fd = ct_connect(ct_here(0)); ct_connect(ct_here(0)));
	int a = accept(l, NULL, NULL), b = accept(l, NULL, NULL);
	SHOW(fcntl(a, F_SETOWN, getpid()));
	SHOW(fcntl(a, F_GETOWN) == getpid());
	SHOW(fcntl(b, F_GETOWN));
}

static volatile sig_atomic_t urgent, io;
static void on_signal(int n) { if (n == SIGURG) urgent++; else io++; }

CASE(urgent_data_signals, BOTH)
{
	signal(SIGURG, on_signal);
	PEER(send(fd, "!", 1, MSG_OOB));
	SETTLE();
	char b;
	SHOW(recv(fd, &b, 1, MSG_OOB));
	SAY("without an owner: %d", urgent);
	SHOW(fcntl(fd, F_SETOWN, getpid()));
	PEER(send(fd, "!", 1, MSG_OOB));
	SETTLE();
	SHOW(recv(fd, &b, 1, MSG_OOB));
	SAY("with one: %d", urgent);
}

/* Nobody is in a call on the socket when it comes. */
CASE(urgent_data_signals_who_computes, BOTH)
{
	signal(SIGURG, on_signal);
	SHOW(fcntl(fd, F_SETOWN, getpid()));
	PEER(send(fd, "!", 1, MSG_OOB));
	for (long end = ct_now_ms() + 1000; !urgent && ct_now_ms() < end;);
	SAY("%d", urgent);
	char b;
	SHOW(recv(fd, &b, 1, MSG_OOB));
}

/* The two ways to say it. */
CASE(signals_of_data, BOTH)
{
	int one = 1, zero = 0;
	SHOW(fcntl(fd, F_SETFL, O_ASYNC));
	SHOW(ioctl(fd, FIOASYNC, &one));
	SHOW(ioctl(fd, FIOASYNC, &zero));
	SHOW(fcntl(fd, F_SETFL, 0));
	SHOW(fcntl(fd, F_GETFL) & O_ASYNC);
}
