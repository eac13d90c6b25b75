//! vfork. Its child has the parent's memory, and with it our tables, which would not be true of the child's descriptors. So a
//! process that has a stack forks instead, and waits as vfork does until the child executes a program or ends; what the child
//! writes to memory is then its own. A process without a stack has libc's vfork, by a jump: no function can return twice to its caller.

use crate::real::Behind;
use crate::sys::{self, raw};
use crate::{hidden, sys::Result};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use libc::{O_CLOEXEC, POLLIN, c_int, pid_t};

/// This process has a stack.
static FORKS: AtomicBool = AtomicBool::new(false);
static BEHIND: Behind = Behind::new(fork_instead as *const ());
/// In a child: what its parent waits for the end of.
static PARENT_WAITS: AtomicI32 = AtomicI32::new(-1);

/// From now on vfork is fork.
pub(crate) fn become_fork() {
    FORKS.store(true, Ordering::Relaxed);
}

/// Finds libc's.
pub(crate) fn at_load() {
    BEHIND.find("vfork\0");
}

/// In a child made by fork: its parent is not the one that somebody waits for.
pub(crate) fn after_fork() {
    let end = PARENT_WAITS.swap(-1, Ordering::Relaxed);
    if end >= 0 {
        hidden::close(end);
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! vfork {
    ($name:ident) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "cmp byte ptr [rip + {forks}], 0",
                "jne {instead}",
                "jmp qword ptr [rip + {behind}]",
                forks = sym FORKS,
                instead = sym fork_instead,
                behind = sym BEHIND,
            )
        }
    };
}

/// Other machines fork always.
#[cfg(not(target_arch = "x86_64"))]
macro_rules! vfork {
    ($name:ident) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As for the function of libc.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name() -> pid_t {
            fork_instead()
        }
    };
}

vfork!(vfork);
vfork!(__vfork);

extern "C" fn fork_instead() -> pid_t {
    let pipe = open_pipe();
    // SAFETY: libc's fork, which runs the handlers of ours and of others.
    let child = unsafe { libc::fork() };
    let Ok([read_end, write_end]) = pipe else { return child };
    if child == 0 {
        hidden::close(read_end);
        // It closes when the child executes a program, or ends.
        PARENT_WAITS.store(write_end, Ordering::Relaxed);
        return 0;
    }
    hidden::close(write_end);
    if child > 0 {
        await_end(read_end);
    }
    hidden::close(read_end);
    child
}

fn open_pipe() -> Result<[c_int; 2]> {
    let mut ends = [-1 as c_int; 2];
    // SAFETY: two ints of ours.
    unsafe { raw!(pipe2, ends.as_mut_ptr(), O_CLOEXEC) }?;
    Ok(ends.map(hidden::hide))
}

fn await_end(read_end: c_int) {
    let mut fds = [libc::pollfd { fd: read_end, events: POLLIN, revents: 0 }];
    while sys::ppoll(&mut fds, None, core::ptr::null()) == Err(libc::EINTR) {}
}
