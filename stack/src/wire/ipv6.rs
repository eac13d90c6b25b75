//! IPv6 (RFC 8200).

use super::be16;
pub use super::ipv4::{Packet, Service};
use crate::addr::Ip;
use crate::drops::Drop;

/// Bytes of the fixed header, the only kind we send.
pub const HEADER_LEN: usize = 40;
/// Extension headers that are walked before a packet is called malformed.
const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Reads a header and the extension headers behind it. Link padding is not part of the payload.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet, Drop> {
    if bytes.len() < HEADER_LEN || bytes[0] >> 4 != 6 {
        return Err(Drop::IpMalformed);
    }
    let end = HEADER_LEN + be16(bytes, 4) as usize;
    if end > bytes.len() {
        return Err(Drop::IpMalformed);
    }
    walk(&bytes[..end])
}

/// Reads a header that an ICMP error quotes: the quote ends before the packet did.
pub fn parse_quoted(bytes: &[u8]) -> Result<Packet, Drop> {
    if bytes.len() < HEADER_LEN || bytes[0] >> 4 != 6 {
        return Err(Drop::IpMalformed);
    }
    walk(bytes)
}

fn walk(bytes: &[u8]) -> Result<Packet, Drop> {
    let (mut protocol, mut at) = (bytes[6], HEADER_LEN);
    for _ in 0..EXTENSIONS_MAX {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let header = bytes.get(at..at + 2).ok_or(Drop::IpMalformed)?;
                protocol = header[0];
                at += 8 + usize::from(header[1]) * 8;
            }
            FRAGMENT => return Err(Drop::IpFragment),
            _ => {
                let payload_len = bytes.len().checked_sub(at).ok_or(Drop::IpMalformed)?;
                return Ok(Packet {
                    src: ip_at(bytes, 8),
                    dst: ip_at(bytes, 24),
                    protocol,
                    tos: bytes[0] << 4 | bytes[1] >> 4,
                    payload_off: at,
                    payload_len,
                });
            }
        }
    }
    Err(Drop::IpMalformed)
}

#[inline]
fn ip_at(bytes: &[u8], at: usize) -> Ip {
    let mut ip = Ip::UNSPECIFIED;
    ip.0.copy_from_slice(&bytes[at..at + 16]);
    ip
}

/// Writes the fixed header.
#[inline]
pub fn emit(src: &Ip, dst: &Ip, protocol: u8, service: Service, payload_len: u16, out: &mut [u8]) {
    let out = &mut out[..HEADER_LEN];
    out[..4].copy_from_slice(&[0x60 | service.tos >> 4, service.tos << 4, 0, 0]);
    out[4..6].copy_from_slice(&payload_len.to_be_bytes());
    out[6..8].copy_from_slice(&[protocol, service.ttl]);
    out[8..24].copy_from_slice(&src.0);
    out[24..40].copy_from_slice(&dst.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0; HEADER_LEN];
        emit(&Ip([0x20; 16]), &Ip([0xfd; 16]), next, Service { tos: 0xb9, ttl: 64 }, payload.len() as u16, &mut p);
        p.extend_from_slice(payload);
        p
    }

    #[test]
    fn what_is_emitted_parses() {
        let p = parse(&packet(6, &[1; 33])).unwrap();
        assert_eq!((p.src, p.dst, p.protocol), (Ip([0x20; 16]), Ip([0xfd; 16]), 6));
        assert_eq!((p.tos, p.payload_off, p.payload_len), (0xb9, 40, 33));
    }

    #[test]
    fn extension_headers_are_walked_and_bounded() {
        let mut payload = vec![DESTINATION, 0, 0, 0, 0, 0, 0, 0, 6, 1];
        payload.extend_from_slice(&[0; 14]);
        payload.extend_from_slice(&[9; 20]);
        let p = parse(&packet(HOP_BY_HOP, &payload)).unwrap();
        assert_eq!((p.protocol, p.payload_off, p.payload_len), (6, 64, 20));

        assert_eq!(parse(&packet(FRAGMENT, &[0; 8])), Err(Drop::IpFragment));
        assert_eq!(parse(&packet(HOP_BY_HOP, &[6])), Err(Drop::IpMalformed));
        assert_eq!(parse(&packet(HOP_BY_HOP, &[6, 200, 0, 0])), Err(Drop::IpMalformed));
        assert_eq!(parse(&packet(HOP_BY_HOP, &[0; 200])), Err(Drop::IpMalformed), "endless hop-by-hop headers");
        assert_eq!(parse(&packet(6, &[0; 20])[..59]), Err(Drop::IpMalformed));
    }
}
