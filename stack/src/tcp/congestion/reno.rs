//! Slow start and congestion avoidance (RFC 5681 §3.1).

use super::{CWND_MAX, Congestion};

/// Slow start adds what was acknowledged, whole: RFC 5681 would stop at one segment per acknowledgement, but receivers
/// that acknowledge a batch of frames at once (ours do) would then starve. Linux does the same.
#[inline]
pub(super) fn on_ack(c: &mut Congestion, acked: u32, flight: u32, mss: u32) {
    if c.cwnd < c.ssthresh {
        // Growth needs a window that is used: at least half of it in slow start (RFC 7661, as Linux tests it).
        if flight.saturating_mul(2) >= c.cwnd {
            c.cwnd = (c.cwnd + acked).min(CWND_MAX);
        }
    } else if flight + mss > c.cwnd {
        c.acked += acked;
        if c.acked >= c.cwnd {
            c.acked -= c.cwnd;
            c.cwnd = (c.cwnd + mss).min(CWND_MAX);
        }
    }
}

/// RFC 5681 equation 4.
pub(super) fn ssthresh_after_loss(flight: u32, mss: u32) -> u32 {
    (flight / 2).max(2 * mss)
}
