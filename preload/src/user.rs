//! From a descriptor's entry to the engine socket behind it, and addresses between C and the engine.

use crate::fd_table::{Entry, Kind};
use crate::local::{self, Flag, Local};
use crate::sys::Result;
use crate::{attach, kick};
use libc::{AF_INET, AF_INET6, EFAULT, EINVAL, c_int, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{Errno, SocketId};
use sidestep_stack::time::Instant;

/// A user-mode connection as a call works with it.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) id: SocketId,
    pub(crate) stack: &'static Stack,
    pub(crate) local: &'static Local,
}

impl Stream {
    /// The stream of a descriptor's entry.
    #[inline]
    pub(crate) fn of(entry: Entry) -> Option<Stream> {
        if entry.kind() != Kind::Stream {
            return None;
        }
        let id = SocketId { index: entry.index(), generation: entry.generation() };
        Some(Stream { id, stack: attach::stack()?, local: local::of(entry.index())? })
    }

    pub(crate) fn entry(id: SocketId) -> Entry {
        Entry::new(Kind::Stream, id.generation, id.index)
    }

    /// One step on the engine, with what it leaves to send sent or put off.
    #[inline]
    pub(crate) fn with<T>(
        &self,
        step: impl FnOnce(&mut Guard<'_>, Instant) -> core::result::Result<T, Errno>,
    ) -> Result<T> {
        self.with_errno(|guard, now| step(guard, now).map_err(number))
    }

    /// As [`Stream::with`], for a step that speaks errno already.
    #[inline]
    pub(crate) fn with_errno<T>(&self, step: impl FnOnce(&mut Guard<'_>, Instant) -> Result<T>) -> Result<T> {
        on_stack(self.stack, step)
    }

    /// A question to the engine: nothing to send afterwards.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut Guard<'_>) -> core::result::Result<T, Errno>) -> Result<T> {
        question(&mut self.stack.lock()).map_err(number)
    }

    /// The address family that the application sees.
    pub(crate) fn family(&self) -> c_int {
        if self.local.has(Flag::V6) { AF_INET6 } else { AF_INET }
    }
}

/// One step on the engine, with what it leaves to send sent or put off.
#[inline]
pub(crate) fn on_stack<T>(stack: &Stack, step: impl FnOnce(&mut Guard<'_>, Instant) -> Result<T>) -> Result<T> {
    let now = now();
    let mut guard = stack.lock();
    let result = step(&mut guard, now);
    kick::after_call(&mut guard, now);
    result
}

/// The engine's error as errno has it.
#[inline]
pub(crate) fn number(error: Errno) -> c_int {
    error.0
}

/// Reads a socket address of the application; `None` when it is of another family.
///
/// # Safety
/// `addr` is null or readable for `len` bytes.
pub(crate) unsafe fn endpoint_from(addr: *const sockaddr, len: socklen_t) -> Option<Endpoint> {
    if addr.is_null() || (len as usize) < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: two bytes are readable.
    match c_int::from(unsafe { addr.cast::<libc::sa_family_t>().read_unaligned() }) {
        AF_INET if len as usize >= size_of::<sockaddr_in>() => {
            // SAFETY: as many bytes are readable.
            let a = unsafe { addr.cast::<sockaddr_in>().read_unaligned() };
            Some(Endpoint::new(Ip::v4(a.sin_addr.s_addr.to_ne_bytes()), u16::from_be(a.sin_port)))
        }
        // 24 bytes: RFC 2133's form without the scope, which Linux accepts.
        AF_INET6 if len as usize >= 24 => {
            let mut bytes = [0u8; 24];
            // SAFETY: 24 bytes are readable.
            unsafe { core::ptr::copy_nonoverlapping(addr.cast(), bytes.as_mut_ptr(), 24) };
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[8..24]);
            Some(Endpoint::new(Ip(ip), u16::from_be_bytes([bytes[2], bytes[3]])))
        }
        _ => None,
    }
}

/// Gives an address to the application as the kernel does: truncated to its room, the full length told.
///
/// # Safety
/// `addr` and `len` are the application's: `len` readable and writable, `addr` writable for `*len` bytes.
pub(crate) unsafe fn give_endpoint(e: Endpoint, family: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<()> {
    if addr.is_null() || len.is_null() {
        return Err(EFAULT);
    }
    let mut bytes = [0u8; 28];
    let full = encode(e, family, &mut bytes);
    // SAFETY: the caller's promise.
    let room = unsafe { len.read_unaligned() };
    if (room as c_int) < 0 {
        return Err(EINVAL);
    }
    let copied = full.min(room as usize);
    // SAFETY: the caller's promise; `copied` is within both.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), addr.cast(), copied);
        len.write_unaligned(full as socklen_t);
    }
    Ok(())
}

/// Writes a sockaddr_in or sockaddr_in6; returns its size.
pub(crate) fn encode(e: Endpoint, family: c_int, out: &mut [u8; 28]) -> usize {
    out[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
    out[2..4].copy_from_slice(&e.port.to_be_bytes());
    if family == AF_INET6 {
        out[8..24].copy_from_slice(&e.ip.0);
        return size_of::<sockaddr_in6>();
    }
    out[4..8].copy_from_slice(&e.ip.v4_bytes());
    size_of::<sockaddr_in>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(e: Endpoint, family: c_int) {
        let mut bytes = [0u8; 28];
        let len = encode(e, family, &mut bytes);
        // SAFETY: `bytes` holds `len` bytes.
        let back = unsafe { endpoint_from(bytes.as_ptr().cast(), len as socklen_t) };
        assert_eq!(back, Some(e));
    }

    #[test]
    fn addresses_survive_the_way_through_c() {
        let v4 = Endpoint::new(Ip::v4([10, 0, 0, 1]), 8080);
        round_trip(v4, AF_INET);
        round_trip(v4, AF_INET6);
        round_trip(Endpoint::new(Ip([0xfe; 16]), 1), AF_INET6);
    }

    #[test]
    fn a_short_buffer_gets_a_part_and_the_full_length() {
        let mut out = [0xffu8; 8];
        let mut len: socklen_t = 4;
        let e = Endpoint::new(Ip::v4([1, 2, 3, 4]), 0x1234);
        // SAFETY: `out` has the four bytes that `len` names.
        unsafe { give_endpoint(e, AF_INET, out.as_mut_ptr().cast(), &mut len) }.unwrap();
        assert_eq!((len, out), (16, [2, 0, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff]));
    }
}
