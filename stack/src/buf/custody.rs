//! Who has a frame: what all stacks and the daemon know of it, without anybody's lock.
//!
//! A frame is in one of the lists of its owner, or on its way:
//!
//! ```text
//! idle ──sent──▶ in the ring ──its owner lets go──▶ released ──completed──▶ returning ──▶ idle
//!  ▲ │               │                                                          │
//!  │ │               └──completed: its owner holds it still──▶ idle             │ owned by the pool
//!  │ └──put──▶ pooled ◀─────────────────────────────────────────────────────────┘
//!  └────taken────┘
//! ```
//!
//! Completions are found by whoever looks first, who may be killed at any moment, and so may the owner. So each step is one
//! word, and what somebody had in his hands is found by it: a frame that is returning and in no list has lost its bearer
//! ([`Frames::recover`](super::Frames::recover)), and one that is pooled is not put into the pool a second time.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

/// What others may need to know of a frame: the completion ring is shared by all stacks of a queue, so whoever
/// finds a completion there must be able to give the frame back to its owner without the owner's lock.
#[derive(Default, Debug)]
#[repr(C)]
pub struct FrameShared {
    /// The owner: a stack's index + 1, or [`OWNER_POOL`], or [`OWNER_FILL`].
    owner: AtomicU16,
    /// One of the states below, and [`TURN`].
    state: AtomicU8,
    _pad: u8,
    /// Link in the owner's list of returned frames (index + 1).
    returned_next: AtomicU32,
}

/// The frame lies in the arena's common pool, or is on its way there.
pub const OWNER_POOL: u16 = 0;
/// The frame is in a fill ring, or on its way through the kernel to a receive ring.
pub const OWNER_FILL: u16 = u16::MAX;

/// The kernel does not read it.
const IDLE: u8 = 0;
/// The kernel reads it.
const IN_TX: u8 = 1;
/// The kernel reads it, and its owner has let go of it.
const RELEASED: u8 = 2;
/// Whoever found its completion brings it back to its owner, who had let go of it.
const RETURNING: u8 = 3;
/// It is in the pool's list.
const POOLED: u8 = 4;
const STATE: u8 = 7;
/// Changes each time the frame is sent.
const TURN: u8 = 0x80;

impl FrameShared {
    pub fn owner(&self) -> u16 {
        self.owner.load(Ordering::Relaxed)
    }

    pub fn set_owner(&self, owner: u16) {
        self.owner.store(owner, Ordering::Relaxed);
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire) & STATE
    }

    /// For whoever is the only one to change it now.
    fn set_state(&self, state: u8) {
        let turn = self.turn();
        self.state.store(state | turn, Ordering::Release);
    }

    /// From one state to the other, if it is in that.
    fn step(&self, from: u8, to: u8) -> bool {
        let turn = self.turn();
        self.state.compare_exchange(from | turn, to | turn, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Another one since the frame was sent the last time.
    pub fn turn(&self) -> u8 {
        self.state.load(Ordering::Relaxed) & TURN
    }

    /// It is given to the kernel's transmit ring by its owner.
    pub(super) fn send(&self) {
        let turn = self.turn() ^ TURN;
        self.state.store(IN_TX | turn, Ordering::Release);
    }

    /// Whether the kernel may still read the frame.
    pub fn is_in_tx(&self) -> bool {
        matches!(self.state(), IN_TX | RELEASED)
    }

    /// Whether its owner let go of it while the kernel reads it.
    pub fn is_leaving(&self) -> bool {
        self.state() == RELEASED
    }

    /// Whether it is on its way back to its owner.
    pub fn is_returning(&self) -> bool {
        self.state() == RETURNING
    }

    /// Whether nobody but the kernel has it: it is for what is received, or is sent for somebody who is no more.
    pub fn is_with_kernel(&self) -> bool {
        self.owner() == OWNER_FILL || self.owner() == OWNER_POOL && self.is_leaving()
    }

    /// Its owner lets go of it. False when the kernel does not read it: it is free now.
    pub(super) fn release(&self) -> bool {
        self.state() == IN_TX && self.step(IN_TX, RELEASED)
    }

    /// The kernel is done with it. True when its owner had let go of it in the meantime, so that whoever asks brings it back.
    pub fn complete(&self) -> bool {
        // Its owner may let go of it between the two steps.
        !self.step(IN_TX, IDLE) && self.step(RELEASED, RETURNING)
    }

    /// Its owner is gone. True when the kernel still reads it: it is the pool's with its completion. Else whoever asks has it.
    /// Nobody may look for completions meanwhile.
    pub(crate) fn leave_to_pool(&self) -> bool {
        let leaves = self.is_in_tx();
        if leaves {
            self.set_owner(OWNER_POOL);
            self.set_state(RELEASED);
        }
        leaves
    }

    /// It goes to the list of an owner, who has it now.
    pub(crate) fn come_to(&self, owner: u16) {
        self.set_owner(owner);
        self.set_state(IDLE);
    }

    /// It goes into the pool's list: for whoever has the pool's lock. False when it is not for the pool, or there already.
    pub fn pool(&self) -> bool {
        let goes = self.owner() == OWNER_POOL && matches!(self.state(), IDLE | RETURNING);
        if goes {
            self.set_state(POOLED);
        }
        goes
    }

    /// As [`FrameShared::pool`], when the pool's list is made anew.
    pub fn pool_again(&self) -> bool {
        let goes = self.owner() == OWNER_POOL && !self.is_in_tx();
        if goes {
            self.set_state(POOLED);
        }
        goes
    }

    pub(super) fn returned_next(&self) -> u32 {
        self.returned_next.load(Ordering::Relaxed)
    }

    pub(super) fn set_returned_next(&self, next: u32) {
        self.returned_next.store(next, Ordering::Relaxed);
    }
}
