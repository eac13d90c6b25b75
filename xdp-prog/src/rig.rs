//! What the test rig's dropper shares with its loader. Not part of the product.

/// Map `LOSS`, `Array[1]`: what to drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// A frame is dropped when its dice, 0..2^32, are below this.
    pub threshold: u64,
    /// Where the dice of [`seeded`] start.
    pub seed: u64,
    /// 0: the kernel's random numbers. 1: [`seeded`], so that the same frames in the same order meet the same fate.
    pub seeded: u64,
}

impl Loss {
    /// The bytes of this value in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        for (chunk, word) in out.chunks_exact_mut(8).zip([self.threshold, self.seed, self.seeded]) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// Map `WIRES`, `Array[2]`, ingress and egress: what was done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// TCP and UDP frames that came by.
    pub seen: u64,
    /// Those of them that were dropped.
    pub dropped: u64,
}

impl Wire {
    /// The value those bytes are.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let (mut seen, mut dropped) = ([0; 8], [0; 8]);
        seen.copy_from_slice(&bytes[..8]);
        dropped.copy_from_slice(&bytes[8..]);
        Self { seen: u64::from_ne_bytes(seen), dropped: u64::from_ne_bytes(dropped) }
    }
}

/// The threshold for a share of `parts` in a million.
#[must_use]
pub const fn threshold(parts_per_million: u32) -> u64 {
    ((parts_per_million as u64) << 32) / 1_000_000
}

/// Whether a frame with this ethertype and protocol (IPv6: first next header) is one to drop: TCP or UDP, never ARP or neighbour
/// discovery, whose loss would only make tests slow.
#[must_use]
#[inline(always)]
pub const fn is_victim(ethertype: [u8; 2], proto: u8) -> bool {
    matches!(ethertype, [0x08, 0x00] | [0x86, 0xdd]) && matches!(proto, 6 | 17)
}

/// Dice for frame `number` of a direction: splitmix64, of which any output can be had without the ones before.
#[must_use]
#[inline(always)]
pub const fn seeded(seed: u64, direction: u32, number: u64) -> u32 {
    let step = (number << 1 | direction as u64).wrapping_add(1);
    let mut word = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_everything_drops_everything_and_of_nothing_nothing() {
        assert_eq!(threshold(1_000_000), 1 << 32);
        assert_eq!(threshold(0), 0);
        assert!(threshold(1) > 0);
    }

    #[test]
    fn seeded_dice_are_fair_and_differ_by_direction() {
        let limit = threshold(20_000);
        for direction in 0..2 {
            let dropped = (0..100_000).filter(|n| u64::from(seeded(42, direction, *n)) < limit).count();
            assert!((1_800..2_200).contains(&dropped), "{dropped} of 100000 at 2 %");
        }
        assert_ne!(seeded(42, 0, 7), seeded(42, 1, 7));
        assert_eq!(seeded(42, 0, 7), seeded(42, 0, 7));
    }

    #[test]
    fn only_tcp_and_udp_over_ip_are_victims() {
        assert!(is_victim([0x08, 0x00], 6) && is_victim([0x86, 0xdd], 17));
        assert!(!is_victim([0x08, 0x06], 6) && !is_victim([0x86, 0xdd], 58));
    }
}
