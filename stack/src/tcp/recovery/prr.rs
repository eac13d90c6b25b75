//! Proportional rate reduction (RFC 6937, with the heuristic of its revision): while a loss is repaired, what may be sent
//! follows what is delivered, so that the window ends at ssthresh without a pause and without a burst.

/// What proportional rate reduction counts, in octets.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Prr {
    /// Delivered and sent since recovery began; and what was in flight then (RecoverFS).
    delivered: u32,
    out: u32,
    flight: u32,
}

impl Prr {
    pub(super) fn new(flight: u32) -> Prr {
        Prr { delivered: 0, out: 0, flight: flight.max(1) }
    }

    pub(super) fn note_sent(&mut self, octets: u32) {
        self.out = self.out.saturating_add(octets);
    }

    /// The window after an acknowledgement that delivered `delivered` octets and left `in_flight`. `is_safe`: SND.UNA moved
    /// and nothing more is lost; then slow start towards ssthresh (SSRB), else no more than was delivered (CRB).
    pub(super) fn window(&mut self, in_flight: u32, ssthresh: u32, delivered: u32, is_safe: bool, mss: u32) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let room = if in_flight > ssthresh {
            let share = (u64::from(self.delivered) * u64::from(ssthresh)).div_ceil(u64::from(self.flight.max(1)));
            share.saturating_sub(u64::from(self.out)).min(u64::from(u32::MAX)) as u32
        } else {
            let behind = self.delivered.saturating_sub(self.out).max(delivered);
            let extra = if is_safe { mss } else { 0 };
            behind.saturating_add(extra).min(ssthresh - in_flight)
        };
        // The first retransmission goes in any case.
        let room = if self.out == 0 { room.max(mss) } else { room };
        in_flight.saturating_add(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// A flight of 20 segments that loses its first ones: an acknowledgement for each of the others; what may be sent
    /// is sent. Returns the window after each.
    fn repair(lost: u32, mut ssthresh: u32) -> Vec<(u32, u32)> {
        ssthresh *= MSS;
        let mut prr = Prr::new(20 * MSS);
        let mut pipe = (20 - lost) * MSS;
        let mut windows = vec![];
        for _ in 0..20 - lost {
            pipe -= MSS;
            let window = prr.window(pipe, ssthresh, MSS, false, MSS);
            windows.push((window, pipe));
            while pipe + MSS <= window {
                pipe += MSS;
                prr.note_sent(MSS);
            }
        }
        windows
    }

    #[test]
    fn one_loss_ends_at_ssthresh() {
        let windows = repair(1, 10);
        let (last, pipe) = windows[windows.len() - 1];
        assert!(last.abs_diff(10 * MSS) <= MSS, "{last}");
        assert!(pipe <= last);
        // Every other acknowledgement lets a segment go: no pause, no burst.
        for (window, pipe) in windows {
            assert!(window >= pipe && window - pipe < 2 * MSS);
        }
    }

    #[test]
    fn many_losses_never_send_more_than_arrives_nor_less() {
        // More was lost than the window has to shrink: what is delivered may be sent.
        for (window, pipe) in &repair(15, 10)[1..] {
            assert_eq!(window - pipe, MSS);
        }
    }

    #[test]
    fn slow_start_towards_ssthresh_when_it_goes_well() {
        let mut prr = Prr::new(20 * MSS);
        prr.note_sent(MSS);
        prr.window(2 * MSS, 10 * MSS, MSS, false, MSS);
        assert_eq!(prr.window(2 * MSS, 10 * MSS, MSS, true, MSS), 4 * MSS);
        // Never beyond it.
        assert_eq!(prr.window(9 * MSS, 10 * MSS, 8 * MSS, true, MSS), 10 * MSS);
    }

    #[test]
    fn extremes() {
        let mut prr = Prr::new(0);
        assert_eq!(prr.window(u32::MAX, 1, u32::MAX, true, MSS), u32::MAX);
        prr.note_sent(u32::MAX);
        prr.note_sent(u32::MAX);
        // All that arrived went again: nothing may go, and nothing wraps.
        let mut prr = Prr { delivered: u32::MAX, out: u32::MAX, flight: u32::MAX };
        assert_eq!(prr.window(5, 2, u32::MAX, true, MSS), 5);
    }
}
