//! How long waits may spin: what the environment says, unless the program said otherwise for itself or for a thread
//! (`sidestep_set_spin_us`).

use crate::config::config;
use crate::thread;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Nothing was said.
pub(crate) const DEFAULT_US: u32 = u32::MAX;
/// The longest that may be asked for.
pub(crate) const LONGEST_US: u32 = 1_000_000;

static PROCESS_US: AtomicU32 = AtomicU32::new(DEFAULT_US);

/// What a thread keeps of it. Zeroes say that nothing was said or found out.
pub(crate) struct Spinning {
    /// What was said for this thread, its bits turned over.
    said: Cell<u32>,
    /// How long it spins, in microseconds, its bits turned over; adapts to whether spinning finds anything.
    found: Cell<u32>,
}

impl Spinning {
    #[inline]
    fn said_us(&self) -> u32 {
        !self.said.get()
    }

    /// No more than [`limit_us`] counts.
    #[inline]
    pub(crate) fn found_us(&self) -> u32 {
        !self.found.get()
    }

    pub(crate) fn find(&self, us: u32) {
        self.found.set(!us);
    }
}

pub(crate) fn set_process_us(us: u32) {
    PROCESS_US.store(us, Ordering::Relaxed);
}

pub(crate) fn set_thread_us(us: u32) {
    thread::current().spinning.said.set(!us);
}

pub(crate) fn process_us() -> u32 {
    match PROCESS_US.load(Ordering::Relaxed) {
        DEFAULT_US => config().spin_us,
        us => us,
    }
}

/// What holds for the calling thread.
pub(crate) fn limit_us() -> u32 {
    match thread::current().spinning.said_us() {
        DEFAULT_US => process_us(),
        us => us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_own_word_then_the_process_then_the_environment() {
        let from_environment = limit_us();
        set_process_us(7);
        assert_eq!((limit_us(), process_us()), (7, 7));
        set_thread_us(0);
        assert_eq!((limit_us(), process_us()), (0, 7));
        assert_eq!(std::thread::spawn(limit_us).join().unwrap(), 7);
        set_process_us(DEFAULT_US);
        set_thread_us(DEFAULT_US);
        assert_eq!(limit_us(), from_environment);
    }
}
