//! Signals. The application's handlers are called by ours, so that none runs while its thread holds a lock of the shim, and
//! so that a call that waits knows which handlers ran.
//!
//! - [`calls`], [`actions`]: sigaction() and its kin: what the application set, and what it reads back;
//! - [`deferred`]: handlers that wait until the thread comes out of a critical stretch;
//! - [`faults`]: SIGSEGV and SIGBUS, which tell [`crate::memory`] of bad pointers;
//! - [`interrupt`]: EINTR and SA_RESTART; [`sleep`]: a wait in the kernel that no handler slips by;
//! - [`jumps`]: siglongjmp() and pthread_exit() out of a handler; [`cancel`]: pthread_cancel().
//!
//! A handler that the application installs past libc (by the system call) is not seen: it runs at once, also inside.

pub(crate) mod actions;
pub(crate) mod calls;
pub(crate) mod cancel;
pub(crate) mod deferred;
pub(crate) mod faults;
pub(crate) mod interrupt;
mod jumps;
pub(crate) mod sleep;

use crate::critical;
use libc::{c_int, siginfo_t, ucontext_t};
use sidestep_stack::runtime::notice;

/// Numbers of signals are 1 to 64.
pub(crate) const SIGNALS: usize = 65;

/// glibc keeps these for itself: SIGCANCEL and SIGSETXID.
pub(crate) const LIBC_SIGNALS: [c_int; 2] = [32, 33];

/// Before the program's own constructors.
pub(crate) fn at_load() {
    critical::when_left(deferred::deliver);
    actions::at_load();
}

/// The kernel calls this for every signal that the application has a handler for.
///
/// # Safety
/// Called by the kernel.
unsafe extern "C-unwind" fn trampoline(signal: c_int, info: *mut siginfo_t, context: *mut ucontext_t) {
    let is_fault = faults::is_fault(signal);
    // SAFETY: what the kernel gave us.
    if is_fault && unsafe { faults::is_settled(signal, info, context) } {
        return;
    }
    if critical::is_inside() && !is_fault {
        // SAFETY: as above.
        unsafe { deferred::put_off(signal, info, context) };
        return;
    }
    let Some((handler, flags)) = actions::take_handler(signal) else { return };
    interrupt::note(flags);
    // SAFETY: as above; a struct siginfo is longer than what is looked at.
    unsafe {
        if !info.is_null() {
            notice::restore_code(&mut *info.cast());
        }
        sleep::end(context);
        handler(signal, info, context);
    }
}
