//! The timestamps option (RFC 7323): round-trip times, and protection against wrapped sequence numbers.

use super::Seq;
use crate::time::{Instant, MS};

/// A timestamp older than this may be stale rather than old (RFC 7323 §5.5): 24 days, in milliseconds.
const STALE_AFTER_MS: u32 = 24 * 24 * 3600 * 1000;
/// No two callers' clocks are farther apart.
const DISAGREEMENT_MS: u32 = 1000;

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Timestamps {
    /// Added to the clock, so that a flow's timestamps tell nothing about another's.
    pub(super) offset: u32,
    /// TS.Recent, and when it was taken.
    pub(super) recent: u32,
    recent_at_ms: u32,
    /// Before the handshake: we offer it. After: both agreed.
    pub(super) on: bool,
    has_recent: bool,
    _pad: u16,
}

pub(super) fn ms(now: Instant) -> u32 {
    (now.micros() / MS) as u32
}

/// Milliseconds from one such time to now, up to 49 days; 0 when the callers' clocks disagree on which was first.
pub(super) fn ms_since(at_ms: u32, now: Instant) -> u32 {
    let elapsed = ms(now).wrapping_sub(at_ms);
    if elapsed > u32::MAX - DISAGREEMENT_MS { 0 } else { elapsed }
}

impl Timestamps {
    pub(super) fn new(offset: u32, on: bool) -> Timestamps {
        Timestamps { offset, on, ..Timestamps::default() }
    }

    /// The peer's SYN said this.
    pub(super) fn agree(&mut self, option: Option<(u32, u32)>, now: Instant) {
        match option {
            Some((value, _)) if self.on => self.take(value, now),
            _ => self.on = false,
        }
    }

    fn take(&mut self, value: u32, now: Instant) {
        self.recent = value;
        self.recent_at_ms = ms(now);
        self.has_recent = true;
    }

    /// What an outgoing segment carries.
    #[inline]
    pub(super) fn option(&self, now: Instant) -> Option<(u32, u32)> {
        self.on.then(|| (ms(now).wrapping_add(self.offset), self.recent))
    }

    /// PAWS (RFC 7323 §5.3): whether a segment with this option is older than what was seen before.
    #[inline]
    pub(super) fn is_old(&self, option: Option<(u32, u32)>, now: Instant) -> bool {
        match option {
            Some((value, _)) if self.on && Seq(value).is_before(Seq(self.recent)) => {
                ms(now).wrapping_sub(self.recent_at_ms) < STALE_AFTER_MS
            }
            _ => false,
        }
    }

    /// TS.Recent follows the segments that start at or before the last acknowledgement sent (RFC 7323 §4.3): so a
    /// delayed acknowledgement echoes the first segment it covers. The caller checked [`Timestamps::is_old`].
    #[inline]
    pub(super) fn note(&mut self, option: Option<(u32, u32)>, seq: Seq, last_ack_sent: Seq, now: Instant) {
        if let (true, Some((value, _))) = (self.on && !seq.is_after(last_ack_sent), option) {
            self.take(value, now);
        }
    }

    /// The round-trip time that an echo tells, in microseconds (a millisecond at least).
    pub(super) fn rtt_us(&self, echo: u32, now: Instant) -> Option<u32> {
        let elapsed = ms(now).wrapping_add(self.offset).wrapping_sub(echo);
        (self.on && echo != 0 && elapsed < 1 << 20).then(|| elapsed.max(1) * MS as u32)
    }
}
