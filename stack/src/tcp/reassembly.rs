//! What came out of order: sorted runs of frames, and what the peer hears of them (RFC 2018 §4, RFC 2883).
//!
//! All frames hang in one list, in the order of their octets. A run is a stretch of it without a hole; the record of its
//! first frame names its last one, so that a search goes from run to run and not from frame to frame.
//!
//! What a segment costs: nothing to look for behind the highest run, or where octets came lately; otherwise the runs
//! between the nearest of those and its place are walked, [`RUNS_MAX`] at most. At a limit the highest eighth is given
//! back to make room for what lies lower (RFC 2018 §8 allows that); what lies higher is refused.

use super::{Context, Seq};
use crate::buf::{FrameId, FrameList, Frames, Pressure};
use crate::drops::Drop;
use crate::slab::NONE;
use crate::tunables::Tunables;
use crate::wire::tcp::SackBlocks;

/// Payload up to this length is copied behind the last frame's, when it has room.
pub(super) const APPEND_MAX: u16 = 512;
/// Free frames below which nothing is kept out of order: the last ones are for what fills the hole.
pub(super) const RESERVED_FRAMES: u32 = 32;
/// Most runs, which is one more than holes between them: somebody who sends every other octet makes a search this long.
const RUNS_MAX: u32 = 1024;

/// The out-of-order queue of one connection.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Reassembly {
    pub(super) list: FrameList,
    /// The runs that were added to last, newest first, by their first frames: what an acknowledgement reports, and where
    /// a search begins. `NONE` behind the last.
    recent: [FrameId; SackBlocks::MAX],
    /// The highest run.
    highest: FrameId,
    runs: u32,
    /// Octets that came twice, not reported yet; none when both are the same.
    duplicate_left: Seq,
    duplicate_right: Seq,
}

fn start(frames: &Frames<'_>, id: FrameId) -> Seq {
    Seq(frames.meta(id).seq)
}

fn end(frames: &Frames<'_>, id: FrameId) -> Seq {
    let meta = frames.meta(id);
    Seq(meta.seq) + u32::from(meta.len)
}

fn last_of_run(frames: &Frames<'_>, run: FrameId) -> FrameId {
    frames.meta(run).run_last()
}

fn end_of_run(frames: &Frames<'_>, run: FrameId) -> Seq {
    end(frames, last_of_run(frames, run))
}

impl Reassembly {
    pub(super) const EMPTY: Reassembly = Reassembly {
        list: FrameList::EMPTY,
        recent: [NONE; SackBlocks::MAX],
        highest: NONE,
        runs: 0,
        duplicate_left: Seq(0),
        duplicate_right: Seq(0),
    };

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn frames(&self) -> u32 {
        self.list.frames()
    }

    /// Whether an acknowledgement has blocks to carry.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.is_empty() || self.duplicate_left != self.duplicate_right
    }

    /// Puts a frame where it belongs, without the octets that are there already. `most` frames may be held.
    pub(super) fn insert(&mut self, cx: &mut Context<'_, '_>, id: FrameId, most: u32) -> Result<(), Drop> {
        self.make_room(cx, id, most)?;
        let before = self.find_run(cx.frames, start(cx.frames, id));
        if let Some(run) = before {
            self.cut_front(cx, run, id)?;
        }
        let last = before.map(|run| last_of_run(cx.frames, run));
        self.cut_behind(cx, last, id);
        let run = self.link(cx.frames, before, id);
        self.join_next(cx.frames, run);
        self.bring_forward(run);
        Ok(())
    }

    /// At a limit, what lies highest goes; a segment that lies higher still is refused. When frames are few, nobody's
    /// go, and none come.
    fn make_room(&mut self, cx: &mut Context<'_, '_>, id: FrameId, most: u32) -> Result<(), Drop> {
        let scarce = match cx.frames.pressure() {
            Pressure::None => u32::MAX,
            Pressure::Low => Pressure::Low.allowance() / crate::buf::FRAME_SIZE as u32,
            Pressure::Critical | Pressure::Exhausted => 0,
        };
        if self.frames() >= scarce || cx.frames.free_count() < RESERVED_FRAMES {
            return Err(Drop::ReassemblyFull);
        }
        if self.frames() < most && self.runs < RUNS_MAX {
            return Ok(());
        }
        if self.highest == NONE || !start(cx.frames, id).is_before(start(cx.frames, self.highest)) {
            return Err(Drop::ReassemblyFull);
        }
        let held = self.frames();
        self.prune_to(cx.frames, held - held.div_ceil(8));
        (0..held - self.frames()).for_each(|_| cx.counters.drops.count(Drop::ReassemblyPruned));
        Ok(())
    }

    /// The last run that starts at or before `seq`.
    fn find_run(&self, frames: &Frames<'_>, seq: Seq) -> Option<FrameId> {
        let starts_by = |id: &FrameId| *id != NONE && !start(frames, *id).is_after(seq);
        if starts_by(&self.highest) {
            return Some(self.highest);
        }
        let near = self.recent.into_iter().filter(starts_by).min_by_key(|id| seq.since(start(frames, *id)));
        let mut run = near.or(self.list.front().filter(starts_by))?;
        while let Some(next) = self.list.next(frames, last_of_run(frames, run)).filter(starts_by) {
            run = next;
        }
        Some(run)
    }

    /// Takes off the front of `id` what `run`, which starts at or before it, has.
    fn cut_front(&mut self, cx: &mut Context<'_, '_>, run: FrameId, id: FrameId) -> Result<(), Drop> {
        let have = end_of_run(cx.frames, run);
        let (left, right) = (start(cx.frames, id), end(cx.frames, id));
        if !have.is_after(left) {
            return Ok(());
        }
        self.note_duplicate(cx.tunables, left, have.earlier(right));
        if !have.is_before(right) {
            // RFC 2883 §4: behind the duplicate comes the block it lies in.
            self.bring_forward(run);
            return Err(Drop::Duplicate);
        }
        cx.frames.advance(id, have.since(left) as u16);
        Ok(())
    }

    /// Drops the runs behind the frame `last` that `id` covers, and cuts `id` where the next one starts.
    fn cut_behind(&mut self, cx: &mut Context<'_, '_>, last: Option<FrameId>, id: FrameId) {
        let right = end(cx.frames, id);
        loop {
            let next = match last {
                Some(last) => self.list.next(cx.frames, last),
                None => self.list.front(),
            };
            let Some(run) = next.filter(|run| start(cx.frames, *run).is_before(right)) else { return };
            let left = start(cx.frames, run);
            let run_end = end_of_run(cx.frames, run);
            self.note_duplicate(cx.tunables, left, run_end.earlier(right));
            if run_end.is_after(right) {
                cx.frames.meta_mut(id).len = left.since(start(cx.frames, id)) as u16;
                return;
            }
            self.remove_run_after(cx.frames, last, run);
        }
    }

    fn remove_run_after(&mut self, frames: &mut Frames<'_>, before: Option<FrameId>, run: FrameId) {
        let last = last_of_run(frames, run);
        self.forget(run);
        self.runs -= 1;
        while let Some(gone) = self.list.remove_after(frames, before) {
            frames.release(gone);
            if gone == last {
                break;
            }
        }
        if self.highest == run {
            self.highest = NONE; // Whoever removes it puts a run in its place.
        }
    }

    /// Hangs a frame behind `before`, or in front of all. The run that it is part of afterwards.
    fn link(&mut self, frames: &mut Frames<'_>, before: Option<FrameId>, id: FrameId) -> FrameId {
        let last = before.map(|run| last_of_run(frames, run));
        match before.zip(last) {
            Some((run, last)) if end(frames, last) == start(frames, id) => {
                if self.highest == NONE {
                    self.highest = run;
                }
                if !self.append(frames, last, id) {
                    self.list.insert_after(frames, Some(last), id);
                    frames.meta_mut(run).set_run_last(id);
                }
                run
            }
            _ => {
                self.list.insert_after(frames, last, id);
                frames.meta_mut(id).set_run_last(id);
                self.runs += 1;
                if self.list.back() == Some(id) {
                    self.highest = id;
                }
                id
            }
        }
    }

    /// Copies a small frame behind the payload of `to`, so that it does not hold one down by itself.
    fn append(&mut self, frames: &mut Frames<'_>, to: FrameId, id: FrameId) -> bool {
        let len = frames.meta(id).len;
        let fits = len <= APPEND_MAX && frames.tail_room(to) >= usize::from(len);
        if fits {
            frames.append(to, id);
            self.list.grew(u32::from(len));
            frames.release(id);
        }
        fits
    }

    /// The hole behind `run` may be gone.
    fn join_next(&mut self, frames: &mut Frames<'_>, run: FrameId) {
        let last = last_of_run(frames, run);
        let Some(next) = self.list.next(frames, last).filter(|next| start(frames, *next) == end(frames, last)) else {
            return;
        };
        let next_last = last_of_run(frames, next);
        self.forget(next);
        self.runs -= 1;
        if self.highest == next {
            self.highest = run;
        }
        let len = frames.meta(next).len;
        let fits = len <= APPEND_MAX && frames.tail_room(last) >= usize::from(len);
        frames.meta_mut(run).set_run_last(if fits && next == next_last { last } else { next_last });
        if fits {
            self.list.remove_after(frames, Some(last));
            self.append(frames, last, next);
        }
    }

    /// The front frame, once all before it is here.
    pub(super) fn pop_reached(&mut self, frames: &mut Frames<'_>, nxt: Seq) -> Option<FrameId> {
        let id = self.list.front().filter(|id| !start(frames, *id).is_after(nxt))?;
        let last = last_of_run(frames, id);
        self.list.pop_front(frames);
        let rest = self.list.front().filter(|_| last != id);
        match rest {
            Some(rest) => {
                frames.meta_mut(rest).set_run_last(last);
                self.recent.iter_mut().filter(|r| **r == id).for_each(|r| *r = rest);
            }
            None => {
                self.forget(id);
                self.runs -= 1;
            }
        }
        if self.highest == id {
            self.highest = rest.unwrap_or(NONE);
        }
        Some(id)
    }

    pub(super) fn clear(&mut self, frames: &mut Frames<'_>) {
        self.list.clear(frames);
        *self = Reassembly::EMPTY;
    }

    /// Gives frames back, the highest first, until `keep` are left.
    fn prune_to(&mut self, frames: &mut Frames<'_>, keep: u32) {
        let Some(first) = self.list.front().filter(|_| keep > 0) else { return self.clear(frames) };
        let (mut run, mut at, mut runs) = (first, first, 1);
        for _ in 1..keep.min(self.list.frames()) {
            let is_last = at == last_of_run(frames, run);
            at = self.list.next(frames, at).unwrap_or(at);
            if is_last {
                (run, runs) = (at, runs + 1);
            }
        }
        frames.meta_mut(run).set_run_last(at);
        (self.highest, self.runs) = (run, runs);
        for id in self.recent {
            if id != NONE && start(frames, id).is_after(start(frames, run)) {
                self.forget(id);
            }
        }
        while let Some(gone) = self.list.remove_after(frames, Some(at)) {
            frames.release(gone);
        }
    }

    /// The run is the newest to report.
    fn bring_forward(&mut self, run: FrameId) {
        if self.recent[0] != run {
            let at = self.recent.iter().position(|r| *r == run).unwrap_or(self.recent.len() - 1);
            self.recent[..=at].rotate_right(1);
            self.recent[0] = run;
        }
    }

    fn forget(&mut self, run: FrameId) {
        if let Some(at) = self.recent.iter().position(|r| *r == run) {
            self.recent[at..].rotate_left(1);
            self.recent[self.recent.len() - 1] = NONE;
        }
    }

    /// These octets came again (RFC 2883). Until it is reported, a second such stretch counts only if it touches.
    pub(super) fn note_duplicate(&mut self, tunables: &Tunables, left: Seq, right: Seq) {
        let (l, r) = (self.duplicate_left, self.duplicate_right);
        if tunables.dsack == 0 {
        } else if l == r {
            (self.duplicate_left, self.duplicate_right) = (left, right);
        } else if !left.is_after(r) && !right.is_before(l) {
            (self.duplicate_left, self.duplicate_right) = (left.earlier(l), right.later(r));
        }
    }

    /// The blocks of an acknowledgement, `most` of them: what came twice, then the runs, the newest first.
    pub(super) fn report(&mut self, frames: &Frames<'_>, most: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if most > 0 && self.duplicate_left != self.duplicate_right {
            let (left, right) = (self.duplicate_left, self.duplicate_right);
            let has = |run: FrameId| !start(frames, run).is_after(left) && !end_of_run(frames, run).is_before(right);
            // RFC 2883 §4: behind the duplicate comes the block it lies in, even if others grew since.
            if let Some(run) = self.recent.into_iter().take_while(|run| *run != NONE).find(|run| has(*run)) {
                self.bring_forward(run);
            }
            blocks.push(left, right);
            self.duplicate_left = self.duplicate_right;
        }
        let runs = self.recent.into_iter().take_while(|run| *run != NONE);
        for run in runs.take(most - blocks.as_slice().len().min(most)) {
            blocks.push(start(frames, run), end_of_run(frames, run));
        }
        blocks
    }

    /// Everything that must hold, for tests: sorted, no octet twice, runs as long as they can be.
    #[cfg(test)]
    pub(super) fn check(&self, frames: &Frames<'_>) {
        let (mut at, mut runs, mut highest, mut known) = (self.list.front(), 0, NONE, Vec::new());
        while let Some(run) = at {
            (runs, highest) = (runs + 1, run);
            known.push(run);
            let (mut frame, last) = (run, last_of_run(frames, run));
            while frame != last {
                let next = self.list.next(frames, frame).expect("a run ends in the list");
                assert_eq!(end(frames, frame), start(frames, next), "a run has no hole");
                frame = next;
            }
            at = self.list.next(frames, last);
            assert!(at.is_none_or(|next| start(frames, next).is_after(end(frames, last))), "runs do not touch");
        }
        assert_eq!((runs, highest), (self.runs, self.highest));
        let recent: Vec<_> = self.recent.iter().filter(|r| **r != NONE).collect();
        assert!(recent.iter().all(|r| known.contains(r)), "only runs are reported");
        assert!(self.recent[recent.len()..].iter().all(|r| *r == NONE));
    }
}
