//! SND: what is queued, what is in flight, what is lost, and how much may go now.
//!
//! The send queue is one list of frames, `una … nxt … queued_end`; a frame's payload is one segment, and the same frame
//! is sent again when it has to be. A frame's record says its sequence number and when it went how often.

use super::recovery::{Phase, Scoreboard};
use super::state::Event;
use super::tcb::Owed;
use super::{Context, Events, Seq, Tcb};
use crate::buf::{FRAME_SIZE, FrameId, FrameList, Frames, TX_HEADROOM};
use crate::slab::NONE;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Segment};

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
    /// The first frame that was never sent.
    pub(super) next_unsent: FrameId,
    /// What is known of the frames in front of it.
    pub(super) board: Scoreboard,
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
    /// The most that was in flight since SND.UNA passed the last `usage_end`; and whether the window held us back.
    flight_max: u32,
    usage_end: Seq,
    is_cwnd_limited: bool,
    _pad: u8,
    /// Repairs that a timeout began: for tools.
    pub(super) repairs: u16,
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
            board: Scoreboard::EMPTY,
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
            flight_max: 0,
            usage_end: iss,
            is_cwnd_limited: false,
            _pad: 0,
            repairs: 0,
        }
    }

    /// Octets sent and not acknowledged, SYN and FIN included.
    #[inline]
    pub(super) fn flight(&self) -> u32 {
        self.nxt.since(self.una)
    }

    /// Octets thought to be in the network (RFC 6675's pipe): neither lost nor at the peer.
    #[inline]
    pub(super) fn pipe(&self) -> u32 {
        self.flight().saturating_sub(self.board.lost + self.board.sacked)
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
        self.split_marks(frames, id, rest);
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

    /// Forgets all that is queued.
    pub(super) fn forget(&mut self, frames: &mut Frames<'_>) {
        self.queue.clear(frames);
        self.next_unsent = NONE;
        self.board = Scoreboard::EMPTY;
        self.queued_end = self.nxt;
    }
}

/// Microseconds since `sent_at`, a clock's low half. A caller's `now` may be a little older than the one that another
/// thread, or the daemon, sent with: then it was just now, and not a whole turn of the counter ago.
#[inline]
pub(super) fn elapsed_us(sent_at: u32, now: Instant) -> u32 {
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
        let pipe = snd.pipe();
        // What is lost goes first, unless F-RTO wants it otherwise.
        let is_turn = snd.board.lost == 0 || self.recovery.new_first;
        let fits = n > 0 && is_turn && (pipe == 0 || pipe + n <= self.congestion.cwnd());
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
        is_last
            || !self.options.cork && (self.options.nodelay || !snd.has_small_in_flight() || self.is_sending_urgent())
    }

    /// New octets went: whether the window held us back, for as long as this window of data is out (RFC 7661, as Linux's
    /// tcp_cwnd_validate tests it).
    #[inline]
    pub(super) fn note_new_sent(&mut self, n: u32) {
        if self.recovery.phase == Phase::Recovering {
            self.note_sent_in_recovery(n);
        }
        let snd = &mut self.snd;
        let is_limited = snd.pipe() + u32::from(snd.mss) > self.congestion.cwnd();
        let is_higher = !snd.is_cwnd_limited && snd.flight() > snd.flight_max;
        if is_limited || is_higher || !snd.una.is_before(snd.usage_end) {
            (snd.is_cwnd_limited, snd.flight_max, snd.usage_end) = (is_limited, snd.flight(), snd.nxt);
        }
    }

    /// Whether the window, and not the application or the peer, holds us back. In slow start half of it is enough.
    #[inline]
    pub(super) fn is_cwnd_limited(&self) -> bool {
        let cwnd = self.congestion.cwnd();
        self.snd.is_cwnd_limited || cwnd < self.congestion.ssthresh() && cwnd < self.snd.flight_max.saturating_mul(2)
    }

    /// The ACK of a segment, its blocks included, says something: it is new, reports, or is a duplicate.
    pub(super) fn acknowledge(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, is_duplicate: bool) -> Events {
        let ack = seg.ack;
        let mut tally = self.start_tally(seg.options.timestamp.map(|(_, echo)| echo), is_duplicate);
        if self.sack && !seg.options.sack.is_empty() {
            self.take_blocks(cx, seg, &mut tally);
        }
        if ack.is_after(self.snd.una) {
            tally.acked = ack.since(self.snd.una);
            self.snd.release_until(cx.frames, ack, cx.now, &mut self.congestion.rate, &mut tally);
            self.snd.una = ack;
            self.snd.bytes_acked += u64::from(tally.acked);
            self.forget_soft_error();
            self.timers.note_progress();
        }
        // Time has passed: the transmit ring may be empty.
        self.snd.ring_busy = false;
        self.look_at_pace(cx.now);
        self.learn_rtt(cx, &tally);
        self.recover_on_ack(cx, &mut tally);
        let mut events = Events::NONE;
        if self.snd.fin == Fin::Sent && ack == self.snd.nxt {
            self.snd.fin = Fin::Acked;
            // It went by itself when no data is acknowledged with it.
            tally.delivered_segments += u32::from(tally.delivered_segments == 0);
            self.owed.remove(Owed::FIN_AGAIN);
            events |= self.transit(cx, Event::OurFinAcked);
        }
        self.tally.delivered = self.tally.delivered.wrapping_add(tally.delivered_segments);
        if seg.has(Flags::ECE) && self.ecn.is_on() {
            self.tally.delivered_ce = self.tally.delivered_ce.wrapping_add(tally.delivered_segments);
        }
        self.set_timer(cx, &tally);
        if self.wants_room {
            self.check_send_buffer(cx);
        }
        if self.wants_room && self.is_writable(cx.frames) {
            self.wants_room = false;
            events |= Events::WRITABLE;
        }
        self.note_holdup(cx.now);
        events
    }

    /// Our FIN was lost: when no data is left to carry it, it has to go by itself.
    pub(super) fn resend_fin_if_alone(&mut self) {
        if self.snd.fin == Fin::Sent && self.snd.queue.is_empty() {
            self.owed.add(Owed::FIN_AGAIN);
        }
    }
}
