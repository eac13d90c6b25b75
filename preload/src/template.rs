//! The template: an unconnected kernel socket whose duplicates are the descriptors of accepted connections. A
//! duplicate is a real descriptor (a socket to fstat, bounded by RLIMIT_NOFILE, in /proc/self/fd) and costs one call.
//!
//! A listener that was told options which its connections inherit has a template of its own, with those.

use crate::sys::{self, Result};
use crate::{hidden, own_socket};
use libc::{AF_INET6, F_DUPFD, F_DUPFD_CLOEXEC, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// Listeners that may have one of their own: each is a hidden descriptor. Connections of those beyond tell the defaults.
const OWN_MAX: usize = 32;

/// For AF_INET and AF_INET6; then for each listener that has one.
static TEMPLATES: [AtomicI32; 2 + OWN_MAX] = [const { AtomicI32::new(-1) }; 2 + OWN_MAX];

/// A new descriptor of the family, for a connection of the listener with this index.
pub(crate) fn descriptor(family: c_int, listener: usize, close_on_exec: bool) -> Result<c_int> {
    let common = usize::from(family == AF_INET6);
    let own = TEMPLATES.get(2 + listener).map_or(-1, |slot| slot.load(Ordering::Acquire));
    let template = match own {
        -1 => match TEMPLATES[common].load(Ordering::Acquire) {
            -1 => make(&TEMPLATES[common], family, None)?,
            fd => fd,
        },
        fd => fd,
    };
    let command = if close_on_exec { F_DUPFD_CLOEXEC } else { F_DUPFD };
    sys::fcntl(template, command, 0).map(|fd| fd as c_int)
}

/// The listener was told something, or begins: connections to come inherit what it was told.
pub(crate) fn follow_listener(listener: usize, fd: c_int, family: c_int) {
    forget_listener(listener);
    if let Some(slot) = TEMPLATES.get(2 + listener)
        && own_socket::has_been_told(fd, family)
    {
        let _ = make(slot, family, Some(fd));
    }
}

/// Whether connections of this listener inherit anything by their template.
pub(crate) fn is_own(listener: usize) -> bool {
    TEMPLATES.get(2 + listener).is_some_and(|slot| slot.load(Ordering::Acquire) >= 0)
}

pub(crate) fn forget_listener(listener: usize) {
    if let Some(slot) = TEMPLATES.get(2 + listener) {
        let fd = slot.swap(-1, Ordering::AcqRel);
        if fd >= 0 {
            hidden::close(fd);
        }
    }
}

/// One of ours got another number. False: it was not here.
pub(crate) fn renumber(old: c_int, new: c_int) -> bool {
    TEMPLATES.iter().any(|t| t.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

fn make(slot: &AtomicI32, family: c_int, like: Option<c_int>) -> Result<c_int> {
    let fd = sys::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)?;
    like.into_iter().for_each(|told| own_socket::copy(told, fd));
    let fd = hidden::hide(fd);
    match slot.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fd),
        Err(other) => {
            hidden::close(fd);
            Ok(other)
        }
    }
}
