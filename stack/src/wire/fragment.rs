//! Fragments of IPv4 (RFC 791 §3.1) and IPv6 (RFC 8200 §4.5) packets: reading one, and making the first of them the whole.

use super::checksum::Sum;
use super::{be16, ipv4, ipv6};
use crate::addr::Ip;
use crate::drops::Drop;
use crate::link::Family;

/// IPv6's name for its fragment header, and that header's bytes.
const FRAGMENT: u8 = 44;
const EXTENSION_LEN: usize = 8;

/// A fragment. Places count from the IP header's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    pub src: Ip,
    pub dst: Ip,
    pub id: u32,
    pub protocol: u8,
    /// The TOS octet, or traffic class.
    pub tos: u8,
    /// Where its part of the packet's payload is, and how long.
    pub at: usize,
    pub len: u16,
    /// Where that part belongs in the whole.
    pub offset: u16,
    /// Others come behind it.
    pub more: bool,
}

impl Fragment {
    /// Where the part ends in the whole.
    pub fn end(&self) -> usize {
        usize::from(self.offset) + usize::from(self.len)
    }
}

/// Reads a packet that is a fragment. Extension headers in front of IPv6's fragment header are not understood: nobody
/// sends them with TCP.
pub fn parse(bytes: &[u8], family: Family) -> Result<Fragment, Drop> {
    let fragment = match family {
        Family::V4 => parse_v4(bytes)?,
        Family::V6 => parse_v6(bytes)?,
    };
    // All but the last are cut at multiples of eight octets; and no packet is longer than its length field can say.
    let is_odd = fragment.more && fragment.len % 8 != 0;
    if fragment.len == 0 || is_odd || fragment.end() > usize::from(u16::MAX) {
        return Err(Drop::IpMalformed);
    }
    Ok(fragment)
}

fn parse_v4(bytes: &[u8]) -> Result<Fragment, Drop> {
    let ipv4::Packet { src, dst, protocol, tos, payload_off: at, .. } = ipv4::parse_quoted(bytes)?;
    let total = usize::from(be16(bytes, 2));
    if total < at || total > bytes.len() {
        return Err(Drop::IpMalformed);
    }
    if Sum::ZERO.add_bytes(&bytes[..at]).fold() != 0xffff {
        return Err(Drop::IpChecksum);
    }
    let place = be16(bytes, 6);
    let (offset, more) = ((place & 0x1fff) * 8, place & 0x2000 != 0);
    Ok(Fragment { src, dst, id: u32::from(be16(bytes, 4)), protocol, tos, at, len: (total - at) as u16, offset, more })
}

fn parse_v6(bytes: &[u8]) -> Result<Fragment, Drop> {
    let at = ipv6::HEADER_LEN + EXTENSION_LEN;
    if bytes.len() < at || bytes[0] >> 4 != 6 || bytes[6] != FRAGMENT {
        return Err(Drop::IpFragment);
    }
    let end = ipv6::HEADER_LEN + usize::from(be16(bytes, 4));
    if end < at || end > bytes.len() {
        return Err(Drop::IpMalformed);
    }
    let (mut src, mut dst) = (Ip::UNSPECIFIED, Ip::UNSPECIFIED);
    src.0.copy_from_slice(&bytes[8..24]);
    dst.0.copy_from_slice(&bytes[24..40]);
    let place = be16(bytes, 42);
    Ok(Fragment {
        src,
        dst,
        id: u32::from(be16(bytes, 44)) << 16 | u32::from(be16(bytes, 46)),
        protocol: bytes[40],
        tos: bytes[0] << 4 | bytes[1] >> 4,
        at,
        len: (end - at) as u16,
        offset: place & !7,
        more: place & 1 != 0,
    })
}

/// Makes the packet that begins with the first fragment whole: `bytes` starts with its IP header and holds `len` bytes
/// of payload behind it. Returns the packet's length. `ecn` is the whole's mark.
pub fn make_whole(bytes: &mut [u8], first: &Fragment, len: usize, ecn: u8) -> usize {
    let at = first.at;
    if first.src.is_v4() {
        bytes[1] |= ecn;
        bytes[2..4].copy_from_slice(&((at + len) as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&[0, 0]);
        bytes[10..12].copy_from_slice(&[0, 0]);
        let checksum = Sum::ZERO.add_bytes(&bytes[..at]).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        return at + len;
    }
    bytes[1] |= ecn << 4;
    bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    bytes[6] = first.protocol;
    bytes.copy_within(at..at + len, at - EXTENSION_LEN);
    at - EXTENSION_LEN + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Service;

    const PAYLOAD: [u8; 40] = [7; 40];

    fn ips() -> (Ip, Ip) {
        (Ip([0x20; 16]), Ip([0x21; 16]))
    }

    /// The first 24 bytes of a packet of 40, or what follows.
    fn v6(first: bool) -> Vec<u8> {
        let part = if first { &PAYLOAD[..24] } else { &PAYLOAD[24..] };
        let mut p = vec![0; 48];
        let (src, dst) = ips();
        ipv6::emit(&src, &dst, FRAGMENT, Service { tos: 0, ttl: 64 }, 8 + part.len() as u16, &mut p);
        p[40..48].copy_from_slice(&[6, 0, 0, if first { 1 } else { 24 }, 1, 2, 3, 4]);
        p.extend_from_slice(part);
        p
    }

    #[test]
    fn fragments_of_ipv6_are_read_and_made_whole() {
        let (first, last) = (parse(&v6(true), Family::V6).unwrap(), parse(&v6(false), Family::V6).unwrap());
        assert_eq!((first.src, first.dst), ips());
        assert_eq!(
            (first.id, first.protocol, first.at, first.len, first.offset, first.more),
            (0x0102_0304, 6, 48, 24, 0, true)
        );
        assert_eq!((last.len, last.offset, last.more), (16, 24, false));
        let mut whole = v6(true);
        whole.extend_from_slice(&PAYLOAD[24..]);
        let len = make_whole(&mut whole, &first, 40, 3);
        assert_eq!(len, 80);
        let packet = ipv6::parse(&whole[..len]).unwrap();
        assert_eq!((packet.protocol, packet.payload_off, packet.payload_len, packet.tos), (6, 40, 40, 3));
        assert_eq!(whole[40..80], PAYLOAD);
    }

    #[test]
    fn what_cannot_be_is_refused_at_every_length() {
        for len in 0..v6(true).len() {
            assert!(parse(&v6(true)[..len], Family::V6).is_err(), "{len}");
        }
        let with = |at: usize, value: u8| {
            let mut p = v6(true);
            p[at] = value;
            parse(&p, Family::V6)
        };
        assert_eq!(with(6, 6), Err(Drop::IpFragment), "no fragment header where it is looked for");
        assert_eq!(with(5, 7), Err(Drop::IpMalformed));
        assert_eq!(with(5, 8), Err(Drop::IpMalformed), "an empty one");
        assert_eq!(with(5, 31), Err(Drop::IpMalformed), "not in eights");
        assert_eq!(with(42, 0xff).map(|f| f.offset), Ok(0xff00));
        let mut p = v6(true);
        p[42..44].copy_from_slice(&[0xff, 0xf9]);
        assert_eq!(parse(&p, Family::V6), Err(Drop::IpMalformed), "beyond what a length can say");
    }
}
