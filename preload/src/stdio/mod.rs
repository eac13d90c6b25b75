//! Streams of libc (FILE) upon user sockets. libc reads and writes its streams' descriptors by calls of its own, which no
//! library can come between. So a stream upon a user socket is one with functions of ours (fopencookie), that go where read,
//! write and close go; and it is given the descriptor's number, which fileno() tells.
//!
//! - `cookie.rs`: such a stream; fdopen makes one when the number is a TCP or UDP socket's that is or may become a user socket;
//! - `print.rs`: dprintf formats, and writes;
//! - `reopen.rs`: freopen moves a file onto the stream's number: what was there is gone then;
//! - `standard.rs`: when a user socket comes to stand on 0, 1 or 2 (inetd, dup2), stdin, stdout or stderr become such streams;
//!   when it leaves, they become what they were.

mod cookie;
mod print;
mod reopen;
mod standard;

pub(crate) use cookie::{File, fdopen};
pub(crate) use print::{vdprintf, vdprintf_chk};
pub(crate) use reopen::{freopen, freopen64};
pub(crate) use standard::{after_fork, follow};

use crate::fd_table::{Kind, TABLE};
use crate::sys::Result;
use core::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Whether a stream upon `fd` has to be one of ours.
fn is_ours(fd: c_int) -> bool {
    matches!(TABLE.lookup(fd).kind(), Kind::Stream | Kind::Datagram | Kind::Fresh | Kind::FreshDatagram)
}

/// A function of libc's that we export ourselves.
struct Original {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Original {
    const fn new(name: &'static CStr) -> Original {
        Original { name, at: AtomicPtr::new(core::ptr::null_mut()) }
    }

    fn find(&self) -> Result<*mut c_void> {
        let mut at = self.at.load(Ordering::Acquire);
        if at.is_null() {
            // SAFETY: a NUL-terminated name.
            at = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.at.store(at, Ordering::Release);
        }
        if at.is_null() { Err(libc::ENOSYS) } else { Ok(at) }
    }
}

/// A pointer that libc's function returned, or its errno.
fn pointer(file: *mut File) -> Result<isize> {
    // SAFETY: libc's errno is always valid.
    if file.is_null() { Err(unsafe { *libc::__errno_location() }) } else { Ok(file as isize) }
}
