//! Loss without selective acknowledgements: duplicates are counted (RFC 5681 §3.2, RFC 6582, RFC 3042).
//!
//! The RFCs inflate the congestion window by a segment for each duplicate acknowledgement. Here the window stays, and each
//! stands on the scoreboard for a segment at the peer, which is the same sum: so the rest of recovery is one for both, and
//! the first two duplicates are limited transmit.

use super::super::{Context, Tcb};
use super::{Phase, Tally};

/// RFC 5681 §3.2's threshold.
const DUPACKS: u8 = 3;

impl Tcb {
    /// What the duplicates before this acknowledgement stood for is part of what it covers; a duplicate is one more.
    pub(super) fn count_duplicates(&mut self, tally: &mut Tally) {
        let mss = u32::from(self.snd.mss);
        let phase = self.recovery.phase;
        if tally.acked > 0 {
            let told = self.snd.board.sacked.min(tally.acked.saturating_sub(mss));
            tally.delivered = tally.delivered.saturating_sub(told);
            self.snd.board.sacked -= told;
            if phase != Phase::Recovering {
                self.snd.board.sacked = 0;
                self.recovery.dupacks = 0;
            }
            self.snd.board.sacked = self.snd.board.sacked.min(self.room_for_duplicates());
            return;
        }
        if !tally.is_duplicate {
            return;
        }
        match phase {
            // Only what F-RTO sent can be meant: all else went before, and its duplicates are our own retransmissions'.
            Phase::Loss if !self.snd.nxt.is_after(self.recovery.recover) => return,
            Phase::Open => {
                self.recovery.dupacks = self.recovery.dupacks.saturating_add(1);
                if self.recovery.dupacks >= DUPACKS && !self.snd.una.is_after(self.recovery.recover) {
                    // Duplicates of our own retransmissions are no sign that the network has room.
                    self.snd.board.sacked = 0;
                    return;
                }
            }
            _ => {}
        }
        let more = mss.min(self.room_for_duplicates().saturating_sub(self.snd.board.sacked));
        self.snd.board.sacked += more;
        tally.delivered += more;
    }

    /// One segment at least is missing, or there would be no duplicates.
    fn room_for_duplicates(&self) -> u32 {
        self.snd.flight().saturating_sub(self.snd.board.lost.max(u32::from(self.snd.mss)))
    }

    /// Three duplicates, or a partial acknowledgement: the front is lost. Not for the losses of a recovery that is over
    /// (RFC 6582 §3.2, step 2).
    pub(super) fn detect_front_loss(&mut self, cx: &mut Context<'_, '_>, tally: &Tally) {
        let is_lost = match self.recovery.phase {
            Phase::Open => self.recovery.dupacks >= DUPACKS && self.snd.una.is_after(self.recovery.recover),
            Phase::Recovering => tally.acked > 0,
            Phase::Loss => false,
        };
        if is_lost && !self.snd.mark_front_lost(cx.frames) {
            self.resend_fin_if_alone();
        }
        self.limit_duplicates();
    }

    /// What is lost by now is none of what the duplicates stand for.
    pub(super) fn limit_duplicates(&mut self) {
        if !self.sack {
            let most = self.snd.flight().saturating_sub(self.snd.board.lost);
            self.snd.board.sacked = self.snd.board.sacked.min(most);
        }
    }
}
