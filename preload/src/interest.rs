//! What an application did to a TCP socket before it connected or listened, by descriptor number: which epoll set it is
//! in (nginx adds a socket to epoll before it connects it), and whether bind() chose its port.

use crate::sys::Result;
use libc::c_int;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// One number's record. All zeroes: nothing was done.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Interest {
    /// Epoll descriptor + 1, or 0.
    pub(crate) epfd: u32,
    pub(crate) events: u32,
    pub(crate) data: u64,
    bound_explicitly: bool,
    /// It is in more than one set: then it stays on the kernel.
    several: bool,
}

static BASE: AtomicPtr<Interest> = AtomicPtr::new(core::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);
/// Guards all records. Sockets that have not connected yet are touched rarely.
static LOCK: Mutex<()> = Mutex::new(());

/// Maps a record for each of `len` descriptors.
pub(crate) fn map(len: usize) -> Result<()> {
    if LEN.load(Ordering::Acquire) == 0 {
        BASE.store(crate::sys::map_lazily(len * size_of::<Interest>())?.cast(), Ordering::Relaxed);
        LEN.store(len, Ordering::Release);
    }
    Ok(())
}

fn with<T>(fd: c_int, act: impl FnOnce(&mut Interest) -> T) -> Option<T> {
    if fd as usize >= LEN.load(Ordering::Acquire) {
        return None;
    }
    let _locked = LOCK.lock();
    // SAFETY: the mapping has LEN zeroed records (valid as such) and is never unmapped; LOCK makes access exclusive.
    Some(act(unsafe { &mut *BASE.load(Ordering::Relaxed).add(fd as usize) }))
}

/// The descriptor is new, or served by the kernel from now on.
pub(crate) fn forget(fd: c_int) {
    with(fd, |i| *i = Interest::default());
}

pub(crate) fn note_bind(fd: c_int, explicit: bool) {
    with(fd, |i| i.bound_explicitly = explicit);
}

pub(crate) fn is_explicitly_bound(fd: c_int) -> bool {
    with(fd, |i| i.bound_explicitly).unwrap_or(true)
}

/// Whether it is in more than one epoll set.
pub(crate) fn is_in_several(fd: c_int) -> bool {
    with(fd, |i| i.several).unwrap_or(true)
}

/// epoll_ctl ADD or MOD succeeded in the kernel.
pub(crate) fn note_epoll(fd: c_int, epfd: c_int, events: u32, data: u64) {
    with(fd, |i| {
        let epfd = epfd as u32 + 1;
        i.several |= i.epfd != 0 && i.epfd != epfd;
        (i.epfd, i.events, i.data) = (epfd, events, data);
    });
}

/// epoll_ctl DEL succeeded in the kernel.
pub(crate) fn forget_epoll(fd: c_int, epfd: c_int) {
    with(fd, |i| {
        if i.epfd == epfd as u32 + 1 {
            i.epfd = 0;
        }
    });
}

/// Takes the interest, for a listener.
pub(crate) fn take(fd: c_int) -> Option<Interest> {
    with(fd, core::mem::take).filter(|i| i.epfd != 0)
}

/// Takes the interest unless the socket is in several sets.
pub(crate) fn take_if_single(fd: c_int) -> core::result::Result<Option<Interest>, ()> {
    with(fd, |i| if i.several { Err(()) } else { Ok(core::mem::take(i)) })
        .unwrap_or(Err(()))
        .map(|i| Some(i).filter(|i| i.epfd != 0))
}

pub(crate) fn put_back(fd: c_int, interest: Option<Interest>) {
    if let Some(interest) = interest {
        with(fd, |i| *i = interest);
    }
}
