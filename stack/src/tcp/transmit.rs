//! Outgoing segments: what may go now, and the one function that builds it.

use super::reassembly::RESERVED_FRAMES;
use super::sender::Fin;
use super::tcb::Owed;
use super::{Context, Outgoing, Seq, State, Tcb};
use crate::buf::{FrameId, TX_HEADROOM};
use crate::slab::NONE;
use crate::time::MS;
use crate::wire::tcp::{self, Flags, Header, PlainHeader, SackBlocks};

/// When there was no frame to build a segment in, it is tried again after this long: twice that for each retransmission
/// that nothing came back for, up to 256 times, because whoever holds the frames may hold them for long.
const NO_FRAME_RETRY_US: u64 = MS;
const NO_FRAME_DOUBLINGS_MAX: u32 = 8;
/// A retransmission that found its frame still in the transmit ring waits this long.
const RING_BUSY_RETRY_US: u64 = 10 * MS;

/// What goes into a segment.
struct Content {
    frame: FrameId,
    seq: Seq,
    flags: Flags,
    payload_off: u16,
    payload_len: u16,
    /// Data that was not sent before.
    is_new: bool,
    keep: bool,
}

impl Tcb {
    /// Whether [`Tcb::poll_transmit`] has something to send now.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        let snd = &self.snd;
        let is_done = snd.next_unsent == NONE && snd.board.lost == 0 && snd.fin != Fin::Queued;
        self.owes_segment() || self.recovery.owes_probe || !is_done && self.may_send_queued()
    }

    /// Whether something of what is queued may go now.
    #[inline(never)]
    fn may_send_queued(&self) -> bool {
        !self.timers.is_paced && (self.may_retransmit() || self.sendable() > 0) || self.is_fin_due()
    }

    /// A segment is owed, whether or not there is data.
    #[inline]
    pub(crate) fn owes_segment(&self) -> bool {
        self.owed.is_urgent()
    }

    /// The next segment to send now; `None` when there is none, or no frame to build it in (then a timer tries again).
    pub fn poll_transmit(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        if self.owed.has(Owed::SYN) {
            return self.send_syn(cx);
        }
        // A full segment has no room for blocks: they go first.
        if self.owed.has(Owed::ACK) && self.has_sack_news() {
            return self.send_ack(cx);
        }
        if self.recovery.owes_probe
            && let Some(probe) = self.send_probe(cx)
        {
            return Some(probe);
        }
        if self.may_retransmit()
            && !self.must_wait(cx.now)
            && let Some(again) = self.send_again(cx)
        {
            return Some(again);
        }
        let n = self.sendable();
        if n > 0 && !self.must_wait(cx.now) {
            return self.send_new(cx, n);
        }
        if self.is_fin_due() || self.owed.has(Owed::FIN_AGAIN) {
            return self.send_fin(cx);
        }
        if self.owed.has(Owed::PROBE) {
            let probe = self.send_empty(cx, self.snd.una - 1, Flags::ACK)?;
            self.owed.remove(Owed::PROBE);
            return Some(probe);
        }
        if self.owed.has(Owed::ACK) {
            return self.send_ack(cx);
        }
        None
    }

    fn send_ack(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let ack = self.send_empty(cx, self.snd.acceptable_seq(), Flags::ACK)?;
        cx.counters.tx_pure_acks += 1;
        Some(ack)
    }

    fn may_retransmit(&self) -> bool {
        let (snd, recovery) = (&self.snd, &self.recovery);
        if snd.board.lost == 0 || snd.ring_busy || recovery.new_first {
            return false;
        }
        let pipe = snd.pipe();
        recovery.retransmit_now || pipe == 0 || pipe + u32::from(snd.mss) <= self.congestion.cwnd()
    }

    /// All data went; our FIN did not.
    fn is_fin_due(&self) -> bool {
        self.snd.fin == Fin::Queued && self.snd.unsent() == 0 && self.state.is_synchronized()
    }

    fn send_syn(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let flags = if self.state == State::SynSent { Flags::SYN } else { Flags::SYN | Flags::ACK };
        let flags = flags | self.ecn_of_syn();
        let segment = match self.send_syn_data(cx, flags) {
            Some(segment) => segment,
            None => self.send_empty(cx, self.syn_seq(), flags)?,
        };
        self.owed.remove(Owed::SYN);
        self.snd.last_sent_at = cx.now;
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        Some(segment)
    }

    /// A SYN in front of a frame of the send queue.
    pub(super) fn send_on_syn(&mut self, cx: &mut Context<'_, '_>, id: FrameId, flags: Flags) -> Outgoing {
        let (payload_off, payload_len) = (cx.frames.meta(id).off, cx.frames.meta(id).len);
        let seq = self.syn_seq();
        // A SYN is never sent as one that may be marked (RFC 3168 §6.1.1).
        self.build(cx, &Content { frame: id, seq, flags, payload_off, payload_len, is_new: false, keep: true })
    }

    fn send_again(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let id = self.snd.board.next_lost()?;
        if cx.frames.is_in_tx(id) {
            self.snd.ring_busy = true;
            self.timers.arm_retransmit(cx.now, RING_BUSY_RETRY_US);
            return None;
        }
        let len = cx.frames.meta(id).len;
        if len > self.snd.mss {
            self.note_probe_lost(len);
        }
        if len > self.snd.mss && !self.cut(cx, id, self.snd.mss) {
            self.retry_without_frame(cx);
            return None;
        }
        self.recovery.retransmit_now = false;
        Some(self.resend(cx, id))
    }

    /// Cuts a frame that is too long for a segment. That takes another one, and after the path got narrower very many: the
    /// last are for what arrives. Whoever has nothing in the network may take one all the same, for nothing else moves it on.
    fn cut(&mut self, cx: &mut Context<'_, '_>, id: FrameId, at: u16) -> bool {
        let least = if self.snd.pipe() == 0 { RESERVED_FRAMES / 2 } else { RESERVED_FRAMES };
        cx.frames.free_count() > least && self.snd.split(cx.frames, id, at)
    }

    /// A frame in flight goes again.
    pub(super) fn resend(&mut self, cx: &mut Context<'_, '_>, id: FrameId) -> Outgoing {
        let pipe = self.snd.pipe();
        self.snd.note_resent(cx.frames, id, cx.now);
        self.congestion.rate.on_sent(cx.frames.meta_mut(id), pipe, cx.now);
        let len = u32::from(cx.frames.meta(id).len);
        self.charge(cx, len);
        self.note_sent_again(cx, len);
        cx.counters.retransmits += 1;
        self.timers.ensure_retransmit(cx.now, self.rto_us(cx));
        self.send_queued(cx, id)
    }

    pub(super) fn send_new(&mut self, cx: &mut Context<'_, '_>, n: u32) -> Option<Outgoing> {
        let n = self.prepare_probe(cx, n);
        let id = self.snd.next_unsent()?;
        if u32::from(cx.frames.meta(id).len) > n && !self.cut(cx, id, n as u16) {
            self.retry_without_frame(cx);
            return None;
        }
        let pipe = self.snd.pipe();
        if self.snd.flight() == 0 {
            self.restart(cx);
        }
        self.snd.note_sent(cx.frames, id, cx.now);
        self.congestion.rate.on_sent(cx.frames.meta_mut(id), pipe, cx.now);
        self.charge(cx, n);
        self.note_new_sent(n);
        if self.may_probe() {
            self.arm_for_flight(cx);
        } else {
            self.timers.ensure_retransmit(cx.now, self.rto_us(cx));
        }
        let segment = self.send_queued(cx, id);
        self.note_holdup(cx.now);
        Some(segment)
    }

    /// Nothing was in flight. After a silence of more than a timeout, what the window says is out of date.
    #[inline]
    fn restart(&mut self, cx: &Context<'_, '_>) {
        self.congestion.on_restart(cx.now);
        let silence_us = cx.now.since_us(self.snd.last_sent_at);
        if silence_us > self.rtt.rto_us() && cx.tunables.slow_start_after_idle != 0 {
            self.congestion.on_idle(cx.now, u32::from(self.snd.mss));
        }
    }

    /// Sends a frame of the send queue; our FIN rides on the last one.
    fn send_queued(&mut self, cx: &mut Context<'_, '_>, id: FrameId) -> Outgoing {
        let meta = *cx.frames.meta(id);
        if meta.transmissions > 1 {
            self.tally.bytes_retrans += u64::from(meta.len);
        }
        let end = Seq(meta.seq) + u32::from(meta.len);
        let mut flags = Flags::ACK;
        if end == self.snd.queued_end {
            flags = flags | Flags::PSH;
            if self.snd.fin != Fin::None {
                flags = flags | Flags::FIN;
                self.note_fin_sent();
            }
        }
        let content = Content {
            frame: id,
            seq: Seq(meta.seq),
            flags,
            payload_off: meta.off,
            payload_len: meta.len,
            is_new: meta.transmissions == 1,
            keep: true,
        };
        self.build(cx, &content)
    }

    pub(super) fn send_fin(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let segment = self.send_empty(cx, self.snd.queued_end, Flags::FIN | Flags::ACK)?;
        if self.owed.has(Owed::FIN_AGAIN) {
            self.owed.remove(Owed::FIN_AGAIN);
            cx.counters.retransmits += 1;
            self.snd.retransmits_total += 1;
        }
        self.note_fin_sent();
        if self.may_probe() {
            self.arm_for_flight(cx);
        } else {
            self.timers.ensure_retransmit(cx.now, self.rto_us(cx));
        }
        Some(segment)
    }

    fn note_fin_sent(&mut self) {
        if self.snd.fin == Fin::Queued {
            self.snd.fin = Fin::Sent;
            self.snd.nxt = self.snd.queued_end + 1;
        }
    }

    /// A segment without data, in a frame of its own.
    fn send_empty(&mut self, cx: &mut Context<'_, '_>, seq: Seq, flags: Flags) -> Option<Outgoing> {
        let Some(frame) = cx.frames.alloc() else {
            self.retry_without_frame(cx);
            return None;
        };
        // The header goes where payload would start in a data frame: no option can make it reach the frame's front.
        let payload_off = (TX_HEADROOM + tcp::HEADER_LEN_MAX) as u16;
        Some(self.build(cx, &Content { frame, seq, flags, payload_off, payload_len: 0, is_new: false, keep: false }))
    }

    /// The one place where segments are made: header in front of the payload, acknowledgement and window of this moment.
    fn build(&mut self, cx: &mut Context<'_, '_>, content: &Content) -> Outgoing {
        let is_syn = content.flags.has(Flags::SYN);
        let has_ack = content.flags.has(Flags::ACK);
        let has_blocks = !is_syn && self.has_sack_news();
        let urgent = if is_syn { None } else { self.urgent_pointer(content.seq) };
        let flags = if urgent.is_some() { content.flags | Flags::URG } else { content.flags };
        let (flags, tos) = self.mark(flags, content.is_new);
        let header = PlainHeader {
            local_port: self.flow().local.port,
            remote_port: self.flow().remote.port,
            seq: content.seq,
            ack: if has_ack { self.rcv.nxt } else { Seq(0) },
            flags,
            urgent: urgent.unwrap_or(0),
            window: if is_syn {
                self.rcv.syn_window(has_ack)
            } else {
                self.rcv.offer_window(cx.frames.allowance(), self.sack)
            },
            timestamp: self.ts.option(cx.now),
        };
        let header_len = if is_syn || has_blocks {
            self.emit_options(cx, content, &header)
        } else {
            header.emit_before(&mut cx.frames.bytes_mut(content.frame)[..usize::from(content.payload_off)]) as u16
        };
        cx.counters.tx_segments += 1;
        self.tally.segs_out = self.tally.segs_out.wrapping_add(1);
        self.tally.data_segs_out = self.tally.data_segs_out.wrapping_add((content.payload_len > 0).into());
        if has_ack {
            self.note_ack_sent(content.payload_len > 0 || is_syn);
        }
        let off = content.payload_off - header_len;
        Outgoing { frame: content.frame, off, len: header_len + content.payload_len, tos, keep: content.keep }
    }

    /// A header with what only a SYN has, or with selective acknowledgements. Its length.
    #[cold]
    fn emit_options(&mut self, cx: &mut Context<'_, '_>, content: &Content, plain: &PlainHeader) -> u16 {
        let is_syn = content.flags.has(Flags::SYN);
        let header = Header {
            mss: is_syn.then_some(self.rcv.own_mss),
            window_scale: (is_syn && self.rcv.scaling).then_some(self.rcv.shift),
            sack_permitted: is_syn && self.sack,
            sack: if is_syn { SackBlocks::default() } else { self.sack_blocks(cx.frames, content.payload_len) },
            fast_open: cx.cookie.filter(|_| is_syn && self.offers_cookie()),
            ..Header::from(plain)
        };
        let end = usize::from(content.payload_off);
        tcp::emit(&header, &mut cx.frames.bytes_mut(content.frame)[end - header.len()..end]) as u16
    }

    fn retry_without_frame(&mut self, cx: &mut Context<'_, '_>) {
        cx.counters.drops.count(crate::drops::Drop::NoFrame);
        let doublings = u32::from(self.timers.retransmits).min(NO_FRAME_DOUBLINGS_MAX);
        self.timers.ack_at = cx.now.after_us(NO_FRAME_RETRY_US << doublings);
    }
}
