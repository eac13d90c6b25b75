//! Data: read and write in all their forms.

use crate::blocking::{Wait, block};
use crate::calls::{datagram, stream_message};
use crate::datagrams::{self, Datagram};
use crate::fd_table::{Kind, TABLE};
use crate::holder::Holder;
use crate::local::Flag;
use crate::notices;
use crate::sys::{self, Result, raw};
use crate::unbound;
use crate::user::{Stream, check_address, endpoint_from, give_address, number};
use crate::{kick, memory, message, rights};
use libc::{EAGAIN, EFAULT, EINVAL, EPIPE, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK};
use libc::{MSG_TRUNC, MSG_WAITALL, c_int, c_uint, c_void, iovec, mmsghdr, msghdr, sockaddr, socklen_t, timespec};
use sidestep_stack::runtime::Guard;
use sidestep_stack::socket::SocketOption;
use sidestep_stack::time::Instant;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Linux's UIO_MAXIOV.
const IOV_MAX: usize = 1024;
/// Linux's MAX_RW_COUNT.
pub(super) const COUNT_MAX: usize = 0x7fff_f000;

/// The longest socket address.
const NAME_MAX: socklen_t = size_of::<libc::sockaddr_storage>() as socklen_t;
/// A send of no more is probed without asking for how much there is room.
const FEW: usize = 4096;

#[inline]
pub(super) fn stream_of(fd: c_int) -> Option<Stream> {
    let entry = TABLE.lookup(fd);
    if entry.is_kernel() { None } else { Stream::of(entry) }
}

/// Who serves a call on a descriptor.
enum Server {
    Kernel,
    Stream(Stream),
    Datagram(Datagram),
}

/// For a call that receives: that is an interest.
#[inline]
fn receiver_of(fd: c_int, flags: c_int) -> Result<Server> {
    let entry = TABLE.lookup(fd);
    Ok(match entry.kind() {
        Kind::Kernel => Server::Kernel,
        Kind::Datagram => Datagram::of(fd, entry).map_or(Server::Kernel, Server::Datagram),
        Kind::FreshDatagram => match datagrams::receiver(fd, entry) {
            Some(datagram) => Server::Datagram(datagram),
            None => unbound::receiver(fd, entry, flags)?.map_or(Server::Kernel, Server::Datagram),
        },
        _ => Stream::of(entry).map_or(Server::Kernel, Server::Stream),
    })
}

/// For a call that sends, perhaps to an address.
#[inline]
fn sender_of(fd: c_int, to: Option<(*const sockaddr, socklen_t)>) -> Server {
    let entry = TABLE.lookup(fd);
    match entry.kind() {
        Kind::Kernel => Server::Kernel,
        Kind::Datagram => Datagram::of(fd, entry).map_or(Server::Kernel, Server::Datagram),
        Kind::FreshDatagram => {
            // SAFETY: the application's address.
            let to = to.and_then(|(addr, len)| unsafe { endpoint_from(addr, len) });
            datagrams::sender(fd, entry, to).map_or(Server::Kernel, Server::Datagram)
        }
        _ => Stream::of(entry).map_or(Server::Kernel, Server::Stream),
    }
}

// ---- receiving ----

pub(crate) unsafe fn read(fd: c_int, buf: *mut c_void, count: usize) -> Result<isize> {
    let mut iov = [iovec { iov_base: buf, iov_len: count }];
    match receiver_of(fd, if count == 0 { MSG_DONTWAIT } else { 0 })? {
        // SAFETY: the application's buffer; the kernel checks it.
        Server::Kernel => unsafe { raw!(read, fd, buf, count) },
        _ if count == 0 => memory::check_buffers(&iov).map(|()| 0),
        _ if is_beyond_memory(count) => Err(EFAULT),
        Server::Stream(stream) => {
            memory::check_buffers(&iov)?;
            // SAFETY: the application's buffer.
            unsafe { receive(&stream, &iov, 0) }
        }
        // SAFETY: as above.
        Server::Datagram(d) => unsafe {
            datagram::receive(&d, &mut datagram::header(&mut iov, core::ptr::null_mut(), 0), 0)
        },
    }
}

pub(crate) unsafe fn read_chk(fd: c_int, buf: *mut c_void, count: usize, size: usize) -> Result<isize> {
    check(count, size);
    // SAFETY: the same contract.
    unsafe { read(fd, buf, count) }
}

pub(crate) unsafe fn readv(fd: c_int, iov: *const iovec, count: c_int) -> Result<isize> {
    let server = receiver_of(fd, 0)?;
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(readv, fd, iov, count) };
    }
    // SAFETY: the application's array.
    let buffers = unsafe { iovecs(iov, count as usize) }?;
    if is_empty(buffers) {
        return Ok(0);
    }
    match server {
        // SAFETY: the application's buffers.
        Server::Stream(stream) => unsafe { receive(&stream, buffers, 0) },
        Server::Datagram(d) => {
            let mut header = datagram::header(&mut [], core::ptr::null_mut(), 0);
            (header.msg_iov, header.msg_iovlen) = (iov.cast_mut(), buffers.len() as _);
            // SAFETY: as above.
            unsafe { datagram::receive(&d, &mut header, 0) }
        }
        Server::Kernel => Ok(0),
    }
}

pub(crate) unsafe fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { recvfrom(fd, buf, len, flags, core::ptr::null_mut(), core::ptr::null_mut()) }
}

pub(crate) unsafe fn recv_chk(fd: c_int, buf: *mut c_void, len: usize, size: usize, flags: c_int) -> Result<isize> {
    check(len, size);
    // SAFETY: the same contract.
    unsafe { recv(fd, buf, len, flags) }
}

pub(crate) unsafe fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> Result<isize> {
    let mut iov = [iovec { iov_base: buf, iov_len: len.min(COUNT_MAX) }];
    let stream = match receiver_of(fd, flags)? {
        // SAFETY: the application's memory; the kernel checks it.
        Server::Kernel => return unsafe { raw!(recvfrom, fd, buf, len, flags, addr, addr_len) },
        // SAFETY: the application's memory.
        Server::Datagram(d) => return unsafe { receive_datagram_from(&d, &mut iov, flags, addr, addr_len) },
        Server::Stream(stream) => stream,
    };
    memory::check_buffers(&iov)?;
    // SAFETY: the application's buffer.
    let n = unsafe { receive(&stream, &iov, flags) }?;
    if !addr.is_null() {
        // A stream names no sender. SAFETY: the application's pointers.
        unsafe { give_address(&[], addr, addr_len) }?;
    }
    Ok(n)
}

pub(crate) unsafe fn recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    size: usize,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> Result<isize> {
    check(len, size);
    // SAFETY: the same contract.
    unsafe { recvfrom(fd, buf, len, flags, addr, addr_len) }
}

pub(crate) unsafe fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> Result<isize> {
    let server = receiver_of(fd, flags)?;
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe {
            let has_room = rights::has_control(msg);
            let n = raw!(recvmsg, fd, msg, flags)?;
            if has_room {
                rights::take(msg);
            }
            Ok(n)
        };
    }
    // SAFETY: the application's header, and what it names.
    unsafe {
        let mut header = message::read_header(msg)?;
        let n = receive_message(&server, &mut header, flags)?;
        message::give_header(&header, msg)?;
        Ok(n)
    }
}

/// # Safety
/// The header and what it names are the application's.
unsafe fn receive_message(server: &Server, header: &mut msghdr, flags: c_int) -> Result<isize> {
    let stream = match server {
        Server::Stream(stream) => stream,
        // SAFETY: the caller's promise.
        Server::Datagram(d) => return unsafe { datagram::receive(d, header, flags) },
        Server::Kernel => return Err(EINVAL),
    };
    // SAFETY: the application's array.
    let iov = unsafe { buffers_of(header) }?;
    if flags & MSG_ERRQUEUE != 0 {
        // SAFETY: the caller's promise.
        return unsafe { notices::receive(stream, header, flags) };
    }
    let mut came = None;
    // SAFETY: the application's buffers.
    let n = unsafe { receive_noting(stream, iov, flags, stream_message::wants_stamps(stream).then_some(&mut came)) }?;
    header.msg_flags = if flags & MSG_OOB == 0 { 0 } else { MSG_OOB | if n == 0 { MSG_TRUNC } else { 0 } };
    // SAFETY: the caller's promise.
    unsafe { stream_message::describe(stream, header, came, flags) };
    Ok(n)
}

pub(crate) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<isize> {
    let server = receiver_of(fd, flags)?;
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(recvmmsg, fd, messages, count, flags, timeout) };
    }
    // SAFETY: the application's array, and what its headers name.
    unsafe {
        datagram::receive_several(messages, count as usize, flags, timeout, |header, flags| {
            receive_message(&server, header, flags)
        })
    }
}

/// recvfrom on a datagram socket: the address is cut to its room, its full length told.
///
/// # Safety
/// The pointers are the application's.
unsafe fn receive_datagram_from(
    d: &Datagram,
    iov: &mut [iovec],
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> Result<isize> {
    if addr.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { datagram::receive(d, &mut datagram::header(iov, addr, 0), flags) };
    }
    let mut name = [0u64; 16];
    let mut header = datagram::header(iov, name.as_mut_ptr().cast(), size_of_val(&name) as socklen_t);
    // SAFETY: the caller's promise; the name is ours.
    unsafe {
        let n = datagram::receive(d, &mut header, flags)?;
        let len = (header.msg_namelen as usize).min(size_of_val(&name));
        give_address(core::slice::from_raw_parts(name.as_ptr().cast(), len), addr, addr_len)?;
        Ok(n)
    }
}

/// glibc's fortified forms: a count beyond the buffer's size ends the program.
pub(super) fn check(count: usize, size: usize) {
    if count > size {
        sys::write_stderr(b"*** buffer overflow detected ***: terminated\n");
        // SAFETY: ends the process, as glibc's __chk_fail does.
        unsafe { libc::abort() };
    }
}

/// A length that no buffer has. The kernel does not even look behind it.
fn is_beyond_memory(count: usize) -> bool {
    count > isize::MAX as usize
}

/// The application's buffers.
///
/// # Safety
/// `iov` is the application's.
pub(crate) unsafe fn iovecs<'a>(iov: *const iovec, count: usize) -> Result<&'a [iovec]> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    if count == 0 {
        return Ok(&[]);
    }
    memory::probe_read(iov.cast(), count * size_of::<iovec>())?;
    // SAFETY: so many records are readable.
    let buffers = unsafe { core::slice::from_raw_parts(iov, count) };
    memory::check_buffers(buffers)?;
    Ok(buffers)
}

/// The buffers of a message. Too many of them have an error of their own.
///
/// # Safety
/// What the header names is the application's.
pub(super) unsafe fn buffers_of<'a>(header: &msghdr) -> Result<&'a [iovec]> {
    if header.msg_iovlen > IOV_MAX {
        return Err(libc::EMSGSIZE);
    }
    // SAFETY: the caller's promise.
    unsafe { iovecs(header.msg_iov, header.msg_iovlen) }
}

fn is_empty(buffers: &[iovec]) -> bool {
    buffers.iter().all(|v| v.iov_len == 0)
}

/// How many bytes a call may move at most.
fn total(iov: &[iovec]) -> usize {
    message::total(iov).min(COUNT_MAX)
}

/// recv in all its forms.
///
/// # Safety
/// The buffers are the application's, and [checked](memory::check_buffers).
unsafe fn receive(stream: &Stream, iov: &[iovec], flags: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { receive_noting(stream, iov, flags, None) }
}

/// As [`receive`]; and notes when the last of the octets came, if that is wanted.
///
/// # Safety
/// The buffers are writable.
unsafe fn receive_noting(
    stream: &Stream,
    iov: &[iovec],
    flags: c_int,
    mut came: Option<&mut Option<Instant>>,
) -> Result<isize> {
    if flags & MSG_ERRQUEUE != 0 {
        return notices::take(stream).map(|_| 0);
    }
    if flags & MSG_OOB != 0 {
        // SAFETY: the same contract.
        return unsafe { receive_urgent(stream, iov, flags) };
    }
    let got = Cell::new(0usize);
    let (wanted, peek) = (total(iov), flags & MSG_PEEK != 0);
    let mut step = |guard: &mut Guard<'_>, now: Instant| {
        // With some bytes in hand an error, or the end, is the next call's to find.
        let have = got.get();
        if have > 0 && !peek && guard.available(stream.id) == Ok(0) {
            return if guard.stops_at(stream.id, 0) == Ok(false) { Err(EAGAIN) } else { Ok(have) };
        }
        let from = if peek { 0 } else { have };
        if let Some(came) = &mut came {
            **came = guard.arrival(now, stream.id, (wanted - have).min(COUNT_MAX) as u32).ok().flatten().or(**came);
        }
        // SAFETY: the caller's promise.
        match unsafe { receive_step(stream, guard, now, iov, from, flags) }? {
            0 => Ok(have),
            n => {
                let have = from + n;
                got.set(have);
                let ahead = if peek { have as u32 } else { 0 };
                let all = flags & MSG_WAITALL != 0;
                let goes_on = have < wanted && (all || guard.receive_lowat(stream.id).is_ok_and(|least| have < least));
                if goes_on && guard.stops_at(stream.id, ahead) == Ok(false) { Err(EAGAIN) } else { Ok(have) }
            }
        }
    };
    let result = match stream.with_errno(&mut step) {
        Err(EAGAIN) => look_again_or_wait(stream, flags, &stream.local.receive_timeout_us, &got, &mut step),
        // After SHUT_RD what comes can be read all the same, and some may have come.
        Ok(0) if wanted > 0 && stream.stack.has_received() => poll_and(stream, &mut step),
        result => result,
    };
    match result {
        Err(_) if got.get() > 0 => Ok(got.get() as isize),
        result => result.map(|n| n as isize),
    }
}

/// recv with MSG_OOB: one octet, at once or not at all.
///
/// # Safety
/// The buffers are writable.
unsafe fn receive_urgent(stream: &Stream, iov: &[iovec], flags: c_int) -> Result<isize> {
    let octet = stream.with(|guard, now| {
        guard.poll(now);
        guard.recv_urgent(stream.id, flags & MSG_PEEK != 0)
    })?;
    let (Some(octet), Some(room)) = (octet, iov.iter().find(|v| v.iov_len > 0)) else { return Ok(0) };
    if flags & MSG_TRUNC == 0 {
        // SAFETY: the application's buffer; there is room for one.
        unsafe { memory::write(room.iov_base.cast::<u8>(), octet) }?;
    }
    Ok(1)
}

/// A call found nothing to do. A nonblocking one has one more look, at what the rings hold by now (data, or
/// acknowledgements that made room); a blocking one waits.
pub(super) fn look_again_or_wait(
    stream: &Stream,
    flags: c_int,
    timeout_us: &AtomicU64,
    done: &Cell<usize>,
    step: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<usize>,
) -> Result<usize> {
    if flags & MSG_DONTWAIT != 0 || stream.ask(|guard| guard.is_nonblocking(stream.id))? {
        if !stream.stack.has_received() {
            return Err(EAGAIN);
        }
        return poll_and(stream, step);
    }
    let wait = Wait { timeout_us: timeout_us.load(Relaxed), holder: Holder::Stream(*stream), done: Some(done) };
    block(stream.stack, stream.id, wait, step)
}

/// A step, after what the rings hold.
fn poll_and(stream: &Stream, step: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<usize>) -> Result<usize> {
    stream.with_errno(|guard, now| {
        guard.poll(now);
        step(guard, now)
    })
}

/// Fills the buffers from byte `from` on with what is there; 0 is end of file, or that nothing is asked for.
///
/// # Safety
/// The buffers are writable.
unsafe fn receive_step(
    stream: &Stream,
    guard: &mut Guard<'_>,
    now: Instant,
    iov: &[iovec],
    from: usize,
    flags: c_int,
) -> Result<usize> {
    let (id, peek) = (stream.id, flags & MSG_PEEK != 0);
    if flags & MSG_TRUNC == 0 {
        let arrived = guard.available(id).unwrap_or(0) as usize;
        if let [v] = iov {
            memory::probe_write(v.iov_base.cast::<u8>().wrapping_add(from), arrived.min(v.iov_len - from))?;
        } else {
            memory::probe_buffers(iov, from, arrived, memory::probe_write)?;
        }
    }
    if is_empty(iov) {
        // As in Linux it waits for something to be there, and leaves it there.
        return guard.recv(now, id, &mut [], true).map_err(number);
    }
    let (mut skip, mut total) = (from, 0usize);
    for v in iov {
        let (start, room) = (skip.min(v.iov_len), (v.iov_len - skip.min(v.iov_len)).min(COUNT_MAX));
        skip -= start;
        if room == 0 {
            continue;
        }
        if total > 0 && !peek && guard.available(id) == Ok(0) {
            break; // an error behind it is the next call's
        }
        let step = if flags & MSG_TRUNC == 0 {
            // SAFETY: the caller's promise; `start + room` is within the buffer.
            let out = unsafe { core::slice::from_raw_parts_mut(v.iov_base.cast::<u8>().add(start), room) };
            if peek { guard.peek(now, id, total, out) } else { guard.recv(now, id, out, false) }
        } else if peek {
            let there = guard.recv(now, id, &mut [], true).and_then(|_| guard.available(id));
            there.map(|there| room.min((there as usize).saturating_sub(total)))
        } else {
            guard.discard(now, id, room)
        };
        let n = step.map_err(number)?;
        total += n;
        // Nobody reads across the urgent mark.
        if n < room || guard.is_at_mark(id) == Ok(true) {
            break;
        }
    }
    Ok(total)
}

// ---- sending ----

pub(crate) unsafe fn write(fd: c_int, buf: *const c_void, count: usize) -> Result<isize> {
    let mut iov = [iovec { iov_base: buf.cast_mut(), iov_len: count }];
    match sender_of(fd, None) {
        // SAFETY: the application's buffer; the kernel checks it.
        Server::Kernel => unsafe { raw!(write, fd, buf, count) },
        _ if is_beyond_memory(count) => Err(EFAULT),
        Server::Stream(stream) => {
            memory::check_buffers(&iov)?;
            // SAFETY: the application's buffer.
            unsafe { transmit(&stream, &iov, 0) }
        }
        // SAFETY: as above.
        Server::Datagram(d) => unsafe {
            datagram::transmit(&d, &datagram::header(&mut iov, core::ptr::null_mut(), 0), 0)
        },
    }
}

pub(crate) unsafe fn writev(fd: c_int, iov: *const iovec, count: c_int) -> Result<isize> {
    match sender_of(fd, None) {
        // SAFETY: the application's memory; the kernel checks it.
        Server::Kernel => unsafe { raw!(writev, fd, iov, count) },
        // SAFETY: the application's array and buffers.
        Server::Stream(stream) => unsafe {
            let buffers = iovecs(iov, count as usize)?;
            if is_empty(buffers) { Ok(0) } else { transmit(&stream, buffers, 0) }
        },
        Server::Datagram(d) => {
            // SAFETY: as above.
            unsafe { iovecs(iov, count as usize) }?;
            let mut header = datagram::header(&mut [], core::ptr::null_mut(), 0);
            (header.msg_iov, header.msg_iovlen) = (iov.cast_mut(), count as u32 as _);
            // SAFETY: as above.
            unsafe { datagram::transmit(&d, &header, 0) }
        }
    }
}

pub(crate) unsafe fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { sendto(fd, buf, len, flags, core::ptr::null(), 0) }
}

pub(crate) unsafe fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> Result<isize> {
    let mut iov = [iovec { iov_base: buf.cast_mut(), iov_len: len.min(COUNT_MAX) }];
    match sender_of(fd, Some((addr, addr_len))) {
        Server::Kernel if flags & libc::MSG_FASTOPEN != 0 => {
            // SAFETY: the application's memory.
            let early = unsafe { super::fast_open::send(fd, &iov, flags, addr, addr_len) };
            early.unwrap_or_else(|| {
                // SAFETY: as above; the kernel checks it.
                super::fast_open::leave_to_kernel(fd, unsafe { raw!(sendto, fd, buf, len, flags, addr, addr_len) })
            })
        }
        // SAFETY: the application's memory; the kernel checks it.
        Server::Kernel => unsafe { raw!(sendto, fd, buf, len, flags, addr, addr_len) },
        // A length that no address has: sendmsg, by which others come to the kernel, would see it otherwise.
        Server::Datagram(_) if !addr.is_null() && !(1..=NAME_MAX).contains(&addr_len) => {
            // SAFETY: as above.
            unsafe { raw!(sendto, fd, buf, len, flags, addr, addr_len) }
        }
        Server::Stream(stream) => {
            if !addr.is_null() {
                check_address(addr, addr_len)?;
            }
            memory::check_buffers(&iov)?;
            // A connected stream ignores the address. SAFETY: the application's buffer.
            unsafe { transmit(&stream, &iov, flags) }
        }
        // SAFETY: as above.
        Server::Datagram(d) => unsafe {
            datagram::transmit(&d, &datagram::header(&mut iov, addr.cast_mut(), addr_len), flags)
        },
    }
}

pub(crate) unsafe fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> Result<isize> {
    if TABLE.lookup(fd).is_kernel() {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe {
            rights::before_send(msg)?;
            raw!(sendmsg, fd, msg, flags)
        };
    }
    // SAFETY: the application's header.
    let header = unsafe { message::read_header(msg) };
    let server = sender_of(fd, header.ok().as_ref().map(name_of));
    if let Server::Kernel = server {
        // SAFETY: the application's memory.
        if let Some(result) = header.ok().and_then(|header| unsafe { sendmsg_fast(fd, &header, flags) }) {
            return result;
        }
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(sendmsg, fd, msg, flags) };
    }
    // SAFETY: the application's header, and what it names.
    unsafe { transmit_message(&server, &header?, flags) }
}

fn name_of(header: &msghdr) -> (*const sockaddr, socklen_t) {
    (header.msg_name.cast::<sockaddr>().cast_const(), header.msg_namelen)
}

pub(crate) unsafe fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> Result<isize> {
    if TABLE.lookup(fd).is_kernel() {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(sendmmsg, fd, messages, count, flags) };
    }
    // SAFETY: the application's first header.
    let first = (count > 0).then(|| unsafe { message::read_header(messages.cast()) }.ok()).flatten();
    let server = sender_of(fd, first.as_ref().map(name_of));
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(sendmmsg, fd, messages, count, flags) };
    }
    let batch = kick::Together::begin();
    // SAFETY: the application's array, and what its headers name.
    let sent = unsafe {
        datagram::transmit_several(messages, count as usize, |header| transmit_message(&server, header, flags))
    };
    batch.end();
    sent
}

/// # Safety
/// The header and what it names are the application's.
unsafe fn transmit_message(server: &Server, header: &msghdr, flags: c_int) -> Result<isize> {
    let stream = match server {
        Server::Stream(stream) => stream,
        // SAFETY: the caller's promise.
        Server::Datagram(d) => return unsafe { datagram::transmit(d, header, flags) },
        Server::Kernel => return Err(EINVAL),
    };
    if !header.msg_name.is_null() {
        check_address(header.msg_name.cast(), header.msg_namelen.min(128))?;
    }
    if header.msg_controllen != 0 {
        // SAFETY: the caller's promise.
        unsafe { stream_message::check_control(header) }?;
    }
    // SAFETY: the application's array and buffers.
    unsafe { transmit(stream, buffers_of(header)?, flags) }
}

/// sendmsg() with MSG_FASTOPEN on a socket that has not connected; `None`: it is no such thing, or not ours.
///
/// # Safety
/// What the header names is the application's.
unsafe fn sendmsg_fast(fd: c_int, header: &msghdr, flags: c_int) -> Option<Result<isize>> {
    if flags & libc::MSG_FASTOPEN == 0 {
        return None;
    }
    // SAFETY: the application's array.
    let iov = unsafe { iovecs(header.msg_iov, header.msg_iovlen) }.ok()?;
    // SAFETY: the application's buffers and address.
    unsafe { super::fast_open::send(fd, iov, flags, header.msg_name.cast(), header.msg_namelen) }
}

/// send in all its forms.
///
/// # Safety
/// The buffers are the application's, and [checked](memory::check_buffers); or ours.
pub(super) unsafe fn transmit(stream: &Stream, iov: &[iovec], flags: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { transmit_from(stream, iov, flags, 0) }
}

/// As [`transmit`], when the first `sent` bytes have gone.
///
/// # Safety
/// The buffers are readable.
pub(super) unsafe fn transmit_from(stream: &Stream, iov: &[iovec], flags: c_int, sent: usize) -> Result<isize> {
    if flags & libc::MSG_FASTOPEN != 0 {
        return Err(libc::EISCONN);
    }
    let wanted = total(iov);
    let sent = Cell::new(sent);
    let mut step = |guard: &mut Guard<'_>, now: Instant| {
        // With some bytes taken an error is the next call's to find.
        if sent.get() > 0 && guard.takes_data(stream.id) == Ok(false) {
            return Ok(sent.get());
        }
        note_more(stream, guard, now, flags & MSG_MORE != 0);
        // SAFETY: the caller's promise.
        match unsafe { transmit_step(stream, guard, now, iov, sent.get(), flags) } {
            Ok(n) => {
                sent.set(sent.get() + n);
                if sent.get() < wanted { Err(EAGAIN) } else { Ok(sent.get()) }
            }
            Err(e) => Err(e),
        }
    };
    let result = match stream.with_errno(step) {
        Err(EAGAIN) => look_again_or_wait(stream, flags, &stream.local.send_timeout_us, &sent, &mut step),
        result => result,
    };
    if flags & libc::MSG_ZEROCOPY != 0 && sent.get() > 0 {
        notices::add(stream);
    }
    match result {
        Ok(n) => Ok(n as isize),
        Err(_) if sent.get() > 0 => Ok(sent.get() as isize),
        Err(EPIPE) => {
            if flags & MSG_NOSIGNAL == 0 {
                sys::raise_sigpipe();
            }
            Err(EPIPE)
        }
        Err(e) => Err(e),
    }
}

/// MSG_MORE corks the connection until the next send that does not say it.
pub(super) fn note_more(stream: &Stream, guard: &mut Guard<'_>, now: Instant, more: bool) {
    if more != stream.local.has(Flag::More) {
        stream.local.put(Flag::More, more);
        let _ = guard.set_option(now, stream.id, SocketOption::Cork, i32::from(more));
    }
}

/// Copies the buffers from byte `from` on into the send queue, as far as there is room.
///
/// # Safety
/// The buffers are readable.
unsafe fn transmit_step(
    stream: &Stream,
    guard: &mut Guard<'_>,
    now: Instant,
    iov: &[iovec],
    from: usize,
    flags: c_int,
) -> Result<usize> {
    let (mut skip, mut total) = (from, 0usize);
    let good = sendable_bytes(stream, guard, now, iov, from)?;
    for v in iov {
        let start = skip.min(v.iov_len);
        let len = (v.iov_len - start).min(good - total);
        skip -= start;
        if len == 0 && (total > 0 || !is_empty(iov)) {
            continue;
        }
        let data = if len == 0 {
            &[]
        } else {
            // SAFETY: the caller's promise; `start + len` is within the buffer.
            unsafe { core::slice::from_raw_parts(v.iov_base.cast::<u8>().add(start), len) }
        };
        let step = match flags & MSG_OOB {
            0 => guard.send(now, stream.id, data),
            _ => guard.send_urgent(now, stream.id, data),
        };
        match step {
            Ok(n) => {
                total += n;
                if n < len {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(e) => return Err(number(e)),
        }
    }
    Ok(total)
}

/// How much of the buffers, from byte `from` on, this step may send: what can be read of it. What is wrong with the
/// connection comes before what is wrong with a pointer, and so does a wait for room.
fn sendable_bytes(stream: &Stream, guard: &mut Guard<'_>, now: Instant, iov: &[iovec], from: usize) -> Result<usize> {
    if let [v] = iov
        && v.iov_len <= FEW
        && memory::probe_read(v.iov_base.cast::<u8>().wrapping_add(from), v.iov_len - from).is_ok()
    {
        return Ok(v.iov_len - from);
    }
    let wanted = total(iov).saturating_sub(from);
    let room = |guard: &mut Guard<'_>| guard.send_room(stream.id).map_or(0, |n| n as usize);
    let taken = if wanted <= FEW { wanted } else { wanted.min(room(guard).max(FEW)) };
    match memory::readable_bytes(iov, from, taken) {
        Ok(good) => Ok(if good < taken { good } else { wanted }),
        Err(error) => {
            guard.send(now, stream.id, &[]).map_err(number)?;
            Err(if room(guard) == 0 { EAGAIN } else { error })
        }
    }
}
