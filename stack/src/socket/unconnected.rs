//! What only a socket without a connection has, in a record of its own: sockets with one are many, and need none of it.
//!
//! socket() and listen() make the record. A connection takes over with its own options and endpoint, and the record goes;
//! when a connection attempt fails, the socket gets it back. Accepted sockets never had one; datagram sockets always do. There are as many records as
//! sockets, so there is always one to be had.

use super::{Family, QUEUE_SYN, Socket};
use crate::addr::{Endpoint, Ip};
use crate::engine::{Engine, Queue};
use crate::slab::{NONE, SlabItem};
use crate::tcp::Options;
use crate::time::Instant;
use crate::udp::Mailbox;

/// A socket that no connection speaks for.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Unconnected {
    /// Listeners and datagram sockets: the next of the same bucket. Links free records.
    pub(crate) listener_next: u32,
    /// Of datagram sockets: the datagrams that found no room (SO_RXQ_OVFL).
    pub(crate) backlog: u32,
    /// What it is bound to.
    pub(crate) local: Endpoint,
    /// Listeners: those whose handshake is not complete, and those that wait for accept(). Datagram sockets have their
    /// errors (MSG_ERRQUEUE) in the first, and what they received in the second.
    pub(crate) syn_queue: Queue,
    pub(crate) accept_queue: Queue,
    /// Until when acknowledgements may bring a SYN cookie back.
    pub(crate) cookies_until: Instant,
    /// What connections of this socket start with.
    pub(crate) options: Options,
    /// Datagram sockets: the protocol's half.
    pub(crate) mailbox: Mailbox,
}

impl Unconnected {
    /// Nobody's record.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn empty() -> Unconnected {
        Unconnected::new(Options::default())
    }

    pub(super) fn new(options: Options) -> Unconnected {
        Unconnected {
            listener_next: NONE,
            backlog: 0,
            local: Endpoint::new(Ip::UNSPECIFIED, 0),
            syn_queue: Queue::EMPTY,
            accept_queue: Queue::EMPTY,
            cookies_until: Instant::ZERO,
            options,
            mailbox: Mailbox::EMPTY,
        }
    }
}

impl Unconnected {
    /// A listener's queue: `QUEUE_SYN` or `QUEUE_ACCEPT`.
    pub(super) fn queue_mut(&mut self, queue: u8) -> &mut Queue {
        if queue == QUEUE_SYN { &mut self.syn_queue } else { &mut self.accept_queue }
    }
}

impl SlabItem for Unconnected {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.listener_next
    }
}

impl Engine<'_> {
    /// The record of a socket that has no connection.
    #[inline]
    pub(crate) fn own(&self, index: u32) -> &Unconnected {
        &self.unconnected[self.sockets[index].unconnected]
    }

    #[inline]
    pub(crate) fn own_mut(&mut self, index: u32) -> &mut Unconnected {
        &mut self.unconnected[self.sockets[index].unconnected]
    }

    /// A connection speaks for the socket, or the socket goes.
    pub(super) fn drop_own(&mut self, index: u32) {
        let Socket { unconnected, .. } = &mut self.sockets[index];
        let record = core::mem::replace(unconnected, NONE);
        if record != NONE {
            self.unconnected.remove(record);
        }
    }

    /// The socket loses its connection, but not what was set on it. Of its name the port stays, as on Linux.
    pub(super) fn restore_own(&mut self, index: u32, conn: u32) {
        let tcb = &self.conns[conn];
        let ip = if self.sockets[index].family == Family::V4 { Ip::UNSPECIFIED_V4 } else { Ip::UNSPECIFIED };
        let local = Endpoint::new(ip, tcb.flow().local.port);
        let record = Unconnected { local, ..Unconnected::new(*tcb.options()) };
        self.sockets[index].unconnected = self.unconnected.insert(record).unwrap_or(NONE);
    }

    /// The options that count for a socket: its connection's, once it has one.
    pub(super) fn options_of(&self, index: u32) -> &Options {
        match self.sockets[index].conn {
            NONE => &self.own(index).options,
            conn => self.conns[conn].options(),
        }
    }
}
