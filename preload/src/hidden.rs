//! Descriptors of our own: at numbers that the application cannot reach, close-on-exec, and out of what it closes.
//!
//! They are beyond its soft limit where the hard limit has room there: then they take none of the numbers that the
//! application may have, and dup2 onto one of them fails as it would without us. Where the limit was raised afterwards, or
//! has no room, a dup2 onto one moves ours away first ([`give_way`]).

use crate::critical::Mutex;
use crate::sys::{self, Result};
use crate::{attach, bells, changes, template};
use libc::{EBADF, c_int};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Most hidden descriptors: control, arena, bells, a receive queue's socket each, templates, and one for each thread that
/// shares a bell.
const MAX_HIDDEN: usize = 512;

/// How many numbers they may take.
const ROOM: u64 = 128;

/// They start no higher than this: the kernel copies its table of descriptors up to the highest at each fork.
const HIGHEST: u64 = 1 << 14;

/// Held while the limit of descriptors is another than the application's: who meets that takes it for the application's, and a forked
/// child would keep it. Nobody takes another lock with it.
static RAISING: Mutex<()> = Mutex::new(());

static HIDDEN: [AtomicI32; MAX_HIDDEN] = [const { AtomicI32::new(-1) }; MAX_HIDDEN];

/// Lowest and highest hidden number, so that most calls need one comparison: high in the upper half.
static BOUNDS: AtomicU64 = AtomicU64::new(u32::MAX as u64);

/// Moves `fd` to a high number and hides it. Gives the old number back when there is no room.
pub(crate) fn hide(fd: c_int) -> c_int {
    let moved = match duplicate_high(fd) {
        Ok(high) => {
            let _ = sys::close(fd);
            high
        }
        Err(_) => fd,
    };
    remember(moved);
    moved
}

fn duplicate_high(fd: c_int) -> Result<c_int> {
    let _turn = RAISING.lock();
    let (soft, hard) = sys::file_limit();
    let duplicate = |low: u64| sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, low as usize).map(|high| high as c_int);
    let below = |end: u64| end.saturating_sub(ROOM).max(10);
    if soft > HIGHEST || soft + ROOM > hard {
        return duplicate(below(soft.min(HIGHEST)));
    }
    let raised = (soft + ROOM, hard);
    if sys::swap_file_limit(raised).is_err() {
        return duplicate(below(soft));
    }
    let high = duplicate(soft);
    // Another thread may have set the limit meanwhile: then its word counts.
    match sys::swap_file_limit((soft, hard)) {
        Ok(found) if found != raised => drop(sys::swap_file_limit(found)),
        _ => {}
    }
    high.or_else(|_| duplicate(below(soft)))
}

/// Before a fork.
pub(crate) fn before_fork() {
    core::mem::forget(RAISING.lock());
}

/// After it, in both processes.
///
/// # Safety
/// This thread, or the one that it is the copy of, called [`before_fork`].
pub(crate) unsafe fn after_fork() {
    // SAFETY: the caller's promise.
    unsafe { RAISING.force_unlock() };
}

fn remember(fd: c_int) {
    for slot in &HIDDEN {
        if slot.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            break;
        }
    }
    let _ = BOUNDS.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |bounds| {
        let (low, high) = (bounds as u32, (bounds >> 32) as u32);
        Some(u64::from(high.max(fd as u32)) << 32 | u64::from(low.min(fd as u32)))
    });
}

fn forget(fd: c_int) {
    for slot in &HIDDEN {
        let _ = slot.compare_exchange(fd, -1, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Closes a hidden descriptor.
pub(crate) fn close(fd: c_int) {
    forget(fd);
    let _ = sys::close(fd);
}

/// Whether `fd` is ours: to the application it does not exist.
#[inline]
pub(crate) fn is_hidden(fd: c_int) -> bool {
    let bounds = BOUNDS.load(Ordering::Relaxed);
    let fd32 = fd as u32;
    fd32 >= bounds as u32 && fd32 <= (bounds >> 32) as u32 && HIDDEN.iter().any(|h| h.load(Ordering::Relaxed) == fd)
}

/// EBADF for a number of ours.
#[inline]
pub(crate) fn refuse(fd: c_int) -> Result<()> {
    if is_hidden(fd) { Err(EBADF) } else { Ok(()) }
}

/// The application wants the number for a duplicate of its `old`: whatever of ours is there goes elsewhere.
pub(crate) fn give_way(number: c_int, old: c_int) -> Result<()> {
    if !is_hidden(number) {
        return Ok(());
    }
    sys::fcntl(old, libc::F_GETFD, 0)?;
    // Beyond the limit nobody can have it. In a vfork child it would go from the parent's tables too.
    if number as u64 >= sys::file_limit().0 || !attach::is_own_process() {
        return Err(EBADF);
    }
    let moved = duplicate_high(number)?;
    remember(moved);
    let renumber = [attach::renumber, template::renumber, bells::renumber, changes::renumber];
    if renumber.iter().any(|renumber| renumber(number, moved)) {
        forget(number);
        Ok(())
    } else {
        close(moved);
        Err(EBADF)
    }
}

/// The lowest hidden number in `first..=last`.
pub(crate) fn lowest_in(first: u32, last: u32) -> Option<u32> {
    let all = HIDDEN.iter().map(|h| h.load(Ordering::Relaxed)).filter(|fd| *fd >= 0).map(|fd| fd as u32);
    all.filter(|fd| (first..=last).contains(fd)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptors and their limit are the process's: one test at a time.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn socket() -> c_int {
        sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
    }

    #[test]
    fn hidden_descriptors_are_found_and_forgotten() {
        let _alone = ALONE.lock();
        let fd = hide(socket());
        assert!(is_hidden(fd));
        assert!(!is_hidden(0) && !is_hidden(-1));
        assert_eq!(refuse(fd), Err(EBADF));
        assert_eq!(lowest_in(0, u32::MAX), Some(fd as u32));
        assert_eq!(lowest_in(0, fd as u32 - 1), None);
        close(fd);
        assert!(!is_hidden(fd));
    }

    #[test]
    fn hiding_leaves_the_limit_as_it_was() {
        let _alone = ALONE.lock();
        let before = sys::file_limit();
        let fd = hide(socket());
        assert_eq!(sys::file_limit(), before);
        let (soft, hard) = before;
        if soft <= HIGHEST && soft + ROOM <= hard {
            assert!(fd as u64 >= soft, "{fd} is within the application's limit of {soft}");
        }
        close(fd);
    }

    #[test]
    fn threads_that_hide_at_once_leave_it_too() {
        let _alone = ALONE.lock();
        let before = sys::file_limit();
        let within = (1024, before.1);
        sys::swap_file_limit(within).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| close(hide(socket()))));
            }
        });
        assert_eq!(sys::swap_file_limit(before), Ok(within));
    }
}
