//! Items that the kernel's set has as well: a listener and a datagram socket are in two places at once, and so may a set
//! be. To the application they are one member: reported once in a wait, disarmed once.
//!
//! The kernel's half carries a *token* in place of the application's word: it names the item and how often it was armed, so
//! that what the kernel reports can be held against the item under the stack's lock. The item decides: what was shot, was
//! armed anew or is gone meanwhile is not reported.

use super::epoll_items::{ARMING, FLAGS};
use super::readiness::{ET, ONESHOT};
use super::{EpollEvent, Errno, SetId};
use crate::engine::Engine;

/// The upper 36 bits of a token: no pointer, and no number that a program would come to by counting.
const TOKEN: u64 = 0x9e6d_5b1f_8000_0000;
const TOKEN_BITS: u32 = 28;
/// Reported by the engine, not by the kernel.
const COLLECTED: u64 = 1;
const INDEX_SHIFT: u32 = 4;

/// Whether an event's word is a token.
pub fn is_token(data: u64) -> bool {
    data >> TOKEN_BITS == TOKEN >> TOKEN_BITS
}

/// A token that no item has.
pub const fn token_of_nothing() -> u64 {
    TOKEN | ((1 << TOKEN_BITS) - 1) & !COLLECTED
}

impl Engine<'_> {
    /// The word that the kernel's half of an item is to carry.
    pub(super) fn token_of(&self, index: u32) -> u64 {
        TOKEN | u64::from(index) << INDEX_SHIFT | u64::from(self.epoll_items[index].arming()) << 1
    }

    pub(super) fn data_or_token(&self, index: u32) -> u64 {
        let item = &self.epoll_items[index];
        if item.is_twin() { self.token_of(index) | COLLECTED } else { item.data() }
    }

    /// After [`Engine::epoll_collect`] and the kernel's own epoll_wait, in any order: tokens become what the application
    /// sees. Returns how many of `events` are left, moved to the front.
    pub fn epoll_settle(&mut self, set: SetId, events: &mut [EpollEvent]) -> Result<usize, Errno> {
        let set = self.set_slot(set)?;
        for at in 0..events.len() {
            let EpollEvent { events: bits, data: token } = events[at];
            if is_token(token) && token & COLLECTED == 0 {
                let twin = events.iter().position(|e| { e.data } == token | COLLECTED);
                events[at].events = 0;
                match twin {
                    Some(twin) => events[twin].events |= bits,
                    None => events[at].events = self.claim(set, token, bits),
                }
            }
        }
        let mut left = 0;
        for at in 0..events.len() {
            let EpollEvent { events: bits, data } = events[at];
            let data =
                if is_token(data) { self.named(set, data).map(|i| self.epoll_items[i].data()) } else { Some(data) };
            if let Some(data) = data.filter(|_| bits != 0) {
                events[left] = EpollEvent { events: bits, data };
                left += 1;
            }
        }
        Ok(left)
    }

    /// What to report of an item that the kernel alone has reported; 0: nothing. It is disarmed as if it had been
    /// collected, and what the engine knows of it goes with it.
    fn claim(&mut self, set: u32, token: u64, bits: u32) -> u32 {
        let Some(index) = self.named(set, token) else { return 0 };
        let asked = self.epoll_items[index].asked();
        if asked == 0 {
            return 0;
        }
        let ready = bits & asked | self.item_readiness(index);
        let item = &mut self.epoll_items[index];
        if item.events & ONESHOT != 0 {
            item.events &= FLAGS;
            self.unqueue_item(index);
        } else if item.events & ET != 0 {
            self.unqueue_item(index);
        }
        ready
    }

    /// The item that a token names, if it has not been armed anew since.
    fn named(&self, set: u32, token: u64) -> Option<u32> {
        let index = (token & ((1 << TOKEN_BITS) - 1)) as u32 >> INDEX_SHIFT;
        let arming = (token >> 1) as u8 & ARMING;
        let is_live = index < self.epoll_items.used() && {
            let item = &self.epoll_items[index];
            item.set == set && item.is_twin() && item.arming() == arming
        };
        is_live.then_some(index)
    }
}
