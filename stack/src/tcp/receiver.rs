//! RCV: putting octets in order, the window we offer, and the acknowledgement we owe.
//!
//! Payload stays in the frame it came in until it is read: the receive queue and the out-of-order queue are lists of
//! frame slices. Small segments are copied behind the last one, so that they do not each hold a frame down.

use super::buffers::Pace;
use super::reassembly::{APPEND_MAX, RESERVED_FRAMES, Reassembly};
use super::tcb::Owed;
use super::{Context, Events, Seq, Tcb};
use crate::buf::{FRAME_SIZE, FrameId, FrameList, Frames, Pressure};
use crate::drops::Drop;
use crate::time::{Instant, MS};
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, HEADER_LEN, HEADER_LEN_MAX, SackBlocks, Segment, TIMESTAMP_LEN};

/// Acknowledgements of a young connection wait only this long: the peer's slow start, or its Nagle, may hang on them.
/// (Linux sends its first 16 at once; then an application that answers has no chance to save one.)
const QUICK_ACK_US: u64 = MS;
/// And so long where the application has not even read what it would answer: a busy server owes its answer, not our ACK.
const UNREAD_ACK_US: u64 = 9 * MS;
const QUICK_ACKS: u8 = 16;

/// The receiving half of a connection.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Receiver {
    pub(super) nxt: Seq,
    /// The right edge of the window offered: RCV.NXT + RCV.WND. It never moves left (RFC 9293 §3.8.6).
    pub(super) edge: Seq,
    /// RCV.NXT as we last acknowledged it.
    pub(super) acked: Seq,
    pub(super) irs: Seq,
    pub(super) queue: FrameList,
    pub(super) out_of_order: Reassembly,
    /// Where the peer's FIN is, once `fin_known`.
    fin_at: Seq,
    /// Octets of window we are ready to offer now, and at most.
    pub(super) space: u32,
    pub(super) space_max: u32,
    /// What `space` follows.
    pub(super) pace: Pace,
    /// When the last segment came, in milliseconds.
    pub(super) last_at_ms: u32,
    /// Octets ever received in order: for tools.
    pub(super) bytes_total: u64,
    /// When the last out-of-window segment was answered, in milliseconds.
    pub(super) answered_at_ms: u32,
    /// The largest segment seen lately, and the MSS we announced.
    pub(super) mss: u16,
    pub(super) own_mss: u16,
    /// Our window shift.
    pub(super) shift: u8,
    /// We offer (later: both agreed on) window scaling.
    pub(super) scaling: bool,
    quick_acks: u8,
    /// Our data carries acknowledgements: the application answers what it reads.
    is_interactive: bool,
    /// The acknowledgement owed was put off once, because the application had read nothing yet.
    is_put_off: bool,
    fin_known: bool,
    pub(super) fin_reached: bool,
    /// The application will not read any more.
    pub(super) is_shutdown: bool,
}

/// Octets of options in a header.
const OPTIONS_MAX: u16 = (HEADER_LEN_MAX - HEADER_LEN) as u16;
/// Frames that may be held out of order, however small the buffer.
const REASSEMBLY_FRAMES_MIN: u32 = 16;

impl Receiver {
    /// With a window of `space` to begin with and `space_max` at most. `allowance` is what the frames that are left allow.
    /// The shift covers the whole of the largest buffer, as Linux's does, though a window is half of it.
    pub(super) fn new(mss: u16, space: u32, space_max: u32, allowance: u32) -> Receiver {
        let mut shift = 0;
        while shift < 14 && space_max.saturating_mul(2) >> shift > u32::from(u16::MAX) {
            shift += 1;
        }
        Receiver {
            nxt: Seq(0),
            edge: Seq(0),
            acked: Seq(0),
            irs: Seq(0),
            queue: FrameList::EMPTY,
            out_of_order: Reassembly::EMPTY,
            fin_at: Seq(0),
            space: space.min(space_max).min(allowance),
            space_max,
            pace: Pace::default(),
            last_at_ms: 0,
            bytes_total: 0,
            answered_at_ms: 0,
            mss: mss.min(536),
            own_mss: mss,
            shift,
            scaling: true,
            quick_acks: QUICK_ACKS,
            is_interactive: false,
            is_put_off: false,
            fin_known: false,
            fin_reached: false,
            is_shutdown: false,
        }
    }

    /// The window field of a SYN: never scaled. That of a SYN-ACK counts from what it acknowledges: data that came with the
    /// SYN (RFC 7413) has used some of it.
    pub(super) fn syn_window(&self, knows_peer: bool) -> u16 {
        let window = if knows_peer { self.window() } else { self.space };
        window.min(u32::from(u16::MAX)) as u16
    }

    /// The peer's first sequence number is known.
    pub(super) fn start(&mut self, irs: Seq, peer_scales: bool) {
        self.irs = irs;
        self.nxt = irs + 1;
        self.acked = self.nxt;
        self.edge = self.nxt + u32::from(self.syn_window(false));
        self.scaling &= peer_scales;
        if !self.scaling {
            self.shift = 0;
        }
    }

    /// RCV.WND: what is left of the window the peer knows of.
    #[inline]
    pub(super) fn window(&self) -> u32 {
        self.edge.since(self.nxt)
    }

    /// Octets of memory that the queued frames hold down, however little is in them.
    fn held(&self) -> u32 {
        (self.queue.frames() + self.out_of_order.frames()) * FRAME_SIZE as u32
    }

    /// The window that could be offered: room in octets, but no more than the frames that may be held for it allow.
    /// `allowance` is what the scarcity of frames leaves to any connection.
    fn room(&self, allowance: u32) -> u32 {
        let space = self.space.min(allowance);
        space.saturating_sub(self.queue.bytes()).min((2 * space).saturating_sub(self.held()))
    }

    /// The frames hold down more than the window should cost, or frames are few: copying is cheaper now than one more.
    fn is_hoarding(&self, allowance: u32) -> bool {
        self.held() >= 2 * self.space || allowance < self.space
    }

    /// Whether the next octets may not take another frame: nearly all are gone, and this connection holds some that its
    /// application does not read. One that has read all it got still gets more, until the very last: those are for
    /// answering what arrives.
    #[cold]
    fn must_refuse(&self, frames: &Frames<'_>, len: u16) -> bool {
        match self.queue.back() {
            Some(tail) => frames.tail_room(tail) < usize::from(len),
            None if frames.pressure() == Pressure::Exhausted && self.bytes_total == 0 => true,
            None => frames.free_count() < 2 * RESERVED_FRAMES,
        }
    }

    /// Decides the window field of the next segment and moves the right edge to match.
    #[inline]
    pub(super) fn offer_window(&mut self, allowance: u32, sack: bool) -> u16 {
        let now = self.window();
        let mut room = self.room(allowance).min(u32::from(u16::MAX) << self.shift);
        // Silly-window avoidance (RFC 9293 §3.8.6.2.2): open by a segment or half the buffer, or not at all. And while there
        // is a hole the edge stays for a peer without selective acknowledgements: to it, an acknowledgement with another
        // window is no duplicate, and it counts those.
        if room < u32::from(self.mss).min(self.space / 2) || !sack && !self.out_of_order.is_empty() && now > 0 {
            room = 0;
        }
        // What was offered does not shrink, not even by rounding: unless rounding up would be done so often that it is no
        // rounding any more. Then the peer sees the edge move left by less than a unit (RFC 7323 §2.4); we keep our word.
        let unit = 1 << self.shift;
        let mut offered = (now + unit - 1) >> self.shift;
        if self.queue.bytes() + (offered << self.shift) > self.space.saturating_add(unit) {
            offered = now >> self.shift;
        }
        let field = (room >> self.shift).max(offered).min(u32::from(u16::MAX));
        self.edge = self.edge.later(self.nxt + (field << self.shift));
        field as u16
    }

    /// Whether reading has freed enough to tell the peer (as Linux decides it): the window it knows of is down to half of
    /// what we would give, and can at least double. When frames are few, room for a segment where there was none will do.
    fn is_update_due(&self, allowance: u32) -> bool {
        let now = self.window();
        if 2 * now > self.space {
            return false;
        }
        let segment = u32::from(self.mss).min(self.space / 2).max(1);
        self.room(allowance) >= if now < segment { segment } else { 2 * now }
    }

    /// Puts a frame whose payload is the next in order into the receive queue.
    #[inline(always)]
    fn push(&mut self, cx: &mut Context<'_, '_>, id: FrameId) {
        let len = cx.frames.meta(id).len;
        self.nxt += u32::from(len);
        self.bytes_total += u64::from(len);
        match self.queue.back() {
            Some(tail)
                if (len <= APPEND_MAX || self.is_hoarding(cx.frames.allowance()))
                    && cx.frames.tail_room(tail) >= usize::from(len) =>
            {
                cx.frames.append(tail, id);
                cx.frames.meta_mut(tail).sent_at = cx.now.micros() as u32;
                self.queue.grew(u32::from(len));
                cx.frames.release(id);
            }
            _ => {
                // A received frame was sent by nobody here: the word says when it came.
                cx.frames.meta_mut(id).sent_at = cx.now.micros() as u32;
                self.queue.push_back(cx.frames, id);
            }
        }
    }

    /// Moves what has come into order from the out-of-order queue.
    fn drain_out_of_order(&mut self, cx: &mut Context<'_, '_>) {
        while let Some(id) = self.out_of_order.pop_reached(cx.frames, self.nxt) {
            let meta = *cx.frames.meta(id);
            let old = self.nxt.since(Seq(meta.seq)).min(u32::from(meta.len));
            if old > 0 {
                self.out_of_order.note_duplicate(cx.tunables, Seq(meta.seq), Seq(meta.seq) + old);
            }
            if old == u32::from(meta.len) {
                cx.frames.release(id);
            } else {
                cx.frames.advance(id, old as u16);
                self.push(cx, id);
            }
        }
    }

    /// Frames that may be held out of order: what the receive buffer pays for, however little is in them. What is dropped
    /// for it comes again.
    fn reassembly_frames(&self, tunables: &Tunables) -> u32 {
        let paid = (2 * self.space / FRAME_SIZE as u32).saturating_sub(self.queue.frames()).max(REASSEMBLY_FRAMES_MIN);
        tunables.reassembly_frames.min(paid)
    }

    /// Remembers where the peer's FIN is, when that lies in the window. A later word corrects an earlier one.
    pub(super) fn note_fin(&mut self, at: Seq) {
        if !self.fin_reached && !at.is_before(self.nxt) && !at.is_after(self.edge) {
            self.fin_known = true;
            self.fin_at = at;
        }
    }

    /// Whether everything before the peer's FIN is here; takes the FIN if so.
    pub(super) fn reach_fin(&mut self) -> bool {
        let reached = self.fin_known && !self.fin_reached && self.nxt == self.fin_at;
        if self.fin_known && !self.fin_reached && self.nxt.is_after(self.fin_at) {
            // There was data behind it: it was no FIN.
            self.fin_known = false;
        }
        if reached {
            self.fin_reached = true;
            self.nxt += 1;
            self.edge = self.edge.later(self.nxt);
        }
        reached
    }

    /// Nothing is out of order, no FIN is known of: the next octets can simply be queued.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.out_of_order.is_empty() && !self.fin_known
    }
}

impl Tcb {
    /// Takes a segment's payload. The segment overlaps the window or lies before it (step one saw to that); the frame is
    /// queued or released.
    pub(super) fn take_text(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Events {
        let rcv = &self.rcv;
        let len = u32::from(seg.payload_len);
        let old = if seg.seq.is_before(rcv.nxt) { rcv.nxt.since(seg.seq) } else { 0 };
        if old > 0 {
            self.rcv.out_of_order.note_duplicate(cx.tunables, seg.seq, seg.seq + old.min(len));
        }
        let rcv = &self.rcv;
        if old >= len {
            return self.refuse_text(cx, frame, Drop::Duplicate);
        }
        let start = seg.seq + old;
        let kept = (len - old).min(rcv.edge.since(start));
        if kept == 0 {
            return self.refuse_text(cx, frame, Drop::RcvBufferFull);
        }
        let meta = cx.frames.meta_mut(frame);
        meta.seq = start.0;
        meta.off = seg.payload_off + old as u16;
        meta.len = kept as u16;
        if start == rcv.nxt {
            return self.take_in_order(cx, seg, frame);
        }
        cx.counters.out_of_order += 1;
        self.tally.out_of_order = self.tally.out_of_order.wrapping_add(1);
        self.note_data(cx.now);
        self.acknowledge_quickly();
        let most = self.rcv.reassembly_frames(cx.tunables);
        if let Err(reason) = self.rcv.out_of_order.insert(cx, frame, most) {
            cx.frames.release(frame);
            cx.counters.drops.count(reason);
        }
        Events::NONE
    }

    /// Nothing of it is of use: the peer has to hear where we are, at once.
    #[cold]
    fn refuse_text(&mut self, cx: &mut Context<'_, '_>, frame: FrameId, reason: Drop) -> Events {
        cx.counters.drops.count(reason);
        cx.frames.release(frame);
        self.acknowledge_quickly();
        Events::NONE
    }

    /// Something is amiss: an acknowledgement goes now, and the next ones wait no longer than at the start of a connection,
    /// whatever the application does (Linux: tcp_enter_quickack_mode). The peer repairs a loss, or begins anew.
    fn acknowledge_quickly(&mut self) {
        self.owed.add(Owed::ACK);
        (self.rcv.quick_acks, self.rcv.is_interactive) = (QUICK_ACKS, false);
    }

    /// Data came. After a pause longer than the timeout the peer's congestion window is small again, and grows with our
    /// acknowledgements.
    #[inline]
    fn note_data(&mut self, now: Instant) {
        let ms = super::timestamps::ms(now);
        let pause_ms = ms.wrapping_sub(self.tally.data_at_ms);
        self.tally.data_at_ms = ms;
        if u64::from(pause_ms) * MS > self.rtt.rto_us() && pause_ms < u32::MAX / 2 {
            self.rcv.quick_acks = QUICK_ACKS;
        }
    }

    /// Takes payload that starts at RCV.NXT and ends inside the window; the frame's record names it.
    #[inline]
    pub(super) fn take_in_order(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Events {
        if cx.frames.pressure() >= Pressure::Critical && self.rcv.must_refuse(cx.frames, cx.frames.meta(frame).len) {
            return self.refuse_text(cx, frame, Drop::FramePressure);
        }
        self.note_data(cx.now);
        let fills_hole = !self.rcv.out_of_order.is_empty();
        self.rcv.push(cx, frame);
        if fills_hole {
            self.rcv.drain_out_of_order(cx);
            self.owed.add(Owed::ACK);
        }
        if seg.payload_len >= self.rcv.mss {
            self.rcv.mss = seg.payload_len.min(self.rcv.own_mss);
            self.measure_round_trip(cx.now, seg);
        }
        self.owe_ack_for_data(cx);
        Events::READABLE
    }

    /// RFC 1122 §4.2.3.2: every second full segment at once, all else with the answer or after a delay.
    #[inline]
    fn owe_ack_for_data(&mut self, cx: &Context<'_, '_>) {
        if self.rcv.nxt.since(self.rcv.acked) >= 2 * u32::from(self.rcv.mss) {
            self.owed.add(Owed::ACK);
        } else {
            let is_quick = self.rcv.quick_acks > 0 && !self.rcv.is_interactive;
            self.delay_ack(cx, if is_quick { QUICK_ACK_US } else { cx.tunables.delayed_ack_us });
        }
    }

    /// Owes an acknowledgement by `delay_us` from now, or by when it is owed already.
    pub(super) fn delay_ack(&mut self, cx: &Context<'_, '_>, delay_us: u64) {
        if !self.owed.has(Owed::DELAYED_ACK) {
            self.owed.add(Owed::DELAYED_ACK);
            self.timers.ack_at = cx.now.after_us(delay_us);
        }
    }

    /// A segment with an acknowledgement goes out; `has_data`: it would have gone anyway.
    #[inline]
    pub(super) fn note_ack_sent(&mut self, has_data: bool) {
        if has_data {
            self.rcv.is_interactive |= self.owed.has(Owed::DELAYED_ACK);
        } else {
            self.rcv.quick_acks = self.rcv.quick_acks.saturating_sub(1);
        }
        self.owed.remove(Owed::ACK);
        self.owed.remove(Owed::DELAYED_ACK);
        self.timers.ack_at = Instant::ZERO;
        self.rcv.is_put_off = false;
        self.rcv.acked = self.rcv.nxt;
    }

    /// The delay is over and nobody answered: the application is not of the answering kind.
    pub(super) fn expire_delayed_ack(&mut self, now: Instant) {
        if self.rcv.quick_acks > 0 && !self.rcv.is_put_off && !self.rcv.queue.is_empty() && !self.rcv.fin_reached {
            self.rcv.is_put_off = true;
            self.timers.ack_at = now.after_us(UNREAD_ACK_US);
            return;
        }
        self.timers.ack_at = Instant::ZERO;
        self.rcv.is_interactive = false;
        if self.owed.has(Owed::DELAYED_ACK) {
            self.owed.add(Owed::ACK);
        }
    }

    /// TCP_QUICKACK, set: what is owed is owed now.
    pub fn acknowledge_now(&mut self) {
        self.rcv.is_interactive = false;
        if self.rcv.acked != self.rcv.nxt {
            self.owed.add(Owed::ACK);
        }
    }

    /// TCP_QUICKACK, taken away: acknowledgements wait for data, until something is amiss.
    pub fn acknowledge_lazily(&mut self) {
        self.rcv.is_interactive = true;
    }

    /// TCP_QUICKACK, read: acknowledgements do not wait for data to ride on.
    pub fn acknowledges_quickly(&self) -> bool {
        !self.rcv.is_interactive
    }

    /// The application took octets out of the receive queue.
    pub(super) fn after_read(&mut self, cx: &Context<'_, '_>, n: u32) {
        self.note_read(cx, n);
        if !self.rcv.fin_reached && self.state.is_synchronized() && self.rcv.is_update_due(cx.frames.allowance()) {
            self.owed.add(Owed::ACK);
        }
    }

    /// Octets of a segment that is not looked at any further came before: the peer hears of it (RFC 2883).
    #[cold]
    pub(super) fn note_repeated(&mut self, cx: &Context<'_, '_>, seg: &Segment) {
        let text = seg.seq + u32::from(seg.has(Flags::SYN));
        let end = (text + u32::from(seg.payload_len)).earlier(self.rcv.nxt);
        if end.is_after(text) {
            self.rcv.out_of_order.note_duplicate(cx.tunables, text, end);
        }
    }

    /// Whether the next acknowledgement has blocks to carry.
    #[inline]
    pub(super) fn has_sack_news(&self) -> bool {
        self.sack && self.rcv.out_of_order.has_news()
    }

    /// The blocks that fit in the header of a segment with `payload_len` octets: the header has 40 octets for options, and
    /// options and payload together stay below the MSS. A full segment has no room for any; then an acknowledgement goes
    /// by itself, before it.
    #[cold]
    pub(super) fn sack_blocks(&mut self, frames: &Frames<'_>, payload_len: u16) -> SackBlocks {
        let others = if self.ts.on { TIMESTAMP_LEN as u16 } else { 0 };
        let room = (OPTIONS_MAX - others).min(self.snd.wire_mss.saturating_sub(payload_len + others));
        self.rcv.out_of_order.report(frames, usize::from(room.saturating_sub(4) / 8))
    }

    /// Frames held out of order.
    #[cfg(test)]
    pub(crate) fn frames_out_of_order(&self) -> u32 {
        self.rcv.out_of_order.frames()
    }

    /// Gives back what came out of order: frames are nearly gone, and the peer will send it again, for nothing of it was
    /// acknowledged but selectively, and that may be taken back (RFC 2018 §8).
    pub fn prune(&mut self, frames: &mut Frames<'_>) {
        self.rcv.out_of_order.clear(frames);
    }
}
