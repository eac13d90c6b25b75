//! Who is told by a signal of urgent data (fcntl F_SETOWN, SIGURG), and of readiness (O_ASYNC, SIGIO): few sockets have an
//! owner, so they are in a table of their own. Whoever lets go of the stack's lock sends what is due, if the owner is its
//! own process; the daemon sends the rest. What happened several times until then is one signal.

use super::Engine;
use crate::socket::{Errno, ProcId, SocketId};
use crate::tcp::Events;

/// Sockets of a stack that may have an owner; one more cannot.
pub(crate) const OWNERS: usize = 32;

/// What a signal tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cause {
    /// SIGURG.
    Urgent = 0,
    /// SIGIO, or the signal of F_SETSIG, with Linux's numbers (POLL_IN, …): data or an end came, there is room or a
    /// connection, an error, an urgent octet, the end both ways.
    In = 1,
    Out = 2,
    Error = 4,
    Priority = 5,
    HangUp = 6,
}

/// In the order they are told: Linux tells of the end both ways, then of what may be read.
const CAUSES: [Cause; 6] = [Cause::Urgent, Cause::HangUp, Cause::In, Cause::Out, Cause::Error, Cause::Priority];

/// Whom a signal goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Owner {
    /// As kill() takes it: a process, or a group when negative.
    pub target: i32,
    /// The process that said so: its own number, and its slot in the arena.
    pub pid: i32,
    pub process: ProcId,
    /// F_SETSIG; 0: SIGIO, of which nothing is told.
    pub signal: u8,
    /// O_ASYNC: it is told of readiness.
    pub is_async: bool,
    /// The descriptor by which it is.
    pub fd: i32,
}

impl Owner {
    /// Whether the target is the process that named it.
    pub fn is_itself(&self) -> bool {
        self.target == self.pid
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
struct Entry {
    socket: u32,
    /// Of the socket; 0: nobody's entry.
    generation: u32,
    owner: Owner,
    /// [`Cause`]s, a bit each.
    due: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Owners {
    entries: [Entry; OWNERS],
    used: u16,
    due: u16,
}

impl Owners {
    fn find(&mut self, s: SocketId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| (e.socket, e.generation) == (s.index, s.generation))
    }

    fn remove(&mut self, s: SocketId) {
        if let Some(entry) = self.find(s) {
            let due = core::mem::take(entry).due;
            self.used -= 1;
            self.due -= u16::from(due != 0);
        }
    }

    fn set(&mut self, s: SocketId, owner: Owner) -> bool {
        if let Some(entry) = self.find(s) {
            entry.owner = owner;
            return true;
        }
        let Some(free) = self.entries.iter_mut().find(|e| e.generation == 0) else { return false };
        *free = Entry { socket: s.index, generation: s.generation, owner, due: 0 };
        self.used += 1;
        true
    }

    fn note_due(&mut self, s: SocketId, cause: Cause) {
        if let Some(entry) = self.find(s).filter(|entry| entry.is_told(cause)) {
            let before = entry.due;
            entry.due |= 1 << cause as u8;
            self.due += u16::from(before == 0);
        }
    }

    fn take(&mut self, may_send: impl Fn(&Owner) -> bool) -> Option<(Owner, Cause)> {
        let entry = self.entries.iter_mut().find(|e| e.due != 0 && may_send(&e.owner))?;
        let cause = CAUSES.into_iter().find(|cause| entry.due & 1 << *cause as u8 != 0)?;
        entry.due &= !(1 << cause as u8);
        self.due -= u16::from(entry.due == 0);
        Some((entry.owner, cause))
    }
}

impl Entry {
    fn is_told(&self, cause: Cause) -> bool {
        match cause {
            Cause::Urgent => true,
            // Who did not choose a signal has SIGURG for it.
            Cause::Priority => self.owner.is_async && self.owner.signal != 0,
            _ => self.owner.is_async,
        }
    }
}

impl Engine<'_> {
    /// Whom a socket's urgent data, and perhaps its readiness, is signalled to; ENOMEM when too many have somebody.
    pub fn set_owner(&mut self, s: SocketId, owner: Option<Owner>) -> Result<(), Errno> {
        self.slot(s)?;
        match owner {
            None => self.state.owners.remove(s),
            Some(owner) if !self.state.owners.set(s, owner) => return Err(Errno::ENOMEM),
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether the socket's owner is told of readiness.
    pub fn is_async(&mut self, s: SocketId) -> bool {
        self.state.owners.find(s).is_some_and(|entry| entry.owner.is_async)
    }

    /// Whether any socket has one.
    #[inline]
    pub(crate) fn has_owners(&self) -> bool {
        self.state.owners.used > 0
    }

    /// Something happened that a socket's owner may want to know by a signal.
    #[inline]
    pub(crate) fn note_signal(&mut self, index: u32, cause: Cause) {
        if self.state.owners.used > 0 {
            let generation = self.sockets[index].generation;
            self.state.owners.note_due(SocketId { index, generation }, cause);
        }
    }

    /// The same of what happened to a connection.
    #[cold]
    pub(crate) fn note_stream_signals(&mut self, socket: u32, conn: u32, events: Events, found_room: bool) {
        let is_over = events.has(Events::PEER_FIN) && self.conns[conn].is_send_shutdown();
        let came = events.has_any(Events::READABLE | Events::PEER_FIN);
        // A blocked reader is not told of what it waits for (Linux: SOCKWQ_ASYNC_WAITDATA).
        let is_waited_for = self.sockets[socket].waiters != 0;
        let noted = [
            (events.has(Events::URGENT), Cause::Urgent),
            (events.has(Events::URGENT), Cause::Priority),
            (is_over && !is_waited_for, Cause::HangUp),
            (came && !is_waited_for, Cause::In),
            (found_room || events.has(Events::CONNECTED), Cause::Out),
            (events.has_any(Events::ERROR | Events::RESET), Cause::Error),
        ];
        noted.into_iter().filter(|(happened, _)| *happened).for_each(|(_, cause)| self.note_signal(socket, cause));
    }

    /// The socket is gone.
    #[inline]
    pub(crate) fn forget_owner(&mut self, index: u32) {
        if self.state.owners.used > 0 {
            let generation = self.sockets[index].generation;
            self.state.owners.remove(SocketId { index, generation });
        }
    }

    /// Whether a signal is to be sent.
    #[inline]
    pub fn has_due_signals(&self) -> bool {
        self.state.owners.due > 0
    }

    /// Takes one that the caller may send.
    pub fn take_due_signal(&mut self, may_send: impl Fn(&Owner) -> bool) -> Option<(Owner, Cause)> {
        self.state.owners.take(may_send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SocketId {
        SocketId { index, generation: index + 7 }
    }

    fn owner(pid: i32) -> Owner {
        Owner { target: pid, pid, process: 1, ..Owner::default() }
    }

    #[test]
    fn what_is_due_is_taken_once_by_who_may_send_it() {
        let mut owners = Owners::default();
        assert!(owners.set(id(1), owner(10)) && owners.set(id(2), owner(20)));
        owners.note_due(id(1), Cause::Urgent);
        owners.note_due(id(1), Cause::Urgent);
        owners.note_due(id(3), Cause::Urgent);
        assert_eq!(owners.due, 1);
        assert_eq!(owners.take(|o| o.pid == 20), None);
        assert_eq!(owners.take(|o| o.pid == 10), Some((owner(10), Cause::Urgent)));
        assert_eq!((owners.take(|_| true), owners.due), (None, 0));
        owners.note_due(id(2), Cause::Urgent);
        owners.remove(id(2));
        owners.remove(id(2));
        assert_eq!((owners.used, owners.due), (1, 0));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut owners = Owners::default();
        assert!((0..OWNERS as u32).all(|n| owners.set(id(n), Owner::default())));
        assert!(!owners.set(id(99), Owner::default()));
        assert!(owners.set(id(3), Owner { target: 5, ..Owner::default() }), "a new owner of the same socket");
        owners.remove(id(3));
        assert!(owners.set(id(99), Owner::default()));
    }

    #[test]
    fn readiness_is_told_to_those_who_asked_cause_by_cause() {
        let mut owners = Owners::default();
        let asked = Owner { is_async: true, ..owner(10) };
        assert!(owners.set(id(1), owner(10)) && owners.set(id(2), asked));
        owners.note_due(id(1), Cause::In);
        assert_eq!(owners.due, 0, "it wants to know of urgent data alone");
        for cause in [Cause::HangUp, Cause::In, Cause::In, Cause::Priority, Cause::Urgent] {
            owners.note_due(id(2), cause);
        }
        assert_eq!(owners.due, 1);
        for cause in [Cause::Urgent, Cause::HangUp, Cause::In] {
            assert_eq!(owners.take(|_| true), Some((asked, cause)));
        }
        assert_eq!((owners.take(|_| true), owners.due), (None, 0));
        let chosen = Owner { signal: 40, ..asked };
        assert!(owners.set(id(2), chosen));
        owners.note_due(id(2), Cause::Priority);
        assert_eq!(owners.take(|_| true), Some((chosen, Cause::Priority)));
    }
}
