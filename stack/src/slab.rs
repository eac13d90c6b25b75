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
        self.state.live += 1;
        self.items[index as usize] = value;
        Some(index)
    }

    /// Gives the slot back. The caller removes it from every list first.
    pub fn remove(&mut self, index: u32) {
        *self.items[index as usize].free_link() = self.state.free;
        self.state.free = index + 1;
        self.state.live -= 1;
    }

    /// Takes every slot back at once. Nobody may refer to one any more.
    pub fn reset(&mut self) {
        *self.state = SlabState::default();
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
        &mut self.items[index as usize]
    }
}
