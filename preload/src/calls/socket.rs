//! The life of a socket: socket, bind, listen, accept, connect, shutdown, names and options.

use crate::blocking::{Wait, block};
use crate::calls::datagram;
use crate::calls::fd::drop_entry;
use crate::datagrams::{self, Datagram, kernel_name};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::listeners::{self, Facts, Live};
use crate::local::{self, Flag};
use crate::options;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, endpoint_from, give_endpoint, number};
use crate::{attach, interest, template};
use libc::{AF_INET, AF_INET6, EAGAIN, EINPROGRESS, EINVAL, O_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM};
use libc::{POLLIN, c_int, c_void, pollfd, sockaddr, socklen_t};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::arena::Proto;
use sidestep_stack::ip::tables::RouteVerdict;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{Errno, Family, How, SocketId};
use sidestep_stack::time::Instant;

const KIND_MASK: c_int = 0xf;

pub(crate) unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<isize> {
    let fd = sys::socket(domain, kind, protocol)?;
    let is_tcp = matches!(domain, AF_INET | AF_INET6)
        && kind & KIND_MASK == SOCK_STREAM
        && matches!(protocol, 0 | libc::IPPROTO_TCP);
    let is_udp = matches!(domain, AF_INET | AF_INET6)
        && kind & KIND_MASK == libc::SOCK_DGRAM
        && matches!(protocol, 0 | libc::IPPROTO_UDP);
    if is_udp && attach::arm() {
        drop_entry(fd);
        datagrams::note(fd, domain);
    } else if !is_tcp {
        drop_entry(fd);
    } else if attach::arm() {
        drop_entry(fd);
        interest::forget(fd);
        TABLE.set(fd, Entry::new(Kind::Fresh, 0, domain as u32));
    }
    Ok(fd as isize)
}

pub(crate) unsafe fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    if TABLE.lookup(fd).kind() == Kind::Stream {
        return Err(EINVAL); // and the template, which accepted connections share, must not be bound
    }
    let entry = TABLE.lookup(fd);
    if entry.kind() == Kind::FreshDatagram {
        // SAFETY: the same contract.
        return unsafe { datagrams::bind(fd, entry, addr, len) };
    }
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(bind, fd, addr, len) }?;
    if entry.kind() == Kind::Fresh {
        // SAFETY: the kernel has just read `len` bytes there.
        let explicit = unsafe { endpoint_from(addr, len) }.is_none_or(|e| e.port != 0);
        interest::note_bind(fd, explicit);
    }
    Ok(done)
}

pub(crate) unsafe fn listen(fd: c_int, backlog: c_int) -> Result<isize> {
    if TABLE.lookup(fd).kind() == Kind::Stream {
        return Err(EINVAL);
    }
    // SAFETY: numbers only.
    let done = unsafe { raw!(listen, fd, backlog) }?;
    match TABLE.lookup(fd) {
        entry if entry.kind() == Kind::Listener => listeners::set_backlog(entry, backlog),
        entry if matches!(entry.kind(), Kind::Fresh | Kind::Kernel) && attach::arm() => {
            note_listener(fd, entry, backlog)
        }
        _ => {}
    }
    Ok(done)
}

/// The address family of a TCP socket that nobody told us of (inherited by exec, passed by another process).
fn tcp_family(fd: c_int, entry: Entry) -> Option<c_int> {
    if entry.kind() == Kind::Fresh {
        return Some(entry.index() as c_int);
    }
    let option = |name| sys::option::<c_int>(fd, libc::SOL_SOCKET, name).ok();
    let family = option(libc::SO_DOMAIN).filter(|d| matches!(*d, AF_INET | AF_INET6))?;
    (option(libc::SO_PROTOCOL)? == libc::IPPROTO_TCP && option(libc::SO_TYPE)? == SOCK_STREAM).then_some(family)
}

fn note_listener(fd: c_int, entry: Entry, backlog: c_int) {
    let Some(family) = tcp_family(fd, entry) else { return };
    let Some(endpoint) = kernel_name(fd) else { return };
    if endpoint.ip.is_loopback() || !crate::config::config().ports.allow(Proto::Tcp, endpoint.port) {
        return;
    }
    let Some(listener) = listeners::note(Facts { endpoint, family, backlog }) else { return };
    TABLE.set(fd, listener);
    // It was added to an epoll set before it listened: that was its first interest.
    if let Some(interest) = interest::take(fd) {
        crate::epoll::adopt_listener(fd, listener, &interest);
    }
}

pub(crate) unsafe fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { accept4(fd, addr, len, 0) }
}

pub(crate) unsafe fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if entry.is_kernel() {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(accept4, fd, addr, len, flags) };
    }
    if entry.kind() == Kind::Stream {
        return Err(EINVAL);
    }
    let Some(live) = listeners::live(fd, entry) else {
        // SAFETY: as above.
        return unsafe { raw!(accept4, fd, addr, len, flags) };
    };
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let from_kernel = || {
        if !is_readable(fd) {
            return Err(EAGAIN);
        }
        // SAFETY: as above.
        unsafe { raw!(accept4, fd, addr, len, flags) }
    };
    let kernel_first = live.listener.kernel_goes_first();
    if kernel_first {
        match from_kernel() {
            Err(EAGAIN) => {}
            result => return result,
        }
    }
    let (accepted, peer) = match take_connection(&live, flags) {
        Err(EAGAIN) => match from_kernel() {
            Err(EAGAIN) => wait_for_connection(fd, &live, flags)?,
            result => return result,
        },
        result => result?,
    };
    let Some(peer) = peer else {
        // The kernel's queue had something while we slept.
        // SAFETY: as above.
        return unsafe { raw!(accept4, fd, addr, len, flags) };
    };
    if !addr.is_null() {
        // SAFETY: the application's pointers.
        unsafe { give_endpoint(peer, live.listener.family(), addr, len) }?;
    }
    Ok(accepted as isize)
}

/// Whether a kernel descriptor is readable now.
fn is_readable(fd: c_int) -> bool {
    let mut one = [pollfd { fd, events: POLLIN, revents: 0 }];
    sys::ppoll(&mut one, Some(0), core::ptr::null()) == Ok(1)
}

type Accepted = (c_int, Option<Endpoint>);

/// Takes a connection out of the user-mode accept queue and gives it a descriptor.
fn take_connection(live: &Live, flags: c_int) -> Result<Accepted> {
    let now = now();
    let mut guard = live.stack.lock();
    if !guard.has_pending_accepts(live.id) {
        guard.poll(now);
    }
    let result = accept_locked(&mut guard, now, live, flags);
    crate::kick::after_call(&mut guard, now);
    result
}

fn accept_locked(
    guard: &mut sidestep_stack::runtime::Guard<'_>,
    now: sidestep_stack::time::Instant,
    live: &Live,
    flags: c_int,
) -> Result<Accepted> {
    if !guard.has_pending_accepts(live.id) {
        return Err(EAGAIN);
    }
    let family = live.listener.family();
    // The number comes first, as in the kernel: when there is none left the connection stays in the queue.
    let fd = template::descriptor(family, flags & SOCK_CLOEXEC != 0)?;
    match guard.accept(now, live.id, attach::process()) {
        Ok((id, peer)) => {
            let _ = guard.set_nonblocking(id, flags & SOCK_NONBLOCK != 0);
            if let Some(local) = local::of(id.index) {
                local.begin(id, if family == AF_INET6 { Flag::V6 as u32 } else { 0 });
            }
            TABLE.set(fd, Stream::entry(id));
            Ok((fd, Some(peer)))
        }
        Err(e) => {
            let _ = sys::close(fd);
            Err(number(e))
        }
    }
}

/// Blocking accept: sleeps on both queues. No peer: the kernel's has something.
fn wait_for_connection(fd: c_int, live: &Live, flags: c_int) -> Result<Accepted> {
    if sys::file_flags(fd)? & O_NONBLOCK != 0 {
        return Err(EAGAIN);
    }
    let wait = Wait { timeout_us: options::timeout_us(fd, libc::SO_RCVTIMEO), also: Some(fd) };
    block(live.stack, live.id, wait, |guard, now| match accept_locked(guard, now, live, flags) {
        Err(EAGAIN) if is_readable(fd) => Ok((-1, None)),
        result => result,
    })
}

pub(crate) unsafe fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if let Some(stream) = Stream::of(entry) {
        return connect_again(&stream);
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
            _ => finish_connect(&opened.stream, opened.timeout_us),
        };
    }
    // SAFETY: as above; the kernel checks it.
    let result = unsafe { raw!(connect, fd, addr, len) };
    // A datagram socket that has connected elsewhere without being bound has a port of the kernel's choice.
    let is_decided = matches!(entry.kind(), Kind::Fresh) || entry.kind() == Kind::FreshDatagram && remote.is_some();
    if is_decided && TABLE.lookup(fd) == entry && matches!(result, Ok(_) | Err(EINPROGRESS)) {
        interest::forget(fd);
        TABLE.set(fd, Entry::KERNEL);
    }
    result
}

/// connect() on a user socket that has connected before, or is about to.
fn connect_again(stream: &Stream) -> Result<isize> {
    stream.with(|guard, now| {
        guard.poll(now);
        guard.connect_status(now, stream.id)
    })?;
    Err(libc::EISCONN)
}

/// Whether a connection may go over our device: then its stack, and the local address that bind() chose.
fn route(fd: c_int, entry: Entry, remote: Endpoint) -> Option<(&'static Stack, Option<Endpoint>)> {
    let family = entry.index() as c_int;
    let fits = remote.ip.is_v4() || family == AF_INET6;
    if !fits || remote.port == 0 || remote.ip.is_loopback() || remote.ip.is_unspecified() {
        return None;
    }
    if remote.ip.is_multicast_or_broadcast() || remote.ip.is_link_local_v6() || interest::is_explicitly_bound(fd) {
        return None;
    }
    let stack = attach::open_stack()?;
    if let RouteVerdict::NotOurs = stack.lock().net().route(&remote.ip) {
        return None;
    }
    let bound = kernel_name(fd).map(|e| e.ip).filter(|ip| !ip.is_unspecified() && *ip != Ip::UNSPECIFIED);
    Some((stack, bound.map(|ip| Endpoint::new(ip, 0))))
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
    let settings = options::of_shadow(fd);
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
        if started == Err(Errno::EADDRNOTAVAIL) {
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
    facts.receive_timeout_us.store(settings.receive_timeout_us, std::sync::atomic::Ordering::Relaxed);
    facts.send_timeout_us.store(settings.send_timeout_us, std::sync::atomic::Ordering::Relaxed);
    TABLE.set(fd, Stream::entry(id));
    let stream = Stream::of(Stream::entry(id))?;
    if let Some(interest) = interest {
        crate::epoll::adopt_stream(fd, &stream, &interest);
    }
    Some(Opened { stream, nonblocking, timeout_us: settings.send_timeout_us, is_connected })
}

pub(super) fn finish_connect(stream: &Stream, timeout_us: u64) -> Result<isize> {
    let wait = Wait { timeout_us, also: None };
    let connected =
        block(stream.stack, stream.id, wait, |guard, now| match guard.connect_status(now, stream.id).map_err(number) {
            Err(EINPROGRESS | libc::EALREADY) => Err(EAGAIN),
            result => result,
        });
    match connected {
        Err(EAGAIN) => Err(EINPROGRESS), // SO_SNDTIMEO ran out: it goes on connecting
        result => sys::done(result),
    }
}

pub(crate) unsafe fn shutdown(fd: c_int, how: c_int) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    let Some(stream) = Stream::of(entry) else {
        if let Some(datagram) = Datagram::of(fd, entry) {
            return datagram::shutdown(&datagram, how);
        }
        if entry.kind() == Kind::Listener {
            stop_listening(fd, entry);
        }
        // SAFETY: numbers only.
        return unsafe { raw!(shutdown, fd, how) };
    };
    let how = match how {
        libc::SHUT_RD => How::Read,
        libc::SHUT_WR => How::Write,
        libc::SHUT_RDWR => How::Both,
        _ => return Err(EINVAL),
    };
    sys::done(stream.with(|guard, now| guard.shutdown(now, stream.id, how)))
}

/// shutdown() of a listener: as in Linux it stops listening and can listen again.
fn stop_listening(fd: c_int, entry: Entry) {
    let family = listeners::of(entry).map_or(AF_INET, listeners::Listener::family);
    if TABLE.replace_if(fd, entry, Entry::new(Kind::Fresh, 0, family as u32))
        && let Some(listener) = listeners::of(entry)
    {
        listener.remove_descriptor();
    }
}

pub(crate) unsafe fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<isize> {
    let Some(stream) = Stream::of(TABLE.lookup(fd)) else {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(getsockname, fd, addr, len) };
    };
    let local = stream.ask(|guard| guard.local_endpoint(stream.id))?;
    // SAFETY: the application's pointers.
    sys::done(unsafe { give_endpoint(local, stream.family(), addr, len) })
}

pub(crate) unsafe fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<isize> {
    let Some(stream) = Stream::of(TABLE.lookup(fd)) else {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(getpeername, fd, addr, len) };
    };
    let peer = stream.ask(|guard| guard.peer_endpoint(stream.id))?;
    // SAFETY: the application's pointers.
    sys::done(unsafe { give_endpoint(peer, stream.family(), addr, len) })
}

pub(crate) unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if let Some(datagram) = Datagram::of(fd, entry) {
        // SAFETY: the application's pointers.
        return unsafe { datagram::read_option(&datagram, level, name, value, len) };
    }
    let Some(stream) = Stream::of(entry) else {
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(getsockopt, fd, level, name, value, len) };
    };
    // SAFETY: the application's pointers.
    unsafe { options::read(fd, &stream, level, name, value, len) }
}

pub(crate) unsafe fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if let Some(stream) = Stream::of(entry) {
        // SAFETY: the application's pointer.
        return unsafe { options::write(fd, &stream, level, name, value, len) };
    }
    if let Some(datagram) = Datagram::of(fd, entry) {
        // SAFETY: the application's pointer.
        return unsafe { datagram::write_option(&datagram, level, name, value, len) };
    }
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(setsockopt, fd, level, name, value, len) }?;
    if let Some(live) = listeners::live_already(entry) {
        // SAFETY: the kernel has just read `len` bytes there.
        unsafe { options::write_listener(&live, level, name, value, len) };
    }
    Ok(done)
}
