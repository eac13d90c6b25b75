//! The template: an unconnected kernel socket whose duplicates are the descriptors of accepted connections. A
//! duplicate is a real descriptor (a socket to fstat, bounded by RLIMIT_NOFILE, in /proc/self/fd) and costs one call.

use crate::hidden;
use crate::sys::{self, Result};
use libc::{AF_INET6, F_DUPFD, F_DUPFD_CLOEXEC, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// For AF_INET and AF_INET6.
static TEMPLATES: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

/// A new descriptor of the family.
pub(crate) fn descriptor(family: c_int, close_on_exec: bool) -> Result<c_int> {
    let slot = &TEMPLATES[usize::from(family == AF_INET6)];
    let template = match slot.load(Ordering::Acquire) {
        -1 => make(slot, family)?,
        fd => fd,
    };
    let command = if close_on_exec { F_DUPFD_CLOEXEC } else { F_DUPFD };
    sys::fcntl(template, command, 0).map(|fd| fd as c_int)
}

fn make(slot: &AtomicI32, family: c_int) -> Result<c_int> {
    let fd = hidden::hide(sys::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)?);
    match slot.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fd),
        Err(other) => {
            hidden::close(fd);
            Ok(other)
        }
    }
}
