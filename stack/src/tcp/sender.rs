//! SND: what is queued, what is in flight, what is lost, and how much may go now.
//!
//! The send queue is one list of frames, `una … nxt … queued_end`; a frame's payload is one segment, and the same frame
//! is sent again when it has to be. A frame's record says its sequence number and when it went how often.

use super::recovery::Timer;
use super::state::Event;
use super::tcb::Owed;
use super::{Context, Events, Seq, Tcb};
use crate::buf::{FRAME_SIZE, FrameId, FrameList, Frames, TX_HEADROOM};
use crate::slab::NONE;
use crate::time::Instant;

/// A flag of a queued frame: it is thought lost, and was not sent again since.
const LOST: u16 = 1;

/// How far our FIN has got.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Fin {
    #[default]
    None,
    Queued,
    Sent,
    Acked,
}

/// The sending half of a connection.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Sender {
    pub(super) una: Seq,
    pub(super) nxt: Seq,
    /// The peer's window, in octets; SEG.SEQ and SEG.ACK of its last update; the largest it ever was.
    pub(super) wnd: u32,
    pub(super) wl1: Seq,
    pub(super) wl2: Seq,
    pub(super) max_wnd: u32,
    pub(super) iss: Seq,
    /// Behind the last octet the application gave us: where our FIN goes.
    pub(super) queued_end: Seq,
    pub(super) queue: FrameList,
    /// The first frame that was never sent, and the first that is thought lost.
    next_unsent: FrameId,
    next_lost: FrameId,
    /// Octets thought lost.
    pub(super) lost: u32,
    /// Behind the last segment smaller than the MSS: Nagle's algorithm waits for it (Minshall's form).
    small_end: Seq,
    /// Payload octets in a full segment.
    pub(super) mss: u16,
    /// The MSS agreed on, options included; and the path's limit, once it is known.
    pub(super) wire_mss: u16,
    /// The peer's window shift (RFC 7323 §2).
    pub(super) shift: u8,
    pub(super) fin: Fin,
    /// The persist timer expired: what there is may go, however small (RFC 1122 §4.2.3.4).
    pub(super) override_silly: bool,
    /// The next retransmission is a frame that still lies in the transmit ring: wait for the timer.
    pub(super) ring_busy: bool,
    pub(super) last_sent_at: Instant,
    /// Octets ever acknowledged: for tools.
    pub(super) bytes_acked: u64,
    pub(super) retransmits_total: u32,
    _pad: u32,
}

impl Sender {
    /// Payload that fits in one frame.
    pub(super) const FRAME_ROOM: u16 = (FRAME_SIZE - TX_HEADROOM) as u16;

    pub(super) fn new(iss: Seq, mss: u16) -> Sender {
        Sender {
            una: iss,
            nxt: iss + 1,
            wnd: 0,
            wl1: Seq(0),
            wl2: Seq(0),
            max_wnd: 0,
            iss,
            queued_end: iss + 1,
            queue: FrameList::EMPTY,
            next_unsent: NONE,
            next_lost: NONE,
            lost: 0,
            small_end: iss,
            mss: mss.min(Sender::FRAME_ROOM),
            wire_mss: mss,
            shift: 0,
            fin: Fin::None,
            override_silly: false,
            ring_busy: false,
            last_sent_at: Instant::ZERO,
            bytes_acked: 0,
            retransmits_total: 0,
            _pad: 0,
        }
    }

    /// Octets sent and not acknowledged, SYN and FIN included.
    #[inline]
    pub(super) fn flight(&self) -> u32 {
        self.nxt.since(self.una)
    }

    /// Octets thought to be in the network (RFC 6675's pipe, as far as duplicate acknowledgements tell).
    #[inline]
    pub(super) fn pipe(&self, credit: u32) -> u32 {
        self.flight().saturating_sub(self.lost + credit)
    }

    /// Octets queued and never sent.
    #[inline]
    pub(super) fn unsent(&self) -> u32 {
        if self.next_unsent == NONE { 0 } else { self.queued_end.since(self.nxt) }
    }

    /// Octets of the peer's window not used yet. A window that shrank counts as none.
    #[inline]
    pub(super) fn usable(&self) -> u32 {
        self.wnd.saturating_sub(self.flight())
    }

    /// The sequence number of a segment without data: SND.NXT, or the right edge of the peer's window when that moved left
    /// of it; for beyond the edge the peer would not look at our acknowledgement (Linux: tcp_acceptable_seq). A FIN may
    /// stand behind the edge, and rounding is forgiven.
    pub(super) fn acceptable_seq(&self) -> Seq {
        let beyond = self.flight().saturating_sub(self.wnd);
        if beyond <= 1 << self.shift { self.nxt } else { self.una + self.wnd }
    }

    pub(super) fn next_unsent(&self) -> Option<FrameId> {
        (self.next_unsent != NONE).then_some(self.next_unsent)
    }

    pub(super) fn next_lost(&self) -> Option<FrameId> {
        (self.next_lost != NONE).then_some(self.next_lost)
    }

    /// A small segment is in flight (Minshall's variant of RFC 1122 §4.2.3.4).
    fn has_small_in_flight(&self) -> bool {
        self.small_end.is_after(self.una) && !self.small_end.is_after(self.nxt)
    }

    /// Adds a frame that was filled with the next octets.
    pub(super) fn push(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        let meta = frames.meta_mut(id);
        meta.seq = self.queued_end.0;
        self.queued_end += u32::from(meta.len);
        self.queue.push_back(frames, id);
        if self.next_unsent == NONE {
            self.next_unsent = id;
        }
    }

    /// Octets that still fit in the last frame, if that was not sent yet.
    pub(super) fn tail_room(&self, frames: &Frames<'_>) -> Option<(FrameId, usize)> {
        let tail = self.queue.back().filter(|_| self.next_unsent != NONE)?;
        let room = usize::from(self.mss.saturating_sub(frames.meta(tail).len)).min(frames.tail_room(tail));
        (room > 0).then_some((tail, room))
    }

    /// `n` octets were appended to the last frame.
    pub(super) fn grew(&mut self, frames: &mut Frames<'_>, tail: FrameId, n: u16) {
        frames.meta_mut(tail).len += n;
        self.queue.grew(u32::from(n));
        self.queued_end += u32::from(n);
    }

    /// The first unsent frame goes out.
    pub(super) fn note_sent(&mut self, frames: &mut Frames<'_>, id: FrameId, now: Instant) {
        let meta = frames.meta_mut(id);
        meta.transmissions = 1;
        meta.sent_at = now.micros() as u32;
        let end = Seq(meta.seq) + u32::from(meta.len);
        if meta.len < self.mss {
            self.small_end = end;
        }
        self.nxt = end;
        self.next_unsent = meta.next;
        self.last_sent_at = now;
        self.override_silly = false;
    }

    /// The first lost frame goes out again.
    pub(super) fn note_resent(&mut self, frames: &mut Frames<'_>, id: FrameId, now: Instant) {
        let meta = frames.meta_mut(id);
        meta.transmissions = meta.transmissions.saturating_add(1);
        meta.sent_at = now.micros() as u32;
        meta.flags &= !LOST;
        self.lost -= u32::from(meta.len);
        let next = meta.next;
        self.next_lost = self.find_lost(frames, next);
        self.retransmits_total += 1;
        self.last_sent_at = now;
    }

    fn find_lost(&self, frames: &Frames<'_>, mut id: FrameId) -> FrameId {
        if self.lost == 0 {
            return NONE;
        }
        while id != NONE && id != self.next_unsent {
            let meta = frames.meta(id);
            if meta.flags & LOST != 0 {
                return id;
            }
            id = meta.next;
        }
        NONE
    }

    /// Marks the frame at SND.UNA. False when none is in flight.
    pub(super) fn mark_front_lost(&mut self, frames: &mut Frames<'_>) -> bool {
        match self.queue.front().filter(|&id| id != self.next_unsent) {
            Some(id) => {
                self.mark_lost(frames, id);
                self.next_lost = id;
                true
            }
            None => false,
        }
    }

    fn mark_lost(&mut self, frames: &mut Frames<'_>, id: FrameId) {
        let meta = frames.meta_mut(id);
        if meta.flags & LOST == 0 {
            meta.flags |= LOST;
            self.lost += u32::from(meta.len);
        }
    }

    /// Marks every frame in flight whose payload is longer than `longer_than`.
    pub(super) fn mark_lost_above(&mut self, frames: &mut Frames<'_>, longer_than: u16) {
        let mut at = self.queue.front();
        while let Some(id) = at.filter(|&id| id != self.next_unsent) {
            if frames.meta(id).len > longer_than {
                self.mark_lost(frames, id);
            }
            at = self.queue.next(frames, id);
        }
        self.next_lost = self.find_lost(frames, self.queue.front().unwrap_or(NONE));
    }

    pub(super) fn mark_all_lost(&mut self, frames: &mut Frames<'_>) {
        self.mark_lost_above(frames, 0);
    }

    /// Cuts a frame so that it carries `at` octets; what is behind goes to a new frame after it. False: no frame.
    pub(super) fn split(&mut self, frames: &mut Frames<'_>, id: FrameId, at: u16) -> bool {
        let Some(rest) = frames.alloc() else { return false };
        let whole = *frames.meta(id);
        let len = whole.len - at;
        frames.meta_mut(id).len = at;
        self.queue.shrank(u32::from(len));
        let meta = frames.meta_mut(rest);
        *meta = whole;
        (meta.seq, meta.off, meta.len) = (whole.seq.wrapping_add(u32::from(at)), TX_HEADROOM as u16, len);
        frames.copy_payload(id, whole.off + at, rest);
        self.queue.insert_after(frames, Some(id), rest);
        true
    }

    /// Fills the first unsent frame with octets of those behind it, until it carries `size`. False: they do not suffice, or
    /// there is no frame; what there is may have moved between frames, but not in the order of octets.
    pub(super) fn fill_first_unsent(&mut self, frames: &mut Frames<'_>, size: u16) -> bool {
        let first = self.next_unsent;
        while first != NONE && frames.meta(first).len < size {
            let missing = size - frames.meta(first).len;
            let Some(next) = self.queue.next(frames, first) else { return false };
            let len = frames.meta(next).len;
            if frames.tail_room(first) < usize::from(missing) || len > missing && !self.split(frames, next, missing) {
                return false;
            }
            frames.append(first, next);
            self.queue.remove_after(frames, Some(first));
            self.queue.grew(u32::from(len.min(missing)));
            frames.release(next);
        }
        first != NONE && frames.meta(first).len == size
    }

    /// Takes off the queue what `ack` covers, and gives the frames back. Returns the round-trip time of the newest of them,
    /// unless one was sent again: then that one may have been what the acknowledgement waited for (Karn's rule).
    fn release_until(&mut self, frames: &mut Frames<'_>, ack: Seq, now: Instant) -> Option<u32> {
        let mut rtt_us = None;
        let mut resent = false;
        let mut lost_moved = false;
        while let Some(front) = self.queue.front().filter(|&id| id != self.next_unsent) {
            let meta = *frames.meta(front);
            let is_lost = meta.flags & LOST != 0;
            let covered = ack.later(Seq(meta.seq)).since(Seq(meta.seq));
            if covered < u32::from(meta.len) {
                self.lost -= if is_lost { covered } else { 0 };
                self.queue.advance_front(frames, covered as u16);
                break;
            }
            resent |= meta.transmissions != 1;
            rtt_us = Some(elapsed_us(meta.sent_at, now));
            if is_lost {
                self.lost -= u32::from(meta.len);
                lost_moved = true;
            }
            self.queue.pop_front(frames);
            frames.release(front);
        }
        if lost_moved {
            self.next_lost = self.find_lost(frames, self.queue.front().unwrap_or(NONE));
        }
        rtt_us.filter(|_| !resent)
    }

    /// Forgets all that is queued.
    pub(super) fn forget(&mut self, frames: &mut Frames<'_>) {
        self.queue.clear(frames);
        self.next_unsent = NONE;
        self.next_lost = NONE;
        self.lost = 0;
        self.queued_end = self.nxt;
    }
}

/// Microseconds since `sent_at`, a clock's low half. A caller's `now` may be a little older than the one that another
/// thread, or the daemon, sent with: then it was just now, and not a whole turn of the counter ago.
fn elapsed_us(sent_at: u32, now: Instant) -> u32 {
    let elapsed = (now.micros() as u32).wrapping_sub(sent_at);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

impl Tcb {
    /// How many new octets the next segment may carry now; 0 when it has to wait, for whatever reason.
    #[inline]
    pub(super) fn sendable(&self) -> u32 {
        let snd = &self.snd;
        let unsent = snd.unsent();
        if unsent == 0 {
            return 0;
        }
        let n = unsent.min(u32::from(snd.mss)).min(snd.usable());
        let pipe = snd.pipe(self.recovery.credit);
        let fits = n > 0 && snd.lost == 0 && (pipe == 0 || pipe + n <= self.congestion.cwnd());
        if fits && (n == u32::from(snd.mss) || self.may_send_small(n, unsent)) { n } else { 0 }
    }

    /// Silly-window avoidance (RFC 9293 §3.8.6.2.1), Nagle's algorithm (§3.7.4) and the cork, for a segment of `n` octets.
    fn may_send_small(&self, n: u32, unsent: u32) -> bool {
        let snd = &self.snd;
        if snd.override_silly {
            return true;
        }
        if n < unsent {
            // The peer's window cuts it short: worth it when that is half of the largest window ever seen.
            return n >= snd.max_wnd.div_ceil(2);
        }
        let is_last = snd.fin != Fin::None;
        is_last || !self.options.cork && (self.options.nodelay || !snd.has_small_in_flight())
    }

    /// New octets were acknowledged: SND.UNA < `ack` <= SND.NXT.
    pub(super) fn acknowledge(&mut self, cx: &mut Context<'_, '_>, ack: Seq, echo: Option<u32>) -> Events {
        let flight = self.snd.flight();
        let acked = ack.since(self.snd.una);
        let rtt_us = self.snd.release_until(cx.frames, ack, cx.now);
        self.snd.una = ack;
        self.snd.bytes_acked += u64::from(acked);
        self.snd.ring_busy = false;
        self.forget_soft_error();
        self.timers.note_progress();
        self.take_rtt(cx, rtt_us, echo, cx.now);
        let timer = self.recover_on_ack(cx, acked, flight);
        let mut events = Events::NONE;
        if self.snd.fin == Fin::Sent && ack == self.snd.nxt {
            self.snd.fin = Fin::Acked;
            self.owed.remove(Owed::FIN_AGAIN);
            events |= self.transit(cx, Event::OurFinAcked);
        }
        if self.snd.flight() == 0 {
            self.timers.stop_retransmit();
        } else if timer == Timer::Restart {
            self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        }
        if self.wants_room && self.is_writable(cx.frames) {
            self.wants_room = false;
            events |= Events::WRITABLE;
        }
        events
    }

    /// Our FIN was lost: when no data is left to carry it, it has to go by itself.
    pub(super) fn resend_fin_if_alone(&mut self) {
        if self.snd.fin == Fin::Sent && self.snd.queue.is_empty() {
            self.owed.add(Owed::FIN_AGAIN);
        }
    }
}
