//! The epoll calls: which descriptor goes where. What a wait does is in [`crate::epoll_wait`].

use crate::calls::fd::drop_entry;
use crate::datagrams::{self, Datagram};
use crate::epoll::{self, Set};
use crate::epoll_members::{Member, in_kernel};
use crate::epoll_wait::{Out, Waiting};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::memory;
use crate::signals::interrupt::Mark;
use crate::signals::sleep;
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use crate::{attach, interest, listeners, nests, waiters};
use libc::{EINTR, EINVAL, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event, sigset_t, timespec};
use sidestep_stack::runtime::now;
use syscalls::Sysno;

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
    let before = TABLE.lookup(fd);
    if !before.is_kernel() || !TABLE.replace_if(fd, before, entry) {
        epoll::remove_descriptor(entry); // another thread was faster
    }
    epoll::of(TABLE.lookup(fd))
}

/// The set of an epoll descriptor; one that we did not see being made (before we were armed, by exec) is noted now.
fn set_of(epfd: c_int) -> Result<&'static Set> {
    if let Some(set) = epoll::of(TABLE.lookup(epfd)) {
        return Ok(set);
    }
    // The kernel says whether it is an epoll descriptor at all: what is not in the set cannot be deleted from it.
    match in_kernel(epfd, EPOLL_CTL_DEL, epoll::nudge_descriptor()?, 0, 0) {
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
        unsafe { memory::read(event) }.ok()
    };
    if op != EPOLL_CTL_DEL {
        memory::probe_read(event.cast(), size_of::<epoll_event>())?;
    }
    let control = |member: Member| member.control(set_of(epfd)?, epfd, op, read());
    match entry.kind() {
        Kind::Stream => control(Member::stream(fd, &Stream::of(entry).ok_or(libc::EBADF)?)),
        Kind::Fresh => {
            let done = forward()?;
            note_interest(fd, epfd, op, read());
            Ok(done)
        }
        Kind::Datagram | Kind::FreshDatagram => match of_interest(fd, entry, op) {
            Some(datagram) => control(Member::datagram(&datagram)),
            None => {
                let done = forward()?;
                if entry.kind() == Kind::FreshDatagram {
                    note_interest(fd, epfd, op, read());
                }
                Ok(done)
            }
        },
        // Adding it is the first interest in accepting, and taking it out is none.
        Kind::Listener => {
            let wanted = if op == EPOLL_CTL_DEL { listeners::live_already(entry) } else { listeners::live(fd, entry) };
            match wanted {
                Some(live) => control(Member::listener(fd, &live)),
                None => forward(),
            }
        }
        Kind::Epoll => match set_of(epfd) {
            Ok(_) => {
                let event = read().unwrap_or(epoll_event { events: 0, u64: 0 });
                nests::control((epfd, TABLE.lookup(epfd)), op, (fd, entry), event)
            }
            Err(_) => forward(),
        },
        Kind::Kernel => forward(),
    }
}

/// The datagram socket that this is about; to add a bound one is an interest in receiving.
fn of_interest(fd: c_int, entry: Entry, op: c_int) -> Option<Datagram> {
    if op == EPOLL_CTL_ADD { datagrams::receiver(fd, entry) } else { Datagram::of(fd, entry) }
}

/// A socket that may become ours is in the kernel's set meanwhile.
fn note_interest(fd: c_int, epfd: c_int, op: c_int, event: Option<epoll_event>) {
    match (op, event) {
        (EPOLL_CTL_ADD | EPOLL_CTL_MOD, Some(e)) => interest::note_epoll(fd, epfd, e.events, e.u64),
        _ => interest::forget_epoll(fd, epfd),
    }
    if op == EPOLL_CTL_ADD {
        let _ = set_of(epfd);
    }
}

pub(crate) unsafe fn wait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { pwait(epfd, events, max, timeout, core::ptr::null()) }
}

/// epoll_pwait, or what is cheaper by a twentieth without a mask, where the machine has it.
#[inline]
fn plain_wait(mask: *const sigset_t) -> Sysno {
    #[cfg(target_arch = "x86_64")]
    if mask.is_null() {
        return Sysno::epoll_wait;
    }
    let _ = mask;
    Sysno::epoll_pwait
}

pub(crate) unsafe fn pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> Result<isize> {
    let args = [epfd as usize, events as usize, max as usize, timeout as usize, mask as usize, sys::SIGSET_BYTES];
    // SAFETY: the application's pointers; the kernel checks them.
    let plain = || unsafe { sleep::wait(plain_wait(mask), args) };
    let Some(set) = mixed_set(epfd) else { return plain() };
    if set.id().is_none() {
        waiters::claim();
    }
    let timeout_us = u64::try_from(timeout).ok().map(|ms| ms * 1000);
    memory::probe_mask(mask)?;
    // SAFETY: the application's array.
    let out = unsafe { Out::new(events, max) }?;
    Waiting { set, epfd, out, timeout_us, sigmask: mask.cast() }.run(plain)
}

/// As [`after_pwait`].
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn after_wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    result: isize,
) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { after_pwait(epfd, events, max, timeout, core::ptr::null(), result) }
}

/// What there is to do after a wait of `exported_waits.rs`: the kernel ended it with an error, or the set has a user socket by now, or
/// somebody wants the thread cancelled.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn after_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
    result: isize,
) -> Result<isize> {
    let result = if (-4095..0).contains(&result) { Err(-result as c_int) } else { Ok(result) };
    let Some((waiter, set)) = waiters::own().and_then(|waiter| Some((waiter, waiter.set()?))) else { return result };
    set.left(epfd);
    let left_us = |us: u64| if us == 0 { 0 } else { us.saturating_sub(waiter.waited_us()) };
    let timeout_us = u64::try_from(timeout).ok().map(|ms| left_us(ms * 1000));
    match result {
        Err(EINTR) if !Mark::since(waiter.events()).ends(false, result) => {
            let left = timeout_us.map_or(-1, |us| us.div_ceil(1000) as c_int);
            // SAFETY: the same contract.
            unsafe { pwait(epfd, events, max, left, mask) }
        }
        Ok(n @ 1..) => {
            // SAFETY: the application's array.
            let out = unsafe { Out::new(events, max) }?;
            let deadline = timeout_us.map(|us| now().after_us(us));
            Waiting { set, epfd, out, timeout_us, sigmask: mask.cast() }.go_on(n as usize, deadline)
        }
        result => result,
    }
}

pub(crate) unsafe fn pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Result<isize> {
    let args = [epfd as usize, events as usize, max as usize, timeout as usize, mask as usize, sys::SIGSET_BYTES];
    // SAFETY: the application's pointers; the kernel checks them.
    let plain = || unsafe { sleep::wait(Sysno::epoll_pwait2, args) };
    let Some(set) = mixed_set(epfd) else { return plain() };
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { timespec_us(timeout) }?;
    memory::probe_mask(mask)?;
    // SAFETY: the application's array.
    let out = unsafe { Out::new(events, max) }?;
    Waiting { set, epfd, out, timeout_us, sigmask: mask.cast() }.run(plain)
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
    let t = unsafe { memory::read(time) }?;
    if t.tv_sec < 0 || !(0..1_000_000_000).contains(&t.tv_nsec) {
        return Err(EINVAL);
    }
    Ok(Some((t.tv_sec as u64).saturating_mul(1_000_000).saturating_add((t.tv_nsec as u64).div_ceil(1000))))
}
