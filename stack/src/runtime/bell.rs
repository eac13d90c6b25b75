//! Doorbells. A bell belongs to one thread while it waits; ringing it is an eventfd write by whoever, in whichever
//! process, made ready what the thread waits for.

use super::Stack;
use crate::sys;
use std::os::fd::RawFd;

/// A doorbell, held. Dropping it silences and frees it.
#[derive(Debug)]
pub struct Bell<'s> {
    stack: &'s Stack,
    bit: u8,
}

impl<'s> Bell<'s> {
    pub(super) fn new(stack: &'s Stack, bit: u8) -> Bell<'s> {
        Bell { stack, bit }
    }

    /// The eventfd to wait for.
    pub fn fd(&self) -> RawFd {
        self.stack.bell_fd(self.bit)
    }

    /// Its number in the engine's masks.
    pub fn bit(&self) -> u8 {
        self.bit
    }

    /// Silences it: after a wait that it ended.
    pub fn clear(&self) {
        sys::clear_eventfd(self.fd());
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        // The engine must have been told before (unwait): a ring that comes later wakes the bell's next holder once
        // for nothing, which its loop survives.
        self.clear();
        self.stack.slot().release_bell(usize::from(self.bit));
    }
}
