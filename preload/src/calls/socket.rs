//! The life of a socket: socket, bind, listen, accept, connect, shutdown, names and options.

use crate::blocking::{Wait, block};
use crate::calls::datagram;
use crate::calls::fd::{drop_entry, stay_with_kernel};
use crate::datagrams::{self, Datagram, kernel_name};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::holder::Holder;
use crate::listeners::{self, Facts, Live};
use crate::local::{self, Flag};
use crate::option_table::{DatagramClass, datagram_class};
use crate::reason::Reason;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, check_address, endpoint_from, give_endpoint, number};
use crate::{attach, interest, option_read, options, own_socket, stdio, template};
use libc::{AF_INET, AF_INET6, EAGAIN, EINVAL, O_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM};
use libc::{POLLIN, c_int, c_void, pollfd, sockaddr, socklen_t};
use sidestep_stack::addr::Endpoint;
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::now;
use sidestep_stack::socket::How;

const KIND_MASK: c_int = 0xf;

pub(crate) unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<isize> {
    let fd = sys::socket(domain, kind, protocol)?;
    let is_tcp = matches!(domain, AF_INET | AF_INET6)
        && kind & KIND_MASK == SOCK_STREAM
        && matches!(protocol, 0 | libc::IPPROTO_TCP);
    let is_udp = matches!(domain, AF_INET | AF_INET6)
        && kind & KIND_MASK == libc::SOCK_DGRAM
        && matches!(protocol, 0 | libc::IPPROTO_UDP);
    drop_entry(fd);
    // A vfork child's socket is not the parent's, whose tables these are.
    let is_ours = (is_tcp || is_udp) && attach::arm() && attach::is_own_process();
    if is_udp && is_ours {
        datagrams::note(fd, domain);
    } else if is_tcp && is_ours {
        interest::note_new(fd);
        TABLE.set(fd, Entry::new(Kind::Fresh, 0, domain as u32));
    }
    Ok(fd as isize)
}

/// The kernel's: neither end can be a TCP or UDP socket.
pub(crate) unsafe fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> Result<isize> {
    // SAFETY: the application's pointer; the kernel checks it.
    unsafe { raw!(socketpair, domain, kind, protocol, pair) }
}

pub(crate) unsafe fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    if TABLE.lookup(fd).kind() == Kind::Stream {
        check_address(addr, len)?;
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

pub(crate) fn note_listener(fd: c_int, entry: Entry, backlog: c_int) {
    let Some(family) = tcp_family(fd, entry) else { return };
    let Some(endpoint) = kernel_name(fd) else { return };
    let is_foreign = || interest::is_foreign(fd) || entry.is_kernel() && options::has_foreign(fd);
    let listener = match () {
        () if endpoint.ip.is_loopback() => Err(Reason::Loopback),
        () if is_foreign() => Err(Reason::Option),
        () if !crate::config::config().ports.allow(Proto::Tcp, endpoint.port) => Err(Reason::PortNotListed),
        // It stays where they look for it.
        () if interest::is_in_several(fd) => Err(Reason::SeveralSets),
        () => listeners::note(fd, Facts { endpoint, family, backlog }).ok_or(Reason::Full),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(reason) => {
            TABLE.set(fd, reason.entry());
            return;
        }
    };
    TABLE.set(fd, listener);
    // It was added to an epoll set before it listened: that was its first interest.
    if let Some(interest) = interest::take(fd) {
        crate::epoll_members::adopt_listener(fd, listener, &interest);
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
    // SAFETY: the application's pointers; the kernel checks them.
    let accept_in_kernel = || note_kernels(unsafe { raw!(accept4, fd, addr, len, flags) });
    let Some(live) = listeners::live(fd, entry) else { return accept_in_kernel() };
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let from_kernel = || {
        if !is_readable(fd) {
            return Err(EAGAIN);
        }
        accept_in_kernel()
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
        return accept_in_kernel(); // its queue had something while we slept
    };
    if live.listener.family() == AF_INET6
        && template::is_own(live.listener.index())
        && let Some(stream) = Stream::of(TABLE.lookup(accepted))
    {
        options::settle_family(accepted, &stream);
    }
    if !addr.is_null() {
        // SAFETY: the application's pointers.
        let given = unsafe { give_endpoint(peer, live.listener.family(), addr, len) };
        if let Err(error) = given {
            // The connection is lost, as in the kernel.
            // SAFETY: a number only.
            let _ = unsafe { super::fd::close(accepted) };
            return Err(error);
        }
    }
    Ok(accepted as isize)
}

/// A connection that a listener of ours took from its kernel half.
fn note_kernels(accepted: Result<isize>) -> Result<isize> {
    let fd = accepted? as c_int;
    drop_entry(fd);
    TABLE.set(fd, Reason::KernelAccepted.entry());
    Ok(fd as isize)
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
    let fd = template::descriptor(family, live.listener.index(), flags & SOCK_CLOEXEC != 0)?;
    match guard.accept(now, live.id, attach::process()) {
        Ok((id, peer)) => {
            let _ = guard.set_nonblocking(id, flags & SOCK_NONBLOCK != 0);
            if let Some(local) = local::of(id.index) {
                local.begin(id, if family == AF_INET6 { Flag::V6 as u32 } else { 0 });
                local::of(live.id.index).into_iter().for_each(|listener| local.inherit(listener));
            }
            TABLE.set(fd, Stream::entry(id));
            stdio::follow(fd);
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
    let holder = Holder::Listener(*live, fd);
    let wait = Wait { timeout_us: options::timeout_us(fd, libc::SO_RCVTIMEO), holder, done: None };
    block(live.stack, live.id, wait, |guard, now| match accept_locked(guard, now, live, flags) {
        Err(EAGAIN) if is_readable(holder.shadow().unwrap_or(fd)) => Ok((-1, None)),
        result => result,
    })
}

pub(crate) unsafe fn shutdown(fd: c_int, how: c_int) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    let Some(stream) = Stream::of(entry) else {
        if let Some(datagram) = Datagram::of(fd, entry) {
            return datagram::shutdown(&datagram, how);
        }
        if entry.kind() == Kind::Listener && matches!(how, libc::SHUT_RD | libc::SHUT_RDWR) {
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
    sys::done(stream.with(|guard, now| {
        guard.poll(now); // what has come belongs before it
        guard.shutdown(now, stream.id, how)
    }))
}

/// shutdown() of a listener: as in Linux it stops listening and can listen again.
fn stop_listening(fd: c_int, entry: Entry) {
    let family = listeners::of(entry).map_or(AF_INET, listeners::Listener::family);
    if TABLE.replace_if(fd, entry, Entry::new(Kind::Fresh, 0, family as u32))
        && let Some(listener) = listeners::of(entry)
    {
        if let Some(live) = listeners::live_already(entry) {
            crate::epoll_members::hand_back_twins(live.stack, live.id);
        }
        listener.remove_descriptor();
    }
}

pub(crate) unsafe fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    let Some(stream) = Stream::of(entry) else {
        if entry.kind() == Kind::Fresh && kernel_name(fd).is_some_and(|e| e.port != 0) {
            // It has seen the port that the kernel chose for it: now it has to stay.
            interest::note_bind(fd, true);
        }
        // SAFETY: the application's pointers; the kernel checks them.
        return unsafe { raw!(getsockname, fd, addr, len) };
    };
    let mut local = stream.ask(|guard| guard.local_endpoint(stream.id))?;
    if local.ip.is_unspecified() && stream.local.has(Flag::Shadow) {
        // It has lost its connection. What bind() chose stays.
        local.ip = super::connect::bound_address(fd).map_or(local.ip, |bound| bound.ip);
    }
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
    unsafe { option_read::read(fd, &stream, level, name, value, len) }
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
    if entry.is_kernel() {
        // SAFETY: the application's pointer; the kernel checks it.
        return unsafe { raw!(setsockopt, fd, level, name, value, len) };
    }
    if let Some(live) = listeners::live_already(entry) {
        // SAFETY: the application's pointer.
        return unsafe { options::tell_listener(fd, &live, level, name, value, len) };
    }
    interest::touch(fd);
    // SAFETY: as above.
    let done = unsafe { raw!(setsockopt, fd, level, name, value, len) }?;
    if entry.kind() == Kind::FreshDatagram && (level, name) == (libc::IPPROTO_IPV6, libc::IPV6_MTU) {
        // SAFETY: the kernel has just read an int there.
        interest::note_ipv6_mtu(fd, unsafe { crate::memory::read::<c_int>(value.cast()) }?);
    }
    let is_foreign = match entry.kind() {
        Kind::Fresh | Kind::Listener => options::is_foreign_now(fd, level, name),
        Kind::FreshDatagram => {
            datagram_class(level, name) != DatagramClass::Served && own_socket::is_unusual(fd, level, name)
        }
        _ => false,
    };
    if is_foreign {
        let _ = stay_with_kernel(fd, entry); // a listener in use was asked before
    }
    Ok(done)
}
