//! What becomes of an option that a socket is given, beside those that the engine minds (`options.rs`).
//!
//! Nothing is accepted and then ignored. An option is *kept* when it means nothing to a TCP connection, or nothing but
//! time: the socket's kernel half keeps it and tells it again. All others are *foreign*: a socket that gets one before it
//! connects or listens stays with the kernel; on a user connection they are refused, unless they are set to what they
//! are anyway.

use libc::{ENOPROTOOPT, EPERM, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Kept,
    /// Kept by a connection, for which it comes too late; foreign to a socket that may yet connect or listen.
    Late,
    Foreign,
}

/// Options that libc does not name, or not for this target.
mod number {
    use libc::c_int;
    pub(super) const SO_NO_CHECK: c_int = 11;
    pub(super) const SO_SELECT_ERR_QUEUE: c_int = 45;
    pub(super) const SO_CNX_ADVICE: c_int = 53;
    pub(super) const SO_TIMESTAMP_NEW: c_int = 63;
    pub(super) const SO_TIMESTAMPNS_NEW: c_int = 64;
    pub(super) const SO_RESERVE_MEM: c_int = 73;
    pub(super) const SO_TXREHASH: c_int = 74;
    pub(super) const SO_RCVMARK: c_int = 75;
    pub(super) const SO_RCVPRIORITY: c_int = 82;
    pub(super) const TCP_INQ: c_int = 36;
    pub(super) const IP_BIND_ADDRESS_NO_PORT: c_int = 24;
    pub(super) const IP_LOCAL_PORT_RANGE: c_int = 51;
    pub(super) const IPV6_ADDR_PREFERENCES: c_int = 72;
    pub(super) const IPV6_MULTICAST_ALL: c_int = 29;
}
use number::{
    IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE, IPV6_ADDR_PREFERENCES, IPV6_MULTICAST_ALL, SO_CNX_ADVICE,
    SO_NO_CHECK, SO_RCVMARK, SO_RCVPRIORITY, SO_RESERVE_MEM, SO_SELECT_ERR_QUEUE, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW,
    SO_TXREHASH, TCP_INQ,
};

/// Options that are kept. A connection has its listener's, so their order is one that may be copied in.
pub(crate) const KEPT: [(c_int, c_int); 62] = [
    (SOL_SOCKET, libc::SO_DEBUG),
    (SOL_SOCKET, libc::SO_REUSEADDR),
    (SOL_SOCKET, libc::SO_REUSEPORT),
    (SOL_SOCKET, libc::SO_BROADCAST),
    (SOL_SOCKET, SO_NO_CHECK),
    (SOL_SOCKET, libc::SO_PRIORITY),
    (SOL_SOCKET, libc::SO_RXQ_OVFL),
    (SOL_SOCKET, SO_SELECT_ERR_QUEUE),
    (SOL_SOCKET, SO_TXREHASH),
    (SOL_SOCKET, libc::SO_BUSY_POLL),
    (SOL_SOCKET, libc::SO_PREFER_BUSY_POLL),
    (SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET),
    (SOL_SOCKET, libc::SO_INCOMING_CPU),
    (SOL_SOCKET, SO_CNX_ADVICE),
    (SOL_SOCKET, SO_RESERVE_MEM),
    (SOL_SOCKET, SO_RCVMARK),
    (SOL_SOCKET, SO_RCVPRIORITY),
    (SOL_SOCKET, libc::SO_PASSCRED),
    (SOL_SOCKET, libc::SO_PASSSEC),
    // These have effect, which the shim gives them (`follow` in `options.rs`).
    (SOL_SOCKET, libc::SO_TIMESTAMP),
    (SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (SOL_SOCKET, SO_TIMESTAMP_NEW),
    (SOL_SOCKET, SO_TIMESTAMPNS_NEW),
    (SOL_SOCKET, libc::SO_ZEROCOPY),
    (IPPROTO_TCP, TCP_INQ),
    (IPPROTO_TCP, libc::TCP_THIN_DUPACK),
    // Receivers of datagrams are told by these.
    (IPPROTO_IP, libc::IP_PKTINFO),
    (IPPROTO_IP, libc::IP_RECVTTL),
    (IPPROTO_IP, libc::IP_RECVTOS),
    (IPPROTO_IP, libc::IP_RECVOPTS),
    (IPPROTO_IP, libc::IP_RETOPTS),
    (IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
    (IPPROTO_IP, libc::IP_PASSSEC),
    (IPPROTO_IP, 23), // IP_CHECKSUM
    (IPPROTO_IP, 25), // IP_RECVFRAGSIZE
    (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    (IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    (IPPROTO_IPV6, libc::IPV6_RECVRTHDR),
    (IPPROTO_IPV6, libc::IPV6_RECVHOPOPTS),
    (IPPROTO_IPV6, libc::IPV6_RECVDSTOPTS),
    (IPPROTO_IPV6, libc::IPV6_RECVPATHMTU),
    (IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR),
    (IPPROTO_IPV6, 77), // IPV6_RECVFRAGSIZE
    (IPPROTO_IPV6, libc::IPV6_DONTFRAG),
    // These matter to bind(), or to groups.
    (IPPROTO_IP, libc::IP_FREEBIND),
    (IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
    (IPPROTO_IP, libc::IP_MULTICAST_TTL),
    (IPPROTO_IP, libc::IP_MULTICAST_LOOP),
    (IPPROTO_IP, libc::IP_MULTICAST_ALL),
    (IPPROTO_IP, libc::IP_MULTICAST_IF),
    (IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_IF),
    (IPPROTO_IPV6, IPV6_MULTICAST_ALL),
    // Our segments carry no flow label of their own.
    (IPPROTO_IPV6, 70), // IPV6_AUTOFLOWLABEL
    (IPPROTO_IPV6, 33), // IPV6_FLOWINFO_SEND: a label has to be leased first, which is foreign
    (SOL_SOCKET, libc::SO_LOCK_FILTER),
    // Of drivers.
    (SOL_SOCKET, libc::SO_WIFI_STATUS),
    (SOL_SOCKET, libc::SO_NOFCS),
];

/// Both families' values, of which an IPv6 socket's connection uses one (`options.rs`).
pub(crate) const MARKS: [(c_int, c_int); 4] = [
    (IPPROTO_IP, libc::IP_TOS),
    (IPPROTO_IP, libc::IP_TTL),
    (IPPROTO_IPV6, libc::IPV6_TCLASS),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
];

const LATE: [(c_int, c_int); 3] =
    [(IPPROTO_TCP, libc::TCP_SAVE_SYN), (IPPROTO_IP, IP_LOCAL_PORT_RANGE), (IPPROTO_IPV6, IPV6_ADDR_PREFERENCES)];

/// Foreign options of streams that getsockopt tells of.
pub(crate) const READABLE_FOREIGN: [(c_int, c_int); 13] = [
    (SOL_SOCKET, libc::SO_MARK),
    (SOL_SOCKET, libc::SO_DONTROUTE),
    (SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (SOL_SOCKET, libc::SO_TXTIME),
    (SOL_SOCKET, libc::SO_TIMESTAMPING),
    (SOL_SOCKET, libc::SO_PEEK_OFF),
    (IPPROTO_TCP, libc::TCP_SAVE_SYN),
    (IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    (IPPROTO_IP, libc::IP_OPTIONS),
    (IPPROTO_IP, libc::IP_TRANSPARENT),
    (IPPROTO_IP, libc::IP_MINTTL),
    (IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (IPPROTO_IP, libc::IP_RECVERR),
];

pub(crate) fn class(level: c_int, name: c_int) -> Class {
    match (level, name) {
        option if KEPT.contains(&option) => Class::Kept,
        option if LATE.contains(&option) => Class::Late,
        _ => Class::Foreign,
    }
}

/// What the kernel itself might say to a foreign option: a build without the feature, or a caller without the right.
pub(crate) fn refusal(level: c_int, name: c_int) -> c_int {
    match (level, name) {
        (IPPROTO_TCP, libc::TCP_REPAIR | libc::TCP_REPAIR_QUEUE | libc::TCP_QUEUE_SEQ) => EPERM,
        (IPPROTO_TCP, libc::TCP_TIMESTAMP | TCP_REPAIR_WINDOW) => EPERM,
        (IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS) => libc::EINVAL,
        // As if the module were not there: a TLS library then encrypts by itself.
        (IPPROTO_TCP, libc::TCP_ULP) => libc::ENOENT,
        (IPPROTO_IPV6, libc::IPV6_ADDRFORM) => libc::EADDRNOTAVAIL,
        _ => ENOPROTOOPT,
    }
}

const TCP_REPAIR_WINDOW: c_int = 29;

/// What a datagram socket's option asks for that the user stack does not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DatagramClass {
    /// Nothing: the engine or the shim follow it, or it is kept.
    Served,
    /// Another way of sending: the socket's datagrams leave by the kernel from then on.
    Sending,
    /// Another way of receiving: the socket stays with the kernel, or is refused when it no longer can.
    Receiving,
}

const SENDING: [(c_int, c_int); 17] = [
    (SOL_SOCKET, libc::SO_MARK),
    (SOL_SOCKET, libc::SO_DONTROUTE),
    (SOL_SOCKET, SO_NO_CHECK),
    (SOL_SOCKET, libc::SO_TXTIME),
    (IPPROTO_IP, libc::IP_OPTIONS),
    (IPPROTO_IP, libc::IP_TRANSPARENT),
    (IPPROTO_IP, 50), // IP_UNICAST_IF
    (IPPROTO_IPV6, libc::IPV6_DONTFRAG),
    (IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    (IPPROTO_IPV6, 76), // IPV6_UNICAST_IF
    (IPPROTO_IPV6, libc::IPV6_HOPOPTS),
    (IPPROTO_IPV6, libc::IPV6_RTHDR),
    (IPPROTO_IPV6, libc::IPV6_DSTOPTS),
    (IPPROTO_IPV6, 55), // IPV6_RTHDRDSTOPTS
    (IPPROTO_IPV6, 33), // IPV6_FLOWINFO_SEND
    (IPPROTO_IPV6, IPV6_ADDR_PREFERENCES),
    (libc::SOL_UDP, 101), // UDP_NO_CHECK6_TX
];

const RECEIVING: [(c_int, c_int); 23] = [
    (SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (SOL_SOCKET, libc::SO_ATTACH_BPF),
    (SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
    (SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
    (SOL_SOCKET, libc::SO_TIMESTAMPING),
    (SOL_SOCKET, 65), // SO_TIMESTAMPING_NEW
    (SOL_SOCKET, SO_TIMESTAMP_NEW),
    (SOL_SOCKET, SO_TIMESTAMPNS_NEW),
    (SOL_SOCKET, libc::SO_PEEK_OFF),
    (IPPROTO_IP, 26),   // IP_RECVERR_RFC4884
    (IPPROTO_IPV6, 31), // IPV6_RECVERR_RFC4884
    (IPPROTO_IP, libc::IP_RECVOPTS),
    (IPPROTO_IP, libc::IP_RETOPTS),
    (IPPROTO_IP, libc::IP_PASSSEC),
    (IPPROTO_IP, libc::IP_MINTTL),
    (IPPROTO_IP, 23), // IP_CHECKSUM
    (IPPROTO_IP, 25), // IP_RECVFRAGSIZE
    (IPPROTO_IPV6, libc::IPV6_RECVRTHDR),
    (IPPROTO_IPV6, libc::IPV6_RECVHOPOPTS),
    (IPPROTO_IPV6, libc::IPV6_RECVDSTOPTS),
    (IPPROTO_IPV6, 73),   // IPV6_MINHOPCOUNT
    (IPPROTO_IPV6, 77),   // IPV6_RECVFRAGSIZE
    (libc::SOL_UDP, 100), // UDP_ENCAP
];

pub(crate) fn datagram_class(level: c_int, name: c_int) -> DatagramClass {
    match (level, name) {
        option if SENDING.contains(&option) => DatagramClass::Sending,
        option if RECEIVING.contains(&option) => DatagramClass::Receiving,
        _ => DatagramClass::Served,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_in_two_classes_or_twice() {
        for (n, option) in KEPT.iter().enumerate() {
            assert!(!KEPT[..n].contains(option) && !LATE.contains(option), "{option:?}");
        }
        assert_eq!(class(SOL_SOCKET, libc::SO_MARK), Class::Foreign);
        assert_eq!(class(IPPROTO_TCP, 9999), Class::Foreign);
        assert!(READABLE_FOREIGN.iter().all(|(level, name)| class(*level, *name) != Class::Kept));
        assert!(SENDING.iter().all(|option| !RECEIVING.contains(option)));
        assert_eq!(datagram_class(SOL_SOCKET, libc::SO_RCVBUF), DatagramClass::Served);
    }
}
