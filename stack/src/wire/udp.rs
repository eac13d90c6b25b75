//! UDP (RFC 768): the header, and when its checksum counts.

use super::be16;
use super::checksum::Sum;
use crate::addr::Ip;
use crate::drops::Drop;

/// IP protocol number.
pub const PROTOCOL: u8 = 17;

/// Bytes of a header; there is no other kind.
pub const HEADER_LEN: usize = 8;

/// Where the checksum is in the header.
pub const CHECKSUM_AT: usize = 6;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub source: u16,
    pub destination: u16,
    /// Bytes behind the header.
    pub payload_len: u16,
}

/// Reads the header at the start of an IP payload. What the IP packet holds beyond the datagram is ignored, as Linux
/// does. A length of zero means "longer than 16 bits can say" to RFC 2675 alone: no frame of ours holds such a datagram.
#[inline]
pub fn parse(datagram: &[u8]) -> Result<Header, Drop> {
    if datagram.len() < HEADER_LEN {
        return Err(Drop::UdpMalformed);
    }
    let len = be16(datagram, 4);
    if usize::from(len) < HEADER_LEN || usize::from(len) > datagram.len() {
        return Err(Drop::UdpMalformed);
    }
    let payload_len = len - HEADER_LEN as u16;
    Ok(Header { source: be16(datagram, 0), destination: be16(datagram, 2), payload_len })
}

/// Whether the checksum of `datagram`, header and payload and nothing behind them, is right. Zero means "none was made"
/// over IPv4 (RFC 768) and is forbidden over IPv6 (RFC 8200 §8.1). On a virtual device the field may hold the bare
/// pseudo-header sum of a sender that expected hardware to finish it.
#[inline]
pub fn is_checksum_right(src: &Ip, dst: &Ip, datagram: &[u8], device_is_virtual: bool) -> bool {
    let field = be16(datagram, CHECKSUM_AT);
    if field == 0 {
        return dst.is_v4();
    }
    let pseudo = Sum::pseudo_header(src, dst, PROTOCOL, datagram.len() as u16);
    (device_is_virtual && field == pseudo.fold()) || pseudo.add_bytes(datagram).fold() == 0xffff
}

/// Writes the header of a datagram with `payload_len` bytes, its checksum still zero, to the start of `out`.
#[inline]
pub fn emit(source: u16, destination: u16, payload_len: u16, out: &mut [u8]) {
    let out = &mut out[..HEADER_LEN];
    out[..2].copy_from_slice(&source.to_be_bytes());
    out[2..4].copy_from_slice(&destination.to_be_bytes());
    out[4..6].copy_from_slice(&(payload_len + HEADER_LEN as u16).to_be_bytes());
    out[CHECKSUM_AT..].copy_from_slice(&[0, 0]);
}

/// Puts the checksum in: in full, or the pseudo-header's sum for a device that finishes it. A sum of zero is sent as all
/// ones, because zero means "none".
#[inline]
pub fn seal(src: &Ip, dst: &Ip, datagram: &mut [u8], in_full: bool) {
    let pseudo = Sum::pseudo_header(src, dst, PROTOCOL, datagram.len() as u16);
    let checksum = if in_full { pseudo.add_bytes(datagram).checksum() } else { pseudo.fold() };
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    datagram[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ip = Ip::v4([10, 0, 0, 1]);
    const B: Ip = Ip::v4([10, 0, 0, 2]);

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut d = vec![0; HEADER_LEN];
        emit(5353, 53, payload.len() as u16, &mut d);
        d.extend_from_slice(payload);
        d
    }

    #[test]
    fn what_is_emitted_parses_at_every_length() {
        for len in 0..100u8 {
            let d = datagram(&(0..len).collect::<Vec<_>>());
            assert_eq!(parse(&d), Ok(Header { source: 5353, destination: 53, payload_len: u16::from(len) }));
        }
        let mut padded = datagram(b"abc");
        padded.extend_from_slice(&[0; 9]);
        assert_eq!(parse(&padded).map(|h| h.payload_len), Ok(3));
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let whole = datagram(b"abcd");
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Drop::UdpMalformed), "{len} bytes");
        }
        for said in [0u16, 7, 13, 0xffff] {
            let mut d = whole.clone();
            d[4..6].copy_from_slice(&said.to_be_bytes());
            assert_eq!(parse(&d), Err(Drop::UdpMalformed), "a length of {said}");
        }
    }

    #[test]
    fn checksums_of_all_forms() {
        let (a6, b6) = (Ip([0xfd; 16]), Ip([0x20; 16]));
        for (src, dst) in [(A, B), (a6, b6)] {
            let mut d = datagram(b"hello");
            seal(&src, &dst, &mut d, true);
            assert!(is_checksum_right(&src, &dst, &d, false));
            d[9] ^= 1;
            assert!(!is_checksum_right(&src, &dst, &d, true));
            seal(&src, &dst, &mut d, false);
            assert!(is_checksum_right(&src, &dst, &d, true), "finished by a device that is not there");
            assert!(!is_checksum_right(&src, &dst, &d, false), "a real device would have finished it");
            d[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&[0, 0]);
            assert_eq!(is_checksum_right(&src, &dst, &d, false), dst.is_v4());
        }
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        let mut d = datagram(&[0, 0]);
        seal(&A, &B, &mut d, true);
        let rest = [d[CHECKSUM_AT], d[CHECKSUM_AT + 1]];
        // Payload that completes the sum to all ones makes the checksum zero.
        d[8..10].copy_from_slice(&rest);
        d[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&[0, 0]);
        seal(&A, &B, &mut d, true);
        assert_eq!(&d[CHECKSUM_AT..HEADER_LEN], [0xff, 0xff]);
        assert!(is_checksum_right(&A, &B, &d, false));
    }
}
