//! fork: a child shares every user socket that it inherits. Before the fork the parent takes the stack's lock, claims a
//! ProcId for the child and holds every socket in its name; so nothing can be closed, accepted or lost in between.
//!
//! vfork is fork here ([`crate::vfork`]). Children of posix_spawn and raw clones share our memory: they run none of this, and their
//! close and dup2 are kept from leaving traces in our tables ([`crate::attach::is_own_process`]).

use crate::attach::{self, ATTACHMENT};
use crate::{bells, changes, epoll, hidden, listeners, local, nests, private_pipe, stdio, sys, waiters};
use core::cell::UnsafeCell;
use sidestep_stack::arena::{PENDING_FORK, ProcId};
use sidestep_stack::runtime::{Guard, Stack};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is carried over a fork, between the handlers of one thread.
struct Pending {
    guard: Option<Guard<'static>>,
    child: Option<ProcId>,
    errno: libc::c_int,
}

struct Carried(UnsafeCell<Pending>);

// SAFETY: touched by the fork handlers only, between taking and releasing the attach lock.
unsafe impl Sync for Carried {}

static CARRIED: Carried = Carried(UnsafeCell::new(Pending { guard: None, child: None, errno: 0 }));
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Registers the handlers, once in a process.
pub(crate) fn install() {
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // SAFETY: handlers of this library, which is never unloaded (it is preloaded).
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    }
}

extern "C" fn prepare() {
    let attachment = ATTACHMENT.lock();
    core::mem::forget(attachment); // released by the two handlers below
    // SAFETY: we hold the attach lock.
    let carried = unsafe { &mut *CARRIED.0.get() };
    // SAFETY: libc's errno is always valid.
    let errno = unsafe { &mut *libc::__errno_location() };
    // fork() leaves errno alone when it succeeds: so the parent's handler can tell.
    (carried.errno, *errno) = (*errno, 0);
    (carried.guard, carried.child) = (None, None);
    if let Some(stack) = attach::stack() {
        let mut guard = stack.lock();
        carried.child = stack.arena().processes().claim(PENDING_FORK);
        if let Some(child) = carried.child {
            for index in local::held() {
                if let Some(id) = local::of(index).and_then(local::Local::id) {
                    let _ = guard.hold(id, child);
                }
            }
            for set in epoll::held() {
                let _ = guard.epoll_hold(set, child);
            }
        }
        guard.rest();
        carried.guard = Some(guard);
    }
    hidden::before_fork();
}

extern "C" fn parent() {
    // SAFETY: `prepare` called the other in this thread.
    unsafe { hidden::after_fork() };
    // SAFETY: we hold the attach lock since `prepare`.
    let carried = unsafe { &mut *CARRIED.0.get() };
    // SAFETY: libc's errno is always valid.
    let errno = unsafe { &mut *libc::__errno_location() };
    let failed = *errno != 0;
    if let (true, Some(child), Some(guard)) = (failed, carried.child, carried.guard.as_mut()) {
        guard.release_process(sidestep_stack::runtime::now(), child);
        if let Some(stack) = attach::stack() {
            stack.arena().processes().free(child);
        }
    }
    carried.guard = None;
    if !failed {
        // The child may be killed before it can say who it is: then nobody else says that it was there.
        if let (Some(child), Some(stack)) = (carried.child, attach::stack()) {
            stack.arena().processes().note_born(child);
            stack.call_daemon();
        }
        crate::interest::note_fork();
        *errno = carried.errno;
    }
    // SAFETY: `prepare` took it in this thread.
    unsafe { ATTACHMENT.force_unlock() };
}

extern "C" fn child() {
    crate::signals::deferred::after_fork();
    // SAFETY: `prepare` called the other in the thread that we are the copy of.
    unsafe { hidden::after_fork() };
    // SAFETY: as in `parent`; the lock's memory was copied while we held it.
    let carried = unsafe { &mut *CARRIED.0.get() };
    // The stack's lock is the parent's: our copy of the guard must not touch it.
    if let Some(guard) = carried.guard.take() {
        core::mem::forget(guard);
        crate::critical::leave();
    }
    attach::stack().into_iter().for_each(Stack::open);
    let claimed = carried.child.take();
    // SAFETY: `prepare` took it in the thread that we are the copy of.
    unsafe { ATTACHMENT.force_unlock() };
    crate::kick::end_batch();
    crate::interest::note_fork();
    epoll::after_fork();
    waiters::after_fork();
    nests::after_fork();
    bells::after_fork();
    changes::after_fork();
    private_pipe::after_fork();
    crate::inherited::after_fork();
    crate::vfork::after_fork();
    stdio::after_fork();
    let mut attachment = ATTACHMENT.lock();
    attachment.after_fork(claimed);
    // A worker serves what its parent listens on, perhaps under another user: it introduces itself while it can.
    if listeners::any_pending() {
        attachment.greet_again();
    }
    drop(attachment);
    if claimed.is_none() && attach::stack().is_some() {
        listeners::forget_live();
    }
    // SAFETY: libc's errno is always valid.
    sys::set_errno(carried.errno);
}
