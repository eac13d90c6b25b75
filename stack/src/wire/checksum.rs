//! The Internet checksum (RFC 1071), eight bytes at a time.

use crate::addr::Ip;

/// A one's complement sum in the machine's byte order, not yet folded. The order of the bytes comes right when the sum
/// is folded (RFC 1071 §2 B), so nothing is swapped on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sum(u64);

impl Sum {
    pub const ZERO: Sum = Sum(0);

    /// The TCP/UDP/ICMPv6 pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
    ///
    /// A v4-mapped address brings an extra 0xffff for its prefix, which is zero in one's complement: so one function
    /// serves both families.
    #[inline]
    pub fn pseudo_header(src: &Ip, dst: &Ip, protocol: u8, len: u16) -> Sum {
        let (s0, s1) = src.halves();
        let (d0, d1) = dst.halves();
        let rest = u64::from(u16::from(protocol).to_be()) + u64::from(len.to_be());
        Sum(rest).add_word(s0).add_word(s1).add_word(d0).add_word(d1)
    }

    /// Adds eight bytes, as they lie in memory.
    #[inline]
    pub fn add_word(self, word: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(word);
        Sum(sum + u64::from(carry))
    }

    /// Adds bytes that start at an even offset of what is summed.
    #[inline(never)]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        // The carries of all words are counted in the upper half: two instructions for eight bytes.
        let mut sum = u128::from(self.0);
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for word in block.as_chunks::<8>().0 {
                sum += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        let sum = Sum(sum as u64).add_word((sum >> 64) as u64);
        if rest.is_empty() { sum } else { sum.add_rest(rest) }
    }

    /// Fewer than eight bytes: as if zeroes followed.
    #[inline]
    fn add_rest(self, rest: &[u8]) -> Sum {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add_word(u64::from_ne_bytes(last))
    }

    /// An IPv4 header without options.
    #[inline]
    pub fn of_header(header: &[u8; 20]) -> Sum {
        let (words, last) = (header.as_chunks::<8>().0, [header[16], header[17], header[18], header[19]]);
        let last = u64::from(u32::from_ne_bytes(last));
        Sum(u64::from_ne_bytes(words[0])).add_word(u64::from_ne_bytes(words[1])).add_word(last)
    }

    /// The folded sum as a number of the wire (not complemented).
    #[inline]
    pub fn fold(self) -> u16 {
        // Of a number and the same with its halves exchanged: the upper half of the sum is that of both, with its carry.
        let s = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        u16::from_be((s.wrapping_add(s.rotate_left(16)) >> 16) as u16)
    }

    /// What belongs into the checksum field.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071's own loop.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn agrees_with_the_rfc_at_every_length() {
        let mut x = 1u32;
        let bytes: [u8; 1600] = core::array::from_fn(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        });
        for len in 0..bytes.len() {
            assert_eq!(Sum::ZERO.add_bytes(&bytes[..len]).fold(), reference(&bytes[..len]), "length {len}");
        }
        assert_eq!(Sum::ZERO.add_bytes(&[0xff; 1500]).fold(), 0xffff);
        assert_eq!(Sum(u64::MAX).add_bytes(&[0xff; 128]).fold(), 0xffff, "carries on top of carries");
        assert_eq!(Sum::ZERO.add_bytes(&[0xff; 1500]).add_bytes(&[0xff; 1500]).fold(), 0xffff);
    }

    #[test]
    fn parts_add_up() {
        let bytes: [u8; 100] = core::array::from_fn(|i| (i * 7) as u8);
        let whole = Sum::ZERO.add_bytes(&bytes);
        for cut in (0..100).step_by(2) {
            let parts = Sum::ZERO.add_bytes(&bytes[..cut]).add_bytes(&bytes[cut..]);
            assert_eq!(parts.fold(), whole.fold());
        }
    }

    #[test]
    fn the_pseudo_header_of_both_families() {
        let (a, b) = (Ip::v4([10, 1, 2, 3]), Ip::v4([192, 168, 77, 1]));
        let v4 = [10, 1, 2, 3, 192, 168, 77, 1, 0, 6, 0x05, 0xdc];
        assert_eq!(Sum::pseudo_header(&a, &b, 6, 1500).fold(), reference(&v4));
        let (a, b) = (Ip([0xfe; 16]), Ip([0x20; 16]));
        let mut v6 = [0; 40];
        v6[..16].copy_from_slice(&a.0);
        v6[16..32].copy_from_slice(&b.0);
        v6[34..36].copy_from_slice(&1500u16.to_be_bytes());
        v6[39] = 6;
        assert_eq!(Sum::pseudo_header(&a, &b, 6, 1500).fold(), reference(&v6));
    }
}
