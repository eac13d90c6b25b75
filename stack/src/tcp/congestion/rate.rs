//! How fast the network delivers: a sample with each acknowledgement.

use crate::buf::FrameMeta;
use crate::time::Instant;

/// What the connection remembers between acknowledgements.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(in crate::tcp) struct RateSampler {
    /// Octets delivered so far; wraps.
    delivered: u32,
}

/// What one acknowledgement says of the rate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::tcp) struct RateSample {
    /// Octets delivered over `interval_us`; 0 when nothing can be said.
    pub(in crate::tcp) delivered: u32,
    pub(in crate::tcp) interval_us: u32,
}

impl RateSampler {
    /// The payload of a frame goes to the network (again); `flight` octets were there before.
    #[inline]
    pub(in crate::tcp) fn on_sent(&mut self, meta: &mut FrameMeta, _flight: u32, _now: Instant) {
        meta.delivered = self.delivered;
    }

    /// The payload of a frame is delivered: acknowledged, or covered by a selective acknowledgement for the first time.
    #[inline]
    pub(in crate::tcp) fn on_delivered(&mut self, meta: &FrameMeta, _now: Instant) {
        self.delivered = self.delivered.wrapping_add(u32::from(meta.len));
    }

    /// All that one acknowledgement delivered was told: what it says. The next one starts anew.
    #[inline]
    pub(in crate::tcp) fn sample(&mut self, _now: Instant, _min_rtt_us: u32) -> RateSample {
        RateSample::default()
    }
}
