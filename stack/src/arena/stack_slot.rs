//! What processes share of a stack outside its lock: who sleeps on it, which doorbells are taken, when it was run.

use super::{LockOutcome, MAX_QUEUES, ProcId, RobustMutex};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::io;

/// Doorbells of a stack: threads that can sleep on it at once and be woken by name. One more sleeps in short naps.
pub const BELLS: usize = 16;

/// One stack's slot.
#[repr(C, align(64))]
pub struct StackSlot {
    lock: RobustMutex,
    in_use: AtomicU32,
    /// The process that opened it; 0 when it died.
    pub owner_pid: AtomicU32,
    /// Threads in a kernel wait that the stack's XSKs will wake.
    pub sleepers: AtomicU32,
    _pad: u32,
    /// When somebody last polled it, microseconds of the monotonic clock.
    pub last_poll_us: AtomicU64,
    /// Holder of each doorbell: ProcId + 1, or 0.
    bells: [AtomicU16; BELLS],
    /// What the daemon handed out, so that one after it finds it in the processes: inode numbers of the stack's XSKs,
    /// and of its doorbells the kernel's number (`eventfd-id` in fdinfo) plus 1. 0: none.
    pub xsk_inodes: [AtomicU64; MAX_QUEUES],
    pub bell_ids: [AtomicU32; BELLS],
}

impl StackSlot {
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire) != 0
    }

    pub(super) fn claim(&self) -> bool {
        self.in_use.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn init_lock(&self) -> io::Result<()> {
        self.sleepers.store(0, Ordering::Relaxed);
        self.last_poll_us.store(0, Ordering::Relaxed);
        self.bells.iter().for_each(|bell| bell.store(0, Ordering::Relaxed));
        self.xsk_inodes.iter().for_each(|inode| inode.store(0, Ordering::Relaxed));
        self.bell_ids.iter().for_each(|id| id.store(0, Ordering::Relaxed));
        self.lock.init()
    }

    pub(super) fn release(&self) {
        self.owner_pid.store(0, Ordering::Relaxed);
        self.in_use.store(0, Ordering::Release);
    }

    pub(crate) fn lock(&self) -> LockOutcome {
        self.lock.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<LockOutcome> {
        self.lock.try_lock()
    }

    pub(crate) fn unlock(&self) {
        self.lock.unlock();
    }

    pub(crate) fn claim_bell(&self, process: ProcId) -> Option<usize> {
        let free = |b: &AtomicU16| b.compare_exchange(0, process + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.bells.iter().position(free)
    }

    pub(crate) fn release_bell(&self, bell: usize) {
        self.bells[bell].store(0, Ordering::Release);
    }

    /// Frees what a dead process had taken; returns the mask of its doorbells. Sleepers cannot be told apart, so the
    /// count starts anew: at worst the daemon looks at the stack once too often.
    pub fn release_process(&self, process: ProcId) -> u32 {
        let mut mask = 0;
        for (i, bell) in self.bells.iter().enumerate() {
            if bell.compare_exchange(process + 1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                mask |= 1 << i;
            }
        }
        if mask != 0 {
            self.sleepers.store(0, Ordering::Release);
        }
        mask
    }
}

impl core::fmt::Debug for StackSlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StackSlot").field("in_use", &self.is_in_use()).finish_non_exhaustive()
    }
}
