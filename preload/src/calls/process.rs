//! daemon(3): libc's moves descriptors behind our back. prctl(2), which confines a process.

use super::fd;
use crate::sys::{self, Result, raw};
use crate::{attach, ending, limited_poll};
use libc::{ENODEV, O_RDWR, c_int, c_ulong};

pub(crate) unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> Result<isize> {
    if option == libc::PR_SET_SECCOMP {
        note_confinement();
    }
    // SAFETY: the application's arguments; the kernel checks those that are pointers.
    unsafe { raw!(prctl, option, a, b, c, d) }
}

/// A filter of system calls is about to be set up. sshd's, and others for programs that read and write what they have, know poll and
/// select, and not what we send by.
pub(crate) fn note_confinement() {
    if attach::stack().is_some() {
        limited_poll::note_confinement();
        sidestep_stack::runtime::note_confinement();
    }
}

pub(crate) unsafe fn daemon(keep_directory: c_int, keep_streams: c_int) -> Result<isize> {
    // SAFETY: libc's fork, which runs the handlers of ours and of others.
    match unsafe { libc::fork() } {
        // SAFETY: libc's errno is always valid.
        -1 => return Err(unsafe { *libc::__errno_location() }),
        0 => {}
        _ => ending::exit_group(0),
    }
    // SAFETY: no arguments.
    unsafe { raw!(setsid) }?;
    if keep_directory == 0 {
        // SAFETY: a NUL-terminated path.
        let _ = unsafe { raw!(chdir, c"/".as_ptr()) };
    }
    if keep_streams == 0 {
        become_silent()?;
    }
    Ok(0)
}

/// /dev/null on the three standard numbers.
fn become_silent() -> Result<()> {
    // SAFETY: a NUL-terminated path.
    let null = unsafe { raw!(openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), O_RDWR, 0) }? as c_int;
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is ours.
    let known = unsafe { raw!(fstat, null, &raw mut stat) };
    let is_null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
    if known.is_err() || !is_null {
        let _ = sys::close(null);
        return Err(known.err().unwrap_or(ENODEV));
    }
    for number in 0..3 {
        // SAFETY: numbers only.
        let _ = unsafe { fd::dup2(null, number) };
    }
    if null > 2 {
        let _ = sys::close(null);
    }
    Ok(())
}
