//! `sidestep calls`: the calls that the library interposes, a line each, as the library itself tells them.

use crate::failure::{Outcome, fail};
use crate::run::find_library;
use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

pub(crate) fn calls() -> Outcome<()> {
    let Some(library) = find_library() else {
        fail!("libsidestep.so is neither beside this program nor in /usr/lib/sidestep (SIDESTEP_LIB names it)")
    };
    // It is looked at, not used: with a device named it would greet the daemon.
    // SAFETY: this program has one thread.
    unsafe { std::env::remove_var("SIDESTEP_DEV") };
    let path = CString::new(library.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: a NUL-terminated path; the library stays loaded until the program ends.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        fail!("{} cannot be loaded", library.display())
    }
    // SAFETY: a NUL-terminated name.
    let symbol = unsafe { libc::dlsym(handle, c"sidestep_calls".as_ptr()) };
    if symbol.is_null() {
        fail!("{} does not tell its calls", library.display())
    }
    // SAFETY: the library's function of this name has this type.
    let tell = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *const c_char>(symbol) };
    // SAFETY: it returns a NUL-terminated string that is valid for ever.
    let text = unsafe { CStr::from_ptr(tell()) };
    let _ = std::io::stdout().write_all(text.to_bytes());
    Ok(())
}
