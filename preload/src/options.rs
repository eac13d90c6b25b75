//! Socket options. Before a socket connects or listens they are the shadow's alone; then what the engine minds is read
//! back from the shadow. Afterwards a value is set in both, and read from whoever knows the truth.

use crate::listeners::Live;
use crate::local::{Flag, Local};
use crate::memory;
use crate::option_table::{self, Class, KEPT, MARKS};
use crate::own_socket;
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use libc::{EINVAL, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET};
use libc::{c_int, c_void, socklen_t};
use sidestep_stack::runtime::{Guard, now};
use sidestep_stack::socket::{SocketId, SocketOption};
use sidestep_stack::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Options that are one `int` and that the engine minds: (level, name, the engine's name for it).
const INTS: [(c_int, c_int, SocketOption); 25] = [
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
    (SOL_SOCKET, SO_BUF_LOCK, SocketOption::BufferLock),
];

const SO_BUF_LOCK: c_int = 72;
/// The forms that libcs of 32 bits with 64-bit time use; on 64 bits they say the same.
pub(crate) const SO_RCVTIMEO_NEW: c_int = 66;
pub(crate) const SO_SNDTIMEO_NEW: c_int = 67;
const TCP_INQ: c_int = 36;
const SO_TIMESTAMP_NEW: c_int = 63;
const SO_TIMESTAMPNS_NEW: c_int = 64;

/// The kernel's TCP_CA_NAME_MAX: room for the name of an algorithm, with its NUL.
pub(crate) const NAME_LEN: usize = 16;
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
    linger: Option<i32>,
    /// [`Flag`]s of the options that the shim gives effect to.
    flags: u32,
    pub(crate) receive_timeout_us: u64,
    pub(crate) send_timeout_us: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Linger {
    pub(crate) on: c_int,
    pub(crate) seconds: c_int,
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
    settings.linger = (linger.on != 0).then_some(linger.seconds);
    settings.flags = followed(fd);
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
            let _ = guard.set_option(now, id, allowed(*option), value);
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
        let _ = guard.set_linger(id, settings.linger.map(engine_linger));
    }
}

/// The kernel has bounded the size of a buffer already.
fn allowed(option: SocketOption) -> SocketOption {
    match option {
        SocketOption::SendBuffer => SocketOption::SendBufferForce,
        SocketOption::ReceiveBuffer => SocketOption::ReceiveBufferForce,
        option => option,
    }
}

/// What this process knows of a user socket whose shadow was told this.
pub(crate) fn keep(local: &Local, settings: &Settings) {
    local.receive_timeout_us.store(settings.receive_timeout_us, Relaxed);
    local.send_timeout_us.store(settings.send_timeout_us, Relaxed);
    local.linger_s.store(settings.linger.unwrap_or(0) as u32, Relaxed);
    local.follow(settings.flags);
}

/// The options that the shim gives effect to, as a kernel socket has them.
pub(crate) fn followed(fd: c_int) -> u32 {
    let is_on = |level, name| sys::option::<c_int>(fd, level, name).is_ok_and(|v| v != 0);
    [
        (SOL_SOCKET, libc::SO_TIMESTAMP, Flag::Stamps as u32),
        (SOL_SOCKET, libc::SO_TIMESTAMPNS, Flag::StampsNs as u32),
        (SOL_SOCKET, SO_TIMESTAMP_NEW, Flag::Stamps as u32 | Flag::StampsNew as u32),
        (SOL_SOCKET, SO_TIMESTAMPNS_NEW, Flag::StampsNs as u32 | Flag::StampsNew as u32),
        (SOL_SOCKET, libc::SO_ZEROCOPY, Flag::ZeroCopy as u32),
        (IPPROTO_TCP, TCP_INQ, Flag::TellsQueue as u32),
    ]
    .into_iter()
    .filter(|(level, name, _)| is_on(*level, *name))
    .fold(0, |all, (.., flag)| all | flag)
}

/// The engine asks only whether it is zero.
fn engine_linger(seconds: i32) -> u16 {
    if seconds < 0 { u16::MAX } else { seconds.min(i32::from(u16::MAX)) as u16 }
}

/// A connection of an IPv6 socket uses the values of the family that it goes by; its kernel half has both.
pub(crate) fn settle_family(fd: c_int, stream: &Stream) {
    let Ok(local) = stream.ask(|guard| guard.local_endpoint(stream.id)) else { return };
    let level = if local.ip.is_v4() { IPPROTO_IP } else { IPPROTO_IPV6 };
    for (level, name) in MARKS.into_iter().filter(|(l, _)| *l == level) {
        if let (Ok(value), Some(option)) = (sys::option::<c_int>(fd, level, name), engine_option(level, name)) {
            let _ = stream.ask(|guard| guard.set_option(now(), stream.id, option, value));
        }
    }
}

pub(crate) fn engine_option(level: c_int, name: c_int) -> Option<SocketOption> {
    INTS.iter().find(|(l, n, _)| (*l, *n) == (level, name)).map(|(_, _, option)| *option)
}

/// What stands before the first NUL. What is not text is no algorithm's name.
fn name_in(octets: &[u8]) -> &str {
    let end = octets.iter().position(|&c| c == 0).unwrap_or(octets.len());
    core::str::from_utf8(&octets[..end]).unwrap_or("")
}

/// Whether the engine minds an option of that level on this socket. An IPv6 socket has both families' values, and one of
/// them is in force; an IPv4 socket has no IPv6 options.
pub(crate) fn is_for(stream: &Stream, level: c_int) -> bool {
    match level {
        IPPROTO_IP | IPPROTO_IPV6 if stream.family() == libc::AF_INET6 => {
            let is_v4 = stream.ask(|guard| guard.local_endpoint(stream.id)).is_ok_and(|e| e.ip.is_v4());
            is_v4 == (level == IPPROTO_IP)
        }
        IPPROTO_IPV6 => false,
        _ => true,
    }
}

/// TCP_CONGESTION as the kernel takes it: at least one octet, at most fifteen count, and a NUL ends it.
///
/// # Safety
/// `value` is null or readable for `len` bytes.
unsafe fn algorithm_name(value: *const c_void, len: socklen_t) -> Result<[u8; NAME_LEN]> {
    if (len as c_int) < 1 {
        return Err(EINVAL);
    }
    let mut name = [0; NAME_LEN];
    let n = (len as usize).min(NAME_LEN - 1);
    // SAFETY: the caller's promise; `n` is less than the room.
    unsafe { memory::copy_in(name.as_mut_ptr(), value.cast(), n) }?;
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
    match len as c_int {
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
    // SAFETY: the caller's promise.
    unsafe { memory::read(value.cast::<c_int>()) }
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
    if (len as c_int) < 0 {
        return Err(EINVAL);
    }
    if let Some(option) = engine_option(level, name).filter(|_| is_for(stream, level)) {
        // SAFETY: the caller's promise.
        let value = unsafe { int_of(level, value, len) }?;
        return sys::done(stream.with(|guard, now| guard.set_option(now, stream.id, option, value)));
    }
    match (level, name) {
        (SOL_SOCKET, SO_LINGER) => {
            // SAFETY: the caller's promise.
            let linger = unsafe { plain::<Linger>(value, len) }?;
            if linger.on != 0 {
                stream.local.linger_s.store(linger.seconds as u32, Relaxed);
            }
            let seconds = (linger.on != 0).then(|| engine_linger(linger.seconds));
            sys::done(stream.ask(|guard| guard.set_linger(stream.id, seconds)))
        }
        (SOL_SOCKET, SO_RCVTIMEO | SO_RCVTIMEO_NEW) => {
            // SAFETY: the caller's promise.
            unsafe { set_timeout(&stream.local.receive_timeout_us, value, len) }
        }
        (SOL_SOCKET, SO_SNDTIMEO | SO_SNDTIMEO_NEW) => {
            // SAFETY: the caller's promise.
            unsafe { set_timeout(&stream.local.send_timeout_us, value, len) }
        }
        (SOL_SOCKET, libc::SO_SNDBUFFORCE | libc::SO_RCVBUFFORCE) => {
            // SAFETY: the caller's promise.
            unsafe { force_buffer(stream, name, value, len) }
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
        // It has its port.
        (IPPROTO_IPV6, libc::IPV6_V6ONLY) if stream.family() == libc::AF_INET6 => Err(EINVAL),
        // SAFETY: the caller's promise.
        _ => unsafe { write_other(fd, stream, level, name, value, len) },
    }
}

/// An option that the engine does not mind.
///
/// # Safety
/// As for `write`.
unsafe fn write_other(
    fd: c_int,
    stream: &Stream,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<isize> {
    let is_of_other_family = matches!(level, IPPROTO_IP | IPPROTO_IPV6) && engine_option(level, name).is_some();
    let class = if is_of_other_family { Class::Kept } else { option_table::class(level, name) };
    if (level, name) == (IPPROTO_IPV6, libc::IPV6_MTU) && stream.family() == libc::AF_INET6 {
        // None is what it has. SAFETY: the caller's promise.
        return if unsafe { int(value, len) }? == 0 { Ok(0) } else { Err(EINVAL) };
    }
    if (level, name) == (IPPROTO_IPV6, libc::IPV6_ADDRFORM) && stream.family() == libc::AF_INET6 {
        // SAFETY: the caller's promise.
        let wants_v4 = unsafe { int(value, len) }? == libc::AF_INET;
        return Err(if wants_v4 { option_table::refusal(level, name) } else { EINVAL });
    }
    if class == Class::Foreign {
        // SAFETY: the application's pointer; the kernel checks it.
        return match unsafe { own_socket::would_change(stream.family(), libc::SOCK_STREAM, level, name, value, len) } {
            Ok(false) => Ok(0),
            Ok(true) => Err(option_table::refusal(level, name)),
            // What it says of a connection comes after a look at the length.
            Err(_) if len as usize >= size_of::<c_int>() && option_table::refusal(level, name) == libc::EPERM => {
                Err(libc::EPERM)
            }
            Err(e) => Err(e),
        };
    }
    own_socket::ensure(fd, stream)?;
    // SAFETY: as above.
    let done = unsafe { raw!(setsockopt, fd, level, name, value, len) }?;
    stream.local.follow(followed(fd));
    Ok(done)
}

/// SO_SNDBUFFORCE and SO_RCVBUFFORCE, if the kernel would let this process.
///
/// # Safety
/// As for `write`.
unsafe fn force_buffer(stream: &Stream, name: c_int, value: *const c_void, len: socklen_t) -> Result<isize> {
    // SAFETY: the application's pointer; the kernel checks it.
    unsafe { own_socket::would_change(stream.family(), libc::SOCK_STREAM, SOL_SOCKET, name, value, len) }?;
    // SAFETY: the caller's promise.
    let bytes = unsafe { int(value, len) }?;
    let option = match name {
        libc::SO_SNDBUFFORCE => SocketOption::SendBufferForce,
        _ => SocketOption::ReceiveBufferForce,
    };
    sys::done(stream.with(|guard, now| guard.set_option(now, stream.id, option, bytes)))
}

/// setsockopt on a socket that may yet connect or listen, which the kernel has done: whether it has to stay there.
pub(crate) fn is_foreign_now(fd: c_int, level: c_int, name: c_int) -> bool {
    let is_minded = engine_option(level, name).is_some()
        || matches!((level, name), (SOL_SOCKET, SO_LINGER | SO_RCVTIMEO | SO_SNDTIMEO))
        || matches!((level, name), (SOL_SOCKET, SO_RCVTIMEO_NEW | SO_SNDTIMEO_NEW | libc::SO_MAX_PACING_RATE))
        || matches!((level, name), (SOL_SOCKET, libc::SO_SNDBUFFORCE | libc::SO_RCVBUFFORCE | libc::SO_BINDTODEVICE))
        || matches!((level, name), (IPPROTO_TCP, libc::TCP_CONGESTION | libc::TCP_QUICKACK | libc::TCP_FASTOPEN_KEY))
        || (level, name) == (SOL_SOCKET, own_socket::SO_BINDTOIFINDEX);
    if is_minded || option_table::class(level, name) == Class::Kept {
        return false;
    }
    own_socket::is_unusual(fd, level, name)
}

/// Whether a socket that came from elsewhere (by exec, or from another process) has an option that only the kernel has, as far
/// as that can be read.
pub(crate) fn has_foreign(fd: c_int) -> bool {
    option_table::READABLE_FOREIGN.iter().any(|(level, name)| {
        own_socket::value_of(fd, *level, *name).is_ok() && own_socket::is_unusual(fd, *level, *name)
    })
}

/// Whether a socket may send over our device: it is bound to none, or to this.
pub(crate) fn may_use_device(fd: c_int, ifindex: u32) -> bool {
    let bound = sys::option::<c_int>(fd, SOL_SOCKET, own_socket::SO_BINDTOIFINDEX).unwrap_or(0);
    bound == 0 || bound as u32 == ifindex
}

/// # Safety
/// `value` is null or readable for `len` bytes; T is of integers.
unsafe fn plain<T: Copy>(value: *const c_void, len: socklen_t) -> Result<T> {
    if (len as usize) < size_of::<T>() {
        return Err(EINVAL);
    }
    // SAFETY: the caller's promise.
    unsafe { memory::read(value.cast::<T>()) }
}

/// # Safety
/// As for `plain`.
unsafe fn set_timeout(slot: &AtomicU64, value: *const c_void, len: socklen_t) -> Result<isize> {
    // SAFETY: the caller's promise.
    let t = unsafe { plain::<Time>(value, len) }?;
    if !(0..1_000_000).contains(&t.micros) {
        return Err(libc::EDOM);
    }
    slot.store(time_us(t), Relaxed);
    Ok(0)
}

/// As the kernel keeps it: whole ticks of its clock, so many at most. A negative time is "do not wait", zero "for ever";
/// [`NO_WAIT_US`] is the former.
fn time_us(t: Time) -> u64 {
    let tick_us = tick_us();
    if t.seconds < 0 {
        return NO_WAIT_US;
    }
    let us = (t.seconds as u64).saturating_mul(1_000_000).saturating_add(t.micros as u64);
    if t.seconds as u64 >= (i64::MAX as u64) / (1_000_000 / tick_us) - 1 { 0 } else { us.div_ceil(tick_us) * tick_us }
}

/// Does not wait, and is told as zero.
pub(crate) const NO_WAIT_US: u64 = 1;

/// A shadow's timeouts. One that was negative is told as zero, and stays what it was.
pub(crate) fn follow_timeouts(local: &Local, fd: c_int) {
    let slots = [(&local.receive_timeout_us, SO_RCVTIMEO), (&local.send_timeout_us, SO_SNDTIMEO)];
    for (slot, name) in slots {
        let told = timeout_us(fd, name);
        if told != 0 || slot.load(Relaxed) != NO_WAIT_US {
            slot.store(told, Relaxed);
        }
    }
}

/// After a datagram socket's shadow took a timeout: whether it was a negative one.
///
/// # Safety
/// `value` is readable for `len` bytes.
pub(crate) unsafe fn note_timeout(local: &Local, name: c_int, value: *const c_void, len: socklen_t) {
    let slot = match name {
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => &local.receive_timeout_us,
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => &local.send_timeout_us,
        _ => return,
    };
    // SAFETY: the caller's promise.
    let _ = unsafe { set_timeout(slot, value, len) };
}

/// The kernel's tick, found out by what it makes of one microsecond.
pub(crate) fn tick_us() -> u64 {
    static TICK: AtomicU64 = AtomicU64::new(0);
    match TICK.load(Relaxed) {
        0 => {
            let told = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).map_or(0, |probe| {
                let least = Time { seconds: 0, micros: 1 };
                // SAFETY: a record of ours.
                let _ =
                    unsafe { raw!(setsockopt, probe, SOL_SOCKET, SO_RCVTIMEO, &raw const least, size_of::<Time>()) };
                let told = timeout_us(probe, SO_RCVTIMEO);
                let _ = sys::close(probe);
                told
            });
            let tick = told.clamp(1, 10_000);
            TICK.store(tick, Relaxed);
            tick
        }
        tick => tick,
    }
}

/// setsockopt on a listener that is live. What only the kernel has, connections to come could not inherit.
///
/// # Safety
/// As for `write`.
pub(crate) unsafe fn tell_listener(
    fd: c_int,
    live: &Live,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<isize> {
    let before = own_socket::value_of(fd, level, name);
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(setsockopt, fd, level, name, value, len) }?;
    if is_foreign_now(fd, level, name) && before != own_socket::value_of(fd, level, name) {
        if let Ok(before) = before {
            own_socket::put_back(fd, level, name, &before);
        }
        return Err(option_table::refusal(level, name));
    }
    // SAFETY: the kernel has just read `len` bytes there.
    unsafe { write_listener(fd, live, level, name, value, len) };
    Ok(done)
}

/// setsockopt on a listener, which the kernel has done already: connections to come inherit it.
///
/// # Safety
/// `value` is readable for `len` bytes.
unsafe fn write_listener(fd: c_int, live: &Live, level: c_int, name: c_int, value: *const c_void, len: socklen_t) {
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
            let seconds = (linger.on != 0).then(|| engine_linger(linger.seconds));
            let _ = guard.set_linger(live.id, seconds);
        }
    }
    drop(guard);
    if let Some(local) = crate::local::of(live.id.index) {
        local.receive_timeout_us.store(timeout_us(fd, SO_RCVTIMEO), Relaxed);
        local.send_timeout_us.store(timeout_us(fd, SO_SNDTIMEO), Relaxed);
        let linger = sys::option::<Linger>(fd, SOL_SOCKET, SO_LINGER).unwrap_or_default();
        local.linger_s.store(linger.seconds as u32, Relaxed);
        local.follow(followed(fd));
    }
    if KEPT.contains(&(level, name)) || MARKS.contains(&(level, name)) {
        crate::template::follow_listener(live.listener.index(), fd, live.listener.family());
    }
}

/// Gives a value to the application as the kernel does: cut to its room, the length told.
///
/// # Safety
/// `value` and `len` are the application's.
pub(crate) unsafe fn give<T: Copy>(answer: &T, value: *mut c_void, len: *mut socklen_t) -> Result<isize> {
    // SAFETY: the caller's promise.
    let room = unsafe { memory::read(len) }?;
    if (room as c_int) < 0 {
        return Err(EINVAL);
    }
    let n = (room as usize).min(size_of::<T>());
    // SAFETY: the caller's promise; `answer` has `n` bytes.
    unsafe {
        memory::copy_out(value.cast(), core::ptr::from_ref(answer).cast::<u8>(), n)?;
        memory::write(len, n as socklen_t)?;
    }
    Ok(0)
}
