//! What the bytes of a frame mean, header by header: parse and emit, nothing else.
//!
//! - [`ethernet`], [`ipv4`], [`ipv6`], [`icmp`], [`tcp`], [`udp`]: one header each;
//! - [`fragment`]: packets in parts;
//! - [`checksum`]: the Internet checksum.

pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// A big-endian word at a place that the caller has checked.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A big-endian double word at a place that the caller has checked.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
