//! Leaving a call for good: siglongjmp() in a handler, and pthread_exit().
//!
//! Before the jump the sleeps that it leaves are ended ([`crate::vigil`]). Handlers never run where anything else of ours would
//! be lost. Whoever leaves a handler in another way (setcontext, an exception) keeps a bell until its thread ends; the
//! sleepers it kept from having one look once a millisecond.

use crate::real::Real;
use crate::{thread, vigil, waiters};
use core::ffi::c_void;
use core::sync::atomic::Ordering::Relaxed;
use libc::c_int;

static LONGJMP: Real = Real::new(c"longjmp");
static SIGLONGJMP: Real = Real::new(c"siglongjmp");
static UNDERSCORE_LONGJMP: Real = Real::new(c"_longjmp");
static LONGJMP_CHK: Real = Real::new(c"__longjmp_chk");
static PTHREAD_EXIT: Real = Real::new(c"pthread_exit");

type Jump = unsafe extern "C" fn(*mut c_void, c_int) -> !;

/// The stack pointer that a jmp_buf of glibc holds, behind its pointer guard.
///
/// # Safety
/// `env` was filled by setjmp.
#[cfg(target_arch = "x86_64")]
unsafe fn target_stack(env: *const c_void) -> usize {
    let guard: u64;
    // SAFETY: the caller's promise; the guard is a word of the thread's control block.
    let mangled = unsafe {
        core::arch::asm!("mov {guard}, qword ptr fs:[0x30]", guard = out(reg) guard, options(pure, readonly, nostack));
        env.cast::<u64>().add(6).read_unaligned()
    };
    (mangled.rotate_right(17) ^ guard) as usize
}

/// Ends the sleeps whose frames the jump leaves: those that are deeper on the same stack, and all that a handler began on
/// its own stack when the jump leaves that.
///
/// # Safety
/// `env` was filled by setjmp.
unsafe fn leave_sleeps(env: *const c_void) {
    let thread = thread::current();
    if !thread.vigil.load(Relaxed).is_null() {
        // SAFETY: the caller's promise.
        unsafe { leave_vigils(env) };
    }
    if thread.vigil.load(Relaxed).is_null() {
        thread.asleep.store(0, Relaxed);
    }
    waiters::abandon();
}

/// # Safety
/// `env` was filled by setjmp.
unsafe fn leave_vigils(env: *const c_void) {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller's promise.
        let to = unsafe { target_stack(env) };
        let (low, size) = crate::sys::signal_stack();
        let is_apart = |at: usize| at.wrapping_sub(low) < size;
        vigil::abandon(|at| match (is_apart(at), is_apart(to)) {
            (true, false) => true,
            (false, true) => false,
            _ => at < to,
        });
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = env;
}

macro_rules! jumps {
    ($($name:ident = $real:ident;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As for the function of libc.
            #[cfg_attr(not(test), unsafe(no_mangle))]
            pub(crate) unsafe extern "C-unwind" fn $name(env: *mut c_void, value: c_int) -> ! {
                // SAFETY: the caller's promise; libc's function of this type.
                unsafe {
                    leave_sleeps(env);
                    core::mem::transmute::<*mut c_void, Jump>($real.address())(env, value)
                }
            }
        )*
    };
}

jumps! {
    longjmp = LONGJMP;
    siglongjmp = SIGLONGJMP;
    _longjmp = UNDERSCORE_LONGJMP;
    __longjmp_chk = LONGJMP_CHK;
}

/// libc's `pthread_exit`.
///
/// # Safety
/// As for the function of libc.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    vigil::abandon(|_| true);
    waiters::abandon();
    // SAFETY: libc's function of this type. It unwinds; nothing here has a destructor.
    unsafe {
        let real: unsafe extern "C-unwind" fn(*mut c_void) -> ! = core::mem::transmute(PTHREAD_EXIT.address());
        real(value)
    }
}
