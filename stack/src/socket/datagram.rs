//! Datagram sockets: bind, connect, send, receive, shutdown.
//!
//! A user socket has a kernel socket behind it, its shadow, which is bound and connected to the same endpoints: what comes
//! or goes by the kernel (fragments, multicast, loopback, other devices) goes through that. So the shadow is asked first,
//! and what it refuses never gets here; the two agree on names and errors by that.

use super::readiness::{ERR, HUP, IN, RDHUP, RDNORM, ROOM_CAME};
use super::table::Kind;
use super::{Errno, Family, How, ProcId, SocketId};
use crate::addr::{Endpoint, Ip};
use crate::engine::Engine;
use crate::slab::NONE;
use crate::tcp::Options;
use crate::udp::{Facts, Flags, Marks, Others, Outgoing, Sent};

/// What a datagram socket starts with: the shadow's settings.
#[derive(Clone, Copy, Debug)]
pub struct DatagramFacts {
    pub local: Endpoint,
    pub family: Family,
    pub v6only: bool,
    /// SO_REUSEPORT.
    pub shares_port: bool,
    /// SO_RCVBUF, as getsockopt tells it.
    pub rcvbuf_bytes: u32,
    pub marks: Marks,
}

/// A received datagram, or several as one, for as long as it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub facts: Facts,
    /// Of the first.
    pub payload: &'a [u8],
    /// Those that come with it (UDP_GRO): as long as the first, but for the last.
    pub others: Others<'a>,
    /// Datagrams that were lost to a full buffer so far.
    pub overflows: u32,
}

impl Engine<'_> {
    /// socket() and bind(): datagrams to `local` are taken from now on. An unspecified address stands for all of ours.
    pub fn open_datagram(&mut self, facts: &DatagramFacts, holder: ProcId) -> Result<SocketId, Errno> {
        let options = Options { rcvbuf_bytes: facts.rcvbuf_bytes, ..Options::new(&self.state.tunables) };
        let s = self.new_socket(Kind::Datagram, facts.family, facts.v6only, &options, holder)?;
        let own = self.own_mut(s.index);
        (own.local, own.mailbox.marks) = (facts.local, facts.marks);
        own.mailbox.flags.put(Flags::SHARES_PORT, facts.shares_port);
        self.link_mailbox(s.index);
        Ok(s)
    }

    /// A local port of the stack's blocks that no datagram socket of it has: the shadow is to be bound to it. The next
    /// call gives another one. EADDRNOTAVAIL when all are taken.
    pub fn choose_datagram_port(&mut self) -> Result<u16, Errno> {
        self.choose_port_by(|engine, port| !engine.has_mailbox(port))
    }

    pub(crate) fn datagram_slot(&self, s: SocketId) -> Result<u32, Errno> {
        let index = self.slot(s)?;
        if self.sockets[index].kind == Kind::Datagram { Ok(index) } else { Err(Errno::EOPNOTSUPP) }
    }

    /// connect(): datagrams of `remote` alone are taken, and sent to it by default. `local` is the address that the shadow
    /// has by that. What waited stays, wherever it came from, as on Linux.
    pub fn connect_datagram(&mut self, s: SocketId, local: Ip, remote: Endpoint) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        let own = self.own_mut(index);
        own.local.ip = local;
        own.mailbox.remote = remote;
        Ok(())
    }

    /// connect() to AF_UNSPEC: to and from everybody again, at the address that the shadow has then.
    pub fn disconnect_datagram(&mut self, s: SocketId, local: Ip) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        let own = self.own_mut(index);
        own.local.ip = local;
        own.mailbox.remote = Endpoint::default();
        Ok(())
    }

    /// sendto(): `fill` writes the `len` bytes. EAGAIN: no room now.
    pub fn send_to(
        &mut self,
        s: SocketId,
        out: &Outgoing,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Sent, Errno> {
        let index = self.datagram_slot(s)?;
        self.send_datagram(index, out, len, fill)
    }

    /// Whether `n` datagrams that belong together would all find room; if not, the socket is told when there is some.
    pub fn has_send_room(&mut self, s: SocketId, n: u32) -> Result<bool, Errno> {
        let index = self.datagram_slot(s)?;
        let has_room = self.has_room_for_datagrams(n);
        if !has_room {
            self.want_room(index);
        }
        Ok(has_room)
    }

    /// recvfrom(): gives the oldest datagram to `take`; with `peek` it stays. An error that came meanwhile is told first.
    /// Where the socket takes several as one (UDP_GRO), as many as are alike and fit into `room` octets.
    pub fn recv_from<T>(
        &mut self,
        s: SocketId,
        peek: bool,
        room: usize,
        take: impl FnOnce(&Datagram<'_>) -> T,
    ) -> Result<T, Errno> {
        let index = self.datagram_slot(s)?;
        let error = self.take_error_of(index);
        if error.is_set() {
            return Err(error);
        }
        let frame = self.first_received(index).ok_or(Errno::EAGAIN)?;
        let overflows = self.own(index).backlog;
        let facts = Facts::take(self.frames.bytes(frame));
        let others = self.others_of(index, frame, room);
        let count = 1 + others.count();
        let taken = take(&Datagram { facts, payload: self.frames.payload(frame), others, overflows });
        for _ in 0..if peek { 0 } else { count } {
            if let Some(frame) = self.pop_received(index) {
                self.frames.release(frame);
            }
        }
        Ok(taken)
    }

    fn first_received(&self, index: u32) -> Option<u32> {
        Some(self.own(index).accept_queue.head).filter(|head| *head != NONE)
    }

    /// FIONREAD: bytes of the next datagram, 0 without one.
    pub fn next_datagram_len(&self, s: SocketId) -> Result<Option<u32>, Errno> {
        let index = self.datagram_slot(s)?;
        Ok(self.first_received(index).map(|frame| u32::from(self.frames.meta(frame).len)))
    }

    /// What the socket's receive buffer holds, as SO_MEMINFO would count it.
    pub fn datagram_bytes_held(&self, s: SocketId) -> Result<u32, Errno> {
        let index = self.datagram_slot(s)?;
        Ok(self.own(index).mailbox.held_bytes)
    }

    /// Datagrams that were lost to a full receive buffer (SO_RXQ_OVFL).
    pub fn datagram_overflows(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.own(self.datagram_slot(s)?).backlog)
    }

    /// shutdown(): as on Linux nothing is told to anybody; a reader that waits is let go, a sender gets EPIPE.
    pub fn shutdown_datagram(&mut self, s: SocketId, how: How) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        let flags = &mut self.own_mut(index).mailbox.flags;
        if how != How::Write {
            flags.put(Flags::RECEIVE_SHUT, true);
        }
        if how != How::Read {
            flags.put(Flags::SEND_SHUT, true);
        }
        self.announce_change(index);
        Ok(())
    }

    /// To whom the socket is connected.
    pub fn datagram_remote(&self, s: SocketId) -> Result<Option<Endpoint>, Errno> {
        let mailbox = &self.own(self.datagram_slot(s)?).mailbox;
        Ok(mailbox.is_connected().then_some(mailbox.remote))
    }

    /// Whether a reader that finds nothing is at the end instead of having to wait.
    pub fn is_receive_shut(&self, s: SocketId) -> Result<bool, Errno> {
        Ok(self.is_mailbox_shut(self.datagram_slot(s)?))
    }

    /// SO_RCVBUF, as the shadow's getsockopt tells it.
    pub fn set_datagram_buffer(&mut self, s: SocketId, rcvbuf_bytes: u32) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        self.own_mut(index).options.rcvbuf_bytes = rcvbuf_bytes;
        Ok(())
    }

    /// IP_TTL, IP_TOS and IPv6's two.
    pub fn set_marks(&mut self, s: SocketId, marks: Marks) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        self.own_mut(index).mailbox.marks = marks;
        Ok(())
    }

    /// Linux's `udp_poll`.
    pub(crate) fn datagram_readiness(&self, index: u32) -> u32 {
        let (socket, own) = (&self.sockets[index], self.own(index));
        let flags = own.mailbox.flags;
        let mut ready = if socket.error.is_set() || !own.syn_queue.is_empty() { ERR } else { 0 };
        if flags.has(Flags::RECEIVE_SHUT) {
            ready |= RDHUP | IN | RDNORM;
            ready |= if flags.has(Flags::SEND_SHUT) { HUP } else { 0 };
        }
        if !own.accept_queue.is_empty() {
            ready |= IN | RDNORM;
        }
        debug_assert!(socket.conn == NONE);
        ready | if self.has_datagram_room() { ROOM_CAME } else { 0 }
    }
}
