//! How fast the network delivers: a sample with each acknowledgement (draft-cheng-iccrg-delivery-rate-estimation).
//!
//! Each frame carries away what was delivered when it was sent; when it is delivered itself, the difference is what the
//! network did in between. Times are the low 32 bits of microseconds, as in the frame's record.

use crate::buf::FrameMeta;
use crate::time::{Instant, MS, SEC};

/// A flag of a queued frame: when it was sent, the application had given us less than the network would have taken.
const APP_LIMITED: u16 = 1 << 15;

/// What the connection remembers between acknowledgements.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(in crate::tcp) struct RateSampler {
    /// Octets delivered so far; wraps. And when the last of them were.
    delivered: u32,
    delivered_at: u32,
    /// When the newest frame known to be delivered was sent; after a silence, when the first frame behind it was.
    first_sent_at: u32,
    /// While `is_app_limited`: until more than this is delivered, samples tell the application's pace.
    app_limited_until: u32,
    /// The last rate worth telling: octets over microseconds.
    told_delivered: u32,
    told_interval_us: u32,
    is_app_limited: bool,
    told_is_app_limited: bool,
    _pad: u16,
}

/// Of the newest frame that one acknowledgement delivers: what it carried away, and how long its flight took to send.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::tcp) struct Carried {
    delivered: u32,
    at: u32,
    send_us: u32,
    is_app_limited: bool,
    is_some: bool,
}

/// What one acknowledgement says of the rate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::tcp) struct RateSample {
    /// Octets delivered over `interval_us`; 0 when nothing can be said.
    pub(in crate::tcp) delivered: u32,
    pub(in crate::tcp) interval_us: u32,
    /// What had been delivered when the newest frame of this sample was sent: tells round trips apart.
    pub(in crate::tcp) prior_delivered: u32,
    /// The application, not the network, set the pace.
    pub(in crate::tcp) is_app_limited: bool,
}

impl RateSampler {
    /// The payload of a frame goes to the network (again); `flight` octets were there before.
    #[inline]
    pub(in crate::tcp) fn on_sent(&mut self, meta: &mut FrameMeta, flight: u32, now: Instant) {
        if flight == 0 {
            // Silence is not slowness: the interval starts here.
            (self.first_sent_at, self.delivered_at) = (low(now), low(now));
        }
        meta.delivered = self.delivered;
        meta.delivered_at = self.delivered_at;
        meta.first_sent_at = self.first_sent_at;
        meta.flags = if self.is_app_limited { meta.flags | APP_LIMITED } else { meta.flags & !APP_LIMITED };
    }

    /// The payload of a frame is delivered: acknowledged, or covered by a selective acknowledgement for the first time.
    #[inline]
    pub(in crate::tcp) fn on_delivered(&mut self, meta: &FrameMeta, now: Instant, carried: &mut Carried) {
        self.delivered = self.delivered.wrapping_add(u32::from(meta.len));
        self.delivered_at = low(now);
        // The newest of those that one acknowledgement covers counts; of equals, the last.
        if carried.is_some && is_before(meta.sent_at, self.first_sent_at) {
            return;
        }
        *carried = Carried {
            delivered: meta.delivered,
            at: meta.delivered_at,
            send_us: elapsed(meta.first_sent_at, meta.sent_at),
            is_app_limited: meta.flags & APP_LIMITED != 0,
            is_some: true,
        };
        self.first_sent_at = meta.sent_at;
    }

    /// All that one acknowledgement delivered was told: what it says.
    #[inline]
    pub(in crate::tcp) fn sample(&mut self, now: Instant, min_rtt_us: u32, carried: &Carried) -> RateSample {
        if !carried.is_some {
            return RateSample::default();
        }
        if self.is_app_limited && is_before(self.app_limited_until, self.delivered) {
            self.is_app_limited = false;
        }
        // Neither sending faster than the network delivers nor acknowledgements that come all at once may make the rate
        // look higher than it is. What took less than a round trip can be no measure at all.
        let interval_us = carried.send_us.max(elapsed(carried.at, low(now)));
        if interval_us == 0 || interval_us < min_rtt_us {
            return RateSample::default();
        }
        let sample = RateSample {
            delivered: self.delivered.wrapping_sub(carried.delivered),
            interval_us,
            prior_delivered: carried.delivered,
            is_app_limited: carried.is_app_limited,
        };
        self.tell(&sample);
        sample
    }

    /// Keeps a sample for tools: one that the application limited only when it is no lower than what is known.
    fn tell(&mut self, sample: &RateSample) {
        let faster = u64::from(sample.delivered) * u64::from(self.told_interval_us)
            >= u64::from(self.told_delivered) * u64::from(sample.interval_us);
        if !sample.is_app_limited || faster {
            (self.told_delivered, self.told_interval_us) = (sample.delivered, sample.interval_us);
            self.told_is_app_limited = sample.is_app_limited;
        }
    }

    /// Nothing waits, and the window has room beyond the `in_flight` octets in the network: what is sent before those are
    /// delivered says nothing of what the network could do.
    #[inline]
    pub(in crate::tcp) fn mark_app_limited(&mut self, in_flight: u32) {
        self.is_app_limited = true;
        self.app_limited_until = self.delivered.wrapping_add(in_flight);
    }

    pub(super) fn is_app_limited(&self) -> bool {
        self.is_app_limited
    }

    /// Octets delivered so far; wraps.
    pub(super) fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Octets a second, and whether the application held that down; 0 before the first sample.
    pub(in crate::tcp) fn latest(&self) -> (u64, bool) {
        let rate = u64::from(self.told_delivered) * SEC / u64::from(self.told_interval_us.max(1));
        (rate, self.told_is_app_limited)
    }
}

/// The clock's low half: microseconds that wrap after 71 minutes.
pub(super) fn low(now: Instant) -> u32 {
    now.micros() as u32
}

/// Milliseconds that wrap after 49 days.
pub(super) fn low_ms(now: Instant) -> u32 {
    (now.micros() / MS) as u32
}

/// Of numbers that wrap, be they times or octets.
pub(super) fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// From one such time to the other; 0 when the callers' clocks disagree on which was first.
pub(super) fn elapsed(from: u32, to: u32) -> u32 {
    if is_before(to, from) { 0 } else { to.wrapping_sub(from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of 1000 octets, sent.
    fn send(rate: &mut RateSampler, flight: u32, at_us: u64) -> FrameMeta {
        let now = Instant::from_micros(at_us);
        let mut meta = FrameMeta { len: 1000, sent_at: low(now), transmissions: 1, ..FrameMeta::default() };
        rate.on_sent(&mut meta, flight, now);
        meta
    }

    fn deliver(rate: &mut RateSampler, meta: &FrameMeta, at_us: u64, min_rtt_us: u32) -> RateSample {
        let (now, mut carried) = (Instant::from_micros(at_us), Carried::default());
        rate.on_delivered(meta, now, &mut carried);
        rate.sample(now, min_rtt_us, &carried)
    }

    /// Around the point where the clock's low half wraps.
    const START: u64 = u32::MAX as u64 - 10_000;

    #[test]
    fn steady_flow_is_measured_exactly() {
        // A frame each millisecond, a round trip of ten: one megabyte a second.
        let mut rate = RateSampler::default();
        let mut flying = std::collections::VecDeque::new();
        let mut last = RateSample::default();
        for step in 0..50 {
            if step >= 10 {
                let meta = flying.pop_front().unwrap();
                last = deliver(&mut rate, &meta, START + step * 1000, 10_000);
            }
            let flight = flying.len() as u32 * 1000;
            flying.push_back(send(&mut rate, flight, START + step * 1000));
        }
        assert_eq!((last.delivered, last.interval_us), (10_000, 10_000));
        assert_eq!(rate.latest(), (1_000_000, false));
    }

    #[test]
    fn acknowledgements_all_at_once_do_not_look_fast() {
        let mut rate = RateSampler::default();
        let frames: Vec<_> = (0..10).map(|i| send(&mut rate, i * 1000, START + u64::from(i) * 1000)).collect();
        let now = Instant::from_micros(START + 20_000);
        let mut carried = Carried::default();
        frames.iter().for_each(|meta| rate.on_delivered(meta, now, &mut carried));
        let sample = rate.sample(now, 10_000, &carried);
        assert_eq!((sample.delivered, sample.interval_us), (10_000, 20_000));
        // A burst, acknowledged slowly: the acknowledgements set the pace.
        let burst: Vec<_> = (0..4).map(|i| send(&mut rate, i * 1000, START + 30_000)).collect();
        for (i, meta) in burst.iter().enumerate() {
            let sample = deliver(&mut rate, meta, START + 40_000 + i as u64 * 1000, 10_000);
            assert_eq!((sample.delivered, sample.interval_us), (1000 * (i as u32 + 1), 10_000 + i as u32 * 1000));
        }
    }

    #[test]
    fn less_than_a_round_trip_is_no_measure() {
        let mut rate = RateSampler::default();
        let meta = send(&mut rate, 0, START);
        assert_eq!(deliver(&mut rate, &meta, START + 9_999, 10_000), RateSample::default());
        let meta = send(&mut rate, 0, START);
        assert_eq!(deliver(&mut rate, &meta, START - 5, 0), RateSample::default(), "an older clock");
        assert_eq!(
            rate.sample(Instant::from_micros(START), 0, &Carried::default()),
            RateSample::default(),
            "nothing delivered"
        );
    }

    #[test]
    fn silence_does_not_count() {
        let mut rate = RateSampler::default();
        let meta = send(&mut rate, 0, START);
        deliver(&mut rate, &meta, START + 10_000, 10_000);
        let meta = send(&mut rate, 0, START + 5_000_000);
        let sample = deliver(&mut rate, &meta, START + 5_010_000, 10_000);
        assert_eq!((sample.delivered, sample.interval_us), (1000, 10_000));
    }

    #[test]
    fn what_the_application_held_back_is_marked_until_it_is_through() {
        let mut rate = RateSampler::default();
        let before = send(&mut rate, 0, START);
        rate.mark_app_limited(1000);
        let behind = send(&mut rate, 1000, START + 1000);
        assert!(!deliver(&mut rate, &before, START + 10_000, 10_000).is_app_limited);
        let sample = deliver(&mut rate, &behind, START + 40_000, 10_000);
        assert!(sample.is_app_limited && !rate.is_app_limited());
        assert!(!rate.latest().1, "a lower rate that the application set is not told");
        let after = send(&mut rate, 0, START + 42_000);
        assert!(!deliver(&mut rate, &after, START + 52_000, 10_000).is_app_limited);
    }
}
