//! The socket table: what a socket is, who holds it, and how it goes.

use super::Unconnected;
use super::readiness::ANY;
use super::{Errno, QUEUE_NONE, SHARED_BELLS};
use crate::engine::Engine;
use crate::slab::{NONE, SlabItem};
use crate::tcp::{Linger, Options};
use crate::time::Instant;

/// A process of the arena's process table.
pub type ProcId = u16;

/// A socket's name. A name that outlived its socket is refused with EBADF.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct SocketId {
    pub index: u32,
    pub generation: u32,
}

impl SocketId {
    /// The name as one word, never 0 for a real socket.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub const fn from_bits(bits: u64) -> SocketId {
        SocketId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// The address family a socket was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Family {
    #[default]
    V4,
    V6,
}

/// What a socket is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Kind {
    #[default]
    Free,
    Stream,
    Listener,
    Datagram,
}

/// How far connect() has got, as far as the caller was told (Linux: SS_UNCONNECTED, SS_CONNECTING, SS_CONNECTED).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Progress {
    #[default]
    Unconnected,
    Connecting,
    Connected,
}

/// The processes that hold something: a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub(crate) struct Holders([u64; 4]);

impl Holders {
    pub(crate) fn of(holder: ProcId) -> Holders {
        let mut holders = Holders::default();
        holders.insert(holder);
        holders
    }

    pub(crate) fn insert(&mut self, holder: ProcId) {
        self.0[usize::from(holder) / 64 % 4] |= 1 << (holder % 64);
    }

    pub(crate) fn contains(&self, holder: ProcId) -> bool {
        self.0[usize::from(holder) / 64 % 4] & 1 << (holder % 64) != 0
    }

    /// Whether it was in.
    pub(crate) fn remove(&mut self, holder: ProcId) -> bool {
        let (word, bit) = (&mut self.0[usize::from(holder) / 64 % 4], 1 << (holder % 64));
        core::mem::replace(word, *word & !bit) & bit != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = ProcId> {
        (0..256).filter(move |p| self.0[usize::from(*p) / 64] & 1 << (p % 64) != 0)
    }
}

/// One socket.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Socket {
    /// The record of a socket without connection; `NONE` with one. Links free sockets.
    pub(crate) unconnected: u32,
    pub(crate) generation: u32,
    pub(crate) holders: Holders,
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    pub(crate) v6only: bool,
    pub(crate) progress: Progress,
    /// Somebody waits for send room (Linux: SOCK_NOSPACE).
    pub(crate) wants_room: bool,
    /// O_NONBLOCK: kept here because dup and fork share it. The engine never blocks; the shim asks.
    pub(crate) nonblocking: bool,
    /// SO_LINGER is on, with this many seconds.
    pub(crate) lingers: bool,
    /// TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE.
    pub(crate) fast_open: u8,
    pub(crate) linger_s: u16,
    /// TCP_FASTOPEN of a listener.
    pub(crate) fast_open_qlen: u16,
    /// The connection of a stream; `NONE` before connect.
    pub(crate) conn: u32,
    /// Bells of those who wait for any change.
    pub(crate) waiters: u32,
    /// Epoll items that watch this socket.
    pub(crate) items: u32,
    /// A pending error that the connection itself does not know.
    pub(crate) error: Errno,
    pub(crate) rcvlowat: u32,
}

const _: () = assert!(size_of::<Socket>() <= 72);

impl Socket {
    /// Nobody's socket.
    pub(crate) fn empty() -> Socket {
        Socket {
            unconnected: NONE,
            generation: 0,
            holders: Holders([0; 4]),
            kind: Kind::Free,
            family: Family::V4,
            v6only: false,
            progress: Progress::Unconnected,
            wants_room: false,
            nonblocking: false,
            lingers: false,
            fast_open: 0,
            linger_s: 0,
            fast_open_qlen: 0,
            conn: NONE,
            waiters: 0,
            items: NONE,
            error: Errno(0),
            rcvlowat: 1,
        }
    }
}

impl SlabItem for Socket {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.unconnected
    }
}

impl Engine<'_> {
    /// socket(): an unconnected stream.
    pub fn open_stream(&mut self, family: Family, v6only: bool, holder: ProcId) -> Result<SocketId, Errno> {
        let options = Options::new(&self.state.tunables);
        self.new_socket(Kind::Stream, family, v6only, &options, holder)
    }

    /// A socket without connection.
    pub(crate) fn new_socket(
        &mut self,
        kind: Kind,
        family: Family,
        v6only: bool,
        options: &Options,
        holder: ProcId,
    ) -> Result<SocketId, Errno> {
        let s = self.new_slot(kind, family, v6only, holder)?;
        let Some(record) = self.unconnected.insert(Unconnected::new(*options)) else {
            self.free_slot(s.index);
            return Err(Errno::ENFILE);
        };
        self.sockets[s.index].unconnected = record;
        Ok(s)
    }

    /// A socket whose connection is about to be attached.
    pub(super) fn new_slot(
        &mut self,
        kind: Kind,
        family: Family,
        v6only: bool,
        holder: ProcId,
    ) -> Result<SocketId, Errno> {
        let generation = self.next_generation();
        let holders = Holders::of(holder);
        let socket = Socket { generation, holders, kind, family, v6only, ..Socket::empty() };
        let index = self.sockets.insert(socket).ok_or(Errno::ENFILE)?;
        Ok(SocketId { index, generation })
    }

    fn free_slot(&mut self, index: u32) {
        (self.sockets[index].kind, self.sockets[index].generation) = (Kind::Free, 0);
        self.sockets.remove(index);
    }

    /// A number that names nothing else for the next four thousand million openings; never 0.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.state.generation = self.state.generation.wrapping_add(1).max(1);
        self.state.generation
    }

    /// The slot of a live socket.
    #[inline]
    pub(crate) fn slot(&self, s: SocketId) -> Result<u32, Errno> {
        match self.sockets.get(s.index) {
            Some(socket) if socket.generation == s.generation && socket.kind != Kind::Free => Ok(s.index),
            _ => Err(Errno::EBADF),
        }
    }

    /// Whether the name still stands for a socket.
    pub fn is_socket(&self, s: SocketId) -> bool {
        self.slot(s).is_ok()
    }

    /// One more process holds the socket (fork, SCM_RIGHTS).
    pub fn hold(&mut self, s: SocketId, holder: ProcId) -> Result<(), Errno> {
        let index = self.slot(s)?;
        self.sockets[index].holders.insert(holder);
        Ok(())
    }

    /// Whether a process besides this one holds the socket in a slot.
    pub(crate) fn is_held_by_others(&self, index: u32, holder: ProcId) -> bool {
        let mut others = self.sockets[index].holders;
        others.remove(holder);
        !others.is_empty()
    }

    /// A process lets go of the socket. The last one's release closes it: FIN after what is queued, or RST when unread
    /// data is lost or SO_LINGER is on with zero seconds.
    pub fn release(&mut self, now: Instant, s: SocketId, holder: ProcId) -> Result<(), Errno> {
        let index = self.slot(s)?;
        self.sockets[index].holders.remove(holder);
        if self.sockets[index].holders.is_empty() {
            self.close_socket(now, index);
        }
        Ok(())
    }

    /// Whether a process holds a socket or an epoll set.
    pub fn is_used_by(&self, holder: ProcId) -> bool {
        let has_set = |set: u32| self.epoll_sets[set].generation != 0 && self.epoll_sets[set].holders.contains(holder);
        let has_socket = |s: u32| self.sockets[s].kind != Kind::Free && self.sockets[s].holders.contains(holder);
        (0..self.epoll_sets.used()).any(has_set) || (0..self.sockets.used()).any(has_socket)
    }

    /// A process died: it lets go of every socket and epoll set. Its bells are forgotten with
    /// [`Engine::forget_bells`], by whoever knows which they were.
    pub fn release_process(&mut self, now: Instant, holder: ProcId) {
        for set in 0..self.epoll_sets.used() {
            self.release_set(set, holder);
        }
        for index in 0..self.sockets.used() {
            let socket = &mut self.sockets[index];
            if socket.kind != Kind::Free && socket.holders.remove(holder) && socket.holders.is_empty() {
                self.close_socket(now, index);
            }
        }
    }

    /// Nobody listens to these bells any more.
    pub fn forget_bells(&mut self, bells: u32) {
        for index in 0..self.sockets.used() {
            self.sockets[index].waiters &= !bells;
        }
        for set in 0..self.epoll_sets.used() {
            self.epoll_sets[set].waiters &= !bells;
        }
    }

    fn close_socket(&mut self, now: Instant, index: u32) {
        self.remove_items_of_socket(index);
        self.forget_owner(index);
        let socket = self.sockets[index];
        // Waiters of other threads find EBADF.
        self.state.wakeups |= socket.waiters;
        match socket.kind {
            Kind::Free => return,
            Kind::Listener => self.close_listener(now, index),
            Kind::Stream if socket.conn != NONE => {
                let linger = if socket.lingers && socket.linger_s == 0 { Linger::Reset } else { Linger::Default };
                self.orphan_connection(now, socket.conn, linger);
            }
            Kind::Stream => {}
            Kind::Datagram => self.close_mailbox(index),
        }
        self.drop_own(index);
        self.free_slot(index);
    }

    /// Rings the bell at any change of the socket's readiness, until [`Engine::unwait`]; a shared one once.
    pub fn wait_on(&mut self, s: SocketId, bell: u8) -> Result<(), Errno> {
        let index = self.slot(s)?;
        self.sockets[index].waiters |= 1 << bell;
        self.note_no_room(index);
        Ok(())
    }

    pub fn unwait(&mut self, s: SocketId, bell: u8) -> Result<(), Errno> {
        let index = self.slot(s)?;
        self.sockets[index].waiters &= !(1 << bell) | SHARED_BELLS;
        Ok(())
    }

    /// Something of these readiness bits is new: rings the bells of waiters, queues the items of epoll sets.
    #[inline]
    pub(crate) fn announce(&mut self, index: u32, bits: u32) {
        let socket = &mut self.sockets[index];
        self.state.wakeups |= socket.waiters;
        socket.waiters &= !SHARED_BELLS;
        if socket.items != NONE {
            self.announce_to_items(index, bits);
        }
    }

    pub(crate) fn announce_change(&mut self, index: u32) {
        self.announce(index, ANY);
    }

    /// Binds a connection to the socket that speaks for it.
    pub(crate) fn attach(&mut self, index: u32, conn: u32) {
        self.sockets[index].conn = conn;
        let link = &mut self.conns[conn].link;
        (link.socket, link.listener, link.queue, link.orphan) = (index, NONE, QUEUE_NONE, false);
    }

    /// The file status flag O_NONBLOCK, which dup and fork share.
    pub fn is_nonblocking(&self, s: SocketId) -> Result<bool, Errno> {
        Ok(self.sockets[self.slot(s)?].nonblocking)
    }

    pub fn set_nonblocking(&mut self, s: SocketId, on: bool) -> Result<(), Errno> {
        let index = self.slot(s)?;
        self.sockets[index].nonblocking = on;
        Ok(())
    }

    /// The family the socket was made with.
    pub fn family(&self, s: SocketId) -> Result<Family, Errno> {
        Ok(self.sockets[self.slot(s)?].family)
    }
}
