//! What stands behind each descriptor number: one word a number, read without a lock.
//!
//! The table is mapped when the shim is first needed. Before that, and for every number beyond it, the answer is
//! "the kernel's", so a program that sidestep does not serve pays one comparison.

use crate::sys;
use libc::c_int;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Most numbers the table covers; descriptors beyond are the kernel's.
const MAX_FDS: u64 = 4 << 20;

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing of ours: the kernel serves it. `index` says why, where that was decided ([`crate::reason`]).
    Kernel = 0,
    /// A user-mode connection; `index` is its engine socket.
    Stream = 1,
    /// A listener that also listens in user mode; `index` is a slot of `listeners`.
    Listener = 2,
    /// A kernel epoll with a user-mode set beside it; `index` is a slot of `epoll`.
    Epoll = 3,
    /// A TCP socket that has neither connected nor listened; `index` is its address family.
    Fresh = 4,
    /// A UDP socket that the engine knows nothing of yet; `index` is its address family.
    FreshDatagram = 5,
    /// A datagram socket that is in the engine and in the kernel; `index` is its engine socket.
    Datagram = 6,
}

/// Indices are below this.
pub(crate) const INDEX_MASK: u32 = (1 << 24) - 1;

/// One word of the table: kind (8 bits), index (24), generation (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) const KERNEL: Entry = Entry(0);

    pub(crate) const fn new(kind: Kind, generation: u32, index: u32) -> Entry {
        Entry((kind as u64) << 56 | ((index & INDEX_MASK) as u64) << 32 | generation as u64)
    }

    /// The kernel's, by a decision that [`crate::reason`] names.
    pub(crate) const fn kept(reason: u32) -> Entry {
        Entry::new(Kind::Kernel, 0, reason)
    }

    #[inline]
    pub(crate) const fn is_kernel(self) -> bool {
        self.0 >> 56 == 0
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// Whether there is nothing to forget when the number goes away.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        match self.0 >> 56 {
            1 => Kind::Stream,
            2 => Kind::Listener,
            3 => Kind::Epoll,
            4 => Kind::Fresh,
            5 => Kind::FreshDatagram,
            6 => Kind::Datagram,
            _ => Kind::Kernel,
        }
    }

    #[inline]
    pub(crate) const fn index(self) -> u32 {
        (self.0 >> 32) as u32 & INDEX_MASK
    }

    #[inline]
    pub(crate) const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// A table of entries. There is one in a process ([`TABLE`]); tests make their own.
#[repr(C)]
pub(crate) struct FdTable {
    base: AtomicPtr<AtomicU64>,
    /// Published last: nobody reads `base` before it is not zero.
    len: AtomicUsize,
}

/// The table of this process.
pub(crate) static TABLE: FdTable = FdTable::unmapped();

impl FdTable {
    /// Where machine code finds the two words.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const LEN_OFFSET: usize = core::mem::offset_of!(FdTable, len);
    #[cfg(target_arch = "x86_64")]
    pub(crate) const BASE_OFFSET: usize = core::mem::offset_of!(FdTable, base);

    pub(crate) const fn unmapped() -> FdTable {
        FdTable { base: AtomicPtr::new(core::ptr::null_mut()), len: AtomicUsize::new(0) }
    }

    /// Maps the table for as many descriptors as the hard limit allows. Callers hold the attach lock.
    pub(crate) fn map(&self, hard_limit: u64) -> sys::Result<()> {
        if self.is_mapped() {
            return Ok(());
        }
        let len = hard_limit.clamp(1024, MAX_FDS) as usize;
        let base = sys::map_lazily(len * size_of::<AtomicU64>())?;
        self.base.store(base.cast(), Ordering::Relaxed);
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.len.load(Ordering::Acquire) != 0
    }

    #[inline]
    fn word(&self, fd: c_int) -> Option<&AtomicU64> {
        // A negative number becomes a huge one and fails the comparison.
        if (fd as usize) < self.len.load(Ordering::Acquire) {
            // SAFETY: `base` is a mapping of `len` words that is never unmapped, and fd < len.
            Some(unsafe { &*self.base.load(Ordering::Relaxed).add(fd as usize) })
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn lookup(&self, fd: c_int) -> Entry {
        self.word(fd).map_or(Entry::KERNEL, |w| Entry(w.load(Ordering::Relaxed)))
    }

    /// Sets the entry of `fd`. False when the number is beyond the table.
    pub(crate) fn set(&self, fd: c_int, entry: Entry) -> bool {
        self.word(fd).inspect(|w| w.store(entry.0, Ordering::Relaxed)).is_some()
    }

    /// Replaces the entry of `fd` and returns the old one: who gets an entry here owns its reference.
    pub(crate) fn replace(&self, fd: c_int, entry: Entry) -> Entry {
        self.word(fd).map_or(Entry::KERNEL, |w| Entry(w.swap(entry.0, Ordering::AcqRel)))
    }

    /// As `replace`, only if the entry still is `old`.
    pub(crate) fn replace_if(&self, fd: c_int, old: Entry, new: Entry) -> bool {
        self.word(fd).is_some_and(|w| w.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn an_unmapped_table_says_kernel() {
        let table = FdTable::unmapped();
        assert!(table.lookup(0).is_kernel());
        assert!(!table.set(3, Entry::new(Kind::Stream, 1, 1)));
        assert!(table.replace(3, Entry::new(Kind::Stream, 1, 1)).is_kernel());
    }

    #[test]
    fn entries_keep_their_fields() {
        let entry = Entry::new(Kind::Stream, 0xffff_fffe, 0xde_adbe);
        assert_eq!((entry.kind(), entry.generation(), entry.index()), (Kind::Stream, 0xffff_fffe, 0xde_adbe));
        assert!(!entry.is_kernel());
        assert!(!Entry::new(Kind::Fresh, 0, 0).is_kernel());
        let kept = Entry::kept(7);
        assert!(kept.is_kernel() && !kept.is_empty() && Entry::KERNEL.is_empty());
        assert_eq!((kept.kind(), kept.index()), (Kind::Kernel, 7));
    }

    #[test]
    fn agrees_with_a_model() {
        for seed in 1..=50u64 {
            let table = FdTable::unmapped();
            table.map(1024).unwrap();
            let mut model: HashMap<c_int, Entry> = HashMap::new();
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for _ in 0..2000 {
                let fd = (random(&mut state) % 1100) as c_int - 20;
                use Kind::{Datagram, Epoll, Fresh, FreshDatagram, Kernel, Listener, Stream};
                let kinds = [Kernel, Stream, Listener, Epoll, Fresh, FreshDatagram, Datagram];
                let kind = kinds[(random(&mut state) % 7) as usize];
                let new = match kind {
                    Kind::Kernel => Entry::KERNEL,
                    kind => Entry::new(kind, random(&mut state) as u32, random(&mut state) as u32),
                };
                let inside = (0..1024).contains(&fd);
                let before = model.get(&fd).copied().unwrap_or(Entry::KERNEL);
                match random(&mut state) % 4 {
                    0 => assert_eq!(table.lookup(fd), before, "seed {seed}"),
                    1 => {
                        assert_eq!(table.set(fd, new), inside);
                        inside.then(|| model.insert(fd, new));
                    }
                    2 => {
                        assert_eq!(table.replace(fd, new), before, "seed {seed}");
                        inside.then(|| model.insert(fd, new));
                    }
                    _ => {
                        let old = if random(&mut state) & 1 == 0 { before } else { Entry::new(Kind::Epoll, 9, 9) };
                        let done = table.replace_if(fd, old, new);
                        assert_eq!(done, inside && old == before, "seed {seed}");
                        done.then(|| model.insert(fd, new));
                    }
                }
            }
        }
    }
}
