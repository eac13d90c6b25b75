//! SIGSEGV and SIGBUS. A fault in a copy to or from the application's memory is a bad pointer: the call says EFAULT. Any
//! other fault is what it is without us: the application's handler, or the end of the process by the same signal.

use super::{actions, deferred, trampoline};
use crate::memory;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{SA_NODEFER, SA_ONSTACK, SA_SIGINFO, SIG_IGN, SIGBUS, SIGSEGV, c_int, siginfo_t, ucontext_t};

/// Set when the shim begins to touch the application's memory. Before that these signals are not our business.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Set once they reach us.
static REACH_US: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_fault(signal: c_int) -> bool {
    matches!(signal, SIGSEGV | SIGBUS)
}

/// Whether the signal comes to us also when the application has no handler.
pub(super) fn is_watched(signal: c_int) -> bool {
    is_fault(signal) && WATCHED.load(Ordering::Acquire)
}

/// From now on bad pointers are EFAULT. Threads (and handlers) that come while the first is at it do the same once more: it must
/// be done for each before it goes on.
pub(crate) fn watch() {
    if !REACH_US.load(Ordering::Acquire) {
        begin_to_watch();
    }
}

fn begin_to_watch() {
    WATCHED.store(true, Ordering::Release);
    actions::watch(SIGSEGV);
    actions::watch(SIGBUS);
    REACH_US.store(true, Ordering::Release);
}

/// Also where somebody has a handler that was installed past us, as Rust's tests have.
#[cfg(test)]
pub(crate) fn watch_in_spite_of_handlers() {
    [SIGSEGV, SIGBUS].into_iter().for_each(actions::restore_default);
    begin_to_watch();
}

/// What the kernel holds when the application has no handler.
pub(super) fn action() -> libc::sigaction {
    // SAFETY: all zeroes is a valid action.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = trampoline as *const () as usize;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    action
}

/// In the trampoline: whether there is nothing left to do, because it was a bad pointer, or because the application has no
/// handler.
///
/// # Safety
/// What the kernel gave the handler.
pub(super) unsafe fn is_settled(signal: c_int, info: *const siginfo_t, context: *mut ucontext_t) -> bool {
    // SAFETY: the caller's promise.
    let is_caused = unsafe { (*info).si_code } > 0;
    // SAFETY: as above.
    if is_caused && unsafe { memory::land(context) } {
        return true;
    }
    let handler = actions::slot(signal).map_or(libc::SIG_DFL, actions::Slot::handler);
    match handler {
        SIG_IGN if !is_caused => true,
        libc::SIG_DFL | SIG_IGN => {
            // What the thread caused happens again when it goes on; what was sent is sent again.
            actions::restore_default(signal);
            if !is_caused {
                // SAFETY: the caller's promise: a struct siginfo.
                deferred::requeue(signal, unsafe { &*info.cast() });
            }
            true
        }
        _ => false,
    }
}
