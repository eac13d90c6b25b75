//! The network layer: both IP versions behind one pair of functions, and where packets go next.
//!
//! - [`receive`], [`transmit`]: headers of either version;
//! - [`tables`]: the addresses, routes and neighbours that the daemon mirrors from the kernel.

pub mod tables;

use crate::addr::{Flow, Ip};
use crate::drops::Drop;
use crate::link::Family;
use crate::wire::{ipv4, ipv6, udp};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;

/// A packet, offsets counted from the frame's first byte (not the IP header's).
pub use crate::wire::ipv4::Packet;
pub use crate::wire::ipv4::Service;

/// Explicit congestion notification: the two low bits of the TOS octet (RFC 3168 §5).
pub mod ecn {
    pub const NOT_ECT: u8 = 0;
    /// The transport understands marks.
    pub const ECT_0: u8 = 2;
    /// Congestion was experienced on the way.
    pub const CE: u8 = 3;
    pub const MASK: u8 = 3;
}

/// Reads the IP header at `off` of a frame.
#[inline]
pub fn receive(frame: &[u8], off: usize, family: Family) -> Result<Packet, Drop> {
    let bytes = frame.get(off..).ok_or(Drop::IpMalformed)?;
    let mut packet = match family {
        Family::V4 => ipv4::parse(bytes)?,
        Family::V6 => ipv6::parse(bytes)?,
    };
    packet.payload_off += off;
    Ok(packet)
}

/// Bytes of the header that [`transmit`] writes for this flow.
#[inline]
pub fn header_len(remote: &Ip) -> usize {
    if remote.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// Writes the header of a TCP packet of `payload_len` bytes to the start of `out`.
#[inline]
pub fn transmit(flow: &Flow, service: Service, payload_len: u16, out: &mut [u8]) {
    if flow.remote.ip.is_v4() {
        ipv4::emit(&flow.local.ip, &flow.remote.ip, TCP, service, payload_len, out);
    } else {
        ipv6::emit(&flow.local.ip, &flow.remote.ip, TCP, service, payload_len, out);
    }
}

/// Writes the header of a UDP packet of `payload_len` bytes to the start of `out`.
#[inline]
pub fn transmit_datagram(flow: &Flow, service: Service, payload_len: u16, out: &mut [u8]) {
    if flow.remote.ip.is_v4() {
        ipv4::emit(&flow.local.ip, &flow.remote.ip, udp::PROTOCOL, service, payload_len, out);
    } else {
        ipv6::emit(&flow.local.ip, &flow.remote.ip, udp::PROTOCOL, service, payload_len, out);
    }
}

/// Whether a packet may come from this address at all (RFC 1122 §3.2.1.3).
pub fn is_possible_source(ip: &Ip) -> bool {
    !(ip.is_multicast_or_broadcast() || ip.is_unspecified() || ip.is_loopback())
}
