//! Exported functions that wait, as far as the kernel's descriptors alone are concerned, in machine code: such a wait costs what libc's
//! does. They jump to libc's function, or make its system call and return; whatever else there is to do is `user`'s, a function of Rust.

/// epoll_wait and epoll_pwait. A number that is no set of ours goes to libc's. At a set that has no user socket the thread announces
/// itself ([`crate::waiters`]), looks once more whether it has none, and waits. A handler that runs after that look may change what
/// was seen: who is interrupted between `$check` and `$enter` begins again ([`crate::signals::sleep::end`]), with the arguments in
/// their places. A wait that fails, at whose end there is a user socket in the set, or that somebody wants cancelled, goes on in
/// `after`.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! set_wait {
    ($call:ident [$check:literal $enter:literal $again:literal] [$($mask_bytes:literal)?] $to_after:literal $after:path =>
     $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        const _: () = {
            $crate::user_part!(($($arg: $ty),*) -> $ret = $target);

            /// # Safety
            /// As for the function of libc; `result` is the system call's.
            unsafe extern "C-unwind" fn after($($arg: $ty,)* result: isize) -> $ret {
                // SAFETY: as above.
                let outcome = unsafe { $after($($arg,)* result) };
                $crate::signals::cancel::point_after(outcome == Err(libc::EINTR));
                outcome.finish()
            }

            /// # Safety
            /// As for the function of libc.
            #[unsafe(naked)]
            #[cfg_attr(not(test), unsafe(export_name = stringify!($name)))]
            unsafe extern "C-unwind" fn exported($($arg: $ty),*) -> $ret {
                core::arch::naked_asm!(
                    concat!(".globl ", $check, ", ", $enter, ", ", $again),
                    concat!(".hidden ", $check, ", ", $enter, ", ", $again),
                    ".cfi_startproc",
                    // r10: the table's word.
                    "mov r10, qword ptr [rip + {table} + {len}]",
                    "mov r11d, edi; cmp r11, r10; jae 2f",
                    "mov r10, qword ptr [rip + {table} + {base}]; mov r10, qword ptr [r10 + r11 * 8]",
                    "mov r11, r10; shr r11, 56; jz 2f",
                    "cmp r11d, {epoll}; jne {user}",
                    // r11: the set.
                    "mov r11, r10; shr r11, 32; and r11d, {index}; imul r11, r11, {set_bytes}",
                    "lea rax, [rip + {sets}]; add r11, rax",
                    "cmp dword ptr [r11 + {generation}], r10d; jne {user}",
                    // rax: the slot of this thread.
                    "mov rax, qword ptr [rip + sidestep_thread@GOTTPOFF]",
                    "mov rax, qword ptr fs:[rax + {waiter}]; test rax, rax; jz {user}",
                    "push rax; .cfi_adjust_cfa_offset 8; push r11; .cfi_adjust_cfa_offset 8",
                    // When it began, where it may have to go on for what is left of its time.
                    "test ecx, ecx; jle 3f",
                    "mov r9, qword ptr [rip + {alone}]; cmp byte ptr [r9], 0; jne 3f",
                    "mov r9, rdx; rdtsc; shl rdx, 32; or rax, rdx; mov rdx, r9",
                    "mov r9, rax; mov rax, qword ptr [rsp + 8]; mov qword ptr [rax + {began}], r9",
                    "3:",
                    concat!($check, ":"),
                    "mov qword ptr [rax + {set}], r11; mov qword ptr [rax + {entry}], r10",
                    "cmp qword ptr [r11 + {id}], 0; jne 4f",
                    "mov r10, qword ptr [rip + sidestep_thread@GOTTPOFF]",
                    "cmp dword ptr fs:[r10 + {cancelled}], 0; jne 4f",
                    "mov r10, qword ptr fs:[r10 + {events}]; mov qword ptr [rax + {events_then}], r10",
                    "mov r10, rcx",
                    $(concat!("mov r9d, ", $mask_bytes),)?
                    "mov eax, {number}",
                    concat!($enter, ":"),
                    "syscall",
                    ".cfi_remember_state",
                    "pop r11; .cfi_adjust_cfa_offset -8",
                    "pop rcx; .cfi_adjust_cfa_offset -8",
                    // Whoever changes the set from here on does not wait for this thread.
                    "mov qword ptr [rcx + {entry}], 0",
                    "cmp rax, -4095; jae 5f",
                    "cmp qword ptr [r11 + {id}], 0; jne 5f",
                    "mov rcx, qword ptr [rip + sidestep_thread@GOTTPOFF]",
                    "cmp dword ptr fs:[rcx + {cancelled}], 0; jne 5f",
                    "ret",
                    concat!("5: mov rcx, r10; mov ", $to_after, ", rax; jmp {after}"),
                    ".cfi_restore_state",
                    concat!("4: ", $again, ":"),
                    "mov rax, qword ptr [rsp + 8]; mov qword ptr [rax + {entry}], 0",
                    "add rsp, 16; .cfi_adjust_cfa_offset -16; jmp {user}",
                    "2: jmp qword ptr [rip + {behind}]",
                    ".cfi_endproc",
                    table = sym $crate::fd_table::TABLE,
                    len = const $crate::fd_table::FdTable::LEN_OFFSET,
                    base = const $crate::fd_table::FdTable::BASE_OFFSET,
                    epoll = const $crate::fd_table::Kind::Epoll as u8,
                    index = const $crate::fd_table::INDEX_MASK,
                    sets = sym $crate::epoll::SETS,
                    set_bytes = const size_of::<$crate::epoll::Set>(),
                    generation = const $crate::epoll::Set::GENERATION,
                    id = const $crate::epoll::Set::ID,
                    waiter = const $crate::thread::Thread::WAITER,
                    events = const $crate::thread::Thread::EVENTS,
                    cancelled = const $crate::thread::Thread::CANCELLED,
                    alone = sym $crate::thread::ALONE,
                    set = const $crate::waiters::Waiter::SET,
                    entry = const $crate::waiters::Waiter::ENTRY,
                    began = const $crate::waiters::Waiter::BEGAN,
                    events_then = const $crate::waiters::Waiter::EVENTS,
                    number = const libc::$call,
                    user = sym user,
                    after = sym after,
                    behind = sym BEHIND,
                )
            }

            $crate::find_behind!($name);
        };
    };
}

/// A function that looks by machine code through what an application asks about, and goes to libc's if all of it is the kernel's. What
/// it asks about may be anywhere: a fault in it ends at a label ([`crate::memory::land`]) from where `user` says what it is.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! looking_wait {
    ([$($line:expr),* $(,)?] $most:ident $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path) => {
        const _: () = {
            $crate::user_part!(($($arg: $ty),*) -> $ret = $target);

            /// # Safety
            /// As for the function of libc.
            #[unsafe(naked)]
            #[cfg_attr(not(test), unsafe(export_name = stringify!($name)))]
            unsafe extern "C-unwind" fn exported($($arg: $ty),*) -> $ret {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    $($line,)*
                    ".cfi_endproc",
                    most = const $crate::exported_waits::$most,
                    table = sym $crate::fd_table::TABLE,
                    len = const $crate::fd_table::FdTable::LEN_OFFSET,
                    base = const $crate::fd_table::FdTable::BASE_OFFSET,
                    faults = const $crate::thread::Thread::FAULTS,
                    reach_us = const $crate::memory::REACH_US,
                    user = sym user,
                    behind = sym BEHIND,
                )
            }

            $crate::find_behind!($name);
        };
    };
}

/// poll and ppoll: an array, whose numbers are read at `$look`.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! array_wait {
    ([$look:literal $bad:literal] $($rest:tt)*) => {
        $crate::looking_wait!([
            concat!(".globl ", $look, ", ", $bad),
            concat!(".hidden ", $look, ", ", $bad),
            // Long arrays are a function's work.
            "cmp rsi, {most}",
            "ja {user}",
            "mov r10, qword ptr [rip + {table} + {len}]",
            "mov r9, qword ptr [rip + {table} + {base}]",
            "mov rax, qword ptr [rip + sidestep_thread@GOTTPOFF]",
            "cmp dword ptr fs:[rax + {faults}], {reach_us}",
            "jne {user}",
            "mov r8, rdi",
            "lea r11, [rdi + rsi * 8]",
            "2:",
            "cmp r8, r11",
            "je 3f",
            concat!($look, ":"),
            "mov eax, dword ptr [r8]",
            "add r8, 8",
            "cmp rax, r10",
            "jae 2b",
            "cmp byte ptr [r9 + rax * 8 + 7], 0",
            "je 2b",
            concat!($bad, ":"),
            "jmp {user}",
            "3:",
            "jmp qword ptr [rip + {behind}]",
        ] ARRAY_MAX $($rest)*);
    };
}

/// select and pselect: three sets of numbers, whose words are read between `$look` and `$looked`.
#[cfg(target_arch = "x86_64")]
#[macro_export]
#[doc(hidden)]
macro_rules! bits_wait {
    ([$look:literal $looked:literal $bad:literal] $($rest:tt)*) => {
        $crate::looking_wait!([
            concat!(".globl ", $look, ", ", $looked, ", ", $bad),
            concat!(".hidden ", $look, ", ", $looked, ", ", $bad),
            "cmp edi, {most}",
            "ja {user}",
            "mov rax, qword ptr [rip + sidestep_thread@GOTTPOFF]",
            "cmp dword ptr fs:[rax + {faults}], {reach_us}",
            "jne {user}",
            "push rbx; .cfi_adjust_cfa_offset 8; .cfi_rel_offset rbx, 0",
            "push rbp; .cfi_adjust_cfa_offset 8; .cfi_rel_offset rbp, 0",
            "mov r10, qword ptr [rip + {table} + {len}]",
            "mov r11, qword ptr [rip + {table} + {base}]",
            // rbx: the number of a word's first bit.
            "xor ebx, ebx",
            "2: cmp ebx, edi; jae 8f",
            "mov ebp, ebx; shr ebp, 3",
            "xor eax, eax",
            concat!($look, ":"),
            "test rsi, rsi; jz 3f; or rax, qword ptr [rsi + rbp]",
            "3: test rdx, rdx; jz 4f; or rax, qword ptr [rdx + rbp]",
            "4: test rcx, rcx; jz 5f; or rax, qword ptr [rcx + rbp]",
            concat!($looked, ":"),
            "5: bsf rbp, rax; jz 6f",
            "btr rax, rbp",
            "add rbp, rbx; cmp rbp, r10; jae 5b",
            "cmp byte ptr [r11 + rbp * 8 + 7], 0; je 5b",
            "jmp 7f",
            "6: add ebx, 64; jmp 2b",
            concat!("7: ", $bad, ":"),
            ".cfi_remember_state",
            "pop rbp; .cfi_adjust_cfa_offset -8; .cfi_restore rbp",
            "pop rbx; .cfi_adjust_cfa_offset -8; .cfi_restore rbx",
            "jmp {user}",
            ".cfi_restore_state",
            "8: pop rbp; .cfi_adjust_cfa_offset -8; .cfi_restore rbp",
            "pop rbx; .cfi_adjust_cfa_offset -8; .cfi_restore rbx",
            "jmp qword ptr [rip + {behind}]",
        ] BITS_MAX $($rest)*);
    };
}

/// Arrays of so many are gone through by machine code.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARRAY_MAX: usize = 64;
/// And sets with so many bits: an fd_set's.
#[cfg(target_arch = "x86_64")]
pub(crate) const BITS_MAX: usize = libc::FD_SETSIZE;

/// Labels in the code above, which is not there where nothing is exported.
#[cfg(all(target_arch = "x86_64", not(test)))]
mod labels {
    pub(super) type Label = unsafe extern "C" fn();

    unsafe extern "C" {
        pub(super) fn sidestep_epoll_wait_check();
        pub(super) fn sidestep_epoll_wait_enter();
        pub(super) fn sidestep_epoll_wait_again();
        pub(super) fn sidestep_epoll_pwait_check();
        pub(super) fn sidestep_epoll_pwait_enter();
        pub(super) fn sidestep_epoll_pwait_again();
        pub(super) fn sidestep_poll_look();
        pub(super) fn sidestep_poll_bad();
        pub(super) fn sidestep_poll_alias_look();
        pub(super) fn sidestep_poll_alias_bad();
        pub(super) fn sidestep_ppoll_look();
        pub(super) fn sidestep_ppoll_bad();
        pub(super) fn sidestep_select_look();
        pub(super) fn sidestep_select_looked();
        pub(super) fn sidestep_select_bad();
        pub(super) fn sidestep_select_alias_look();
        pub(super) fn sidestep_select_alias_looked();
        pub(super) fn sidestep_select_alias_bad();
        pub(super) fn sidestep_pselect_look();
        pub(super) fn sidestep_pselect_looked();
        pub(super) fn sidestep_pselect_bad();
    }
}

/// Where a thread goes on whose instruction is in one of these stretches, from the first to the last.
#[cfg(all(target_arch = "x86_64", not(test)))]
fn way_out(stretches: &[[labels::Label; 3]], at: usize) -> Option<usize> {
    let is_here = |[first, last, _]: &[labels::Label; 3]| (*first as usize..=*last as usize).contains(&at);
    stretches.iter().find(|stretch| is_here(stretch)).map(|[_, _, out]| *out as usize)
}

/// Where a thread goes on that a handler has interrupted at `at`, if it was about to wait.
pub(crate) fn again(at: usize) -> Option<usize> {
    #[cfg(all(target_arch = "x86_64", not(test)))]
    {
        use labels as l;
        let stretches: [[l::Label; 3]; 2] = [
            [l::sidestep_epoll_wait_check, l::sidestep_epoll_wait_enter, l::sidestep_epoll_wait_again],
            [l::sidestep_epoll_pwait_check, l::sidestep_epoll_pwait_enter, l::sidestep_epoll_pwait_again],
        ];
        way_out(&stretches, at)
    }
    #[cfg(not(all(target_arch = "x86_64", not(test))))]
    {
        let _ = at;
        None
    }
}

/// Where a thread goes on that had a fault at `at`, if it was looking at what the application asks about.
pub(crate) fn bad_array(at: usize) -> Option<usize> {
    #[cfg(all(target_arch = "x86_64", not(test)))]
    {
        use labels as l;
        let looks: [[l::Label; 3]; 6] = [
            [l::sidestep_poll_look, l::sidestep_poll_look, l::sidestep_poll_bad],
            [l::sidestep_poll_alias_look, l::sidestep_poll_alias_look, l::sidestep_poll_alias_bad],
            [l::sidestep_ppoll_look, l::sidestep_ppoll_look, l::sidestep_ppoll_bad],
            [l::sidestep_select_look, l::sidestep_select_looked, l::sidestep_select_bad],
            [l::sidestep_select_alias_look, l::sidestep_select_alias_looked, l::sidestep_select_alias_bad],
            [l::sidestep_pselect_look, l::sidestep_pselect_looked, l::sidestep_pselect_bad],
        ];
        way_out(&looks, at)
    }
    #[cfg(not(all(target_arch = "x86_64", not(test))))]
    {
        let _ = at;
        None
    }
}
