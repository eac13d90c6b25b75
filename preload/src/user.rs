//! From a descriptor's entry to the engine socket behind it, and addresses between C and the engine.

use crate::fd_table::{Entry, Kind};
use crate::local::{self, Flag, Local};
use crate::sys::Result;
use crate::{attach, kick, memory};
use libc::{AF_INET, AF_INET6, EINVAL, c_int, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
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

    /// A question about what has come (or left): what lies in the receive rings has.
    pub(crate) fn look<T>(&self, question: impl FnOnce(&mut Guard<'_>) -> core::result::Result<T, Errno>) -> Result<T> {
        self.with(|guard, now| {
            take_in(self.stack, guard, now);
            question(guard)
        })
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

/// What has arrived in the receive rings becomes the engine's.
#[inline]
pub(crate) fn take_in(stack: &Stack, guard: &mut Guard<'_>, now: Instant) {
    if stack.has_received() {
        guard.poll(now);
    }
}

/// The engine's error as errno has it.
#[inline]
pub(crate) fn number(error: Errno) -> c_int {
    error.0
}

/// The kernel's struct sockaddr_storage.
const ADDRESS_MAX: usize = 128;

/// Reads a socket address of the application; `None` when it is of another family, or not there: what is wrong with it is
/// the kernel's to say.
///
/// # Safety
/// `addr` is the application's.
pub(crate) unsafe fn endpoint_from(addr: *const sockaddr, len: socklen_t) -> Option<Endpoint> {
    let mut bytes = [0u8; 24];
    let len = len as usize;
    // SAFETY: `bytes` has room for so many; the address may be anything.
    unsafe { memory::copy_in(bytes.as_mut_ptr(), addr.cast(), len.min(bytes.len())) }.ok()?;
    match c_int::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
        _ if !(2..=ADDRESS_MAX).contains(&len) || memory::probe_read(addr.cast(), len).is_err() => None,
        AF_INET if len >= size_of::<sockaddr_in>() => {
            let ip = Ip::v4([bytes[4], bytes[5], bytes[6], bytes[7]]);
            Some(Endpoint::new(ip, u16::from_be_bytes([bytes[2], bytes[3]])))
        }
        // 24 bytes: RFC 2133's form without the scope, which Linux accepts.
        AF_INET6 if len >= 24 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[8..24]);
            Some(Endpoint::new(Ip(ip), u16::from_be_bytes([bytes[2], bytes[3]])))
        }
        _ => None,
    }
}

/// What the kernel says of an address before it looks at the socket.
pub(crate) fn check_address(addr: *const sockaddr, len: socklen_t) -> Result<()> {
    match len as usize {
        0 => Ok(()),
        len if len > ADDRESS_MAX => Err(EINVAL),
        len => memory::probe_read(addr.cast(), len),
    }
}

/// Gives an address to the application as the kernel does: truncated to its room, the full length told.
///
/// # Safety
/// `addr` and `len` are the application's.
pub(crate) unsafe fn give_endpoint(e: Endpoint, family: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<()> {
    let mut bytes = [0u8; 28];
    let full = encode(e, family, &mut bytes);
    // SAFETY: the caller's promise.
    unsafe { give_address(&bytes[..full], addr, len) }
}

/// As [`give_endpoint`], for an address in C's form; an empty one is "none".
///
/// # Safety
/// `addr` and `len` are the application's.
pub(crate) unsafe fn give_address(address: &[u8], addr: *mut sockaddr, len: *mut socklen_t) -> Result<()> {
    // SAFETY: the caller's promise; an integer.
    let room = unsafe { memory::read(len) }?;
    if (room as c_int) < 0 {
        return Err(EINVAL);
    }
    let copied = address.len().min(room as usize);
    // SAFETY: the caller's promise; `copied` is within the address.
    unsafe {
        memory::copy_out(addr.cast(), address.as_ptr(), copied)?;
        memory::write(len, address.len() as socklen_t)
    }
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
