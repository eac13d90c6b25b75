//! sendto() and sendmsg() with MSG_FASTOPEN on a socket that has not connected: connect, with the first data on the SYN.

use super::connect::{begin_user, finish_connect};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::sys::Result;
use crate::user::endpoint_from;
use crate::{attach, interest, memory};
use libc::{EINPROGRESS, MSG_DONTWAIT, c_int, iovec, sockaddr, socklen_t};
use sidestep_stack::buf::FRAME_SIZE;
use sidestep_stack::socket::Errno;

/// `None`: it is not ours, the kernel does it.
///
/// # Safety
/// The buffers are readable; `addr` is the application's.
pub(super) unsafe fn send(
    fd: c_int,
    iov: &[iovec],
    flags: c_int,
    addr: *const sockaddr,
    len: socklen_t,
) -> Option<Result<isize>> {
    let entry = TABLE.lookup(fd);
    if entry.kind() != Kind::Fresh || !attach::arm() {
        return None;
    }
    // SAFETY: the caller's promise.
    let remote = unsafe { endpoint_from(addr, len) }?;
    memory::check_buffers(iov).ok()?;
    // One buffer rides on the SYN; what does not fit follows. What is not there is missed then.
    let first = iov.iter().find(|v| v.iov_len > 0).map(|v| (v.iov_base.cast::<u8>(), v.iov_len.min(FRAME_SIZE)));
    let data = first.filter(|(at, len)| memory::probe_read(*at, *len).is_ok()).map_or(&[][..], |(at, len)| {
        // SAFETY: the application's, and readable.
        unsafe { core::slice::from_raw_parts(at, len) }
    });
    let mut taken = 0;
    let opened =
        begin_user(fd, entry, remote, |guard, now, id, local| match guard.send_fast(now, id, local, remote, data) {
            Ok(n) => {
                taken = n;
                Err(Errno::EINPROGRESS)
            }
            Err(e) => Err(e),
        })?;
    if opened.nonblocking || flags & MSG_DONTWAIT != 0 {
        return Some(if taken > 0 { Ok(taken as isize) } else { Err(EINPROGRESS) });
    }
    if let Err(error) = finish_connect(&opened.stream, opened.timeout_us, EINPROGRESS) {
        return Some(Err(error));
    }
    // SAFETY: the caller's promise.
    Some(match unsafe { super::io::transmit_from(&opened.stream, iov, flags & !libc::MSG_FASTOPEN, taken) } {
        Err(_) if taken > 0 => Ok(taken as isize),
        result => result,
    })
}

/// The kernel connected the socket: it is the kernel's from now on.
pub(super) fn leave_to_kernel(fd: c_int, result: Result<isize>) -> Result<isize> {
    if TABLE.lookup(fd).kind() == Kind::Fresh && matches!(result, Ok(_) | Err(EINPROGRESS)) {
        interest::forget(fd);
        TABLE.set(fd, Entry::KERNEL);
    }
    result
}
