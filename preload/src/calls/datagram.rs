//! Calls on user-mode datagram sockets: from the engine's queue and the shadow's, to the device and by the kernel.

use crate::blocking::{Wait, block};
use crate::datagrams::Datagram;
use crate::holder::Holder;
use crate::local::Flag;
use crate::message::{self, Receiver, Wishes};
use crate::option_table::{DatagramClass, datagram_class};
use crate::sys::{Result, raw};
use crate::user::{endpoint_from, number};
use crate::{options, own_socket};
use libc::{AF_INET, AF_INET6, EAGAIN, MSG_CONFIRM, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC};
use libc::{SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, c_int, c_void, iovec, msghdr, sa_family_t, sockaddr, socklen_t};
use sidestep_stack::addr::Endpoint;
use sidestep_stack::runtime::Guard;
use sidestep_stack::socket::How;
use sidestep_stack::time::Instant;
use sidestep_stack::udp::{Outgoing, Sent};
use std::sync::atomic::Ordering::Relaxed;

/// While the engine's queue keeps a reader busy, the shadow's has its turn once in so many calls.
const SHADOW_TURN: u32 = 16;
/// While a reader spins, the shadow is looked at this often.
const SHADOW_LOOK_US: u64 = 20;
/// Linux's UDP_MAX_SEGMENTS, as older kernels have it.
const SEGMENTS_MAX: usize = 64;
/// The longest datagram there is. The kernel says what is wrong with a longer one.
const PAYLOAD_MAX: usize = 65_507;

/// A header for calls that have none.
pub(crate) fn header(iov: &mut [iovec], name: *mut sockaddr, name_len: socklen_t) -> msghdr {
    // SAFETY: all zeroes is a valid, empty header.
    let mut header: msghdr = unsafe { core::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (iov.as_mut_ptr(), iov.len() as _);
    (header.msg_name, header.msg_namelen) = (name.cast(), if name.is_null() { 0 } else { name_len });
    header
}

// ---- receiving ----

/// recvmsg.
///
/// # Safety
/// The header and all it names are the application's: writable.
pub(crate) unsafe fn receive(d: &Datagram, header: &mut msghdr, flags: c_int) -> Result<isize> {
    if flags & MSG_ERRQUEUE != 0 {
        // SAFETY: the caller's promise.
        return unsafe { receive_error(d, header, flags) };
    }
    // SAFETY: the application's array.
    let iov = unsafe { super::io::buffers_of(header) }?;
    if d.local.looks.fetch_add(1, Relaxed).is_multiple_of(SHADOW_TURN) {
        // SAFETY: as above.
        match unsafe { receive_by_shadow(d, header, flags) } {
            Err(EAGAIN) => {}
            result => return result,
        }
    }
    let mut polled = false;
    let mut step = |guard: &mut Guard<'_>, now: Instant| {
        // SAFETY: the caller's promise.
        match unsafe { receive_step(d, guard, header, iov, flags) } {
            Err(EAGAIN) if !core::mem::replace(&mut polled, true) => {
                guard.poll(now);
                // SAFETY: as above.
                unsafe { receive_step(d, guard, header, iov, flags) }
            }
            result => result,
        }
    };
    match d.with(&mut step) {
        Err(EAGAIN) => {}
        result => return result,
    }
    // SAFETY: as above.
    match unsafe { receive_by_shadow(d, header, flags) } {
        Err(EAGAIN) => {}
        result => return result,
    }
    if flags & MSG_DONTWAIT != 0 || d.ask(|guard| guard.is_nonblocking(d.id))? {
        return Err(EAGAIN);
    }
    // SAFETY: as above.
    unsafe { wait_for_datagram(d, header, iov, flags) }
}

/// Takes a datagram out of the engine's queue.
///
/// # Safety
/// As for `receive`.
unsafe fn receive_step(
    d: &Datagram,
    guard: &mut Guard<'_>,
    header: &mut msghdr,
    iov: &[iovec],
    flags: c_int,
) -> Result<isize> {
    let receiver = receiver_of(d, guard);
    let taken = guard.recv_from(d.id, flags & MSG_PEEK != 0, message::total(iov), |datagram| {
        // A datagram that cannot be written is lost all the same.
        // SAFETY: the caller's promise.
        let mut copied = unsafe { message::scatter(datagram.payload, iov, 0) }?;
        let mut full = datagram.payload.len();
        for payload in datagram.others.payloads() {
            // SAFETY: the caller's promise.
            copied += unsafe { message::scatter(payload, iov, full) }?;
            full += payload.len();
        }
        let segment = (datagram.others.count() != 0).then_some(datagram.payload.len() as c_int);
        header.msg_flags = if copied < full { MSG_TRUNC } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { receiver.describe(header, &datagram.facts, datagram.overflows, segment) }?;
        Ok(if flags & MSG_TRUNC != 0 { full } else { copied } as isize)
    });
    taken.map_err(number)?
}

fn receiver_of(d: &Datagram, guard: &Guard<'_>) -> Receiver {
    Receiver { family: d.family(), ifindex: guard.config().ifindex, wants: d.local.wants.load(Relaxed) }
}

/// Takes an entry of the error queue: the engine's, then the shadow's.
///
/// # Safety
/// As for `receive`.
unsafe fn receive_error(d: &Datagram, header: &mut msghdr, flags: c_int) -> Result<isize> {
    // SAFETY: the application's array.
    let iov = unsafe { super::io::buffers_of(header) }?;
    let taken = d.with(|guard, now| {
        guard.poll(now);
        let receiver = receiver_of(d, guard);
        let taken = guard.recv_error(d.id, |entry, quoted| {
            // SAFETY: the caller's promise.
            let copied = unsafe { message::scatter(quoted, iov, 0) }?;
            header.msg_flags = if copied < quoted.len() { MSG_TRUNC } else { 0 };
            // SAFETY: the caller's promise.
            unsafe { receiver.describe_error(header, entry) }?;
            Ok(copied as isize)
        });
        taken.map_err(number)?
    });
    match taken {
        // SAFETY: the application's header; the kernel checks what it names.
        Err(EAGAIN) => unsafe { raw!(recvmsg, d.fd, core::ptr::from_mut(header), flags) },
        result => result,
    }
}

/// Takes a datagram out of the shadow's queue, or its error; does not wait.
///
/// # Safety
/// As for `receive`.
unsafe fn receive_by_shadow(d: &Datagram, header: &mut msghdr, flags: c_int) -> Result<isize> {
    // SAFETY: the application's header; the kernel checks what it names.
    unsafe { raw!(recvmsg, d.fd, core::ptr::from_mut(header), flags | MSG_DONTWAIT) }
}

/// Waits for either queue.
///
/// # Safety
/// As for `receive`.
unsafe fn wait_for_datagram(d: &Datagram, header: &mut msghdr, iov: &[iovec], flags: c_int) -> Result<isize> {
    let wait = Wait { timeout_us: d.local.receive_timeout_us.load(Relaxed), holder: Holder::Datagram(*d), done: None };
    let mut looked = Instant::ZERO;
    block(d.stack, d.id, wait, |guard, now| {
        // SAFETY: the caller's promise.
        match unsafe { receive_step(d, guard, header, iov, flags) } {
            Err(EAGAIN) => {}
            result => return result,
        }
        if guard.is_receive_shut(d.id) == Ok(true) {
            return Ok(0);
        }
        if now.since_us(looked) < SHADOW_LOOK_US {
            return Err(EAGAIN);
        }
        looked = now;
        let d = Datagram { fd: wait.holder.shadow().unwrap_or(d.fd), ..*d };
        // SAFETY: the caller's promise.
        unsafe { receive_by_shadow(&d, header, flags) }
    })
}

// ---- sending ----

/// sendmsg.
///
/// # Safety
/// The header and all it names are the application's: readable.
pub(crate) unsafe fn transmit(d: &Datagram, header: &msghdr, flags: c_int) -> Result<isize> {
    let by_kernel = || {
        // SAFETY: the application's header; the kernel checks what it names.
        unsafe { raw!(sendmsg, d.fd, core::ptr::from_ref(header), flags) }
    };
    // Whatever is said piece by piece (MSG_MORE, UDP_CORK) or in another way than usual is the kernel's.
    let more = flags & libc::MSG_MORE != 0;
    let corked = d.local.has(Flag::Corked) || d.local.has(Flag::More);
    d.local.put(Flag::More, more);
    if more || corked || flags & !(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CONFIRM) != 0 || !d.may_send() {
        return by_kernel();
    }
    // SAFETY: the application's array.
    let iov = unsafe { super::io::buffers_of(header) }?;
    let len = message::total(iov);
    if len <= PAYLOAD_MAX {
        crate::memory::probe_buffers(iov, 0, len, |at, n| crate::memory::probe_read(at, n))?;
    }
    // SAFETY: the caller's promise.
    let Some((out, segment)) = (unsafe { outgoing(d, header) }).filter(|_| len <= PAYLOAD_MAX) else {
        return by_kernel();
    };
    let cut = Cut { out, len, size: if segment == 0 { len } else { len.min(segment) } };
    if cut.count() > SEGMENTS_MAX {
        return by_kernel();
    }
    // SAFETY: the caller's promise.
    let mut step = |guard: &mut Guard<'_>, _| unsafe { transmit_step(d, guard, &cut, iov) };
    let sent = match d.with(step) {
        Err(EAGAIN) => look_again_or_wait(d, flags, &mut step),
        result => result,
    };
    match sent? {
        Sent::Queued => Ok(len as isize),
        Sent::ByKernel => by_kernel(),
    }
}

/// A send of one or (UDP_SEGMENT) several datagrams: all of them `size` bytes long but the last.
struct Cut {
    out: Outgoing,
    len: usize,
    size: usize,
}

impl Cut {
    fn count(&self) -> usize {
        if self.len == 0 { 1 } else { self.len.div_ceil(self.size) }
    }
}

/// Queues all datagrams of a send, or none.
///
/// # Safety
/// The buffers are readable.
unsafe fn transmit_step(d: &Datagram, guard: &mut Guard<'_>, cut: &Cut, iov: &[iovec]) -> Result<Sent> {
    let count = cut.count();
    if count > 1 && !guard.has_send_room(d.id, count as u32).map_err(number)? {
        return Err(EAGAIN);
    }
    for i in 0..count {
        let from = i * cut.size;
        let n = cut.size.min(cut.len - from);
        // SAFETY: the caller's promise.
        let fill = |room: &mut [u8]| unsafe { message::gather(iov, from, room) };
        match guard.send_to(d.id, &cut.out, n, fill).map_err(number)? {
            Sent::Queued => {}
            // The first one tells for all: they go the same way, and none is longer.
            Sent::ByKernel => return Ok(Sent::ByKernel),
        }
    }
    Ok(Sent::Queued)
}

/// There was no room. A nonblocking call has one more look, after what the device has completed by now; a blocking one
/// waits.
fn look_again_or_wait(
    d: &Datagram,
    flags: c_int,
    step: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<Sent>,
) -> Result<Sent> {
    if flags & MSG_DONTWAIT != 0 || d.ask(|guard| guard.is_nonblocking(d.id))? {
        return d.with(|guard, now| {
            guard.flush(now);
            guard.poll(now);
            step(guard, now)
        });
    }
    let wait = Wait { timeout_us: d.local.send_timeout_us.load(Relaxed), holder: Holder::Datagram(*d), done: None };
    block(d.stack, d.id, wait, |guard, now| step(guard, now))
}

/// Where a message goes, and the size to cut it into; `None`: the kernel understands it better.
///
/// # Safety
/// What the header names is readable.
unsafe fn outgoing(d: &Datagram, header: &msghdr) -> Option<(Outgoing, usize)> {
    let to = if header.msg_name.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(unsafe { recipient(d.family(), header.msg_name.cast(), header.msg_namelen) }?)
    };
    let wishes = if header.msg_control.is_null() || header.msg_controllen == 0 {
        Wishes::default()
    } else {
        let (remote, ifindex) = {
            let guard = d.stack.lock();
            (guard.datagram_remote(d.id).ok().flatten(), guard.config().ifindex)
        };
        let to_v4 = to.or(remote)?.ip.is_v4();
        // SAFETY: the caller's promise.
        unsafe { message::wishes(header, to_v4, ifindex) }?
    };
    let segment = wishes.segment.map_or_else(|| d.local.segment.load(Relaxed) as usize, usize::from);
    Some((Outgoing { to, source: wishes.source, ttl: wishes.ttl, tos: wishes.tos }, segment))
}

/// An address that a socket of the family may send to.
///
/// # Safety
/// `addr` is readable for `len` bytes.
unsafe fn recipient(family: c_int, addr: *const sockaddr, len: socklen_t) -> Option<Endpoint> {
    // SAFETY: the caller's promise; `endpoint_from` checks the length first.
    let to = unsafe { endpoint_from(addr, len) }?;
    // SAFETY: as above.
    let its = c_int::from(unsafe { crate::memory::read(addr.cast::<sa_family_t>()) }.ok()?);
    (its == family || (its, family) == (AF_INET, AF_INET6)).then_some(to)
}

// ---- the rest ----

/// connect(): the shadow's, and what came of it.
///
/// # Safety
/// `addr` is the application's.
pub(crate) unsafe fn connect(d: &Datagram, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(connect, d.fd, addr, len) }?;
    d.follow_shadow()?;
    Ok(done)
}

/// shutdown(): Linux refuses it on a socket that is not connected, and does it all the same.
pub(crate) fn shutdown(d: &Datagram, how: c_int) -> Result<isize> {
    // SAFETY: numbers only.
    let done = unsafe { raw!(shutdown, d.fd, how) };
    let how = match how {
        libc::SHUT_RD => How::Read,
        libc::SHUT_WR => How::Write,
        libc::SHUT_RDWR => How::Both,
        _ => return done,
    };
    d.ask(|guard| guard.shutdown_datagram(d.id, how))?;
    done
}

/// getsockopt(): the shadow's, but an error may wait in the engine.
///
/// # Safety
/// `value` and `len` are the application's.
pub(crate) unsafe fn read_option(
    d: &Datagram,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<isize> {
    if (level, name) == (SOL_SOCKET, libc::SO_ERROR) {
        let error = d.with(|guard, now| {
            guard.poll(now);
            guard.take_error(d.id).map_err(number)
        })?;
        if error.is_set() {
            // SAFETY: the application's pointers.
            return unsafe { options::give(&number(error), value, len) };
        }
    }
    // SAFETY: the application's pointers; the kernel checks them.
    unsafe { raw!(getsockopt, d.fd, level, name, value, len) }
}

/// setsockopt(): the shadow's; then the engine follows.
///
/// # Safety
/// `value` is the application's.
pub(crate) unsafe fn write_option(
    d: &Datagram,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<isize> {
    let class = datagram_class(level, name);
    if class == DatagramClass::Receiving {
        // SAFETY: the application's pointer; the kernel checks it.
        let changes = unsafe { own_socket::would_change(d.family(), libc::SOCK_DGRAM, level, name, value, len) }?;
        return if changes { Err(libc::ENOPROTOOPT) } else { Ok(0) };
    }
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(setsockopt, d.fd, level, name, value, len) }?;
    if (level, name) == (SOL_IPV6, libc::IPV6_MTU) {
        // SAFETY: the kernel has just read an int there.
        let mtu = unsafe { crate::memory::read::<c_int>(value.cast()) }?;
        d.local.ipv6_mtu.store(mtu.clamp(0, u16::MAX.into()) as u32, Relaxed);
    }
    if class == DatagramClass::Sending && own_socket::is_unusual(d.fd, level, name) {
        d.local.put(Flag::ByKernel, true);
    }
    if level == SOL_SOCKET {
        // SAFETY: the kernel has just read `len` bytes there.
        unsafe { options::note_timeout(d.local, name, value, len) };
    }
    if matches!(level, SOL_SOCKET | SOL_IP | SOL_IPV6 | SOL_UDP) {
        d.follow_options();
    }
    Ok(done)
}

// ---- several at once ----

/// How many messages recvmmsg and sendmmsg take at most (Linux: UIO_MAXIOV).
const MESSAGES_MAX: usize = 1024;

/// recvmmsg over any one-message call; `receive_one` gets the flags of its turn.
///
/// # Safety
/// `messages` is the application's.
pub(crate) unsafe fn receive_several(
    messages: *mut libc::mmsghdr,
    count: usize,
    flags: c_int,
    timeout: *mut libc::timespec,
    mut receive_one: impl FnMut(&mut msghdr, c_int) -> Result<isize>,
) -> Result<isize> {
    // SAFETY: the application's pointer.
    let timeout_us = unsafe { super::epoll::timespec_us(timeout) }?;
    let started = sidestep_stack::runtime::now();
    let wait_for_one = flags & libc::MSG_WAITFORONE != 0;
    let (mut flags, mut done) = (flags & !libc::MSG_WAITFORONE, 0);
    for i in 0..count.min(MESSAGES_MAX) {
        let message = messages.wrapping_add(i);
        // SAFETY: the caller's promise.
        let received = unsafe {
            message::read_header(&raw const (*message).msg_hdr).and_then(|mut header| {
                let n = receive_one(&mut header, flags)?;
                message::give_header(&header, &raw mut (*message).msg_hdr)?;
                crate::memory::write(&raw mut (*message).msg_len, n as u32)
            })
        };
        match received {
            Ok(()) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        done += 1;
        if wait_for_one {
            flags |= MSG_DONTWAIT;
        }
        if timeout_us.is_some_and(|us| sidestep_stack::runtime::now().since_us(started) >= us) {
            break;
        }
    }
    Ok(done)
}

/// sendmmsg over any one-message call: all leave together.
///
/// # Safety
/// `messages` is the application's.
pub(crate) unsafe fn transmit_several(
    messages: *mut libc::mmsghdr,
    count: usize,
    mut transmit_one: impl FnMut(&msghdr) -> Result<isize>,
) -> Result<isize> {
    let mut done = 0;
    for i in 0..count.min(MESSAGES_MAX) {
        let message = messages.wrapping_add(i);
        // SAFETY: the caller's promise.
        let sent = unsafe {
            message::read_header(&raw const (*message).msg_hdr)
                .and_then(|header| transmit_one(&header))
                .and_then(|n| crate::memory::write(&raw mut (*message).msg_len, n as u32))
        };
        match sent {
            Ok(()) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        done += 1;
    }
    Ok(done)
}
