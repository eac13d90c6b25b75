//! How a line of the table in [`crate::symbols`] becomes an exported function. There are four ways:
//!
//! - *plain*: the call, and its outcome in libc's convention;
//! - *cancellation point*: the same, and pthread_cancel() is obeyed when the call has come back out of all that is ours;
//! - *kernel or point*: a call on a descriptor that is the kernel's goes on to libc's own function at once, by a jump. So it costs
//!   a look into the table, and cancellation is there as without us. The rest is a cancellation point;
//! - *message or point*: as the last, but on a descriptor of the kernel's a look at the message comes first: it may carry descriptors.
//!
//! The functions may be unwound: that is how libc ends a thread that is cancelled. Nothing with a destructor is alive then.

/// Which of them a name is. The names are those of pthreads(7), "cancellation points", as far as they are in the table, and
/// what glibc has besides. Those with two descriptors cannot be told by the first.
#[macro_export]
#[doc(hidden)]
macro_rules! exported {
    (read $($rest:tt)*) => { kernel_or_point!(read $($rest)*); };
    (__read $($rest:tt)*) => { kernel_or_point!(__read $($rest)*); };
    (readv $($rest:tt)*) => { kernel_or_point!(readv $($rest)*); };
    (recv $($rest:tt)*) => { kernel_or_point!(recv $($rest)*); };
    (recvfrom $($rest:tt)*) => { kernel_or_point!(recvfrom $($rest)*); };
    (recvmsg $($rest:tt)*) => { message_or_point!(rights::receive_behind, recvmsg $($rest)*); };
    (recvmmsg $($rest:tt)*) => { kernel_or_point!(recvmmsg $($rest)*); };
    (write $($rest:tt)*) => { kernel_or_point!(write $($rest)*); };
    (__write $($rest:tt)*) => { kernel_or_point!(__write $($rest)*); };
    (writev $($rest:tt)*) => { kernel_or_point!(writev $($rest)*); };
    (send $($rest:tt)*) => { kernel_or_point!(send $($rest)*); };
    (__send $($rest:tt)*) => { kernel_or_point!(__send $($rest)*); };
    (sendto $($rest:tt)*) => { kernel_or_point!(sendto $($rest)*); };
    (sendmsg $($rest:tt)*) => { message_or_point!(rights::send_behind, sendmsg $($rest)*); };
    (sendmmsg $($rest:tt)*) => { kernel_or_point!(sendmmsg $($rest)*); };
    (accept $($rest:tt)*) => { kernel_or_point!(accept $($rest)*); };
    (accept4 $($rest:tt)*) => { kernel_or_point!(accept4 $($rest)*); };
    (connect $($rest:tt)*) => { kernel_or_point!(connect $($rest)*); };
    (__connect $($rest:tt)*) => { kernel_or_point!(__connect $($rest)*); };
    (fcntl $($rest:tt)*) => { cancellation_point!(fcntl $($rest)*); };
    (fcntl64 $($rest:tt)*) => { cancellation_point!(fcntl64 $($rest)*); };
    (close $($rest:tt)*) => { cancellation_point!(close $($rest)*); };
    (poll $($rest:tt)*) => { poll_or_point!(["sidestep_poll_look" "sidestep_poll_bad"] poll $($rest)*); };
    (__poll $($rest:tt)*) => { poll_or_point!(["sidestep_poll_alias_look" "sidestep_poll_alias_bad"] __poll $($rest)*); };
    (ppoll $($rest:tt)*) => { poll_or_point!(["sidestep_ppoll_look" "sidestep_ppoll_bad"] ppoll $($rest)*); };
    (select $($rest:tt)*) => { select_or_point!(["sidestep_select_look" "sidestep_select_looked" "sidestep_select_bad"] select $($rest)*); };
    (__select $($rest:tt)*) => { select_or_point!(["sidestep_select_alias_look" "sidestep_select_alias_looked" "sidestep_select_alias_bad"] __select $($rest)*); };
    (pselect $($rest:tt)*) => { select_or_point!(["sidestep_pselect_look" "sidestep_pselect_looked" "sidestep_pselect_bad"] pselect $($rest)*); };
    (epoll_wait $($rest:tt)*) => { epoll_wait_or_point!(epoll_wait $($rest)*); };
    (epoll_pwait $($rest:tt)*) => { epoll_pwait_or_point!(epoll_pwait $($rest)*); };
    (epoll_pwait2 $($rest:tt)*) => { kernel_or_point!(epoll_pwait2 $($rest)*); };
    (__read_chk $($rest:tt)*) => { kernel_or_point!(__read_chk $($rest)*); };
    (__recv_chk $($rest:tt)*) => { kernel_or_point!(__recv_chk $($rest)*); };
    (__recvfrom_chk $($rest:tt)*) => { kernel_or_point!(__recvfrom_chk $($rest)*); };
    (pread $($rest:tt)*) => { kernel_or_point!(pread $($rest)*); };
    (pread64 $($rest:tt)*) => { kernel_or_point!(pread64 $($rest)*); };
    (__pread64 $($rest:tt)*) => { kernel_or_point!(__pread64 $($rest)*); };
    (__pread_chk $($rest:tt)*) => { kernel_or_point!(__pread_chk $($rest)*); };
    (__pread64_chk $($rest:tt)*) => { kernel_or_point!(__pread64_chk $($rest)*); };
    (pwrite $($rest:tt)*) => { kernel_or_point!(pwrite $($rest)*); };
    (pwrite64 $($rest:tt)*) => { kernel_or_point!(pwrite64 $($rest)*); };
    (__pwrite64 $($rest:tt)*) => { kernel_or_point!(__pwrite64 $($rest)*); };
    (preadv $($rest:tt)*) => { kernel_or_point!(preadv $($rest)*); };
    (preadv64 $($rest:tt)*) => { kernel_or_point!(preadv64 $($rest)*); };
    (pwritev $($rest:tt)*) => { kernel_or_point!(pwritev $($rest)*); };
    (pwritev64 $($rest:tt)*) => { kernel_or_point!(pwritev64 $($rest)*); };
    (preadv2 $($rest:tt)*) => { kernel_or_point!(preadv2 $($rest)*); };
    (preadv64v2 $($rest:tt)*) => { kernel_or_point!(preadv64v2 $($rest)*); };
    (pwritev2 $($rest:tt)*) => { kernel_or_point!(pwritev2 $($rest)*); };
    (pwritev64v2 $($rest:tt)*) => { kernel_or_point!(pwritev64v2 $($rest)*); };
    (splice $($rest:tt)*) => { cancellation_point!(splice $($rest)*); };
    (tee $($rest:tt)*) => { cancellation_point!(tee $($rest)*); };
    (vmsplice $($rest:tt)*) => { cancellation_point!(vmsplice $($rest)*); };
    (__poll_chk $($rest:tt)*) => { cancellation_point!(__poll_chk $($rest)*); };
    (__ppoll_chk $($rest:tt)*) => { cancellation_point!(__ppoll_chk $($rest)*); };
    ($($rest:tt)*) => { plain!($($rest)*); };
}

#[macro_export]
#[doc(hidden)]
macro_rules! plain {
    ($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[allow(non_snake_case)] // names of C
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub(crate) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller keeps the contract of the libc function, which the target has too.
            unsafe { $target($($arg),*) }.finish()
        }
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! cancellation_point {
    ($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub(crate) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            $crate::signals::cancel::point();
            // SAFETY: the caller keeps the contract of the libc function, which the target has too.
            let outcome = unsafe { $target($($arg),*) };
            $crate::signals::cancel::point_after(outcome == Err(libc::EINTR));
            outcome.finish()
        }
    };
}

/// The part of a function that is for descriptors that are ours or may become so; and where the rest goes.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! user_part {
    (($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        /// # Safety
        /// As for the function of libc.
        unsafe extern "C-unwind" fn user($($arg: $ty),*) -> $ret {
            $crate::signals::cancel::point();
            // SAFETY: the caller keeps the contract of the libc function, which the target has too.
            let outcome = unsafe { $target($($arg),*) };
            $crate::signals::cancel::point_after(outcome == Err(libc::EINTR));
            outcome.finish()
        }

        static BEHIND: $crate::real::Behind = $crate::real::Behind::new(user as *const ());
    };
}

/// Libc's functions behind those that jump there; until they are found, ours do what they would. `$jump` is done for a number
/// below the table's end that is the kernel's; without it all those go to libc's.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! jumping {
    ([$($jump:literal)?] [$($operand:tt)*] { $($between:item)? } $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        const _: () = {
            $crate::user_part!(($($arg: $ty),*) -> $ret = $target);

            $($between)?

            /// The kind of an entry, its highest octet, is not zero when the number is ours.
            ///
            /// # Safety
            /// As for the function of libc.
            #[unsafe(naked)]
            #[cfg_attr(not(test), unsafe(export_name = stringify!($name)))]
            unsafe extern "C-unwind" fn exported($($arg: $ty),*) -> $ret {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "mov r10, qword ptr [rip + {table} + {len}]",
                    "mov r11d, edi",
                    "cmp r11, r10",
                    "jae 2f",
                    "mov r10, qword ptr [rip + {table} + {base}]",
                    "cmp byte ptr [r10 + r11 * 8 + 7], 0",
                    "jne {user}",
                    $($jump,)?
                    "2:",
                    "jmp qword ptr [rip + {behind}]",
                    ".cfi_endproc",
                    table = sym $crate::fd_table::TABLE,
                    len = const $crate::fd_table::FdTable::LEN_OFFSET,
                    base = const $crate::fd_table::FdTable::BASE_OFFSET,
                    user = sym user,
                    $($operand)*
                    behind = sym BEHIND,
                )
            }

            $crate::find_behind!($name);
        };
    };
}

/// Finds libc's function behind one of ours before the program begins.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! find_behind {
    ($name:ident) => {
        #[cfg(not(test))]
        #[used]
        #[unsafe(link_section = ".init_array")]
        static FIND: extern "C" fn() = {
            extern "C" fn find() {
                BEHIND.find(concat!(stringify!($name), "\0"));
            }
            find
        };
    };
}

#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! kernel_or_point {
    ($($rest:tt)*) => { $crate::jumping!([] [] {} $($rest)*); };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! kernel_or_point {
    ($($rest:tt)*) => { cancellation_point!($($rest)*); };
}

/// Waits whose machine code is in `exported_waits.rs`.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! epoll_wait_or_point {
    ($($rest:tt)*) => {
        $crate::set_wait!(
            SYS_epoll_wait ["sidestep_epoll_wait_check" "sidestep_epoll_wait_enter" "sidestep_epoll_wait_again"]
            [] "r8" $crate::calls::epoll::after_wait => $($rest)*
        );
    };
}

#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! epoll_pwait_or_point {
    ($($rest:tt)*) => {
        $crate::set_wait!(
            SYS_epoll_pwait ["sidestep_epoll_pwait_check" "sidestep_epoll_pwait_enter" "sidestep_epoll_pwait_again"]
            ["8"] "r9" $crate::calls::epoll::after_pwait => $($rest)*
        );
    };
}

#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! poll_or_point {
    ($($rest:tt)*) => { $crate::array_wait!($($rest)*); };
}

#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! select_or_point {
    ($($rest:tt)*) => { $crate::bits_wait!($($rest)*); };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! epoll_wait_or_point {
    ($($rest:tt)*) => { cancellation_point!($($rest)*); };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! epoll_pwait_or_point {
    ($($rest:tt)*) => { cancellation_point!($($rest)*); };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! poll_or_point {
    ([$($labels:literal)*] $($rest:tt)*) => { cancellation_point!($($rest)*); };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! select_or_point {
    ([$($labels:literal)*] $($rest:tt)*) => { cancellation_point!($($rest)*); };
}

/// As `kernel_or_point`, with a function between for descriptors of the kernel's, which gets libc's.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! message_or_point {
    ($between:path, $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        $crate::jumping!(["jmp {kernel}"] [kernel = sym kernel,] {
            /// For a descriptor of the kernel's. Nothing here has a destructor, so cancellation in libc's function may unwind it.
            ///
            /// # Safety
            /// As for the function of libc.
            unsafe extern "C-unwind" fn kernel($($arg: $ty),*) -> $ret {
                type Real = unsafe extern "C-unwind" fn($($ty),*) -> $ret;
                // SAFETY: libc's function of this name, or ours, which have this type.
                let real = unsafe { core::mem::transmute::<*const (), Real>(BEHIND.address()) };
                // SAFETY: the caller keeps the contract of the libc function.
                unsafe { $between(real, $($arg),*) }
            }
        } $name($($arg: $ty),*) -> $ret = $target);
    };
}

#[cfg(not(target_arch = "x86_64"))]
#[macro_export]
#[doc(hidden)]
macro_rules! message_or_point {
    ($between:path, $($rest:tt)*) => { cancellation_point!($($rest)*); };
}
