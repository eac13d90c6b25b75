//! Frames that belong to no stack, and the locks of the rings that all stacks of a queue share.

use super::{MAX_STACKS, RobustMutex};
use crate::buf::{FrameId, FrameMeta, FrameShared, OWNER_FILL, OWNER_POOL};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;

/// What processes share of one receive queue. The ring positions themselves are in the kernel's ring memory.
#[derive(Debug)]
#[repr(C)]
pub struct QueueShared {
    pub(crate) fill: RobustMutex,
    pub(crate) completion: RobustMutex,
    /// Frames that stacks took out of circulation and could not replace: the next one with frames to spare does.
    pub(crate) fill_deficit: AtomicU32,
}

impl QueueShared {
    pub(super) fn init(&self) -> io::Result<()> {
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
            if frame.owner() == OWNER_POOL && !frame.is_in_tx() {
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

    /// Puts a frame that nobody reads into the pool.
    pub fn put(&self, id: FrameId) {
        self.with_head(|head| {
            self.frames[id as usize].reset(OWNER_POOL);
            self.set_next(id, *head);
            *head = id + 1;
        });
        self.shared.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes up to `n` frames for `owner` and hands each to `give`; returns how many there were.
    pub fn take(&self, n: u32, owner: u16, mut give: impl FnMut(FrameId)) -> u32 {
        let taken = self.with_head(|head| {
            let mut taken = 0;
            while taken < n && *head != 0 {
                let id = *head - 1;
                // SAFETY: `id` is in the table; the pool owns the frame's record and we hold the lock.
                *head = unsafe { (*self.meta.add(id as usize)).next };
                self.frames[id as usize].set_owner(owner);
                give(id);
                taken += 1;
            }
            taken
        });
        self.shared.count.fetch_sub(taken, Ordering::Relaxed);
        taken
    }

    /// Frames in the pool now. It is counted behind the lock: a frame may be taken before it was counted.
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
