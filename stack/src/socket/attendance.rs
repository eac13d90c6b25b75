//! Who waits to be accepted, and whether anybody waits to accept.
//!
//! Processes that share a port have a listener each, in stacks of their own, and a connection is steered to one of them. In the
//! kernel it would wait for all of them at once. So when one does not accept for a while (it computes, or another holds the lock that
//! they accept by), the daemon sends on those who wait to one that does; it asks here.

use super::epoll::NESTED_MAX;
use super::epoll_items::Target;
use super::readiness::{IN, RDNORM};
use super::{Kind, SocketId};
use crate::addr::Flow;
use crate::engine::Engine;
use crate::slab::NONE;
use crate::tcp::State;

/// Who waits to accept at a listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Attendance {
    /// Nobody: it is in no epoll set that asks for it, and no thread is in accept or poll.
    None,
    /// An epoll set asks for it, at which no thread waits just now.
    Asked,
    /// A thread, which will be woken: at the socket itself, or at an epoll set that asks for it.
    Asleep,
}

impl Engine<'_> {
    /// Whether [`Engine::take_arrival`] has one to tell of.
    #[inline]
    pub(crate) fn has_arrival(&self) -> bool {
        self.state.has_arrival
    }

    /// Whether a connection came to be accepted since this was last asked; and the last port at which nobody asks for it,
    /// or 0.
    #[inline]
    pub fn take_arrival(&mut self) -> Option<u16> {
        if !self.state.has_arrival {
            return None;
        }
        self.state.has_arrival = false;
        Some(core::mem::take(&mut self.state.unwanted_at))
    }

    pub(super) fn note_arrival(&mut self, listener: u32) {
        self.state.has_arrival = true;
        if self.attendance(listener) == Attendance::None {
            self.state.unwanted_at = self.own(listener).local.port;
        }
    }

    /// An epoll set may not ask for this any more. Who waits there to be accepted is told of as if he came now.
    pub(super) fn note_less_asked(&mut self, target: Target) {
        let is_listener = !target.is_set && self.sockets[target.index].kind == Kind::Listener;
        if is_listener && !self.own(target.index).accept_queue.is_empty() {
            self.note_arrival(target.index);
        }
    }

    /// The listeners of a port at which somebody waits to be accepted, and who has waited longest.
    pub fn for_each_line(&self, port: u16, mut f: impl FnMut(SocketId, &Flow, Attendance)) {
        for index in self.listeners_of(port) {
            let head = self.own(index).accept_queue.head;
            if head != NONE {
                let listener = SocketId { index, generation: self.sockets[index].generation };
                f(listener, self.conns[head].flow(), self.attendance(index));
            }
        }
    }

    /// Those who wait to be accepted at a listener, in their order, if no thread waits for them.
    pub fn for_each_unattended(&self, listener: SocketId, mut f: impl FnMut(&Flow)) {
        let Ok(index) = self.listener_slot(listener) else { return };
        if self.attendance(index) == Attendance::Asleep {
            return;
        }
        let mut conn = self.own(index).accept_queue.head;
        while conn != NONE {
            let tcb = &self.conns[conn];
            if tcb.state() != State::Closed {
                f(tcb.flow());
            }
            conn = tcb.link.queue_next;
        }
    }

    /// Who waits to accept what would come by this flow. A thread that has others to accept first only asks.
    pub fn who_awaits(&self, flow: &Flow) -> Attendance {
        let Some(index) = self.find_listener(flow) else { return Attendance::None };
        let most = if self.own(index).accept_queue.is_empty() { Attendance::Asleep } else { Attendance::Asked };
        self.attendance(index).min(most)
    }

    /// Who waits to accept at any listener of the port.
    pub fn attendance_at(&self, port: u16) -> Attendance {
        self.listeners_of(port).map(|listener| self.attendance(listener)).max().unwrap_or(Attendance::None)
    }

    fn attendance(&self, listener: u32) -> Attendance {
        let socket = &self.sockets[listener];
        if socket.waiters != 0 { Attendance::Asleep } else { self.attendance_above(socket.items, 0) }
    }

    /// At the sets of these items, and at sets that those are in.
    fn attendance_above(&self, first: u32, depth: u32) -> Attendance {
        let (mut best, mut at) = (Attendance::None, first);
        while at != NONE && depth <= NESTED_MAX && best != Attendance::Asleep {
            let item = &self.epoll_items[at];
            let set = &self.epoll_sets[item.set];
            if item.asked() & (IN | RDNORM) != 0 {
                let here = if set.waiters != 0 { Attendance::Asleep } else { Attendance::Asked };
                best = best.max(here).max(self.attendance_above(set.watchers, depth + 1));
            }
            at = item.target_next;
        }
        best
    }
}
