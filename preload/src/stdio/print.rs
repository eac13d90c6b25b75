//! dprintf, in the forms that take a `va_list`.

use super::cookie::write_all;
use super::{Original, is_ours};
use crate::sys::Result;
use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    fn __vasprintf_chk(out: *mut *mut c_char, flag: c_int, format: *const c_char, arguments: *mut c_void) -> c_int;
}

static VDPRINTF: Original = Original::new(c"__vdprintf_chk");

pub(crate) unsafe fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { vdprintf_chk(fd, 0, format, arguments) }
}

pub(crate) unsafe fn vdprintf_chk(
    fd: c_int,
    flag: c_int,
    format: *const c_char,
    arguments: *mut c_void,
) -> Result<isize> {
    type Print = unsafe extern "C" fn(c_int, c_int, *const c_char, *mut c_void) -> c_int;
    // SAFETY: libc's errno is always valid.
    let errno = || unsafe { *libc::__errno_location() };
    if !is_ours(fd) {
        // SAFETY: libc's function of this type.
        let original = unsafe { core::mem::transmute::<*mut c_void, Print>(VDPRINTF.find()?) };
        // SAFETY: the application's arguments.
        let printed = unsafe { original(fd, flag, format, arguments) };
        return if printed < 0 { Err(errno()) } else { Ok(printed as isize) };
    }
    let mut text: *mut c_char = core::ptr::null_mut();
    // SAFETY: the application's arguments; `text` is ours.
    let len = unsafe { __vasprintf_chk(&raw mut text, flag, format, arguments) };
    if len < 0 {
        return Err(errno());
    }
    // SAFETY: libc has just put `len` bytes there.
    let (_, result) = unsafe { write_all(fd, text, len as usize) };
    // SAFETY: libc's memory, given to us.
    unsafe { libc::free(text.cast()) };
    result.map(|()| len as isize)
}
