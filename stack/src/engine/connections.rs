//! What becomes of connections: an arrival's events are turned into lists, timers and wake-ups, in one place.

use super::flows::Entry;
use super::{Engine, context};
use crate::drops::Drop;
use crate::slab::{NONE, Slab};
use crate::socket::QUEUE_DEPARTED;
use crate::socket::readiness::{ANY, DATA_CAME, ROOM_CAME};
use crate::tcp::{Arrival, Events, Linger, Links, State, Tcb};
use crate::time::Instant;
use crate::timer_wheel::Nodes;
use crate::wire::tcp::Flags;

/// Connections looked at in one turn for frames held out of order.
const PRUNE_STEP: u32 = 256;

impl Nodes for Slab<'_, Tcb> {
    #[inline]
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self[index].link
    }
}

impl Engine<'_> {
    /// Gives a new connection its slot and its place in the table; `None` when there is no slot.
    pub(crate) fn adopt(&mut self, now: Instant, tcb: Tcb) -> Option<u32> {
        let flow = *tcb.flow();
        let conn = self.conns.insert(tcb)?;
        self.link_flow(&flow, Entry::Connection(conn));
        self.schedule(now, conn);
        Some(conn)
    }

    /// What follows from a segment, a deadline or a call. The connection may be gone afterwards.
    #[inline]
    pub(crate) fn after(&mut self, now: Instant, conn: u32, arrival: Arrival) {
        if let Some(control) = &arrival.reply {
            let (flow, link) = (*self.conns[conn].flow(), self.conns[conn].link);
            self.reply(&flow, link.hop, link.rx_queue, control);
            if control.flags.has(Flags::RST) {
                self.note_reset(now, &flow);
            }
        }
        if !arrival.events.is_empty() && !self.handle_events(now, conn, arrival.events) {
            return;
        }
        self.schedule(now, conn);
    }

    /// Puts the connection where its wishes belong: transmit list, timer wheel. One that is to be asked for segments meets
    /// the wheel when it was asked.
    #[inline]
    pub(crate) fn schedule(&mut self, now: Instant, conn: u32) {
        if !self.ask_transmit(conn) || !self.state.waiting.is_empty() {
            self.arm_timer(now, conn);
        }
    }

    /// Puts a connection that has something to send on the transmit list; whether it is there.
    #[inline]
    pub(crate) fn ask_transmit(&mut self, conn: u32) -> bool {
        let tcb = &self.conns[conn];
        if !tcb.link.in_transmit && tcb.wants_transmit() {
            self.append_transmit(conn);
            return true;
        }
        tcb.link.in_transmit
    }

    /// A deadline that has passed counts as now: it comes due with the next tick, so nothing is served twice in one.
    #[inline]
    pub(super) fn arm_timer(&mut self, now: Instant, conn: u32) {
        if let Some(deadline) = self.conns[conn].deadline() {
            self.state.wheel.arm(&mut self.conns, conn, deadline.max(now));
        }
    }

    /// False when the connection is gone.
    fn handle_events(&mut self, now: Instant, conn: u32, events: Events) -> bool {
        if events.has(Events::CHALLENGE) && !self.may_challenge(now) {
            self.state.counters.drops.count(Drop::ChallengeLimitedStack);
            self.conns[conn].withdraw_challenge();
        }
        if events.has_any(Events::CONNECTED | Events::CLOSED) {
            self.settle_fast_open(now, conn, events);
        }
        if events.has(Events::CONNECTED) {
            self.connected(conn);
        }
        if events.has(Events::CLOSED) && !self.closed(now, conn) {
            return false;
        }
        let socket = self.conns[conn].link.socket;
        if socket != NONE {
            self.tell_socket(socket, conn, events);
        } else if events.has(Events::TIME_WAIT) && self.conns[conn].link.orphan {
            self.make_time_wait(now, conn);
            return false;
        }
        true
    }

    /// Readiness as Linux announces it: data and room by their own bits, everything else by all of them.
    fn tell_socket(&mut self, socket: u32, conn: u32, events: Events) {
        let quiet = Events::READABLE | Events::WRITABLE | Events::URGENT | Events::CHALLENGE;
        let mut bits = if events.0 & !quiet.0 != 0 { ANY } else { 0 };
        if events.has(Events::READABLE) {
            bits |= DATA_CAME;
        }
        if events.has(Events::URGENT) {
            bits |= DATA_CAME;
        }
        let finds_room = events.has(Events::WRITABLE)
            && self.sockets[socket].wants_room
            && self.conns[conn].is_writable(&self.frames);
        if finds_room {
            self.sockets[socket].wants_room = false;
            bits |= ROOM_CAME;
        }
        if self.has_owners() {
            self.note_stream_signals(socket, conn, events, finds_room);
        }
        if bits != 0 {
            self.announce(socket, bits);
        }
    }

    /// The connection is over. It leaves the table and the timers at once; its record stays for as long as a socket
    /// holds it. False when it is gone.
    fn closed(&mut self, now: Instant, conn: u32) -> bool {
        self.leave_syn_queue(conn);
        let link = self.conns[conn].link;
        if link.socket == NONE && link.queue == crate::socket::QUEUE_NONE {
            self.remove_connection(now, conn);
            return false;
        }
        self.retire(conn);
        true
    }

    /// Takes a connection out of the table, the timers and the transmit list.
    fn retire(&mut self, conn: u32) {
        let flow = *self.conns[conn].flow();
        self.unlink_flow(&flow, Entry::Connection(conn));
        self.state.wheel.disarm(&mut self.conns, conn);
        self.forget_transmit(conn);
    }

    /// The end of a connection's record. It is in no queue of a listener and no socket holds it.
    pub(crate) fn remove_connection(&mut self, now: Instant, conn: u32) {
        self.retire(conn);
        self.conns[conn].release_all(&mut context!(self, now));
        self.conns.remove(conn);
    }

    /// The socket of a connection goes: the connection ends by itself, as an orphan. Orphans have no limit of their own (Linux:
    /// tcp_max_orphans): each ends in its time, whatever its peer does (few retransmissions, FIN-WAIT-2's timeout, a shut window
    /// only until probes have become rare), and a stack whose slots are all taken takes no SYN.
    pub(crate) fn orphan_connection(&mut self, now: Instant, conn: u32, linger: Linger) {
        let link = &mut self.conns[conn].link;
        (link.socket, link.orphan) = (NONE, true);
        if self.conns[conn].state() == State::Closed {
            return self.remove_connection(now, conn);
        }
        let arrival = self.conns[conn].close(&mut context!(self, now), linger);
        self.after(now, conn, arrival);
    }

    /// RST for the peer, and the end. The record stays if a socket holds it.
    pub(crate) fn abort_connection(&mut self, now: Instant, conn: u32) {
        let reply = self.conns[conn].abort(&mut context!(self, now));
        let reply = reply.filter(|_| self.conns[conn].link.hop.is_known());
        self.after(now, conn, Arrival { events: Events::CLOSED | Events::ERROR, reply });
    }

    /// Frames are nearly gone: some of the connections, the next time others, give back what came out of order. A slot
    /// that is free holds none.
    pub(super) fn prune_connections(&mut self) {
        let used = self.conns.used();
        for _ in 0..PRUNE_STEP.min(used) {
            let conn = if self.state.prune_next < used { self.state.prune_next } else { 0 };
            self.conns[conn].prune(&mut self.frames);
            self.state.prune_next = conn + 1;
        }
    }

    /// Serves every connection whose deadline has come.
    pub(super) fn handle_due_connections(&mut self, now: Instant) {
        while let Some(conn) = self.state.wheel.pop_due(&mut self.conns, now) {
            match self.conns[conn].deadline() {
                Some(deadline) if deadline <= now => self.handle_due(now, conn),
                Some(deadline) => self.state.wheel.arm(&mut self.conns, conn, deadline),
                None => {}
            }
        }
    }

    fn handle_due(&mut self, now: Instant, conn: u32) {
        if self.conns[conn].link.queue == QUEUE_DEPARTED {
            return self.remove_connection(now, conn);
        }
        let arrival = self.conns[conn].handle_deadline(&mut context!(self, now));
        self.after(now, conn, arrival);
    }
}
