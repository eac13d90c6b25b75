//! The exported functions about signals, which speak libc's language themselves: -1 and errno, SIG_ERR, or an error number.

use super::actions;
use crate::memory;
use crate::real::Real;
use crate::sys::AsIs;
use libc::{c_int, sighandler_t, sigset_t};

static SIGPROCMASK: Real = Real::new(c"sigprocmask");
static PTHREAD_SIGMASK: Real = Real::new(c"pthread_sigmask");

type Action = libc::sigaction;
type Mask = unsafe extern "C" fn(c_int, *const sigset_t, *mut sigset_t) -> c_int;

pub(crate) unsafe fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> AsIs<c_int> {
    // SAFETY: the same contract.
    AsIs(unsafe { actions::set(signal, new, old) })
}

pub(crate) unsafe fn signal(signal: c_int, handler: sighandler_t) -> AsIs<sighandler_t> {
    AsIs(actions::signal(signal, handler))
}

pub(crate) unsafe fn sysv_signal(signal: c_int, handler: sighandler_t) -> AsIs<sighandler_t> {
    AsIs(actions::sysv_signal(signal, handler))
}

pub(crate) unsafe fn sigset(signal: c_int, handler: sighandler_t) -> AsIs<sighandler_t> {
    AsIs(actions::sigset(signal, handler))
}

pub(crate) unsafe fn siginterrupt(signal: c_int, ends: c_int) -> AsIs<c_int> {
    AsIs(actions::siginterrupt(signal, ends))
}

pub(crate) unsafe fn sigprocmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> AsIs<c_int> {
    // SAFETY: the same contract.
    unsafe { change_mask(&SIGPROCMASK, how, new, old) }
}

pub(crate) unsafe fn pthread_sigmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> AsIs<c_int> {
    // SAFETY: the same contract.
    unsafe { change_mask(&PTHREAD_SIGMASK, how, new, old) }
}

/// The mask is libc's to change; a fault may be blocked by it.
///
/// # Safety
/// As for the functions of libc.
unsafe fn change_mask(real: &Real, how: c_int, new: *const sigset_t, old: *mut sigset_t) -> AsIs<c_int> {
    let at = real.address();
    if at.is_null() {
        return AsIs(libc::ENOSYS);
    }
    // SAFETY: libc's function of this type; the caller's promise.
    let done = unsafe { core::mem::transmute::<*mut core::ffi::c_void, Mask>(at)(how, new, old) };
    if !new.is_null() {
        memory::note_mask_change();
    }
    AsIs(done)
}
