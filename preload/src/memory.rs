//! The application's memory. Its pointers may be bad, and the kernel says EFAULT then; so do we, because all that we read or
//! write there goes through the few instructions of this file. A fault in them comes to our handler
//! ([`crate::signals::faults`]), which lets them end with "no".
//!
//! Payload is copied by the engine, under the stack's lock, from or to memory that was probed under that lock: as many bytes as
//! are going to be copied, one instruction a page. Memory that another thread unmaps in that moment is a crash, as it is in
//! any function of libc. So is a bad pointer in a program that replaced our handler by the system call, past libc.

use crate::sys::Result;
use crate::{sys, thread};
use core::sync::atomic::Ordering::Relaxed;
use libc::{EFAULT, SIGBUS, SIGSEGV, iovec, ucontext_t};

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.sidestep_memory, \"ax\", @progbits",
    ".balign 16",
    ".globl sidestep_copy, sidestep_probe_read, sidestep_probe_write, sidestep_memory_end, sidestep_memory_bad",
    ".hidden sidestep_copy, sidestep_probe_read, sidestep_probe_write, sidestep_memory_end, sidestep_memory_bad",
    // (to rdi, from rsi, bytes rdx) -> 0, or 1: bad
    "sidestep_copy:",
    ".cfi_startproc",
    "cmp rdx, 256",
    "jae 4f",
    "sub rdx, 8",
    "jb 2f",
    "1:",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rdx, 8",
    "jae 1b",
    "2:",
    "add rdx, 8",
    "jz 5f",
    "3:",
    "mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rdx",
    "jnz 3b",
    "jmp 5f",
    "4:",
    "mov rcx, rdx",
    "rep movsb",
    "5:",
    "xor eax, eax",
    "ret",
    // (first byte rdi, last byte rsi) -> 0, or 1: bad
    "sidestep_probe_read:",
    "6:",
    "movzx eax, byte ptr [rdi]",
    "and rdi, -4096",
    "add rdi, 4096",
    "cmp rdi, rsi",
    "jbe 6b",
    "xor eax, eax",
    "ret",
    "sidestep_probe_write:",
    "7:",
    "or byte ptr [rdi], 0",
    "and rdi, -4096",
    "add rdi, 4096",
    "cmp rdi, rsi",
    "jbe 7b",
    "xor eax, eax",
    "ret",
    "sidestep_memory_end:",
    "sidestep_memory_bad:",
    "mov eax, 1",
    "ret",
    ".cfi_endproc",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
mod touch {
    unsafe extern "C" {
        pub(super) fn sidestep_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
        pub(super) fn sidestep_probe_read(first: usize, last: usize) -> u32;
        pub(super) fn sidestep_probe_write(first: usize, last: usize) -> u32;
        pub(super) fn sidestep_memory_end();
        pub(super) fn sidestep_memory_bad();
    }
}

/// Other machines copy as they are: a bad pointer crashes.
#[cfg(not(target_arch = "x86_64"))]
mod touch {
    pub(super) unsafe fn sidestep_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32 {
        // SAFETY: the caller's promise, and good pointers.
        unsafe { core::ptr::copy(from, to, bytes) };
        0
    }
    pub(super) unsafe fn sidestep_probe_read(_: usize, _: usize) -> u32 {
        0
    }
    pub(super) unsafe fn sidestep_probe_write(_: usize, _: usize) -> u32 {
        0
    }
}

/// In the handler of a fault: if it happened in one of ours, that ends with "bad".
///
/// # Safety
/// What the kernel gave the handler.
pub(crate) unsafe fn land(context: *mut ucontext_t) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller's promise.
        let pc = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
        let ours = touch::sidestep_copy as *const () as usize..touch::sidestep_memory_end as *const () as usize;
        if ours.contains(&(*pc as usize)) {
            *pc = touch::sidestep_memory_bad as *const () as i64;
            return true;
        }
        if let Some(bad) = crate::exported_waits::bad_array(*pc as usize) {
            *pc = bad as i64;
            return true;
        }
    }
    let _ = context;
    false
}

// ---- whether faults reach us ----

/// What `Thread::faults` says. Zero: not known, the mask may have changed.
pub(crate) const REACH_US: u32 = 1;
const BLOCKED: u32 = 2;

/// The thread's signal mask may be another now.
pub(crate) fn note_mask_change() {
    thread::current().faults.store(0, Relaxed);
}

/// Runs one of the routines above. While a fault's signal is blocked the kernel kills instead of asking, so it is let
/// through for the moment.
#[inline]
fn guarded(routine: impl Fn() -> u32) -> Result<()> {
    let is_bad = if thread::current().faults.load(Relaxed) == REACH_US { routine() } else { guarded_slowly(&routine) };
    if is_bad == 0 { Ok(()) } else { Err(EFAULT) }
}

#[cold]
fn guarded_slowly(routine: &dyn Fn() -> u32) -> u32 {
    const FAULTS: u64 = 1 << (SIGSEGV - 1) | 1 << (SIGBUS - 1);
    crate::signals::faults::watch();
    let state = &thread::current().faults;
    let before = sys::change_signal_mask(libc::SIG_UNBLOCK, FAULTS);
    let is_bad = routine();
    if before & FAULTS != 0 {
        sys::set_signal_mask(before);
        state.store(BLOCKED, Relaxed);
    } else {
        state.store(REACH_US, Relaxed);
    }
    is_bad
}

// ---- what the shim does with it ----

/// Copies from the application.
///
/// # Safety
/// `to` is ours, writable for `bytes`.
pub(crate) unsafe fn copy_in(to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
    // SAFETY: the caller's promise; `from` may be anything.
    guarded(|| unsafe { touch::sidestep_copy(to, from, bytes) })
}

/// Copies to the application. It may be cut short by EFAULT.
///
/// # Safety
/// `from` is ours, readable for `bytes`; nothing of ours is at `to`.
pub(crate) unsafe fn copy_out(to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
    // SAFETY: the caller's promise; `to` may be anything of the application's.
    guarded(|| unsafe { touch::sidestep_copy(to, from, bytes) })
}

/// Reads a value.
///
/// # Safety
/// T is of integers and pointers: all octets are a value.
pub(crate) unsafe fn read<T: Copy>(from: *const T) -> Result<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: `value` is ours, and filled when the copy says so.
    unsafe {
        copy_in(value.as_mut_ptr().cast(), from.cast(), size_of::<T>())?;
        Ok(value.assume_init())
    }
}

/// Writes a value.
///
/// # Safety
/// Nothing of ours is at `to`.
pub(crate) unsafe fn write<T: Copy>(to: *mut T, value: T) -> Result<()> {
    // SAFETY: `value` is ours.
    unsafe { copy_out(to.cast(), (&raw const value).cast(), size_of::<T>()) }
}

/// First and last address of a range; EFAULT when it goes round the end.
fn bounds(at: usize, bytes: usize) -> Result<(usize, usize)> {
    Ok((at, at.checked_add(bytes - 1).ok_or(EFAULT)?))
}

/// Whether `bytes` from `at` on can be read.
#[inline]
pub(crate) fn probe_read(at: *const u8, bytes: usize) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let (first, last) = bounds(at as usize, bytes)?;
    // SAFETY: reads one byte a page, of whatever is there.
    guarded(|| unsafe { touch::sidestep_probe_read(first, last) })
}

/// Whether a signal mask, if there is one, can be read.
pub(crate) fn probe_mask(mask: *const libc::sigset_t) -> Result<()> {
    probe_read(mask.cast(), if mask.is_null() { 0 } else { sys::SIGSET_BYTES })
}

/// Whether `bytes` from `at` on can be written; they keep their values.
#[inline]
pub(crate) fn probe_write(at: *mut u8, bytes: usize) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let (first, last) = bounds(at as usize, bytes)?;
    // SAFETY: writes one byte a page with what it is. The application told us to write there.
    guarded(|| unsafe { touch::sidestep_probe_write(first, last) })
}

/// Linux's TASK_SIZE_MAX: what lies higher cannot be an application's.
const ADDRESSES_END: usize = if cfg!(target_arch = "x86_64") { 0x7fff_ffff_f000 } else { 1 << 48 };

/// What the kernel says of buffers before it touches them: lengths that are negative, addresses that are its own.
#[inline]
pub(crate) fn check_buffers(iov: &[iovec]) -> Result<()> {
    for v in iov {
        if v.iov_len > isize::MAX as usize {
            return Err(libc::EINVAL);
        }
        let len = v.iov_len.min(ADDRESSES_END);
        if v.iov_base as usize > ADDRESSES_END - len {
            return Err(EFAULT);
        }
    }
    Ok(())
}

/// A send is refused as a whole up to this many bytes when one of them cannot be read; so Linux fills its pages.
const CHUNK: usize = 32 * 1024;

/// How many of the first `bytes` of the buffers, from byte `skip` on, can be sent.
pub(crate) fn readable_bytes(iov: &[iovec], skip: usize, bytes: usize) -> Result<usize> {
    let probe = |at: *mut u8, n| probe_read(at, n);
    let mut good = 0;
    while good < bytes {
        let n = (bytes - good).min(CHUNK);
        match probe_buffers(iov, skip + good, n, probe) {
            Ok(()) => good += n,
            Err(e) if good == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(good)
}

/// Whether the first `bytes` of the buffers, from byte `skip` on, can be touched as `probe` does it.
pub(crate) fn probe_buffers(
    iov: &[iovec],
    mut skip: usize,
    mut bytes: usize,
    probe: impl Fn(*mut u8, usize) -> Result<()>,
) -> Result<()> {
    for v in iov {
        let start = skip.min(v.iov_len);
        skip -= start;
        let n = (v.iov_len - start).min(bytes);
        if n != 0 {
            probe(v.iov_base.cast::<u8>().wrapping_add(start), n)?;
        }
        bytes -= n;
        if bytes == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that can be touched, then one that cannot.
    fn pages() -> *mut u8 {
        let at = sys::map_lazily(8192).unwrap();
        // SAFETY: our mapping's second page.
        unsafe { sys::raw!(mprotect, at.add(4096), 4096, libc::PROT_NONE) }.unwrap();
        at
    }

    #[test]
    fn good_memory_is_copied_at_every_length() {
        let from: Vec<u8> = (0..600).map(|i| i as u8).collect();
        for n in [0, 1, 7, 8, 9, 15, 16, 31, 255, 256, 257, 600] {
            let mut to = vec![0xee; 601];
            // SAFETY: both are as long.
            unsafe { copy_in(to.as_mut_ptr(), from.as_ptr(), n) }.unwrap();
            assert_eq!((&to[..n], to[n]), (&from[..n], 0xee), "{n}");
        }
        assert_eq!(probe_write(from.as_ptr().cast_mut(), 600), Ok(()));
        assert_eq!((from[0], from[599]), (0, 87));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn bad_memory_is_efault_also_while_its_signals_are_blocked() {
        crate::signals::faults::watch_in_spite_of_handlers();
        let at = pages();
        for blocked in [false, true] {
            let before = sys::change_signal_mask(libc::SIG_BLOCK, if blocked { u64::MAX } else { 0 });
            note_mask_change();
            let mut to = [0u8; 4096];
            for n in [1, 8, 9, 300, 4096] {
                // SAFETY: `to` is ours; the other end may be bad.
                unsafe {
                    assert_eq!(copy_in(to.as_mut_ptr(), at.add(4096 - n), n), Ok(()));
                    assert_eq!(copy_in(to.as_mut_ptr(), at.add(4096 - n + 1), n), Err(EFAULT));
                    assert_eq!(copy_out(at.add(4096 - n + 1), to.as_ptr(), n), Err(EFAULT));
                }
            }
            assert_eq!(probe_read(at, 4096), Ok(()));
            assert_eq!(probe_read(at, 4097), Err(EFAULT));
            assert_eq!(probe_write(at.wrapping_add(4095), 2), Err(EFAULT));
            assert_eq!(probe_read(usize::MAX as *const u8, 4), Err(EFAULT));
            assert_eq!(probe_read((1usize << 63) as *const u8, 4), Err(EFAULT), "no address at all");
            let after = sys::change_signal_mask(libc::SIG_BLOCK, 0);
            assert_eq!(after & (1 << (SIGSEGV - 1)) != 0, blocked);
            sys::set_signal_mask(before);
            note_mask_change();
        }
    }
}
