/* IPPROTO_IP, IPPROTO_IPV6 and IPPROTO_UDP: what each option is, takes, and tells. */
#include "opt.h"
#include <linux/ipv6.h>
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IP_PROTOCOL
#define IP_PROTOCOL 52
#endif
#ifndef IPV6_ADDR_PREFERENCES
#define IPV6_ADDR_PREFERENCES 72
#endif
#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif

static const struct opt values4[] = {
	OPT(IPPROTO_IP, IP_TOS), OPT(IPPROTO_IP, IP_TTL),
};
/* They tell a receiver of datagrams something. */
static const struct opt told4[] = {
	OPT(IPPROTO_IP, IP_PKTINFO), OPT(IPPROTO_IP, IP_RECVTTL), OPT(IPPROTO_IP, IP_RECVTOS),
	OPT(IPPROTO_IP, IP_RECVORIGDSTADDR),
};
static const struct opt kept4[] = {
	OPT(IPPROTO_IP, IP_FREEBIND), OPT(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
	OPT(IPPROTO_IP, IP_MULTICAST_LOOP), OPT(IPPROTO_IP, IP_MULTICAST_ALL),
};
static const struct opt facts4[] = {
	OPT(IPPROTO_IP, IP_OPTIONS), OPT(IPPROTO_IP, IP_MTU_DISCOVER), OPT(IPPROTO_IP, IP_MTU), OPT(IPPROTO_IP, IP_RECVERR),
	OPT(IPPROTO_IP, IP_TRANSPARENT), OPT(IPPROTO_IP, IP_MINTTL), OPT(IPPROTO_IP, IP_NODEFRAG), OPT(IPPROTO_IP, IP_UNICAST_IF),
	OPT(IPPROTO_IP, IP_HDRINCL), OPT(IPPROTO_IP, IP_ROUTER_ALERT), OPT(IPPROTO_IP, IP_CHECKSUM),
	OPT(IPPROTO_IP, IP_RECVFRAGSIZE), OPT(IPPROTO_IP, IP_PASSSEC), OPT(IPPROTO_IP, IP_RECVOPTS), OPT(IPPROTO_IP, IP_RETOPTS),
	OPT(IPPROTO_IP, IP_LOCAL_PORT_RANGE), OPT(IPPROTO_IP, 9999),
};
static const struct opt plain4[] = {
	OPT(IPPROTO_IP, IP_MTU), OPT(IPPROTO_IP, IP_RECVERR), OPT(IPPROTO_IP, IP_TRANSPARENT), OPT(IPPROTO_IP, IP_MINTTL),
	OPT(IPPROTO_IP, IP_NODEFRAG), OPT(IPPROTO_IP, IP_UNICAST_IF), OPT(IPPROTO_IP, IP_HDRINCL), OPT(IPPROTO_IP, 9999),
};
static const struct opt plain6[] = {
	OPT(IPPROTO_IPV6, IPV6_MTU), OPT(IPPROTO_IPV6, IPV6_RECVERR), OPT(IPPROTO_IPV6, IPV6_TRANSPARENT),
	OPT(IPPROTO_IPV6, IPV6_UNICAST_IF), OPT(IPPROTO_IPV6, IPV6_MINHOPCOUNT), OPT(IPPROTO_IPV6, 9999),
};
static const struct opt values6[] = {
	OPT(IPPROTO_IPV6, IPV6_TCLASS), OPT(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
};
static const struct opt told6[] = {
	OPT(IPPROTO_IPV6, IPV6_RECVPKTINFO), OPT(IPPROTO_IPV6, IPV6_RECVHOPLIMIT), OPT(IPPROTO_IPV6, IPV6_RECVTCLASS),
};
static const struct opt kept6[] = {
	OPT(IPPROTO_IPV6, IPV6_V6ONLY), OPT(IPPROTO_IPV6, IPV6_MULTICAST_LOOP),
	OPT(IPPROTO_IPV6, IPV6_FREEBIND), OPT(IPPROTO_IPV6, IPV6_MULTICAST_ALL),
};
static const struct opt facts6[] = {
	OPT(IPPROTO_IPV6, IPV6_MTU), OPT(IPPROTO_IPV6, IPV6_MTU_DISCOVER), OPT(IPPROTO_IPV6, IPV6_RECVERR),
	OPT(IPPROTO_IPV6, IPV6_DONTFRAG), OPT(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL), OPT(IPPROTO_IPV6, IPV6_TRANSPARENT),
	OPT(IPPROTO_IPV6, IPV6_UNICAST_IF), OPT(IPPROTO_IPV6, IPV6_RECVRTHDR), OPT(IPPROTO_IPV6, IPV6_RECVHOPOPTS),
	OPT(IPPROTO_IPV6, IPV6_RECVDSTOPTS), OPT(IPPROTO_IPV6, IPV6_RECVPATHMTU), OPT(IPPROTO_IPV6, IPV6_ADDR_PREFERENCES),
	OPT(IPPROTO_IPV6, IPV6_MINHOPCOUNT), OPT(IPPROTO_IPV6, IPV6_RECVFRAGSIZE), OPT(IPPROTO_IPV6, 9999),
};
static const struct opt udp[] = {
	OPT(IPPROTO_UDP, UDP_CORK), OPT(IPPROTO_UDP, UDP_SEGMENT), OPT(IPPROTO_UDP, UDP_GRO), OPT(IPPROTO_UDP, UDP_NO_CHECK6_TX),
	OPT(IPPROTO_UDP, UDP_NO_CHECK6_RX), OPT(IPPROTO_UDP, UDP_ENCAP), OPT(IPPROTO_UDP, 9999),
};

CASE(values, BOTH | BOTH6)
{
	TRY_ALL(fd, values4, 1, 64, 255, 256, 0, -1, -2, 16);
	TRY_ALL(fd, values6, 1, 64, 255, 256, -1, -2, 16);
	LENGTHS_ALL(fd, values4);
	LENGTHS_ALL(fd, values6);
}

CASE(values_of_datagrams, DATAGRAM | DATAGRAM6)
{
	opt_begin(fd);
	TRY_ALL(fd, values4, 1, 64, 255, 256, 0, -1, -2, 16);
	TRY_ALL(fd, values6, 1, 64, 255, 256, 0, -1, -2, 16);
	LENGTHS_ALL(fd, values4);
}

CASE(what_tells_receivers, BOTH | BOTH6)
{
	TRY_ALL(fd, told4, 1, 2, -1, 0);
	TRY_ALL(fd, told6, 1, 2, -1, 0);
	LENGTHS_ALL(fd, told4);
}

CASE(what_tells_receivers_of_datagrams, DATAGRAM | DATAGRAM6)
{
	opt_begin(fd);
	TRY_ALL(fd, told4, 1, 2, -1, 0);
	TRY_ALL(fd, told6, 1, 2, -1, 0);
}

CASE(what_is_kept, BOTH | BOTH6)
{
	TRY_ALL(fd, kept4, 1, 0, 2, -1);
	TRY_ALL(fd, kept6, 1, 0, 2, -1);
}

CASE(what_is_kept_of_datagrams, DATAGRAM | DATAGRAM6)
{
	opt_begin(fd);
	TRY_ALL(fd, kept4, 1, 0, 2, -1);
	TRY_ALL(fd, kept6, 1, 0, 2, -1);
}

CASE(facts, BOTH | BOTH6)
{
	READ_ALL(fd, facts4);
	READ_ALL(fd, facts6);
	READ_ALL(fd, udp);
}

CASE(facts_of_datagrams, DATAGRAM | DATAGRAM6)
{
	opt_begin(fd);
	READ_ALL(fd, facts4);
	READ_ALL(fd, facts6);
	READ_ALL(fd, udp);
}

/* What is set to what it is anyway is no wish that could not be fulfilled. */
CASE(defaults_may_be_set, BOTH | BOTH6)
{
	TRY_ALL(fd, plain4, 0);
	TRY_ALL(fd, plain6, 0);
	const struct opt discover = OPT(IPPROTO_IP, IP_MTU_DISCOVER), discover6 = OPT(IPPROTO_IPV6, IPV6_MTU_DISCOVER);
	opt_try(fd, &discover, (int[]){IP_PMTUDISC_WANT, 99}, 2);
	opt_try(fd, &discover6, (int[]){IPV6_PMTUDISC_WANT, 99}, 2);
}

CASE(what_only_datagrams_have, BOTH)
{
	TRY_ALL(fd, udp, 1, 0);
	struct ip_mreq group = {{0}, {0}};
	SHOW(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
}

CASE(what_a_listener_was_told_is_inherited, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), v = 1, tos = 0x48;
	for (size_t i = 0; i < LENGTH(told4); i++) setsockopt(l, IPPROTO_IP, told4[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(kept4); i++) setsockopt(l, IPPROTO_IP, kept4[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(told6); i++) setsockopt(l, IPPROTO_IPV6, told6[i].name, &v, sizeof v);
	setsockopt(l, IPPROTO_IP, IP_TOS, &tos, sizeof tos);
	setsockopt(l, IPPROTO_IP, IP_TTL, &tos, sizeof tos);
	setsockopt(l, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
	setsockopt(l, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &tos, sizeof tos);
	PEER(ct_peer_fd = ct_connect(ct_here(0)));
	int s = accept(l, NULL, NULL);
	READ_ALL(s, values4);
	READ_ALL(s, told4);
	READ_ALL(s, kept4);
	READ_ALL(s, values6);
	READ_ALL(s, told6);
	READ_ALL(s, kept6);
}

CASE(what_a_client_was_told_before_it_connected, ALONE | ALONE6)
{
	int s = ct_socket(SOCK_STREAM), v = 1;
	for (size_t i = 0; i < LENGTH(told4); i++) setsockopt(s, IPPROTO_IP, told4[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(kept4); i++) setsockopt(s, IPPROTO_IP, kept4[i].name, &v, sizeof v);
	for (size_t i = 0; i < LENGTH(told6); i++) setsockopt(s, IPPROTO_IPV6, told6[i].name, &v, sizeof v);
	PEER(ct_peer_fd = ct_listen(ct_there(1)));
	struct ct_address to = ct_there(1);
	SHOW(connect(s, AT(to)));
	READ_ALL(s, told4);
	READ_ALL(s, kept4);
	READ_ALL(s, told6);
	READ_ALL(s, kept6);
	READ_ALL(s, facts4);
}

/* What reaches the peer. */
CASE(marks_are_on_the_wire, CONNECTED)
{
	opt_begin(fd);
	int tos = 0x28, ttl = 33;
	SHOW(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl));
	PEER(int v = 1; setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &v, sizeof v); setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &v, sizeof v));
	SHOW(send(fd, "marked", 6, 0));
	PEER(char b[8]; char c[128]; struct iovec i = {b, 8}; struct msghdr m = {.msg_iov = &i, .msg_iovlen = 1, .msg_control = c,
	     .msg_controllen = sizeof c}; printf("peer: %zd\n", recvmsg(fd, &m, 0));
	     for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		     printf("%d %d: %d\n", h->cmsg_level, h->cmsg_type, *CMSG_DATA(h)); fflush(stdout));
}

CASE(v6_only_is_decided_before, BOTH6)
{
	const struct opt only = OPT(IPPROTO_IPV6, IPV6_V6ONLY);
	opt_try(fd, &only, (int[]){0, 1}, 2);
}

CASE(address_forms, BOTH6)
{
	int v = AF_INET;
	SHOW(setsockopt(fd, IPPROTO_IPV6, IPV6_ADDRFORM, &v, sizeof v));
	v = AF_INET6;
	SHOW(setsockopt(fd, IPPROTO_IPV6, IPV6_ADDRFORM, &v, sizeof v));
	const struct opt form = OPT(IPPROTO_IPV6, IPV6_ADDRFORM);
	opt_try(fd, &form, NULL, 0);
}
