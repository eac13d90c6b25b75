//! Reading options of a user connection: what the engine knows, what the shim knows, and what the kernel half keeps.

use crate::memory;
use crate::options::{
    Linger, NAME_LEN, NO_WAIT_US, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, engine_option, give, is_for, tick_us,
};
use crate::sys::{self, Result, raw};
use crate::tcp_info;
use crate::user::{Stream, number};
use libc::{EINVAL, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SO_ERROR, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET};
use libc::{c_int, c_void, socklen_t, timeval};
use sidestep_stack::runtime::now;
use sidestep_stack::socket::SocketOption;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const IP_PROTOCOL: c_int = 52;

/// getsockopt on a user connection.
///
/// # Safety
/// `value` and `len` are the application's.
pub(crate) unsafe fn read(
    fd: c_int,
    stream: &Stream,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<isize> {
    if let Some(option) = engine_option(level, name).filter(|_| is_for(stream, level)) {
        let answer = stream.ask(|guard| guard.option(stream.id, option))?;
        // SAFETY: the caller's promise.
        if level == IPPROTO_IPV6 && (unsafe { memory::read(len) }? as c_int) < 0 {
            // Linux reads the length as unsigned here. SAFETY: as above.
            unsafe { memory::write(len, size_of::<c_int>() as socklen_t) }?;
        }
        // SAFETY: the caller's promise.
        if level == IPPROTO_IP && unsafe { asks_for_octet(len) } {
            // SAFETY: the caller's promise.
            return unsafe { give(&(answer as u8), value, len) };
        }
        // SAFETY: the caller's promise.
        return unsafe { give(&answer, value, len) };
    }
    match (level, name) {
        (IPPROTO_TCP, libc::TCP_QUICKACK) => {
            let answer = stream.ask(|guard| guard.option(stream.id, SocketOption::QuickAck))?;
            // SAFETY: the caller's promise.
            unsafe { give(&answer, value, len) }
        }
        (IPPROTO_TCP, libc::TCP_CONGESTION) => {
            let algorithm = stream.ask(|guard| guard.congestion(stream.id))?.name();
            let mut padded = [0u8; NAME_LEN];
            padded[..algorithm.len()].copy_from_slice(algorithm.as_bytes());
            // SAFETY: the caller's promise.
            unsafe { give(&padded, value, len) }
        }
        (SOL_SOCKET, libc::SO_MAX_PACING_RATE) => {
            let rate = stream.ask(|guard| guard.max_pacing_rate(stream.id))?;
            // SAFETY: the caller's promise.
            let is_long = unsafe { memory::read(len) }? as usize >= size_of::<u64>();
            if is_long {
                // SAFETY: the caller's promise.
                return unsafe { give(&rate, value, len) };
            }
            // SAFETY: the caller's promise.
            unsafe { give(&(rate.min(u32::MAX.into()) as u32), value, len) }
        }
        (SOL_SOCKET, SO_ERROR) => {
            let error = stream.with(|guard, now| {
                guard.poll(now);
                guard.take_error(stream.id)
            })?;
            // SAFETY: the caller's promise.
            unsafe { give(&number(error), value, len) }
        }
        (SOL_SOCKET, SO_LINGER) => {
            let is_on = stream.ask(|guard| guard.linger(stream.id))?.is_some();
            let linger = Linger { on: is_on.into(), seconds: told_linger(stream) };
            // SAFETY: the caller's promise.
            unsafe { give(&linger, value, len) }
        }
        (SOL_SOCKET, SO_RCVTIMEO | SO_RCVTIMEO_NEW) => {
            // SAFETY: the caller's promise.
            unsafe { give(&time(&stream.local.receive_timeout_us), value, len) }
        }
        (SOL_SOCKET, SO_SNDTIMEO | SO_SNDTIMEO_NEW) => {
            // SAFETY: the caller's promise.
            unsafe { give(&time(&stream.local.send_timeout_us), value, len) }
        }
        // SAFETY: the caller's promise.
        _ => unsafe { read_other(fd, stream, level, name, value, len) },
    }
}

fn told_linger(stream: &Stream) -> i32 {
    let seconds = stream.local.linger_s.load(Relaxed) as i32;
    if seconds >= 0 { seconds } else { (NEVER_JIFFIES / (1_000_000 / tick_us())) as i32 }
}

/// The longest time that the kernel keeps, in ticks.
const NEVER_JIFFIES: u64 = i64::MAX as u64;

/// What the engine knows besides its options, and what the kernel half knows.
///
/// # Safety
/// As for `read`.
unsafe fn read_other(
    fd: c_int,
    stream: &Stream,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<isize> {
    let is_v6 = stream.family() == libc::AF_INET6;
    match (level, name) {
        // SAFETY: the caller's promise.
        (IPPROTO_TCP, libc::TCP_INFO) => unsafe { give(&info(stream)?, value, len) },
        (SOL_SOCKET, libc::SO_COOKIE) => {
            // SAFETY: the caller's promise.
            if (unsafe { memory::read(len) }? as usize) < size_of::<u64>() {
                return Err(EINVAL);
            }
            // SAFETY: the caller's promise.
            unsafe { give(&(stream.id.to_bits() ^ COOKIES), value, len) }
        }
        (IPPROTO_TCP, libc::TCP_CC_INFO) => {
            let told = stream.ask(|guard| guard.congestion_info(stream.id))?;
            let Some((rate, rtt_us, pacing, window)) = told else {
                // SAFETY: the caller's promise.
                return unsafe { give(&[0u8; 0], value, len) };
            };
            let record = [rate as u32, (rate >> 32) as u32, rtt_us, pacing, window];
            // SAFETY: the caller's promise.
            unsafe { give(&record, value, len) }
        }
        // SAFETY: the caller's promise.
        (IPPROTO_IPV6, libc::IPV6_ADDRFORM) if is_v6 => unsafe { give(&libc::AF_INET6, value, len) },
        // It maps what a kernel socket received; ours has received nothing.
        (IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE) => Err(libc::ENOPROTOOPT),
        (SOL_SOCKET, SO_MEMINFO) => {
            // SAFETY: the caller's promise.
            unsafe { give(&queued_memory(stream)?, value, len) }
        }
        (SOL_SOCKET, libc::SO_PEERNAME) => {
            // SAFETY: the caller's promise.
            unsafe { give_peer(stream, value, len) }
        }
        // SAFETY: the caller's promise.
        (IPPROTO_IP, IP_MTU) => unsafe { give(&path_mtu(stream)?, value, len) },
        // SAFETY: the caller's promise.
        (IPPROTO_IPV6, libc::IPV6_MTU) if is_v6 => unsafe { give(&path_mtu(stream)?, value, len) },
        (IPPROTO_IPV6, libc::IPV6_PATHMTU) if is_v6 => {
            // struct ip6_mtuinfo: an address that the kernel leaves empty, and the MTU.
            let mut record = [0; 8];
            // SAFETY: the caller's promise.
            if (unsafe { memory::read(len) }? as usize) < size_of_val(&record) {
                return Err(EINVAL);
            }
            record[7] = path_mtu(stream)?;
            // SAFETY: the caller's promise.
            unsafe { give(&record, value, len) }
        }
        (IPPROTO_IP, IP_PROTOCOL) => {
            // The number that the socket is known by below: a port.
            let port = c_int::from(stream.ask(|guard| guard.local_endpoint(stream.id))?.port);
            // SAFETY: the caller's promise.
            unsafe { give(&port, value, len) }
        }
        // SAFETY: the application's pointers; the kernel checks them.
        _ => unsafe { raw!(getsockopt, fd, level, name, value, len) },
    }
}

fn path_mtu(stream: &Stream) -> Result<c_int> {
    let at = now();
    Ok(stream.ask(|guard| guard.info(at, stream.id))?.pmtu as c_int)
}

const SO_MEMINFO: c_int = 55;
const TCP_ZEROCOPY_RECEIVE: c_int = 35;
const IP_MTU: c_int = 14;
/// Sets our cookies apart from the kernel's, which count up from one.
const COOKIES: u64 = 1 << 63;

/// SO_MEMINFO: what is queued and may be, both ways.
fn queued_memory(stream: &Stream) -> Result<[u32; 9]> {
    stream.look(|guard| {
        let size = |option| guard.option(stream.id, option).map(|n| n as u32);
        let (receive, send) = (size(SocketOption::ReceiveBuffer)?, size(SocketOption::SendBuffer)?);
        let (waiting, queued) = (guard.available(stream.id)?, guard.outq(stream.id)?);
        Ok([waiting, receive, queued, send, 0, queued, 0, 0, 0])
    })
}

/// SO_PEERNAME: getpeername(), for who knows how long it is.
///
/// # Safety
/// As for `read`.
unsafe fn give_peer(stream: &Stream, value: *mut c_void, len: *mut socklen_t) -> Result<isize> {
    let peer = stream.ask(|guard| guard.peer_endpoint(stream.id))?;
    let mut bytes = [0u8; 28];
    let full = crate::user::encode(peer, stream.family(), &mut bytes);
    // SAFETY: the caller's promise.
    let room = unsafe { memory::read(len) }?;
    // Linux refuses a buffer that the address does not fill.
    if room as usize > full {
        return Err(EINVAL);
    }
    // SAFETY: the caller's promise; `bytes` has as many.
    sys::done(unsafe { memory::copy_out(value.cast(), bytes.as_ptr(), room as usize) })
}

/// Whether there is room for less than an `int`: the kernel then gives the options of IPPROTO_IP as one octet.
///
/// # Safety
/// `len` is the application's.
unsafe fn asks_for_octet(len: *const socklen_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { memory::read(len) }.is_ok_and(|len| (1..4).contains(&len))
}

fn time(us: &AtomicU64) -> timeval {
    let us = us.load(Relaxed).saturating_sub(u64::from(us.load(Relaxed) == NO_WAIT_US));
    timeval { tv_sec: (us / 1_000_000) as _, tv_usec: (us % 1_000_000) as _ }
}

fn info(stream: &Stream) -> Result<tcp_info::Bytes> {
    let at = now();
    Ok(tcp_info::encode(&stream.look(|guard| guard.info(at, stream.id))?))
}
