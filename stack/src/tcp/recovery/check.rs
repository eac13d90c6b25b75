//! For tests: the scoreboard's sums and aids against the marks themselves.

use super::super::sender::Sender;
use super::scoreboard::{LOST, RESENT, SACKED, end_of};
use crate::buf::Frames;
use crate::slab::NONE;
use crate::tcp::Seq;

impl Sender {
    /// Panics when something does not add up. `sack`: the sums of duplicates are no marks.
    pub(in crate::tcp) fn check_board(&self, frames: &Frames<'_>, sack: bool) {
        let (mut lost, mut sacked, mut resent, mut sacked_frames, mut resent_frames) = (0, 0, 0, 0, 0);
        let mut first_lost = NONE;
        let mut at = self.queue.front();
        let mut is_in_flight = true;
        let mut expected = None;
        while let Some(id) = at {
            let meta = frames.meta(id);
            is_in_flight &= id != self.next_unsent;
            assert!(expected.is_none_or(|seq| seq == Seq(meta.seq)), "a hole in the queue");
            expected = Some(end_of(meta));
            let (flags, len) = (meta.flags & (LOST | SACKED | RESENT), u32::from(meta.len));
            assert!(flags.count_ones() <= 1, "marks exclude each other: {flags}");
            assert!(is_in_flight || flags == 0 && meta.transmissions == 0, "an unsent frame is marked");
            lost += if flags == LOST { len } else { 0 };
            sacked += if flags == SACKED { len } else { 0 };
            sacked_frames += u32::from(flags == SACKED);
            resent += if flags == RESENT { len } else { 0 };
            resent_frames += u32::from(flags == RESENT);
            if flags == LOST && first_lost == NONE {
                first_lost = id;
            }
            at = self.queue.next(frames, id);
        }
        let board = &self.board;
        assert_eq!((board.lost, board.resent), (lost, resent));
        assert_eq!(board.next_lost().unwrap_or(NONE), first_lost, "the first lost frame");
        if sack {
            assert_eq!((board.sacked, board.sacked_frames), (sacked, sacked_frames));
        }
        let known = board.lost + board.sacked;
        assert!(known <= self.flight(), "{known} octets lost or there of {}, SACK {sack}", self.flight());
        self.check_resent(frames, resent_frames);
    }

    fn check_resent(&self, frames: &Frames<'_>, count: u32) {
        let (mut at, mut prev, mut n) = (self.board.resent_first().unwrap_or(NONE), NONE, 0);
        while at != NONE {
            let meta = frames.meta(at);
            assert_eq!((meta.flags & RESENT, meta.resent_prev), (RESENT, prev), "the list of what was resent");
            (prev, at, n) = (at, meta.resent_next, n + 1);
        }
        assert_eq!(n, count, "resent frames in the list");
    }
}
