//! What the application asks of a connection (RFC 9293 §3.10.2 to §3.10.6): SEND, RECEIVE, CLOSE, ABORT.

use super::sender::Fin;
use super::state::Event;
use super::{Arrival, Context, Events, State, Tcb};
use crate::buf::{FrameId, Frames, TX_HEADROOM};
use crate::time::Instant;
use crate::wire::tcp::Control;

/// SO_LINGER, as far as the connection is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Linger {
    /// FIN after all that is queued.
    #[default]
    Default,
    /// Linger for zero seconds: RST, and forget what is queued.
    Reset,
}

impl Tcb {
    /// Queues a copy of `data` for sending; returns how much of it. 0 means: no room now, or no frame.
    pub fn write(&mut self, cx: &mut Context<'_, '_>, data: &[u8]) -> usize {
        if !self.may_send() {
            return 0;
        }
        self.note_app_limited();
        let room = if self.is_deferred() { u32::from(self.snd.mss) } else { u32::MAX };
        let wanted = data.len().min(self.send_room(cx.frames).min(room) as usize);
        let mut left = &data[..wanted];
        if let Some((tail, room)) = self.snd.tail_room(cx.frames) {
            let n = room.min(left.len());
            let meta = *cx.frames.meta(tail);
            let at = usize::from(meta.off) + usize::from(meta.len);
            cx.frames.bytes_mut(tail)[at..at + n].copy_from_slice(&left[..n]);
            self.snd.grew(cx.frames, tail, n as u16);
            left = &left[n..];
        }
        while !left.is_empty() {
            let Some(frame) = cx.frames.alloc() else { break };
            let n = left.len().min(usize::from(self.snd.mss));
            cx.frames.bytes_mut(frame)[TX_HEADROOM..TX_HEADROOM + n].copy_from_slice(&left[..n]);
            let meta = cx.frames.meta_mut(frame);
            meta.off = TX_HEADROOM as u16;
            meta.len = n as u16;
            self.snd.push(cx.frames, frame);
            left = &left[n..];
        }
        let written = wanted - left.len();
        self.wants_room |= written < data.len() || !self.is_writable(cx.frames);
        if written > 0 {
            // Only now: a call that brought nothing sends nothing either, and must not take the timer away.
            self.look_at_pace(cx.now);
            self.end_deferral(cx);
        }
        self.arm_persist(cx);
        self.note_holdup(cx.now);
        written
    }

    /// Copies received bytes to `out`; with `peek`, they stay.
    pub fn read(&mut self, cx: &mut Context<'_, '_>, out: &mut [u8], peek: bool) -> usize {
        if peek {
            return self.peek(cx, 0, out);
        }
        self.take(cx, out.len(), |at, bytes| out[at..at + bytes.len()].copy_from_slice(bytes))
    }

    /// Discards up to `n` received bytes (MSG_TRUNC); returns how many.
    pub fn discard(&mut self, cx: &mut Context<'_, '_>, n: usize) -> usize {
        self.take(cx, n, |_, _| {})
    }

    fn take(&mut self, cx: &mut Context<'_, '_>, n: usize, give: impl FnMut(usize, &[u8])) -> usize {
        let n = self.read_limit(cx, n);
        self.take_front(cx, n, give)
    }

    /// Takes up to `n` octets off the receive queue.
    pub(super) fn take_front(
        &mut self,
        cx: &mut Context<'_, '_>,
        n: usize,
        mut give: impl FnMut(usize, &[u8]),
    ) -> usize {
        let mut done = 0;
        while let Some(front) = self.rcv.queue.front().filter(|_| done < n) {
            let payload = cx.frames.payload(front);
            let part = payload.len().min(n - done);
            give(done, &payload[..part]);
            done += part;
            if part == payload.len() {
                self.rcv.queue.pop_front(cx.frames);
                cx.frames.release(front);
            } else {
                self.rcv.queue.advance_front(cx.frames, part as u16);
            }
        }
        if done > 0 {
            self.after_read(cx, done as u32);
        }
        done
    }

    /// Copies received bytes to `out`, those from `ahead` on; they stay.
    pub fn peek(&self, cx: &Context<'_, '_>, ahead: usize, out: &mut [u8]) -> usize {
        let (passed, limit) = self.peek_limit(ahead + out.len());
        let (mut skip, limit) = (passed + ahead, limit.saturating_sub(ahead));
        let mut done = 0;
        let mut at: Option<FrameId> = self.rcv.queue.front();
        while let Some(id) = at.filter(|_| done < limit) {
            let payload = cx.frames.payload(id);
            let start = skip.min(payload.len());
            skip -= start;
            let part = (payload.len() - start).min(limit - done);
            out[done..done + part].copy_from_slice(&payload[start..start + part]);
            done += part;
            at = self.rcv.queue.next(cx.frames, id);
        }
        done
    }

    /// When the last of the next `n` octets to be read came; of fewer, the last there is.
    pub fn arrival(&self, frames: &Frames<'_>, now: Instant, n: u32) -> Option<Instant> {
        let (mut at, mut left, mut came) = (self.rcv.queue.front(), n, None);
        while let Some(id) = at.filter(|_| left > 0) {
            let meta = frames.meta(id);
            came = Some(now.micros().saturating_sub(u64::from(super::sender::elapsed_us(meta.sent_at, now))));
            left = left.saturating_sub(meta.len.into());
            at = self.rcv.queue.next(frames, id);
        }
        came.map(Instant::from_micros)
    }

    /// Bytes that may be read now.
    pub fn available(&self) -> u32 {
        self.rcv.queue.bytes()
    }

    /// Bytes queued and not acknowledged (SIOCOUTQ); our FIN counts as one, as on Linux.
    pub fn unacked_bytes(&self) -> u32 {
        let fin = matches!(self.snd.fin, Fin::Queued | Fin::Sent);
        self.snd.queue.bytes() + u32::from(fin && self.state.is_synchronized())
    }

    /// Bytes queued and not sent yet (SIOCOUTQNSD).
    pub fn unsent_bytes(&self) -> u32 {
        self.snd.unsent()
    }

    /// Whether the peer's FIN was reached.
    pub fn peer_fin_reached(&self) -> bool {
        self.rcv.fin_reached
    }

    /// Whether the application shut the receiving side.
    pub fn is_receive_shutdown(&self) -> bool {
        self.rcv.is_shutdown
    }

    /// Whether our FIN is queued (or gone).
    pub fn is_send_shutdown(&self) -> bool {
        self.has_queued_fin()
    }

    /// Whether more may be written: the connection stands and was not shut for sending.
    pub fn may_send(&self) -> bool {
        (self.state().may_send() || self.is_early() || self.is_deferred()) && !self.is_send_shutdown()
    }

    /// Whether more may come: the peer's FIN was not reached, and the application did not shut the receiving side.
    pub fn may_receive(&self) -> bool {
        self.state().may_receive() && !self.is_receive_shutdown()
    }

    /// CLOSE for the sending half: FIN after what is queued. In SYN-SENT that is the end.
    pub fn shutdown_send(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        let mut events = Events::NONE;
        if self.snd.fin == Fin::None && self.state != State::Closed {
            self.snd.fin = Fin::Queued;
            events = self.transit(cx, Event::Close);
        }
        Arrival { events, reply: None }
    }

    /// The application will not read any more. The peer is not told (as on Linux).
    pub fn shutdown_receive(&mut self) {
        self.rcv.is_shutdown = true;
    }

    /// CLOSE by the last holder: FIN, or RST when unread data is lost with it (RFC 9293 §3.6.1, as Linux does).
    pub fn close(&mut self, cx: &mut Context<'_, '_>, linger: Linger) -> Arrival {
        self.link.orphan = true;
        self.rcv.is_shutdown = true;
        let has_unread = self.rcv.queue.bytes() > 0;
        self.rcv.queue.clear(cx.frames);
        self.rcv.out_of_order.clear(cx.frames);
        match self.state {
            State::Closed => Arrival { events: Events::CLOSED, reply: None },
            State::TimeWait => Arrival { events: Events::TIME_WAIT, reply: None },
            _ if has_unread || linger == Linger::Reset => {
                let reply = self.abort(cx);
                Arrival { events: Events::CLOSED, reply }
            }
            State::FinWait2 if self.options.fin_timeout_ms == super::Options::NO_FIN_WAIT => {
                let reply = self.abort(cx);
                Arrival { events: Events::CLOSED, reply }
            }
            State::FinWait2 => {
                self.start_fin_timeout(cx.now);
                Arrival::default()
            }
            _ => self.shutdown_send(cx),
        }
    }

    /// ABORT: the connection is over; the RST for the peer, where one is due (RFC 9293 §3.10.5).
    pub fn abort(&mut self, cx: &mut Context<'_, '_>) -> Option<Control> {
        let is_due = matches!(
            self.state,
            State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait
        );
        let reply = is_due.then(|| self.reset_segment(cx));
        self.end(cx, None);
        self.rcv.queue.clear(cx.frames);
        reply
    }

    pub fn set_nodelay(&mut self, on: bool) {
        self.options_mut().nodelay = on;
    }

    pub fn set_cork(&mut self, on: bool) {
        self.options_mut().cork = on;
    }

    /// Starts or stops the keepalive timer; also after its intervals were changed.
    pub fn set_keepalive(&mut self, cx: &mut Context<'_, '_>, on: bool) {
        self.options.keepalive = on;
        if self.state.may_send() || self.state.may_receive() && !self.is_orphan() {
            self.timers.alive_at = crate::time::Instant::ZERO;
            self.timers.probes = 0;
            self.arm_keepalive(cx.now);
        }
    }
}
