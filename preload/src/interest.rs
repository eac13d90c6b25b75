//! What an application did to a TCP socket before it connected or listened, by descriptor number: which epoll set it is
//! in (nginx adds a socket to epoll before it connects it), and whether bind() chose its port.

use crate::critical::Mutex;
use crate::sys::Result;
use libc::c_int;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

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
    /// It was given an option that only the kernel has.
    foreign: bool,
    /// [`FORKS`] when socket() made it, and 1; 0 when it was given an option or an owner since, or may have been.
    untouched_since: u32,
    /// IPV6_MTU of a datagram socket, which cannot be read back from the kernel; 0: not set.
    ipv6_mtu: u16,
}

/// How often this process, or one that it descends from, forked: whoever shares a socket may give it options.
static FORKS: AtomicU32 = AtomicU32::new(0);

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

/// socket() made it.
pub(crate) fn note_new(fd: c_int) {
    let untouched_since = FORKS.load(Ordering::Relaxed).wrapping_add(1);
    with(fd, |i| *i = Interest { untouched_since, ..Interest::default() });
}

/// It was given an option, or an owner.
pub(crate) fn touch(fd: c_int) {
    with(fd, |i| i.untouched_since = 0);
}

/// Whether its options are a new socket's: then they need not be read, which takes some sixty system calls.
pub(crate) fn is_untouched(fd: c_int) -> bool {
    let now = FORKS.load(Ordering::Relaxed).wrapping_add(1);
    with(fd, |i| i.untouched_since == now && now != 0).unwrap_or(false)
}

/// This process forked, or was made by fork.
pub(crate) fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn note_bind(fd: c_int, explicit: bool) {
    with(fd, |i| i.bound_explicitly = explicit);
}

pub(crate) fn is_explicitly_bound(fd: c_int) -> bool {
    with(fd, |i| i.bound_explicitly).unwrap_or(true)
}

/// It was given an option that only the kernel has: it stays there, also when it listens.
pub(crate) fn note_foreign(fd: c_int) {
    with(fd, |i| *i = Interest { foreign: true, ..Interest::default() });
}

pub(crate) fn is_foreign(fd: c_int) -> bool {
    with(fd, |i| i.foreign).unwrap_or(true)
}

pub(crate) fn note_ipv6_mtu(fd: c_int, mtu: c_int) {
    with(fd, |i| i.ipv6_mtu = mtu.clamp(0, u16::MAX.into()) as u16);
}

pub(crate) fn ipv6_mtu(fd: c_int) -> u16 {
    with(fd, |i| i.ipv6_mtu).unwrap_or(0)
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
