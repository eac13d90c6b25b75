//! How long a connection had something to send, what held it up, and how long its timeouts lasted: for tools alone, as
//! Linux tells it in `struct tcp_info`.
//!
//! A time that still runs is kept as what it was, less the clock when it began: the clock of any moment added gives it as
//! of then.

use super::{Tcb, timestamps};
use crate::time::Instant;

/// Why what was written is not acknowledged yet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Holdup {
    /// There is nothing.
    #[default]
    Idle,
    /// It is on its way, or the congestion window, the pace or an algorithm holds it.
    Network,
    /// The peer's window.
    Window,
    /// All went, and the application waits for room in its send buffer.
    Buffer,
}

/// Milliseconds.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Spent {
    /// By what held the connection up.
    network: u32,
    window: u32,
    buffer: u32,
    /// From a timeout to the end of the repair.
    repair: u32,
}

/// The same as of a moment: while there was something to send, in all; what of it the peer's window and our buffer held
/// up; and how long repairs after timeouts took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SpentTimes {
    pub busy_ms: u32,
    pub window_ms: u32,
    pub buffer_ms: u32,
    pub repair_ms: u32,
}

impl Spent {
    fn of(&mut self, holdup: Holdup) -> Option<&mut u32> {
        match holdup {
            Holdup::Idle => None,
            Holdup::Network => Some(&mut self.network),
            Holdup::Window => Some(&mut self.window),
            Holdup::Buffer => Some(&mut self.buffer),
        }
    }
}

impl Tcb {
    fn current_holdup(&self) -> Holdup {
        let snd = &self.snd;
        let unsent = snd.unsent();
        if snd.queue.is_empty() {
            return Holdup::Idle;
        }
        if unsent == 0 {
            return if self.wants_room { Holdup::Buffer } else { Holdup::Network };
        }
        let segment = unsent.min(u32::from(snd.mss));
        if snd.usable() < segment && snd.pipe() + segment <= self.congestion.cwnd() {
            Holdup::Window
        } else {
            Holdup::Network
        }
    }

    /// Something was written, sent or acknowledged.
    #[inline]
    pub(super) fn note_holdup(&mut self, now: Instant) {
        let holdup = self.current_holdup();
        if holdup != self.holdup {
            self.change_holdup(now, holdup);
        }
    }

    #[inline(never)]
    fn change_holdup(&mut self, now: Instant, holdup: Holdup) {
        let clock = timestamps::ms(now);
        if let Some(ended) = self.tally.spent.of(self.holdup) {
            *ended = ended.wrapping_add(clock);
        }
        if let Some(begun) = self.tally.spent.of(holdup) {
            *begun = begun.wrapping_sub(clock);
        }
        self.holdup = holdup;
    }

    /// The retransmission timer expired, in a handshake or later.
    pub(super) fn note_expiry(&mut self, now: Instant) {
        self.timers.expiries = self.timers.expiries.saturating_add(1);
        if !core::mem::replace(&mut self.timers.is_repairing, true) {
            self.snd.repairs = self.snd.repairs.saturating_add(1);
            self.tally.spent.repair = self.tally.spent.repair.wrapping_sub(timestamps::ms(now));
        }
    }

    /// What a timeout began to repair is repaired.
    #[inline]
    pub(super) fn note_repaired(&mut self, now: Instant) {
        if core::mem::take(&mut self.timers.is_repairing) {
            self.tally.spent.repair = self.tally.spent.repair.wrapping_add(timestamps::ms(now));
        }
    }

    /// As of now. Being held up is being busy as well.
    pub(super) fn spent(&self, now: Instant) -> SpentTimes {
        let mut spent = self.tally.spent;
        let clock = timestamps::ms(now);
        if let Some(running) = spent.of(self.holdup) {
            *running = running.wrapping_add(clock);
        }
        let repair_ms = if self.timers.is_repairing { spent.repair.wrapping_add(clock) } else { spent.repair };
        SpentTimes {
            busy_ms: spent.network.wrapping_add(spent.window).wrapping_add(spent.buffer),
            window_ms: spent.window,
            buffer_ms: spent.buffer,
            repair_ms,
        }
    }
}
