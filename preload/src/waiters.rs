//! Threads that wait at an epoll set in which only the kernel has descriptors: by the system call alone, in the machine code of
//! `exported_waits.rs`. Whoever adds the set's first user socket has to call them out of there, and whoever cancels one to wake it.
//!
//! So a thread announces where it waits, in a slot of its own, and looks then whether it still may: two ordinary instructions. That
//! the other side sees the one or the thread the other is seen to by the other side, which is rarely there: it has every processor of
//! this process pass a barrier (membarrier(2)) between what it changes and its look at the slots. Where the kernel has no such call
//! nobody gets a slot, and waiters are counted instead ([`crate::epoll::Set::in_kernel`]).

use crate::epoll::Set;
use crate::fd_table::Entry;
use crate::sys::{self, raw};
use crate::thread;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use sidestep_stack::runtime::now;

/// More threads wait as counted ones do.
const SLOTS: usize = 512;
/// While all are taken, one in so many who ask looks for those of threads that have ended.
const ASKED_IN_VAIN: u32 = 1024;

/// What a thread announces. A line of the cache each.
#[repr(C, align(64))]
pub(crate) struct Waiter {
    /// The table's word of the set, or 0: it does not wait.
    entry: AtomicU64,
    set: AtomicPtr<Set>,
    /// [`thread::Thread::events`] when it began.
    events: AtomicU64,
    /// The processor's clock then, if the wait has an end and other threads are there.
    began: AtomicU64,
    tid: AtomicU32,
}

static WAITERS: [Waiter; SLOTS] = [const { Waiter::unused() }; SLOTS];
static IN_VAIN: AtomicU32 = AtomicU32::new(0);

/// Whether the barrier can be had.
static BARRIER: AtomicU32 = AtomicU32::new(UNTRIED);
const UNTRIED: u32 = 0;
const THERE: u32 = 1;
const MISSING: u32 = 2;

/// Both clocks at one moment: the processor's, and ours.
static CLOCKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

impl Waiter {
    /// Where machine code finds them.
    pub(crate) const ENTRY: usize = core::mem::offset_of!(Waiter, entry);
    pub(crate) const SET: usize = core::mem::offset_of!(Waiter, set);
    pub(crate) const EVENTS: usize = core::mem::offset_of!(Waiter, events);
    pub(crate) const BEGAN: usize = core::mem::offset_of!(Waiter, began);

    const fn unused() -> Waiter {
        Waiter {
            entry: AtomicU64::new(0),
            set: AtomicPtr::new(core::ptr::null_mut()),
            events: AtomicU64::new(0),
            began: AtomicU64::new(0),
            tid: AtomicU32::new(0),
        }
    }

    /// The set at which it waits, or waited last.
    pub(crate) fn set(&self) -> Option<&'static Set> {
        // SAFETY: null, or one of the sets, which are static.
        unsafe { self.set.load(Relaxed).as_ref() }
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// How long ago its last wait began.
    pub(crate) fn waited_us(&self) -> u64 {
        let [ticks, us] = [0, 1].map(|i: usize| CLOCKS[i].load(Relaxed));
        let (ticks_now, us_now) = (ticks_now(), now().micros());
        let (ticks_since, us_since) = (ticks_now.saturating_sub(ticks), us_now.saturating_sub(us));
        let waited = u128::from(ticks_now.saturating_sub(self.began.load(Relaxed)));
        (waited * u128::from(us_since) / u128::from(ticks_since.max(1))) as u64
    }

    fn is_alive(&self) -> bool {
        let tid = self.tid.load(Relaxed);
        // SAFETY: no memory is passed.
        tid != 0 && unsafe { raw!(tgkill, sys::getpid(), tid, 0) } != Err(libc::ESRCH)
    }
}

#[cfg(target_arch = "x86_64")]
fn ticks_now() -> u64 {
    // SAFETY: reads a clock.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks_now() -> u64 {
    now().micros()
}

/// The calling thread's slot, if it has one.
pub(crate) fn own() -> Option<&'static Waiter> {
    // SAFETY: null, or one of the slots, which are static.
    unsafe { thread::current().waiter.load(Relaxed).as_ref() }
}

/// Gives the calling thread a slot for its next waits, if there is one.
pub(crate) fn claim() {
    if !cfg!(target_arch = "x86_64") || own().is_some() || !can_fence() {
        return;
    }
    let is_full = IN_VAIN.load(Relaxed) != 0;
    if is_full && !IN_VAIN.fetch_add(1, Relaxed).is_multiple_of(ASKED_IN_VAIN) {
        return;
    }
    // SAFETY: no arguments.
    let tid = unsafe { raw!(gettid) }.unwrap_or(0) as u32;
    let found = WAITERS.iter().find(|slot| {
        let owner = slot.tid.load(Relaxed);
        let is_free = owner == 0 || is_full && !slot.is_alive();
        is_free && slot.tid.compare_exchange(owner, tid, Acquire, Relaxed).is_ok()
    });
    match found {
        Some(slot) => {
            slot.entry.store(0, Release);
            thread::current().waiter.store(core::ptr::from_ref(slot).cast_mut(), Relaxed);
        }
        None if !is_full => IN_VAIN.store(1, Relaxed),
        None => {}
    }
}

fn can_fence() -> bool {
    if BARRIER.load(Acquire) == UNTRIED {
        CLOCKS[0].store(ticks_now(), Relaxed);
        CLOCKS[1].store(now().micros(), Relaxed);
        // SAFETY: numbers only.
        let registered = unsafe { raw!(membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) }.is_ok();
        BARRIER.store(if registered { THERE } else { MISSING }, Release);
    }
    BARRIER.load(Acquire) == THERE
}

/// What this thread wrote is seen by all who look for it after they announced themselves; or their announcement is seen after this.
pub(crate) fn fence() {
    if BARRIER.load(Acquire) == THERE {
        // SAFETY: numbers only.
        let _ = unsafe { raw!(membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) };
    }
}

/// Whether a thread waits at the set of this entry. The caller has passed the fence since it changed what they look at.
pub(crate) fn any_at(entry: Entry) -> bool {
    WAITERS.iter().any(|slot| {
        let is_there = slot.entry.load(Acquire) == entry.word();
        // One that ended in its wait, by a handler, never says so.
        is_there && (slot.is_alive() || slot.entry.compare_exchange(entry.word(), 0, Release, Relaxed).is_err())
    })
}

/// The number of a thread that waits, whose slot this is.
///
/// # Safety
/// Null, or a slot.
pub(crate) unsafe fn tid_of(slot: *const Waiter) -> Option<u32> {
    // SAFETY: the caller's promise.
    let slot = unsafe { slot.as_ref() }?;
    (slot.entry.load(Acquire) != 0).then(|| slot.tid.load(Relaxed))
}

/// The thread leaves its wait by a jump, or ends in it.
pub(crate) fn abandon() {
    if let Some(slot) = own().filter(|slot| slot.entry.swap(0, Release) != 0)
        && let Some(set) = slot.set()
    {
        set.left_by_waiter();
    }
}

/// In a forked child: the slots are the parent's threads'.
pub(crate) fn after_fork() {
    for slot in &WAITERS {
        slot.entry.store(0, Relaxed);
        slot.tid.store(0, Relaxed);
    }
    IN_VAIN.store(0, Relaxed);
    BARRIER.store(UNTRIED, Relaxed);
    thread::current().waiter.store(core::ptr::null_mut(), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd_table::Kind;

    #[test]
    fn a_thread_has_one_slot_and_is_found_by_what_it_announces() {
        let entry = Entry::new(Kind::Epoll, 7, 3);
        let other = Entry::new(Kind::Epoll, 8, 3);
        std::thread::spawn(move || {
            assert!(own().is_none());
            claim();
            let Some(slot) = own() else { return assert_eq!(BARRIER.load(Acquire), MISSING) };
            claim();
            assert!(core::ptr::eq(own().unwrap(), slot));
            // SAFETY: a slot.
            assert_eq!(unsafe { tid_of(slot) }, None);
            slot.entry.store(entry.word(), Release);
            fence();
            assert!(any_at(entry) && !any_at(other));
            // SAFETY: a slot.
            assert!(unsafe { tid_of(slot) }.is_some());
            slot.began.store(ticks_now(), Relaxed);
            std::thread::sleep(core::time::Duration::from_millis(30));
            assert!(slot.waited_us() >= 25_000, "{}", slot.waited_us());
        })
        .join()
        .unwrap();
        // It ended without a word. The kernel has its number for a moment longer than the join takes.
        let is_gone = (0..5_000).any(|_| {
            std::thread::sleep(core::time::Duration::from_millis(1));
            !any_at(entry)
        });
        assert!(is_gone);
    }
}
