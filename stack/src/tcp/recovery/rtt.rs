//! The retransmission timeout (RFC 6298).

use crate::time::{Instant, SEC};
use crate::tunables::Tunables;

/// Smoothed round-trip time, its variation, and the timeout they give, in microseconds.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(in crate::tcp) struct Rtt {
    /// SRTT × 8 and RTTVAR × 4: the fractions of RFC 6298's gains are kept. 0 is "no sample yet".
    srtt_x8: u32,
    rttvar_x4: u32,
    rto_us: u32,
    /// The smallest round trip of this stretch of [`MIN_WINDOW_S`] and the one before; when this one began.
    min_us: u32,
    old_min_us: u32,
    min_since_s: u32,
}

/// RFC 8985 §6.2 asks for a recent smallest round trip: it is one of the last five minutes at most, as Linux keeps it.
const MIN_WINDOW_S: u32 = 150;

/// Longest sample that is believed: keeps the arithmetic within 32 bits.
const SAMPLE_MAX_US: u32 = 120 * SEC as u32;

impl Rtt {
    pub(in crate::tcp) fn new(tunables: &Tunables) -> Rtt {
        Rtt { rto_us: clamp_us(tunables.rto_initial_us), ..Rtt::default() }
    }

    /// RFC 6298 §2. The floor is under the variation, not under the sum: SRTT + max(200 ms, 4·RTTVAR), as Linux does,
    /// so that a peer's delayed acknowledgement never looks like a loss.
    ///
    /// `least_us`: the sample for the smallest round trip.
    pub(in crate::tcp) fn sample(&mut self, rtt_us: u32, least_us: u32, now: Instant, tunables: &Tunables) {
        let r = rtt_us.clamp(1, SAMPLE_MAX_US);
        self.note_least(least_us.clamp(1, r), now);
        if self.srtt_x8 == 0 {
            (self.srtt_x8, self.rttvar_x4) = (r * 8, r * 2);
        } else {
            let error = r.abs_diff(self.srtt_x8 / 8);
            self.rttvar_x4 = self.rttvar_x4 - self.rttvar_x4 / 4 + error;
            self.srtt_x8 = self.srtt_x8 - self.srtt_x8 / 8 + r;
        }
        let variation = self.rttvar_x4.max(clamp_us(tunables.rto_min_us));
        self.rto_us = (self.srtt_x8 / 8 + variation).min(clamp_us(tunables.rto_max_us));
    }

    #[inline]
    fn note_least(&mut self, us: u32, now: Instant) {
        let now_s = (now.micros() / SEC) as u32;
        let age_s = now_s.saturating_sub(self.min_since_s);
        if self.min_us == 0 || age_s > MIN_WINDOW_S {
            self.old_min_us = if self.min_us == 0 || age_s > 2 * MIN_WINDOW_S { us } else { self.min_us };
            (self.min_us, self.min_since_s) = (us, now_s);
        }
        self.min_us = self.min_us.min(us);
    }

    /// The SYN was lost and nothing was measured: 3 seconds (RFC 6298 §5.7).
    pub(in crate::tcp) fn distrust(&mut self) {
        if self.srtt_x8 == 0 {
            self.rto_us = self.rto_us.max(3 * SEC as u32);
        }
    }

    pub(in crate::tcp) fn rto_us(&self) -> u64 {
        u64::from(self.rto_us)
    }

    pub(in crate::tcp) fn srtt_us(&self) -> u32 {
        self.srtt_x8 / 8
    }

    pub(in crate::tcp) fn rttvar_us(&self) -> u32 {
        self.rttvar_x4 / 4
    }

    pub(in crate::tcp) fn min_us(&self) -> u32 {
        self.min_us.min(self.old_min_us)
    }
}

fn clamp_us(us: u64) -> u32 {
    us.min(u64::from(u32::MAX / 2)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn first_sample_and_floor() {
        let t = Tunables::default();
        let mut rtt = Rtt::new(&t);
        assert_eq!(rtt.rto_us(), SEC);
        rtt.sample(10 * MS as u32, u32::MAX, Instant::ZERO, &t);
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (10_000, 5_000));
        assert_eq!(rtt.rto_us(), 210 * MS);
        rtt.sample(900 * MS as u32, u32::MAX, Instant::ZERO, &t);
        // SRTT = 7/8·10 + 1/8·900; RTTVAR = 3/4·5 + 1/4·890.
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (121_250, 226_250));
        assert_eq!(rtt.rto_us(), 121_250 + 905_000);
    }

    #[test]
    fn the_smallest_round_trip_is_a_recent_one() {
        let t = Tunables::default();
        let mut rtt = Rtt::new(&t);
        let mut sample = |us: u32, at_s: u64| {
            rtt.sample(us, us, Instant::from_micros(at_s * SEC), &t);
            rtt.min_us()
        };
        assert_eq!((sample(500, 1), sample(900, 2), sample(300, 100)), (500, 500, 300));
        // The path got longer: that is believed after five minutes at most, and not before half of that.
        assert_eq!((sample(800, 160), sample(800, 300)), (300, 300));
        assert_eq!(sample(800, 320), 800);
        // Nothing at all was heard for long.
        assert_eq!(sample(2000, 5000), 2000);
    }

    #[test]
    fn extremes_stay_in_range() {
        let t = Tunables::default();
        let mut rtt = Rtt::new(&t);
        for _ in 0..100 {
            rtt.sample(u32::MAX, u32::MAX, Instant::ZERO, &t);
        }
        assert!(rtt.rto_us() <= t.rto_max_us);
        for _ in 0..200 {
            rtt.sample(0, 0, Instant::ZERO, &t);
        }
        assert!(rtt.rto_us() < 201 * MS);
    }
}
