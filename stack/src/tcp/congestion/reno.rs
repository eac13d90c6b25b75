//! Slow start and congestion avoidance (RFC 5681 §3.1).

use super::{CWND_MAX, Congestion, Delivery};

/// Slow start adds what was acknowledged, whole: RFC 5681 would stop at one segment per acknowledgement, but receivers
/// that acknowledge a batch of frames at once (ours do) would then starve. Linux does the same.
#[inline]
pub(super) fn on_ack(c: &mut Congestion, delivery: &Delivery) {
    // Growth needs a window that is used.
    if !delivery.is_cwnd_limited {
        return;
    }
    let Delivery { acked, mss, .. } = *delivery;
    if c.cwnd < c.ssthresh {
        c.cwnd = (c.cwnd + acked).min(CWND_MAX);
    } else {
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
