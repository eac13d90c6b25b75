//! HyStart++ (RFC 9406): slow start ends when round trips grow longer, before anything is lost.
//!
//! No limit of segments per acknowledgement is kept (the RFC's L): see `reno.rs` for why.

use super::Delivery;
use super::rate::is_before;

/// RFC 9406 §4.3.
const MIN_RTT_THRESH_US: u32 = 4_000;
const MAX_RTT_THRESH_US: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

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
    pub(super) fn on_ack(&mut self, delivery: &Delivery) -> Option<u32> {
        if !self.has_begun {
            (self.has_begun, self.window_end) = (true, delivery.nxt);
        }
        if let Some(rtt_us) = delivery.rtt_us {
            self.take_sample(rtt_us);
        }
        let growth = if self.css_rounds > 0 { delivery.acked / CSS_GROWTH_DIVISOR } else { delivery.acked };
        if !is_before(delivery.una, self.window_end) {
            if self.css_rounds >= CSS_ROUNDS {
                return None;
            }
            self.start_round(delivery.nxt);
        }
        Some(growth)
    }

    fn take_sample(&mut self, rtt_us: u32) {
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

    fn start_round(&mut self, nxt: u32) {
        self.window_end = nxt;
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
