//! IPv4 (RFC 791).

use super::be16;
use super::checksum::Sum;
use crate::addr::Ip;
use crate::drops::Drop;

/// Bytes of a header without options, the only kind we send.
pub const HEADER_LEN: usize = 20;

/// What the receiving side needs of a header. Offsets count from the header's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub src: Ip,
    pub dst: Ip,
    pub protocol: u8,
    /// The TOS octet, or traffic class.
    pub tos: u8,
    pub payload_off: usize,
    pub payload_len: usize,
}

/// How routers are to treat a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The TOS octet, or traffic class; its two low bits are explicit congestion notification's.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// Reads a header. Link padding behind the datagram is not part of the payload.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet, Drop> {
    let packet = parse_quoted(bytes)?;
    let total = be16(bytes, 2) as usize;
    if total < packet.payload_off || total > bytes.len() {
        return Err(Drop::IpMalformed);
    }
    let sum = match bytes.first_chunk() {
        Some(header) if packet.payload_off == HEADER_LEN => Sum::of_header(header),
        _ => Sum::ZERO.add_bytes(&bytes[..packet.payload_off]),
    };
    if sum.fold() != 0xffff {
        return Err(Drop::IpChecksum);
    }
    // MF set, or an offset: fragments are the kernel's business. DF and the reserved bit do not matter.
    if be16(bytes, 6) & 0x3fff != 0 {
        return Err(Drop::IpFragment);
    }
    Ok(Packet { payload_len: total - packet.payload_off, ..packet })
}

/// Reads a header that an ICMP error quotes: cut short behind the header, its checksum not to be trusted (RFC 1812
/// §4.3.2.3: routers may have changed it). `payload_len` is what is there.
pub fn parse_quoted(bytes: &[u8]) -> Result<Packet, Drop> {
    if bytes.len() < HEADER_LEN {
        return Err(Drop::IpMalformed);
    }
    let payload_off = usize::from(bytes[0] & 0xf) * 4;
    if bytes[0] >> 4 != 4 || payload_off < HEADER_LEN || payload_off > bytes.len() {
        return Err(Drop::IpMalformed);
    }
    Ok(Packet {
        src: Ip::v4([bytes[12], bytes[13], bytes[14], bytes[15]]),
        dst: Ip::v4([bytes[16], bytes[17], bytes[18], bytes[19]]),
        protocol: bytes[9],
        tos: bytes[1],
        payload_off,
        payload_len: bytes.len() - payload_off,
    })
}

/// Writes a header with don't-fragment set. The identification is zero, which RFC 6864 §4.1 allows for such datagrams.
#[inline]
pub fn emit(src: &Ip, dst: &Ip, protocol: u8, service: Service, payload_len: u16, out: &mut [u8]) {
    let [l0, l1] = (payload_len + HEADER_LEN as u16).to_be_bytes();
    let (head, src, dst) = ([0x45, service.tos, l0, l1, 0, 0, 0x40, 0], src.v4_bytes(), dst.v4_bytes());
    // Summed before it is written: to read in words what was just written in parts makes a processor wait.
    let rest = [[service.ttl, protocol, 0, 0], src, dst].map(|word| u64::from(u32::from_ne_bytes(word)));
    let sum = Sum::ZERO.add_word(u64::from_ne_bytes(head)).add_word(rest[0] + rest[1] + rest[2]);
    let [c0, c1] = sum.checksum().to_be_bytes();
    let out = &mut out[..HEADER_LEN];
    out[..8].copy_from_slice(&head);
    out[8..12].copy_from_slice(&[service.ttl, protocol, c0, c1]);
    out[12..16].copy_from_slice(&src);
    out[16..].copy_from_slice(&dst);
}

/// Lets routers cut up the packet of a header that was emitted; its fragments need a name then (RFC 6864 §4.2).
pub fn allow_fragments(header: &mut [u8], identification: u16) {
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[6..8].copy_from_slice(&[0, 0]);
    let header = &mut header[..HEADER_LEN];
    header[10..12].copy_from_slice(&[0, 0]);
    let checksum = Sum::ZERO.add_bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut p = vec![0; 60];
        emit(&Ip::v4([10, 0, 0, 1]), &Ip::v4([10, 0, 0, 2]), 6, Service { tos: 0xb9, ttl: 64 }, 40, &mut p);
        p
    }

    #[test]
    fn what_is_emitted_parses() {
        let p = parse(&packet()).unwrap();
        assert_eq!((p.src, p.dst), (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2])));
        assert_eq!((p.protocol, p.tos, p.payload_off, p.payload_len), (6, 0xb9, 20, 40));
    }

    #[test]
    fn what_may_be_cut_has_a_name_and_a_checksum() {
        let mut p = packet();
        allow_fragments(&mut p, 0x1234);
        assert!(parse(&p).is_ok());
        assert_eq!(p[4..8], [0x12, 0x34, 0, 0]);
    }

    #[test]
    fn padding_is_not_payload() {
        let mut p = packet();
        p.extend_from_slice(&[0; 6]);
        assert_eq!(parse(&p).unwrap().payload_len, 40);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut p = packet();
            change(&mut p);
            parse(&p).unwrap_err()
        };
        assert_eq!(with(&|p| p.truncate(19)), Drop::IpMalformed);
        assert_eq!(with(&|p| p.truncate(59)), Drop::IpMalformed);
        assert_eq!(with(&|p| p[0] = 0x65), Drop::IpMalformed);
        assert_eq!(with(&|p| p[0] = 0x44), Drop::IpMalformed);
        assert_eq!(with(&|p| p[8] = 63), Drop::IpChecksum);
        assert_eq!(
            with(&|p| {
                p[6] = 0x20; // MF instead of DF: 0x2000 less in the sum
                let fixed = Sum::ZERO.add_bytes(&p[..10]).add_bytes(&p[12..20]).checksum();
                p[10..12].copy_from_slice(&fixed.to_be_bytes());
            }),
            Drop::IpFragment
        );
    }
}
