//! A queue of frames, linked through their records: no allocation, eight bytes of state and two counts.

use super::{FrameId, Frames};
use crate::slab::NONE;

/// A list of frames in order. Zeroed memory is not a list: make one with [`FrameList::EMPTY`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FrameList {
    head: FrameId,
    tail: FrameId,
    frames: u32,
    /// Payload bytes in all frames.
    bytes: u32,
}

impl FrameList {
    pub const EMPTY: FrameList = FrameList { head: NONE, tail: NONE, frames: 0, bytes: 0 };

    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub fn front(&self) -> Option<FrameId> {
        (self.head != NONE).then_some(self.head)
    }

    pub fn back(&self) -> Option<FrameId> {
        (self.tail != NONE).then_some(self.tail)
    }

    pub fn frames(&self) -> u32 {
        self.frames
    }

    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    pub fn next(&self, frames: &Frames<'_>, id: FrameId) -> Option<FrameId> {
        let next = frames.meta(id).next;
        (next != NONE).then_some(next)
    }

    /// How many frames it really has: no more than one beyond what it says, though it never ended.
    pub fn walk(&self, frames: &Frames<'_>) -> u32 {
        let after = |id: &FrameId| self.next(frames, *id);
        core::iter::successors(self.front(), after).take(self.frames as usize + 1).count() as u32
    }

    pub fn push_back(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        frames.meta_mut(id).next = NONE;
        match self.tail {
            NONE => self.head = id,
            tail => frames.meta_mut(tail).next = id,
        }
        self.tail = id;
        self.frames += 1;
        self.bytes += u32::from(frames.meta(id).len);
    }

    /// Puts `id` behind `after`, or in front when `after` is `None`.
    pub fn insert_after(&mut self, frames: &mut Frames<'_>, after: Option<FrameId>, id: FrameId) {
        let next = match after {
            Some(a) => core::mem::replace(&mut frames.meta_mut(a).next, id),
            None => core::mem::replace(&mut self.head, id),
        };
        frames.meta_mut(id).next = next;
        if next == NONE {
            self.tail = id;
        }
        self.frames += 1;
        self.bytes += u32::from(frames.meta(id).len);
    }

    pub fn pop_front(&mut self, frames: &mut Frames<'_>) -> Option<FrameId> {
        let id = self.front()?;
        self.head = frames.meta(id).next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.frames -= 1;
        self.bytes -= u32::from(frames.meta(id).len);
        frames.meta_mut(id).next = NONE;
        Some(id)
    }

    /// The payload of a frame in the list grew by `n` (more was appended to it).
    pub fn grew(&mut self, n: u32) {
        self.bytes += n;
    }

    /// Takes the frame behind `after` (the front one when `after` is `None`) out of the list.
    pub fn remove_after(&mut self, frames: &mut Frames<'_>, after: Option<FrameId>) -> Option<FrameId> {
        let Some(after) = after else { return self.pop_front(frames) };
        let id = self.next(frames, after)?;
        let next = frames.meta(id).next;
        frames.meta_mut(after).next = next;
        if next == NONE {
            self.tail = after;
        }
        self.frames -= 1;
        self.bytes -= u32::from(frames.meta(id).len);
        frames.meta_mut(id).next = NONE;
        Some(id)
    }

    /// The payload of a frame in the list shrank by `n`.
    pub fn shrank(&mut self, n: u32) {
        self.bytes -= n;
    }

    /// Drops `n` bytes from the front frame's payload; the frame stays. `n` is at most its length.
    pub fn advance_front(&mut self, frames: &mut Frames<'_>, n: u16) {
        if let Some(id) = self.front() {
            frames.advance(id, n);
            self.bytes -= u32::from(n);
        }
    }

    /// Releases every frame.
    pub fn clear(&mut self, frames: &mut Frames<'_>) {
        while let Some(id) = self.pop_front(frames) {
            frames.release(id);
        }
    }
}
