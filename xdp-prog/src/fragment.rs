//! Fragments of TCP segments: which stack gets them.
//!
//! The kernel would put a segment together, find no connection for it, and answer with a reset that kills ours. So the first fragment,
//! which has the ports, is decided upon like a whole segment, and the others follow it. One that overtakes the first passes: the sender
//! sends the segment again. UDP's fragments are the kernel's, for a datagram socket's shadow.

use crate::maps::{Proto, ipv4_mapped, is_ipv4_mapped};
use crate::packet::{Packet, be16};
use crate::parse::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, IpHeader, Kind, Segment, TCP, ethernet, ipv6_addresses, received,
};
use crate::steer::{mix, word};

/// What the decision needs to know about a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The packet that it is a part of: [`packet_of`].
    pub packet: u64,
    /// Of the first fragment: the segment's.
    pub first: Option<Segment>,
    /// Nothing comes behind it.
    pub is_last: bool,
}

/// A TCP fragment; `None` for whatever else.
#[inline(always)]
pub fn parse_fragment<P: Packet>(packet: &P, vlan_ok: bool) -> Option<Fragment> {
    let (ethertype, at) = ethernet(packet, vlan_ok).ok()?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, at),
        ETHERTYPE_IPV6 => ipv6(packet, at),
        _ => None,
    }
}

/// RFC 791 §3.1.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, at: usize) -> Option<Fragment> {
    let header = packet.bytes::<20>(at)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(be16::<2, 20>(&header));
    let ip = IpHeader {
        source: ipv4_mapped([header[12], header[13], header[14], header[15]]),
        destination: ipv4_mapped([header[16], header[17], header[18], header[19]]),
        proto: header[9],
        payload: at + header_len,
        end: at + total_len,
    };
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len {
        return None;
    }
    let place = be16::<6, 20>(&header);
    let id = u32::from(be16::<4, 20>(&header));
    fragment(packet, &ip, id, place & 0x1fff == 0, place & 0x2000 == 0)
}

/// RFC 8200 §4.5, with the fragment header right behind the fixed one, as everybody sends it.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, at: usize) -> Option<Fragment> {
    let header = packet.bytes::<8>(at)?;
    let (source, destination) = ipv6_addresses(packet, at).ok()?;
    if header[0] >> 4 != 6 || header[6] != FRAGMENT || is_ipv4_mapped(&source) || is_ipv4_mapped(&destination) {
        return None;
    }
    let extension = packet.bytes::<8>(at + 40)?;
    let end = at + 40 + usize::from(be16::<4, 8>(&header));
    let ip = IpHeader { source, destination, proto: extension[0], payload: at + 48, end };
    let place = be16::<2, 8>(&extension);
    let id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
    fragment(packet, &ip, id, place & 0xfff8 == 0, place & 1 == 0)
}

#[inline(always)]
fn fragment<P: Packet>(packet: &P, ip: &IpHeader, id: u32, is_first: bool, is_last: bool) -> Option<Fragment> {
    if ip.proto != TCP || ip.end > packet.len() {
        return None;
    }
    let whole = packet_of(&ip.destination, &ip.source, id);
    let first = if is_first { Some(segment(packet, ip)?) } else { None };
    Some(Fragment { packet: whole, first, is_last })
}

/// What the beginning of a TCP header says: a fragment need not hold all of it.
#[inline(always)]
fn segment<P: Packet>(packet: &P, ip: &IpHeader) -> Option<Segment> {
    let header = packet.bytes::<14>(ip.payload)?;
    Some(received(Proto::Tcp, ip, be16::<2, 14>(&header), be16::<0, 14>(&header), Kind::of_tcp(header[13])))
}

/// What tells packets in fragments apart: a fold of addresses and identification, because the program's stack has no room for all of them.
/// Should two packets have the same at the same time, a stack gets fragments that it will not use, and their sender sends again.
#[must_use]
#[inline(always)]
pub fn packet_of(local: &[u8; 16], remote: &[u8; 16], id: u32) -> u64 {
    let mut hash = mix(u64::from(id), word::<0>(local));
    hash = mix(hash, word::<8>(local));
    hash = mix(hash, word::<0>(remote));
    mix(hash, word::<8>(remote))
}
