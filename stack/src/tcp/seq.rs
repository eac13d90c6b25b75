//! Sequence numbers: 32 bits that wrap (RFC 9293 §3.4).

/// A sequence number. Comparisons hold for numbers less than 2^31 apart, which windows guarantee.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// Octets from `earlier` up to `self`.
    pub const fn since(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    pub const fn is_before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    pub const fn is_after(self, other: Seq) -> bool {
        other.is_before(self)
    }

    /// The later of the two.
    #[must_use]
    pub fn later(self, other: Seq) -> Seq {
        if self.is_before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Seq) -> Seq {
        if other.is_before(self) { other } else { self }
    }

    /// Whether `self` lies in the window of `len` octets that starts at `start`.
    pub const fn is_in(self, start: Seq, len: u32) -> bool {
        self.since(start) < len
    }
}

impl core::ops::Add<u32> for Seq {
    type Output = Seq;
    fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

impl core::ops::AddAssign<u32> for Seq {
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl core::ops::Sub<u32> for Seq {
    type Output = Seq;
    fn sub(self, n: u32) -> Seq {
        Seq(self.0.wrapping_sub(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_survive_the_wrap() {
        for base in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let (a, b) = (Seq(base), Seq(base) + 1000);
            assert!(a.is_before(b) && b.is_after(a) && !a.is_before(a) && !a.is_after(a));
            assert_eq!((a.later(b), a.earlier(b), b.since(a)), (b, a, 1000));
            assert!(a.is_in(a, 1) && !b.is_in(a, 1000) && (b - 1).is_in(a, 1000) && !(a - 1).is_in(a, 1000));
        }
    }
}
