//! ppoll takes no more descriptors than the process may open, and a program may have taken away its own right to open any
//! (RLIMIT_NOFILE, as sandboxes do). Our waits have descriptors of ours beside the program's. select asks for no limit, so
//! it waits then.

use crate::sys::{self, Result, SIGSET_BYTES, raw};
use core::ffi::c_void;
use libc::{EBADF, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDNORM, POLLWRNORM, c_int, c_short, pollfd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Numbers up to here fit a set; ours are below ([`crate::hidden`]).
const HIGHEST: usize = 1 << 15;
const WORDS: usize = HIGHEST / 64;
/// What the three sets are about.
const ASKED: [c_short; 3] = [POLLIN, POLLOUT, POLLPRI];
const ANSWERED: [c_short; 3] = [POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM, POLLPRI];
/// How long a wait is that cannot watch all it should.
const NAP_US: u64 = 1_000;

/// The limit was in the way once.
static LIMITED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel would refuse the program's own poll of so many.
pub(crate) fn is_too_many(count: usize) -> bool {
    LIMITED.load(Ordering::Relaxed) && count as u64 > limit()
}

/// The limit when this process got a filter of system calls, which may not let it be asked for any more.
static LAST_LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

fn limit() -> u64 {
    match LAST_LIMIT.load(Ordering::Relaxed) {
        u64::MAX => sys::file_limit().0,
        last => last,
    }
}

/// A filter of system calls is about to be set up.
pub(crate) fn note_confinement() {
    LAST_LIMIT.store(sys::file_limit().0, Ordering::Relaxed);
}

/// ppoll without the limit.
#[cold]
pub(crate) fn wait(fds: &mut [pollfd], timeout_us: Option<u64>, sigmask: *const c_void) -> Result<isize> {
    LIMITED.store(true, Ordering::Relaxed);
    let mut sets = [[0u64; WORDS]; 3];
    let (mut end, mut all, mut some_closed) = (0, true, false);
    for p in fds.iter_mut() {
        p.revents = 0;
        match usize::try_from(p.fd) {
            Ok(fd) if fd < HIGHEST => {
                for (set, _) in sets.iter_mut().zip(ASKED).filter(|(_, asked)| p.events & asked != 0) {
                    set[fd / 64] |= 1 << (fd % 64);
                }
                end = end.max(fd + 1);
            }
            Ok(_) => all = false,
            Err(_) => {}
        }
    }
    let timeout_us = if all { timeout_us } else { Some(timeout_us.map_or(NAP_US, |us| us.min(NAP_US))) };
    let mut time = timeout_us.map(sys::timespec);
    let time = sys::time_pointer(&mut time);
    let mask = [sigmask as usize, SIGSET_BYTES];
    let [read, write, except] = sets.each_mut().map(|set| set.as_mut_ptr());
    // SAFETY: the sets have `end` bits and more; time and pair are ours; the kernel checks the mask's pointer.
    match unsafe { raw!(pselect6, end, read, write, except, time, mask.as_ptr()) } {
        Ok(0) => return Ok(0),
        Ok(_) => {}
        Err(EBADF) => some_closed = true,
        Err(e) => return Err(e),
    }
    Ok(fds.iter_mut().filter(|p| p.fd >= 0).map(|p| answer(p, &sets, some_closed)).filter(|is_ready| *is_ready).count()
        as isize)
}

/// What one descriptor has: as poll tells it where it may be asked for one, else as the sets do.
fn answer(p: &mut pollfd, sets: &[[u64; WORDS]; 3], some_closed: bool) -> bool {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one record, and a time of ours.
    let asked = unsafe { raw!(ppoll, &raw mut *p, 1, &raw const now, 0, SIGSET_BYTES) };
    if asked.is_err() {
        let is_in = |set: &[u64; WORDS]| {
            usize::try_from(p.fd).is_ok_and(|fd| fd < HIGHEST && set[fd / 64] & 1 << (fd % 64) != 0)
        };
        let found = sets.iter().zip(ANSWERED).filter(|(set, _)| is_in(set)).fold(0, |bits, (_, bit)| bits | bit);
        p.revents = if !some_closed || is_open(p.fd) { found & p.events } else { POLLNVAL };
    }
    p.revents != 0
}

fn is_open(fd: c_int) -> bool {
    sys::fcntl(fd, libc::F_GETFD, 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_and_answers_as_poll_does() {
        let mut ends = [-1 as c_int; 2];
        // SAFETY: two ints of ours.
        unsafe { raw!(pipe2, ends.as_mut_ptr(), 0) }.unwrap();
        // To numbers that no other test is given when they are free again.
        let high = |fd| sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, 900).map(|high| (sys::close(fd), high as c_int).1);
        let ends = ends.map(|fd| high(fd).unwrap());
        let mut fds = [ends[0], ends[1], -1].map(|fd| pollfd { fd, events: POLLIN | POLLOUT, revents: 0 });
        assert_eq!(wait(&mut fds, None, core::ptr::null()), Ok(1));
        assert_eq!(fds.map(|p| p.revents), [0, POLLOUT, 0]);
        let mut one = [fds[0]];
        assert_eq!(wait(&mut one, Some(1_000), core::ptr::null()), Ok(0));
        let _ = sys::close(ends[1]);
        assert_eq!(wait(&mut one, None, core::ptr::null()), Ok(1));
        assert_eq!(one[0].revents, libc::POLLHUP);
        let _ = sys::close(ends[0]);
        assert_eq!(wait(&mut one, None, core::ptr::null()), Ok(1));
        assert_eq!(one[0].revents, POLLNVAL);
    }
}
