//! Whether a handler that ran ends a call that waits (EINTR) or lets it go on (SA_RESTART): signal(7).

use super::{actions, cancel};
use crate::thread;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use libc::{EINTR, c_int};

/// In the trampoline: a handler with these flags is about to run.
pub(super) fn note(flags: c_int) {
    let thread = thread::current();
    thread.events.fetch_add(1, Relaxed);
    if flags & libc::SA_RESTART == 0 {
        thread.ending_handlers.fetch_add(1, Relaxed);
    }
}

/// A moment in the life of a thread, to ask later which handlers have run since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    events: u64,
    ending: u32,
}

impl Mark {
    #[inline]
    fn now() -> Mark {
        let thread = thread::current();
        Mark { events: thread.events.load(SeqCst), ending: thread.ending_handlers.load(Relaxed) }
    }

    /// Of a wait that began when so much had happened, and nobody wanted the thread cancelled.
    pub(crate) fn since(events: u64) -> Mark {
        Mark { events, ..Mark::now() }
    }

    /// When a call begins. Whoever wanted the thread cancelled before that has happened since.
    #[inline]
    pub(crate) fn at_start() -> Mark {
        let mut mark = Mark::now();
        if thread::current().cancelled.load(SeqCst) != 0 {
            mark.events = mark.events.wrapping_sub(cancel::EVENT);
        }
        mark
    }

    /// The count that a sleep compares.
    pub(crate) fn events(&self) -> u32 {
        self.events as u32
    }

    /// Whether anything happened since.
    #[inline]
    pub(crate) fn any_ran(&self) -> bool {
        thread::current().events.load(Relaxed) != self.events
    }

    /// For the calls that never restart (poll, select, epoll_wait), after a look in vain: whether they end.
    #[inline]
    pub(crate) fn ends_wait(&mut self) -> bool {
        self.any_ran() && self.ends(false, Ok(0))
    }

    /// Whether a call that restarts must end all the same.
    fn ending_ran(&self) -> bool {
        thread::current().ending_handlers.load(Relaxed) != self.ending
    }

    /// After a look in vain, and after a sleep that the kernel ended with `woken`: whether the call ends with EINTR.
    pub(crate) fn ends(&mut self, restarts: bool, woken: crate::sys::Result<isize>) -> bool {
        if self.any_ran() {
            let now = Mark::now();
            let since = now.events.wrapping_sub(self.events);
            let were_handlers = since as u32 != (since >> 32) as u32;
            let ends = were_handlers && (!restarts || self.ending_ran()) || cancel::is_due();
            *self = now;
            return ends;
        }
        // A handler that was installed past us: all that can be known is how.
        woken == Err(EINTR) && (!restarts || !actions::unseen_handlers_restart())
    }
}
