//! RACK (RFC 8985 §6): what was sent earlier than something that is delivered, and by more than reordering explains,
//! is lost. That finds lost retransmissions as well, and does not count duplicates.

use super::super::sender::elapsed_us;
use super::super::{Context, Seq, Tcb};
use super::scoreboard::end_of;
use super::{Newest, Phase, Tally};
use crate::buf::FrameMeta;
use crate::time::Instant;

/// Until reordering was seen, so many reported frames are loss enough (RFC 8985's DupThresh).
const DUP_THRESH: u32 = 3;
/// Recoveries after which a window that duplicates widened is narrow again.
const PERSIST: u8 = 16;

/// No two callers' clocks are farther apart.
const DISAGREEMENT_US: u32 = 1_000_000;

fn low(now: Instant) -> u32 {
    now.micros() as u32
}

/// What RACK remembers.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Rack {
    /// When the frame delivered that was sent last was sent (the clock's low half, while `is_set`); its end; its round
    /// trip.
    sent_at: u32,
    end: Seq,
    rtt_us: u32,
    /// SND.NXT when a duplicate last widened the window: the next counts after a round trip.
    dsack_round: Seq,
    /// The greatest distance, in segments, that something arrived late by.
    reordering: u16,
    /// The reordering window is so many quarters of the smallest round trip.
    quarters: u8,
    persist: u8,
    saw_reordering: bool,
    is_in_dsack_round: bool,
    /// Something was delivered since losses were last looked for.
    has_advanced: bool,
    is_set: bool,
}

impl Rack {
    pub(super) fn new() -> Rack {
        Rack { quarters: 1, ..Rack::default() }
    }

    /// Segments that reordering moved at most, and at least three, as Linux tells it.
    pub(super) fn reordering(&self) -> u32 {
        u32::from(self.reordering).max(DUP_THRESH)
    }

    /// RFC 8985 §6.2, step 2. A retransmission that seems to have been faster than the fastest was not what arrived. The RFC
    /// asks the echoed timestamp of every one; but behind a hole the peer echoes what came before the hole, and then no
    /// retransmission there would ever count. So it is asked only of what filled the front (Linux does not ask at all).
    #[inline]
    pub(super) fn advance(&mut self, newest: &Newest, now: Instant, min_rtt_us: u32, is_echo_older: bool) {
        if newest.was_resent && (newest.rtt_us < min_rtt_us || is_echo_older) {
            return;
        }
        self.rtt_us = newest.rtt_us;
        self.has_advanced = true;
        let is_later = match self.age_us(now) {
            Some(age_us) if newest.rtt_us == age_us => newest.end.is_after(self.end),
            Some(age_us) => newest.rtt_us < age_us,
            None => true,
        };
        if is_later {
            (self.sent_at, self.end, self.is_set) = (low(now).wrapping_sub(newest.rtt_us), newest.end, true);
        }
    }

    /// How long ago the frame delivered that was sent last was sent. After a silence that is told modulo 71 minutes: all
    /// that is sent later seems so, unless it arrives within its round trip of a multiple of that.
    fn age_us(&self, now: Instant) -> Option<u32> {
        let age_us = low(now).wrapping_sub(self.sent_at);
        self.is_set.then_some(if age_us > u32::MAX - DISAGREEMENT_US { 0 } else { age_us })
    }

    /// Losses have to be looked for again, though nothing was delivered.
    pub(super) fn look_again(&mut self) {
        self.has_advanced = true;
    }

    /// How much longer a frame that went earlier than what is delivered may take; `None`: it did not go earlier.
    fn remaining_us(&self, meta: &FrameMeta, now: Instant, reorder_us: u32) -> Option<u64> {
        let age_us = elapsed_us(meta.sent_at, now);
        let newest_age_us = self.age_us(now)?;
        let is_tie = age_us == newest_age_us;
        let is_earlier = age_us > newest_age_us || is_tie && end_of(meta).is_before(self.end);
        // Within a microsecond the number does not tell whether what went again went earlier: it has one more to come.
        let grace_us = u64::from(is_tie && meta.transmissions > 1);
        let limit_us = u64::from(self.rtt_us) + u64::from(reorder_us) + grace_us;
        is_earlier.then(|| limit_us.saturating_sub(u64::from(age_us)))
    }

    /// A recovery is over: a window that duplicates widened is narrow again after some of them.
    pub(super) fn note_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }
}

impl Tcb {
    /// RFC 8985 §6.2, step 3: something arrived on its first way after something behind it.
    pub(super) fn note_reordering(&mut self, tally: &Tally) {
        let Some(seq) = tally.reordered_from else { return };
        let distance = tally.fack.since(seq).div_ceil(u32::from(self.snd.mss.max(1)));
        self.reord_seen = self.reord_seen.saturating_add(1);
        let rack = &mut self.recovery.rack;
        rack.saw_reordering = true;
        rack.reordering = rack.reordering.max(distance.min(REORDERING_MAX) as u16);
    }

    /// RFC 8985 §6.2, step 4: a duplicate says that something was sent again too early. Once in a round trip. Unless a
    /// timeout did that, it was overtaken: the frame itself does not tell any more, having been sent twice.
    pub(super) fn widen_reordering_window(&mut self, tally: &Tally) {
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        let is_after_timeout = self.recovery.phase == Phase::Loss;
        let rack = &mut self.recovery.rack;
        rack.saw_reordering |= tally.dsack_of_loss && !is_after_timeout;
        // Until more than that is acknowledged: when nothing is in flight, all reports are of one round.
        rack.is_in_dsack_round &= !una.is_after(rack.dsack_round) && !rack.dsack_round.is_after(nxt);
        if tally.dsack_of_loss && !rack.is_in_dsack_round {
            rack.is_in_dsack_round = true;
            rack.dsack_round = nxt;
            rack.quarters = rack.quarters.saturating_add(1);
            rack.persist = PERSIST;
        }
    }

    /// RFC 8985 §6.2, step 4: how late something may be that others overtook.
    fn reorder_window_us(&self) -> u32 {
        let rack = &self.recovery.rack;
        let is_eager = self.recovery.phase != Phase::Open || self.snd.board.sacked_frames >= DUP_THRESH;
        if !rack.saw_reordering && is_eager {
            return 0;
        }
        let quarters = u64::from(self.rtt.min_us() / 4) * u64::from(rack.quarters);
        quarters.min(u64::from(self.rtt.srtt_us())) as u32
    }

    /// RFC 8985 §6.2, step 5: marks what is lost; how long until more may be. The RFC waits for the last of what is
    /// overdue; here the next one sets the timer, whose ticks are coarse enough to take them together.
    pub(super) fn detect_losses(&mut self, cx: &mut Context<'_, '_>) -> Option<u64> {
        if !core::mem::take(&mut self.recovery.rack.has_advanced) {
            return None;
        }
        let (rack, now, reorder_us) = (self.recovery.rack, cx.now, self.reorder_window_us());
        let mut wait_us: Option<u64> = None;
        let mut is_lost = |meta: &FrameMeta| match rack.remaining_us(meta, now, reorder_us) {
            Some(0) => true,
            Some(us) => {
                wait_us = Some(wait_us.map_or(us, |least| least.min(us)));
                false
            }
            None => false,
        };
        while let Some(id) = self.snd.board.resent_first()
            && is_lost(cx.frames.meta(id))
        {
            self.snd.mark_lost(cx.frames, id);
        }
        self.snd.lose_first_tries(cx.frames, is_lost);
        wait_us
    }

    /// What went less than this ago may still be acknowledged (Linux: tcp_timeout_mark_lost).
    pub(super) fn recent_us(&self) -> u32 {
        self.recovery.rack.rtt_us.saturating_add(self.reorder_window_us())
    }
}

/// Linux's tcp_max_reordering.
const REORDERING_MAX: u32 = 300;
