//! How scarce frames are, and what that leaves to each connection.
//!
//! Windows and send buffers promise more, all together, than there are frames; so the promise shrinks as frames run
//! out. What matters is that the fill rings never run dry: then nothing could arrive any more, acknowledgements
//! included.

use super::FRAME_SIZE;

/// How scarce frames are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[repr(u8)]
pub enum Pressure {
    /// There are enough.
    #[default]
    None,
    /// Few are left: windows and send buffers grow no further than the allowance.
    Low,
    /// A connection that holds received frames gets no more of them.
    Critical,
    /// Nor does one whose application never read anything, or whose peer never took anything: the last frames are for
    /// those that give them back.
    Exhausted,
}

/// One frame, more or less: any segment fits, and a window of it survives rounding to whatever shift.
const ALLOWANCE_CRITICAL: u32 = FRAME_SIZE as u32;
const ALLOWANCE_LOW: u32 = 4 * FRAME_SIZE as u32;

impl Pressure {
    /// From the frames that can be had and all that circulate: below a quarter it is low, below an eighth critical.
    #[must_use]
    pub const fn of(free: u32, all: u32) -> Pressure {
        if free < all / 16 {
            Pressure::Exhausted
        } else if free < all / 8 {
            Pressure::Critical
        } else if free < all / 4 {
            Pressure::Low
        } else {
            Pressure::None
        }
    }

    /// Octets that one connection may offer as a window, and as many that it may hold to be sent.
    #[must_use]
    pub const fn allowance(self) -> u32 {
        match self {
            Pressure::None => u32::MAX,
            Pressure::Low => ALLOWANCE_LOW,
            Pressure::Critical | Pressure::Exhausted => ALLOWANCE_CRITICAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_what_is_free() {
        let levels = [0, 255, 256, 511, 512, 1023, 1024, 4096].map(|free| Pressure::of(free, 4096));
        use Pressure::{Critical, Exhausted, Low, None};
        assert_eq!(levels, [Exhausted, Exhausted, Critical, Critical, Low, Low, None, None]);
        assert!(levels.is_sorted_by(|a, b| a >= b));
        assert!(Critical.allowance() < Low.allowance() && Low.allowance() < None.allowance());
    }
}
