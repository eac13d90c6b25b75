//! What a sleeping thread is woken by. The first threads have a doorbell of their own; the others share some. A shared
//! bell's eventfd is never emptied: each of its threads watches it through an epoll descriptor of its own, by edges, so
//! each sees every ring whatever the others do.

use crate::attach;
use crate::hidden;
use crate::sys::{self, Result, raw};
use libc::{EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLET, EPOLLIN, c_int, epoll_event};
use sidestep_stack::runtime::{self, Guard, Stack};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Most threads that share bells; one more sleeps in short naps.
const MAX_SHARING: usize = 256;

/// A place among those who share. Its epoll descriptor is made with its first use and kept.
pub(crate) struct Place {
    taken: AtomicBool,
    epfd: AtomicI32,
}

static PLACES: [Place; MAX_SHARING] =
    [const { Place { taken: AtomicBool::new(false), epfd: AtomicI32::new(-1) } }; MAX_SHARING];

/// A doorbell while a thread sleeps. Dropping it gives it back; the engine must have been told before (unwait).
pub(crate) enum Bell<'s> {
    Own(runtime::Bell<'s>),
    Shared { place: &'static Place, bit: u8 },
}

/// A bell for the calling thread, `None` when there are far too many.
pub(crate) fn claim(stack: &Stack) -> Option<Bell<'_>> {
    match stack.claim_bell(attach::process()) {
        Some(bell) => Some(Bell::Own(bell)),
        None => share(stack),
    }
}

impl Bell<'_> {
    /// Its number in the engine's masks.
    pub(crate) fn bit(&self) -> u8 {
        match self {
            Bell::Own(bell) => bell.bit(),
            Bell::Shared { bit, .. } => *bit,
        }
    }

    /// Silences it, before a look and another sleep.
    pub(crate) fn clear(&self) {
        match self {
            Bell::Own(bell) => bell.clear(),
            Bell::Shared { place, .. } => drain(place.epfd.load(Ordering::Acquire)),
        }
    }

    /// Its thread is awake and about to look: it need not be rung for what this lock has brought so far.
    pub(crate) fn hush(&self, guard: &mut Guard<'_>) {
        if let Bell::Own(bell) = self {
            guard.take_wakeup(bell.bit());
        }
    }

    /// The descriptor to wait for.
    pub(crate) fn fd(&self) -> c_int {
        match self {
            Bell::Own(bell) => bell.fd(),
            Bell::Shared { place, .. } => place.epfd.load(Ordering::Acquire),
        }
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if let Bell::Shared { place, .. } = self {
            place.taken.store(false, Ordering::Release);
        }
    }
}

#[cold]
fn share(stack: &Stack) -> Option<Bell<'_>> {
    let is_taken = |place: &Place| place.taken.swap(true, Ordering::AcqRel);
    let (nth, place) = PLACES.iter().enumerate().find(|(_, place)| !is_taken(place))?;
    let (bit, eventfd) = stack.shared_bell(nth);
    let epfd = match place.epfd.load(Ordering::Acquire) {
        -1 => watch_edges(eventfd).inspect(|epfd| place.epfd.store(*epfd, Ordering::Release)),
        epfd => Ok(epfd),
    };
    let Ok(epfd) = epfd else {
        place.taken.store(false, Ordering::Release);
        return None;
    };
    drain(epfd); // rings for whoever had the place before
    Some(Bell::Shared { place, bit })
}

/// Takes the edges that were seen.
fn drain(epfd: c_int) {
    let mut event = epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` is ours and the one that there is room for.
    let _ = unsafe { raw!(epoll_pwait, epfd, &raw mut event, 1, 0, 0, sys::SIGSET_BYTES) };
}

fn watch_edges(eventfd: c_int) -> Result<c_int> {
    // SAFETY: numbers only.
    let epfd = unsafe { raw!(epoll_create1, EPOLL_CLOEXEC) }? as c_int;
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 0 };
    // SAFETY: `event` is ours.
    if let Err(e) = unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_ADD, eventfd, &raw mut event) } {
        let _ = sys::close(epfd);
        return Err(e);
    }
    Ok(hidden::hide(epfd))
}

/// A descriptor of ours has another number; false when it is none of these.
pub(crate) fn renumber(old: c_int, new: c_int) -> bool {
    let is_it = |place: &Place| place.epfd.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    PLACES.iter().any(is_it)
}

/// In a forked child: the parent's descriptors would take the parent's edges.
pub(crate) fn after_fork() {
    for place in &PLACES {
        place.taken.store(false, Ordering::Release);
        match place.epfd.swap(-1, Ordering::AcqRel) {
            -1 => {}
            epfd => hidden::close(epfd),
        }
    }
}
