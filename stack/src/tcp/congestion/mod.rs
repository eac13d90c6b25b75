//! How much may be in the network, and how fast: congestion control behind one small interface.
//!
//! - `reno.rs`: slow start and congestion avoidance (RFC 5681);
//! - `rate.rs`: how fast the network delivers, for those that ask.
//!
//! All in octets. Loss recovery (`recovery/`) says what happened; the algorithm says what follows for the window. While
//! a loss is repaired the window is proportional rate reduction's (`recovery/`), and the algorithm only says where it
//! has to end (`ssthresh`); unless the algorithm keeps the window to itself ([`Congestion::rules_recovery`]).

mod rate;
mod reno;

use crate::time::Instant;
pub(super) use rate::{RateSample, RateSampler};

/// The algorithms, with the numbers that [`crate::tunables::Tunables::congestion`] knows them by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub enum Algorithm {
    #[default]
    Reno,
}

impl Algorithm {
    /// As TCP_CONGESTION and net.ipv4.tcp_congestion_control name them.
    const NAMES: [(&'static str, Algorithm); 1] = [("reno", Algorithm::Reno)];

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
    /// The round trip of the newest segment it acknowledges, if that was sent once; the smoothed one; the smallest.
    pub(super) rtt_us: Option<u32>,
    pub(super) srtt_us: u32,
    pub(super) min_rtt_us: u32,
    /// A loss is being repaired, in fast recovery or after a timeout.
    pub(super) is_recovering: bool,
    /// The window, and not the application or the peer, held the sender back (RFC 7661, as Linux tests it).
    pub(super) is_cwnd_limited: bool,
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

/// The congestion window of one connection.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Congestion {
    cwnd: u32,
    ssthresh: u32,
    /// Both as they were before the last signal: for when it turns out to have been none.
    prior_cwnd: u32,
    prior_ssthresh: u32,
    /// Octets acknowledged since the window last grew in congestion avoidance.
    acked: u32,
    algorithm: Algorithm,
    _pad: [u8; 3],
    pub(super) rate: RateSampler,
}

/// No window grows beyond this: far above any buffer, far below overflow.
const CWND_MAX: u32 = 1 << 30;

impl Congestion {
    pub(super) fn new(algorithm: Algorithm, mss: u32) -> Congestion {
        Congestion { cwnd: initial_window(mss), ssthresh: CWND_MAX, algorithm, ..Congestion::default() }
    }

    pub(super) fn cwnd(&self) -> u32 {
        self.cwnd
    }

    pub(super) fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the algorithm sets the window during recovery as well, so that nobody else may.
    pub(super) fn rules_recovery(&self) -> bool {
        false
    }

    /// How fast to send, in octets a second; `None`: as fast as the window allows.
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// The window that recovery decided on.
    pub(super) fn set_cwnd(&mut self, cwnd: u32) {
        self.cwnd = cwnd.min(CWND_MAX);
    }

    /// An acknowledgement came that tells something new. Also during recovery: then windows grow only after a timeout.
    #[inline]
    pub(super) fn on_ack(&mut self, delivery: &Delivery) {
        match self.algorithm {
            Algorithm::Reno => reno::on_ack(self, delivery),
        }
    }

    /// The network has less room than we thought: once per window of data. The window itself falls in recovery.
    pub(super) fn on_congestion(&mut self, _now: Instant, _signal: Signal, flight: u32, mss: u32) {
        self.remember();
        match self.algorithm {
            Algorithm::Reno => self.ssthresh = reno::ssthresh_after_loss(flight, mss),
        }
        self.acked = 0;
    }

    /// Recovery is over: all that was in flight when it began is acknowledged.
    pub(super) fn on_recovered(&mut self, _now: Instant) {
        self.cwnd = self.cwnd.min(self.ssthresh);
        self.acked = 0;
    }

    /// The retransmission timer expired; `is_first`: for this segment for the first time (RFC 5681 §3.1).
    pub(super) fn on_timeout(&mut self, _now: Instant, flight: u32, mss: u32, is_first: bool) {
        if is_first {
            self.remember();
            match self.algorithm {
                Algorithm::Reno => self.ssthresh = reno::ssthresh_after_loss(flight, mss),
            }
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    /// The last signal was none: nothing had been lost (RFC 5682, RFC 4015).
    pub(super) fn undo(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.ssthresh = self.ssthresh.max(self.prior_ssthresh);
    }

    /// Nothing was sent for a retransmission timeout: what the window says is out of date (RFC 5681 §4.1).
    pub(super) fn on_idle(&mut self, _now: Instant, mss: u32) {
        self.cwnd = self.cwnd.min(initial_window(mss));
    }

    /// Our SYN was lost more than once: one segment (RFC 5681 §3.1).
    pub(super) fn distrust(&mut self, mss: u32) {
        self.cwnd = mss;
    }

    fn remember(&mut self) {
        (self.prior_cwnd, self.prior_ssthresh) = (self.cwnd, self.ssthresh);
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
            min_rtt_us: 0,
            is_recovering: false,
            is_cwnd_limited,
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
        assert_eq!(c.cwnd, 10_000);
        for _ in 0..10 {
            ack(&mut c, mss, true);
        }
        assert_eq!(c.cwnd, 20_000);
        c.on_congestion(Instant::ZERO, Signal::Loss, 20_000, mss);
        c.on_recovered(Instant::ZERO);
        assert_eq!((c.cwnd, c.ssthresh), (10_000, 10_000));
        for _ in 0..10 {
            ack(&mut c, mss, true);
        }
        assert_eq!(c.cwnd, 11_000);
        c.undo();
        assert_eq!((c.cwnd, c.ssthresh), (20_000, CWND_MAX));
    }

    #[test]
    fn window_that_is_not_used_does_not_grow() {
        let mut c = Congestion::new(Algorithm::Reno, 1000);
        ack(&mut c, 100, false);
        assert_eq!(c.cwnd, 10_000);
    }

    #[test]
    fn timeout_falls_to_one_segment_and_keeps_ssthresh_when_repeated() {
        let mut c = Congestion::new(Algorithm::Reno, 1000);
        c.on_timeout(Instant::ZERO, 10_000, 1000, true);
        assert_eq!((c.cwnd, c.ssthresh), (1000, 5000));
        c.on_timeout(Instant::ZERO, 1000, 1000, false);
        assert_eq!((c.cwnd, c.ssthresh), (1000, 5000));
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
