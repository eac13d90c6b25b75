//! Duplicate acknowledgements, fast retransmit and fast recovery (RFC 5681 §3.2, RFC 6582), limited transmit (RFC 3042).
//!
//! The RFCs inflate the congestion window by a segment for each duplicate acknowledgement. Here the window stays and the
//! octets in flight are counted less (`credit`), which is the same sum; the first two duplicates then are limited transmit.

use super::super::congestion::{Delivery, Signal};
use super::super::{Context, Seq, Tcb};
use super::Phase;
use crate::time::Instant;

/// RFC 5681 §3.2's threshold.
const DUPACKS: u8 = 3;

/// What a new acknowledgement means for the retransmission timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tcp) enum Timer {
    Restart,
    Leave,
}

impl Tcb {
    /// One more acknowledgement of the same octet, by a segment without data and with the same window (RFC 5681 §2).
    pub(in crate::tcp) fn note_duplicate_ack(&mut self, cx: &mut Context<'_, '_>) {
        let mss = u32::from(self.snd.mss);
        match self.recovery.phase {
            Phase::Loss => {}
            Phase::Recovering => self.recovery.credit = (self.recovery.credit + mss).min(self.snd.flight()),
            Phase::Open => {
                self.recovery.dupacks = self.recovery.dupacks.saturating_add(1);
                self.recovery.credit = (self.recovery.credit + mss).min(self.snd.flight());
                // Not again for the losses of a recovery that is over (RFC 6582 §3.2, step 2).
                if self.recovery.dupacks == DUPACKS && self.snd.una.is_after(self.recovery.recover) {
                    self.enter_fast_recovery(cx, mss);
                } else if self.recovery.dupacks >= DUPACKS {
                    // Duplicates of our own retransmissions are no sign that the network has room.
                    self.recovery.credit = 0;
                }
            }
        }
    }

    fn enter_fast_recovery(&mut self, cx: &mut Context<'_, '_>, mss: u32) {
        cx.counters.fast_retransmits += 1;
        self.congestion.on_congestion(cx.now, Signal::Loss, self.snd.flight(), mss);
        self.congestion.set_cwnd(self.congestion.ssthresh());
        self.recovery.phase = Phase::Recovering;
        self.recovery.recover = self.snd.nxt;
        self.recovery.saw_partial = false;
        self.lose_front(cx);
    }

    /// The octet at SND.UNA was lost: it goes at once.
    fn lose_front(&mut self, cx: &mut Context<'_, '_>) {
        self.recovery.retransmit_now = true;
        if !self.snd.mark_front_lost(cx.frames) {
            self.resend_fin_if_alone();
        }
    }

    /// SND.UNA moved by `acked` octets, from a flight of `flight`.
    pub(in crate::tcp) fn recover_on_ack(
        &mut self,
        cx: &mut Context<'_, '_>,
        acked: u32,
        flight: u32,
        rtt_us: Option<u32>,
    ) -> Timer {
        let mss = u32::from(self.snd.mss);
        match self.recovery.phase {
            Phase::Open => {
                self.recovery.dupacks = 0;
                self.recovery.credit = 0;
                self.recovery.follow(self.snd.una);
                self.grow(cx, acked, flight, rtt_us);
                Timer::Restart
            }
            Phase::Recovering if self.snd.una.is_before(self.recovery.recover) => {
                // Partial: the next hole is lost as well. Deflate by what was acknowledged, add back a segment.
                self.recovery.credit = (self.recovery.credit + mss).saturating_sub(acked).min(self.snd.flight());
                self.lose_front(cx);
                let first = !core::mem::replace(&mut self.recovery.saw_partial, true);
                if first { Timer::Restart } else { Timer::Leave }
            }
            Phase::Recovering => {
                self.congestion.on_recovered(cx.now);
                // No burst (RFC 6582 §3.2 step 3, option 1).
                let window = self.congestion.cwnd().min(self.snd.flight().max(mss) + mss);
                self.congestion.set_cwnd(window);
                self.calm();
                Timer::Restart
            }
            Phase::Loss => {
                self.grow(cx, acked, flight.max(self.congestion.cwnd()), rtt_us);
                if !self.snd.una.is_before(self.recovery.recover) {
                    self.calm();
                }
                Timer::Restart
            }
        }
    }

    fn grow(&mut self, cx: &Context<'_, '_>, acked: u32, flight: u32, rtt_us: Option<u32>) {
        let (cwnd, mss) = (self.congestion.cwnd(), u32::from(self.snd.mss));
        // At least half of it in slow start, all of it in congestion avoidance (RFC 7661, as Linux tests it).
        let is_slow_start = cwnd < self.congestion.ssthresh();
        let is_cwnd_limited = if is_slow_start { flight.saturating_mul(2) >= cwnd } else { flight + mss > cwnd };
        let rate = self.congestion.rate.sample(cx.now, self.rtt.min_us());
        self.congestion.on_ack(&Delivery {
            now: cx.now,
            delivered: acked,
            acked,
            lost: 0,
            prior_in_flight: flight,
            in_flight: self.snd.flight(),
            una: self.snd.una.0,
            nxt: self.snd.nxt.0,
            rtt_us,
            srtt_us: self.rtt.srtt_us(),
            min_rtt_us: self.rtt.min_us(),
            is_recovering: self.recovery.phase != Phase::Open,
            is_cwnd_limited,
            rate,
            mss,
        });
    }

    fn calm(&mut self) {
        self.recovery.phase = Phase::Open;
        self.recovery.dupacks = 0;
        self.recovery.credit = 0;
        self.recovery.retransmit_now = false;
    }

    /// The retransmission timer expired: everything in flight is lost (RFC 5681 §3.1, RFC 6582 §3.2 step 6).
    pub(in crate::tcp) fn recover_on_timeout(&mut self, cx: &mut Context<'_, '_>, is_first: bool) {
        self.congestion.on_timeout(cx.now, self.snd.flight(), u32::from(self.snd.mss), is_first);
        self.calm();
        self.recovery.phase = Phase::Loss;
        self.recovery.recover = self.snd.nxt;
        self.recovery.retransmit_now = true;
        self.snd.mark_all_lost(cx.frames);
        self.resend_fin_if_alone();
    }

    /// Takes the round-trip time of what `ack` acknowledged: from the frame itself if it went once (Karn's rule),
    /// else from the echoed timestamp. A sample ends the backoff.
    pub(in crate::tcp) fn take_rtt(
        &mut self,
        cx: &Context<'_, '_>,
        from_frame: Option<u32>,
        echo: Option<u32>,
        now: Instant,
    ) {
        let sample = from_frame.or_else(|| echo.and_then(|echo| self.ts.rtt_us(echo, now)));
        if let Some(us) = sample {
            self.rtt.sample(us, cx.tunables);
            self.timers.backoff = 0;
        }
    }

    /// Whether a segment counts as a duplicate acknowledgement is decided by the caller; this is where SND stood.
    pub(in crate::tcp) fn is_acknowledging_front(&self, ack: Seq) -> bool {
        ack == self.snd.una && self.snd.flight() > 0
    }
}
