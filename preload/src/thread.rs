//! What a thread and its signal handlers share: a zeroed block of this thread's, reached without a call.

use crate::kick::Batch;
use crate::signals::deferred::Deferred;
use crate::spin::Spinning;
use crate::waiters::Waiter;
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_char;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Only its own thread writes it, but for `events` and `cancelled`, which a canceller writes too.
#[repr(C)]
pub(crate) struct Thread {
    /// What may end a sleep, counted: in the lower half all of it, in the upper half those that were no handlers of the
    /// application but somebody who wants this thread cancelled. Whoever is about to sleep compares the lower half.
    pub(crate) events: AtomicU64,
    /// Handlers that end a call (no SA_RESTART).
    pub(crate) ending_handlers: AtomicU32,
    /// Whether SIGSEGV and SIGBUS reach us: see [`crate::memory`].
    pub(crate) faults: AtomicU32,
    /// Somebody wants this thread cancelled: [`crate::signals::cancel`].
    pub(crate) cancelled: AtomicU32,
    /// The thread's number in the kernel, once it is known.
    pub(crate) tid: AtomicU32,
    /// The same number while it sleeps where it can be woken; or 0.
    pub(crate) asleep: AtomicU32,
    /// The innermost sleep of this thread ([`crate::vigil`]).
    pub(crate) vigil: AtomicPtr<()>,
    /// Where it announces that it waits at a set of the kernel's, once it did ([`crate::waiters`]).
    pub(crate) waiter: AtomicPtr<Waiter>,
    pub(crate) deferred: UnsafeCell<Deferred>,
    /// What its sends and its waits remember; handlers see them only where those are at rest.
    pub(crate) batch: Cell<Batch>,
    pub(crate) spinning: Spinning,
}

sidestep_stack::thread_block!(pub(crate) fn current() -> Thread, "sidestep_thread");

impl Thread {
    /// Where machine code finds them.
    pub(crate) const EVENTS: usize = core::mem::offset_of!(Thread, events);
    pub(crate) const FAULTS: usize = core::mem::offset_of!(Thread, faults);
    pub(crate) const CANCELLED: usize = core::mem::offset_of!(Thread, cancelled);
    pub(crate) const WAITER: usize = core::mem::offset_of!(Thread, waiter);
}

/// Where libc says that the process has but one thread (`__libc_single_threaded`).
pub(crate) static ALONE: AtomicPtr<c_char> = AtomicPtr::new((&raw const NOT_KNOWN).cast_mut());
/// In its place where libc does not say.
static NOT_KNOWN: c_char = 0;

pub(crate) fn at_load() {
    // SAFETY: a NUL-terminated name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    if !found.is_null() {
        ALONE.store(found.cast(), Ordering::Relaxed);
    }
}
