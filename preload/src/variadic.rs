//! The variadic functions: they put their registers where a `va_list` finds them and go on as the function that takes one; or, where
//! all arguments are strings, before those on the stack, which makes them an array.

use crate::calls::exec;
use crate::stdio;
use core::ffi::{c_char, c_int, c_void};

/// What both become.
unsafe extern "C" fn print(fd: c_int, flag: c_int, format: *const c_char, arguments: *mut c_void) -> c_int {
    // SAFETY: the caller's arguments, as C has them.
    crate::sys::finish(unsafe { stdio::vdprintf_chk(fd, flag, format, arguments) })
}

/// x86_64: the register save area is at 32, the `va_list` (two offsets, two pointers) at 8; `$named` bytes of it are named
/// arguments.
#[cfg(target_arch = "x86_64")]
macro_rules! variadic {
    ($name:ident, $named:literal, $($order:literal),*) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "sub rsp, 216",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "test al, al",
                "je 2f",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                "2:",
                concat!("mov dword ptr [rsp + 8], ", $named),
                "mov dword ptr [rsp + 12], 48",
                "lea rax, [rsp + 224]",
                "mov [rsp + 16], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 24], rax",
                $($order,)*
                "lea rcx, [rsp + 8]",
                "call {print}",
                "add rsp, 216",
                "ret",
                print = sym print,
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
variadic!(dprintf, 16, "mov rdx, rsi", "xor esi, esi");
#[cfg(target_arch = "x86_64")]
variadic!(__dprintf_chk, 24, "");

/// aarch64: the `va_list` (stack, ends of both save areas, two negative offsets) is at 16, the general registers at 48, the
/// vector registers at 112; `$named` is the offset of the first argument without a name.
#[cfg(target_arch = "aarch64")]
macro_rules! variadic {
    ($name:ident, $named:literal, $($order:literal),*) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-240]!",
                "mov x29, sp",
                "stp x0, x1, [sp, #48]",
                "stp x2, x3, [sp, #64]",
                "stp x4, x5, [sp, #80]",
                "stp x6, x7, [sp, #96]",
                "stp q0, q1, [sp, #112]",
                "stp q2, q3, [sp, #144]",
                "stp q4, q5, [sp, #176]",
                "stp q6, q7, [sp, #208]",
                "add x8, sp, #240",
                "str x8, [sp, #16]",
                "add x8, sp, #112",
                "str x8, [sp, #24]",
                "add x8, sp, #240",
                "str x8, [sp, #32]",
                concat!("mov w8, #", $named),
                "str w8, [sp, #40]",
                "mov w8, #-128",
                "str w8, [sp, #44]",
                $($order,)*
                "add x3, sp, #16",
                "bl {print}",
                "ldp x29, x30, [sp], #240",
                "ret",
                print = sym print,
            )
        }
    };
}

#[cfg(target_arch = "aarch64")]
variadic!(dprintf, "-48", "mov x2, x1", "mov w1, #0");
#[cfg(target_arch = "aarch64")]
variadic!(__dprintf_chk, "-40", "");

/// x86_64: five registers go under the stack's arguments, where the return address was.
#[cfg(target_arch = "x86_64")]
macro_rules! strings {
    ($name:ident) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "pop r10",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push r10",
                "call {with_array}",
                "pop r10",
                "add rsp, 40",
                "push r10",
                "ret",
                with_array = sym exec::$name,
            )
        }
    };
}

/// aarch64: seven registers and, below them, the return address.
#[cfg(target_arch = "aarch64")]
macro_rules! strings {
    ($name:ident) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "sub sp, sp, #64",
                "str x30, [sp]",
                "stp x1, x2, [sp, #8]",
                "stp x3, x4, [sp, #24]",
                "stp x5, x6, [sp, #40]",
                "str x7, [sp, #56]",
                "add x1, sp, #8",
                "bl {with_array}",
                "ldr x30, [sp]",
                "add sp, sp, #64",
                "ret",
                with_array = sym exec::$name,
            )
        }
    };
}

strings!(execl);
strings!(execlp);
strings!(execle);
