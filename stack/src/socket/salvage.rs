//! What is saved when the owner of a stack's lock died inside.
//!
//! Whatever it was writing may be half-written; so no list is followed, no count believed, and no connection goes on: its peers
//! get a RST (`engine/farewell.rs`). But the stack may have other users: a server's children share their parent's. They know
//! their sockets and epoll sets by number and generation, and those stay good: each slot is looked at by itself, and all that
//! leads from one to another is made anew.
//! - A listener listens on; who waited there is reset, as its peer hears.
//! - A stream that had a connection reports ECONNRESET.
//! - A datagram socket keeps its address, and loses what waited.
//! - An epoll set keeps its members, if the links beside them agree that they are members: a slot that was just being
//!   filled or cleared is nobody's. All who wait are woken, to look again.

use super::epoll_items::EpollItem;
use super::table::{Kind, Progress, Socket};
use super::{Errno, Unconnected};
use crate::engine::{Engine, Queue};
use crate::slab::NONE;
use crate::tcp::Options;

/// `listener_next` of a record that no socket has.
const UNCLAIMED: u32 = NONE - 1;

impl Engine<'_> {
    /// Does it. Frames are counted anew afterwards, with `frames_mut().rebuild()`.
    pub fn salvage(&mut self) {
        // Whoever did it before may have died over it: then the links are of its making.
        if !self.state.is_salvaging {
            self.drop_doubtful_items();
        }
        self.state.is_salvaging = true;
        self.claim_records();
        self.drop_dead_sets();
        self.conns.reset();
        self.time_waits.reset();
        self.flow_table.fill(0);
        self.frames.forget_free();
        self.steer_all_away();
        self.state.forget_everything();
        self.relink_sockets();
        self.relink_items();
        self.state.is_salvaging = false;
        self.state.counters.start_overs += 1;
    }

    /// Before anything is changed: the slots of items that are not wholly in their set's list are free.
    fn drop_doubtful_items(&mut self) {
        for index in 0..self.epoll_items.slots() {
            if !self.is_member(index) {
                self.epoll_items[index].set = NONE;
            }
        }
    }

    fn is_member(&self, index: u32) -> bool {
        let item = &self.epoll_items[index];
        if item.set >= self.epoll_sets.slots() {
            return false;
        }
        let before = match item.set_prev {
            NONE => self.epoll_sets[item.set].items,
            prev if prev < self.epoll_items.slots() => self.epoll_items[prev].set_next,
            _ => return false,
        };
        before == index
    }

    /// Which sockets are somebody's, and which records are theirs; the slots of all others are free.
    fn claim_records(&mut self) {
        for record in 0..self.unconnected.slots() {
            self.unconnected[record].listener_next = UNCLAIMED;
        }
        for index in 0..self.sockets.slots() {
            let Socket { kind, holders, unconnected, .. } = self.sockets[index];
            let is_held = kind != Kind::Free && !holders.is_empty();
            let may_claim = unconnected < self.unconnected.slots();
            let claims = is_held && may_claim && self.unconnected[unconnected].listener_next == UNCLAIMED;
            let socket = &mut self.sockets[index];
            if claims {
                self.unconnected[unconnected].listener_next = NONE;
            } else if is_held && kind == Kind::Stream {
                socket.unconnected = NONE;
            } else {
                (socket.kind, socket.generation) = (Kind::Free, 0);
            }
        }
        self.sockets.rebuild(|socket| socket.kind != Kind::Free);
        self.unconnected.rebuild(|record| record.listener_next != UNCLAIMED);
    }

    fn drop_dead_sets(&mut self) {
        for index in 0..self.epoll_sets.slots() {
            let set = &mut self.epoll_sets[index];
            if set.holders.is_empty() {
                set.generation = 0;
            }
        }
        self.epoll_sets.rebuild(|set| set.generation != 0);
    }

    /// Each socket as it is without connections, where it is looked for.
    fn relink_sockets(&mut self) {
        for index in 0..self.sockets.slots() {
            let kind = self.sockets[index].kind;
            if kind == Kind::Free {
                continue;
            }
            self.state.wakeups |= self.sockets[index].waiters;
            self.sockets[index].items = NONE;
            match kind {
                Kind::Free => {}
                Kind::Stream => self.lose_connection(index),
                Kind::Listener => {
                    let own = self.own_mut(index);
                    (own.syn_queue, own.accept_queue) = (Queue::EMPTY, Queue::EMPTY);
                    self.link_listener(index);
                }
                Kind::Datagram => {
                    self.own_mut(index).accept_queue = Queue::EMPTY;
                    if self.own(index).local.port != 0 {
                        self.link_mailbox(index);
                    }
                }
            }
        }
    }

    fn lose_connection(&mut self, index: u32) {
        let record = self.sockets[index].unconnected;
        let had_one = self.sockets[index].conn != NONE || record == NONE;
        if record == NONE {
            let options = Options::new(&self.state.tunables);
            self.sockets[index].unconnected = self.unconnected.insert(Unconnected::new(options)).unwrap_or(NONE);
        }
        let socket = &mut self.sockets[index];
        if had_one {
            socket.error = Errno::ECONNRESET;
        }
        (socket.conn, socket.progress, socket.wants_room) = (NONE, Progress::Unconnected, false);
    }

    /// All that was in a set is looked at again by whoever waits there.
    fn relink_items(&mut self) {
        for index in 0..self.epoll_sets.slots() {
            let set = &mut self.epoll_sets[index];
            (set.items, set.ready, set.watchers) = (NONE, Queue::EMPTY, NONE);
            if set.generation != 0 {
                self.state.wakeups |= set.waiters;
            }
        }
        for index in 0..self.epoll_items.slots() {
            let item = self.epoll_items[index];
            if !self.is_live_set(item.set) || !self.is_live_target(&item) {
                self.epoll_items[index].set = NONE;
            }
        }
        self.epoll_items.rebuild(|item| item.set != NONE);
        for index in 0..self.epoll_items.slots() {
            let item = &mut self.epoll_items[index];
            if item.set != NONE {
                item.is_ready = false;
                (item.ready_prev, item.ready_next) = (NONE, NONE);
                self.link_item(index);
                self.queue_item(index);
            }
        }
    }

    fn is_live_set(&self, set: u32) -> bool {
        set < self.epoll_sets.slots() && self.epoll_sets[set].generation != 0
    }

    fn is_live_target(&self, item: &EpollItem) -> bool {
        let target = item.target();
        match target.is_set {
            true => self.is_live_set(target.index),
            false => target.index < self.sockets.slots() && self.sockets[target.index].kind != Kind::Free,
        }
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
