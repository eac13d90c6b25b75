//! Ethernet II.

use super::be16;
use crate::addr::Mac;

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub dst: Mac,
    pub src: Mac,
    pub ethertype: u16,
}

/// `None` when the frame is shorter than a header.
#[inline]
pub fn parse(frame: &[u8]) -> Option<Header> {
    let h = frame.get(..HEADER_LEN)?;
    Some(Header {
        dst: Mac([h[0], h[1], h[2], h[3], h[4], h[5]]),
        src: Mac([h[6], h[7], h[8], h[9], h[10], h[11]]),
        ethertype: be16(h, 12),
    })
}

/// Writes the header to the first bytes of `out`.
#[inline]
pub fn emit(header: &Header, out: &mut [u8]) {
    out[..6].copy_from_slice(&header.dst.0);
    out[6..12].copy_from_slice(&header.src.0);
    out[12..14].copy_from_slice(&header.ethertype.to_be_bytes());
}
