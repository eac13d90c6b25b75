//! From a frame to the flow it belongs to, or to the reason why it is not ours to judge.
//!
//! Ethernet → up to two VLAN tags → IPv4 or IPv6 → TCP, UDP, or an ICMP error and the packet that it quotes.
//! Whatever is odd is left to the kernel, which answers for it as it always did: a parser that guesses steals packets.

use crate::maps::{FlowKey, Proto, Verdict, ipv4_mapped, is_ipv4_mapped};
use crate::packet::{Packet, be16};

/// IPv6 extension headers walked before the program gives up. Each is up to 2 KiB, so this also bounds every offset for the verifier.
pub const MAX_EXTENSION_HEADERS: usize = 4;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// What the decision needs to know about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flow, seen from this host.
    pub key: FlowKey,
    /// Its protocol.
    pub proto: Proto,
    /// What kind of packet of that flow it is.
    pub kind: Kind,
}

/// How a packet relates to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN without ACK: wants to open a connection.
    Opens,
    /// A TCP SYN with ACK, or a RST: may answer who wants to.
    Answers,
    /// Any other TCP segment, or a UDP datagram.
    Belongs,
    /// An ICMP error about a packet that the flow sent.
    Quoted,
}

impl Kind {
    /// Of a TCP segment with these flags: the fourteenth octet of its header.
    #[inline(always)]
    pub(crate) fn of_tcp(flags: u8) -> Kind {
        const SYN: u8 = 0x02;
        const RST: u8 = 0x04;
        const ACK: u8 = 0x10;
        match flags & (SYN | RST | ACK) {
            SYN => Kind::Opens,
            ACK | 0 => Kind::Belongs,
            _ => Kind::Answers,
        }
    }
}

/// An IP header, fixed and extension parts together.
pub(crate) struct IpHeader {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// Protocol of the payload.
    pub(crate) proto: u8,
    /// Where the payload starts in the frame.
    pub(crate) payload: usize,
    /// Where the packet ends in the frame, going by its own length field.
    pub(crate) end: usize,
}

/// The flow of a frame, or the verdict that lets it pass.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, vlan_ok: bool) -> Result<Segment, Verdict> {
    let (ethertype, at) = ethernet(packet, vlan_ok)?;
    let ip = match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, at)?,
        ETHERTYPE_IPV6 => ipv6(packet, at)?,
        _ => return Err(Verdict::PassNotIp),
    };
    if ip.end > packet.len() {
        return Err(Verdict::PassMalformed);
    }
    match (ip.proto, ethertype) {
        (TCP, _) => tcp(packet, &ip),
        (UDP, _) => udp(packet, &ip),
        (ICMP, ETHERTYPE_IPV4) | (ICMPV6, ETHERTYPE_IPV6) => icmp(packet, &ip, ethertype),
        _ => Err(Verdict::PassProtocol),
    }
}

/// The ethertype behind the VLAN tags, and where its header starts.
#[inline(always)]
pub(crate) fn ethernet<P: Packet>(packet: &P, vlan_ok: bool) -> Result<(u16, usize), Verdict> {
    let header = packet.bytes::<14>(0).ok_or(Verdict::PassNotIp)?;
    // A unicast IP packet in a broadcast or multicast frame is nobody's connection (RFC 1122 §3.3.6).
    if header[0] & 1 != 0 {
        return Err(Verdict::PassNotLocal);
    }
    let ethertype = be16::<12, 14>(&header);
    if !is_tag(ethertype) {
        return Ok((ethertype, 14));
    }
    if !vlan_ok {
        return Err(Verdict::PassTagged);
    }
    let ethertype = ethertype_of_tag(packet, 14)?;
    if !is_tag(ethertype) {
        return Ok((ethertype, 18));
    }
    Ok((ethertype_of_tag(packet, 18)?, 22))
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

/// What follows the tag whose control word is at `at`.
#[inline(always)]
fn ethertype_of_tag<P: Packet>(packet: &P, at: usize) -> Result<u16, Verdict> {
    let tag = packet.bytes::<4>(at).ok_or(Verdict::PassMalformed)?;
    Ok(be16::<2, 4>(&tag))
}

/// RFC 791. The header checksum is left to the engine: a damaged address only leads to a stack that drops the packet.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, at: usize) -> Result<IpHeader, Verdict> {
    let header = packet.bytes::<20>(at).ok_or(Verdict::PassMalformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(be16::<2, 20>(&header));
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(Verdict::PassMalformed);
    }
    // More-fragments or an offset: everything but don't-fragment and the reserved bit.
    if be16::<6, 20>(&header) & 0x3fff != 0 {
        return Err(Verdict::PassFragment);
    }
    Ok(IpHeader {
        source: ipv4_mapped([header[12], header[13], header[14], header[15]]),
        destination: ipv4_mapped([header[16], header[17], header[18], header[19]]),
        proto: header[9],
        payload: at + header_len,
        end: at + total_len,
    })
}

/// RFC 8200, as far as [`MAX_EXTENSION_HEADERS`].
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, at: usize) -> Result<IpHeader, Verdict> {
    let header = packet.bytes::<8>(at).ok_or(Verdict::PassMalformed)?;
    let (source, destination) = ipv6_addresses(packet, at)?;
    let payload_len = usize::from(be16::<4, 8>(&header));
    // IPv4-mapped addresses do not belong on the wire, and would pass for IPv4 flows in our maps.
    let mapped = is_ipv4_mapped(&source) || is_ipv4_mapped(&destination);
    if header[0] >> 4 != 6 || payload_len == 0 || mapped {
        return Err(Verdict::PassMalformed);
    }
    let (proto, payload) = skip_extensions(packet, header[6], at + 40)?;
    Ok(IpHeader { source, destination, proto, payload, end: at + 40 + payload_len })
}

/// Source and destination of the header at `at`.
#[inline(always)]
pub(crate) fn ipv6_addresses<P: Packet>(packet: &P, at: usize) -> Result<([u8; 16], [u8; 16]), Verdict> {
    let source = packet.bytes::<16>(at + 8).ok_or(Verdict::PassMalformed)?;
    let destination = packet.bytes::<16>(at + 24).ok_or(Verdict::PassMalformed)?;
    Ok((source, destination))
}

/// The upper-layer protocol, and where it starts.
#[inline(always)]
fn skip_extensions<P: Packet>(packet: &P, first: u8, at: usize) -> Result<(u8, usize), Verdict> {
    let (mut next, mut at) = (first, at);
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            FRAGMENT => return Err(Verdict::PassFragment),
            _ => return Ok((next, at)),
        }
        let header = packet.bytes::<4>(at).ok_or(Verdict::PassMalformed)?;
        // Segments left: the packet is only passing through (RFC 8200 §4.4).
        if next == ROUTING && header[3] != 0 {
            return Err(Verdict::PassOptionsOdd);
        }
        next = header[0];
        at += (usize::from(header[1]) + 1) * 8;
    }
    match next {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(Verdict::PassOptionsOdd),
        FRAGMENT => Err(Verdict::PassFragment),
        _ => Ok((next, at)),
    }
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, ip: &IpHeader) -> Result<Segment, Verdict> {
    let header = packet.bytes::<20>(ip.payload).ok_or(Verdict::PassMalformed)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || ip.payload + header_len > ip.end {
        return Err(Verdict::PassMalformed);
    }
    let (theirs, ours) = (be16::<0, 20>(&header), be16::<2, 20>(&header));
    Ok(received(Proto::Tcp, ip, ours, theirs, Kind::of_tcp(header[13])))
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, ip: &IpHeader) -> Result<Segment, Verdict> {
    let header = packet.bytes::<8>(ip.payload).ok_or(Verdict::PassMalformed)?;
    let len = usize::from(be16::<4, 8>(&header));
    if len < 8 || ip.payload + len > ip.end {
        return Err(Verdict::PassMalformed);
    }
    let (theirs, ours) = (be16::<0, 8>(&header), be16::<2, 8>(&header));
    Ok(received(Proto::Udp, ip, ours, theirs, Kind::Belongs))
}

#[inline(always)]
pub(crate) fn received(proto: Proto, ip: &IpHeader, ours: u16, theirs: u16, kind: Kind) -> Segment {
    let key = FlowKey::new(proto, ip.destination, ours, ip.source, theirs);
    Segment { key, proto, kind }
}

/// ICMP "destination unreachable", and ICMPv6 also "packet too big" (in IPv4 that is code 4 of the former): the errors that a
/// flow must hear of (RFC 1191, 8201, 1122 §4.2.3.9). The rest, and whatever cannot be read, is the kernel's.
#[inline(always)]
fn icmp<P: Packet>(packet: &P, outer: &IpHeader, ethertype: u16) -> Result<Segment, Verdict> {
    let header = packet.bytes::<8>(outer.payload).ok_or(Verdict::PassMalformed)?;
    let at = outer.payload + 8;
    let inner = match (ethertype, header[0]) {
        (ETHERTYPE_IPV4, 3) => ipv4(packet, at),
        (ETHERTYPE_IPV6, 1 | 2) => ipv6(packet, at),
        _ => return Err(Verdict::PassIcmp),
    };
    let inner = inner.map_err(|_| Verdict::PassIcmp)?;
    // An error about a packet of ours comes back to the address that sent it; anything else was not caused by us.
    if inner.source != outer.destination || inner.payload + 8 > outer.end {
        return Err(Verdict::PassIcmp);
    }
    let proto = match inner.proto {
        TCP => Proto::Tcp,
        UDP => Proto::Udp,
        _ => return Err(Verdict::PassIcmp),
    };
    let ports = packet.bytes::<4>(inner.payload).ok_or(Verdict::PassIcmp)?;
    let (ours, theirs) = (be16::<0, 4>(&ports), be16::<2, 4>(&ports));
    let key = FlowKey::new(proto, inner.source, ours, inner.destination, theirs);
    Ok(Segment { key, proto, kind: Kind::Quoted })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
