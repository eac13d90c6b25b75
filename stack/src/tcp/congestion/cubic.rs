//! CUBIC (RFC 9438): the window follows a cubic function of the time since the last congestion event, and is never less
//! than Reno's would be. Slow start is HyStart++'s (`hystart.rs`) until the first event.
//!
//! Octets where the RFC has segments, milliseconds where it has seconds, whole numbers throughout. Like Linux, and as
//! RFC 9438 §4.6 allows where growth stops with the use of the window, the reduction starts from the window and not from
//! what is in flight.

use super::hystart::HyStart;
use super::rate::{elapsed, low_ms};
use super::{CWND_MAX, Delivery, Window};
use crate::time::{Instant, MS};

/// §4.6: β = 0.7.
const BETA: (u64, u64) = (7, 10);
/// §4.7: (1 + β) / 2.
const FAST_CONVERGENCE: (u64, u64) = (17, 20);
/// §4.3: α = 3·(1 − β) / (1 + β).
const ALPHA: (u64, u64) = (9, 17);
/// Farther from the plateau than this (milliseconds) the function is beyond any window.
const DISTANCE_MAX_MS: u64 = 500_000;

/// The shape of the curve: what a spurious event has to give back (§4.9.2).
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
struct Curve {
    /// When the current congestion avoidance stage began (milliseconds), moved on by the time in which the window was not
    /// used (§5.8); 0 between a congestion event and the first growth after it.
    epoch_at_ms: u32,
    /// Where the plateau is: octets, and milliseconds after the epoch began.
    w_max: u32,
    k_ms: u32,
    /// Reno's window, and the window before the last event: from there on Reno's grows by a segment each round trip.
    w_est: u32,
    cwnd_prior: u32,
}

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Cubic {
    curve: Curve,
    before: Curve,
    /// When the curve was last looked at.
    looked_at_ms: u32,
    /// What of a growth was less than an octet: of the window, in 1/cwnd; of Reno's likewise.
    rest: u32,
    rest_est: u32,
    pub(super) hystart: HyStart,
}

impl Cubic {
    #[inline]
    pub(super) fn on_ack(&mut self, window: &mut Window, delivery: &Delivery) {
        if !delivery.is_cwnd_limited {
            return self.pass(delivery.now);
        }
        let mut acked = delivery.acked;
        if window.cwnd < window.ssthresh {
            acked = self.start_slowly(window, delivery);
        }
        if acked > 0 && window.cwnd >= window.ssthresh {
            self.avoid(window, delivery, acked);
        }
    }

    /// Slow start. Returns the octets acknowledged that it has no use for.
    fn start_slowly(&mut self, window: &mut Window, delivery: &Delivery) -> u32 {
        // RFC 9406 §4.3: only while nothing is known of the path.
        let growth =
            if window.ssthresh == CWND_MAX { self.hystart.on_ack(delivery, window.cwnd) } else { Some(delivery.acked) };
        let Some(growth) = growth else {
            window.ssthresh = window.cwnd;
            return delivery.acked;
        };
        let room = window.ssthresh - window.cwnd;
        window.grow(growth.min(room));
        growth.saturating_sub(room)
    }

    /// Congestion avoidance, §4.2 to §4.5.
    fn avoid(&mut self, window: &mut Window, delivery: &Delivery, acked: u32) {
        let Delivery { now, mss, srtt_us, .. } = *delivery;
        let now_ms = low_ms(now);
        if self.curve.epoch_at_ms == 0 {
            self.begin_epoch(window.cwnd, now_ms, mss);
        }
        self.looked_at_ms = now_ms;
        let cwnd = u64::from(window.cwnd.max(1));
        self.estimate_reno(cwnd, acked, mss);
        let elapsed_ms = u64::from(elapsed(self.curve.epoch_at_ms, now_ms));
        if self.curve.at_ms(elapsed_ms, mss) < u64::from(self.curve.w_est) {
            window.cwnd = window.cwnd.max(self.curve.w_est).min(CWND_MAX);
            return;
        }
        let target = self.curve.at_ms(elapsed_ms + u64::from(srtt_us) / MS, mss).clamp(cwnd, cwnd + cwnd / 2);
        let growth = (target - cwnd) * u64::from(acked) + u64::from(self.rest);
        self.rest = (growth % cwnd) as u32;
        window.grow((growth / cwnd).min(u64::from(CWND_MAX)) as u32);
    }

    /// W_est += α · acked / cwnd, in segments.
    fn estimate_reno(&mut self, cwnd: u64, acked: u32, mss: u32) {
        let curve = &mut self.curve;
        let (num, den) = if curve.w_est < curve.cwnd_prior { ALPHA } else { (1, 1) };
        let growth = u64::from(acked) * u64::from(mss) * num / den + u64::from(self.rest_est);
        self.rest_est = (growth % cwnd) as u32;
        curve.w_est = (u64::from(curve.w_est) + growth / cwnd).min(u64::from(CWND_MAX)) as u32;
    }

    fn begin_epoch(&mut self, cwnd: u32, now_ms: u32, mss: u32) {
        let curve = &mut self.curve;
        // Above the old plateau, after a timeout (§4.8), or out of HyStart++ (§4.10): the plateau is here.
        curve.k_ms = curve.w_max.checked_sub(cwnd).map_or(0, |below| k_ms(below, mss));
        curve.w_max = curve.w_max.max(cwnd);
        curve.w_est = cwnd;
        curve.epoch_at_ms = now_ms.max(1);
        (self.rest, self.rest_est) = (0, 0);
    }

    /// The window was not used since the curve was last looked at: that time does not count.
    #[inline]
    pub(super) fn pass(&mut self, now: Instant) {
        let now_ms = low_ms(now);
        if self.curve.epoch_at_ms != 0 {
            let passed_ms = elapsed(self.looked_at_ms, now_ms);
            self.curve.epoch_at_ms = self.curve.epoch_at_ms.wrapping_add(passed_ms).max(1);
        }
        self.looked_at_ms = now_ms;
    }

    /// A congestion event: returns the slow start threshold (§4.6).
    pub(super) fn on_congestion(&mut self, cwnd: u32, mss: u32) -> u32 {
        self.before = self.curve;
        let w_max = if cwnd < self.curve.w_max { scale(cwnd, FAST_CONVERGENCE) } else { cwnd };
        self.curve = Curve { w_max, cwnd_prior: cwnd, ..Curve::default() };
        scale(cwnd, BETA).max(2 * mss)
    }

    /// A timeout: nothing of the curve holds any more (§4.8).
    pub(super) fn on_timeout(&mut self, cwnd: u32, mss: u32) -> u32 {
        let ssthresh = self.on_congestion(cwnd, mss);
        self.curve.w_max = 0;
        ssthresh
    }

    /// The last event was none (§4.9).
    pub(super) fn undo(&mut self) {
        self.curve = self.before;
    }
}

impl Curve {
    /// W_cubic, `t_ms` after the epoch began (§4.2): C·(t − K)³ + W_max, with C = 0.4.
    fn at_ms(&self, t_ms: u64, mss: u32) -> u64 {
        let (k_ms, w_max) = (u64::from(self.k_ms), u64::from(self.w_max));
        let distance = t_ms.abs_diff(k_ms).min(DISTANCE_MAX_MS);
        // Split so that neither the cube's low digits nor its high ones are lost: 0.4e-9 = 4 / 10^4 / 10^6.
        let octets = distance * distance * distance / 10_000 * (4 * u64::from(mss)) / 1_000_000;
        if t_ms < k_ms { w_max.saturating_sub(octets) } else { w_max + octets }
    }
}

/// K, in milliseconds (§4.2): ∛(below / C).
fn k_ms(below: u32, mss: u32) -> u32 {
    cube_root(u64::from(below) * 2_500_000_000 / u64::from(mss.max(1)))
}

fn scale(octets: u32, (num, den): (u64, u64)) -> u32 {
    (u64::from(octets) * num / den) as u32
}

/// The cube root, rounded down: digit by digit, from the top.
fn cube_root(mut n: u64) -> u32 {
    let mut root = 0u64;
    for shift in (0..=63).rev().step_by(3) {
        root *= 2;
        let next = 3 * root * (root + 1) + 1;
        if n >> shift >= next {
            n -= next << shift;
            root += 1;
        }
    }
    root as u32
}

#[cfg(test)]
#[path = "cubic_tests.rs"]
mod tests;
