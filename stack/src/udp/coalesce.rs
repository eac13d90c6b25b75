//! UDP_GRO: datagrams of one sender that came one after the other, and are alike, are one receive. Linux puts them together
//! when they arrive, this when they are taken: so no more are than the receiver has room for.

use super::{Facts, Flags};
use crate::buf::{FrameId, Frames};
use crate::engine::Engine;
use crate::slab::NONE;
use crate::socket::{Errno, SocketId};

/// Linux's UDP_GRO_CNT_MAX, and what an IP packet may be long.
const COUNT_MAX: u32 = 64;
const LEN_MAX: usize = 65_507;

/// The datagrams that come with a first one.
#[derive(Clone, Copy)]
pub struct Others<'a> {
    frames: &'a Frames<'a>,
    first: FrameId,
    count: u32,
}

impl core::fmt::Debug for Others<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Others").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<'a> Others<'a> {
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Their payloads, in order.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Others { frames, first, count } = *self;
        let mut at = first;
        (0..count).map(move |_| {
            at = frames.meta(at).next;
            frames.payload(at)
        })
    }
}

impl Engine<'_> {
    /// The datagrams behind `first`, the oldest, that are received with it.
    pub(crate) fn others_of(&self, index: u32, first: FrameId, room: usize) -> Others<'_> {
        let len = self.frames.meta(first).len;
        let mut others = Others { frames: &self.frames, first, count: 0 };
        if len == 0 || !self.own(index).mailbox.flags.has(Flags::COALESCES) {
            return others;
        }
        let room = room.min(LEN_MAX);
        let (mut at, mut total, mut is_last) = (first, usize::from(len), false);
        while !is_last && others.count + 1 < COUNT_MAX {
            at = self.frames.meta(at).next;
            if at == NONE {
                break;
            }
            let next = self.frames.meta(at).len;
            total += usize::from(next);
            if next == 0 || next > len || total > room || !self.are_alike(first, at) {
                break;
            }
            is_last = next < len;
            others.count += 1;
        }
        others
    }

    fn are_alike(&self, one: FrameId, other: FrameId) -> bool {
        let [one, other] = [one, other].map(|frame| Facts::take(self.frames.bytes(frame)));
        Facts { arrived: one.arrived, ..other } == one
    }

    /// UDP_GRO.
    pub fn set_coalesces(&mut self, s: SocketId, on: bool) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        self.own_mut(index).mailbox.flags.put(Flags::COALESCES, on);
        Ok(())
    }
}
