//! Readiness: what poll() would say of a socket now, as Linux's `tcp_poll` and `inet_csk_listen_poll` compute it.

use super::fast_open::NOTICES;
use super::table::{Kind, Progress};
use super::{Errno, SocketId};
use crate::buf::Pressure;
use crate::engine::Engine;
use crate::slab::NONE;
use crate::tcp::State;

/// Linux's EPOLL* (and POLL*) bits.
pub const IN: u32 = 0x1;
pub const PRI: u32 = 0x2;
pub const OUT: u32 = 0x4;
pub const ERR: u32 = 0x8;
pub const HUP: u32 = 0x10;
pub const RDNORM: u32 = 0x40;
pub const RDBAND: u32 = 0x80;
pub const WRNORM: u32 = 0x100;
pub const WRBAND: u32 = 0x200;
pub const RDHUP: u32 = 0x2000;
/// Flags of epoll_ctl, no readiness.
pub const EXCLUSIVE: u32 = 1 << 28;
pub const WAKEUP: u32 = 1 << 29;
pub const ONESHOT: u32 = 1 << 30;
pub const ET: u32 = 1 << 31;

/// What is announced with data, and with room: the keys of Linux's wake-ups (`sock_def_readable`, `sk_stream_write_space`).
pub(crate) const DATA_CAME: u32 = IN | PRI | RDNORM | RDBAND;
pub(crate) const ROOM_CAME: u32 = OUT | WRNORM | WRBAND;

/// A change of state: of interest to everybody, whatever they asked for (Linux: a wake-up without a key).
pub const ANY: u32 = u32::MAX;

const READABLE: u32 = IN | RDNORM;
const WRITABLE: u32 = OUT | WRNORM;

impl Engine<'_> {
    /// The readiness of a socket, as POLL*/EPOLL* bits.
    pub fn readiness(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.readiness_of(self.slot(s)?, ANY))
    }

    /// Of the bits that are `asked` for; of others it may say nothing.
    pub(crate) fn readiness_of(&self, index: u32, asked: u32) -> u32 {
        let socket = &self.sockets[index];
        match socket.kind {
            Kind::Free => ERR | HUP,
            Kind::Listener if self.own(index).accept_queue.is_empty() => 0,
            Kind::Listener => READABLE,
            // A fresh socket is in CLOSE: hung up, and nothing keeps it from being written to.
            Kind::Stream if socket.conn == NONE => WRITABLE | HUP | if socket.error.is_set() { ERR } else { 0 },
            Kind::Stream => self.stream_readiness(index, asked),
            Kind::Datagram => self.datagram_readiness(index),
        }
    }

    fn stream_readiness(&self, index: u32, asked: u32) -> u32 {
        let socket = &self.sockets[index];
        let tcb = &self.conns[socket.conn];
        let state = tcb.state();
        // Linux's socket is in CLOSE, shut both ways, as soon as the connection is closed or in TIME-WAIT.
        let over = matches!(state, State::Closed | State::TimeWait);
        let no_more_in = over || tcb.peer_fin_reached() || tcb.is_receive_shutdown();
        let no_more_out = over || tcb.is_send_shutdown();
        let mut ready = 0;
        if no_more_in && no_more_out {
            ready |= HUP;
        }
        if no_more_in {
            ready |= READABLE | RDHUP;
        }
        if !matches!(state, State::SynSent | State::SynReceived) || tcb.is_early() || tcb.is_deferred() {
            let available = tcb.available();
            // When frames are few, more may never fit: then any is enough.
            if available >= tcb.needed_for(socket.rcvlowat.max(1))
                || available > 0 && self.frames.allowance() != u32::MAX
            {
                ready |= READABLE;
            }
            if no_more_out || asked & WRITABLE != 0 && tcb.is_writable(&self.frames) {
                ready |= WRITABLE;
            }
        }
        if tcb.has_urgent_octet() {
            ready |= PRI;
        }
        if socket.error.is_set() || tcb.error().is_some() || socket.fast_open & NOTICES != 0 {
            ready |= ERR;
        }
        ready
    }

    /// Something waits in the socket's error queue, or nothing does any more.
    pub fn set_notices(&mut self, s: SocketId, on: bool) -> Result<(), Errno> {
        let index = self.slot(s)?;
        let socket = &mut self.sockets[index];
        socket.fast_open = if on { socket.fast_open | NOTICES } else { socket.fast_open & !NOTICES };
        if on {
            self.announce(index, ERR);
        }
        Ok(())
    }

    /// Whoever asked and found no room is told when there is some.
    #[inline]
    pub(crate) fn note_no_room(&mut self, index: u32) {
        let socket = &self.sockets[index];
        if socket.conn != NONE && !self.conns[socket.conn].is_writable(&self.frames) {
            self.want_room(index);
        }
        if self.sockets[index].kind == Kind::Datagram && !self.has_datagram_room() {
            self.want_room(index);
        }
    }

    /// The socket is told when there is room. No acknowledgement will tell one that has nothing under way: what it waits
    /// for is frames.
    pub(crate) fn want_room(&mut self, index: u32) {
        let socket = &mut self.sockets[index];
        socket.wants_room = true;
        if socket.kind == Kind::Datagram {
            self.note_datagram_waits();
        } else if socket.conn != NONE {
            // It may not know: at the last write there was room, and frames became few since.
            self.conns[socket.conn].want_room();
        }
        self.state.starved |= self.frames.pressure() == Pressure::Exhausted;
    }

    /// Whether the connect() of this socket is still under way.
    pub(crate) fn is_connecting(&self, index: u32) -> bool {
        let socket = &self.sockets[index];
        socket.progress == Progress::Connecting
            && matches!(self.conns[socket.conn].state(), State::SynSent | State::SynReceived)
            && !self.conns[socket.conn].is_early()
    }
}
