//! It was no loss: a window that was reduced for nothing grows back (RFC 4015), and nothing more is sent again.
//!
//! Three witnesses: an acknowledgement that echoes the timestamp of the first transmission (Eifel, RFC 3522); reports that
//! everything sent again came twice (RFC 3708's use of RFC 2883); after a timeout, the arrival of what was sent only
//! before it (F-RTO, RFC 5682).

use super::super::{Context, Seq, Tcb, timestamps};
use super::{Phase, Tally};

/// What has to be known to undo the last reduction.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Undo {
    /// SND.UNA at the reduction: duplicates below it are not its.
    from: Seq,
    /// After the recovery: duplicates are waited for until more than this is acknowledged.
    until: Seq,
    /// Octets sent again since and not reported as duplicates.
    unreported: u32,
    /// The timestamp of the first of them; 0: none, or without timestamps.
    first_stamp: u32,
    is_possible: bool,
    has_resent: bool,
    _pad: [u8; 2],
}

impl Undo {
    pub(super) fn is_possible(&self) -> bool {
        self.is_possible
    }

    /// The window is reduced; `outstanding` octets are on their way again already.
    pub(super) fn start(&mut self, una: Seq, outstanding: u32) {
        *self = Undo {
            from: una,
            unreported: outstanding,
            has_resent: outstanding > 0,
            is_possible: true,
            first_stamp: self.first_stamp,
            ..Undo::default()
        };
    }

    /// `octets` go again, with this timestamp.
    pub(super) fn note_resent(&mut self, octets: u32, stamp: Option<u32>) {
        self.unreported = self.unreported.saturating_add(octets);
        self.has_resent = true;
        if let Some(stamp) = stamp.filter(|_| self.first_stamp == 0) {
            self.first_stamp = stamp.max(1);
        }
    }

    pub(super) fn note_duplicate(&mut self, right: Seq, octets: u32) {
        if self.is_possible && right.is_after(self.from) {
            self.unreported = self.unreported.saturating_sub(octets);
        }
    }

    fn is_all_reported(&self) -> bool {
        self.is_possible && self.has_resent && self.unreported == 0
    }

    /// Nothing is being repaired any more: only reports of duplicates may come, for a round trip.
    pub(super) fn linger(&mut self, nxt: Seq) {
        self.until = nxt;
        self.first_stamp = 0;
    }

    pub(super) fn expire(&mut self, una: Seq) {
        if self.is_possible && una.is_after(self.until) {
            *self = Undo::default();
        }
    }

    /// Nothing is out again, and nothing is to be undone.
    pub(super) fn forget_stamp(&mut self) {
        self.first_stamp = 0;
    }
}

impl Tcb {
    /// RFC 3522 §3: the acknowledgement was caused by what was sent before the first retransmission.
    fn is_echo_of_original(&self, tally: &Tally) -> bool {
        let first = self.recovery.undo.first_stamp;
        self.ts.on
            && tally.acked > 0
            && first != 0
            && self.recovery.undo.is_possible
            && tally.echo.is_some_and(|echo| echo != 0 && Seq(echo).is_before(Seq(first)))
    }

    /// What is known by now says that nothing was lost.
    pub(super) fn may_undo(&self, tally: &Tally) -> bool {
        self.recovery.undo.is_all_reported() || self.is_echo_of_original(tally)
    }

    pub(super) fn undo_if_reported(&mut self, cx: &mut Context<'_, '_>) {
        if self.recovery.undo.is_all_reported() {
            self.undo(cx);
        }
    }

    /// A hole was filled in fast recovery, by what had been on its way all the time. The reduction is taken back once
    /// nothing is on its way twice. True: until then nothing more is thought lost.
    pub(super) fn undo_partially(&mut self, cx: &mut Context<'_, '_>, tally: &Tally) -> bool {
        if !self.is_echo_of_original(tally) {
            return false;
        }
        let late = Tally { reordered_from: Some(self.snd.una - tally.acked), ..*tally };
        self.note_reordering(&late);
        if self.snd.board.resent > 0 {
            return true;
        }
        self.undo(cx);
        false
    }

    pub(super) fn undo(&mut self, cx: &mut Context<'_, '_>) {
        cx.counters.undos += 1;
        self.congestion.undo();
        self.snd.unmark_all_lost(cx.frames);
        self.recovery.undo = Undo::default();
        self.calm();
        self.recovery.rack.look_again();
    }

    /// RFC 5682 §3.1, as Linux has it: also without SACK, and with data of any age. True: it is settled for this
    /// acknowledgement what is sent.
    pub(super) fn detect_spurious_timeout(&mut self, cx: &mut Context<'_, '_>, tally: &Tally) -> bool {
        let recover = self.recovery.recover;
        // Without SACK, what waited behind the hole is acknowledged together with what filled it, and tells nothing.
        if tally.has_original && (self.sack || !tally.has_resent) {
            cx.counters.spurious_rtos += 1;
            self.undo(cx);
            return true;
        }
        if self.snd.nxt.is_after(recover) {
            // Step 3a: the loss was real.
            self.recovery.frto &= !(tally.newly_sacked || tally.is_duplicate);
        } else if tally.acked > 0 && self.snd.una.is_before(recover) {
            // Step 2b: something new goes, if there is something and it may.
            self.recovery.recover = self.snd.nxt;
            self.recovery.new_first = true;
            if self.sendable() > 0 {
                return true;
            }
            self.recovery.new_first = false;
            self.recovery.frto = false;
        }
        false
    }

    /// The timestamp that a segment sent now carries.
    pub(super) fn stamp(&self, cx: &Context<'_, '_>) -> Option<u32> {
        self.ts.on.then(|| timestamps::ms(cx.now).wrapping_add(self.ts.offset))
    }

    /// Accounts for a frame that goes again.
    pub(in crate::tcp) fn note_sent_again(&mut self, cx: &Context<'_, '_>, octets: u32) {
        let stamp = self.stamp(cx);
        self.recovery.undo.note_resent(octets, stamp);
        if self.recovery.phase == Phase::Recovering {
            self.note_sent_in_recovery(octets);
        }
    }
}
