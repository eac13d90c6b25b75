//! pread, pwrite and their vector forms. On any socket they are ESPIPE, and the kernel's socket behind a user socket's
//! number says so. The exception: preadv2 and pwritev2 with the offset -1 are readv and writev with flags.

use super::io;
use crate::fd_table::{Kind, TABLE};
use crate::sys::{Result, raw};
use libc::{EOPNOTSUPP, MSG_DONTWAIT, RWF_NOWAIT, c_int, c_void, iovec, msghdr};

/// Linux's RWF_ flags that a socket takes: HIPRI, DSYNC, SYNC and NOWAIT, APPEND, NOAPPEND.
const FLAGS: c_int = 0x3f;

pub(crate) unsafe fn pread(fd: c_int, buf: *mut c_void, count: usize, offset: i64) -> Result<isize> {
    // SAFETY: the application's buffer; the kernel checks it.
    unsafe { raw!(pread64, fd, buf, count, offset) }
}

pub(crate) unsafe fn pread_chk(fd: c_int, buf: *mut c_void, count: usize, offset: i64, size: usize) -> Result<isize> {
    io::check(count, size);
    // SAFETY: the same contract.
    unsafe { pread(fd, buf, count, offset) }
}

pub(crate) unsafe fn pwrite(fd: c_int, buf: *const c_void, count: usize, offset: i64) -> Result<isize> {
    // SAFETY: the application's buffer; the kernel checks it.
    unsafe { raw!(pwrite64, fd, buf, count, offset) }
}

// The kernel takes the offset in two halves, of which 64-bit machines use the first alone.

pub(crate) unsafe fn preadv(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> Result<isize> {
    // SAFETY: the application's memory; the kernel checks it.
    unsafe { raw!(preadv, fd, iov, count, offset, 0) }
}

pub(crate) unsafe fn pwritev(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> Result<isize> {
    // SAFETY: the application's memory; the kernel checks it.
    unsafe { raw!(pwritev, fd, iov, count, offset, 0) }
}

/// Whether a call is one on a stream of bytes that the user stack may have.
fn is_ours(fd: c_int, offset: i64) -> bool {
    offset == -1 && matches!(TABLE.lookup(fd).kind(), Kind::Stream | Kind::Datagram | Kind::FreshDatagram)
}

pub(crate) unsafe fn preadv2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> Result<isize> {
    if !is_ours(fd, offset) {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(preadv2, fd, iov, count, offset, 0, flags) };
    }
    if flags == 0 {
        // SAFETY: the same contract.
        return unsafe { io::readv(fd, iov, count) };
    }
    // SAFETY: the application's array.
    let Some((mut header, flags)) = (unsafe { message(iov, count, flags) })? else { return Ok(0) };
    // SAFETY: the application's buffers.
    unsafe { io::recvmsg(fd, &mut header, flags) }
}

pub(crate) unsafe fn pwritev2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> Result<isize> {
    if !is_ours(fd, offset) {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(pwritev2, fd, iov, count, offset, 0, flags) };
    }
    if flags == 0 {
        // SAFETY: the same contract.
        return unsafe { io::writev(fd, iov, count) };
    }
    // SAFETY: the application's array.
    let Some((header, flags)) = (unsafe { message(iov, count, flags) })? else { return Ok(0) };
    // SAFETY: the application's buffers.
    unsafe { io::sendmsg(fd, &header, flags) }
}

/// The call as one with a message header and MSG_ flags; `None` when it is about no bytes, whatever its flags.
///
/// # Safety
/// `iov` is null or readable for `count` records.
unsafe fn message(iov: *const iovec, count: c_int, flags: c_int) -> Result<Option<(msghdr, c_int)>> {
    // SAFETY: the caller's promise.
    let buffers = unsafe { io::iovecs(iov, count as usize) }?;
    if buffers.iter().all(|v| v.iov_len == 0) {
        return Ok(None);
    }
    if flags & !FLAGS != 0 {
        return Err(EOPNOTSUPP);
    }
    // SAFETY: all zeroes is a message without anything.
    let mut header: msghdr = unsafe { core::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (iov.cast_mut(), buffers.len() as _);
    Ok(Some((header, if flags & RWF_NOWAIT == 0 { 0 } else { MSG_DONTWAIT })))
}
