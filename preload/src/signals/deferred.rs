//! Handlers that have to wait until their thread comes out of a critical stretch.
//!
//! The signal is noted, and the thread goes on with all signals blocked; so what comes later stays with the kernel, in its
//! order. When the thread comes out, the signal is queued to it again as it was, and the mask restored: the kernel delivers
//! it as if it had come now, on the stack and with the mask that the application asked for.

use super::LIBC_SIGNALS;
use crate::sys::{self, raw};
use crate::{critical, thread};
use libc::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, c_int, siginfo_t, ucontext_t};

/// Signals that can come one upon the other before the first of them has blocked the rest.
const WAITING: usize = 8;
/// Real-time signals of one number that keep their order over a delay.
const QUEUED: usize = 16;
/// The lowest real-time signal: from here on signals queue.
const FIRST_QUEUEING: c_int = 32;

/// struct siginfo, 128 bytes everywhere.
type Info = [u64; 16];

#[repr(C)]
pub(crate) struct Deferred {
    waiting: [Info; WAITING],
    signals: [c_int; WAITING],
    len: usize,
    /// The mask of before.
    mask: u64,
}

/// All signals but those that the thread itself causes, and libc's.
fn blockable() -> u64 {
    let spared = [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, LIBC_SIGNALS[0], LIBC_SIGNALS[1]];
    spared.iter().fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)))
}

/// Notes a signal, in its handler.
///
/// # Safety
/// What the kernel gave the handler.
pub(super) unsafe fn put_off(signal: c_int, info: *const siginfo_t, context: *mut ucontext_t) {
    sys::set_signal_mask(blockable());
    // SAFETY: this thread's own, and from here on nothing interrupts us.
    let deferred = unsafe { &mut *thread::current().deferred.get() };
    // SAFETY: the caller's promise; the kernel's mask is the first word of libc's.
    let (info, mask) =
        unsafe { (info.cast::<Info>().read_unaligned(), (&raw mut (*context).uc_sigmask).cast::<u64>()) };
    match deferred.waiting.get_mut(deferred.len) {
        Some(slot) => {
            *slot = info;
            deferred.signals[deferred.len] = signal;
            deferred.len += 1;
        }
        None => requeue(signal, &info),
    }
    // Of handlers that interrupted each other the outermost comes last: it knows the thread's own mask.
    // SAFETY: as above.
    unsafe {
        deferred.mask = mask.read_unaligned();
        mask.write_unaligned(deferred.mask | blockable());
    }
    critical::note_deferred();
}

/// The thread came out: whatever was put off happens now. All of it is still blocked.
pub(super) fn deliver() {
    // SAFETY: this thread's own; signals are blocked.
    let deferred = unsafe { &mut *thread::current().deferred.get() };
    for i in (0..core::mem::take(&mut deferred.len)).rev() {
        deliver_one(deferred.signals[i], &deferred.waiting[i]);
    }
    sys::set_signal_mask(deferred.mask);
}

fn deliver_one(signal: c_int, info: &Info) {
    let mut later = [[0u64; 16]; QUEUED];
    let mut n = 0;
    // Of signals that queue, those that came meanwhile are behind this one.
    while signal >= FIRST_QUEUEING && n < QUEUED && sys::take_pending(signal, &mut later[n]) {
        n += 1;
    }
    requeue(signal, info);
    later[..n].iter().for_each(|info| requeue(signal, info));
}

/// Sends a signal to this thread, with what was told of it.
pub(super) fn requeue(signal: c_int, info: &Info) {
    // SAFETY: no memory is passed.
    let tid = unsafe { raw!(gettid) }.unwrap_or(0);
    // SAFETY: `info` is a struct siginfo.
    if unsafe { raw!(rt_tgsigqueueinfo, sys::getpid(), tid, signal, info.as_ptr()) }.is_err() {
        // The queue is full (RLIMIT_SIGPENDING): then without what was told.
        // SAFETY: no memory is passed.
        let _ = unsafe { raw!(tgkill, sys::getpid(), tid, signal) };
    }
}

/// In a forked child: what was put off is the parent's; it delivers it.
pub(crate) fn after_fork() {
    if critical::forget_deferred() {
        // SAFETY: this thread's own; signals are blocked.
        let deferred = unsafe { &mut *thread::current().deferred.get() };
        deferred.len = 0;
        sys::set_signal_mask(deferred.mask);
    }
}
