//! pthread_cancel(). A thread that sleeps in a call of ours is woken, comes out of all that is ours, and only then obeys: it is
//! unwound from the exported function, where nothing of ours is alive.
//!
//! Its words are found from its pthread_t, which is the address of its control block: the distance from there to a
//! thread-local block is the same in every thread. It is woken by libc's own SIGCANCEL, which nobody can block, once libc has
//! its handler there and we have ours before it: a thread that may be cancelled at any moment
//! (PTHREAD_CANCEL_ASYNCHRONOUS) must not be while it is inside.

use crate::real::Real;
use crate::sys::{self, raw};
use crate::thread::{self, Thread};
use crate::{critical, signals, waiters};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use libc::{c_int, pthread_t, siginfo_t, ucontext_t};

const SIGCANCEL: c_int = signals::LIBC_SIGNALS[0];

const PTHREAD_CANCEL_ENABLE: c_int = 0;
const PTHREAD_CANCEL_DEFERRED: c_int = 0;

/// What `Thread::cancelled` says: a call that waits ends; or any call ends with it, as libc would have ended the thread at once.
const WANTED: u32 = 1;
const OVERDUE: u32 = 2;
/// Or it does now what libc's handler says.
const OBEYS: u32 = 3;

/// How often a thread yields to the one that cancels it, which may be itself, interrupted.
const OBEY_TRIES: u32 = 10_000;

/// One more of them in `Thread::events`.
pub(super) const EVENT: u64 = 1 << 32 | 1;

static CANCEL: Real = Real::new(c"pthread_cancel");
/// Libc's handler of SIGCANCEL.
static LIBC_HANDLER: AtomicU64 = AtomicU64::new(0);
static PREPARED: AtomicBool = AtomicBool::new(false);

unsafe extern "C-unwind" {
    fn pthread_testcancel();
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// A cancellation point: does not come back if the thread is cancelled.
#[inline]
pub(crate) fn point() {
    if thread::current().cancelled.load(Ordering::Relaxed) != 0 {
        obey();
    }
}

/// After a call, which was interrupted or not.
#[inline]
pub(crate) fn point_after(interrupted: bool) {
    let cancelled = thread::current().cancelled.load(Ordering::Relaxed);
    if cancelled != 0 && (interrupted || cancelled == OVERDUE) {
        obey();
    }
}

#[cold]
fn obey() {
    if thread::current().cancelled.load(Ordering::Relaxed) == OVERDUE {
        // What libc's handler would have done stands out yet.
        thread::current().cancelled.store(OBEYS, Ordering::Relaxed);
        // SAFETY: no memory is passed.
        let _ = unsafe { raw!(gettid).and_then(|tid| raw!(tgkill, sys::getpid(), tid, SIGCANCEL)) };
    }
    for _ in 0..OBEY_TRIES {
        // SAFETY: libc's function; our callers have nothing to destroy.
        unsafe { pthread_testcancel() };
        if !is_allowed() {
            return;
        }
        // Who cancels us has told us, but not yet libc.
        // SAFETY: no memory is passed.
        let _ = unsafe { raw!(sched_yield) };
    }
}

/// Whether this thread, which waits in a call, has to come out of it: somebody cancelled it, and it has not forbidden that.
#[inline]
pub(crate) fn is_due() -> bool {
    thread::current().cancelled.load(Ordering::Acquire) != 0 && is_allowed()
}

#[cold]
fn is_allowed() -> bool {
    let (mut kind, mut state) = (0, 0);
    // While the thread's type is "deferred", asking does nothing else.
    // SAFETY: libc's functions; the places are ours.
    unsafe {
        pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &raw mut kind);
        pthread_setcancelstate(1, &raw mut state);
        pthread_setcancelstate(state, core::ptr::null_mut());
        if state != PTHREAD_CANCEL_ENABLE {
            pthread_setcanceltype(kind, core::ptr::null_mut());
        }
    }
    state == PTHREAD_CANCEL_ENABLE
}

/// The words of another thread, which has not ended.
fn words_of(thread: pthread_t) -> *const Thread {
    // SAFETY: libc's function.
    let own = unsafe { libc::pthread_self() } as usize;
    let distance = core::ptr::from_ref(thread::current()) as usize;
    (thread as usize).wrapping_add(distance.wrapping_sub(own)) as *const Thread
}

/// libc's `pthread_cancel`.
///
/// # Safety
/// As for the function of libc: the thread has not been joined.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C-unwind" fn pthread_cancel(target: pthread_t) -> c_int {
    prepare();
    // SAFETY: the caller's promise; the block of a thread that has not been joined is there. Zeroes are valid in it.
    let words = unsafe { &*words_of(target) };
    // All that is done to the thread comes before libc's word: after that it may have ended, and somebody joined it.
    words.cancelled.store(WANTED, Ordering::SeqCst);
    words.events.fetch_add(EVENT, Ordering::SeqCst);
    waiters::fence();
    // SAFETY: the slot of a thread, if it has one.
    let waits = || unsafe { waiters::tid_of(words.waiter.load(Ordering::Acquire)) };
    let tid = Some(words.asleep.load(Ordering::SeqCst)).filter(|tid| *tid != 0).or_else(waits);
    if let Some(tid) = tid {
        // SAFETY: no memory is passed.
        let _ = unsafe { raw!(tgkill, sys::getpid(), tid, SIGCANCEL) };
    }
    cancel_in_libc(target)
}

fn cancel_in_libc(target: pthread_t) -> c_int {
    // SAFETY: libc's function of this type; our caller's promise.
    unsafe {
        let real: unsafe extern "C-unwind" fn(pthread_t) -> c_int = core::mem::transmute(CANCEL.address());
        real(target)
    }
}

/// Puts our handler of SIGCANCEL before libc's, which libc installs when it first cancels a thread. So one is made for that.
fn prepare() {
    if PREPARED.swap(true, Ordering::AcqRel) {
        return;
    }
    extern "C" fn wait_for_it(_: *mut c_void) -> *mut c_void {
        loop {
            // SAFETY: a cancellation point of libc's.
            unsafe { libc::pause() };
        }
    }
    let mut victim: pthread_t = 0;
    // SAFETY: a thread of ours that does nothing, and is waited for.
    unsafe {
        if libc::pthread_create(&raw mut victim, core::ptr::null(), wait_for_it, core::ptr::null_mut()) == 0 {
            cancel_in_libc(victim);
            libc::pthread_join(victim, core::ptr::null_mut());
        }
    }
    find_code();
    // The kernel's struct sigaction: handler, flags, restorer, mask (x86_64).
    let mut action = [0u64; 4];
    let ours = on_cancel as *const () as u64;
    // SAFETY: `action` is as large as the kernel's struct; it keeps libc's way back.
    unsafe {
        let known = raw!(rt_sigaction, SIGCANCEL, 0, &raw mut action, sys::SIGSET_BYTES).is_ok();
        if known && action[0] > 1 && action[0] != ours {
            LIBC_HANDLER.store(action[0], Ordering::Release);
            action[0] = ours;
            let _ = raw!(rt_sigaction, SIGCANCEL, &raw const action, 0, sys::SIGSET_BYTES);
        }
    }
}

/// Our machine code, once somebody is cancelled.
static CODE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Where our machine code lies.
fn find_code() {
    unsafe extern "C" fn look(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
        let here = find_code as *const () as usize;
        // SAFETY: libc's record of a loaded object, and its segments.
        let (base, segments) = unsafe {
            let object = &*object;
            (object.dlpi_addr as usize, core::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
        };
        for segment in segments {
            let first = base.wrapping_add(segment.p_vaddr as usize);
            if segment.p_type == libc::PT_LOAD && here.wrapping_sub(first) < segment.p_memsz as usize {
                CODE[0].store(first, Ordering::Relaxed);
                CODE[1].store(segment.p_memsz as usize, Ordering::Release);
            }
        }
        0
    }
    // SAFETY: `look` only reads what it is shown.
    unsafe { libc::dl_iterate_phdr(Some(look), core::ptr::null_mut()) };
}

/// Whether the thread was in code of ours when the signal came; but for where it obeys.
///
/// # Safety
/// What the kernel gave the handler.
unsafe fn is_in_our_code(context: *const ucontext_t) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller's promise.
        let at = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize;
        let is_obeying = thread::current().cancelled.load(Ordering::Relaxed) == OBEYS;
        !is_obeying && at.wrapping_sub(CODE[0].load(Ordering::Relaxed)) < CODE[1].load(Ordering::Acquire)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = context;
        false
    }
}

/// SIGCANCEL: from libc, for a thread that may be cancelled at any moment, or from us, to wake one.
unsafe extern "C-unwind" fn on_cancel(signal: c_int, info: *mut siginfo_t, context: *mut ucontext_t) {
    let thread = thread::current();
    // SAFETY: what the kernel gave us.
    let is_ours = unsafe { is_in_our_code(context) }
        || critical::is_inside()
        || !thread.vigil.load(Ordering::Relaxed).is_null()
        || thread.asleep.load(Ordering::Relaxed) != 0;
    if is_ours {
        thread.cancelled.store(OVERDUE, Ordering::Relaxed); // it obeys when the call comes out
        // SAFETY: what the kernel gave us.
        unsafe { signals::sleep::end(context) };
        return;
    }
    let libc = LIBC_HANDLER.load(Ordering::Acquire);
    if libc != 0 {
        // SAFETY: the handler that stood there.
        unsafe { core::mem::transmute::<u64, signals::actions::Handler>(libc)(signal, info, context) };
    }
}
