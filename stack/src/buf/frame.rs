//! The frame table, as a stack sees it: what is in its frames, and which are free.

use super::{FrameList, FrameShared, Pressure};
use crate::slab::NONE;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes in a frame (one UMEM chunk).
pub const FRAME_SIZE: usize = 2048;

/// Where payload starts in a frame that is to be sent: room for AF_XDP's transmit metadata (24), Ethernet (14), two
/// VLAN tags (8), IPv6 (40) and TCP with all options (60), rounded up.
pub const TX_HEADROOM: usize = 160;

/// A frame's name: its index in the UMEM. `NONE` ends a list.
pub type FrameId = u32;

/// What the owner of a frame knows about it. Only the owning stack touches it, under its lock.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct FrameMeta {
    /// The next frame in whatever list holds this one; `NONE` at the end.
    pub next: FrameId,
    /// Sequence number of the first payload byte (TCP), else unused.
    pub seq: u32,
    /// Where the payload starts in the frame, and its length.
    pub off: u16,
    pub len: u16,
    /// Free for the protocol: TCP keeps per-segment facts here (FIN rides on it, it was retransmitted, lost, sacked).
    pub flags: u16,
    /// Times this payload was given to the network.
    pub transmissions: u16,
    /// When it was last given to the network, low 32 bits of microseconds.
    pub sent_at: u32,
    /// What the delivery rate is worked out from: octets delivered, when the last of them were, and when the first of
    /// this flight was sent, all as they stood when the payload was last given to the network.
    pub delivered: u32,
    pub delivered_at: u32,
    pub first_sent_at: u32,
    /// TCP's list of what was sent again, in the order of sending.
    pub resent_next: FrameId,
    pub resent_prev: FrameId,
}

impl FrameMeta {
    /// Of a received frame that begins a stretch out of order: the last frame of the stretch. The word is the sender's,
    /// who has no use for it in a received frame.
    pub fn run_last(&self) -> FrameId {
        self.first_sent_at
    }

    pub fn set_run_last(&mut self, id: FrameId) {
        self.first_sent_at = id;
    }
}

/// A stack's own free frames. `head` is index + 1, so that zeroed memory is an empty list (of a stack that has to
/// do with next to nothing, until the first look at what there is).
#[derive(Debug)]
#[repr(C)]
pub struct FreeList {
    head: u32,
    count: u32,
    /// Frames that others returned (completions found by another stack), index + 1 of the newest.
    returned: AtomicU32,
    /// [`Pressure::allowance`] of the moment, and the pressure itself.
    allowance: u32,
    pressure: Pressure,
    _pad: [u8; 3],
    /// The last that was heard of bearers who died with frames in their hands: see [`Frames::recover`].
    bearers_lost: u32,
    /// The frame that was sent last (index + 1), and how many were, modulo 2^32: see [`Frames::unsend`].
    sent: u32,
    sends: u32,
}

impl Default for FreeList {
    fn default() -> Self {
        FreeList {
            head: 0,
            count: 0,
            returned: AtomicU32::new(0),
            allowance: Pressure::None.allowance(),
            pressure: Pressure::None,
            _pad: [0; 3],
            bearers_lost: 0,
            sent: 0,
            sends: 0,
        }
    }
}

impl FreeList {
    /// Gives a frame back from outside the owner's lock.
    pub fn push_returned(&self, frames: &[FrameShared], id: FrameId) {
        let mut head = self.returned.load(Ordering::Relaxed);
        loop {
            frames[id as usize].set_returned_next(head);
            match self.returned.compare_exchange_weak(head, id + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// A stack's view of the frame table and of the UMEM.
pub struct Frames<'m> {
    meta: &'m mut [FrameMeta],
    shared: &'m [FrameShared],
    data: &'m mut [u8],
    free: &'m mut FreeList,
    owner: u16,
}

impl<'m> Frames<'m> {
    /// `owner` is the stack's index + 1.
    pub fn new(
        meta: &'m mut [FrameMeta],
        shared: &'m [FrameShared],
        data: &'m mut [u8],
        free: &'m mut FreeList,
        owner: u16,
    ) -> Self {
        Frames { meta, shared, data, free, owner }
    }

    /// Takes a free frame; `None` when the stack has none (the runtime tops the list up between calls).
    pub fn alloc(&mut self) -> Option<FrameId> {
        if self.free.head == 0 {
            self.collect_returned();
        }
        let id = self.free.head.checked_sub(1)?;
        self.free.head = self.meta[id as usize].next;
        self.free.count -= 1;
        self.meta[id as usize] = FrameMeta { next: NONE, ..FrameMeta::default() };
        Some(id)
    }

    /// Lets go of a frame. If the kernel still reads it, it becomes free with its completion.
    pub fn release(&mut self, id: FrameId) {
        if !self.shared[id as usize].release() {
            self.push_free(id);
        }
    }

    /// Puts a frame that nobody reads on the free list. For the runtime (frames from the pool, completions);
    /// everybody else calls [`Frames::release`].
    pub fn push_free(&mut self, id: FrameId) {
        self.shared[id as usize].come_to(self.owner);
        self.meta[id as usize].next = self.free.head;
        self.free.head = id + 1;
        self.free.count += 1;
    }

    /// Marks a frame as given to the kernel's transmit ring. Whoever does so puts it there before the next.
    pub fn mark_in_tx(&mut self, id: FrameId) {
        self.free.sent = id + 1;
        self.free.sends = self.free.sends.wrapping_add(1);
        self.shared[id as usize].send();
    }

    /// How many frames were marked so, modulo 2^32.
    pub fn sends(&self) -> u32 {
        self.free.sends
    }

    /// Somebody died before he had put the last of them into a ring: the kernel never hears of it.
    pub fn unsend(&mut self) {
        if let Some(id) = self.free.sent.checked_sub(1) {
            self.shared[id as usize].come_to(self.owner);
        }
    }

    /// Whether the kernel may still read the frame: its headers must not be rewritten.
    pub fn is_in_tx(&self, id: FrameId) -> bool {
        self.shared[id as usize].is_in_tx()
    }

    /// The frames of a list are this stack's from now on: they were another's, whose lock is held too.
    pub fn take_over(&mut self, list: &FrameList) {
        let mut at = list.front();
        while let Some(id) = at {
            self.shared[id as usize].set_owner(self.owner);
            at = list.next(self, id);
        }
    }

    /// Forgets the free frames: whoever rebuilds a stack finds them by owner.
    pub fn forget_free(&mut self) {
        *self.free = FreeList { sends: self.free.sends, ..FreeList::default() };
    }

    /// Free frames at hand, not counting returned ones that were not collected yet.
    pub fn free_count(&self) -> u32 {
        self.free.count
    }

    /// How scarce frames are, by the last word of whoever brings and takes them.
    #[inline]
    pub fn pressure(&self) -> Pressure {
        self.free.pressure
    }

    /// Says how scarce frames are now: for the runtime, which sees the pool.
    pub fn set_pressure(&mut self, pressure: Pressure) {
        self.free.pressure = pressure;
        self.free.allowance = pressure.allowance();
    }

    /// What [`Pressure::allowance`] leaves to one connection now.
    #[inline]
    pub fn allowance(&self) -> u32 {
        self.free.allowance
    }

    /// Moves what others returned to the free list.
    pub fn collect_returned(&mut self) {
        let mut head = self.free.returned.swap(0, Ordering::Acquire);
        while head != 0 {
            let id = head - 1;
            head = self.shared[id as usize].returned_next();
            self.push_free(id);
        }
    }

    /// Whether bearers died of whom this stack has not heard; `lost` is how many did up to now.
    pub fn misses_bearers(&self, lost: u32) -> bool {
        self.free.bearers_lost != lost
    }

    /// Finds the frames that were on their way back here with somebody who died. Nobody may be bringing any meanwhile: the
    /// caller holds the locks of all completion rings.
    pub fn recover(&mut self, lost: u32) {
        self.collect_returned();
        for (id, frame) in self.shared.iter().enumerate() {
            if frame.owner() == self.owner && frame.is_returning() {
                self.push_free(id as FrameId);
            }
        }
        self.free.bearers_lost = lost;
    }

    /// Builds the free list anew from the frames' owners: nothing else of this stack's state is trusted any more.
    /// Frames that the kernel still reads become the pool's with their completion. Nobody may be bringing any back meanwhile,
    /// as for [`Frames::recover`].
    pub fn rebuild(&mut self) {
        self.free.head = 0;
        self.free.count = 0;
        self.free.returned.store(0, Ordering::Relaxed);
        for (id, frame) in self.shared.iter().enumerate() {
            if frame.owner() == self.owner && !frame.leave_to_pool() {
                self.push_free(id as FrameId);
            }
        }
    }

    pub fn owner(&self) -> u16 {
        self.owner
    }

    pub fn shared(&self, id: FrameId) -> &'m FrameShared {
        &self.shared[id as usize]
    }

    /// All shared records: for giving a frame back to another stack.
    pub fn all_shared(&self) -> &'m [FrameShared] {
        self.shared
    }

    pub fn meta(&self, id: FrameId) -> &FrameMeta {
        &self.meta[id as usize]
    }

    pub fn meta_mut(&mut self, id: FrameId) -> &mut FrameMeta {
        &mut self.meta[id as usize]
    }

    /// The whole frame.
    pub fn bytes(&self, id: FrameId) -> &[u8] {
        let at = id as usize * FRAME_SIZE;
        &self.data[at..at + FRAME_SIZE]
    }

    pub fn bytes_mut(&mut self, id: FrameId) -> &mut [u8] {
        let at = id as usize * FRAME_SIZE;
        &mut self.data[at..at + FRAME_SIZE]
    }

    /// The payload that the frame's record names.
    pub fn payload(&self, id: FrameId) -> &[u8] {
        let m = self.meta[id as usize];
        &self.bytes(id)[m.off as usize..m.off as usize + m.len as usize]
    }

    /// Copies `len` payload bytes from the start of `from` to the end of `to`'s payload; the caller checked the room.
    pub fn append(&mut self, to: FrameId, from: FrameId) {
        let (t, f) = (self.meta[to as usize], self.meta[from as usize]);
        let src = from as usize * FRAME_SIZE + f.off as usize;
        let dst = to as usize * FRAME_SIZE + t.off as usize + t.len as usize;
        self.data.copy_within(src..src + f.len as usize, dst);
        self.meta[to as usize].len += f.len;
    }

    /// Fills the payload that `to`'s record names from the bytes of `from` at `off`.
    pub fn copy_payload(&mut self, from: FrameId, off: u16, to: FrameId) {
        let t = self.meta[to as usize];
        let src = from as usize * FRAME_SIZE + off as usize;
        let dst = to as usize * FRAME_SIZE + t.off as usize;
        self.data.copy_within(src..src + t.len as usize, dst);
    }

    /// Copies `len` bytes between frames, each named with a place in it; the caller checked that both hold them.
    pub fn copy_bytes(&mut self, (from, at): (FrameId, u16), (to, to_at): (FrameId, u16), len: u16) {
        let src = from as usize * FRAME_SIZE + usize::from(at);
        let dst = to as usize * FRAME_SIZE + usize::from(to_at);
        self.data.copy_within(src..src + usize::from(len), dst);
    }

    /// Bytes free behind the frame's payload.
    pub fn tail_room(&self, id: FrameId) -> usize {
        let m = self.meta[id as usize];
        FRAME_SIZE - m.off as usize - m.len as usize
    }

    /// Drops `n` bytes from the front of the frame's payload.
    pub fn advance(&mut self, id: FrameId, n: u16) {
        let m = &mut self.meta[id as usize];
        m.off += n;
        m.len -= n;
        m.seq = m.seq.wrapping_add(u32::from(n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_marked_and_never_written_is_free_after_a_death() {
        let mut meta = [FrameMeta::default(); 3];
        let shared: [FrameShared; 3] = Default::default();
        let mut data = [0; 3 * FRAME_SIZE];
        for is_written in [true, false] {
            let mut free = FreeList::default();
            let mut frames = Frames::new(&mut meta, &shared, &mut data, &mut free, 1);
            (0..3).for_each(|id| frames.push_free(id));
            let sent = [frames.alloc().unwrap(), frames.alloc().unwrap()];
            frames.mark_in_tx(sent[0]);
            let written = frames.sends() + u32::from(is_written);
            frames.mark_in_tx(sent[1]);
            frames.release(sent[1]);
            if written != frames.sends() {
                frames.unsend();
            }
            frames.rebuild();
            assert_eq!(frames.free_count(), if is_written { 1 } else { 2 });
            assert!(shared[sent[0] as usize].is_leaving(), "the kernel has it");
            assert_eq!(shared[sent[1] as usize].is_leaving(), is_written);
            assert_eq!(frames.sends(), 2);
            frames.forget_free();
            assert_eq!(frames.sends(), 2, "what is written down refers to it");
        }
    }
}
