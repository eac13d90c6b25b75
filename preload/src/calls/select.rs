//! select and pselect: as a poll of the descriptors in the sets, answered as Linux does (fs/select.c).

use crate::calls::epoll::timespec_us;
use crate::calls::poll::{EMPTY, Interest, Meaning, OWN, Poller, SMALL, Scratch, interest_in, run_watching};
use crate::fd_table::TABLE;
use crate::memory;
use crate::signals::sleep;
use crate::sys::{self, Result};
use core::ffi::c_void;
use libc::{EBADF, EFAULT, EINVAL, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDNORM, c_int, c_short};
use libc::{fd_set, pollfd, sigset_t, timespec, timeval};
use sidestep_stack::runtime::now;
use syscalls::Sysno;

/// What the three sets ask of a descriptor: no bit is in two of them.
const ASKED: [c_short; 3] =
    [POLLIN | POLLRDNORM | libc::POLLRDBAND, POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND, POLLPRI];
/// And what else means yes.
const ALSO: [c_short; 3] = [POLLHUP | POLLERR, POLLERR, 0];
const WORD: usize = 64;

/// Of an answer, what some set that asked takes for a yes. A descriptor that is none is an answer to all.
pub(super) fn meant(asked: c_short, answer: c_short) -> c_short {
    let yes = (0..3).filter(|which| asked & ASKED[*which] != 0).fold(POLLNVAL, |yes, i| yes | ASKED[i] | ALSO[i]);
    answer & yes
}

/// The application's three sets, as words.
struct Sets {
    words: [*mut u64; 3],
    /// One past the highest descriptor.
    count: usize,
}

impl Sets {
    /// Whether all of them are there.
    fn probe(&self) -> Result<()> {
        let bytes = self.count.div_ceil(WORD) * size_of::<u64>();
        self.words.iter().filter(|w| !w.is_null()).try_for_each(|w| memory::probe_write(w.cast(), bytes))
    }

    fn word(&self, which: usize, at: usize) -> u64 {
        let Some(words) = self.words.get(which).filter(|w| !w.is_null()) else { return 0 };
        let in_use = if self.count >= (at + 1) * WORD { u64::MAX } else { (1 << (self.count % WORD)) - 1 };
        // SAFETY: the application's set has whole words for `count` descriptors, and `at` is one of them.
        unsafe { words.add(at).read_unaligned() & in_use }
    }

    /// Of each descriptor that any set asks about the number, and what is asked.
    fn for_each(&self, mut act: impl FnMut(c_int, c_short)) {
        for at in 0..self.count.div_ceil(WORD) {
            let words = [self.word(0, at), self.word(1, at), self.word(2, at)];
            let mut left = words[0] | words[1] | words[2];
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let events =
                    (0..3).fold(0, |events, i| if words[i] >> bit & 1 != 0 { events | ASKED[i] } else { events });
                act((at * WORD) as c_int + bit as c_int, events);
            }
        }
    }

    /// As Linux: whole words.
    fn clear(&self) {
        for words in self.words.iter().filter(|w| !w.is_null()) {
            for at in 0..self.count.div_ceil(WORD) {
                // SAFETY: as in `word`.
                unsafe { words.add(at).write_unaligned(0) };
            }
        }
    }

    fn put(&self, which: usize, fd: usize) {
        if let Some(words) = self.words.get(which).filter(|w| !w.is_null()) {
            // SAFETY: as in `word`.
            unsafe { words.add(fd / WORD).write_unaligned(words.add(fd / WORD).read_unaligned() | 1 << (fd % WORD)) };
        }
    }

    fn answer(&self, array: &[pollfd]) -> Result<isize> {
        if array.iter().any(|p| p.revents & POLLNVAL != 0) {
            return Err(EBADF);
        }
        self.clear();
        let mut bits = 0;
        for p in array {
            for which in 0..3 {
                if p.events & ASKED[which] != 0 && p.revents & (ASKED[which] | ALSO[which]) != 0 {
                    self.put(which, p.fd as usize);
                    bits += 1;
                }
            }
        }
        Ok(bits)
    }
}

/// The common part: the result, and the microseconds that remain of the time. `None`: nothing in the sets is ours.
fn select_us(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout_us: Option<u64>,
    mask: *const c_void,
) -> Option<(Result<isize>, u64)> {
    if !TABLE.is_mapped() || count < 0 {
        return None;
    }
    let sets = Sets { words: sets.map(<*mut fd_set>::cast), count: (count as usize).min(TABLE.len()) };
    if let Err(error) = sets.probe().and_then(|()| memory::probe_mask(mask.cast())) {
        return Some((Err(error), 0));
    }
    let (mut interest, mut len) = (Interest::Kernels, 0);
    sets.for_each(|fd, _| {
        interest = interest.max(interest_in(fd));
        len += 1;
    });
    if interest == Interest::Kernels {
        return None;
    }
    let started = now();
    let mut small = [EMPTY; SMALL + OWN];
    let mut scratch = Scratch { mapped: core::ptr::null_mut(), len };
    let array = match scratch.array(&mut small) {
        Ok(array) => array,
        Err(e) => return Some((Err(e), 0)),
    };
    let mut slots = array.iter_mut();
    sets.for_each(|fd, events| {
        if let Some(slot) = slots.next() {
            *slot = pollfd { fd, events, revents: 0 };
        }
    });
    let run = if interest == Interest::Ours { Poller::run } else { run_watching };
    let result = run(array, Meaning::Select, timeout_us, mask).and_then(|_| sets.answer(array));
    Some((result, timeout_us.map_or(0, |us| us.saturating_sub(now().since_us(started)))))
}

pub(crate) unsafe fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> Result<isize> {
    // SAFETY: the application's pointer.
    let given = (!timeout.is_null()).then(|| unsafe { memory::read(timeout) }).transpose()?;
    if given.is_some_and(|t| t.tv_sec < 0 || t.tv_usec < 0) {
        return Err(EINVAL);
    }
    let given_us = given.map(|t| (t.tv_sec as u64).saturating_mul(1_000_000).saturating_add(t.tv_usec as u64));
    // Linux leaves what remains of the time.
    let (result, left_us) = match select_us(count, [read, write, except], given_us, core::ptr::null()) {
        Some(done) => done,
        None => {
            let mut time = given_us.map(sys::timespec);
            let pointer = sys::time_pointer(&mut time);
            let args = [count as usize, read as usize, write as usize, except as usize, pointer as usize, 0];
            // SAFETY: the application's pointers, which the kernel checks; the timespec is ours.
            let result = unsafe { sleep::wait(Sysno::pselect6, args) };
            (result, time.map_or(0, |t| t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000))
        }
    };
    if given_us.is_some() && result != Err(EFAULT) {
        let left = timeval { tv_sec: (left_us / 1_000_000) as _, tv_usec: (left_us % 1_000_000) as _ };
        // SAFETY: the application's pointer.
        let _ = unsafe { memory::write(timeout, left) };
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
    if let Some((result, _)) = select_us(count, [read, write, except], timeout_us, mask.cast()) {
        return result;
    }
    let mut time = timeout_us.map(sys::timespec);
    let time = sys::time_pointer(&mut time);
    let mask_and_size = [mask as usize, sys::SIGSET_BYTES];
    let pair = mask_and_size.as_ptr() as usize;
    let args = [count as usize, read as usize, write as usize, except as usize, time as usize, pair];
    // SAFETY: the application's pointers, which the kernel checks; timespec and pair are ours.
    unsafe { sleep::wait(Sysno::pselect6, args) }
}
