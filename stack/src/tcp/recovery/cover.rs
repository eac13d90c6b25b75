//! What a block of a selective acknowledgement covers, marked on the scoreboard; and what a delivered frame tells.
//!
//! The queue is searched from the nearest place that is known: the blocks of the last acknowledgement come again, mostly
//! the first of them grown by a segment. So an acknowledgement costs what it brings, however much is in flight. A peer that jumps
//! about at will can make it cost a walk from there.

use super::super::Seq;
use super::super::congestion::RateSampler;
use super::super::sender::{Sender, elapsed_us};
use super::scoreboard::{Block, KNOWN_BLOCKS, RESENT, SACKED, end_of};
use super::{Newest, Tally};
use crate::buf::{FrameId, FrameMeta, Frames};
use crate::slab::NONE;
use crate::time::Instant;

impl Sender {
    /// The peer has `left..right`, which is in flight. A frame that is covered in part counts as not covered: it may go
    /// again for nothing (Linux would cut it).
    pub(super) fn cover(
        &mut self,
        frames: &mut Frames<'_>,
        (left, right): (Seq, Seq),
        now: Instant,
        rate: &mut RateSampler,
        tally: &mut Tally,
    ) -> Block {
        let blocks = self.board.blocks;
        let known = |left: Seq| blocks.iter().find(|b| b.last != NONE && b.left == left && !b.right.is_after(right));
        if let Some(same) = known(left).filter(|b| b.right == right) {
            return *same;
        }
        let mut at = self.search_from(frames, left);
        let mut last = NONE;
        while let Some(id) = at {
            let meta = *frames.meta(id);
            let seq = Seq(meta.seq);
            #[cfg(test)]
            {
                self.board.looked_at = self.board.looked_at.saturating_add(1);
            }
            if !seq.is_before(right) {
                break;
            }
            let mut next = id;
            if !seq.is_before(left) {
                last = id;
            }
            if !seq.is_before(left) && !end_of(&meta).is_after(right) {
                if meta.flags & SACKED == 0 {
                    self.mark_sacked(frames, id, now, rate, tally);
                } else if let Some(block) = known(seq) {
                    // Marked up to there by the last acknowledgement.
                    (next, last) = (block.last, block.last);
                    if !end_of(frames.meta(next)).is_after(right) {
                        self.mark_sacked(frames, next, now, rate, tally);
                    }
                }
            }
            at = self.next_in_flight(frames, next);
        }
        Block { left, right, last }
    }

    /// The nearest known place at or before `left`; else the front.
    fn search_from(&self, frames: &Frames<'_>, left: Seq) -> Option<FrameId> {
        let seq = |id: FrameId| Seq(frames.meta(id).seq);
        let places = self.board.blocks.iter().map(|b| b.last).chain([self.board.first_try.id]);
        let nearest = places
            .filter(|&id| id != NONE && !seq(id).is_after(left))
            .reduce(|a, b| if seq(b).is_after(seq(a)) { b } else { a });
        nearest.or(self.front_in_flight())
    }

    /// The next acknowledgement will mostly bring the same blocks.
    pub(super) fn remember_blocks(&mut self, blocks: [Block; KNOWN_BLOCKS]) {
        self.board.blocks = blocks;
        self.board.has_places = true;
    }

    fn mark_sacked(
        &mut self,
        frames: &mut Frames<'_>,
        id: FrameId,
        now: Instant,
        rate: &mut RateSampler,
        tally: &mut Tally,
    ) {
        let meta = *frames.meta(id);
        if meta.flags & SACKED != 0 {
            return;
        }
        self.unmark_lost(frames, id);
        if meta.flags & RESENT != 0 {
            self.board.unlink_resent(frames, id);
        }
        frames.meta_mut(id).flags |= SACKED;
        let end = end_of(&meta);
        let fack = if self.board.sacked == 0 { end } else { self.board.highest.later(end) };
        self.board.highest = fack;
        self.board.sacked += u32::from(meta.len);
        self.board.sacked_frames += 1;
        rate.on_delivered(&meta, now, &mut tally.carried);
        tally.note_delivered(&meta, now, true);
    }
}

impl Tally {
    /// The payload of a frame is known to be delivered: selectively, or by the acknowledgement.
    #[inline(never)]
    pub(super) fn note_delivered(&mut self, meta: &FrameMeta, now: Instant, is_selective: bool) {
        let rtt_us = elapsed_us(meta.sent_at, now);
        let end = end_of(meta);
        self.delivered += u32::from(meta.len);
        self.delivered_segments += 1;
        self.newly_sacked |= is_selective;
        if meta.transmissions == 1 {
            let oldest = if is_selective { &mut self.sacked_rtt_us } else { &mut self.oldest_rtt_us };
            oldest.get_or_insert(rtt_us);
            self.has_original |= !end.is_after(self.recover);
            if Seq(meta.seq).is_before(self.fack) && self.reordered_from.is_none_or(|seq| Seq(meta.seq).is_before(seq))
            {
                self.reordered_from = Some(Seq(meta.seq));
            }
        } else {
            self.has_resent |= !is_selective;
        }
        let is_newer = match &self.newest {
            None => true,
            Some(newest) => rtt_us < newest.rtt_us || rtt_us == newest.rtt_us && end.is_after(newest.end),
        };
        if is_newer {
            self.newest = Some(Newest { rtt_us, seq: Seq(meta.seq), end, was_resent: meta.transmissions != 1 });
        }
    }
}
