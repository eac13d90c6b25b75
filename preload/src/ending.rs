//! The end of a process, as far as it is announced. What its connections still have to send is sent by others; but a thread that is
//! ended in the midst of a change takes them all with it ([`sidestep_stack::arena`]: whoever has the lock next cannot trust a stack that
//! is half-written). So the thread that ends the others keeps them out of the stack first. Nobody can do that for a process that is killed.

use crate::{attach, sys};
use core::ffi::c_void;
use libc::c_int;
use sidestep_stack::runtime::now;
use sidestep_stack::time::{Instant, MS};

/// How long threads stay out of the stack when all of the application's own functions for the end of the process have run. Those
/// of a library may come later, and wait for a thread that still has to send something.
const LAST_US: u64 = 250 * MS;

unsafe extern "C" {
    fn __cxa_atexit(act: extern "C" fn(*mut c_void), argument: *mut c_void, dso: *mut c_void) -> c_int;
    fn __cxa_at_quick_exit(act: extern "C" fn(*mut c_void), dso: *mut c_void) -> c_int;
}

/// Who registers first comes last. A function that belongs to no shared object is not called with those of ours.
pub(crate) fn at_load() {
    extern "C" fn at_exit(_: *mut c_void) {
        keep_out_until(now().after_us(LAST_US));
    }
    // SAFETY: the function lives as long as the process; the library is never unloaded.
    unsafe {
        __cxa_atexit(at_exit, core::ptr::null_mut(), core::ptr::null_mut());
        __cxa_at_quick_exit(at_exit, core::ptr::null_mut());
    }
}

/// The calling thread ends all others with its next call.
pub(crate) fn keep_others_out() {
    keep_out_until(Instant::FAR);
}

/// A child that shares its parent's memory leaves it as it was.
fn keep_out_until(until: Instant) {
    if let Some(stack) = attach::stack()
        && attach::is_own_process()
    {
        stack.shut(until);
    }
}

pub(crate) fn exit_group(status: c_int) -> ! {
    keep_others_out();
    sys::exit_now(status)
}

/// libc's `_exit`.
///
/// # Safety
/// As for the function of libc.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn _exit(status: c_int) -> ! {
    exit_group(status)
}

/// libc's `_Exit`.
///
/// # Safety
/// As for the function of libc.
#[cfg_attr(not(test), unsafe(export_name = "_Exit"))]
pub(crate) unsafe extern "C" fn exit_at_once(status: c_int) -> ! {
    exit_group(status)
}
