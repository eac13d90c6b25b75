//! Datagrams that came to a stack and are for nobody there: the kernel gets them, by a raw socket, as if they had come over
//! loopback. It looks for its own socket then, and says by ICMP when it has none.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};
use nix::sys::socket::{SockaddrIn, SockaddrIn6};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Says once what is in the way.
static SAID: AtomicBool = AtomicBool::new(false);

/// Packets with their IP headers. What the kernel does not take is lost, as any datagram may be.
pub(super) fn give_to_kernel(packets: &[Vec<u8>]) {
    for packet in packets {
        let given = match packet.first().map(|first| first >> 4) {
            Some(4) => give_v4(packet),
            _ => give_v6(packet),
        };
        if let Err(e) = given
            && !SAID.swap(true, Relaxed)
        {
            super::log(format_args!("cannot give a datagram to the kernel: {e}"));
        }
    }
}

fn raw(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::Raw)
}

fn give_v4(packet: &[u8]) -> nix::Result<()> {
    let Some(&[a, b, c, d]) = packet.get(16..20) else { return Ok(()) };
    let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 0));
    sendto(raw(AddressFamily::Inet)?.as_raw_fd(), packet, &to, MsgFlags::empty()).map(drop)
}

fn give_v6(packet: &[u8]) -> nix::Result<()> {
    let Some(to) = packet.get(24..40).and_then(|ip| <[u8; 16]>::try_from(ip).ok()) else { return Ok(()) };
    let to = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::from(to), 0, 0, 0));
    sendto(raw(AddressFamily::Inet6)?.as_raw_fd(), packet, &to, MsgFlags::empty()).map(drop)
}
