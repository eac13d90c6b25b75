//! freopen. libc cannot reopen a stream that has functions of its own (it dies of it), so for ours it is done here: the file
//! comes to stand on the stream's number, and the functions go there as they went to the socket.

use super::cookie::{File, detach, is_cookie};
use super::{Original, pointer, standard};
use crate::calls::fd as descriptors;
use crate::fd_table::TABLE;
use crate::sys::{self, Result, raw};
use core::ffi::{CStr, c_char, c_int, c_void};
use libc::{EINVAL, ENXIO, O_APPEND, O_CLOEXEC, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

unsafe extern "C" {
    fn fflush(file: *mut File) -> c_int;
    fn __fpurge(file: *mut File);
}

/// Bits of a stream's flags (libio): it is not for reading, not for writing; its end or an error was seen.
const NO_READS: c_int = 4;
const NO_WRITES: c_int = 8;
const EOF_SEEN: c_int = 0x10;
const ERROR_SEEN: c_int = 0x20;

static FREOPEN: Original = Original::new(c"freopen");
static FREOPEN64: Original = Original::new(c"freopen64");

pub(crate) unsafe fn freopen(path: *const c_char, mode: *const c_char, file: *mut File) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { reopen(&FREOPEN, path, mode, file) }
}

pub(crate) unsafe fn freopen64(path: *const c_char, mode: *const c_char, file: *mut File) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { reopen(&FREOPEN64, path, mode, file) }
}

unsafe fn reopen(original: &Original, path: *const c_char, mode: *const c_char, file: *mut File) -> Result<isize> {
    type Reopen = unsafe extern "C" fn(*const c_char, *const c_char, *mut File) -> *mut File;
    // SAFETY: the application's stream.
    if unsafe { is_cookie(file) } {
        // SAFETY: the application's strings and stream.
        return unsafe { reopen_ours(path, CStr::from_ptr(mode), file) };
    }
    // SAFETY: libc's function of this type.
    let original = unsafe { core::mem::transmute::<*mut c_void, Reopen>(original.find()?) };
    // SAFETY: the application's stream.
    let fd = if file.is_null() { -1 } else { unsafe { (*file).fileno } };
    let entry = TABLE.lookup(fd);
    // SAFETY: the application's arguments.
    let reopened = pointer(unsafe { original(path, mode, file) });
    // Whether it succeeded or not, libc has closed the number or put the file there.
    if fd >= 0 && !entry.is_empty() && TABLE.lookup(fd) == entry {
        descriptors::drop_entry(fd);
    }
    reopened
}

/// # Safety
/// `path` is null or a string; `file` is an open stream of ours.
unsafe fn reopen_ours(path: *const c_char, mode: &CStr, file: *mut File) -> Result<isize> {
    // SAFETY: the caller's promise.
    let fd = unsafe {
        fflush(file);
        __fpurge(file);
        (*file).fileno
    };
    // SAFETY: the caller's promise; the kernel checks the path.
    let done = unsafe { put_file(path, mode.to_bytes(), fd) };
    // SAFETY: the caller's promise.
    unsafe {
        match done {
            Ok(bits) => {
                (*file).flags = (*file).flags & !(NO_READS | NO_WRITES | EOF_SEEN | ERROR_SEEN) | bits;
                Ok(file as isize)
            }
            Err(error) => {
                let _ = descriptors::close(fd);
                standard::forget(fd);
                detach(file);
                Err(error)
            }
        }
    }
}

/// Opens the file at the number; gives the bits of the stream's flags that say what it is for.
///
/// # Safety
/// `path` is null or a string.
unsafe fn put_file(path: *const c_char, mode: &[u8], fd: c_int) -> Result<c_int> {
    let (flags, bits) = flags_of(mode).ok_or(EINVAL)?;
    if path.is_null() {
        return Err(ENXIO); // another mode for the same socket: sockets cannot be opened
    }
    // SAFETY: the caller's promise.
    let opened = unsafe { raw!(openat, libc::AT_FDCWD, path, flags, 0o666) }? as c_int;
    if opened == fd {
        return Ok(bits);
    }
    // SAFETY: numbers only.
    let moved = unsafe { descriptors::dup3(opened, fd, flags & O_CLOEXEC) };
    let _ = sys::close(opened);
    moved.map(|_| bits)
}

/// fopen's mode as open's flags, and as bits of a stream's.
fn flags_of(mode: &[u8]) -> Option<(c_int, c_int)> {
    let (first, rest) = mode.split_first()?;
    let rest = rest.split(|c| *c == b',').next().unwrap_or_default();
    let (mut access, more, mut bits) = match first {
        b'r' => (O_RDONLY, 0, NO_WRITES),
        b'w' => (O_WRONLY, O_CREAT | O_TRUNC, NO_READS),
        b'a' => (O_WRONLY, O_CREAT | O_APPEND, NO_READS),
        _ => return None,
    };
    if rest.contains(&b'+') {
        (access, bits) = (O_RDWR, 0);
    }
    let exclusive = if rest.contains(&b'x') { O_EXCL } else { 0 };
    let cloexec = if rest.contains(&b'e') { O_CLOEXEC } else { 0 };
    Some((access | more | exclusive | cloexec, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_fopen() {
        assert_eq!(flags_of(b"r"), Some((O_RDONLY, NO_WRITES)));
        assert_eq!(flags_of(b"rb+"), Some((O_RDWR, 0)));
        assert_eq!(flags_of(b"we"), Some((O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, NO_READS)));
        assert_eq!(flags_of(b"a+x,ccs=UTF-8+"), Some((O_RDWR | O_CREAT | O_APPEND | O_EXCL, 0)));
        assert_eq!(flags_of(b"q"), None);
        assert_eq!(flags_of(b""), None);
    }
}
