//! Completions of zero-copy sends (SO_ZEROCOPY, MSG_ZEROCOPY), told as the kernel tells them. Our sends copy, and say so: the
//! buffer is free when the call returns, so the notice waits at once.
//!
//! What is sent is numbered from zero; notices that nobody took are one, from the first number to the last.

use crate::local::Flag;
use crate::message::Control;
use crate::sys::Result;
use crate::user::Stream;
use libc::{AF_INET6, EAGAIN, MSG_CTRUNC, MSG_ERRQUEUE, SOL_IP, SOL_IPV6, c_int, msghdr};
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// linux/errqueue.h.
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_COPIED: u8 = 1;

/// A send with MSG_ZEROCOPY took something.
pub(crate) fn add(stream: &Stream) {
    if stream.local.has(Flag::ZeroCopy) {
        stream.local.zerocopy_next.fetch_add(1, AcqRel);
        let _ = stream.ask(|guard| guard.set_notices(stream.id, true));
    }
}

/// Takes what waits: the numbers of the first and the last send.
pub(crate) fn take(stream: &Stream) -> Result<(u32, u32)> {
    let next = stream.local.zerocopy_next.load(Acquire);
    let first = stream.local.zerocopy_untold.swap(next, AcqRel);
    if first == next {
        return Err(EAGAIN);
    }
    let is_last = stream.local.zerocopy_next.load(Acquire) == next;
    if is_last {
        let _ = stream.ask(|guard| guard.set_notices(stream.id, false));
    }
    Ok((first, next.wrapping_sub(1)))
}

/// recvmsg with MSG_ERRQUEUE.
///
/// # Safety
/// The header's control buffer is writable for the length it names.
pub(crate) unsafe fn receive(stream: &Stream, header: &mut msghdr, flags: c_int) -> Result<isize> {
    let (first, last) = take(stream)?;
    let is_v6 = stream.family() == AF_INET6;
    // struct sock_extended_err, and an address that nobody has.
    let mut record = [0u8; 16 + 28];
    (record[4], record[6]) = (ORIGIN_ZEROCOPY, CODE_COPIED);
    record[8..12].copy_from_slice(&first.to_ne_bytes());
    record[12..16].copy_from_slice(&last.to_ne_bytes());
    let (level, kind, len) = if is_v6 { (SOL_IPV6, libc::IPV6_RECVERR, 44) } else { (SOL_IP, libc::IP_RECVERR, 32) };
    let room = header.msg_controllen;
    let mut control = Control::new(header);
    // SAFETY: the caller's promise.
    unsafe { control.put(level, kind, &record[..len]) };
    header.msg_controllen = (room - control.room) as _;
    header.msg_namelen = 0;
    header.msg_flags = MSG_ERRQUEUE | flags & libc::MSG_CMSG_CLOEXEC | if control.cut { MSG_CTRUNC } else { 0 };
    Ok(0)
}
