//! HyStart++ (RFC 9406): slow start ends when round trips grow longer, before anything is lost.
//!
//! No limit of segments per acknowledgement is kept (the RFC's L): see `reno.rs` for why.
//!
//! Beside the RFC's, two signs end slow start at once, as they do on Linux: acknowledgements that come in one dense train
//! for longer than half the shortest round trip (what is under way nearly fills the path), and round trips so much longer
//! that it is no jitter, which is all that the careful rounds are for. Without them a sender leaves slow start later than
//! Linux's do, and takes their share of a path with a deep queue for a long time.

use super::Delivery;
use super::rate::{elapsed, is_before};
use crate::time::Instant;

/// RFC 9406 §4.3.
const MIN_RTT_THRESH_US: u32 = 4_000;
const MAX_RTT_THRESH_US: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;
/// A round whose shortest trip is longer than the path's by this fills a queue: a quarter of it, and no less than that.
const PLAIN_RTT_DIVISOR: u32 = 4;
const PLAIN_RTT_THRESH_US: u32 = 2 * MIN_RTT_THRESH_US;
/// Acknowledgements that come in such short turns are of one train.
const TRAIN_GAP_US: u32 = 2_000;
/// Windows of fewer segments say nothing of the path.
const LEAST_WINDOW_SEGMENTS: u32 = 16;

/// "Infinity": no round trip was seen in the round.
const NEVER: u32 = u32::MAX;

/// What one slow start remembers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct HyStart {
    /// The round ends when this is acknowledged.
    window_end: u32,
    last_round_min_us: u32,
    current_round_min_us: u32,
    /// The round trip that made us careful.
    css_baseline_us: u32,
    /// The shortest round trip of all; when the round began, and when the last acknowledgement of its train came (low 32 bits).
    shortest_us: u32,
    began_at_us: u32,
    train_at_us: u32,
    samples: u8,
    /// Rounds in conservative slow start, the one in which it began included; 0 outside of it.
    css_rounds: u8,
    has_begun: bool,
    _pad: u8,
}

impl Default for HyStart {
    fn default() -> HyStart {
        HyStart {
            window_end: 0,
            last_round_min_us: NEVER,
            current_round_min_us: NEVER,
            css_baseline_us: NEVER,
            shortest_us: NEVER,
            began_at_us: 0,
            train_at_us: 0,
            samples: 0,
            css_rounds: 0,
            has_begun: false,
            _pad: 0,
        }
    }
}

impl HyStart {
    /// How many octets the window may grow for this acknowledgement; `None`: slow start is over.
    #[inline]
    pub(super) fn on_ack(&mut self, delivery: &Delivery, cwnd: u32) -> Option<u32> {
        if !self.has_begun {
            self.has_begun = true;
            self.start_round(delivery);
        }
        if let Some(rtt_us) = delivery.rtt_us {
            self.take_sample(rtt_us);
        }
        if cwnd >= LEAST_WINDOW_SEGMENTS * delivery.mss && (self.is_train_long(delivery) || self.is_queue_plain()) {
            return None;
        }
        let growth = if self.css_rounds > 0 { delivery.acked / CSS_GROWTH_DIVISOR } else { delivery.acked };
        if !is_before(delivery.una, self.window_end) {
            if self.css_rounds >= CSS_ROUNDS {
                return None;
            }
            self.start_round(delivery);
        }
        Some(growth)
    }

    /// Whether the round's acknowledgements have come one after the other for half a round trip; or for a whole one, where
    /// a pace has spread the segments, as Linux has it.
    fn is_train_long(&mut self, delivery: &Delivery) -> bool {
        let now_us = low_us(delivery.now);
        if elapsed(self.train_at_us, now_us) > TRAIN_GAP_US {
            return false;
        }
        self.train_at_us = now_us;
        let most_us = if delivery.is_paced { self.shortest_us } else { self.shortest_us / 2 };
        elapsed(self.began_at_us, now_us) > most_us
    }

    fn is_queue_plain(&self) -> bool {
        let thresh = (self.shortest_us / PLAIN_RTT_DIVISOR).max(PLAIN_RTT_THRESH_US);
        self.samples >= N_RTT_SAMPLE && self.current_round_min_us >= self.shortest_us.saturating_add(thresh)
    }

    fn take_sample(&mut self, rtt_us: u32) {
        self.shortest_us = self.shortest_us.min(rtt_us);
        self.current_round_min_us = self.current_round_min_us.min(rtt_us);
        self.samples = self.samples.saturating_add(1);
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        if self.css_rounds > 0 {
            if self.current_round_min_us < self.css_baseline_us {
                // It was jitter.
                (self.css_rounds, self.css_baseline_us) = (0, NEVER);
            }
        } else if self.last_round_min_us != NEVER {
            let thresh = (self.last_round_min_us / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH_US, MAX_RTT_THRESH_US);
            if self.current_round_min_us >= self.last_round_min_us.saturating_add(thresh) {
                (self.css_rounds, self.css_baseline_us) = (1, self.current_round_min_us);
            }
        }
    }

    fn start_round(&mut self, delivery: &Delivery) {
        self.window_end = delivery.nxt;
        (self.began_at_us, self.train_at_us) = (low_us(delivery.now), low_us(delivery.now));
        self.last_round_min_us = self.current_round_min_us;
        self.current_round_min_us = NEVER;
        self.samples = 0;
        self.css_rounds += u8::from(self.css_rounds > 0);
    }

    #[cfg(test)]
    pub(super) fn is_careful(&self) -> bool {
        self.css_rounds > 0
    }
}

fn low_us(at: Instant) -> u32 {
    at.micros() as u32
}
