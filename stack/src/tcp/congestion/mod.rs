//! How much may be in the network, and how fast: congestion control behind one small interface.
//!
//! - `cubic.rs`: CUBIC (RFC 9438), the default, with HyStart++ (`hystart.rs`, RFC 9406) for its slow start;
//! - `reno.rs`: slow start and congestion avoidance (RFC 5681);
//! - `bbr.rs`: BBR, which works from a model of the path and not from losses; `max_filter.rs` remembers for it;
//! - `rate.rs`: how fast the network delivers, for BBR and for tools.
//!
//! All in octets. Loss recovery (`recovery/`) says what happened; the algorithm says what follows for the window. While
//! a loss is repaired the window is proportional rate reduction's (`recovery/`), and the algorithm only says where it
//! has to end (`ssthresh`); unless the algorithm keeps the window to itself ([`Congestion::rules_recovery`]).

mod bbr;
mod cubic;
mod hystart;
mod max_filter;
mod rate;
mod reno;

use crate::time::Instant;
use bbr::Bbr;
use cubic::Cubic;
pub(super) use rate::{Carried, RateSample, RateSampler};
use reno::Reno;

/// The algorithms, with the numbers that [`crate::tunables::Tunables::congestion`] knows them by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub enum Algorithm {
    #[default]
    Cubic,
    Reno,
    Bbr,
}

impl Algorithm {
    /// As TCP_CONGESTION and net.ipv4.tcp_congestion_control name them.
    const NAMES: [(&'static str, Algorithm); 3] =
        [("cubic", Algorithm::Cubic), ("reno", Algorithm::Reno), ("bbr", Algorithm::Bbr)];

    pub fn name(self) -> &'static str {
        Algorithm::NAMES.iter().find(|(_, a)| *a == self).map_or("", |(name, _)| name)
    }

    pub fn by_name(name: &str) -> Option<Algorithm> {
        Algorithm::NAMES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// From a number that came through shared memory: an unknown one is the default.
    pub fn from_code(code: u32) -> Algorithm {
        Algorithm::NAMES.iter().find(|(_, a)| *a as u32 == code).map_or(Algorithm::default(), |(_, a)| *a)
    }
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) now: Instant,
    /// Octets newly known to be delivered, cumulatively or selectively; and those newly below SND.UNA.
    pub(super) delivered: u32,
    pub(super) acked: u32,
    /// Octets newly found lost.
    pub(super) lost: u32,
    /// Octets in the network before this acknowledgement, and after it.
    pub(super) prior_in_flight: u32,
    pub(super) in_flight: u32,
    /// SND.UNA and SND.NXT after it: a round trip ends when what was SND.NXT at its start is acknowledged.
    pub(super) una: u32,
    pub(super) nxt: u32,
    /// The round trip of the newest segment it acknowledges, if that was sent once; the smoothed one.
    pub(super) rtt_us: Option<u32>,
    pub(super) srtt_us: u32,
    /// A loss is being repaired, in fast recovery or after a timeout.
    pub(super) is_recovering: bool,
    /// The window, and not the application or the peer, held the sender back (RFC 7661, as Linux tests it).
    pub(super) is_cwnd_limited: bool,
    /// A pace, and not the window alone, spaces what is sent.
    pub(super) is_paced: bool,
    pub(super) rate: RateSample,
    pub(super) mss: u32,
}

/// Why the window has to shrink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signal {
    /// A segment was lost.
    Loss,
    /// The network marked one of ours (RFC 3168 §6.1.2).
    Ecn,
}

/// The window that every algorithm works on.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
struct Window {
    cwnd: u32,
    ssthresh: u32,
    /// Both as they were before the last signal: for when it turns out to have been none.
    prior_cwnd: u32,
    prior_ssthresh: u32,
}

impl Window {
    #[inline]
    fn grow(&mut self, octets: u32) {
        self.cwnd = self.cwnd.saturating_add(octets).min(CWND_MAX);
    }

    fn remember(&mut self) {
        (self.prior_cwnd, self.prior_ssthresh) = (self.cwnd, self.ssthresh);
    }
}

/// What the algorithms keep for themselves: one place, for there is only ever one of them.
#[derive(Clone, Copy, Debug)]
#[repr(C, u8)]
enum Private {
    Reno(Reno),
    Cubic(Cubic),
    Bbr(Bbr),
}

impl Default for Private {
    fn default() -> Private {
        Private::Reno(Reno::default())
    }
}

impl Private {
    /// Reno counts anew.
    fn forget_acked(&mut self) {
        if let Private::Reno(reno) = self {
            reno.acked = 0;
        }
    }

    fn new(algorithm: Algorithm) -> Private {
        match algorithm {
            Algorithm::Reno => Private::default(),
            Algorithm::Cubic => Private::Cubic(Cubic::default()),
            Algorithm::Bbr => Private::Bbr(Bbr::default()),
        }
    }
}

/// The congestion control of one connection.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Congestion {
    private: Private,
    window: Window,
    /// In fast recovery, where the window belongs to recovery; not after a timeout.
    is_reducing: bool,
    /// The window fell, and the peer was not told yet (RFC 3168 §6.1.2).
    owes_cwr: bool,
    _pad: u16,
    pub(super) rate: RateSampler,
}

/// No window grows beyond this: far above any buffer, far below overflow.
const CWND_MAX: u32 = 1 << 30;

impl Congestion {
    pub(super) fn new(algorithm: Algorithm, mss: u32) -> Congestion {
        let window = Window { cwnd: initial_window(mss), ssthresh: CWND_MAX, ..Window::default() };
        Congestion { private: Private::new(algorithm), window, ..Congestion::default() }
    }

    /// The connection stands; the handshake took `srtt_us`, 0 if that is not known.
    pub(super) fn start(&mut self, now: Instant, srtt_us: u32) {
        if let Private::Bbr(bbr) = &mut self.private {
            bbr.start(&mut self.window, &self.rate, now, srtt_us);
        }
    }

    /// Another algorithm takes over, with the window of the one before.
    pub(super) fn switch(&mut self, algorithm: Algorithm, now: Instant, srtt_us: u32) {
        if algorithm != self.algorithm() {
            if let Private::Bbr(bbr) = &mut self.private {
                bbr.leave_recovery(&mut self.window);
            }
            self.private = Private::new(algorithm);
            self.start(now, srtt_us);
        }
    }

    pub(super) fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    pub(super) fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    /// What TCP_CC_INFO tells of an algorithm that has something to tell.
    pub(super) fn told(&self) -> Option<(u64, u32, u32, u32)> {
        match &self.private {
            Private::Bbr(bbr) => Some(bbr.told()),
            _ => None,
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.private {
            Private::Reno(_) => Algorithm::Reno,
            Private::Cubic(_) => Algorithm::Cubic,
            Private::Bbr(_) => Algorithm::Bbr,
        }
    }

    /// Whether the algorithm sets the window during recovery as well, so that nobody else may.
    pub(super) fn rules_recovery(&self) -> bool {
        matches!(self.private, Private::Bbr(_))
    }

    /// How fast to send, in octets a second; `None`: as fast as the window allows.
    #[inline]
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        match &self.private {
            Private::Reno(_) | Private::Cubic(_) => None,
            Private::Bbr(bbr) => bbr.pacing_rate(),
        }
    }

    /// The window that recovery decided on. Not heard where the algorithm [rules](Congestion::rules_recovery).
    pub(super) fn set_cwnd(&mut self, cwnd: u32) {
        if !self.rules_recovery() {
            self.window.cwnd = cwnd.min(CWND_MAX);
        }
    }

    /// A probe of the path made segments longer: the window is one of them at least (RFC 5681 §3.1).
    pub(super) fn hold_a_segment(&mut self, mss: u32) {
        self.window.cwnd = self.window.cwnd.max(mss);
    }

    /// An acknowledgement came outside recovery. True: there is nothing to tell the algorithm, for a window that does not
    /// hold the sender back does not grow.
    #[inline]
    pub(super) fn passes(&mut self, now: Instant, is_cwnd_limited: bool) -> bool {
        let passes = !is_cwnd_limited && !self.rules_recovery();
        if passes {
            self.is_reducing = false;
            if let Private::Cubic(cubic) = &mut self.private {
                cubic.pass(now);
            }
        }
        passes
    }

    /// An acknowledgement came that tells something new. Also during recovery: then windows grow only after a timeout.
    #[inline]
    pub(super) fn on_ack(&mut self, delivery: &Delivery) {
        self.is_reducing &= delivery.is_recovering;
        match &mut self.private {
            Private::Bbr(bbr) => bbr.on_ack(&mut self.window, &mut self.rate, delivery),
            _ if self.is_reducing => {}
            Private::Reno(reno) => reno::on_ack(reno, &mut self.window, delivery),
            Private::Cubic(cubic) => cubic.on_ack(&mut self.window, delivery),
        }
    }

    /// The network has less room than we thought: once per window of data. The window itself falls in recovery.
    ///
    /// BBR does not look at marks, and keeps its threshold (as Linux's does).
    pub(super) fn on_congestion(&mut self, _now: Instant, signal: Signal, flight: u32, mss: u32) {
        self.window.remember();
        let window = &mut self.window;
        match &mut self.private {
            Private::Reno(_) => window.ssthresh = reno::ssthresh_after_loss(flight, mss),
            Private::Cubic(cubic) => window.ssthresh = cubic.on_congestion(window.cwnd, mss),
            Private::Bbr(bbr) if signal == Signal::Loss => bbr.on_loss(window.cwnd),
            Private::Bbr(_) => {}
        }
        self.private.forget_acked();
        (self.is_reducing, self.owes_cwr) = (true, true);
    }

    /// Recovery is over: all that was in flight when it began is acknowledged.
    pub(super) fn on_recovered(&mut self, _now: Instant) {
        self.is_reducing = false;
        self.private.forget_acked();
        match &mut self.private {
            Private::Bbr(bbr) => bbr.leave_recovery(&mut self.window),
            _ => self.window.cwnd = self.window.cwnd.min(self.window.ssthresh),
        }
    }

    /// The retransmission timer expired; `is_first`: for this segment for the first time (RFC 5681 §3.1).
    pub(super) fn on_timeout(&mut self, _now: Instant, flight: u32, mss: u32, is_first: bool) {
        let window = &mut self.window;
        if is_first {
            window.remember();
            match &mut self.private {
                Private::Reno(_) => window.ssthresh = reno::ssthresh_after_loss(flight, mss),
                Private::Cubic(cubic) => window.ssthresh = cubic.on_timeout(window.cwnd, mss),
                Private::Bbr(_) => {}
            }
        }
        if let Private::Bbr(bbr) = &mut self.private {
            bbr.on_timeout(window.cwnd);
        }
        window.cwnd = mss;
        self.private.forget_acked();
        (self.is_reducing, self.owes_cwr) = (false, true);
    }

    /// The last signal was none: nothing had been lost (RFC 5682, RFC 4015).
    pub(super) fn undo(&mut self) {
        let window = &mut self.window;
        (self.is_reducing, self.owes_cwr) = (false, false);
        match &mut self.private {
            Private::Bbr(bbr) => return bbr.undo(window),
            Private::Cubic(cubic) => cubic.undo(),
            Private::Reno(_) => {}
        }
        window.cwnd = window.cwnd.max(window.prior_cwnd);
        window.ssthresh = window.ssthresh.max(window.prior_ssthresh);
    }

    /// Sending starts again, with nothing in flight: the time in between taught nothing.
    #[inline]
    pub(super) fn on_restart(&mut self, now: Instant) {
        match &mut self.private {
            Private::Reno(_) => {}
            Private::Cubic(cubic) => cubic.pass(now),
            Private::Bbr(bbr) => bbr.on_restart(&mut self.window, &self.rate, now),
        }
    }

    /// Nothing was sent for a retransmission timeout: what the window says is out of date (RFC 5681 §4.1). Slow start is
    /// to lead back to near where it was (as Linux remembers it). A model of the path does not depend on the window.
    pub(super) fn on_idle(&mut self, _now: Instant, mss: u32) {
        if !self.rules_recovery() {
            let window = &mut self.window;
            window.ssthresh = window.ssthresh.max(window.cwnd / 4 * 3);
            window.cwnd = window.cwnd.min(initial_window(mss));
        }
    }

    /// Our SYN was lost more than once: one segment (RFC 5681 §3.1).
    pub(super) fn distrust(&mut self, mss: u32) {
        self.window.cwnd = mss;
    }

    /// Whether the peer is to be told that the window fell; told once.
    pub(super) fn take_cwr(&mut self) -> bool {
        core::mem::take(&mut self.owes_cwr)
    }
}

/// RFC 6928 §2.
fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14600.max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `acked` octets of a window that was full.
    fn ack(c: &mut Congestion, acked: u32, is_cwnd_limited: bool) {
        let delivery = Delivery {
            now: Instant::ZERO,
            delivered: acked,
            acked,
            lost: 0,
            prior_in_flight: c.cwnd(),
            in_flight: c.cwnd() - acked,
            una: 0,
            nxt: 0,
            rtt_us: None,
            srtt_us: 0,
            is_recovering: false,
            is_cwnd_limited,
            is_paced: false,
            rate: RateSample::default(),
            mss: 1000,
        };
        c.on_ack(&delivery);
    }

    #[test]
    fn initial_window_is_ten_segments() {
        assert_eq!(initial_window(1448), 14480);
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8948), 17896);
    }

    #[test]
    fn slow_start_doubles_then_avoidance_adds_one() {
        let mss = 1000;
        let mut c = Congestion::new(Algorithm::Reno, mss);
        assert_eq!(c.cwnd(), 10_000);
        for _ in 0..10 {
            ack(&mut c, mss, true);
        }
        assert_eq!(c.cwnd(), 20_000);
        c.on_congestion(Instant::ZERO, Signal::Loss, 20_000, mss);
        c.on_recovered(Instant::ZERO);
        assert_eq!((c.cwnd(), c.ssthresh()), (10_000, 10_000));
        for _ in 0..10 {
            ack(&mut c, mss, true);
        }
        assert_eq!(c.cwnd(), 11_000);
        c.undo();
        assert_eq!((c.cwnd(), c.ssthresh()), (20_000, CWND_MAX));
    }

    #[test]
    fn window_that_is_not_used_does_not_grow() {
        let mut c = Congestion::new(Algorithm::Reno, 1000);
        ack(&mut c, 100, false);
        assert_eq!(c.cwnd(), 10_000);
    }

    #[test]
    fn timeout_falls_to_one_segment_and_keeps_ssthresh_when_repeated() {
        let mut c = Congestion::new(Algorithm::Reno, 1000);
        c.on_timeout(Instant::ZERO, 10_000, 1000, true);
        assert_eq!((c.cwnd(), c.ssthresh()), (1000, 5000));
        c.on_timeout(Instant::ZERO, 1000, 1000, false);
        assert_eq!((c.cwnd(), c.ssthresh()), (1000, 5000));
    }

    #[test]
    fn algorithms_have_names() {
        for (name, algorithm) in Algorithm::NAMES {
            assert_eq!((Algorithm::by_name(name), algorithm.name()), (Some(algorithm), name));
            assert_eq!(Algorithm::from_code(algorithm as u32), algorithm);
        }
        assert_eq!(Algorithm::by_name("vegas"), None);
    }
}
