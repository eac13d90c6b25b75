//! How much may be in the network: congestion control behind a small interface.
//!
//! - `reno.rs`: slow start and congestion avoidance (RFC 5681).
//!
//! All in octets. Loss recovery (`recovery/`) says what happened; the algorithm says what follows for the window.

mod reno;

/// The algorithm in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Algorithm {
    #[default]
    Reno,
}

/// The congestion window of one connection.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Congestion {
    pub(super) cwnd: u32,
    pub(super) ssthresh: u32,
    /// Octets acknowledged since the window last grew in congestion avoidance.
    acked: u32,
    algorithm: Algorithm,
    _pad: [u8; 3],
}

/// No window grows beyond this: far above any buffer, far below overflow.
const CWND_MAX: u32 = 1 << 30;

impl Congestion {
    pub(super) fn new(mss: u32) -> Congestion {
        Congestion { cwnd: initial_window(mss), ssthresh: CWND_MAX, ..Congestion::default() }
    }

    /// `acked` new octets were acknowledged while `flight` were out.
    #[inline]
    pub(super) fn on_ack(&mut self, acked: u32, flight: u32, mss: u32) {
        match self.algorithm {
            Algorithm::Reno => reno::on_ack(self, acked, flight, mss),
        }
    }

    /// A segment was lost, as duplicate acknowledgements tell.
    pub(super) fn on_fast_retransmit(&mut self, flight: u32, mss: u32) {
        match self.algorithm {
            Algorithm::Reno => self.ssthresh = reno::ssthresh_after_loss(flight, mss),
        }
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    /// Fast recovery is over: no burst (RFC 6582 §3.2 step 3, option 1).
    pub(super) fn on_recovered(&mut self, flight: u32, mss: u32) {
        self.cwnd = self.ssthresh.min(flight.max(mss) + mss);
        self.acked = 0;
    }

    /// The retransmission timer expired; `is_first`: for this segment for the first time (RFC 5681 §3.1).
    pub(super) fn on_timeout(&mut self, flight: u32, mss: u32, is_first: bool) {
        if is_first {
            match self.algorithm {
                Algorithm::Reno => self.ssthresh = reno::ssthresh_after_loss(flight, mss),
            }
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    /// Nothing was sent for a retransmission timeout: what the window says is out of date (RFC 5681 §4.1).
    pub(super) fn on_idle(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(initial_window(mss));
    }

    /// Our SYN was lost more than once: one segment (RFC 5681 §3.1).
    pub(super) fn distrust(&mut self, mss: u32) {
        self.cwnd = mss;
    }
}

/// RFC 6928 §2.
fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14600.max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_window_is_ten_segments() {
        assert_eq!(initial_window(1448), 14480);
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8948), 17896);
    }

    #[test]
    fn slow_start_doubles_then_avoidance_adds_one() {
        let mss = 1000;
        let mut c = Congestion::new(mss);
        assert_eq!(c.cwnd, 10_000);
        for _ in 0..10 {
            c.on_ack(mss, c.cwnd, mss);
        }
        assert_eq!(c.cwnd, 20_000);
        c.on_fast_retransmit(20_000, mss);
        assert_eq!((c.cwnd, c.ssthresh), (10_000, 10_000));
        for _ in 0..10 {
            c.on_ack(mss, c.cwnd, mss);
        }
        assert_eq!(c.cwnd, 11_000);
    }

    #[test]
    fn window_that_is_not_used_does_not_grow() {
        let mut c = Congestion::new(1000);
        c.on_ack(100, 100, 1000);
        assert_eq!(c.cwnd, 10_000);
    }

    #[test]
    fn timeout_falls_to_one_segment_and_keeps_ssthresh_when_repeated() {
        let mut c = Congestion::new(1000);
        c.on_timeout(10_000, 1000, true);
        assert_eq!((c.cwnd, c.ssthresh), (1000, 5000));
        c.on_timeout(1000, 1000, false);
        assert_eq!((c.cwnd, c.ssthresh), (1000, 5000));
    }
}
