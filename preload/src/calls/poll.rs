//! poll and ppoll over kernel descriptors and user sockets, from one readiness source, which select has too.

use crate::blocking::{self, Spin};
use crate::calls::epoll::timespec_us;
use crate::calls::io;
use crate::datagrams::{self, Datagram};
use crate::epoll;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::limited_poll::is_too_many;
use crate::memory;
use crate::real::{Real, outcome, real};
use crate::signals::interrupt::Mark;
use crate::signals::sleep;
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use crate::vigil::Vigil;
use crate::{attach, changes, critical, kick, listeners};
use core::ffi::c_void;
use libc::{EINTR, EINVAL, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDNORM, c_int, c_short};
use libc::{nfds_t, pollfd, sigset_t, timespec};
use sidestep_stack::arena::MAX_QUEUES;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{SetId, SocketId};
use sidestep_stack::time::Instant;
use syscalls::Sysno;

/// Descriptors that fit on the stack; more are put into a mapping.
pub(super) const SMALL: usize = 256;
/// Ours at the end of the array: XSKs and a bell.
pub(super) const OWN: usize = MAX_QUEUES + 1;
const ROOM: c_short = POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND;
pub(super) const EMPTY: pollfd = pollfd { fd: -1, events: 0, revents: 0 };
/// While it spins, the kernel's descriptors are looked at this often.
const KERNEL_LOOK_US: u64 = 20;

static POLL: Real = Real::new(c"poll");
static PPOLL: Real = Real::new(c"ppoll");

/// Finds them: a handler that polls must not.
pub(crate) fn at_load() {
    let _ = (POLL.address(), PPOLL.address());
}

pub(crate) unsafe fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    let interest = unsafe { interest_in_all(fds, count) }?;
    if interest == Interest::Kernels
        && let Some(real) = real!(POLL as unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, c_int) -> c_int)
    {
        // SAFETY: libc's function; it may end the thread here, where nothing has to be undone.
        return outcome(unsafe { real(fds, count, timeout) });
    }
    let timeout_us = u64::try_from(timeout).ok().map(|ms| ms * 1000);
    // SAFETY: the same contract.
    unsafe { poll_us(interest, (fds, count), timeout_us, core::ptr::null()) }
}

pub(crate) unsafe fn poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, size: usize) -> Result<isize> {
    io::check((count as usize).saturating_mul(size_of::<pollfd>()), size);
    // SAFETY: the same contract.
    unsafe { poll(fds, count, timeout) }
}

pub(crate) unsafe fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Result<isize> {
    // SAFETY: the same contract.
    let interest = unsafe { interest_in_all(fds, count) }?;
    if interest == Interest::Kernels
        && let Some(real) =
            real!(PPOLL as unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int)
    {
        // SAFETY: as in `poll`.
        return outcome(unsafe { real(fds, count, timeout, mask) });
    }
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { timespec_us(timeout) }?;
    // SAFETY: the same contract.
    unsafe { poll_us(interest, (fds, count), timeout_us, mask.cast()) }
}

pub(crate) unsafe fn ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    size: usize,
) -> Result<isize> {
    io::check((count as usize).saturating_mul(size_of::<pollfd>()), size);
    // SAFETY: the same contract.
    unsafe { ppoll(fds, count, timeout, mask) }
}

/// # Safety
/// As for ppoll; what `interest_in_all` said of the array.
unsafe fn poll_us(
    interest: Interest,
    (fds, count): (*mut pollfd, nfds_t),
    timeout_us: Option<u64>,
    mask: *const c_void,
) -> Result<isize> {
    if interest != Interest::Kernels {
        memory::probe_write(fds.cast(), count as usize * size_of::<pollfd>())?;
        memory::probe_mask(mask.cast())?;
        // SAFETY: the application's array, which can be written.
        let array = unsafe { core::slice::from_raw_parts_mut(fds, count as usize) };
        return match interest {
            Interest::Ours => Poller::run(array, Meaning::Poll, timeout_us, mask),
            _ => run_watching(array, Meaning::Poll, timeout_us, mask),
        };
    }
    let mut time = timeout_us.map(sys::timespec);
    let time = sys::time_pointer(&mut time);
    let args = [fds as usize, count as usize, time as usize, mask as usize, sys::SIGSET_BYTES, 0];
    // SAFETY: the application's pointers, which the kernel checks; the timespec is ours.
    unsafe { sleep::wait(Sysno::ppoll, args) }
}

/// Whose an application's descriptors are.
///
/// # Safety
/// As for ppoll.
unsafe fn interest_in_all(fds: *const pollfd, count: nfds_t) -> Result<Interest> {
    // Without an open stack and without a listener that could open one nothing can be ours.
    if !TABLE.is_mapped() || count == 0 || count as usize > TABLE.len() || is_too_many(count as usize) {
        return Ok(Interest::Kernels);
    }
    memory::probe_read(fds.cast(), count as usize * size_of::<pollfd>())?;
    // SAFETY: the application's array, which is there to be read.
    Ok(interest_in_each(unsafe { core::slice::from_raw_parts(fds, count as usize) }))
}

/// Whose descriptors are polled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Interest {
    Kernels,
    /// One may become ours while we wait, by what another thread does.
    MayBecomeOurs,
    Ours,
}

/// Whose a descriptor is; a listener becomes live by being asked for.
#[inline]
pub(super) fn interest_in(fd: c_int) -> Interest {
    let entry = TABLE.lookup(fd);
    if entry.is_kernel() { Interest::Kernels } else { interest_in_entry(fd, entry) }
}

fn interest_in_entry(fd: c_int, entry: Entry) -> Interest {
    let is_ours = match entry.kind() {
        Kind::Stream => true,
        Kind::Listener => listeners::live(fd, entry).is_some(),
        Kind::Datagram | Kind::FreshDatagram => datagrams::receiver(fd, entry).is_some(),
        Kind::Epoll => epoll::of(entry).is_some_and(|set| set.id().is_some()),
        Kind::Kernel | Kind::Fresh => false,
    };
    match TABLE.lookup(fd).kind() {
        _ if is_ours => Interest::Ours,
        Kind::Epoll | Kind::FreshDatagram => Interest::MayBecomeOurs,
        _ => Interest::Kernels,
    }
}

fn interest_in_each(fds: &[pollfd]) -> Interest {
    fds.iter().fold(Interest::Kernels, |all, p| all.max(interest_in(p.fd)))
}

/// A poll of the kernel's descriptors that ends when one of them becomes ours, and goes on as ours then.
pub(super) fn run_watching(
    fds: &mut [pollfd],
    meaning: Meaning,
    timeout_us: Option<u64>,
    mask: *const c_void,
) -> Result<isize> {
    let deadline = timeout_us.map(|us| now().after_us(us));
    let mut small = [EMPTY; SMALL + OWN];
    let mut scratch = Scratch { mapped: core::ptr::null_mut(), len: fds.len() + OWN };
    let (asked, n) = (scratch.array(&mut small)?, fds.len());
    let _held = critical::hold(); // handlers run where it sleeps
    let mut mark = Mark::at_start();
    loop {
        let watch = changes::Watch::begin()?;
        let left = deadline.map(|at| at.since_us(now()));
        if interest_in_each(fds) == Interest::Ours {
            drop(watch);
            return Poller::run(fds, meaning, left, mask);
        }
        for (slot, p) in asked.iter_mut().zip(fds.iter()) {
            *slot = pollfd { revents: 0, ..*p };
        }
        let change = pollfd { fd: watch.fd, events: POLLIN, revents: 0 };
        if let Some(slot) = asked.get_mut(n) {
            *slot = change;
        }
        let woken = watch.sleep(asked.get_mut(..=n).unwrap_or_default(), left, mask, &mark);
        if woken == Err(EINTR) && !mark.ends(false, woken) {
            continue;
        }
        let woken = woken?;
        let mut ready = 0;
        for (p, slot) in fds.iter_mut().zip(asked.iter()) {
            p.revents = meaning.of(p.events, slot.revents);
            ready += isize::from(p.revents != 0);
        }
        if ready > 0 || woken == 0 {
            return Ok(ready);
        }
    }
}

/// What an answer means to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    Poll,
    /// Errors and hang-ups are answers only where select(2) says so.
    Select,
}

impl Meaning {
    /// The kernel's answers by now. As many as the application asks about: whether poll may is the kernel's to say, and select may.
    fn ask_kernel(self, asked: &mut [pollfd]) -> Result<isize> {
        if self == Meaning::Select {
            return sys::ppoll(asked, Some(0), core::ptr::null());
        }
        let mut at_once = sys::timespec(0);
        // SAFETY: `asked` and the timespec are ours.
        unsafe { raw!(ppoll, asked.as_mut_ptr(), asked.len(), &raw mut at_once, 0, sys::SIGSET_BYTES) }
    }

    fn of(self, asked: c_short, answer: c_short) -> c_short {
        match self {
            Meaning::Poll => answer,
            Meaning::Select => super::select::meant(asked, answer),
        }
    }
}

/// What of a descriptor is ours.
enum User {
    None,
    Socket(SocketId),
    Set(SetId),
}

fn user(fd: c_int) -> User {
    let entry: Entry = TABLE.lookup(fd);
    match entry.kind() {
        Kind::Stream => Stream::of(entry).map_or(User::None, |s| User::Socket(s.id)),
        Kind::Listener => listeners::live_already(entry).map_or(User::None, |l| User::Socket(l.id)),
        Kind::Datagram => Datagram::of(fd, entry).map_or(User::None, |d| User::Socket(d.id)),
        Kind::Epoll => epoll::of(entry).and_then(epoll::Set::id).map_or(User::None, User::Set),
        Kind::Kernel | Kind::Fresh | Kind::FreshDatagram => User::None,
    }
}

/// An array of pollfd: on the stack when it is small.
pub(super) struct Scratch {
    pub(super) mapped: *mut pollfd,
    pub(super) len: usize,
}

impl Scratch {
    pub(super) fn array<'a>(&'a mut self, small: &'a mut [pollfd; SMALL + OWN]) -> Result<&'a mut [pollfd]> {
        if self.len <= small.len() {
            return Ok(small.get_mut(..self.len).unwrap_or_default());
        }
        self.mapped = sys::map_lazily(self.len * size_of::<pollfd>())?.cast();
        // SAFETY: a zeroed mapping of `len` records, ours until `drop`.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.mapped, self.len) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.mapped.is_null() {
            // SAFETY: the slice that `array` gave out borrowed us: it is gone.
            unsafe { sys::unmap(self.mapped.cast(), self.len * size_of::<pollfd>()) };
        }
    }
}

/// What our part of a descriptor has to say.
fn answer_of(p: &pollfd, guard: &mut Guard<'_>) -> c_short {
    match user(p.fd) {
        User::None => 0,
        User::Socket(id) => match guard.readiness(id) {
            Ok(bits) => bits as c_short & (p.events | POLLERR | POLLHUP),
            Err(_) => POLLNVAL,
        },
        User::Set(id) => match guard.epoll_has_ready(id) {
            Ok(true) => (POLLIN | POLLRDNORM) & p.events,
            _ => 0,
        },
    }
}

/// Registers or takes back a bell on all our sockets.
fn watch(fds: &[pollfd], guard: &mut Guard<'_>, bell: u8, on: bool) {
    for p in fds {
        let _ = match (user(p.fd), on) {
            (User::None, _) => Ok(()),
            (User::Socket(id), true) => guard.wait_on(id, bell),
            (User::Socket(id), false) => guard.unwait(id, bell),
            (User::Set(id), true) => guard.epoll_wait_on(id, bell),
            (User::Set(id), false) => guard.epoll_unwait(id, bell),
        };
    }
}

/// One poll over a mixed array.
pub(super) struct Poller<'a> {
    stack: &'a Stack,
    /// The application's array, answers included.
    fds: &'a mut [pollfd],
    /// The same with streams blanked out (the kernel ignores negative numbers), then room for our own.
    kernel: &'a mut [pollfd],
    kernel_looked: Instant,
    meaning: Meaning,
}

impl Poller<'_> {
    pub(super) fn run(
        fds: &mut [pollfd],
        meaning: Meaning,
        timeout_us: Option<u64>,
        mask: *const c_void,
    ) -> Result<isize> {
        let Some(stack) = attach::stack() else { return Err(EINVAL) }; // nothing is ours without it
        let mut small = [EMPTY; SMALL + OWN];
        let mut scratch = Scratch { mapped: core::ptr::null_mut(), len: fds.len() + OWN };
        let kernel = scratch.array(&mut small)?;
        for (slot, asked) in kernel.iter_mut().zip(fds.iter()) {
            *slot = match TABLE.lookup(asked.fd).kind() {
                Kind::Stream => EMPTY,
                // Whether there is room to send is the engine's to say.
                Kind::Datagram => pollfd { revents: 0, events: asked.events & !ROOM, ..*asked },
                _ => pollfd { revents: 0, ..*asked },
            };
        }
        let mut poller = Poller { stack, fds, kernel, kernel_looked: Instant::ZERO, meaning };
        let ready = poller.wait(timeout_us, mask)?;
        kick::begin_batch(ready);
        Ok(ready as isize)
    }

    fn wait(&mut self, timeout_us: Option<u64>, mask: *const c_void) -> Result<usize> {
        let _held = critical::hold(); // handlers run where it sleeps, or breathes
        let (started, mut mark) = (now(), Mark::at_start());
        let deadline = timeout_us.map(|us| started.after_us(us));
        let (mut at, mut spin, mut spun) = (started, Spin::begin(started), false);
        loop {
            let ready = self.look(at)?;
            if ready > 0 {
                if spun {
                    Spin::found();
                }
                return Ok(ready);
            }
            if deadline.is_some_and(|deadline| at >= deadline) {
                // A signal that waits for this mask ends the call also when its time is up; one that waited for its end does not.
                let last = Mark::at_start();
                return if mask.is_null() { Ok(0) } else { sys::ppoll_since(&mut [], Some(0), mask, &last).map(|_| 0) };
            }
            critical::breathe();
            if mark.ends_wait() {
                return Err(EINTR);
            }
            if spin.again(self.stack) {
                (at, spun) = (now(), true);
                continue;
            }
            self.sleep(deadline, mask, &mut mark)?;
            at = now();
            (spin, spun) = (Spin::begin(at), false);
        }
    }

    /// One look at the rings, our sockets and the kernel's descriptors.
    fn look(&mut self, at: Instant) -> Result<usize> {
        let ready = {
            let mut guard = self.stack.lock();
            kick::before_wait(&mut guard, at);
            guard.poll(at);
            let ready = self.ask(&mut guard);
            if ready == 0 {
                kick::before_wait(&mut guard, at);
            }
            ready
        };
        if ready > 0 || at.since_us(self.kernel_looked) >= KERNEL_LOOK_US {
            self.kernel_looked = at;
            let n = self.fds.len();
            let asked = self.kernel.get_mut(..n).unwrap_or_default();
            self.meaning.ask_kernel(asked)?;
            return Ok(self.merge());
        }
        Ok(ready)
    }

    /// Our sockets' answers; how many have any.
    fn ask(&mut self, guard: &mut Guard<'_>) -> usize {
        let mut ready = 0;
        for p in self.fds.iter_mut() {
            p.revents = self.meaning.of(p.events, answer_of(p, guard));
            ready += usize::from(p.revents != 0);
        }
        ready
    }

    /// Adds the kernel's answers; how many have any in all.
    fn merge(&mut self) -> usize {
        let mut ready = 0;
        for (p, k) in self.fds.iter_mut().zip(self.kernel.iter_mut()) {
            let answer = core::mem::take(&mut k.revents);
            let meant = self.meaning.of(p.events, answer);
            if answer != 0 && meant == 0 {
                k.fd = -1; // hung up, which select does not ask about: it would end every sleep at once
            }
            p.revents |= meant;
            ready += usize::from(p.revents != 0);
        }
        ready
    }

    /// The last look and the sleep.
    fn sleep(&mut self, deadline: Option<Instant>, mask: *const c_void, mark: &mut Mark) -> Result<()> {
        let Poller { stack, fds, kernel, meaning, .. } = self;
        let (stack, fds, meaning) = (*stack, &**fds, *meaning);
        let forget = |guard: &mut Guard<'_>, bell| watch(fds, guard, bell, false);
        let mut vigil = Vigil::begin(stack, &forget, &|| {});
        vigil.keep();
        vigil.claim();
        let timeout = {
            let at = now();
            let mut guard = stack.lock();
            guard.poll(at);
            if fds.iter().any(|p| meaning.of(p.events, answer_of(p, &mut guard)) != 0) {
                return Ok(());
            }
            kick::before_wait(&mut guard, at);
            if let Some(bell) = vigil.bit() {
                watch(fds, &mut guard, bell, true);
            }
            vigil.fall_asleep();
            blocking::sleep_us(&guard, at, deadline, vigil.bit().is_some())
        };
        let mut len = fds.len();
        for fd in blocking::own_fds(stack, &vigil) {
            if let Some(slot) = kernel.get_mut(len) {
                *slot = pollfd { fd, events: POLLIN, revents: 0 };
                len += 1;
            }
        }
        let before = now();
        let woken = sys::ppoll_since(kernel.get_mut(..len).unwrap_or_default(), timeout, mask, mark);
        Spin::slept(now().since_us(before));
        drop(vigil);
        self.kernel_looked = Instant::ZERO;
        if woken == Err(EINTR) && !mark.ends(false, woken) { Ok(()) } else { woken.map(|_| ()) }
    }
}
