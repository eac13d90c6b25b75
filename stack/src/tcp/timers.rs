//! The deadlines of a connection: retransmission or persist, delayed acknowledgement, pacing, and one that watches over the
//! connection's life (keepalive, FIN-WAIT-2, TIME-WAIT).

use super::sender::Fin;
use super::tcb::Owed;
use super::timestamps::ms_since;
use super::{Arrival, Context, Events, State, Tcb, TcpError};
use crate::time::{Instant, MS};

/// What the retransmission timer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Waiting {
    /// An acknowledgement.
    #[default]
    Acknowledgement,
    /// A window (RFC 9293 §3.8.6.1), or the end of a cork.
    Window,
    /// What others overtook (RFC 8985 §6.3).
    Reorder,
    /// The acknowledgements of the tail: then a probe goes (RFC 8985 §7.2).
    Probe,
}

/// An instant that is zero is not armed.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Timers {
    retransmit_at: Instant,
    pub(super) ack_at: Instant,
    pub(super) alive_at: Instant,
    /// Pacing: the next data may go then, in nanoseconds.
    pub(super) paid_until_ns: u64,
    /// Since when nothing we sent was answered.
    stalled_since: Instant,
    waiting: Waiting,
    /// Doublings of the timeout (Karn).
    pub(super) backoff: u8,
    /// Retransmissions of what is at SND.UNA.
    pub(super) retransmits: u8,
    /// Probes without an answer.
    pub(super) probes: u8,
    /// Data waits for `paid_until_ns`.
    pub(super) is_paced: bool,
    /// What a timeout began to repair is not repaired yet.
    pub(super) is_repairing: bool,
    /// Timeouts ever: for tools.
    pub(super) expiries: u16,
}

impl Timers {
    pub(super) fn arm_retransmit(&mut self, now: Instant, after_us: u64) {
        self.retransmit_at = now.after_us(after_us);
        self.waiting = Waiting::Acknowledgement;
    }

    /// Something that has to be acknowledged goes out: the timer runs from the first such thing (RFC 6298 §5.1).
    #[inline]
    pub(super) fn ensure_retransmit(&mut self, now: Instant, after_us: u64) {
        if !self.retransmit_at.is_set() || self.waiting == Waiting::Window {
            self.arm_retransmit(now, after_us);
        }
    }

    pub(super) fn arm_reorder(&mut self, now: Instant, after_us: u64) {
        self.retransmit_at = now.after_us(after_us);
        self.waiting = Waiting::Reorder;
    }

    #[inline]
    pub(super) fn arm_probe(&mut self, now: Instant, after_us: u64) {
        self.retransmit_at = now.after_us(after_us);
        self.waiting = Waiting::Probe;
    }

    fn arm_persist(&mut self, now: Instant, after_us: u64) {
        self.retransmit_at = now.after_us(after_us);
        self.waiting = Waiting::Window;
    }

    pub(super) fn stop_retransmit(&mut self) {
        self.retransmit_at = Instant::ZERO;
    }

    pub(super) fn stop(&mut self) {
        let Timers { retransmits, probes, is_repairing, expiries, .. } = *self;
        *self = Timers { retransmits, probes, is_repairing, expiries, ..Timers::default() };
    }

    /// New octets were acknowledged.
    #[inline]
    pub(super) fn note_progress(&mut self) {
        self.retransmits = 0;
        self.stalled_since = Instant::ZERO;
    }

    /// When data that waits for its pace may go; not set when none does.
    #[inline]
    pub(super) fn pace_at(&self) -> Instant {
        Instant::from_micros(if self.is_paced { self.paid_until_ns.div_ceil(1000).max(1) } else { 0 })
    }

    fn earliest(&self) -> u64 {
        // Not armed is zero; minus one it is the latest of all.
        let at = |i: Instant| i.micros().wrapping_sub(1);
        at(self.retransmit_at).min(at(self.ack_at)).min(at(self.alive_at)).min(at(self.pace_at()))
    }
}

fn is_due(at: Instant, now: Instant) -> bool {
    at.is_set() && at <= now
}

impl Tcb {
    /// The earliest of the connection's deadlines.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let earliest = self.timers.earliest();
        (earliest != u64::MAX).then(|| Instant::from_micros(earliest + 1))
    }

    /// Some deadline may have come. Calling early does no harm.
    pub fn handle_deadline(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        if is_due(self.timers.ack_at, cx.now) {
            self.expire_delayed_ack(cx.now);
        }
        self.look_at_pace(cx.now);
        let mut arrival = Arrival::default();
        if is_due(self.timers.retransmit_at, cx.now) {
            arrival.events |= match (self.state, self.timers.waiting) {
                (State::SynSent | State::SynReceived, _) => self.expire_syn(cx),
                (_, Waiting::Acknowledgement) => self.expire_retransmit(cx),
                (_, Waiting::Window) => self.expire_persist(cx),
                (_, Waiting::Reorder) => {
                    self.expire_reorder(cx);
                    Events::NONE
                }
                (_, Waiting::Probe) => {
                    self.expire_probe(cx);
                    Events::NONE
                }
            };
        }
        if is_due(self.timers.alive_at, cx.now) {
            self.timers.alive_at = Instant::ZERO;
            let more = self.expire_alive(cx);
            arrival.events |= more.events;
            arrival.reply = more.reply;
        }
        arrival
    }

    /// The retransmission timeout with its backoff (RFC 6298 §5.5), shortened so that the user timeout is kept.
    pub(super) fn rto_us(&self, cx: &Context<'_, '_>) -> u64 {
        let rto = (self.rtt.rto_us() << self.timers.backoff.min(20)).min(cx.tunables.rto_max_us);
        match (self.options.user_timeout_ms, self.timers.stalled_since.is_set()) {
            (0, _) | (_, false) => rto,
            (ms, true) => {
                let end = self.timers.stalled_since.after_us(u64::from(ms) * MS);
                rto.min(end.since_us(cx.now).max(MS))
            }
        }
    }

    /// How long silence is borne: the user timeout, else what `retries` timeouts that double from the smallest one make
    /// (as Linux reads tcp_retries2: a time, not a count).
    fn patience_us(&self, cx: &Context<'_, '_>, retries: u32) -> u64 {
        if self.options.user_timeout_ms != 0 {
            return u64::from(self.options.user_timeout_ms) * MS;
        }
        let (base, most) = (cx.tunables.rto_min_us.max(1), cx.tunables.rto_max_us);
        let doublings = (most / base).max(1).ilog2();
        match retries.checked_sub(doublings) {
            None | Some(0) => ((2 << retries.min(40)) - 1) * base,
            Some(more) => ((2 << doublings) - 1) * base + u64::from(more) * most,
        }
    }

    fn expire_syn(&mut self, cx: &mut Context<'_, '_>) -> Events {
        let limit = match (self.state, self.options.syn_retries) {
            (State::SynSent, 0) => cx.tunables.syn_retries,
            (State::SynSent, n) => u32::from(n),
            _ if self.last_ack_came => cx.tunables.synack_retries.max(self.options.defer_accept.into()),
            _ => cx.tunables.synack_retries,
        };
        let stalled = self.note_stalled(cx, self.rto_us(cx));
        let user_timeout_us = u64::from(self.options.user_timeout_ms) * MS;
        if u32::from(self.timers.retransmits) >= limit || user_timeout_us != 0 && stalled >= user_timeout_us {
            return self.give_up(cx);
        }
        self.note_expiry(cx.now);
        self.fast_open.note_timeout();
        // While the peer's data is waited for its SYN-ACK rests, until the last one asks for it (as on Linux).
        let rests = self.last_ack_came && self.timers.retransmits + 1 < self.options.defer_accept;
        cx.counters.retransmits += u64::from(!rests);
        self.back_off();
        if !rests {
            self.owed.add(Owed::SYN);
        }
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        Events::NONE
    }

    /// RFC 6298 §5.4 to §5.6.
    fn expire_retransmit(&mut self, cx: &mut Context<'_, '_>) -> Events {
        let stalled = self.note_stalled(cx, self.rto_us(cx));
        let retries = if self.is_orphan() { ORPHAN_RETRIES } else { cx.tunables.retries2 };
        if stalled >= self.patience_us(cx, retries) {
            return self.give_up(cx);
        }
        let front_in_ring = self.snd.queue.front().is_some_and(|id| cx.frames.is_in_tx(id));
        if self.snd.ring_busy || front_in_ring {
            // It has not left the machine: that is no loss. Look again.
            self.snd.ring_busy = front_in_ring;
            self.timers.arm_retransmit(cx.now, self.rto_us(cx));
            return Events::NONE;
        }
        cx.counters.rto_expiries += 1;
        self.note_expiry(cx.now);
        self.suspect_black_hole(cx);
        self.recover_on_timeout(cx);
        self.back_off();
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        Events::NONE
    }

    /// The tail's acknowledgements stay away. Sending the probe sets the timer; should it not come to that, this does. From
    /// the probe on it counts as silence.
    fn expire_probe(&mut self, cx: &Context<'_, '_>) {
        self.note_stalled(cx, u64::from(self.front_age_us(cx).unwrap_or(0)));
        self.recovery.owes_probe = true;
        self.timers.arm_retransmit(cx.now, self.rto_us(cx));
    }

    /// The window is still closed, or too small for what waits: probe it, or send what fits all the same.
    fn expire_persist(&mut self, cx: &mut Context<'_, '_>) -> Events {
        self.timers.stop_retransmit();
        if self.snd.unsent() == 0 {
            return Events::NONE;
        }
        if self.snd.usable() > 0 {
            self.snd.override_silly = true;
            return Events::NONE;
        }
        let stalled = self.note_stalled(cx, 0);
        // A peer may keep its window shut for ever, but not an orphan: that one ends when probes go as seldom as they ever will.
        if self.is_orphan() && self.rto_us(cx) >= cx.tunables.rto_max_us {
            return self.give_up(cx);
        }
        let limit = if self.is_orphan() { ORPHAN_RETRIES } else { cx.tunables.retries2 };
        let user_timeout_us = u64::from(self.options.user_timeout_ms) * MS;
        if u32::from(self.timers.probes) >= limit || user_timeout_us != 0 && stalled >= user_timeout_us {
            return self.give_up(cx);
        }
        cx.counters.zero_window_probes += 1;
        self.timers.probes = self.timers.probes.saturating_add(1);
        self.timers.backoff = self.timers.backoff.saturating_add(1);
        self.owed.add(Owed::PROBE);
        self.timers.arm_persist(cx.now, self.rto_us(cx));
        Events::NONE
    }

    /// Microseconds since something first went unanswered; that was `ago_us` before now, if it is news.
    fn note_stalled(&mut self, cx: &Context<'_, '_>, ago_us: u64) -> u64 {
        if !self.timers.stalled_since.is_set() {
            self.timers.stalled_since = Instant::from_micros(cx.now.micros().saturating_sub(ago_us).max(1));
        }
        cx.now.since_us(self.timers.stalled_since)
    }

    fn back_off(&mut self) {
        self.timers.retransmits = self.timers.retransmits.saturating_add(1);
        self.timers.backoff = self.timers.backoff.saturating_add(1);
    }

    /// A router said that there is no way just now: the timeout does not show congestion, so the doubling is taken back
    /// (RFC 6069 §4), and what is at SND.UNA goes again sooner.
    pub(super) fn revert_backoff(&mut self, cx: &Context<'_, '_>) {
        let is_waiting = self.timers.retransmit_at.is_set() && self.timers.waiting == Waiting::Acknowledgement;
        if is_waiting && self.timers.retransmits > 0 && self.timers.backoff > 0 {
            self.timers.backoff -= 1;
            let at = self.snd.last_sent_at.after_us(self.rto_us(cx));
            self.timers.retransmit_at = at.max(cx.now).min(self.timers.retransmit_at);
        }
    }

    /// Nobody answers. A router may have said why.
    fn give_up(&mut self, cx: &mut Context<'_, '_>) -> Events {
        let error = self.soft_error().unwrap_or(TcpError::TimedOut);
        self.end(cx, Some(error))
    }

    /// When data waits, nothing is in flight and nothing may go, only the persist timer can move things on.
    #[inline]
    pub(super) fn arm_persist(&mut self, cx: &Context<'_, '_>) {
        let unsent = self.snd.unsent();
        if unsent == 0 || self.snd.flight() != 0 {
            return;
        }
        // With nothing in flight, only these hold data back.
        if self.timers.retransmit_at.is_set() || self.options.cork || self.snd.usable() < unsent {
            self.arm_persist_slow(cx);
        }
    }

    fn arm_persist_slow(&mut self, cx: &Context<'_, '_>) {
        if self.sendable() > 0 {
            // The window opened: what probes were sent is forgotten with the next new acknowledgement.
            self.timers.backoff = 0;
            self.timers.stop_retransmit();
        } else if !self.timers.retransmit_at.is_set() {
            self.timers.arm_persist(cx.now, self.rto_us(cx));
        }
        if self.snd.wnd > 0 {
            self.timers.note_progress();
        }
    }

    /// (Re)starts the keepalive timer, where there is to be one.
    pub(super) fn arm_keepalive(&mut self, now: Instant) {
        if self.options.keepalive {
            self.timers.alive_at = now.after_us(u64::from(self.options.keepalive_idle_ms) * MS);
        }
    }

    /// FIN-WAIT-2 of an orphan ends by itself (RFC 9293 §3.6 leaves it to the implementation; Linux: tcp_fin_timeout).
    pub(super) fn start_fin_timeout(&mut self, now: Instant) {
        if self.is_orphan() {
            self.timers.alive_at = now.after_us(u64::from(self.options.fin_timeout_ms) * MS);
        }
    }

    fn expire_alive(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        match self.state {
            State::TimeWait => Arrival { events: self.end(cx, None), reply: None },
            State::FinWait2 if self.is_orphan() => Arrival { events: self.end(cx, None), reply: None },
            State::Closed | State::SynSent | State::SynReceived => Arrival::default(),
            _ if self.options.keepalive => self.expire_keepalive(cx),
            _ => Arrival::default(),
        }
    }

    /// RFC 9293 §3.8.4, with Linux's counting. Segments that came in the meantime did not move the timer; it looks now.
    fn expire_keepalive(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        let idle_us = u64::from(self.options.keepalive_idle_ms) * MS;
        let elapsed = u64::from(ms_since(self.rcv.last_at_ms, cx.now)) * MS;
        if self.snd.flight() > 0 || self.snd.unsent() > 0 {
            self.timers.alive_at = cx.now.after_us(idle_us);
            return Arrival::default();
        }
        if elapsed < idle_us {
            self.timers.probes = 0;
            self.timers.alive_at = cx.now.after_us(idle_us - elapsed);
            return Arrival::default();
        }
        let probes = self.timers.probes;
        let is_dead = match u64::from(self.options.user_timeout_ms) * MS {
            0 => probes >= self.options.keepalive_probes,
            limit => elapsed >= limit && probes > 0,
        };
        if is_dead {
            let reply = Some(self.reset_segment(cx));
            return Arrival { events: self.give_up(cx), reply };
        }
        cx.counters.keepalive_probes += 1;
        self.timers.probes = probes.saturating_add(1);
        self.owed.add(Owed::PROBE);
        self.timers.alive_at = cx.now.after_us(u64::from(self.options.keepalive_intvl_ms) * MS);
        Arrival::default()
    }

    /// Whether our FIN was queued.
    pub(super) fn has_queued_fin(&self) -> bool {
        self.snd.fin != Fin::None
    }
}

/// Retries for a connection nobody holds any more (Linux: tcp_orphan_retries = 0 means 8).
const ORPHAN_RETRIES: u32 = 8;
