//! The epoll calls: which descriptor goes where. What a wait does is in [`crate::epoll`].

use crate::calls::fd::drop_entry;
use crate::datagrams::{self, Datagram};
use crate::epoll::{self, Member, Out, Set, Waiting};
use crate::fd_table::{Kind, TABLE};
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use crate::{attach, interest, listeners};
use libc::{EFAULT, EINVAL, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event, sigset_t, timespec};

pub(crate) unsafe fn create(size: c_int) -> Result<isize> {
    if size <= 0 {
        return Err(EINVAL);
    }
    // SAFETY: numbers only.
    unsafe { create1(0) }
}

pub(crate) unsafe fn create1(flags: c_int) -> Result<isize> {
    // SAFETY: numbers only.
    let fd = unsafe { raw!(epoll_create1, flags) }?;
    if TABLE.is_mapped() {
        drop_entry(fd as c_int);
        note_set(fd as c_int);
    }
    Ok(fd)
}

fn note_set(fd: c_int) -> Option<&'static Set> {
    let entry = epoll::new_set()?;
    TABLE.set(fd, entry);
    epoll::of(entry)
}

/// The set of an epoll descriptor; one that we did not see being made (before we were armed, by exec) is noted now.
fn set_of(epfd: c_int, probe: c_int) -> Result<&'static Set> {
    if let Some(set) = epoll::of(TABLE.lookup(epfd)) {
        return Ok(set);
    }
    // The kernel says whether it is an epoll descriptor at all: what is not in the set cannot be deleted from it.
    // SAFETY: no event is passed.
    match unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_DEL, probe, 0) } {
        Ok(_) | Err(libc::ENOENT) => note_set(epfd).ok_or(libc::ENOMEM),
        Err(e) => Err(e),
    }
}

pub(crate) unsafe fn ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    let forward = || {
        // SAFETY: the application's pointer; the kernel checks it.
        unsafe { raw!(epoll_ctl, epfd, op, fd, event) }
    };
    if entry.is_kernel() {
        return forward();
    }
    let read = || {
        // SAFETY: the application's pointer, which EPOLL_CTL_DEL does not need.
        (!event.is_null()).then(|| unsafe { event.read_unaligned() })
    };
    match entry.kind() {
        Kind::Stream => {
            let stream = Stream::of(entry).ok_or(libc::EBADF)?;
            if op != EPOLL_CTL_DEL && event.is_null() {
                return Err(EFAULT);
            }
            let set = set_of(epfd, fd)?;
            sys::done(epoll::control(set, epfd, op, Member { id: stream.id, stack: stream.stack, fd }, read()))
        }
        Kind::Fresh => {
            let done = forward()?;
            note_interest(fd, epfd, op, read());
            Ok(done)
        }
        Kind::Datagram | Kind::FreshDatagram => {
            let Some(datagram) = of_interest(fd, entry, op) else {
                let done = forward()?;
                if entry.kind() == Kind::FreshDatagram {
                    note_interest(fd, epfd, op, read());
                }
                return Ok(done);
            };
            if op != EPOLL_CTL_DEL && event.is_null() {
                return Err(EFAULT);
            }
            // Whether there is room to send is the engine's to say; the rest may come from either.
            let mut shadows = read().unwrap_or(epoll_event { events: 0, u64: 0 });
            shadows.events &= !epoll::ROOM;
            // SAFETY: `shadows` is ours.
            let done = unsafe { raw!(epoll_ctl, epfd, op, fd, &raw mut shadows) }?;
            let set = epoll::of(TABLE.lookup(epfd)).or_else(|| note_set(epfd)).ok_or(libc::ENOMEM)?;
            epoll::control_datagram(set, epfd, op, &datagram, read())?;
            Ok(done)
        }
        Kind::Listener => {
            let done = forward()?;
            // Adding it is the first interest in accepting; after that both sets have it.
            if let Some(live) = listeners::live(fd, entry)
                && let Ok(set) = epoll::of(TABLE.lookup(epfd)).or_else(|| note_set(epfd)).ok_or(libc::ENOMEM)
            {
                let _ = epoll::control(set, epfd, op, Member { id: live.id, stack: live.stack, fd }, read());
            }
            Ok(done)
        }
        Kind::Epoll | Kind::Kernel => forward(),
    }
}

/// The datagram socket that this is about; to add a bound one is an interest in receiving.
fn of_interest(fd: c_int, entry: crate::fd_table::Entry, op: c_int) -> Option<Datagram> {
    if op == EPOLL_CTL_ADD { datagrams::receiver(fd, entry) } else { Datagram::of(fd, entry) }
}

/// A socket that may become ours is in the kernel's set meanwhile.
fn note_interest(fd: c_int, epfd: c_int, op: c_int, event: Option<epoll_event>) {
    match (op, event) {
        (EPOLL_CTL_ADD | EPOLL_CTL_MOD, Some(e)) => interest::note_epoll(fd, epfd, e.events, e.u64),
        _ => interest::forget_epoll(fd, epfd),
    }
    if op == EPOLL_CTL_ADD {
        let _ = epoll::of(TABLE.lookup(epfd)).or_else(|| note_set(epfd));
    }
}

pub(crate) unsafe fn wait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { pwait(epfd, events, max, timeout, core::ptr::null()) }
}

pub(crate) unsafe fn pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> Result<isize> {
    let Some(set) = mixed_set(epfd) else {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(epoll_pwait, epfd, events, max, timeout, mask, sys::SIGSET_BYTES) };
    };
    let timeout_us = u64::try_from(timeout).ok().map(|ms| ms * 1000);
    // SAFETY: the application's array.
    let out = unsafe { Out::new(events, max) }.ok_or(EINVAL)?;
    Waiting { set, epfd, out, timeout_us, sigmask: mask.cast() }.run()
}

pub(crate) unsafe fn pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Result<isize> {
    let Some(set) = mixed_set(epfd) else {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(epoll_pwait2, epfd, events, max, timeout, mask, sys::SIGSET_BYTES) };
    };
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { timespec_us(timeout) }?;
    // SAFETY: the application's array.
    let out = unsafe { Out::new(events, max) }.ok_or(EINVAL)?;
    Waiting { set, epfd, out, timeout_us, sigmask: mask.cast() }.run()
}

/// The set, if user sockets are in it or may come while the call waits: once the stack is open any thread can add one.
fn mixed_set(epfd: c_int) -> Option<&'static Set> {
    let entry = TABLE.lookup(epfd);
    if entry.is_kernel() { None } else { epoll::of(entry).filter(|set| set.id().is_some() || attach::is_armed()) }
}

/// A timeout in microseconds, rounded up; `None` when it is null: for ever.
///
/// # Safety
/// Null or readable.
pub(crate) unsafe fn timespec_us(time: *const timespec) -> Result<Option<u64>> {
    if time.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let t = unsafe { time.read_unaligned() };
    if t.tv_sec < 0 || !(0..1_000_000_000).contains(&t.tv_nsec) {
        return Err(EINVAL);
    }
    Ok(Some((t.tv_sec as u64).saturating_mul(1_000_000).saturating_add((t.tv_nsec as u64).div_ceil(1000))))
}
