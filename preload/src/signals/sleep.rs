//! A system call that does not begin once a handler has run.
//!
//! A thread looks, then sleeps. A handler that runs in between would be slept over. So the last comparison and the system
//! call stand in a few instructions that the trampoline knows: whom it finds there it moves to their end.

use super::interrupt::Mark;
use crate::sys::{self, Result};
use crate::{critical, thread};
use core::sync::atomic::Ordering;
use libc::ucontext_t;

/// Number and arguments of a system call, and what must not have changed when it begins.
#[repr(C)]
struct Call {
    number: usize,
    args: [usize; 6],
    events: *const u32,
    expected: u32,
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.sidestep_sleep, \"ax\", @progbits",
    ".balign 16",
    ".globl sidestep_sleep, sidestep_sleep_check, sidestep_sleep_enter, sidestep_sleep_ended",
    ".hidden sidestep_sleep, sidestep_sleep_check, sidestep_sleep_enter, sidestep_sleep_ended",
    ".type sidestep_sleep, @function",
    "sidestep_sleep:",
    ".cfi_startproc",
    "mov rax, [rdi]",
    "mov rsi, [rdi + 16]",
    "mov rdx, [rdi + 24]",
    "mov r10, [rdi + 32]",
    "mov r8, [rdi + 40]",
    "mov r9, [rdi + 48]",
    "mov rcx, [rdi + 56]",
    "mov r11d, [rdi + 64]",
    "mov rdi, [rdi + 8]",
    "sidestep_sleep_check:",
    "cmp dword ptr [rcx], r11d",
    "jne sidestep_sleep_ended",
    "sidestep_sleep_enter:",
    "syscall",
    "ret",
    "sidestep_sleep_ended:",
    "mov rax, -4",
    "ret",
    ".cfi_endproc",
    ".size sidestep_sleep, . - sidestep_sleep",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C-unwind" {
    fn sidestep_sleep(call: *const Call) -> isize;
    fn sidestep_sleep_check();
    fn sidestep_sleep_enter();
    fn sidestep_sleep_ended();
}

/// The system call `number`, or EINTR if a handler has run since `mark`. Handlers run here also when the thread is inside: it
/// is where a call that waits lets them in, and where they may leave it.
///
/// # Safety
/// The arguments are good for this call.
pub(crate) unsafe fn call(number: syscalls::Sysno, args: [usize; 6], mark: &Mark) -> Result<isize> {
    let thread = thread::current();
    let call = Call { number: number as usize, args, events: thread.events.as_ptr().cast(), expected: mark.events() };
    // A canceller looks at the one after it has changed the other; so do we, the other way about.
    if thread.tid.load(Ordering::Relaxed) == 0 {
        // SAFETY: no arguments.
        thread.tid.store(unsafe { sys::raw!(gettid) }.unwrap_or(0) as u32, Ordering::Relaxed);
    }
    thread.asleep.store(thread.tid.load(Ordering::Relaxed), Ordering::SeqCst);
    let result = {
        let _opened = critical::open();
        // SAFETY: the caller's promise.
        unsafe { enter(number, &call, mark) }
    };
    thread.asleep.store(0, Ordering::Relaxed);
    result
}

/// A system call that never restarts (poll, select, epoll_wait) as it is, but that it ends for a canceller.
///
/// # Safety
/// The arguments are good for this call.
pub(crate) unsafe fn wait(number: syscalls::Sysno, args: [usize; 6]) -> Result<isize> {
    let mut mark = Mark::at_start();
    loop {
        // SAFETY: the caller's promise.
        match unsafe { call(number, args, &mark) } {
            Err(libc::EINTR) if !mark.ends(false, Err(libc::EINTR)) => {}
            result => return result,
        }
    }
}

/// # Safety
/// The arguments are good for this call.
unsafe fn enter(number: syscalls::Sysno, call: &Call, mark: &Mark) -> Result<isize> {
    #[cfg(target_arch = "x86_64")]
    {
        let _ = (number, mark);
        // SAFETY: the caller's promise.
        let value = unsafe { sidestep_sleep(call) };
        if (-4095..0).contains(&value) { Err(-value as libc::c_int) } else { Ok(value) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        if mark.any_ran() {
            return Err(libc::EINTR);
        }
        let [a, b, c, d, e, f] = call.args;
        // SAFETY: the caller's promise.
        unsafe { syscalls::syscall6(number, a, b, c, d, e, f) }.map(|v| v as isize).map_err(|e| e.into_raw())
    }
}

/// In the trampoline: a thread that was about to sleep does not, or looks once more.
///
/// # Safety
/// What the kernel gave the handler.
pub(super) unsafe fn end(context: *mut ucontext_t) {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller's promise.
        let pc = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
        let here = *pc as usize;
        if (sidestep_sleep_check as *const () as usize..=sidestep_sleep_enter as *const () as usize).contains(&here) {
            *pc = sidestep_sleep_ended as *const () as i64;
        } else if let Some(again) = crate::exported_waits::again(here) {
            *pc = again as i64;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = context;
}
