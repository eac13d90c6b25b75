//! Fixed slabs in shared memory, addressed by 32-bit index: no allocation, no pointers, bounded.

/// "No index": ends a list, or marks an unset reference.
pub const NONE: u32 = u32::MAX;

/// Where a slab stands. All zeroes is an empty slab.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct SlabState {
    /// Head of the free list, as index + 1; 0 is empty.
    free: u32,
    /// Items ever handed out: everything at or beyond was never used.
    used: u32,
    /// Items handed out now.
    live: u32,
}

/// What a slab needs of its items: a word that links free ones. The word belongs to the slab while the item is free.
pub trait SlabItem {
    fn free_link(&mut self) -> &mut u32;
}

/// A view of one slab. Built once when a process attaches; all state is in the shared memory behind it.
pub struct Slab<'m, T> {
    items: &'m mut [T],
    state: &'m mut SlabState,
}

impl<'m, T: SlabItem> Slab<'m, T> {
    pub fn new(items: &'m mut [T], state: &'m mut SlabState) -> Self {
        Slab { items, state }
    }

    /// Takes a free slot and puts `value` into it; `None` when the slab is full.
    pub fn insert(&mut self, value: T) -> Option<u32> {
        #[cfg(test)]
        mishap::step();
        let index = match self.state.free {
            0 if (self.state.used as usize) < self.items.len() => {
                self.state.used += 1;
                self.state.used - 1
            }
            0 => return None,
            head => {
                self.state.free = *self.items[head as usize - 1].free_link();
                head - 1
            }
        };
        #[cfg(test)]
        mishap::step();
        self.state.live += 1;
        self.items[index as usize] = value;
        Some(index)
    }

    /// Gives the slot back. The caller removes it from every list first.
    pub fn remove(&mut self, index: u32) {
        #[cfg(test)]
        mishap::step();
        *self.items[index as usize].free_link() = self.state.free;
        self.state.free = index + 1;
        self.state.live -= 1;
    }

    /// Makes the list of free slots anew, by what lies in the slots: whoever wrote it died over it.
    pub(crate) fn rebuild(&mut self, is_live: impl Fn(&T) -> bool) {
        let used = self.slots();
        *self.state = SlabState { used, ..SlabState::default() };
        for index in (0..used).rev() {
            let item = &mut self.items[index as usize];
            if is_live(item) {
                self.state.live += 1;
            } else {
                *item.free_link() = self.state.free;
                self.state.free = index + 1;
            }
        }
    }

    /// As [`Slab::used`], whatever is written there.
    pub(crate) fn slots(&self) -> u32 {
        self.state.used.min(self.items.len() as u32)
    }

    /// Takes every slot back at once. Nobody may refer to one any more.
    pub fn reset(&mut self) {
        *self.state = SlabState::default();
    }

    /// What is in a slot that was handed out, be it free by now; `None` for an index that never was.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        if index < self.state.used { self.items.get(index as usize) } else { None }
    }

    /// Items handed out now.
    pub fn live(&self) -> u32 {
        self.state.live
    }

    /// One past the highest index ever handed out: the bound of a walk over all slots.
    pub fn used(&self) -> u32 {
        self.state.used
    }

    /// For tests of who does not trust it.
    #[cfg(test)]
    pub(crate) fn claim_used(&mut self, used: u32) {
        self.state.used = used;
    }

    /// Whether [`Slab::insert`] would find no slot.
    pub fn is_full(&self) -> bool {
        self.state.live as usize >= self.items.len()
    }

    pub fn capacity(&self) -> usize {
        self.items.len()
    }
}

impl<T> core::ops::Index<u32> for Slab<'_, T> {
    type Output = T;
    fn index(&self, index: u32) -> &T {
        &self.items[index as usize]
    }
}

impl<T> core::ops::IndexMut<u32> for Slab<'_, T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        #[cfg(test)]
        mishap::step();
        &mut self.items[index as usize]
    }
}

/// Deaths in the midst of an operation, for tests: the caller of [`mishap::arm`] unwinds at the n-th step from then on. A step
/// is a use of a slot that may change it.
#[cfg(test)]
pub(crate) mod mishap {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(0) };
    }

    /// 0: never.
    pub(crate) fn arm(steps: u64) {
        LEFT.set(steps);
    }

    pub(crate) fn step() {
        let left = LEFT.get();
        if left != 0 {
            LEFT.set(left - 1);
            if left == 1 {
                std::panic::resume_unwind(Box::new("died"));
            }
        }
    }
}
