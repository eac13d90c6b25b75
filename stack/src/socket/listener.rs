//! Listening sockets: where SYNs find them, and what accept() takes out of them. How connections get in: `syn_queue.rs`.

use super::readiness::DATA_CAME;
use super::table::{Kind, Progress};
use super::{Errno, Family, ProcId, SocketId};
use crate::addr::{Endpoint, Flow, Ip};
use crate::engine::{Cause, Engine, Queue, flow_hash};
use crate::slab::{NONE, Slab};
use crate::tcp::{Options, State, Tcb};
use crate::time::Instant;

/// Chains of listeners, by port.
pub(crate) const LISTENER_BUCKETS: usize = 64;

/// `Links::queue`.
pub(crate) const QUEUE_NONE: u8 = 0;
pub(crate) const QUEUE_SYN: u8 = 1;
pub(crate) const QUEUE_ACCEPT: u8 = 2;
/// In none: it waited for accept(), and is with another stack now.
pub(crate) const QUEUE_DEPARTED: u8 = 3;

fn bucket(port: u16) -> usize {
    usize::from(port) % LISTENER_BUCKETS
}

impl Engine<'_> {
    /// listen(): connections to `local` are taken from now on. An unspecified address stands for all of ours: `::` for
    /// both families unless `v6only`. Several listeners may share an endpoint (SO_REUSEPORT): new flows are spread.
    pub fn listen(
        &mut self,
        local: Endpoint,
        v6only: bool,
        backlog: u32,
        options: &Options,
        holder: ProcId,
    ) -> Result<SocketId, Errno> {
        let family = if local.ip.is_v4() { Family::V4 } else { Family::V6 };
        let s = self.new_socket(Kind::Listener, family, v6only, options, holder)?;
        self.forget_left_port(local.port);
        let backlog = backlog.min(self.state.tunables.somaxconn);
        let own = self.own_mut(s.index);
        (own.local, own.backlog) = (local, backlog);
        self.link_listener(s.index);
        Ok(s)
    }

    /// Puts a listener where SYNs find it.
    pub(super) fn link_listener(&mut self, index: u32) {
        let bucket = bucket(self.own(index).local.port);
        self.own_mut(index).listener_next = core::mem::replace(&mut self.state.listeners[bucket], index);
    }

    /// listen() again, with another backlog.
    pub fn set_backlog(&mut self, s: SocketId, backlog: u32) -> Result<(), Errno> {
        let index = self.listener_slot(s)?;
        self.own_mut(index).backlog = backlog.min(self.state.tunables.somaxconn);
        Ok(())
    }

    pub(super) fn listener_slot(&self, s: SocketId) -> Result<u32, Errno> {
        let index = self.slot(s)?;
        if self.sockets[index].kind == Kind::Listener { Ok(index) } else { Err(Errno::EINVAL) }
    }

    /// Whether the listener goes when this process lets go of it.
    pub fn is_last_holder(&self, s: SocketId, holder: ProcId) -> bool {
        self.listener_slot(s).is_ok_and(|index| !self.is_held_by_others(index, holder))
    }

    /// Whether anybody listens on the port.
    pub fn has_listener(&self, port: u16) -> bool {
        self.listeners_of(port).next().is_some()
    }

    /// Whether anybody but this process listens on the port.
    pub fn has_listener_of_others(&self, port: u16, holder: ProcId) -> bool {
        self.listeners_of(port).any(|index| self.is_held_by_others(index, holder))
    }

    /// Whether anybody listens on the port at just this address.
    pub fn listens_at(&self, local: Endpoint) -> bool {
        self.listeners_of(local.port).any(|index| self.own(index).local == local)
    }

    pub(super) fn listeners_of(&self, port: u16) -> impl Iterator<Item = u32> {
        let mut at = self.state.listeners[bucket(port)];
        core::iter::from_fn(move || {
            let index = (at != NONE).then_some(at)?;
            at = self.own(index).listener_next;
            Some(index)
        })
        .filter(move |index| self.own(*index).local.port == port)
    }

    /// The listener for a new flow: the exact address beats a wildcard, a wildcard of the same family beats `::`;
    /// among equals the flow's hash decides.
    pub(crate) fn find_listener(&self, flow: &Flow) -> Option<u32> {
        let score = |index: u32| match self.own(index).local.ip {
            ip if ip == flow.local.ip => 3,
            Ip::UNSPECIFIED_V4 if flow.local.ip.is_v4() => 2,
            Ip::UNSPECIFIED if !flow.local.ip.is_v4() => 2,
            Ip::UNSPECIFIED if !self.sockets[index].v6only => 1,
            _ => 0,
        };
        let port = flow.local.port;
        let best = self.listeners_of(port).map(score).max().filter(|best| *best > 0)?;
        let equals = || self.listeners_of(port).filter(|index| score(*index) == best);
        let choice = match equals().count() {
            1 => 0,
            n => flow_hash(&self.state.config.hash_secret, flow) as usize % n,
        };
        equals().nth(choice)
    }

    /// accept(): the oldest connection that waits, and its peer. One that was reset meanwhile is handed out too: the
    /// first call on it tells, as on Linux.
    pub fn accept(&mut self, now: Instant, s: SocketId, holder: ProcId) -> Result<(SocketId, Endpoint), Errno> {
        let listener = self.listener_slot(s)?;
        let conn = self.own(listener).accept_queue.head;
        if conn == NONE {
            return Err(Errno::EAGAIN);
        }
        let parent = self.sockets[listener];
        let accepted = self.new_slot(Kind::Stream, parent.family, parent.v6only, holder)?;
        unlink(&mut self.unconnected[parent.unconnected].accept_queue, &mut self.conns, conn);
        self.attach(accepted.index, conn);
        let socket = &mut self.sockets[accepted.index];
        (socket.progress, socket.rcvlowat) = (Progress::Connected, parent.rcvlowat);
        (socket.lingers, socket.linger_s) = (parent.lingers, parent.linger_s);
        socket.fast_open = parent.fast_open & super::fast_open::NO_COOKIE;
        self.state.counters.accepts += 1;
        self.schedule(now, conn);
        Ok((accepted, self.conns[conn].flow().remote))
    }

    /// Whether accept() would find something.
    pub fn has_pending_accepts(&self, s: SocketId) -> bool {
        self.listener_slot(s).is_ok_and(|index| !self.own(index).accept_queue.is_empty())
    }

    /// The listener goes. Whoever waits in its queues gets a RST.
    pub(super) fn close_listener(&mut self, now: Instant, index: u32) {
        self.unlink_listener(index);
        let own = self.own_mut(index);
        let queues = [&mut own.accept_queue, &mut own.syn_queue].map(|queue| core::mem::replace(queue, Queue::EMPTY));
        for queue in queues {
            let mut conn = queue.head;
            while conn != NONE {
                let link = &mut self.conns[conn].link;
                let next = link.queue_next;
                (link.queue, link.listener, link.orphan) = (QUEUE_NONE, NONE, true);
                (link.queue_next, link.queue_prev) = (NONE, NONE);
                self.abort_connection(now, conn);
                conn = next;
            }
        }
    }

    /// Calls `f` with the flow of every connection that waits at a listener of the port, and with that listener: those that
    /// wait for accept() first, in its order, then the half-open ones. Not of those that are over.
    pub fn for_each_waiting(&self, port: u16, mut f: impl FnMut(SocketId, &Flow)) {
        for index in self.listeners_of(port) {
            let listener = SocketId { index, generation: self.sockets[index].generation };
            for queue in [&self.own(index).accept_queue, &self.own(index).syn_queue] {
                let mut conn = queue.head;
                while conn != NONE {
                    let tcb = &self.conns[conn];
                    if tcb.state() != State::Closed {
                        f(listener, tcb.flow());
                    }
                    conn = tcb.link.queue_next;
                }
            }
        }
    }

    /// A connection leaves its listener's queue: for the other one, for another stack's, or because it is over.
    pub(crate) fn leave_listener(&mut self, conn: u32) {
        let link = &mut self.conns[conn].link;
        let queue = core::mem::replace(&mut link.queue, QUEUE_NONE);
        let listener = core::mem::replace(&mut link.listener, NONE);
        let own = &mut self.unconnected[self.sockets[listener].unconnected];
        unlink(own.queue_mut(queue), &mut self.conns, conn);
    }

    /// A connection joins a queue of a listener: it completed its handshake, or is from another stack. Whoever waits to accept
    /// it is told.
    pub(crate) fn join_listener(&mut self, listener: u32, conn: u32, queue: u8) {
        let link = &mut self.conns[conn].link;
        (link.listener, link.queue) = (listener, queue);
        let own = &mut self.unconnected[self.sockets[listener].unconnected];
        push(own.queue_mut(queue), &mut self.conns, conn);
        if queue == QUEUE_ACCEPT {
            self.note_signal(listener, Cause::In);
            self.note_arrival(listener);
            self.announce(listener, DATA_CAME);
        }
    }

    fn unlink_listener(&mut self, index: u32) {
        let bucket = bucket(self.own(index).local.port);
        self.state.listeners[bucket] = self.without_bound(self.state.listeners[bucket], index);
    }

    /// The head of a bucket's chain of bound sockets, listeners or mailboxes, once `index` is out of it.
    pub(crate) fn without_bound(&mut self, head: u32, index: u32) -> u32 {
        let next = self.own(index).listener_next;
        if head == index {
            return next;
        }
        let mut at = head;
        while at != NONE {
            let own = self.own_mut(at);
            if own.listener_next == index {
                own.listener_next = next;
                break;
            }
            at = own.listener_next;
        }
        head
    }

    /// A new connection starts with what its path is known to carry.
    pub(super) fn limit_path_of(&self, now: Instant, tcb: &mut Tcb) {
        if let Some(mtu) = self.state.destinations.path_mtu(&tcb.flow().remote.ip, now) {
            tcb.limit_path(u32::from(mtu));
        }
    }

    /// What a segment to or from this address may carry on our device.
    pub(crate) fn mss_towards(&self, remote: &Ip) -> u16 {
        let headers = crate::ip::header_len(remote) as u16 + 20;
        self.state.config.mtu.min(PACKET_MAX).saturating_sub(headers)
    }
}

/// A received packet lies in one frame, behind XDP's headroom (256), an Ethernet header and two VLAN tags.
const PACKET_MAX: u16 = (crate::buf::FRAME_SIZE - 256 - 14 - 8) as u16;

pub(super) fn push(queue: &mut Queue, conns: &mut Slab<'_, Tcb>, conn: u32) {
    let link = &mut conns[conn].link;
    (link.queue_prev, link.queue_next) = (queue.tail, NONE);
    match queue.tail {
        NONE => queue.head = conn,
        tail => conns[tail].link.queue_next = conn,
    }
    queue.tail = conn;
    queue.len += 1;
}

fn unlink(queue: &mut Queue, conns: &mut Slab<'_, Tcb>, conn: u32) {
    let link = &mut conns[conn].link;
    let (prev, next) = (link.queue_prev, link.queue_next);
    (link.queue_prev, link.queue_next) = (NONE, NONE);
    match prev {
        NONE => queue.head = next,
        prev => conns[prev].link.queue_next = next,
    }
    match next {
        NONE => queue.tail = prev,
        next => conns[next].link.queue_prev = prev,
    }
    queue.len -= 1;
}
