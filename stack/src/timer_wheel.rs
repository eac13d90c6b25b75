//! Deadlines of many connections: a hierarchical wheel of intrusive lists.
//!
//! The wheel is lazy. An entry stands where its connection's deadline was when the entry was made; a deadline that
//! moves later leaves it there. When an entry comes due it is only a candidate: its owner compares the real deadline
//! and puts it back if that lies ahead. So moving a deadline later, which every segment does, costs one comparison,
//! and an entry of a coarse level needs no cascading: it comes due at the start of its slot and is put back finer.
//!
//! A tick is 1.024 ms. An entry never comes due before the tick after its deadline, so what is due is due.

use crate::slab::NONE;
use crate::tcp::Links;
use crate::time::Instant;

const TICK_SHIFT: u32 = 10;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 5;
/// Ticks of one turn: 12 days. An entry comes due within half of that, and is put back if that was too early.
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS as u32);

/// Where the wheel finds the links of an entry.
pub trait Nodes {
    fn links(&mut self, index: u32) -> &mut Links;
}

/// The wheel. Zeroed memory is not a wheel: call [`TimerWheel::clear`].
#[derive(Debug)]
#[repr(C)]
pub struct TimerWheel {
    /// Every tick before this one has been served.
    tick: u64,
    /// Entries in the wheel.
    count: u32,
    /// Some of what was due at `tick` may still be in its slots.
    is_draining: bool,
    _pad: [u8; 3],
    /// A bit per slot that holds something.
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
}

impl Default for TimerWheel {
    fn default() -> Self {
        TimerWheel {
            tick: 0,
            count: 0,
            is_draining: false,
            _pad: [0; 3],
            occupied: [0; LEVELS],
            heads: [[NONE; SLOTS]; LEVELS],
        }
    }
}

impl TimerWheel {
    pub fn clear(&mut self) {
        *self = TimerWheel::default();
    }

    /// Entries in the wheel.
    pub fn len(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes sure that `index` comes due at `deadline` or before.
    #[inline]
    pub fn arm(&mut self, nodes: &mut impl Nodes, index: u32, deadline: Instant) {
        if !self.knows(nodes.links(index), deadline) {
            self.rearm(nodes, index, deadline);
        }
    }

    #[cold]
    #[inline(never)]
    fn rearm(&mut self, nodes: &mut impl Nodes, index: u32, deadline: Instant) {
        if nodes.links(index).wheel_slot != Links::NO_SLOT {
            self.disarm(nodes, index);
        }
        self.insert(nodes, index, self.tick_of(deadline));
    }

    /// Whether the entry of these links comes due at `deadline` or before.
    #[inline]
    pub fn knows(&self, links: &Links, deadline: Instant) -> bool {
        // No two ticks of entries are farther apart than the span, so their low halves tell which is first.
        let later_by = (self.tick_of(deadline) as u32).wrapping_sub(links.wheel_tick);
        links.wheel_slot != Links::NO_SLOT && later_by as i32 >= 0
    }

    /// The tick after the deadline: when it is served, the deadline has passed.
    #[inline]
    fn tick_of(&self, deadline: Instant) -> u64 {
        ((deadline.micros() >> TICK_SHIFT) + 1).clamp(self.tick, self.tick + SPAN / 2)
    }

    fn insert(&mut self, nodes: &mut impl Nodes, index: u32, tick: u64) {
        let (level, slot) = self.place(tick);
        let head = core::mem::replace(&mut self.heads[level][slot], index);
        if head != NONE {
            nodes.links(head).wheel_prev = index;
        }
        let links = nodes.links(index);
        links.wheel_prev = NONE;
        links.wheel_next = head;
        (links.wheel_slot, links.wheel_tick) = ((level * SLOTS + slot) as u16, tick as u32);
        self.occupied[level] |= 1 << slot;
        self.count += 1;
    }

    /// The level is the highest digit (of six bits) in which `tick` differs from now; the slot is that digit.
    fn place(&self, tick: u64) -> (usize, usize) {
        let differing = tick ^ self.tick;
        let level = match differing {
            0 => 0,
            d => ((63 - d.leading_zeros()) / SLOT_BITS) as usize,
        };
        // A carry out of the top digit: the entry waits in the top level, in the next turn.
        let level = level.min(LEVELS - 1);
        (level, (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS)
    }

    /// Takes `index` out, wherever it is.
    pub fn disarm(&mut self, nodes: &mut impl Nodes, index: u32) {
        let links = nodes.links(index);
        let (prev, next, place) = (links.wheel_prev, links.wheel_next, links.wheel_slot);
        if place == Links::NO_SLOT {
            return;
        }
        (links.wheel_prev, links.wheel_next, links.wheel_slot) = (NONE, NONE, Links::NO_SLOT);
        if next != NONE {
            nodes.links(next).wheel_prev = prev;
        }
        if prev != NONE {
            nodes.links(prev).wheel_next = next;
        } else {
            let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
            self.heads[level][slot] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        }
        self.count -= 1;
    }

    /// When the wheel wants to be served next; at the latest when the first real deadline is due.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.count == 0 {
            return None;
        }
        self.next_tick().map(|tick| Instant::from_micros(tick << TICK_SHIFT))
    }

    /// The first tick at which a slot starts that holds something. A finer level always comes first.
    fn next_tick(&self) -> Option<u64> {
        let mut first = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let here = self.tick >> shift;
            let ahead = self.occupied[level].rotate_right(here as u32 % SLOTS as u32);
            // The present slot of a coarse level is empty, unless it is just being drained.
            let start = (here + u64::from(ahead.trailing_zeros())) << shift;
            let tick = start.max(self.tick);
            first = Some(first.map_or(tick, |f: u64| f.min(tick)));
        }
        first
    }

    /// Takes out one entry whose slot has come by `now`; `None` when there is none left. The wheel then stands at `now`.
    #[inline]
    pub fn pop_due(&mut self, nodes: &mut impl Nodes, now: Instant) -> Option<u32> {
        let end = now.micros() >> TICK_SHIFT;
        // Slots that began by now were served. What was armed for this very tick since then is in the finest level.
        let has_new = self.occupied[0] >> (self.tick % SLOTS as u64) & 1 != 0;
        if end <= self.tick && !has_new && !self.is_draining { None } else { self.pop_until(nodes, end) }
    }

    fn pop_until(&mut self, nodes: &mut impl Nodes, end: u64) -> Option<u32> {
        let tick = if self.count == 0 { None } else { self.next_tick() };
        let Some(tick) = tick.filter(|t| *t <= end) else {
            self.tick = self.tick.max(end);
            self.is_draining = false;
            return None;
        };
        (self.tick, self.is_draining) = (tick, true);
        for level in 0..LEVELS {
            let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
            if self.occupied[level] & (1 << slot) != 0 {
                let index = self.heads[level][slot];
                self.disarm(nodes, index);
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "timer_wheel_tests.rs"]
mod tests;
