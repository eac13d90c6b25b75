//! connect(): which way a connection goes, how it begins, and what a socket is good for when it has failed.

use crate::blocking::{Wait, block};
use crate::calls::datagram;
use crate::calls::fd::drop_entry;
use crate::datagrams::{self, kernel_name};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::holder::Holder;
use crate::local::{self, Flag};
use crate::options::{self, Settings};
use crate::reason::Reason;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, check_address, endpoint_from, number};
use crate::{attach, interest, memory, owner, stdio};
use libc::{
    AF_INET, AF_INET6, EAGAIN, EALREADY, EINPROGRESS, EINVAL, ENETUNREACH, O_NONBLOCK, c_int, sockaddr, socklen_t,
};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::ip::tables::RouteVerdict;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{Errno, Family, SocketId};
use sidestep_stack::time::Instant;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) unsafe fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if let Some(stream) = Stream::of(entry) {
        // SAFETY: the same contract.
        return unsafe { connect_again(fd, &stream, addr, len) };
    }
    // SAFETY: the application's address.
    let remote = unsafe { endpoint_from(addr, len) };
    if matches!(entry.kind(), Kind::Datagram | Kind::FreshDatagram)
        && let Some(datagram) = datagrams::sender(fd, entry, remote)
    {
        // SAFETY: the same contract.
        return unsafe { datagram::connect(&datagram, addr, len) };
    }
    if entry.kind() == Kind::Fresh
        && let Some(remote) = remote
        && let Some(opened) =
            begin_user(fd, entry, remote, |guard, now, id, local| guard.connect(now, id, local, remote))
    {
        return match (opened.is_connected, opened.nonblocking) {
            (true, _) => Ok(0), // the SYN waits for the first write (TCP_FASTOPEN_CONNECT)
            (_, true) => Err(EINPROGRESS),
            _ => finish_connect(&opened.stream, opened.timeout_us, EINPROGRESS),
        };
    }
    // SAFETY: as above; the kernel checks it.
    let result = unsafe { raw!(connect, fd, addr, len) };
    // A datagram socket that has connected elsewhere without being bound has a port of the kernel's choice.
    let is_decided = matches!(entry.kind(), Kind::Fresh) || entry.kind() == Kind::FreshDatagram && remote.is_some();
    if is_decided && TABLE.lookup(fd) == entry && matches!(result, Ok(_) | Err(EINPROGRESS)) {
        let reason = match entry.kind() {
            Kind::Fresh => remote.map_or(Reason::NotServed, |remote| Reason::of_connect(fd, remote)),
            _ => Reason::of_datagram(fd),
        };
        interest::forget(fd);
        TABLE.set(fd, reason.entry());
    }
    result
}

/// connect() on a user socket, in Linux's order: the address's length, AF_UNSPEC, and what the socket is by now.
///
/// # Safety
/// `addr` is the application's.
unsafe fn connect_again(fd: c_int, stream: &Stream, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    check_address(addr, len)?;
    if (len as usize) < size_of::<libc::sa_family_t>() {
        return Err(EINVAL);
    }
    // SAFETY: the application's address.
    if c_int::from(unsafe { memory::read(addr.cast::<libc::sa_family_t>()) }?) == libc::AF_UNSPEC {
        return sys::done(stream.with(|guard, now| guard.disconnect(now, stream.id)));
    }
    let status = stream.with(|guard, now| {
        guard.poll(now);
        Ok((guard.connect_again(now, stream.id), guard.is_nonblocking(stream.id)?))
    })?;
    match status {
        (Ok(()), _) => Ok(0),
        (Err(Errno::EALREADY), false) => finish_connect(stream, stream.local.send_timeout_us.load(Relaxed), EALREADY),
        // SAFETY: the caller's promise.
        (Err(Errno::ENOTCONN), nonblocking) => unsafe { connect_anew(fd, stream, addr, len, nonblocking) },
        (Err(error), _) => Err(number(error)),
    }
}

/// connect() on a user socket whose connection failed, or was dissolved: over the device again, or, where the way is another,
/// by its shadow.
///
/// # Safety
/// `addr` is the application's.
unsafe fn connect_anew(
    fd: c_int,
    stream: &Stream,
    addr: *const sockaddr,
    len: socklen_t,
    nonblocking: bool,
) -> Result<isize> {
    // SAFETY: the caller's promise.
    let remote = unsafe { endpoint_from(addr, len) };
    let fits = |remote: &Endpoint| is_ours(fd, stream.family(), remote) && goes_over_device(stream.stack, remote);
    if let Some(remote) = remote.filter(fits) {
        let local = bound_address(fd).filter(|_| stream.local.has(Flag::Shadow));
        let started = stream.with(|guard, now| Ok(guard.connect(now, stream.id, local, remote)))?;
        return match started.map_err(number) {
            Err(EINPROGRESS) if !nonblocking => {
                finish_connect(stream, stream.local.send_timeout_us.load(Relaxed), EINPROGRESS)
            }
            result => sys::done(result),
        };
    }
    if !stream.local.has(Flag::Shadow) {
        // An accepted connection's number has no kernel socket of its own, which could go another way.
        return Err(ENETUNREACH);
    }
    // SAFETY: the application's pointer; the kernel checks it.
    let result = unsafe { raw!(connect, fd, addr, len) };
    if matches!(result, Ok(_) | Err(EINPROGRESS)) {
        drop_entry(fd);
    }
    result
}

/// Whether a socket of the family may ever have such a peer in user mode.
fn is_ours(fd: c_int, family: c_int, remote: &Endpoint) -> bool {
    let fits = if remote.ip.is_v4() { family == AF_INET || !is_v6only(fd, family) } else { family == AF_INET6 };
    let is_plain = !(remote.ip.is_loopback() || remote.ip.is_unspecified() || remote.ip.is_multicast_or_broadcast());
    fits && is_plain && remote.port != 0 && !remote.ip.is_link_local_v6()
}

/// IPV6_V6ONLY: no IPv4 by way of mapped addresses.
fn is_v6only(fd: c_int, family: c_int) -> bool {
    family == AF_INET6 && sys::option::<c_int>(fd, libc::SOL_IPV6, libc::IPV6_V6ONLY) == Ok(1)
}

fn goes_over_device(stack: &Stack, remote: &Endpoint) -> bool {
    !matches!(stack.lock().net().route(&remote.ip), RouteVerdict::NotOurs)
}

/// The local address that bind() chose; its port is the stack's business.
pub(super) fn bound_address(fd: c_int) -> Option<Endpoint> {
    let ip = kernel_name(fd)?.ip;
    (!ip.is_unspecified() && ip != Ip::UNSPECIFIED).then(|| Endpoint::new(ip, 0))
}

/// Whether a connection may go over our device: then its stack, and the local address that bind() chose.
fn route(fd: c_int, entry: Entry, remote: Endpoint) -> Option<(&'static Stack, Option<Endpoint>)> {
    if !is_ours(fd, entry.index() as c_int, &remote) || interest::is_explicitly_bound(fd) {
        return None;
    }
    let stack = attach::open_stack()?;
    let may_leave = || interest::is_untouched(fd) || options::may_use_device(fd, stack.lock().config().ifindex);
    let is_served = goes_over_device(stack, &remote) && may_leave();
    is_served.then(|| (stack, bound_address(fd)))
}

/// A connection that was begun in user mode.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) nonblocking: bool,
    /// SO_SNDTIMEO, which bounds connect() as well.
    pub(super) timeout_us: u64,
    is_connected: bool,
}

/// Begins to connect in user mode, with whichever call of the engine `begin` makes. `None`: the stack could not begin, or the
/// way is not its own; the kernel may.
pub(super) fn begin_user(
    fd: c_int,
    entry: Entry,
    remote: Endpoint,
    mut begin: impl FnMut(&mut Guard<'_>, Instant, SocketId, Option<Endpoint>) -> core::result::Result<(), Errno>,
) -> Option<Opened> {
    let (stack, local) = route(fd, entry, remote)?;
    let nonblocking = sys::file_flags(fd).ok()? & O_NONBLOCK != 0;
    let is_v6 = entry.index() as c_int == AF_INET6;
    let is_plain = interest::is_untouched(fd);
    let settings = if is_plain { Settings::default() } else { options::of_shadow(fd) };
    let interest = interest::take_if_single(fd).ok()?;
    let (id, is_connected) = {
        let now = now();
        let mut guard = stack.lock();
        guard.poll(now); // a stack that is new has no frames yet
        let family = if is_v6 { Family::V6 } else { Family::V4 };
        let id = guard.open_stream(family, false, attach::process()).ok()?;
        let _ = guard.set_nonblocking(id, nonblocking);
        options::apply(&mut guard, now, id, &settings);
        let mut started = begin(&mut guard, now, id, local);
        if started == Err(Errno::EADDRNOTAVAIL) && guard.ports_low() {
            drop(guard);
            attach::more_ports(stack);
            guard = stack.lock();
            started = begin(&mut guard, now, id, local);
        }
        if !matches!(started, Ok(()) | Err(Errno::EINPROGRESS)) {
            let _ = guard.release(now, id, attach::process());
            interest::put_back(fd, interest);
            return None;
        }
        guard.flush(now);
        (id, started.is_ok())
    };
    let facts = local::of(id.index)?;
    facts.begin(id, Flag::Shadow as u32 | if is_v6 { Flag::V6 as u32 } else { 0 });
    options::keep(facts, &settings);
    TABLE.set(fd, Stream::entry(id));
    stdio::follow(fd);
    let stream = Stream::of(Stream::entry(id))?;
    if !is_plain {
        if is_v6 {
            options::settle_family(fd, &stream);
        }
        let _ = owner::follow_stream(fd, &stream);
    }
    if let Some(interest) = interest {
        crate::epoll_members::adopt_stream(fd, &stream, &interest);
    }
    Some(Opened { stream, nonblocking, timeout_us: settings.send_timeout_us, is_connected })
}

/// Waits for the outcome. `unfinished` is the error when SO_SNDTIMEO runs out first: the socket goes on connecting.
pub(super) fn finish_connect(stream: &Stream, timeout_us: u64, unfinished: c_int) -> Result<isize> {
    let wait = Wait { timeout_us, holder: Holder::Stream(*stream), done: None };
    let connected =
        block(stream.stack, stream.id, wait, |guard, now| match guard.connect_status(now, stream.id).map_err(number) {
            Err(EINPROGRESS | EALREADY) => Err(EAGAIN),
            result => result,
        });
    match connected {
        Err(EAGAIN) => Err(unfinished),
        result => sys::done(result),
    }
}
