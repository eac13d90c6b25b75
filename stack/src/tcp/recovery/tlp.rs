//! The tail loss probe (RFC 8985 §7): when the last acknowledgements stay away, something is sent that makes the peer say
//! what it has. What the probe was for is told by what it brings.

use super::super::congestion::Signal;
use super::super::sender::Fin;
use super::super::tcb::Owed;
use super::super::{Context, Outgoing, Seq, Tcb};
use super::{Phase, Tally};
use crate::time::MS;

/// Linux's floor under the variation of the round trip.
const SLACK_US: u64 = 2 * MS;

/// What the probe that is out was.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Probe {
    #[default]
    None,
    /// Data never sent before.
    New,
    /// The last segment again (TLP.is_retrans).
    Again,
}

impl Tcb {
    /// RFC 8985 §7.2: whether the timer is to be a probe's. When our FIN alone is out there is nothing else that could tell
    /// of its loss: it may be probed for in fast recovery as well.
    #[inline]
    pub(in crate::tcp) fn may_probe(&self) -> bool {
        let (recovery, board) = (&self.recovery, &self.snd.board);
        let is_fitting = match recovery.phase {
            Phase::Open => board.sacked | board.lost == 0,
            Phase::Recovering => self.snd.queue.is_empty(),
            Phase::Loss => false,
        };
        self.sack && recovery.probe == Probe::None && is_fitting
    }

    /// RFC 8985 §7.2, TLP_calc_PTO. Receivers may delay an acknowledgement until they have two full segments (RFC 9293
    /// §3.8.6.3): less than that waits for it. The RFC and Linux allow for the delay of one segment alone, and would probe
    /// for nothing a receiver that counts octets.
    #[inline]
    pub(in crate::tcp) fn probe_timeout_us(&self, cx: &Context<'_, '_>) -> u64 {
        let srtt_us = u64::from(self.rtt.srtt_us());
        if srtt_us == 0 {
            return cx.tunables.rto_initial_us;
        }
        let may_be_delayed = self.snd.flight() < 2 * u32::from(self.snd.mss);
        2 * srtt_us + if may_be_delayed { cx.tunables.rto_min_us } else { SLACK_US }
    }

    /// Whether a duplicate that ends at `right` is our probe's.
    pub(super) fn is_of_probe(&self, right: Seq) -> bool {
        let end = self.recovery.probe_end;
        self.recovery.probe == Probe::Again && (right == end || self.snd.fin != Fin::None && right == end - 1)
    }

    /// RFC 8985 §7.3: new data when there is some and the peer takes it, else the last segment.
    pub(in crate::tcp) fn send_probe(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        self.recovery.owes_probe = false;
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        let n = self.snd.unsent().min(u32::from(self.snd.mss));
        let sent = if n > 0 && n <= self.snd.usable() {
            self.recovery.probe = Probe::New;
            self.send_new(cx, n)
        } else {
            self.recovery.probe = Probe::Again;
            self.send_last_again(cx)
        };
        if sent.is_none() {
            self.recovery.probe = Probe::None;
            return None;
        }
        self.recovery.probe_end = self.snd.nxt;
        cx.counters.tlp_probes += 1;
        sent
    }

    fn send_last_again(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let Some(last) = self.snd.last_in_flight(cx.frames) else {
            self.owed.add(if self.snd.fin == Fin::Sent { Owed::FIN_AGAIN } else { Owed::default() });
            return if self.owed.has(Owed::FIN_AGAIN) { self.send_fin(cx) } else { None };
        };
        // What the peer has needs no probe; what has not left the machine, no second copy.
        if cx.frames.is_in_tx(last) || super::super::sender::Sender::is_sacked(cx.frames, last) {
            return None;
        }
        // Longer than the path takes by now: the timer will cut it.
        if cx.frames.meta(last).len > self.snd.mss {
            return None;
        }
        Some(self.resend(cx, last))
    }

    /// RFC 8985 §7.4.2: what the probe that is out has brought.
    pub(super) fn settle_probe(&mut self, cx: &mut Context<'_, '_>, tally: &Tally) {
        let (una, end) = (self.snd.una, self.recovery.probe_end);
        if self.recovery.probe == Probe::None || una.is_before(end) {
            return;
        }
        let is_over = self.recovery.probe == Probe::New || tally.dsack;
        if is_over {
            // Both copies arrived, or there were none.
            self.recovery.probe = Probe::None;
        } else if una.is_after(end) {
            // One copy arrived, and the peer said nothing of a second: the probe repaired a loss.
            self.recovery.probe = Probe::None;
            cx.counters.tlp_recoveries += 1;
            if self.recovery.phase == Phase::Open {
                self.congestion.on_congestion(cx.now, Signal::Loss, self.snd.flight(), u32::from(self.snd.mss));
                self.end_reduction(cx);
            }
        } else if tally.acked == 0 && tally.is_duplicate && !tally.newly_sacked {
            // The second copy, and a peer that does not report duplicates.
            self.recovery.probe = Probe::None;
        }
    }
}
