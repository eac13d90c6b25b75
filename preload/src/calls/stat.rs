//! fstat and its relatives. Accepted connections are duplicates of one kernel socket (`template.rs`), so its inode number would
//! make them one file to whoever compares; each gets a number of its own, above those that the kernel gives to sockets.

use crate::fd_table::TABLE;
use crate::hidden;
use crate::local::Flag;
use crate::sys::{Result, raw};
use crate::user::Stream;
use libc::{AT_EMPTY_PATH, EINVAL, c_char, c_int, c_uint, c_void, stat};

/// What a `_STAT_VER` argument says: the kernel's own layout, which is libc's too.
#[cfg(target_arch = "x86_64")]
const VERSION: c_int = 1;
#[cfg(not(target_arch = "x86_64"))]
const VERSION: c_int = 0;

/// `stx_ino` in struct statx.
const STATX_INO: usize = 32;

/// The inode number of an accepted connection.
fn inode(fd: c_int) -> Option<u64> {
    let stream = Stream::of(TABLE.lookup(fd)).filter(|stream| !stream.local.has(Flag::Shadow))?;
    Some((u64::from(stream.id.index) + 1) << 32 | u64::from(stream.id.generation))
}

pub(crate) unsafe fn fstat(fd: c_int, out: *mut stat) -> Result<isize> {
    hidden::refuse(fd)?;
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(fstat, fd, out) }?;
    if let Some(inode) = inode(fd) {
        // SAFETY: the kernel has just written there.
        unsafe { (&raw mut (*out).st_ino).write_unaligned(inode) };
    }
    Ok(done)
}

/// 1 when the descriptor is of the kind (S_IFSOCK, …), else 0. libc's leaves errno alone when it says -1.
pub(crate) unsafe fn isfdtype(fd: c_int, kind: c_int) -> Result<isize> {
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut record: stat = unsafe { core::mem::zeroed() };
    // SAFETY: `record` is ours.
    let known = unsafe { fstat(fd, &raw mut record) };
    Ok(known.map_or(-1, |_| isize::from(record.st_mode & libc::S_IFMT == kind as libc::mode_t)))
}

pub(crate) unsafe fn fxstat(version: c_int, fd: c_int, out: *mut stat) -> Result<isize> {
    if version != 0 && version != VERSION {
        return Err(EINVAL);
    }
    // SAFETY: the same contract.
    unsafe { fstat(fd, out) }
}

/// Whether a call with a directory and a path is about the descriptor itself.
///
/// # Safety
/// The kernel has read `path`.
unsafe fn is_itself(path: *const c_char, flags: c_int) -> bool {
    // SAFETY: the caller's promise; Linux takes no path at all for an empty one.
    flags & AT_EMPTY_PATH != 0 && (path.is_null() || unsafe { *path } == 0)
}

pub(crate) unsafe fn fstatat(fd: c_int, path: *const c_char, out: *mut stat, flags: c_int) -> Result<isize> {
    // SAFETY: the application's pointers; the kernel checks them.
    #[cfg(target_arch = "x86_64")]
    let done = unsafe { raw!(newfstatat, fd, path, out, flags) }?;
    // SAFETY: as above, by the name that other machines have for it.
    #[cfg(not(target_arch = "x86_64"))]
    let done = unsafe { raw!(fstatat, fd, path, out, flags) }?;
    // SAFETY: the kernel has just read the path.
    if let Some(inode) = inode(fd).filter(|_| unsafe { is_itself(path, flags) }) {
        // SAFETY: the kernel has just written there.
        unsafe { (&raw mut (*out).st_ino).write_unaligned(inode) };
    }
    Ok(done)
}

pub(crate) unsafe fn fxstatat(
    version: c_int,
    fd: c_int,
    path: *const c_char,
    out: *mut stat,
    flags: c_int,
) -> Result<isize> {
    if version != 0 && version != VERSION {
        return Err(EINVAL);
    }
    // SAFETY: the same contract.
    unsafe { fstatat(fd, path, out, flags) }
}

pub(crate) unsafe fn statx(
    fd: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut c_void,
) -> Result<isize> {
    // SAFETY: the application's pointers; the kernel checks them.
    let done = unsafe { raw!(statx, fd, path, flags, mask, out) }?;
    // SAFETY: the kernel has just read the path.
    if let Some(inode) = inode(fd).filter(|_| unsafe { is_itself(path, flags) }) {
        // SAFETY: the kernel has just written there.
        unsafe { out.cast::<u8>().add(STATX_INO).cast::<u64>().write_unaligned(inode) };
    }
    Ok(done)
}
