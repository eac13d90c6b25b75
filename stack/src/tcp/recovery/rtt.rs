//! The retransmission timeout (RFC 6298).

use crate::time::SEC;
use crate::tunables::Tunables;

/// Smoothed round-trip time, its variation, and the timeout they give, in microseconds.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(in crate::tcp) struct Rtt {
    /// SRTT × 8 and RTTVAR × 4: the fractions of RFC 6298's gains are kept. 0 is "no sample yet".
    srtt_x8: u32,
    rttvar_x4: u32,
    rto_us: u32,
    min_us: u32,
}

/// Longest sample that is believed: keeps the arithmetic within 32 bits.
const SAMPLE_MAX_US: u32 = 120 * SEC as u32;

impl Rtt {
    pub(in crate::tcp) fn new(tunables: &Tunables) -> Rtt {
        Rtt { rto_us: clamp_us(tunables.rto_initial_us), ..Rtt::default() }
    }

    /// RFC 6298 §2. The floor is under the variation, not under the sum: SRTT + max(200 ms, 4·RTTVAR), as Linux does,
    /// so that a peer's delayed acknowledgement never looks like a loss.
    pub(in crate::tcp) fn sample(&mut self, rtt_us: u32, tunables: &Tunables) {
        let r = rtt_us.clamp(1, SAMPLE_MAX_US);
        if self.srtt_x8 == 0 {
            (self.srtt_x8, self.rttvar_x4, self.min_us) = (r * 8, r * 2, r);
        } else {
            let error = r.abs_diff(self.srtt_x8 / 8);
            self.rttvar_x4 = self.rttvar_x4 - self.rttvar_x4 / 4 + error;
            self.srtt_x8 = self.srtt_x8 - self.srtt_x8 / 8 + r;
            self.min_us = self.min_us.min(r);
        }
        let variation = self.rttvar_x4.max(clamp_us(tunables.rto_min_us));
        self.rto_us = (self.srtt_x8 / 8 + variation).min(clamp_us(tunables.rto_max_us));
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
        self.min_us
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
        rtt.sample(10 * MS as u32, &t);
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (10_000, 5_000));
        assert_eq!(rtt.rto_us(), 210 * MS);
        rtt.sample(900 * MS as u32, &t);
        // SRTT = 7/8·10 + 1/8·900; RTTVAR = 3/4·5 + 1/4·890.
        assert_eq!((rtt.srtt_us(), rtt.rttvar_us()), (121_250, 226_250));
        assert_eq!(rtt.rto_us(), 121_250 + 905_000);
    }

    #[test]
    fn extremes_stay_in_range() {
        let t = Tunables::default();
        let mut rtt = Rtt::new(&t);
        for _ in 0..100 {
            rtt.sample(u32::MAX, &t);
        }
        assert!(rtt.rto_us() <= t.rto_max_us);
        for _ in 0..200 {
            rtt.sample(0, &t);
        }
        assert!(rtt.rto_us() < 201 * MS);
    }
}
