//! poll, ppoll, select and pselect over kernel descriptors and user sockets, from one readiness source.

use crate::blocking::{self, Spin};
use crate::calls::epoll::timespec_us;
use crate::datagrams::{self, Datagram};
use crate::epoll;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use crate::{attach, kick, listeners};
use core::ffi::c_void;
use libc::{EFAULT, EINVAL, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDNORM, c_int, c_short};
use libc::{fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use sidestep_stack::arena::MAX_QUEUES;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{SetId, SocketId};
use sidestep_stack::time::Instant;

/// Descriptors that fit on the stack; more are put into a mapping.
const SMALL: usize = 256;
/// Ours at the end of the array: XSKs and a bell.
const OWN: usize = MAX_QUEUES + 1;
const ROOM: c_short = POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND;
const EMPTY: pollfd = pollfd { fd: -1, events: 0, revents: 0 };
/// While it spins, the kernel's descriptors are looked at this often.
const KERNEL_LOOK_US: u64 = 20;

pub(crate) unsafe fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> Result<isize> {
    let timeout_us = u64::try_from(timeout).ok().map(|ms| ms * 1000);
    // SAFETY: the same contract.
    unsafe { poll_us(fds, count, timeout_us, core::ptr::null()) }
}

pub(crate) unsafe fn poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, _size: usize) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { poll(fds, count, timeout) }
}

pub(crate) unsafe fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Result<isize> {
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { timespec_us(timeout) }?;
    // SAFETY: the same contract.
    unsafe { poll_us(fds, count, timeout_us, mask.cast()) }
}

pub(crate) unsafe fn ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    _size: usize,
) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { ppoll(fds, count, timeout, mask) }
}

/// # Safety
/// As for ppoll.
unsafe fn poll_us(fds: *mut pollfd, count: nfds_t, timeout_us: Option<u64>, mask: *const c_void) -> Result<isize> {
    // Without an open stack and without a listener that could open one nothing can be ours.
    if TABLE.is_mapped() && !fds.is_null() && count as usize <= TABLE.len() {
        // SAFETY: the application's array.
        let array = unsafe { core::slice::from_raw_parts_mut(fds, count as usize) };
        if show_interest(array.iter().map(|p| p.fd))
            && let Some(stack) = attach::stack()
        {
            return Poller::run(stack, array, timeout_us, mask);
        }
    }
    let mut time = timeout_us.map(sys::timespec);
    let time = sys::time_pointer(&mut time);
    // SAFETY: the application's pointers, which the kernel checks; the timespec is ours.
    unsafe { raw!(ppoll, fds, count, time, mask, sys::SIGSET_BYTES) }
}

/// Whether any descriptor is ours; a listener becomes live by being asked for.
fn show_interest(fds: impl Iterator<Item = c_int>) -> bool {
    let mut any = false;
    for fd in fds {
        let entry = TABLE.lookup(fd);
        any |= match entry.kind() {
            Kind::Stream => true,
            Kind::Listener => listeners::live(fd, entry).is_some(),
            Kind::Datagram | Kind::FreshDatagram => datagrams::receiver(fd, entry).is_some(),
            Kind::Epoll => epoll::of(entry).is_some_and(|set| set.id().is_some()),
            Kind::Kernel | Kind::Fresh => false,
        };
    }
    any
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
struct Scratch {
    mapped: *mut pollfd,
    len: usize,
}

impl Scratch {
    fn array<'a>(&'a mut self, small: &'a mut [pollfd; SMALL + OWN]) -> Result<&'a mut [pollfd]> {
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

/// One poll over a mixed array.
struct Poller<'a> {
    stack: &'a Stack,
    /// The application's array, answers included.
    fds: &'a mut [pollfd],
    /// The same with streams blanked out (the kernel ignores negative numbers), then room for our own.
    kernel: &'a mut [pollfd],
    kernel_looked: Instant,
}

impl Poller<'_> {
    fn run(stack: &Stack, fds: &mut [pollfd], timeout_us: Option<u64>, mask: *const c_void) -> Result<isize> {
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
        let mut poller = Poller { stack, fds, kernel, kernel_looked: Instant::ZERO };
        let ready = poller.wait(timeout_us, mask)?;
        kick::begin_batch(ready);
        Ok(ready as isize)
    }

    fn wait(&mut self, timeout_us: Option<u64>, mask: *const c_void) -> Result<usize> {
        let started = now();
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
                return Ok(0);
            }
            if spin.again(self.stack) {
                (at, spun) = (now(), true);
                continue;
            }
            if let Some(ready) = self.sleep(deadline, mask)? {
                return Ok(ready);
            }
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
            sys::ppoll(asked, Some(0), core::ptr::null())?;
            return Ok(self.merge());
        }
        Ok(ready)
    }

    /// Our sockets' answers; how many have any.
    fn ask(&mut self, guard: &mut Guard<'_>) -> usize {
        let mut ready = 0;
        for p in self.fds.iter_mut() {
            p.revents = match user(p.fd) {
                User::None => 0,
                User::Socket(id) => match guard.readiness(id) {
                    Ok(bits) => bits as c_short & (p.events | POLLERR | POLLHUP),
                    Err(_) => POLLNVAL,
                },
                User::Set(id) => match guard.epoll_has_ready(id) {
                    Ok(true) => (POLLIN | POLLRDNORM) & p.events,
                    _ => 0,
                },
            };
            ready += usize::from(p.revents != 0);
        }
        ready
    }

    /// Adds the kernel's answers; how many have any in all.
    fn merge(&mut self) -> usize {
        let mut ready = 0;
        for (p, k) in self.fds.iter_mut().zip(self.kernel.iter_mut()) {
            p.revents |= core::mem::take(&mut k.revents);
            ready += usize::from(p.revents != 0);
        }
        ready
    }

    /// Registers or takes back a bell on all our sockets.
    fn watch(&self, guard: &mut Guard<'_>, bell: u8, on: bool) {
        for p in self.fds.iter() {
            let _ = match (user(p.fd), on) {
                (User::None, _) => Ok(()),
                (User::Socket(id), true) => guard.wait_on(id, bell),
                (User::Socket(id), false) => guard.unwait(id, bell),
                (User::Set(id), true) => guard.epoll_wait_on(id, bell),
                (User::Set(id), false) => guard.epoll_unwait(id, bell),
            };
        }
    }

    /// The last look and the sleep. `Some`: ready at the last moment.
    fn sleep(&mut self, deadline: Option<Instant>, mask: *const c_void) -> Result<Option<usize>> {
        let bell = self.stack.claim_bell(attach::process());
        let timeout = {
            let at = now();
            let mut guard = self.stack.lock();
            guard.poll(at);
            let ready = self.ask(&mut guard);
            if ready > 0 {
                return Ok(Some(ready));
            }
            kick::before_wait(&mut guard, at);
            if let Some(bell) = &bell {
                self.watch(&mut guard, bell.bit(), true);
            }
            self.stack.sleep_begin();
            blocking::sleep_us(&guard, at, deadline, bell.is_some())
        };
        let n = self.fds.len();
        let mut len = n;
        for fd in blocking::own_fds(self.stack, bell.as_ref()) {
            if let Some(slot) = self.kernel.get_mut(len) {
                *slot = pollfd { fd, events: POLLIN, revents: 0 };
                len += 1;
            }
        }
        let before = now();
        let woken = sys::ppoll(self.kernel.get_mut(..len).unwrap_or_default(), timeout, mask);
        Spin::slept(now().since_us(before));
        self.stack.sleep_end();
        if let Some(bell) = &bell {
            self.watch(&mut self.stack.lock(), bell.bit(), false);
        }
        self.kernel_looked = Instant::ZERO;
        woken.map(|_| None)
    }
}

// ---- select ----

/// What select's three sets ask of a descriptor, and what of poll's answers means yes (Linux: fs/select.c).
const ASKED: [c_short; 3] = [POLLIN, POLLOUT, POLLPRI];
const YES: [c_short; 3] = [
    POLLRDNORM | libc::POLLRDBAND | POLLIN | POLLHUP | POLLERR,
    libc::POLLWRBAND | libc::POLLWRNORM | POLLOUT | POLLERR,
    POLLPRI,
];

/// The application's three sets, as words.
struct Sets {
    words: [*mut u64; 3],
    count: usize,
}

impl Sets {
    fn bit(&self, which: usize, fd: usize) -> bool {
        let Some(words) = self.words.get(which).filter(|w| !w.is_null()) else { return false };
        // SAFETY: the application's set has bits for `count` descriptors, and fd is below.
        fd < self.count && unsafe { words.add(fd / 64).read_unaligned() } >> (fd % 64) & 1 != 0
    }

    fn asked(&self, fd: usize) -> c_short {
        (0..3).filter(|which| self.bit(*which, fd)).fold(0, |asked, which| asked | ASKED[which])
    }

    fn clear(&self) {
        for words in self.words.iter().filter(|w| !w.is_null()) {
            for word in 0..self.count.div_ceil(64) {
                let in_use = if self.count >= (word + 1) * 64 { u64::MAX } else { (1 << (self.count % 64)) - 1 };
                // SAFETY: as in `bit`; bits beyond `count` keep their value.
                unsafe { words.add(word).write_unaligned(words.add(word).read_unaligned() & !in_use) };
            }
        }
    }

    fn put(&self, which: usize, fd: usize) {
        if let Some(words) = self.words.get(which).filter(|w| !w.is_null()) {
            // SAFETY: as in `bit`.
            unsafe { words.add(fd / 64).write_unaligned(words.add(fd / 64).read_unaligned() | 1 << (fd % 64)) };
        }
    }
}

/// The common part. `None`: nothing of ours is in the sets.
fn select_us(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout_us: Option<u64>,
    mask: *const c_void,
) -> Option<Result<isize>> {
    if !TABLE.is_mapped() || count < 0 {
        return None;
    }
    let sets = Sets { words: sets.map(<*mut fd_set>::cast), count: (count as usize).min(TABLE.len()) };
    let fds = || (0..sets.count).filter(|fd| sets.asked(*fd) != 0);
    if !show_interest(fds().map(|fd| fd as c_int)) {
        return None;
    }
    let stack = attach::stack()?;
    let mut small = [EMPTY; SMALL + OWN];
    let mut scratch = Scratch { mapped: core::ptr::null_mut(), len: fds().count() };
    let array = match scratch.array(&mut small) {
        Ok(array) => array,
        Err(e) => return Some(Err(e)),
    };
    for (slot, fd) in array.iter_mut().zip(fds()) {
        *slot = pollfd { fd: fd as c_int, events: sets.asked(fd), revents: 0 };
    }
    Some(Poller::run(stack, array, timeout_us, mask).and_then(|_| answer(&sets, array)))
}

fn answer(sets: &Sets, array: &[pollfd]) -> Result<isize> {
    if array.iter().any(|p| p.revents & POLLNVAL != 0) {
        return Err(libc::EBADF);
    }
    sets.clear();
    let mut bits = 0;
    for p in array {
        for which in 0..3 {
            if p.events & ASKED[which] != 0 && p.revents & YES[which] != 0 {
                sets.put(which, p.fd as usize);
                bits += 1;
            }
        }
    }
    Ok(bits)
}

pub(crate) unsafe fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> Result<isize> {
    let sets = [read, write, except];
    // SAFETY: the application's pointer.
    let given = (!timeout.is_null()).then(|| unsafe { timeout.read_unaligned() });
    if given.is_some_and(|t| t.tv_sec < 0 || t.tv_usec < 0) {
        return Err(EINVAL);
    }
    let given_us = given.map(|t| (t.tv_sec as u64).saturating_mul(1_000_000).saturating_add(t.tv_usec as u64));
    let started = now();
    let result = match select_us(count, sets, given_us, core::ptr::null()) {
        Some(result) => result,
        None => {
            let mut time = given_us.map(sys::timespec);
            let time = sys::time_pointer(&mut time);
            // SAFETY: the application's pointers, which the kernel checks; the timespec is ours.
            unsafe { raw!(pselect6, count, read, write, except, time, 0) }
        }
    };
    if let Some(us) = given_us.filter(|_| result != Err(EFAULT)) {
        // Linux leaves what remains of the time.
        let left = us.saturating_sub(now().since_us(started));
        let left = timeval { tv_sec: (left / 1_000_000) as _, tv_usec: (left % 1_000_000) as _ };
        // SAFETY: the application's pointer.
        unsafe { timeout.write_unaligned(left) };
    }
    result
}

pub(crate) unsafe fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Result<isize> {
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { timespec_us(timeout) }?;
    if let Some(result) = select_us(count, [read, write, except], timeout_us, mask.cast()) {
        return result;
    }
    let mut time = timeout_us.map(sys::timespec);
    let time = sys::time_pointer(&mut time);
    let mask_and_size = [mask as usize, sys::SIGSET_BYTES];
    // SAFETY: the application's pointers, which the kernel checks; timespec and pair are ours.
    unsafe { raw!(pselect6, count, read, write, except, time, mask_and_size.as_ptr()) }
}
