//! Descriptors of our own: at high numbers, close-on-exec, and out of the application's reach.

use crate::sys;
use libc::c_int;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Most hidden descriptors: control, arena, bells, a receive queue's socket each, templates.
const MAX_HIDDEN: usize = 128;

/// How far below the soft limit they start.
const ROOM: u64 = 128;

static HIDDEN: [AtomicI32; MAX_HIDDEN] = [const { AtomicI32::new(-1) }; MAX_HIDDEN];

/// Lowest and highest hidden number, so that most calls need one comparison: high in the upper half.
static BOUNDS: AtomicU64 = AtomicU64::new(u32::MAX as u64);

/// Moves `fd` to a high number and hides it. Gives the old number back (unhidden) when there is no room.
pub(crate) fn hide(fd: c_int) -> c_int {
    let (soft, _) = sys::file_limit();
    let low = soft.min(1 << 20).saturating_sub(ROOM).max(10);
    let moved = match sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, low as usize) {
        Ok(high) => {
            let _ = sys::close(fd);
            high as c_int
        }
        Err(_) => fd,
    };
    remember(moved);
    moved
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

/// Closes a hidden descriptor.
pub(crate) fn close(fd: c_int) {
    for slot in &HIDDEN {
        let _ = slot.compare_exchange(fd, -1, Ordering::AcqRel, Ordering::Relaxed);
    }
    let _ = sys::close(fd);
}

/// Whether `fd` is ours: to the application it does not exist.
#[inline]
pub(crate) fn is_hidden(fd: c_int) -> bool {
    let bounds = BOUNDS.load(Ordering::Relaxed);
    let fd32 = fd as u32;
    fd32 >= bounds as u32 && fd32 <= (bounds >> 32) as u32 && HIDDEN.iter().any(|h| h.load(Ordering::Relaxed) == fd)
}

/// The lowest hidden number in `first..=last`.
pub(crate) fn lowest_in(first: u32, last: u32) -> Option<u32> {
    let all = HIDDEN.iter().map(|h| h.load(Ordering::Relaxed)).filter(|fd| *fd >= 0).map(|fd| fd as u32);
    all.filter(|fd| (first..=last).contains(fd)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_descriptors_are_found_and_forgotten() {
        let fd = hide(sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap());
        assert!(is_hidden(fd));
        assert!(!is_hidden(0) && !is_hidden(-1));
        assert_eq!(lowest_in(0, u32::MAX), Some(fd as u32));
        assert_eq!(lowest_in(0, fd as u32 - 1), None);
        close(fd);
        assert!(!is_hidden(fd));
    }
}
