//! The processes attached to a device. A slot's number, the [`ProcId`], is what sockets remember of their holders.

use core::sync::atomic::{AtomicU32, Ordering};

/// Most processes attached to one device at once; one more runs on the kernel.
pub const MAX_PROCS: usize = 256;

/// A slot taken by a parent for the child that it is about to fork.
pub const PENDING_FORK: u32 = u32::MAX;

/// Its child is there, and has not said yet who it is.
pub const BORN: u32 = u32::MAX - 3;

/// The daemon's slot, under which it holds sockets that nobody else does. A new daemon finds it as a dead process's.
pub const DAEMON: u32 = u32::MAX - 1;

/// No process's: the slot of a program that was replaced by exec, until all that it held is released.
pub const EXECUTED: u32 = u32::MAX - 2;

/// A process's number in the arena; below [`MAX_PROCS`].
pub type ProcId = u16;

/// The table: a pid a slot, 0 where it is free.
#[derive(Debug)]
#[repr(C)]
pub struct Processes {
    pids: [AtomicU32; MAX_PROCS],
}

impl Processes {
    /// Takes a slot; `None` when all are taken.
    pub fn claim(&self, pid: u32) -> Option<ProcId> {
        let free = |slot: &AtomicU32| slot.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.pids.iter().position(free).map(|i| i as ProcId)
    }

    /// Names the process behind a slot that was taken before its pid was known.
    pub fn set_pid(&self, id: ProcId, pid: u32) {
        self.pids[usize::from(id)].store(pid, Ordering::Release);
    }

    /// The fork for which a slot was taken has made its process.
    pub fn note_born(&self, id: ProcId) {
        // A child that was faster has said who it is.
        let _ = self.pids[usize::from(id)].compare_exchange(PENDING_FORK, BORN, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub fn pid_of(&self, id: ProcId) -> u32 {
        self.pids[usize::from(id)].load(Ordering::Acquire)
    }

    /// The slot of a pid.
    pub fn find(&self, pid: u32) -> Option<ProcId> {
        self.iter().find(|(_, p)| *p == pid).map(|(id, _)| id)
    }

    pub fn free(&self, id: ProcId) {
        self.pids[usize::from(id)].store(0, Ordering::Release);
    }

    /// All taken slots with their pids (and what is in their place).
    pub fn iter(&self) -> impl Iterator<Item = (ProcId, u32)> + '_ {
        self.pids.iter().enumerate().map(|(i, p)| (i as ProcId, p.load(Ordering::Acquire))).filter(|(_, p)| *p != 0)
    }
}
