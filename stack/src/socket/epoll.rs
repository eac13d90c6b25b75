//! epoll in user space: whoever processes a packet makes the items of its socket ready, under the stack's lock.
//!
//! The kernel's rules (fs/eventpoll.c): an announcement queues the item if it asks for one of the announced bits;
//! collecting asks the socket for its real readiness and reports what was asked for; a level-triggered item then goes
//! to the back of the ready list, an edge-triggered one waits for the next announcement, a one-shot one is disabled
//! until it is modified; an exclusive one passes the announcement on only if nobody waits at its set.

use super::readiness::{ERR, ET, EXCLUSIVE, HUP, IN, ONESHOT, OUT, WAKEUP};
use super::{Errno, Holders, ProcId, SocketId};
use crate::engine::{Engine, Queue};
use crate::slab::{NONE, SlabItem};

/// What epoll_wait reports: laid out as Linux's `struct epoll_event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// A set's name. A name that outlived its set is refused with EBADF.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct SetId {
    pub index: u32,
    pub generation: u32,
}

impl SetId {
    /// The name as one word, never 0 for a real set.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub const fn from_bits(bits: u64) -> SetId {
        SetId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// One epoll set.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EpollSet {
    free: u32,
    /// 0: the slot is free.
    pub(crate) generation: u32,
    pub(crate) holders: Holders,
    /// Bells of those who wait.
    pub(crate) waiters: u32,
    /// All its items; those that may be ready.
    items: u32,
    ready: Queue,
}

/// One socket in one set.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EpollItem {
    set: u32,
    socket: u32,
    /// The descriptor number it was added with: one socket may be in a set under several (dup).
    key: u32,
    /// What is asked for, and the flags. No readiness bit at all: disabled (one-shot, and shot).
    events: u32,
    socket_next: u32,
    socket_prev: u32,
    /// Also links free items.
    set_next: u32,
    set_prev: u32,
    ready_next: u32,
    ready_prev: u32,
    /// The application's word, in [halves]: a u64 would want padding beside it.
    data: [u32; 2],
    is_ready: bool,
    _pad: [u8; 3],
}

impl EpollSet {
    /// Nobody's set.
    pub(crate) fn empty() -> EpollSet {
        EpollSet {
            free: NONE,
            generation: 0,
            holders: Holders::default(),
            waiters: 0,
            items: NONE,
            ready: Queue::EMPTY,
        }
    }
}

impl EpollItem {
    /// An item of no set.
    pub(crate) fn empty() -> EpollItem {
        EpollItem {
            set: NONE,
            socket: NONE,
            key: 0,
            events: 0,
            socket_next: NONE,
            socket_prev: NONE,
            set_next: NONE,
            set_prev: NONE,
            ready_next: NONE,
            ready_prev: NONE,
            data: [0; 2],
            is_ready: false,
            _pad: [0; 3],
        }
    }
}

impl SlabItem for EpollSet {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.free
    }
}

impl SlabItem for EpollItem {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.set_next
    }
}

fn halves(data: u64) -> [u32; 2] {
    [data as u32, (data >> 32) as u32]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

const FLAGS: u32 = EXCLUSIVE | WAKEUP | ONESHOT | ET;
/// What may stand beside EPOLLEXCLUSIVE.
const EXCLUSIVE_OK: u32 = IN | OUT | ERR | HUP | WAKEUP | ET | EXCLUSIVE;

impl Engine<'_> {
    /// epoll_create().
    pub fn epoll_open(&mut self, holder: ProcId) -> Result<SetId, Errno> {
        let generation = self.next_generation();
        let set = EpollSet { generation, holders: Holders::of(holder), ..EpollSet::empty() };
        let index = self.epoll_sets.insert(set).ok_or(Errno::ENFILE)?;
        Ok(SetId { index, generation })
    }

    /// One more process holds the set (fork).
    pub fn epoll_hold(&mut self, set: SetId, holder: ProcId) -> Result<(), Errno> {
        let index = self.set_slot(set)?;
        self.epoll_sets[index].holders.insert(holder);
        Ok(())
    }

    /// A process lets go of the set; the last one's close ends it.
    pub fn epoll_close(&mut self, set: SetId, holder: ProcId) -> Result<(), Errno> {
        let index = self.set_slot(set)?;
        self.release_set(index, holder);
        Ok(())
    }

    pub(crate) fn release_set(&mut self, index: u32, holder: ProcId) {
        let set = &mut self.epoll_sets[index];
        if set.generation == 0 || !set.holders.remove(holder) || !set.holders.is_empty() {
            return;
        }
        while self.epoll_sets[index].items != NONE {
            self.remove_item(self.epoll_sets[index].items);
        }
        self.state.wakeups |= self.epoll_sets[index].waiters;
        self.epoll_sets[index].generation = 0;
        self.epoll_sets.remove(index);
    }

    fn set_slot(&self, set: SetId) -> Result<u32, Errno> {
        let live = set.generation != 0
            && set.index < self.epoll_sets.used()
            && self.epoll_sets[set.index].generation == set.generation;
        if live { Ok(set.index) } else { Err(Errno::EBADF) }
    }

    /// epoll_ctl(EPOLL_CTL_ADD). `key` is the descriptor number.
    pub fn epoll_add(&mut self, set: SetId, s: SocketId, key: u32, events: u32, data: u64) -> Result<(), Errno> {
        let (set, socket) = (self.set_slot(set)?, self.slot(s)?);
        if events & EXCLUSIVE != 0 && events & !EXCLUSIVE_OK != 0 {
            return Err(Errno::EINVAL);
        }
        if self.find_item(set, socket, key).is_some() {
            return Err(Errno::EEXIST);
        }
        let (socket_next, set_next) = (self.sockets[socket].items, self.epoll_sets[set].items);
        let events = events | ERR | HUP;
        let item =
            EpollItem { set, socket, key, events, socket_next, set_next, data: halves(data), ..EpollItem::empty() };
        let item = self.epoll_items.insert(item).ok_or(Errno::ENOMEM)?;
        if socket_next != NONE {
            self.epoll_items[socket_next].socket_prev = item;
        }
        if set_next != NONE {
            self.epoll_items[set_next].set_prev = item;
        }
        self.sockets[socket].items = item;
        self.epoll_sets[set].items = item;
        self.look_at_item(item);
        Ok(())
    }

    /// epoll_ctl(EPOLL_CTL_MOD).
    pub fn epoll_modify(&mut self, set: SetId, s: SocketId, key: u32, events: u32, data: u64) -> Result<(), Errno> {
        let (set, socket) = (self.set_slot(set)?, self.slot(s)?);
        let index = self.find_item(set, socket, key).ok_or(Errno::ENOENT)?;
        let item = &mut self.epoll_items[index];
        if (events | item.events) & EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        (item.events, item.data) = (events | ERR | HUP, halves(data));
        self.look_at_item(index);
        Ok(())
    }

    /// epoll_ctl(EPOLL_CTL_DEL).
    pub fn epoll_delete(&mut self, set: SetId, s: SocketId, key: u32) -> Result<(), Errno> {
        let (set, socket) = (self.set_slot(set)?, self.slot(s)?);
        let item = self.find_item(set, socket, key).ok_or(Errno::ENOENT)?;
        self.remove_item(item);
        Ok(())
    }

    /// The descriptor `key` of a socket is gone: so are its items, in all sets.
    pub fn epoll_delete_all(&mut self, s: SocketId, key: u32) -> Result<(), Errno> {
        let mut item = self.sockets[self.slot(s)?].items;
        while item != NONE {
            let EpollItem { socket_next, key: its_key, .. } = self.epoll_items[item];
            if its_key == key {
                self.remove_item(item);
            }
            item = socket_next;
        }
        Ok(())
    }

    /// epoll_wait() without waiting: reports ready items, oldest first; returns how many.
    pub fn epoll_collect(&mut self, set: SetId, out: &mut [EpollEvent]) -> Result<usize, Errno> {
        let set = self.set_slot(set)?;
        let mut n = 0;
        for _ in 0..self.epoll_sets[set].ready.len {
            if n == out.len() {
                break;
            }
            let index = self.epoll_sets[set].ready.head;
            self.unqueue_item(index);
            let revents = self.item_readiness(index);
            if revents == 0 {
                continue;
            }
            let item = &mut self.epoll_items[index];
            out[n] = EpollEvent { events: revents, data: whole(item.data) };
            n += 1;
            if item.events & ONESHOT != 0 {
                item.events &= FLAGS;
            } else if item.events & ET == 0 {
                self.queue_item(index);
            }
        }
        Ok(n)
    }

    /// Whether epoll_wait() would report something: what makes the epoll descriptor itself readable.
    pub fn epoll_has_ready(&mut self, set: SetId) -> Result<bool, Errno> {
        let set = self.set_slot(set)?;
        while self.epoll_sets[set].ready.head != NONE {
            let item = self.epoll_sets[set].ready.head;
            if self.item_readiness(item) != 0 {
                return Ok(true);
            }
            self.unqueue_item(item);
        }
        Ok(false)
    }

    /// Rings the bell when the set has something to report, until [`Engine::epoll_unwait`]. Collect once more after
    /// this and before sleeping.
    pub fn epoll_wait_on(&mut self, set: SetId, bell: u8) -> Result<(), Errno> {
        let set = self.set_slot(set)?;
        self.epoll_sets[set].waiters |= 1 << bell;
        Ok(())
    }

    pub fn epoll_unwait(&mut self, set: SetId, bell: u8) -> Result<(), Errno> {
        let set = self.set_slot(set)?;
        self.epoll_sets[set].waiters &= !(1 << bell);
        Ok(())
    }

    /// What the item asks for and the socket has. Whoever asks for room and finds none is told when there is some.
    fn item_readiness(&mut self, index: u32) -> u32 {
        let EpollItem { socket, events, .. } = self.epoll_items[index];
        let asked = events & !FLAGS;
        if asked & OUT != 0 {
            self.note_no_room(socket);
        }
        if asked == 0 { 0 } else { self.readiness_of(socket) & asked }
    }

    /// After ADD and MOD: what is ready already counts.
    fn look_at_item(&mut self, index: u32) {
        if self.item_readiness(index) != 0 {
            self.queue_item(index);
            let set = self.epoll_items[index].set;
            self.state.wakeups |= self.epoll_sets[set].waiters;
        }
    }

    /// Something new on a socket: the items that ask for it become ready. Of the exclusive ones, those up to the first
    /// whose set somebody waits at.
    pub(crate) fn announce_to_items(&mut self, socket: u32, bits: u32) {
        let mut taken = false;
        let mut at = self.sockets[socket].items;
        while at != NONE {
            let EpollItem { set, events, socket_next, .. } = self.epoll_items[at];
            let exclusive = events & EXCLUSIVE != 0;
            if events & !FLAGS & bits != 0 && !(exclusive && taken) {
                self.queue_item(at);
                let waiters = self.epoll_sets[set].waiters;
                taken |= exclusive && waiters & !self.state.wakeups != 0;
                self.state.wakeups |= waiters;
            }
            at = socket_next;
        }
    }

    fn find_item(&self, set: u32, socket: u32, key: u32) -> Option<u32> {
        let mut at = self.sockets[socket].items;
        while at != NONE {
            let item = &self.epoll_items[at];
            if item.set == set && item.key == key {
                return Some(at);
            }
            at = item.socket_next;
        }
        None
    }

    fn queue_item(&mut self, index: u32) {
        let item = &mut self.epoll_items[index];
        if core::mem::replace(&mut item.is_ready, true) {
            return;
        }
        let ready = &mut self.epoll_sets[item.set].ready;
        (item.ready_prev, item.ready_next) = (ready.tail, NONE);
        let before = core::mem::replace(&mut ready.tail, index);
        ready.len += 1;
        match before {
            NONE => ready.head = index,
            before => self.epoll_items[before].ready_next = index,
        }
    }

    fn unqueue_item(&mut self, index: u32) {
        let item = &mut self.epoll_items[index];
        if !core::mem::replace(&mut item.is_ready, false) {
            return;
        }
        let (set, prev, next) = (item.set, item.ready_prev, item.ready_next);
        let ready = &mut self.epoll_sets[set].ready;
        ready.len -= 1;
        match prev {
            NONE => ready.head = next,
            prev => self.epoll_items[prev].ready_next = next,
        }
        match next {
            NONE => ready.tail = prev,
            next => self.epoll_items[next].ready_prev = prev,
        }
    }

    fn remove_item(&mut self, index: u32) {
        self.unqueue_item(index);
        let EpollItem { set, socket, socket_next, socket_prev, set_next, set_prev, .. } = self.epoll_items[index];
        match socket_prev {
            NONE => self.sockets[socket].items = socket_next,
            prev => self.epoll_items[prev].socket_next = socket_next,
        }
        if socket_next != NONE {
            self.epoll_items[socket_next].socket_prev = socket_prev;
        }
        match set_prev {
            NONE => self.epoll_sets[set].items = set_next,
            prev => self.epoll_items[prev].set_next = set_next,
        }
        if set_next != NONE {
            self.epoll_items[set_next].set_prev = set_prev;
        }
        self.epoll_items.remove(index);
    }

    pub(crate) fn remove_items_of_socket(&mut self, socket: u32) {
        while self.sockets[socket].items != NONE {
            self.remove_item(self.sockets[socket].items);
        }
    }
}

#[cfg(test)]
#[path = "epoll_tests.rs"]
mod tests;
