//! The items of epoll sets: which lists they are in, and how what happens to a socket makes them ready.
//!
//! An item watches a socket or another set. It is in three lists: those who watch the same (`target_*`), the items of its
//! set (`set_*`), and while it may be ready its set's ready list (`ready_*`).

use super::ProcId;
use super::SHARED_BELLS;
use super::epoll::{NESTED_MAX, Registration};
use super::readiness::{ERR, ET, EXCLUSIVE, HUP, IN, ONESHOT, RDNORM, ROOM_CAME, WAKEUP};
use crate::engine::Engine;
use crate::slab::{NONE, SlabItem};
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// One socket, or one set, in one set.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EpollItem {
    pub(super) set: u32,
    /// What it watches: index of a socket, or of a set.
    pub(super) target: u32,
    /// The descriptor number it was added with: one socket may be in a set under several (dup).
    key: u32,
    /// What is asked for, and the flags. No readiness bit at all: disabled (one-shot, and shot).
    pub(super) events: u32,
    pub(super) target_next: u32,
    pub(super) target_prev: u32,
    /// Also links free items.
    pub(super) set_next: u32,
    pub(super) set_prev: u32,
    pub(super) ready_next: u32,
    pub(super) ready_prev: u32,
    /// The application's word, in [halves]: a u64 would want padding beside it.
    data: [u32; 2],
    pub(super) is_ready: bool,
    /// [`NESTED`], [`TWIN`], and in [`ARMING`] how often it was armed.
    state: u8,
    /// The process that added it.
    pub(super) owner: ProcId,
}

/// It watches a set.
const NESTED: u8 = 1 << 7;
/// The kernel's set has it too.
const TWIN: u8 = 1 << 6;
/// Counts ADD and MOD.
pub(super) const ARMING: u8 = 7;

/// Flags of epoll_ctl, which are no readiness.
pub(super) const FLAGS: u32 = EXCLUSIVE | WAKEUP | ONESHOT | ET;

/// What an item watches, by its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) is_set: bool,
    pub(super) index: u32,
}

impl EpollItem {
    /// An item of no set.
    pub(crate) fn empty() -> EpollItem {
        EpollItem {
            set: NONE,
            target: NONE,
            key: 0,
            events: 0,
            target_next: NONE,
            target_prev: NONE,
            set_next: NONE,
            set_prev: NONE,
            ready_next: NONE,
            ready_prev: NONE,
            data: [0; 2],
            is_ready: false,
            state: 0,
            owner: 0,
        }
    }

    pub(super) fn target(&self) -> Target {
        Target { is_set: self.state & NESTED != 0, index: self.target }
    }

    pub(super) fn is_twin(&self) -> bool {
        self.state & TWIN != 0
    }

    pub(super) fn arming(&self) -> u8 {
        self.state & ARMING
    }

    /// What is asked for; nothing when it is disabled.
    pub(super) fn asked(&self) -> u32 {
        self.events & !FLAGS
    }

    pub(super) fn data(&self) -> u64 {
        u64::from(self.data[1]) << 32 | u64::from(self.data[0])
    }

    /// What epoll_ctl was told.
    pub(super) fn registration(&self) -> Registration {
        let (events, data) = (self.events, self.data());
        Registration { key: self.key, events, data, owner: self.owner, is_twin: self.is_twin() }
    }

    /// EPOLL_CTL_MOD; false for an exclusive item, which cannot be modified.
    pub(super) fn rearm(&mut self, events: u32, data: u64) -> bool {
        if self.events & EXCLUSIVE != 0 {
            return false;
        }
        (self.events, self.data) = (events | ERR | HUP, halves(data));
        self.state = self.state & !ARMING | (self.state + 1) & ARMING;
        true
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

impl Engine<'_> {
    /// The head of the list of those who watch `target`.
    fn watchers(&mut self, target: Target) -> &mut u32 {
        match target.is_set {
            true => &mut self.epoll_sets[target.index].watchers,
            false => &mut self.sockets[target.index].items,
        }
    }

    /// A new item; `None` when there is no room.
    pub(super) fn insert_item(&mut self, set: u32, target: Target, asked: &Registration) -> Option<u32> {
        let nested = if target.is_set { NESTED } else { 0 };
        let item = self.epoll_items.insert(EpollItem {
            set,
            target: target.index,
            key: asked.key,
            events: asked.events | ERR | HUP,
            data: halves(asked.data),
            state: nested | if asked.is_twin { TWIN } else { 0 },
            owner: asked.owner,
            ..EpollItem::empty()
        })?;
        self.link_item(item);
        Some(item)
    }

    /// Puts an item into the lists of its set and of what it watches. In an order by which whoever finds it half-done can tell the
    /// set's members (`salvage.rs`): what leads to one agrees with what leads back.
    pub(super) fn link_item(&mut self, item: u32) {
        let EpollItem { set, events, .. } = self.epoll_items[item];
        let next = self.epoll_sets[set].items;
        (self.epoll_items[item].set_prev, self.epoll_items[item].set_next) = (NONE, next);
        compiler_fence(SeqCst);
        if next != NONE {
            self.epoll_items[next].set_prev = item;
        }
        compiler_fence(SeqCst);
        self.epoll_sets[set].items = item;
        self.link_watcher(self.epoll_items[item].target(), item, events & EXCLUSIVE != 0);
    }

    /// Exclusive items come last and in their order, so that the first of them has the first turn; others come first.
    fn link_watcher(&mut self, target: Target, item: u32, is_last: bool) {
        let (mut prev, mut next) = (NONE, *self.watchers(target));
        while is_last && next != NONE {
            (prev, next) = (next, self.epoll_items[next].target_next);
        }
        (self.epoll_items[item].target_prev, self.epoll_items[item].target_next) = (prev, next);
        match prev {
            NONE => *self.watchers(target) = item,
            prev => self.epoll_items[prev].target_next = item,
        }
        if next != NONE {
            self.epoll_items[next].target_prev = item;
        }
    }

    pub(super) fn find_item(&mut self, set: u32, target: Target, key: u32) -> Option<u32> {
        let mut at = *self.watchers(target);
        while at != NONE {
            let item = &self.epoll_items[at];
            if item.set == set && item.key == key {
                return Some(at);
            }
            at = item.target_next;
        }
        None
    }

    pub(super) fn remove_item(&mut self, index: u32) {
        self.unqueue_item(index);
        let item = self.epoll_items[index];
        match item.target_prev {
            NONE => *self.watchers(item.target()) = item.target_next,
            prev => self.epoll_items[prev].target_next = item.target_next,
        }
        if item.target_next != NONE {
            self.epoll_items[item.target_next].target_prev = item.target_prev;
        }
        match item.set_prev {
            NONE => self.epoll_sets[item.set].items = item.set_next,
            prev => self.epoll_items[prev].set_next = item.set_next,
        }
        compiler_fence(SeqCst);
        if item.set_next != NONE {
            self.epoll_items[item.set_next].set_prev = item.set_prev;
        }
        self.epoll_items[index].set = NONE;
        self.epoll_items.remove(index);
    }

    pub(crate) fn remove_items_of_socket(&mut self, socket: u32) {
        while self.sockets[socket].items != NONE {
            self.remove_item(self.sockets[socket].items);
        }
    }

    pub(super) fn queue_item(&mut self, index: u32) {
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

    pub(super) fn unqueue_item(&mut self, index: u32) {
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

    /// What the item asks for and its target has. Whoever asks for room and finds none is told when there is some.
    pub(super) fn item_readiness(&mut self, index: u32) -> u32 {
        self.item_readiness_at(index, 0)
    }

    fn item_readiness_at(&mut self, index: u32, depth: u32) -> u32 {
        let item = self.epoll_items[index];
        let asked = item.asked();
        if asked == 0 {
            return 0;
        }
        if item.target().is_set {
            return if self.has_ready(item.target, depth + 1) { (IN | RDNORM) & asked } else { 0 };
        }
        if asked & ROOM_CAME != 0 {
            self.note_no_room(item.target);
        }
        self.readiness_of(item.target, asked) & asked
    }

    /// Whether an item of the set is ready; those that are not leave the ready list.
    pub(super) fn has_ready(&mut self, set: u32, depth: u32) -> bool {
        if depth > NESTED_MAX {
            return false;
        }
        while self.epoll_sets[set].ready.head != NONE {
            let item = self.epoll_sets[set].ready.head;
            if self.item_readiness_at(item, depth) != 0 {
                return true;
            }
            self.unqueue_item(item);
        }
        false
    }

    /// After ADD and MOD: what is ready already counts.
    pub(super) fn look_at_item(&mut self, index: u32) {
        if self.item_readiness(index) != 0 {
            self.make_ready(index, 0);
        }
    }

    /// Rings the bells of those who wait at the set.
    pub(super) fn ring_set(&mut self, set: u32) {
        let set = &mut self.epoll_sets[set];
        self.state.wakeups |= set.waiters;
        set.waiters &= !SHARED_BELLS;
    }

    /// Queues an item, rings for it, and tells the sets that its set is in.
    fn make_ready(&mut self, index: u32, depth: u32) {
        self.queue_item(index);
        let set = self.epoll_items[index].set;
        self.ring_set(set);
        let mut at = self.epoll_sets[set].watchers;
        while at != NONE && depth < NESTED_MAX {
            if self.epoll_items[at].asked() & (IN | RDNORM) != 0 {
                self.make_ready(at, depth + 1);
            }
            at = self.epoll_items[at].target_next;
        }
    }

    /// Something new on a socket: the items that ask for it become ready. Of the exclusive ones, those up to the first
    /// whose set somebody waits at by a bell of his own: of a shared one nobody knows whether he still does.
    pub(crate) fn announce_to_items(&mut self, socket: u32, bits: u32) {
        let mut taken = false;
        let mut at = self.sockets[socket].items;
        while at != NONE {
            let item = self.epoll_items[at];
            let is_exclusive = item.events & EXCLUSIVE != 0;
            if item.asked() & bits != 0 && !(is_exclusive && taken) {
                let waiters = self.epoll_sets[item.set].waiters & !SHARED_BELLS;
                taken |= is_exclusive && waiters & !self.state.wakeups != 0;
                self.make_ready(at, 0);
            }
            at = item.target_next;
        }
    }

    /// How long the longest chain of sets would be with `inner` in `outer`.
    pub(super) fn set_depth_with(&self, outer: u32, inner: u32) -> u32 {
        self.depth_above(outer, 0) + self.depth_below(inner, 0)
    }

    fn depth_above(&self, set: u32, depth: u32) -> u32 {
        let mut longest = 0;
        let mut at = self.epoll_sets[set].watchers;
        while at != NONE && depth <= NESTED_MAX {
            longest = longest.max(self.depth_above(self.epoll_items[at].set, depth + 1));
            at = self.epoll_items[at].target_next;
        }
        1 + longest
    }

    fn depth_below(&self, set: u32, depth: u32) -> u32 {
        let mut longest = 0;
        let mut at = self.epoll_sets[set].items;
        while at != NONE && depth <= NESTED_MAX {
            let item = &self.epoll_items[at];
            if item.target().is_set {
                longest = longest.max(self.depth_below(item.target, depth + 1));
            }
            at = item.set_next;
        }
        1 + longest
    }
}
