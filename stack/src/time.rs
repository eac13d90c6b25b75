//! Time as the core knows it: microseconds of the monotonic clock, given to it as an argument.

/// A point on the monotonic clock, in microseconds. Zero means "never set" where a field can be unset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin; also the value of a deadline that is not armed.
    pub const ZERO: Instant = Instant(0);
    /// Later than any other.
    pub const FAR: Instant = Instant(u64::MAX);

    /// The instant `us` microseconds after the clock's origin.
    pub const fn from_micros(us: u64) -> Self {
        Instant(us)
    }

    /// Microseconds since the clock's origin.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whether this is a real instant, not the "never set" value.
    pub const fn is_set(self) -> bool {
        self.0 != 0
    }

    /// `us` microseconds later, saturating.
    #[must_use]
    pub const fn after_us(self, us: u64) -> Self {
        Instant(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since_us(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Microseconds in a millisecond.
pub const MS: u64 = 1_000;
/// Microseconds in a second.
pub const SEC: u64 = 1_000_000;
