//! Slow start and congestion avoidance (RFC 5681 §3.1).

use super::{Delivery, Window};

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Reno {
    /// Octets acknowledged since the window last grew in congestion avoidance.
    pub(super) acked: u32,
}

/// Slow start adds what was acknowledged, whole: RFC 5681 would stop at one segment per acknowledgement, but receivers
/// that acknowledge a batch of frames at once (ours do) would then starve. Linux does the same.
#[inline]
pub(super) fn on_ack(reno: &mut Reno, window: &mut Window, delivery: &Delivery) {
    // Growth needs a window that is used.
    if !delivery.is_cwnd_limited {
        return;
    }
    if window.cwnd < window.ssthresh {
        window.grow(delivery.acked);
    } else {
        reno.acked = reno.acked.saturating_add(delivery.acked);
        if reno.acked >= window.cwnd {
            reno.acked -= window.cwnd;
            window.grow(delivery.mss);
        }
    }
}

/// RFC 5681 equation 4.
pub(super) fn ssthresh_after_loss(flight: u32, mss: u32) -> u32 {
    (flight / 2).max(2 * mss)
}
