//! A recovery from its beginning to its end: what each acknowledgement and each timeout means for it.

use super::super::congestion::{Delivery, RateSample, Signal};
use super::super::sender::elapsed_us;
use super::super::{Context, Seq, Tcb};
use super::prr::Prr;
use super::tlp::Probe;
use super::{Newest, Phase, Tally};
use crate::time::MS;

impl Tcb {
    /// How things stand before an acknowledgement is looked at.
    #[inline]
    pub(in crate::tcp) fn start_tally(&self, echo: Option<u32>, is_duplicate: bool) -> Tally {
        let board = &self.snd.board;
        let fack = if self.sack && board.sacked > 0 { self.snd.una.later(board.highest) } else { self.snd.una };
        Tally {
            prior_in_flight: self.snd.pipe(),
            prior_lost_total: board.lost_total,
            prior_lost_again: board.lost_again,
            fack,
            recover: self.recovery.recover,
            echo,
            is_duplicate,
            ..Tally::default()
        }
    }

    /// All that an acknowledgement tells is in: what follows for recovery and for the window.
    #[inline]
    pub(in crate::tcp) fn recover_on_ack(&mut self, cx: &mut Context<'_, '_>, tally: &mut Tally) {
        if let Some(newest) = &tally.newest {
            let is_echo_older = newest.was_resent && self.is_echo_older(cx, tally, newest);
            self.recovery.rack.advance(newest, cx.now, self.rtt.min_us(), is_echo_older);
        }
        let was_recovering = self.recovery.phase != Phase::Open;
        if self.is_calm() && !tally.is_dubious() {
            self.recovery.follow(self.snd.una);
        } else {
            self.recover(cx, tally);
        }
        if was_recovering && self.recovery.phase != Phase::Loss {
            self.note_repaired(cx.now);
        }
        self.tell_congestion(cx, tally, was_recovering);
    }

    /// Whether the echo tells of a transmission before the last one of the newest frame. It is that of what filled the
    /// front, and tells of nothing else (RFC 7323 §4.3).
    #[cold]
    fn is_echo_older(&self, cx: &Context<'_, '_>, tally: &Tally, newest: &Newest) -> bool {
        let is_front = tally.acked > 0 && !newest.seq.is_after(self.snd.una - tally.acked);
        let sent_stamp = self.stamp(cx).map(|now| now.wrapping_sub(newest.rtt_us / MS as u32));
        matches!((tally.echo, sent_stamp), (Some(echo), Some(sent))
            if is_front && echo != 0 && Seq(echo).is_before(Seq(sent)))
    }

    /// Nothing is lost, out of order, or to be undone.
    #[inline]
    pub(in crate::tcp) fn is_calm(&self) -> bool {
        self.recovery.is_calm() && self.snd.board.is_clear()
    }

    #[inline(never)]
    fn recover(&mut self, cx: &mut Context<'_, '_>, tally: &mut Tally) {
        self.recovery.new_first = false;
        self.note_reordering(tally);
        self.widen_reordering_window(tally);
        self.settle_probe(cx, tally);
        if !self.sack {
            self.count_duplicates(tally);
        }
        let may_lose = match self.recovery.phase {
            Phase::Open => {
                self.recovery.follow(self.snd.una);
                self.undo_if_reported(cx);
                true
            }
            Phase::Recovering => self.go_on_recovering(cx, tally),
            Phase::Loss => self.go_on_after_timeout(cx, tally),
        };
        if self.recovery.phase == Phase::Open {
            self.recovery.undo.expire(self.snd.una);
            if self.snd.board.resent == 0 {
                self.recovery.undo.forget_stamp();
            }
        }
        if may_lose && self.snd.flight() > 0 {
            self.look_for_losses(cx, tally);
        }
    }

    /// In fast recovery. False: nothing more is to be thought lost for now.
    fn go_on_recovering(&mut self, cx: &mut Context<'_, '_>, tally: &mut Tally) -> bool {
        if !self.snd.una.is_before(self.recovery.recover) {
            if self.may_undo(tally) {
                self.undo(cx);
            } else {
                tally.ended = true;
                self.calm();
                self.recovery.undo.linger(self.snd.nxt);
            }
            self.recovery.rack.note_recovered();
            return true;
        }
        if self.undo_partially(cx, tally) {
            return false;
        }
        self.undo_if_reported(cx);
        true
    }

    /// After a timeout. False: nothing more is to be thought lost for now.
    fn go_on_after_timeout(&mut self, cx: &mut Context<'_, '_>, tally: &mut Tally) -> bool {
        if tally.acked > 0 && self.may_undo(tally) {
            cx.counters.spurious_rtos += 1;
            self.undo(cx);
            return true;
        }
        if self.recovery.frto && self.detect_spurious_timeout(cx, tally) {
            return true;
        }
        if !self.snd.una.is_before(self.recovery.recover) {
            self.calm();
            self.recovery.undo.linger(self.snd.nxt);
            self.recovery.rack.note_recovered();
        }
        true
    }

    /// Looks for losses, and begins a recovery when there are some: once for a window of data, except that a lost
    /// retransmission after a timeout is a new loss.
    fn look_for_losses(&mut self, cx: &mut Context<'_, '_>, tally: &mut Tally) {
        if self.sack {
            tally.reorder_wait_us = self.detect_losses(cx);
        } else {
            self.detect_front_loss(cx, tally);
        }
        self.begin_if_lost(cx, tally.prior_lost_again);
    }

    /// True: a recovery began.
    fn begin_if_lost(&mut self, cx: &mut Context<'_, '_>, prior_lost_again: u32) -> bool {
        let again = self.snd.board.lost_again.wrapping_sub(prior_lost_again);
        cx.counters.lost_retransmits += u64::from(again);
        let begins = match self.recovery.phase {
            Phase::Open => self.snd.board.lost > 0,
            Phase::Loss => again > 0,
            Phase::Recovering => false,
        };
        if begins {
            self.begin_recovery(cx);
        }
        begins
    }

    fn begin_recovery(&mut self, cx: &mut Context<'_, '_>) {
        cx.counters.fast_retransmits += 1;
        let flight = self.snd.flight();
        self.congestion.on_congestion(cx.now, Signal::Loss, flight, u32::from(self.snd.mss));
        self.recovery.prr = Prr::new(flight);
        self.recovery.undo.start(self.snd.una, self.snd.board.resent);
        self.recovery.phase = Phase::Recovering;
        self.recovery.recover = self.snd.nxt;
        self.recovery.probe = Probe::None;
        self.recovery.frto = false;
        self.recovery.retransmit_now = true;
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
    }

    /// Tells the algorithm what was delivered; while a loss is repaired, the window is proportional rate reduction's.
    #[inline]
    fn tell_congestion(&mut self, cx: &mut Context<'_, '_>, tally: &Tally, was_recovering: bool) {
        let rate = self.congestion.rate.sample(cx.now, self.rtt.min_us(), &tally.carried);
        let lost = self.snd.board.lost_total.wrapping_sub(tally.prior_lost_total);
        let is_recovering = was_recovering || self.recovery.phase != Phase::Open;
        let is_news = tally.delivered | tally.acked | lost != 0;
        if is_news && (is_recovering || !self.congestion.passes(cx.now, self.is_cwnd_limited())) {
            self.tell_delivery(cx, tally, is_recovering, lost, rate);
        }
        if tally.ended {
            self.end_reduction(cx);
        } else if self.recovery.phase == Phase::Recovering && tally.delivered > 0 {
            self.reduce_window(tally.delivered, tally.acked > 0 && lost == 0);
        }
    }

    #[inline(never)]
    fn tell_delivery(
        &mut self,
        cx: &mut Context<'_, '_>,
        tally: &Tally,
        is_recovering: bool,
        lost: u32,
        rate: RateSample,
    ) {
        let in_flight = self.snd.pipe();
        let delivery = Delivery {
            now: cx.now,
            delivered: tally.delivered,
            acked: tally.acked,
            lost,
            prior_in_flight: tally.prior_in_flight,
            in_flight,
            una: self.snd.una.0,
            nxt: self.snd.nxt.0,
            rtt_us: tally.newest.filter(|n| !n.was_resent && !tally.has_resent).map(|n| n.rtt_us),
            srtt_us: self.rtt.srtt_us(),
            is_recovering,
            is_cwnd_limited: self.is_cwnd_limited(),
            is_paced: self.pace().is_some(),
            rate,
            mss: u32::from(self.snd.mss),
        };
        self.congestion.on_ack(&delivery);
    }

    pub(in crate::tcp) fn note_sent_in_recovery(&mut self, octets: u32) {
        self.recovery.prr.note_sent(octets);
    }

    fn reduce_window(&mut self, delivered: u32, is_safe: bool) {
        if !self.congestion.rules_recovery() {
            let (in_flight, ssthresh, mss) = (self.snd.pipe(), self.congestion.ssthresh(), u32::from(self.snd.mss));
            let window = self.recovery.prr.window(in_flight, ssthresh, delivered, is_safe, mss);
            // With little in flight and less to send that may be octets (RFC 6937 §3). A window is a segment at least, as
            // on Linux: what is written next shall not wait for a timeout.
            self.congestion.set_cwnd(window.max(mss));
        }
    }

    /// The window is where the reduction was to end. Without SACK no burst may follow (RFC 6582 §3.2 step 3, option 1);
    /// with it, what left the network was known all the time.
    pub(super) fn end_reduction(&mut self, cx: &mut Context<'_, '_>) {
        if !self.congestion.rules_recovery() {
            let (ssthresh, mss) = (self.congestion.ssthresh(), u32::from(self.snd.mss));
            let window = if self.sack { ssthresh } else { ssthresh.min(self.snd.flight().max(mss) + mss) };
            self.congestion.set_cwnd(window);
        }
        self.congestion.on_recovered(cx.now);
    }

    pub(super) fn calm(&mut self) {
        let recovery = &mut self.recovery;
        recovery.phase = Phase::Open;
        recovery.dupacks = 0;
        recovery.retransmit_now = false;
        recovery.new_first = false;
        recovery.frto = false;
        if !self.sack {
            self.snd.board.sacked = 0;
        }
    }

    /// The retransmission timer expired: all is lost (RFC 5681 §3.1, RFC 6582 §3.2 step 6), except what the peer has and
    /// what went less than a round trip ago.
    pub(in crate::tcp) fn recover_on_timeout(&mut self, cx: &mut Context<'_, '_>) {
        let mss = u32::from(self.snd.mss);
        let was_open = self.recovery.phase == Phase::Open;
        let is_repeated = self.timers.retransmits > 0;
        let is_first = was_open
            || !self.snd.una.is_before(self.recovery.recover)
            || self.recovery.phase == Phase::Loss && !is_repeated;
        self.congestion.on_timeout(cx.now, self.snd.flight(), mss, is_first);
        self.lose_all(cx);
        if is_first {
            self.recovery.undo.forget_stamp();
            self.recovery.undo.start(self.snd.una, self.snd.board.resent);
        }
        self.calm();
        self.recovery.phase = Phase::Loss;
        self.recovery.recover = self.snd.nxt;
        self.recovery.retransmit_now = true;
        self.recovery.probe = Probe::None;
        // RFC 5682 §2.1 step 1: not when a recovery was under way, whose retransmissions would confuse it.
        self.recovery.frto = was_open || is_repeated;
        if !self.congestion.rules_recovery() {
            self.congestion.set_cwnd(self.snd.pipe() + mss);
        }
        self.resend_fin_if_alone();
    }

    fn lose_all(&mut self, cx: &mut Context<'_, '_>) {
        if !self.sack {
            self.snd.board.sacked = 0;
        } else if self.snd.is_front_sacked(cx.frames) {
            // It would have acknowledged that, had it not thrown it away.
            cx.counters.sack_reneging += 1;
            self.snd.forget_sacked(cx.frames);
        }
        let prior_lost_again = self.snd.board.lost_again;
        let (now, limit_us, front) = (cx.now, self.recent_us(), self.snd.front_in_flight());
        self.snd.mark_lost_if(cx.frames, |frames, id| {
            Some(id) == front || elapsed_us(frames.meta(id).sent_at, now) >= limit_us
        });
        cx.counters.lost_retransmits += u64::from(self.snd.board.lost_again.wrapping_sub(prior_lost_again));
    }

    /// What is in flight in segments of more than `longest` octets goes again: the path got narrower, or the peer did not take
    /// the data of our SYN. That is no sign of congestion, so the window stays (Linux: tcp_simple_retransmit).
    pub(in crate::tcp) fn resend_longer_than(&mut self, cx: &mut Context<'_, '_>, longest: u16) {
        self.snd.mark_lost_if(cx.frames, |frames, id| frames.meta(id).len > longest);
        self.limit_duplicates();
        if self.snd.board.lost > 0 && self.recovery.phase == Phase::Open {
            self.calm();
            self.recovery.phase = Phase::Loss;
            self.recovery.recover = self.snd.nxt;
            self.recovery.retransmit_now = true;
        }
    }

    /// The reordering timer: what has not arrived by now is lost (RFC 8985 §6.3).
    pub(in crate::tcp) fn expire_reorder(&mut self, cx: &mut Context<'_, '_>) {
        let (lost, lost_again) = (self.snd.board.lost_total, self.snd.board.lost_again);
        self.recovery.rack.look_again();
        let wait_us = self.detect_losses(cx);
        if self.snd.board.lost_total != lost {
            cx.counters.rack_timeouts += 1;
            if self.begin_if_lost(cx, lost_again) {
                self.reduce_window(1, false);
            }
        }
        match wait_us {
            Some(us) => self.timers.arm_reorder(cx.now, us),
            None => self.timers.arm_retransmit(cx.now, self.rto_left_us(cx)),
        }
    }

    /// What is left of the retransmission timeout, counted from when the front was last sent.
    fn rto_left_us(&self, cx: &Context<'_, '_>) -> u64 {
        let age_us = self.front_age_us(cx).unwrap_or(0);
        self.rto_us(cx).saturating_sub(u64::from(age_us)).max(MS)
    }

    pub(in crate::tcp) fn front_age_us(&self, cx: &Context<'_, '_>) -> Option<u32> {
        let front = self.snd.front_in_flight()?;
        Some(elapsed_us(cx.frames.meta(front).sent_at, cx.now))
    }

    /// Sets the timer after an acknowledgement (RFC 6298 §5.3, RFC 8985 §6.3 and §7.2).
    #[inline]
    pub(in crate::tcp) fn set_timer(&mut self, cx: &Context<'_, '_>, tally: &Tally) {
        if self.snd.flight() == 0 {
            self.timers.stop_retransmit();
        } else if let Some(us) = tally.reorder_wait_us {
            self.timers.arm_reorder(cx.now, us);
        } else if tally.acked > 0
            || tally.sacked_rtt_us.is_some_and(|us| self.front_age_us(cx).is_some_and(|age| us > age))
        {
            // A report restarts it only when it is older news than the front's last transmission: else reports could put
            // off the timeout for ever.
            self.arm_for_flight(cx);
        }
    }

    /// Something is in flight: the timer is a probe's, or the retransmission's when that would come first.
    #[inline]
    pub(in crate::tcp) fn arm_for_flight(&mut self, cx: &Context<'_, '_>) {
        let rto_us = self.rto_us(cx);
        if self.may_probe() {
            self.timers.arm_probe(cx.now, self.probe_timeout_us(cx).min(rto_us));
        } else {
            self.timers.arm_retransmit(cx.now, rto_us);
        }
    }

    /// Takes the round-trip time an acknowledgement tells (RFC 6298): of the oldest frame it covers, when none had gone
    /// twice (Karn's rule); else of what it reports; else by the echoed timestamp. A sample ends the backoff.
    #[inline]
    pub(in crate::tcp) fn learn_rtt(&mut self, cx: &Context<'_, '_>, tally: &Tally) {
        let from_ack = tally.oldest_rtt_us.filter(|_| !tally.has_resent);
        let from_echo = || tally.echo.filter(|_| tally.acked > 0).and_then(|echo| self.ts.rtt_us(echo, cx.now));
        if let Some(us) = from_ack.or(tally.sacked_rtt_us).or_else(from_echo) {
            self.take_rtt(cx, us, tally.newest.filter(|n| !n.was_resent).map(|n| n.rtt_us));
        }
    }

    /// `newest_us`: the sample that delayed acknowledgements did not lengthen, for the smallest round trip.
    pub(in crate::tcp) fn take_rtt(&mut self, cx: &Context<'_, '_>, us: u32, newest_us: Option<u32>) {
        self.rtt.sample(us, newest_us.unwrap_or(us), cx.now, cx.tunables);
        self.timers.backoff = 0;
    }
}

impl Tally {
    /// It says more than that the next octets arrived.
    #[inline]
    fn is_dubious(&self) -> bool {
        self.is_duplicate || self.newly_sacked || self.dsack || self.reordered_from.is_some() || self.has_resent
    }
}
