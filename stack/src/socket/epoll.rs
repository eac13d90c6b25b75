//! epoll in user space: whoever processes a packet makes the items of its socket ready, under the stack's lock.
//!
//! The kernel's rules (fs/eventpoll.c): an announcement queues the item if it asks for one of the announced bits;
//! collecting asks the socket for its real readiness and reports what was asked for; a level-triggered item then goes
//! to the back of the ready list, an edge-triggered one waits for the next announcement, a one-shot one is disabled
//! until it is modified; an exclusive one passes the announcement on only if nobody waits at its set.

use super::epoll_items::{FLAGS, Target};
use super::readiness::{ERR, ET, EXCLUSIVE, HUP, IN, ONESHOT, OUT, WAKEUP};
use super::{Errno, Holders, ProcId, SHARED_BELLS, SocketId};
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
    pub(super) items: u32,
    pub(super) ready: Queue,
    /// Items of other sets that watch this one.
    pub(super) watchers: u32,
}

/// What an item watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    Socket(SocketId),
    Set(SetId),
}

impl From<SocketId> for Watched {
    fn from(id: SocketId) -> Watched {
        Watched::Socket(id)
    }
}

/// What epoll_ctl was told of a member.
#[derive(Clone, Copy, Default, Debug)]
pub struct Registration {
    /// The descriptor number: one socket may be in a set under several (dup).
    pub key: u32,
    pub events: u32,
    pub data: u64,
    /// The process whose number that is.
    pub owner: ProcId,
    /// The kernel's set has it too.
    pub is_twin: bool,
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
            watchers: NONE,
        }
    }
}

impl SlabItem for EpollSet {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.free
    }
}

/// What may stand beside EPOLLEXCLUSIVE.
const EXCLUSIVE_OK: u32 = IN | OUT | ERR | HUP | WAKEUP | ET | EXCLUSIVE;
/// Longest chain of sets in sets. The kernel refuses longer ones before they get here.
pub(super) const NESTED_MAX: u32 = 8;

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
        while self.epoll_sets[index].watchers != NONE {
            self.remove_item(self.epoll_sets[index].watchers);
        }
        self.ring_set(index);
        self.epoll_sets[index].generation = 0;
        self.epoll_sets.remove(index);
    }

    pub(super) fn set_slot(&self, set: SetId) -> Result<u32, Errno> {
        let live = set.generation != 0
            && set.index < self.epoll_sets.used()
            && self.epoll_sets[set.index].generation == set.generation;
        if live { Ok(set.index) } else { Err(Errno::EBADF) }
    }

    fn target(&self, what: Watched) -> Result<Target, Errno> {
        Ok(match what {
            Watched::Socket(id) => Target { is_set: false, index: self.slot(id)? },
            Watched::Set(id) => Target { is_set: true, index: self.set_slot(id)? },
        })
    }

    /// epoll_ctl(EPOLL_CTL_ADD). `key` is the descriptor number.
    pub fn epoll_add(
        &mut self,
        set: SetId,
        what: impl Into<Watched>,
        key: u32,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        self.epoll_register(set, what.into(), &Registration { key, events, data, ..Registration::default() })
            .map(|_| ())
    }

    /// The same, in full; the twin's token, see `epoll_twins.rs`.
    pub fn epoll_register(&mut self, set: SetId, what: Watched, asked: &Registration) -> Result<u64, Errno> {
        let (set, target) = (self.set_slot(set)?, self.target(what)?);
        if asked.events & EXCLUSIVE != 0 && (asked.events & !EXCLUSIVE_OK != 0 || target.is_set) {
            return Err(Errno::EINVAL);
        }
        if self.find_item(set, target, asked.key).is_some() {
            return Err(Errno::EEXIST);
        }
        if target.is_set && self.set_depth_with(set, target.index) > NESTED_MAX {
            return Err(Errno::ELOOP);
        }
        let item = self.insert_item(set, target, asked).ok_or(Errno::ENOMEM)?;
        self.look_at_item(item);
        Ok(self.token_of(item))
    }

    /// epoll_ctl(EPOLL_CTL_MOD); the twin's next token.
    pub fn epoll_modify(
        &mut self,
        set: SetId,
        what: impl Into<Watched>,
        key: u32,
        events: u32,
        data: u64,
    ) -> Result<u64, Errno> {
        let (set, target) = (self.set_slot(set)?, self.target(what.into())?);
        if events & EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let index = self.find_item(set, target, key).ok_or(Errno::ENOENT)?;
        if !self.epoll_items[index].rearm(events, data) {
            return Err(Errno::EINVAL);
        }
        self.look_at_item(index);
        self.note_less_asked(target);
        Ok(self.token_of(index))
    }

    /// epoll_ctl(EPOLL_CTL_DEL).
    pub fn epoll_delete(&mut self, set: SetId, what: impl Into<Watched>, key: u32) -> Result<(), Errno> {
        let (set, target) = (self.set_slot(set)?, self.target(what.into())?);
        let item = self.find_item(set, target, key).ok_or(Errno::ENOENT)?;
        self.remove_item(item);
        self.note_less_asked(target);
        Ok(())
    }

    /// Process `owner` has closed its last descriptor of a socket: so what it added to sets goes.
    pub fn epoll_delete_all(&mut self, s: SocketId, owner: ProcId) -> Result<(), Errno> {
        let mut at = self.sockets[self.slot(s)?].items;
        while at != NONE {
            let item = self.epoll_items[at];
            if item.owner == owner {
                self.remove_item(at);
            }
            at = item.target_next;
        }
        Ok(())
    }

    /// One twin that `owner` added for a socket, removed: its half in the kernel's set is the caller's to deal with.
    pub fn epoll_take_twin(&mut self, s: SocketId, owner: ProcId) -> Result<Option<(SetId, Registration)>, Errno> {
        let mut at = self.sockets[self.slot(s)?].items;
        while at != NONE {
            let item = self.epoll_items[at];
            if item.owner == owner && item.is_twin() {
                self.remove_item(at);
                let generation = self.epoll_sets[item.set].generation;
                return Ok(Some((SetId { index: item.set, generation }, item.registration())));
            }
            at = item.target_next;
        }
        Ok(None)
    }

    /// epoll_wait() without waiting: reports ready items, oldest first; returns how many. A twin is reported by its token:
    /// [`Engine::epoll_settle`] comes next.
    pub fn epoll_collect(&mut self, set: SetId, out: &mut [EpollEvent]) -> Result<usize, Errno> {
        let set = self.set_slot(set)?;
        let mut n = 0;
        for _ in 0..self.epoll_sets[set].ready.len {
            if n == out.len() {
                break;
            }
            let index = self.epoll_sets[set].ready.head;
            let events = self.item_readiness(index);
            if events == 0 {
                self.unqueue_item(index);
                continue;
            }
            out[n] = EpollEvent { events, data: self.data_or_token(index) };
            n += 1;
            let item = &mut self.epoll_items[index];
            if item.events & ONESHOT != 0 {
                item.events &= FLAGS;
                self.unqueue_item(index);
            } else if item.events & ET != 0 {
                self.unqueue_item(index);
            } else if self.epoll_sets[set].ready.len > 1 {
                // To the back.
                self.unqueue_item(index);
                self.queue_item(index);
            }
        }
        Ok(n)
    }

    /// Whether epoll_wait() would report something: what makes the epoll descriptor itself readable.
    pub fn epoll_has_ready(&mut self, set: SetId) -> Result<bool, Errno> {
        let set = self.set_slot(set)?;
        Ok(self.has_ready(set, 0))
    }

    /// Rings the bell when the set has something to report, until [`Engine::epoll_unwait`]; a shared one once.
    /// Collect once more after this and before sleeping.
    pub fn epoll_wait_on(&mut self, set: SetId, bell: u8) -> Result<(), Errno> {
        let set = self.set_slot(set)?;
        self.epoll_sets[set].waiters |= 1 << bell;
        Ok(())
    }

    pub fn epoll_unwait(&mut self, set: SetId, bell: u8) -> Result<(), Errno> {
        let set = self.set_slot(set)?;
        self.epoll_sets[set].waiters &= !(1 << bell) | SHARED_BELLS;
        Ok(())
    }
}

#[cfg(test)]
#[path = "epoll_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "epoll_more_tests.rs"]
mod more_tests;
