//! A listener's SYN queue: who gets in, who has to bring a cookie, who leaves.
//!
//! A half-open connection has a connection's slot and its timers, so there are few of them: as many as the backlog says,
//! 128 at least, never more than `tunables.syn_backlog` to a listener; and all listeners together leave an eighth of the
//! stack's connection slots to those whose handshake is complete. At the limit:
//! - with `tunables.syncookies` a SYN costs nothing but its SYN-ACK, which carries a cookie (RFC 4987 §3.6; 2: every SYN);
//! - without, the oldest half-open connection that let a SYN-ACK go unanswered makes room; when there is none the SYN is
//!   dropped, and its sender asks again. (Linux keeps a quarter of the room for peers it knows, and thins old ones out.)
//!
//! A full accept queue lets no SYN in. A successor of a TIME-WAIT passes the limits: its peer is real.

use super::listener::push;
use super::{QUEUE_ACCEPT, QUEUE_SYN, Unconnected};
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::engine::{Engine, Fate, Origin, context};
use crate::slab::NONE;
use crate::tcp::{COOKIE_LIFE_US, Links, Tcb, isn, make_cookie, read_cookie, ts_offset};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Segment, reset_for};

/// Half-open connections that even the smallest backlog may have.
const SYN_QUEUE_MIN: u32 = 128;
/// The part of the connection slots that half-open connections leave free: one in this many.
const RESERVED_PART: usize = 8;

/// What becomes of a SYN that a listener takes.
enum Admission {
    Queue,
    Cookie,
}

impl Unconnected {
    /// Linux lets one more in than the backlog says (`sk_acceptq_is_full`).
    pub(crate) fn is_accept_queue_full(&self) -> bool {
        self.accept_queue.len > self.backlog
    }

    fn is_syn_queue_full(&self, most: u32) -> bool {
        self.syn_queue.len >= self.backlog.max(SYN_QUEUE_MIN).min(most)
    }
}

impl Engine<'_> {
    /// A SYN for a listener: a new connection in SYN-RECEIVED, in the SYN queue; or a cookie.
    pub(crate) fn arrive_syn(
        &mut self,
        now: Instant,
        listener: u32,
        origin: &Origin,
        seg: &Segment,
        frame: FrameId,
        iss_above: Option<u32>,
    ) -> Result<Fate, Drop> {
        if let Admission::Cookie = self.admit(now, listener, iss_above.is_some())? {
            self.answer_with_cookie(now, listener, origin, seg);
            return Ok(Fate::Done);
        }
        let (flow, secret) = (origin.flow, self.state.config.isn_secret);
        let iss = iss_above.unwrap_or_else(|| isn(&secret, &flow, now));
        let grant = self.grant_fast_open(now, listener, &flow, seg);
        let mut tcb = self.half_open(now, listener, origin, seg, iss);
        if grant.gives_cookie {
            tcb.grant_cookie();
        }
        let conn = self.adopt(now, tcb).ok_or(Drop::NoConnectionSlot)?;
        self.state.counters.passive_opens += 1;
        let record = self.sockets[listener].unconnected;
        push(&mut self.unconnected[record].syn_queue, &mut self.conns, conn);
        if grant.is_early {
            return self.open_early(now, conn, seg, frame);
        }
        Ok(Fate::Done)
    }

    /// Whether a SYN gets in, and how.
    fn admit(&mut self, now: Instant, listener: u32, is_successor: bool) -> Result<Admission, Drop> {
        let (live, capacity) = (self.conns.live() as usize, self.conns.capacity());
        let tunables = &self.state.tunables;
        if self.own(listener).is_accept_queue_full() {
            return Err(Drop::AcceptQueueFull);
        }
        if live == capacity {
            return Err(Drop::NoConnectionSlot);
        }
        if is_successor {
            return Ok(Admission::Queue);
        }
        let is_full = self.own(listener).is_syn_queue_full(tunables.syn_backlog)
            || live >= capacity - capacity / RESERVED_PART && !self.own(listener).syn_queue.is_empty();
        match tunables.syncookies {
            2.. => Ok(Admission::Cookie),
            1 if is_full => Ok(Admission::Cookie),
            0 if is_full => self.evict_half_open(now, listener),
            _ => Ok(Admission::Queue),
        }
    }

    /// Room for a newer one: the oldest goes, if it had its chance.
    fn evict_half_open(&mut self, now: Instant, listener: u32) -> Result<Admission, Drop> {
        let oldest = self.own(listener).syn_queue.head;
        if oldest == NONE || !self.conns[oldest].is_half_open_stale() {
            return Err(Drop::SynBacklogFull);
        }
        self.state.counters.drops.count(Drop::SynEvicted);
        self.leave_syn_queue(oldest);
        self.remove_connection(now, oldest);
        Ok(Admission::Queue)
    }

    /// The connection that a SYN begins, in no list yet.
    fn half_open(&mut self, now: Instant, listener: u32, origin: &Origin, seg: &Segment, iss: u32) -> Tcb {
        let (flow, options) = (origin.flow, self.own(listener).options);
        let offset = ts_offset(&self.state.config.isn_secret, &flow);
        let mss = self.mss_towards(&flow.remote.ip);
        let mut tcb = Tcb::accept_syn(&mut context!(self, now), flow, seg, iss, offset, mss, &options);
        self.limit_path_of(now, &mut tcb);
        (tcb.link.hop, tcb.link.rx_queue) = (origin.hop, origin.queue);
        (tcb.link.listener, tcb.link.queue) = (listener, QUEUE_SYN);
        tcb
    }

    /// The SYN-ACK remembers what we do not.
    fn answer_with_cookie(&mut self, now: Instant, listener: u32, origin: &Origin, seg: &Segment) {
        let iss = make_cookie(&self.state.config.isn_secret, &origin.flow, seg, now);
        let header = self.half_open(now, listener, origin, seg, iss).cookie_syn_ack(seg, now);
        self.own_mut(listener).cookies_until = now.after_us(COOKIE_LIFE_US);
        self.state.counters.syn_cookies_sent += 1;
        self.reply_with(&origin.flow, origin.hop, origin.queue, &header);
    }

    /// Until when cookies may come back that stand for SYNs of this port.
    pub fn cookies_until(&self, port: u16) -> Instant {
        self.listeners_of(port).map(|listener| self.own(listener).cookies_until).max().unwrap_or(Instant::ZERO)
    }

    /// Another stack of this arena gave such cookies, and the port's flows move: they may come back to this one.
    pub fn expect_cookies(&mut self, port: u16, until: Instant) {
        loop {
            let before = self.listeners_of(port).find(|listener| self.own(*listener).cookies_until < until);
            let Some(listener) = before else { return };
            self.own_mut(listener).cookies_until = until;
        }
    }

    /// An acknowledgement for a listener: does it bring a cookie back? Then its connection is made now, and goes straight to
    /// the accept queue. `None`: it is nobody's.
    pub(crate) fn arrive_cookie(
        &mut self,
        now: Instant,
        listener: u32,
        origin: &Origin,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Option<Fate>, Drop> {
        if seg.flags.has_any(Flags::SYN | Flags::RST) || self.own(listener).cookies_until <= now {
            return Ok(None);
        }
        let secret = self.state.config.isn_secret;
        let offset = ts_offset(&secret, &origin.flow);
        let Some(syn) = read_cookie(&secret, &origin.flow, seg, offset, now) else {
            self.state.counters.syn_cookies_failed += 1;
            self.state.counters.drops.count(Drop::SynCookieInvalid);
            return Ok(None);
        };
        // What is dropped here comes again with the peer's next segment, and so does its cookie.
        if self.own(listener).is_accept_queue_full() {
            return self.refuse_overflow(origin, seg).map(Some);
        }
        let mut tcb = self.half_open(now, listener, origin, &syn, (seg.ack - 1).0);
        tcb.keep_cookie_window();
        let conn = self.adopt(now, tcb).ok_or(Drop::NoConnectionSlot)?;
        self.state.counters.passive_opens += 1;
        self.state.counters.syn_cookies_accepted += 1;
        let record = self.sockets[listener].unconnected;
        push(&mut self.unconnected[record].syn_queue, &mut self.conns, conn);
        let arrival = self.conns[conn].arrive(&mut context!(self, now), seg, frame);
        self.after(now, conn, arrival);
        Ok(Some(Fate::Taken))
    }

    /// A handshake is complete and the accept queue is full: as Linux does, the acknowledgement is dropped, the SYN-ACK comes
    /// again, and so does this one; or the peer is told (`tunables.abort_on_overflow`).
    pub(crate) fn refuse_overflow(&mut self, origin: &Origin, seg: &Segment) -> Result<Fate, Drop> {
        let reset = reset_for(seg).filter(|_| self.state.tunables.abort_on_overflow != 0);
        let Some(reset) = reset else { return Err(Drop::AcceptQueueFull) };
        self.reply(&origin.flow, origin.hop, origin.queue, &reset);
        Err(Drop::AcceptOverflowReset)
    }

    /// The last segment of a handshake came for a half-open connection. Whether it may be looked at now.
    pub(crate) fn admit_last_ack(
        &mut self,
        now: Instant,
        conn: u32,
        origin: &Origin,
        seg: &Segment,
    ) -> Result<(), Drop> {
        let listener = self.conns[conn].link.listener;
        if !self.own(listener).is_accept_queue_full() {
            return Ok(());
        }
        if !self.conns[conn].would_complete(seg) {
            return Err(Drop::AcceptQueueFull); // Whoever sent it may be a stranger: no RST for that.
        }
        let Err(reason) = self.refuse_overflow(origin, seg) else { return Ok(()) };
        if reason == Drop::AcceptOverflowReset {
            self.leave_syn_queue(conn);
            self.remove_connection(now, conn);
        }
        Err(reason)
    }

    /// A connection completed its handshake. One of a listener moves to the accept queue, and the listener is ready.
    pub(crate) fn connected(&mut self, conn: u32) {
        let Links { queue, listener, .. } = self.conns[conn].link;
        if queue == QUEUE_SYN {
            self.leave_listener(conn);
            self.join_listener(listener, conn, QUEUE_ACCEPT);
        }
    }

    /// A connection ended before its handshake did.
    pub(crate) fn leave_syn_queue(&mut self, conn: u32) {
        if self.conns[conn].link.queue == QUEUE_SYN {
            self.leave_listener(conn);
            self.conns[conn].link.orphan = true;
        }
    }
}
