//! Socket options. Before a socket connects or listens they are the shadow's alone; then what the engine minds is read
//! back from the shadow. Afterwards a value is set in both, and read from whoever knows the truth.

use crate::listeners::Live;
use crate::local::Flag;
use crate::sys::{self, Result, raw};
use crate::tcp_info;
use crate::user::{Stream, number};
use libc::{
    EFAULT, EINVAL, ENOPROTOOPT, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SO_ERROR, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO,
    SOL_SOCKET,
};
use libc::{c_int, c_void, socklen_t, timeval};
use sidestep_stack::runtime::{Guard, now};
use sidestep_stack::socket::{SocketId, SocketOption};
use sidestep_stack::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Options that are one `int` and that the engine minds: (level, name, the engine's name for it).
const INTS: [(c_int, c_int, SocketOption); 24] = [
    (IPPROTO_TCP, libc::TCP_NODELAY, SocketOption::NoDelay),
    (IPPROTO_TCP, libc::TCP_CORK, SocketOption::Cork),
    (IPPROTO_TCP, libc::TCP_KEEPIDLE, SocketOption::KeepIdle),
    (IPPROTO_TCP, libc::TCP_KEEPINTVL, SocketOption::KeepInterval),
    (IPPROTO_TCP, libc::TCP_KEEPCNT, SocketOption::KeepCount),
    (IPPROTO_TCP, libc::TCP_USER_TIMEOUT, SocketOption::UserTimeout),
    (IPPROTO_TCP, libc::TCP_LINGER2, SocketOption::FinTimeout),
    (IPPROTO_TCP, libc::TCP_MAXSEG, SocketOption::MaxSegment),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, SocketOption::DeferAccept),
    (IPPROTO_TCP, libc::TCP_SYNCNT, SocketOption::SynCount),
    (IPPROTO_TCP, libc::TCP_FASTOPEN, SocketOption::FastOpen),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, SocketOption::FastOpenConnect),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_NO_COOKIE, SocketOption::FastOpenNoCookie),
    (SOL_SOCKET, libc::SO_KEEPALIVE, SocketOption::KeepAlive),
    (SOL_SOCKET, libc::SO_SNDBUF, SocketOption::SendBuffer),
    (SOL_SOCKET, libc::SO_RCVBUF, SocketOption::ReceiveBuffer),
    (SOL_SOCKET, libc::SO_RCVLOWAT, SocketOption::ReceiveLowat),
    (IPPROTO_IP, libc::IP_TOS, SocketOption::Tos),
    (IPPROTO_IP, libc::IP_TTL, SocketOption::Ttl),
    (IPPROTO_IPV6, libc::IPV6_TCLASS, SocketOption::TrafficClass),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, SocketOption::HopLimit),
    (SOL_SOCKET, libc::SO_OOBINLINE, SocketOption::OobInline),
    (IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, SocketOption::WindowClamp),
    (IPPROTO_TCP, TCP_NOTSENT_LOWAT, SocketOption::NotSentLowat),
];

/// The kernel's TCP_CA_NAME_MAX: room for the name of an algorithm, with its NUL.
const NAME_LEN: usize = 16;
/// SO_MAX_PACING_RATE without a limit, in its short form and in its long one.
const NO_PACE: u64 = u64::MAX;

/// linux/tcp.h; the libc crate does not name it for this target.
const TCP_NOTSENT_LOWAT: c_int = 25;

/// The options above, in the order of the table; how many.
const COUNT: usize = INTS.len();

/// What a shadow socket was told, and what a socket that nobody told anything says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    values: [Option<c_int>; COUNT],
    congestion: Option<[u8; NAME_LEN]>,
    max_pacing_rate: Option<u64>,
    linger: Option<u16>,
    pub(crate) receive_timeout_us: u64,
    pub(crate) send_timeout_us: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Linger {
    on: c_int,
    seconds: c_int,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Time {
    seconds: i64,
    micros: i64,
}

/// Reads the settings of a shadow socket that differ from a new socket's: those the application chose.
pub(crate) fn of_shadow(fd: c_int) -> Settings {
    let mut settings = Settings::default();
    let family = sys::option::<c_int>(fd, SOL_SOCKET, libc::SO_DOMAIN).unwrap_or(libc::AF_INET);
    let Ok(fresh) = sys::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) else { return settings };
    for ((level, name, option), slot) in INTS.iter().zip(settings.values.iter_mut()) {
        let chosen = sys::option::<c_int>(fd, *level, *name);
        if chosen.is_ok() && chosen != sys::option::<c_int>(fresh, *level, *name) {
            // The kernel tells twice what was set; the engine doubles by itself.
            let doubled = matches!(option, SocketOption::SendBuffer | SocketOption::ReceiveBuffer);
            *slot = chosen.ok().map(|v| if doubled { v / 2 } else { v });
        }
    }
    let name = |fd| sys::option::<[u8; NAME_LEN]>(fd, IPPROTO_TCP, libc::TCP_CONGESTION).ok();
    settings.congestion = name(fd).filter(|chosen| Some(*chosen) != name(fresh));
    let _ = sys::close(fresh);
    settings.max_pacing_rate =
        sys::option::<u64>(fd, SOL_SOCKET, libc::SO_MAX_PACING_RATE).ok().filter(|&rate| rate != NO_PACE);
    let linger = sys::option::<Linger>(fd, SOL_SOCKET, SO_LINGER).unwrap_or_default();
    settings.linger = (linger.on != 0).then_some(linger.seconds.clamp(0, 65_535) as u16);
    settings.receive_timeout_us = timeout_us(fd, SO_RCVTIMEO);
    settings.send_timeout_us = timeout_us(fd, SO_SNDTIMEO);
    settings
}

/// SO_RCVTIMEO or SO_SNDTIMEO of a kernel socket, in microseconds; 0 is "for ever".
pub(crate) fn timeout_us(fd: c_int, name: c_int) -> u64 {
    let t = sys::option::<Time>(fd, SOL_SOCKET, name).unwrap_or_default();
    (t.seconds.max(0) as u64).saturating_mul(1_000_000).saturating_add(t.micros.max(0) as u64)
}

/// Gives a user socket what its shadow was told.
pub(crate) fn apply(guard: &mut Guard<'_>, now: Instant, id: SocketId, settings: &Settings) {
    for ((_, _, option), value) in INTS.iter().zip(settings.values) {
        if let Some(value) = value {
            let _ = guard.set_option(now, id, *option, value);
        }
    }
    if let Some(octets) = &settings.congestion {
        // One that only the kernel has: the stack's default serves.
        let _ = guard.set_congestion(now, id, name_in(octets));
    }
    if let Some(rate) = settings.max_pacing_rate {
        let _ = guard.set_max_pacing_rate(now, id, rate);
    }
    if settings.linger.is_some() {
        let _ = guard.set_linger(id, settings.linger);
    }
}

fn engine_option(level: c_int, name: c_int) -> Option<SocketOption> {
    INTS.iter().find(|(l, n, _)| (*l, *n) == (level, name)).map(|(_, _, option)| *option)
}

/// What stands before the first NUL. What is not text is no algorithm's name.
fn name_in(octets: &[u8]) -> &str {
    let end = octets.iter().position(|&c| c == 0).unwrap_or(octets.len());
    core::str::from_utf8(&octets[..end]).unwrap_or("")
}

/// The options of IPPROTO_IPV6 are an IPv6 socket's; to others the kernel says no in its own way.
fn is_for(fd: c_int, level: c_int) -> bool {
    level != IPPROTO_IPV6 || sys::option::<c_int>(fd, SOL_SOCKET, libc::SO_DOMAIN) == Ok(libc::AF_INET6)
}

/// TCP_CONGESTION as the kernel takes it: at least one octet, at most fifteen count, and a NUL ends it.
///
/// # Safety
/// `value` is null or readable for `len` bytes.
unsafe fn algorithm_name(value: *const c_void, len: socklen_t) -> Result<[u8; NAME_LEN]> {
    if (len as c_int) < 1 {
        return Err(EINVAL);
    }
    if value.is_null() {
        return Err(EFAULT);
    }
    let mut name = [0; NAME_LEN];
    let n = (len as usize).min(NAME_LEN - 1);
    // SAFETY: the caller's promise; `n` is less than the room.
    unsafe { core::ptr::copy_nonoverlapping(value.cast(), name.as_mut_ptr(), n) };
    Ok(name)
}

/// SO_MAX_PACING_RATE: a long, or an int of which −1 is "none".
///
/// # Safety
/// As for `int`.
unsafe fn pacing_rate(value: *const c_void, len: socklen_t) -> Result<u64> {
    if len as usize >= size_of::<u64>() {
        // SAFETY: the caller's promise.
        return unsafe { plain::<u64>(value, len) };
    }
    // SAFETY: the caller's promise.
    let short = unsafe { int(value, len) }? as u32;
    Ok(if short == u32::MAX { NO_PACE } else { short.into() })
}

/// An `int`; options of IPPROTO_IP may be a single octet as well, or nothing, which is zero.
///
/// # Safety
/// As for `int`.
unsafe fn int_of(level: c_int, value: *const c_void, len: socklen_t) -> Result<c_int> {
    match len {
        0 if level == IPPROTO_IP => Ok(0),
        // SAFETY: the caller's promise.
        1..=3 if level == IPPROTO_IP => unsafe { plain::<u8>(value, len) }.map(c_int::from),
        // SAFETY: the caller's promise.
        _ => unsafe { int(value, len) },
    }
}

/// The application's `int`.
///
/// # Safety
/// `value` is null or readable for `len` bytes.
unsafe fn int(value: *const c_void, len: socklen_t) -> Result<c_int> {
    if (len as usize) < size_of::<c_int>() {
        return Err(EINVAL);
    }
    if value.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { value.cast::<c_int>().read_unaligned() })
}

/// setsockopt on a user connection.
///
/// # Safety
/// `value` is the application's, readable for `len` bytes.
pub(crate) unsafe fn write(
    fd: c_int,
    stream: &Stream,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<isize> {
    // A shadow is told too (its file is the connection's own); the template, which all share, never is.
    let tell_shadow = || {
        if stream.local.has(Flag::Shadow) {
            // SAFETY: the application's pointer; the kernel checks it.
            unsafe { raw!(setsockopt, fd, level, name, value, len) }.map(|_| ())
        } else {
            Ok(())
        }
    };
    if let Some(option) = engine_option(level, name).filter(|_| is_for(fd, level)) {
        // SAFETY: the caller's promise.
        let value = unsafe { int_of(level, value, len) }?;
        let _ = tell_shadow();
        return sys::done(stream.with(|guard, now| guard.set_option(now, stream.id, option, value)));
    }
    match (level, name) {
        (SOL_SOCKET, SO_LINGER) => {
            // SAFETY: the caller's promise.
            let linger = unsafe { plain::<Linger>(value, len) }?;
            let seconds = (linger.on != 0).then_some(linger.seconds.clamp(0, 65_535) as u16);
            sys::done(stream.ask(|guard| guard.set_linger(stream.id, seconds)))
        }
        (SOL_SOCKET, SO_RCVTIMEO) => {
            // SAFETY: the caller's promise.
            unsafe { set_timeout(&stream.local.receive_timeout_us, value, len) }
        }
        (SOL_SOCKET, SO_SNDTIMEO) => {
            // SAFETY: the caller's promise.
            unsafe { set_timeout(&stream.local.send_timeout_us, value, len) }
        }
        (IPPROTO_TCP, libc::TCP_CONGESTION) => {
            // SAFETY: the caller's promise.
            let algorithm = unsafe { algorithm_name(value, len) }?;
            sys::done(stream.with(|guard, now| guard.set_congestion(now, stream.id, name_in(&algorithm))))
        }
        (SOL_SOCKET, libc::SO_MAX_PACING_RATE) => {
            // SAFETY: the caller's promise.
            let rate = unsafe { pacing_rate(value, len) }?;
            sys::done(stream.with(|guard, now| guard.set_max_pacing_rate(now, stream.id, rate)))
        }
        (IPPROTO_TCP, libc::TCP_QUICKACK) => {
            // SAFETY: the caller's promise.
            let value = unsafe { int(value, len) }?;
            sys::done(stream.with(|guard, now| guard.set_option(now, stream.id, SocketOption::QuickAck, value)))
        }
        // They matter to bind(), and a connection is past that.
        (SOL_SOCKET, libc::SO_REUSEADDR | libc::SO_REUSEPORT) => {
            // SAFETY: the caller's promise.
            unsafe { int(value, len) }.map(|_| 0)
        }
        _ if stream.local.has(Flag::Shadow) => sys::done(tell_shadow()),
        _ => Err(ENOPROTOOPT),
    }
}

/// # Safety
/// `value` is null or readable for `len` bytes; T is of integers.
unsafe fn plain<T: Copy>(value: *const c_void, len: socklen_t) -> Result<T> {
    if (len as usize) < size_of::<T>() {
        return Err(EINVAL);
    }
    if value.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { value.cast::<T>().read_unaligned() })
}

/// # Safety
/// As for `plain`.
unsafe fn set_timeout(slot: &AtomicU64, value: *const c_void, len: socklen_t) -> Result<isize> {
    // SAFETY: the caller's promise.
    let t = unsafe { plain::<Time>(value, len) }?;
    if !(0..1_000_000).contains(&t.micros) {
        return Err(libc::EDOM);
    }
    // A negative time means "do not wait at all" to Linux.
    let us = if t.seconds < 0 { 1 } else { (t.seconds as u64).saturating_mul(1_000_000) + t.micros as u64 };
    slot.store(us, Relaxed);
    Ok(0)
}

/// setsockopt on a listener, which the kernel has done already: connections to come inherit it.
///
/// # Safety
/// `value` is readable for `len` bytes.
pub(crate) unsafe fn write_listener(live: &Live, level: c_int, name: c_int, value: *const c_void, len: socklen_t) {
    let mut guard = live.stack.lock();
    if let Some(option) = engine_option(level, name) {
        // SAFETY: the caller's promise.
        if let Ok(value) = unsafe { int_of(level, value, len) } {
            let _ = guard.set_option(now(), live.id, option, value);
        }
    } else if (level, name) == (IPPROTO_TCP, libc::TCP_CONGESTION) {
        // SAFETY: the caller's promise.
        if let Ok(algorithm) = unsafe { algorithm_name(value, len) } {
            let _ = guard.set_congestion(now(), live.id, name_in(&algorithm));
        }
    } else if (level, name) == (SOL_SOCKET, libc::SO_MAX_PACING_RATE) {
        // SAFETY: the caller's promise.
        if let Ok(rate) = unsafe { pacing_rate(value, len) } {
            let _ = guard.set_max_pacing_rate(now(), live.id, rate);
        }
    } else if (level, name) == (SOL_SOCKET, SO_LINGER) {
        // SAFETY: the caller's promise.
        if let Ok(linger) = unsafe { plain::<Linger>(value, len) } {
            let seconds = (linger.on != 0).then_some(linger.seconds.clamp(0, 65_535) as u16);
            let _ = guard.set_linger(live.id, seconds);
        }
    }
}

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
    if let Some(option) = engine_option(level, name).filter(|_| is_for(fd, level)) {
        let answer = stream.ask(|guard| guard.option(stream.id, option))?;
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
            let is_long = !len.is_null() && unsafe { len.read_unaligned() } as usize >= size_of::<u64>();
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
            let linger = stream.ask(|guard| guard.linger(stream.id))?;
            let linger = Linger { on: linger.is_some().into(), seconds: linger.unwrap_or(0).into() };
            // SAFETY: the caller's promise.
            unsafe { give(&linger, value, len) }
        }
        // SAFETY: the caller's promise.
        (SOL_SOCKET, SO_RCVTIMEO) => unsafe { give(&time(&stream.local.receive_timeout_us), value, len) },
        // SAFETY: the caller's promise.
        (SOL_SOCKET, SO_SNDTIMEO) => unsafe { give(&time(&stream.local.send_timeout_us), value, len) },
        // SAFETY: the caller's promise.
        (IPPROTO_TCP, libc::TCP_INFO) => unsafe { give(&info(stream)?, value, len) },
        // SAFETY: the application's pointers; the kernel checks them.
        _ => unsafe { raw!(getsockopt, fd, level, name, value, len) },
    }
}

/// Whether there is room for less than an `int`: the kernel then gives the options of IPPROTO_IP as one octet.
///
/// # Safety
/// `len` is the application's.
unsafe fn asks_for_octet(len: *const socklen_t) -> bool {
    // SAFETY: the caller's promise.
    !len.is_null() && (1..4).contains(&unsafe { len.read_unaligned() })
}

fn time(us: &AtomicU64) -> timeval {
    let us = us.load(Relaxed);
    timeval { tv_sec: (us / 1_000_000) as _, tv_usec: (us % 1_000_000) as _ }
}

/// Gives a value to the application as the kernel does: cut to its room, the length told.
///
/// # Safety
/// `value` and `len` are the application's.
pub(crate) unsafe fn give<T: Copy>(answer: &T, value: *mut c_void, len: *mut socklen_t) -> Result<isize> {
    if len.is_null() || value.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: the caller's promise.
    let room = unsafe { len.read_unaligned() };
    if (room as c_int) < 0 {
        return Err(EINVAL);
    }
    let n = (room as usize).min(size_of::<T>());
    // SAFETY: the caller's promise; `answer` has `n` bytes.
    unsafe {
        core::ptr::copy_nonoverlapping(core::ptr::from_ref(answer).cast::<u8>(), value.cast(), n);
        len.write_unaligned(n as socklen_t);
    }
    Ok(0)
}

fn info(stream: &Stream) -> Result<tcp_info::Bytes> {
    let at = now();
    Ok(tcp_info::encode(&stream.ask(|guard| guard.info(at, stream.id))?))
}
