//! Frames that belong to no stack, and the locks of the rings that all stacks of a queue share.

use super::{MAX_STACKS, RobustMutex};
use crate::buf::{FrameId, FrameMeta, FrameShared, OWNER_FILL, OWNER_POOL};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::io;

/// What processes share of one receive queue. The ring positions themselves are in the kernel's ring memory.
#[derive(Debug)]
#[repr(C)]
pub struct QueueShared {
    pub(crate) fill: RobustMutex,
    /// Up to where the fill ring is written, in its own positions: further than what is published in the midst of a batch alone.
    pub(crate) fill_written: AtomicU32,
    pub(crate) completion: RobustMutex,
    /// Which completion is being handled, see `xsk::queue::Handling`; 0: none. Somebody died over one that stands here when the
    /// lock is free.
    pub(crate) handling: AtomicU64,
    /// Frames that stacks took out of circulation and did not replace: whoever has frames to spare does. Below zero: two did at once.
    pub(crate) fill_deficit: AtomicI32,
}

impl QueueShared {
    pub(crate) fn init(&self) -> io::Result<()> {
        self.fill.init()?;
        self.completion.init()
    }
}

/// The pool's head, behind its lock.
#[repr(C)]
pub(super) struct PoolShared {
    lock: RobustMutex,
    /// Head of the list through `FrameMeta::next`, index + 1.
    head: UnsafeCell<u32>,
    count: AtomicU32,
    /// Who died with a frame in his hands that he brought back to its owner.
    bearers_lost: AtomicU32,
}

// SAFETY: `head` is touched only under `lock`.
unsafe impl Sync for PoolShared {}

/// The common pool of one arena.
#[derive(Clone, Copy)]
pub struct Pool {
    shared: &'static PoolShared,
    meta: *mut FrameMeta,
    frames: &'static [FrameShared],
}

impl Pool {
    pub(super) fn new(shared: &'static PoolShared, meta: *mut FrameMeta, frames: &'static [FrameShared]) -> Pool {
        Pool { shared, meta, frames }
    }

    pub(crate) fn frames(&self) -> &'static [FrameShared] {
        self.frames
    }

    pub(super) fn init(&self) -> io::Result<()> {
        self.shared.lock.init()?;
        self.rebuild();
        Ok(())
    }

    /// Runs `work` on the list's head under the lock. A process that died inside may have lost the list: it is
    /// rebuilt from the frames' owners.
    fn with_head<R>(&self, work: impl FnOnce(&mut u32) -> R) -> R {
        if self.shared.lock.lock() == super::LockOutcome::OwnerDied {
            self.rebuild();
        }
        // SAFETY: we hold the lock.
        let result = work(unsafe { &mut *self.shared.head.get() });
        self.shared.lock.unlock();
        result
    }

    /// Links every frame that the pool owns; under the lock, or before anybody else knows of the arena.
    fn rebuild(&self) {
        let mut head = 0;
        let mut count = 0;
        for (id, frame) in self.frames.iter().enumerate().rev() {
            if frame.pool_again() {
                self.set_next(id as FrameId, head);
                head = id as u32 + 1;
                count += 1;
            }
        }
        // SAFETY: as the function's comment says.
        unsafe { *self.shared.head.get() = head };
        self.shared.count.store(count, Ordering::Relaxed);
    }

    fn set_next(&self, id: FrameId, next: u32) {
        // SAFETY: `id` is in the table; the pool owns the frame's record and we hold the lock.
        unsafe { (*self.meta.add(id as usize)).next = next };
    }

    /// Puts a frame that nobody reads into the pool, whosever it was.
    pub fn put(&self, id: FrameId) {
        self.with_head(|head| {
            self.frames[id as usize].come_to(OWNER_POOL);
            self.link(head, id);
        });
    }

    /// Puts a frame into the pool that is the pool's. It may be there already, or gone from there: while it was brought, somebody
    /// may have taken stock.
    pub(crate) fn put_own(&self, id: FrameId) {
        self.with_head(|head| self.link(head, id));
    }

    /// Under the lock.
    fn link(&self, head: &mut u32, id: FrameId) {
        if self.frames[id as usize].pool() {
            self.set_next(id, *head);
            *head = id + 1;
            self.shared.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// If its lock's last owner died inside, what he left is put in order now; else the next one to come does that.
    pub fn settle(&self) {
        self.with_head(|_| ());
    }

    /// Somebody died who had a frame in his hands, to bring it back. If it is the pool's, it is there now; if it is a stack's,
    /// that will miss it.
    pub(crate) fn lose_bearer(&self) {
        self.shared.lock.lock();
        self.rebuild();
        self.shared.lock.unlock();
        self.shared.bearers_lost.fetch_add(1, Ordering::Release);
    }

    /// How many of those there were.
    pub(crate) fn bearers_lost(&self) -> u32 {
        self.shared.bearers_lost.load(Ordering::Acquire)
    }

    /// Takes up to `n` frames for `owner` and hands each to `give`; returns how many there were.
    pub fn take(&self, n: u32, owner: u16, mut give: impl FnMut(FrameId)) -> u32 {
        self.with_head(|head| {
            let mut taken = 0;
            while taken < n && *head != 0 {
                let id = *head - 1;
                // SAFETY: `id` is in the table; the pool owns the frame's record and we hold the lock.
                *head = unsafe { (*self.meta.add(id as usize)).next };
                self.frames[id as usize].come_to(owner);
                give(id);
                taken += 1;
            }
            // Under the lock: who dies behind it leaves a count that is right.
            self.shared.count.fetch_sub(taken, Ordering::Relaxed);
            taken
        })
    }

    /// Frames in the pool now.
    pub fn count(&self) -> u32 {
        self.shared.count.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }
}

/// Who owns how many frames.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    pub total: u32,
    pub pool: u32,
    /// In fill rings, in the kernel, or in receive rings that nobody has read yet.
    pub fill: u32,
    pub stacks: [u32; MAX_STACKS],
}

impl Census {
    pub(super) fn of(frames: &[FrameShared]) -> Census {
        let mut census = Census { total: frames.len() as u32, pool: 0, fill: 0, stacks: [0; MAX_STACKS] };
        for frame in frames {
            match frame.owner() {
                OWNER_POOL => census.pool += 1,
                OWNER_FILL => census.fill += 1,
                owner => {
                    if let Some(n) = census.stacks.get_mut(usize::from(owner) - 1) {
                        *n += 1;
                    }
                }
            }
        }
        census
    }

    /// Whether every frame has an owner.
    pub fn adds_up(&self) -> bool {
        self.pool + self.fill + self.stacks.iter().sum::<u32>() == self.total
    }
}
