//! What processes share of a stack outside its lock: who sleeps on it, which doorbells are taken, when it was run.

use super::{LockOutcome, MAX_QUEUES, ProcId, RobustMutex};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::io;

/// Doorbells of a stack: the first are for one thread each, the others for as many as come ([`crate::socket::SHARED_BELLS`]).
pub const BELLS: usize = 32;
/// Doorbells that one thread holds at a time.
pub(crate) const NAMED_BELLS: usize = crate::socket::SHARED_BELLS.trailing_zeros() as usize;

/// One stack's slot.
#[repr(C, align(64))]
pub struct StackSlot {
    lock: RobustMutex,
    /// 1: the lock's owner has begun to change what it guards. Of one that dies then nothing can be trusted; after any other the
    /// next one goes on where it stopped.
    changing: AtomicU32,
    in_use: AtomicU32,
    /// The process that opened it; 0 when it died.
    pub owner_pid: AtomicU32,
    /// Threads in a kernel wait that the stack's XSKs will wake.
    pub sleepers: AtomicU32,
    /// 1: connections came to be accepted since the daemon last looked; 2: one that nobody here asks for, and others may.
    pub arrivals: AtomicU32,
    /// When somebody last polled it, microseconds of the monotonic clock.
    pub last_poll_us: AtomicU64,
    /// Holder of each named doorbell: ProcId + 1, or 0.
    bells: [AtomicU16; NAMED_BELLS],
    /// What the daemon handed out, so that one after it finds it in the processes: inode numbers of the stack's XSKs,
    /// and of its doorbells the kernel's number (`eventfd-id` in fdinfo) plus 1. 0: none.
    pub xsk_inodes: [AtomicU64; MAX_QUEUES],
    pub bell_ids: [AtomicU32; BELLS],
    /// Up to where the transmit rings are written, in their own positions (the low half): further than what is published in the midst
    /// of a batch alone. The high half says which frame that was: [`Frames::sends`](crate::buf::Frames::sends).
    pub tx_written: [AtomicU64; MAX_QUEUES],
}

impl StackSlot {
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire) != 0
    }

    pub(super) fn claim(&self) -> bool {
        self.in_use.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn init_lock(&self) -> io::Result<()> {
        self.changing.store(0, Ordering::Relaxed);
        self.sleepers.store(0, Ordering::Relaxed);
        self.tx_written.iter().for_each(|position| position.store(0, Ordering::Relaxed));
        self.last_poll_us.store(0, Ordering::Relaxed);
        self.arrivals.store(0, Ordering::Relaxed);
        self.bells.iter().for_each(|bell| bell.store(0, Ordering::Relaxed));
        self.xsk_inodes.iter().for_each(|inode| inode.store(0, Ordering::Relaxed));
        self.bell_ids.iter().for_each(|id| id.store(0, Ordering::Relaxed));
        self.lock.init()
    }

    pub(super) fn release(&self) {
        self.owner_pid.store(0, Ordering::Relaxed);
        self.in_use.store(0, Ordering::Release);
    }

    /// Whether the owner of the lock is changing something, or was when it died.
    #[inline]
    pub(crate) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Relaxed) != 0
    }

    /// The owner of the lock says it.
    #[inline]
    pub(crate) fn note_changing(&self, is_changing: bool) {
        // Whoever reads it after our death sees all that we had written by then: the compiler alone could change the order.
        compiler_fence(Ordering::SeqCst);
        self.changing.store(u32::from(is_changing), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
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

    /// The mask of the doorbells that a process has taken.
    pub fn bells_of(&self, process: ProcId) -> u32 {
        let taken = self.bells.iter().enumerate().filter(|(_, bell)| bell.load(Ordering::Acquire) == process + 1);
        taken.fold(0, |mask, (i, _)| mask | 1 << i)
    }

    /// Frees what a dead process had taken, of which nobody rings the doorbells any more. Sleepers cannot be told apart, so
    /// the count starts anew: at worst the daemon looks at the stack once too often.
    pub fn release_process(&self, process: ProcId) {
        let bells = self.bells_of(process);
        (0..NAMED_BELLS).filter(|i| bells & 1 << i != 0).for_each(|i| self.release_bell(i));
        if bells != 0 {
            self.sleepers.store(0, Ordering::Release);
        }
    }
}

impl core::fmt::Debug for StackSlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StackSlot").field("in_use", &self.is_in_use()).finish_non_exhaustive()
    }
}
