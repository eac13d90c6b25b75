//! The scoreboard (RFC 6675 §3): what is known of everything in flight, kept in the records of the queued frames.
//!
//! A frame in flight is on its way for the first time, or it is marked: `LOST`, thought lost and not sent again since;
//! `RESENT`, on its way again; `SACKED`, at the peer. The marks exclude each other, and the sums over them are kept here. What
//! was resent is also in a list in the order of sending, because there the sequence numbers do not tell who went first.
//! Without SACK no frame is `SACKED`, and the sum is what duplicate acknowledgements say (`newreno.rs`).

use super::super::Seq;
use super::super::congestion::RateSampler;
use super::super::sender::Sender;
use super::Tally;
use crate::buf::{FrameId, FrameMeta, Frames};
use crate::slab::NONE;
use crate::time::Instant;

pub(super) const LOST: u16 = 1;
pub(super) const SACKED: u16 = 2;
pub(super) const RESENT: u16 = 4;

/// Blocks of the last acknowledgement that are known again: as many as fit beside timestamps. A fourth is looked for.
pub(super) const KNOWN_BLOCKS: usize = 3;

/// Where a search of the queue may start: a frame, and its sequence number as proof that it is still there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Place {
    pub(super) seq: Seq,
    pub(super) id: FrameId,
}

impl Place {
    const NONE: Place = Place { seq: Seq(0), id: NONE };

    fn prune(&mut self, una: Seq) {
        if self.seq.is_before(una) {
            self.id = NONE;
        }
    }
}

/// A block of the last acknowledgement, and the last frame in it that was looked at, which is there as long as SND.UNA has
/// not passed `left`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Block {
    pub(super) left: Seq,
    pub(super) right: Seq,
    pub(super) last: FrameId,
}

impl Block {
    pub(super) const NONE: Block = Block { left: Seq(0), right: Seq(0), last: NONE };

    fn prune(&mut self, una: Seq) {
        if self.left.is_before(una) {
            self.last = NONE;
        }
    }
}

/// Sums and search aids.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::tcp) struct Scoreboard {
    /// Octets `LOST`; `SACKED`, and in how many frames; `RESENT`.
    pub(in crate::tcp) lost: u32,
    pub(in crate::tcp) sacked: u32,
    pub(super) sacked_frames: u32,
    pub(in crate::tcp) resent: u32,
    /// Octets ever marked lost; wraps. Frames lost again after they were resent.
    pub(super) lost_total: u32,
    pub(super) lost_again: u32,
    next_lost: FrameId,
    resent_first: FrameId,
    resent_last: FrameId,
    /// Behind the highest octet the peer reported, while it is above SND.UNA (RACK.fack).
    pub(super) highest: Seq,
    /// In front of it nothing is on its way for the first time.
    pub(super) first_try: Place,
    pub(super) blocks: [Block; KNOWN_BLOCKS],
    /// Some of the above may name a frame.
    pub(super) has_places: bool,
    _pad: u8,
    /// Frames looked at for blocks; counted in tests only.
    pub(in crate::tcp) looked_at: u16,
}

impl Scoreboard {
    pub(in crate::tcp) const EMPTY: Scoreboard = Scoreboard {
        lost: 0,
        sacked: 0,
        sacked_frames: 0,
        resent: 0,
        lost_total: 0,
        lost_again: 0,
        next_lost: NONE,
        resent_first: NONE,
        resent_last: NONE,
        highest: Seq(0),
        first_try: Place::NONE,
        blocks: [Block::NONE; KNOWN_BLOCKS],
        has_places: false,
        _pad: 0,
        looked_at: 0,
    };

    /// All that is in flight is on its way for the first time.
    #[inline]
    pub(in crate::tcp) fn is_clear(&self) -> bool {
        self.lost | self.sacked | self.resent == 0
    }

    pub(in crate::tcp) fn next_lost(&self) -> Option<FrameId> {
        (self.next_lost != NONE).then_some(self.next_lost)
    }

    pub(super) fn resent_first(&self) -> Option<FrameId> {
        (self.resent_first != NONE).then_some(self.resent_first)
    }

    /// Forgets every place that is not in flight any more; all of them when nothing is out of order.
    fn prune(&mut self, una: Seq) {
        if self.is_clear() {
            self.forget_places();
            return;
        }
        self.first_try.prune(una);
        self.blocks.iter_mut().for_each(|block| block.prune(una));
    }

    fn forget_places(&mut self) {
        self.first_try = Place::NONE;
        self.blocks = [Block::NONE; KNOWN_BLOCKS];
        self.has_places = false;
    }

    fn link_resent(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        self.link_resent_after(frames, self.resent_last, id);
    }

    /// Puts a frame into the list behind `prev`; in front, when that is `NONE`.
    fn link_resent_after(&mut self, frames: &mut Frames<'_>, prev: FrameId, id: FrameId) {
        let next = match prev {
            NONE => core::mem::replace(&mut self.resent_first, id),
            prev => core::mem::replace(&mut frames.meta_mut(prev).resent_next, id),
        };
        match next {
            NONE => self.resent_last = id,
            next => frames.meta_mut(next).resent_prev = id,
        }
        let meta = frames.meta_mut(id);
        (meta.resent_prev, meta.resent_next) = (prev, next);
        meta.flags |= RESENT;
    }

    pub(super) fn unlink_resent(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        let FrameMeta { resent_prev: prev, resent_next: next, len, .. } = *frames.meta(id);
        match prev {
            NONE => self.resent_first = next,
            prev => frames.meta_mut(prev).resent_next = next,
        }
        match next {
            NONE => self.resent_last = prev,
            next => frames.meta_mut(next).resent_prev = prev,
        }
        frames.meta_mut(id).flags &= !RESENT;
        self.resent -= u32::from(len);
    }
}

pub(super) fn end_of(meta: &FrameMeta) -> Seq {
    Seq(meta.seq) + u32::from(meta.len)
}

/// Whether it was sent once, and nothing else is known of it.
pub(super) fn is_first_try(meta: &FrameMeta) -> bool {
    meta.flags & (LOST | SACKED | RESENT) == 0
}

impl Sender {
    /// The first frame, if it is in flight.
    pub(super) fn front_in_flight(&self) -> Option<FrameId> {
        self.queue.front().filter(|&id| id != self.next_unsent)
    }

    /// The frame behind `id`, if it is in flight.
    pub(super) fn next_in_flight(&self, frames: &Frames<'_>, id: FrameId) -> Option<FrameId> {
        self.queue.next(frames, id).filter(|&id| id != self.next_unsent)
    }

    /// The last frame in flight. A walk when something unsent is behind it: for probes, which are rare.
    pub(super) fn last_in_flight(&self, frames: &Frames<'_>) -> Option<FrameId> {
        if self.next_unsent == NONE {
            return self.queue.back();
        }
        let mut last = self.front_in_flight()?;
        while let Some(next) = self.next_in_flight(frames, last) {
            last = next;
        }
        Some(last)
    }

    /// A frame goes out again, because it is lost or as a probe.
    pub(in crate::tcp) fn note_resent(&mut self, frames: &mut Frames<'_>, id: FrameId, now: Instant) {
        if frames.meta(id).flags & RESENT != 0 {
            self.board.unlink_resent(frames, id);
        }
        self.unmark_lost(frames, id);
        let meta = frames.meta_mut(id);
        meta.transmissions = meta.transmissions.saturating_add(1);
        meta.sent_at = now.micros() as u32;
        self.board.resent += u32::from(meta.len);
        self.board.link_resent(frames, id);
        self.retransmits_total = self.retransmits_total.wrapping_add(1);
        self.last_sent_at = now;
    }

    /// The first frame from `at` on that is lost.
    fn find_lost(&self, frames: &Frames<'_>, mut at: Option<FrameId>) -> FrameId {
        while let Some(id) = at.filter(|_| self.board.lost > 0) {
            if frames.meta(id).flags & LOST != 0 {
                return id;
            }
            at = self.next_in_flight(frames, id);
        }
        NONE
    }

    /// A frame in flight is thought lost, unless that is known or it is at the peer.
    pub(super) fn mark_lost(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        let FrameMeta { flags, seq, len, .. } = *frames.meta(id);
        if flags & (LOST | SACKED) != 0 {
            return;
        }
        if flags & RESENT != 0 {
            self.board.unlink_resent(frames, id);
            self.board.lost_again = self.board.lost_again.wrapping_add(1);
        }
        frames.meta_mut(id).flags |= LOST;
        self.board.lost += u32::from(len);
        self.board.lost_total = self.board.lost_total.wrapping_add(u32::from(len));
        let next = self.board.next_lost;
        if next == NONE || Seq(seq).is_before(Seq(frames.meta(next).seq)) {
            self.board.next_lost = id;
        }
    }

    pub(super) fn unmark_lost(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        let meta = frames.meta_mut(id);
        if meta.flags & LOST == 0 {
            return;
        }
        meta.flags &= !LOST;
        self.board.lost -= u32::from(meta.len);
        if id == self.board.next_lost {
            self.board.next_lost = self.find_lost(frames, self.next_in_flight(frames, id));
        }
    }

    /// Marks the frame at SND.UNA. False when none is in flight.
    pub(super) fn mark_front_lost(&mut self, frames: &mut Frames<'_>) -> bool {
        let front = self.front_in_flight();
        if let Some(id) = front {
            self.mark_lost(frames, id);
        }
        front.is_some()
    }

    /// Marks every frame in flight for which `is_lost` says so.
    pub(super) fn mark_lost_if(&mut self, frames: &mut Frames<'_>, is_lost: impl Fn(&Frames<'_>, FrameId) -> bool) {
        let mut at = self.front_in_flight();
        while let Some(id) = at {
            at = self.next_in_flight(frames, id);
            if is_lost(frames, id) {
                self.mark_lost(frames, id);
            }
        }
    }

    /// Nothing was lost after all: what was marked and not sent again is on its way.
    pub(super) fn unmark_all_lost(&mut self, frames: &mut Frames<'_>) {
        while let Some(id) = self.board.next_lost() {
            self.unmark_lost(frames, id);
        }
        self.board.first_try = Place::NONE;
    }

    /// The peer forgot what it reported, as it may (RFC 2018 §8).
    pub(super) fn forget_sacked(&mut self, frames: &mut Frames<'_>) {
        let mut at = self.front_in_flight();
        while let Some(id) = at {
            frames.meta_mut(id).flags &= !SACKED;
            at = self.next_in_flight(frames, id);
        }
        (self.board.sacked, self.board.sacked_frames) = (0, 0);
        self.board.forget_places();
    }

    pub(super) fn is_front_sacked(&self, frames: &Frames<'_>) -> bool {
        self.front_in_flight().is_some_and(|id| frames.meta(id).flags & SACKED != 0)
    }

    pub(super) fn is_sacked(frames: &Frames<'_>, id: FrameId) -> bool {
        frames.meta(id).flags & SACKED != 0
    }

    /// Goes through what is on its way for the first time, oldest first, and marks it as lost as long as `is_lost` says
    /// so. A frame that an undone loss left among them (it went later than its number says) stops nobody.
    pub(super) fn lose_first_tries(&mut self, frames: &mut Frames<'_>, mut is_lost: impl FnMut(&FrameMeta) -> bool) {
        let place = self.board.first_try.id;
        let mut at = if place == NONE { self.front_in_flight() } else { Some(place) };
        let mut first = None;
        while let Some(id) = at {
            let meta = *frames.meta(id);
            if is_first_try(&meta) {
                if is_lost(&meta) {
                    self.mark_lost(frames, id);
                } else {
                    first = first.or(Some(id));
                    if meta.transmissions == 1 {
                        break;
                    }
                }
            }
            at = self.next_in_flight(frames, id);
        }
        if let Some(id) = first {
            self.board.first_try = Place { seq: Seq(frames.meta(id).seq), id };
            self.board.has_places = true;
        }
    }

    /// Takes off the queue what `ack` covers, and gives the frames back.
    #[inline]
    pub(in crate::tcp) fn release_until(
        &mut self,
        frames: &mut Frames<'_>,
        ack: Seq,
        now: Instant,
        rate: &mut RateSampler,
        tally: &mut Tally,
    ) {
        let mut lost_moved = false;
        while let Some(front) = self.front_in_flight() {
            let meta = *frames.meta(front);
            let covered = ack.later(Seq(meta.seq)).since(Seq(meta.seq));
            if covered < u32::from(meta.len) {
                self.trim_front(frames, &meta, covered as u16, tally);
                break;
            }
            if !is_first_try(&meta) {
                lost_moved |= front == self.board.next_lost;
                self.unmark_released(frames, front, &meta);
            }
            if meta.flags & SACKED == 0 {
                rate.on_delivered(&meta, now, &mut tally.carried);
                tally.note_delivered(&meta, now, false);
            }
            self.queue.pop_front(frames);
            frames.release(front);
        }
        if lost_moved {
            self.board.next_lost = self.find_lost(frames, self.front_in_flight());
        }
        if self.board.has_places {
            self.board.prune(ack);
        }
    }

    /// The acknowledgement ends within a frame: it keeps its marks for the rest.
    fn trim_front(&mut self, frames: &mut Frames<'_>, meta: &FrameMeta, covered: u16, tally: &mut Tally) {
        let n = u32::from(covered);
        self.board.lost -= if meta.flags & LOST != 0 { n } else { 0 };
        self.board.resent -= if meta.flags & RESENT != 0 { n } else { 0 };
        if meta.flags & SACKED != 0 {
            self.board.sacked -= n;
        } else {
            tally.delivered += n;
        }
        self.queue.advance_front(frames, covered);
    }

    fn unmark_released(&mut self, frames: &mut Frames<'_>, id: FrameId, meta: &FrameMeta) {
        let len = u32::from(meta.len);
        if meta.flags & RESENT != 0 {
            self.board.unlink_resent(frames, id);
        } else if meta.flags & LOST != 0 {
            self.board.lost -= len;
        } else {
            self.board.sacked -= len;
            self.board.sacked_frames -= 1;
        }
    }

    /// A frame was cut in two: `rest` has the same marks, and takes its place behind the first half.
    pub(in crate::tcp) fn split_marks(&mut self, frames: &mut Frames<'_>, id: FrameId, rest: FrameId) {
        let flags = frames.meta(id).flags;
        if flags & SACKED != 0 {
            self.board.sacked_frames += 1;
        }
        if flags & RESENT != 0 {
            self.board.link_resent_after(frames, id, rest);
        }
    }
}
