//! Data: read and write in all their forms, and sendfile.

use crate::blocking::{Wait, block};
use crate::calls::datagram;
use crate::datagrams::{self, Datagram};
use crate::fd_table::{Kind, TABLE};
use crate::kick;
use crate::local::Flag;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, endpoint_from, number};
use libc::{EAGAIN, EINVAL, EPIPE, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK};
use libc::{MSG_TRUNC, MSG_WAITALL, c_int, c_uint, c_void, iovec, mmsghdr, msghdr, sockaddr, socklen_t, timespec};
use sidestep_stack::runtime::Guard;
use sidestep_stack::socket::SocketOption;
use sidestep_stack::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Linux's UIO_MAXIOV.
const IOV_MAX: usize = 1024;
/// Linux's MAX_RW_COUNT.
const COUNT_MAX: usize = 0x7fff_f000;
/// sendfile copies through a buffer of this size on the stack.
const BOUNCE: usize = 16 * 1024;

#[inline]
fn stream_of(fd: c_int) -> Option<Stream> {
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
fn receiver_of(fd: c_int) -> Server {
    let entry = TABLE.lookup(fd);
    match entry.kind() {
        Kind::Kernel => Server::Kernel,
        Kind::Datagram | Kind::FreshDatagram => datagrams::receiver(fd, entry).map_or(Server::Kernel, Server::Datagram),
        _ => Stream::of(entry).map_or(Server::Kernel, Server::Stream),
    }
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
    match receiver_of(fd) {
        // SAFETY: the application's buffer; the kernel checks it.
        Server::Kernel => unsafe { raw!(read, fd, buf, count) },
        _ if count == 0 => Ok(0),
        // SAFETY: the application's buffer.
        Server::Stream(stream) => unsafe { receive(&stream, &iov, 0) },
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
    let server = receiver_of(fd);
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(readv, fd, iov, count) };
    }
    // SAFETY: the application's array.
    let buffers = unsafe { iovecs(iov, count as usize) }?;
    if buffers.iter().all(|v| v.iov_len == 0) {
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
    let mut iov = [iovec { iov_base: buf, iov_len: len }];
    let stream = match receiver_of(fd) {
        // SAFETY: the application's memory; the kernel checks it.
        Server::Kernel => return unsafe { raw!(recvfrom, fd, buf, len, flags, addr, addr_len) },
        // SAFETY: the application's memory.
        Server::Datagram(d) => return unsafe { receive_datagram_from(&d, &mut iov, flags, addr, addr_len) },
        Server::Stream(stream) => stream,
    };
    // SAFETY: the application's buffer.
    let n = unsafe { receive(&stream, &iov, flags) }?;
    if !addr.is_null() && !addr_len.is_null() {
        // A stream names no sender. SAFETY: the application's pointer.
        unsafe { addr_len.write_unaligned(0) };
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
    let server = receiver_of(fd);
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(recvmsg, fd, msg, flags) };
    }
    if msg.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the application's header, and what it names.
    unsafe { receive_message(&server, &mut *msg, flags) }
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
    let iov = unsafe { iovecs(header.msg_iov, header.msg_iovlen) }?;
    // SAFETY: the application's buffers.
    let n = unsafe { receive(stream, iov, flags) }?;
    let oob = if flags & MSG_OOB == 0 { 0 } else { MSG_OOB | if n == 0 { MSG_TRUNC } else { 0 } };
    (header.msg_namelen, header.msg_controllen, header.msg_flags) = (0, 0, oob);
    Ok(n)
}

pub(crate) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<isize> {
    let server = receiver_of(fd);
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(recvmmsg, fd, messages, count, flags, timeout) };
    }
    if messages.is_null() {
        return Err(libc::EFAULT);
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
    if !addr.is_null() && addr_len.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller's promise.
    let room = if addr.is_null() { 0 } else { unsafe { addr_len.read_unaligned() } };
    if (room as c_int) < 0 {
        return Err(EINVAL);
    }
    let mut header = datagram::header(iov, addr, room);
    // SAFETY: the caller's promise.
    let n = unsafe { datagram::receive(d, &mut header, flags) }?;
    if !addr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { addr_len.write_unaligned(header.msg_namelen) };
    }
    Ok(n)
}

/// glibc's fortified forms: a count beyond the buffer's size ends the program.
fn check(count: usize, size: usize) {
    if count > size {
        sys::write_stderr(b"*** buffer overflow detected ***: terminated\n");
        // SAFETY: ends the process, as glibc's __chk_fail does.
        unsafe { libc::abort() };
    }
}

/// # Safety
/// `iov` is null or readable for `count` records.
pub(crate) unsafe fn iovecs<'a>(iov: *const iovec, count: usize) -> Result<&'a [iovec]> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    if count == 0 {
        return Ok(&[]);
    }
    if iov.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(iov, count) })
}

/// recv in all its forms.
///
/// # Safety
/// The buffers are writable.
unsafe fn receive(stream: &Stream, iov: &[iovec], flags: c_int) -> Result<isize> {
    if flags & MSG_ERRQUEUE != 0 {
        return Err(EAGAIN); // our error queue is always empty
    }
    if flags & MSG_OOB != 0 {
        // SAFETY: the same contract.
        return unsafe { receive_urgent(stream, iov, flags) };
    }
    let mut got = 0usize;
    let wanted: usize = iov.iter().map(|v| v.iov_len).fold(0, usize::saturating_add);
    if wanted == 0 {
        return Ok(0);
    }
    let all = flags & MSG_WAITALL != 0 && flags & MSG_PEEK == 0;
    let mut step = |guard: &mut Guard<'_>, now: Instant| {
        // SAFETY: the caller's promise.
        match unsafe { receive_step(stream, guard, now, iov, got, flags) } {
            Ok(0) => Ok(got),
            Ok(n) => {
                got += n;
                // Whoever waits for all of it hears of the urgent mark all the same.
                let goes_on = all && got < wanted && guard.is_at_mark(stream.id) != Ok(true);
                if goes_on { Err(EAGAIN) } else { Ok(got) }
            }
            Err(EAGAIN) => Err(EAGAIN),
            Err(_) if got > 0 => Ok(got),
            Err(e) => Err(e),
        }
    };
    let result = match stream.with_errno(&mut step) {
        Err(EAGAIN) => look_again_or_wait(stream, flags, &stream.local.receive_timeout_us, &mut step),
        result => result,
    };
    match result {
        Err(_) if got > 0 => Ok(got as isize),
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
        // SAFETY: the caller's promise; there is room for one.
        unsafe { room.iov_base.cast::<u8>().write(octet) };
    }
    Ok(1)
}

/// A call found nothing to do. A nonblocking one has one more look, at what the rings hold by now (data, or
/// acknowledgements that made room); a blocking one waits.
fn look_again_or_wait(
    stream: &Stream,
    flags: c_int,
    timeout_us: &AtomicU64,
    step: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<usize>,
) -> Result<usize> {
    if flags & MSG_DONTWAIT != 0 || stream.ask(|guard| guard.is_nonblocking(stream.id))? {
        if !stream.stack.has_received() {
            return Err(EAGAIN);
        }
        return stream.with_errno(|guard, now| {
            guard.poll(now);
            step(guard, now)
        });
    }
    let wait = Wait { timeout_us: timeout_us.load(Relaxed), also: None };
    block(stream.stack, stream.id, wait, step)
}

/// Fills the buffers from byte `from` on with what is there; 0 is end of file.
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
    let peek = flags & MSG_PEEK != 0;
    let (mut skip, mut total) = (from, 0usize);
    for v in iov {
        let (start, room) = (skip.min(v.iov_len), v.iov_len - skip.min(v.iov_len));
        skip -= start;
        if room == 0 {
            continue;
        }
        let step = if flags & MSG_TRUNC != 0 && !peek {
            guard.discard(now, stream.id, room)
        } else {
            // SAFETY: the caller's promise; `start + room` is the buffer's length.
            let out =
                unsafe { core::slice::from_raw_parts_mut(v.iov_base.cast::<u8>().add(start), room.min(COUNT_MAX)) };
            guard.recv(now, stream.id, out, peek)
        };
        match step {
            Ok(n) => total += n,
            Err(_) if total > 0 => break,
            Err(e) => return Err(number(e)),
        }
        // A peek always starts at the first byte, so it fills one buffer only. And nobody reads across the urgent mark.
        if peek || matches!(step, Ok(n) if n < room) || guard.is_at_mark(stream.id) == Ok(true) {
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
        // SAFETY: the application's buffer.
        Server::Stream(stream) => unsafe { transmit(&stream, &iov, 0) },
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
        Server::Stream(stream) => unsafe { transmit(&stream, iovecs(iov, count as usize)?, 0) },
        Server::Datagram(d) => {
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
    let mut iov = [iovec { iov_base: buf.cast_mut(), iov_len: len }];
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
        // A connected stream ignores the address. SAFETY: the application's buffer.
        Server::Stream(stream) => unsafe { transmit(&stream, &iov, flags) },
        // SAFETY: as above.
        Server::Datagram(d) => unsafe {
            datagram::transmit(&d, &datagram::header(&mut iov, addr.cast_mut(), addr_len), flags)
        },
    }
}

pub(crate) unsafe fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> Result<isize> {
    // SAFETY: the application's header.
    let name =
        (!msg.is_null()).then(|| unsafe { ((*msg).msg_name.cast::<sockaddr>().cast_const(), (*msg).msg_namelen) });
    let server = sender_of(fd, name);
    if let Server::Kernel = server {
        // SAFETY: the application's memory.
        if let Some(result) = unsafe { sendmsg_fast(fd, msg, flags) } {
            return result;
        }
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(sendmsg, fd, msg, flags) };
    }
    if msg.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the application's header, and what it names.
    unsafe { transmit_message(&server, &*msg, flags) }
}

pub(crate) unsafe fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> Result<isize> {
    let name = (!messages.is_null() && count > 0).then(|| {
        // SAFETY: the application's first header.
        let header = unsafe { &(*messages).msg_hdr };
        (header.msg_name.cast::<sockaddr>().cast_const(), header.msg_namelen)
    });
    let server = sender_of(fd, name);
    if let Server::Kernel = server {
        // SAFETY: the application's memory; the kernel checks it.
        return unsafe { raw!(sendmmsg, fd, messages, count, flags) };
    }
    if messages.is_null() {
        return Err(libc::EFAULT);
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
    if header.msg_controllen >= size_of::<libc::cmsghdr>() && !header.msg_control.is_null() {
        return Err(EINVAL); // no control message means anything to our streams
    }
    // SAFETY: the application's array and buffers.
    unsafe { transmit(stream, iovecs(header.msg_iov, header.msg_iovlen)?, flags) }
}

/// sendmsg() with MSG_FASTOPEN on a socket that has not connected; `None`: it is no such thing, or not ours.
///
/// # Safety
/// `msg` is null or the application's.
unsafe fn sendmsg_fast(fd: c_int, msg: *const msghdr, flags: c_int) -> Option<Result<isize>> {
    if flags & libc::MSG_FASTOPEN == 0 || msg.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let header = unsafe { &*msg };
    // SAFETY: the application's array.
    let iov = unsafe { iovecs(header.msg_iov, header.msg_iovlen) }.ok()?;
    // SAFETY: the application's buffers and address.
    unsafe { super::fast_open::send(fd, iov, flags, header.msg_name.cast(), header.msg_namelen) }
}

/// send in all its forms.
///
/// # Safety
/// The buffers are readable.
unsafe fn transmit(stream: &Stream, iov: &[iovec], flags: c_int) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { transmit_from(stream, iov, flags, 0) }
}

/// As [`transmit`], when the first `sent` bytes have gone.
///
/// # Safety
/// The buffers are readable.
pub(super) unsafe fn transmit_from(stream: &Stream, iov: &[iovec], flags: c_int, mut sent: usize) -> Result<isize> {
    if flags & libc::MSG_FASTOPEN != 0 {
        return Err(libc::EISCONN);
    }
    let wanted = iov.iter().map(|v| v.iov_len).fold(0, usize::saturating_add).min(COUNT_MAX);
    let mut step = |guard: &mut Guard<'_>, now: Instant| {
        note_more(stream, guard, now, flags & MSG_MORE != 0);
        // SAFETY: the caller's promise.
        match unsafe { transmit_step(stream, guard, now, iov, sent, flags) } {
            Ok(n) => {
                sent += n;
                if sent < wanted { Err(EAGAIN) } else { Ok(sent) }
            }
            Err(e) => Err(e),
        }
    };
    let result = match stream.with_errno(&mut step) {
        Err(EAGAIN) => look_again_or_wait(stream, flags, &stream.local.send_timeout_us, &mut step),
        result => result,
    };
    match result {
        Ok(n) => Ok(n as isize),
        Err(_) if sent > 0 => Ok(sent as isize),
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
fn note_more(stream: &Stream, guard: &mut Guard<'_>, now: Instant, more: bool) {
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
    for v in iov {
        let start = skip.min(v.iov_len);
        let len = (v.iov_len - start).min(COUNT_MAX - total.min(COUNT_MAX));
        skip -= start;
        if len == 0 && iov.len() > 1 {
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

// ---- sendfile ----

pub(crate) unsafe fn sendfile(out: c_int, input: c_int, offset: *mut i64, count: usize) -> Result<isize> {
    let Some(stream) = stream_of(out) else {
        if stream_of(input).is_some() {
            return Err(EINVAL);
        }
        // SAFETY: the application's pointer; the kernel checks it.
        return unsafe { raw!(sendfile, out, input, offset, count) };
    };
    if stream_of(input).is_some() {
        return Err(EINVAL);
    }
    // SAFETY: the application's pointer.
    let from_file = || unsafe { offset.read_unaligned() };
    let start = if offset.is_null() { seek(input, 0, libc::SEEK_CUR).map_err(|_| EINVAL)? } else { from_file() };
    if start < 0 {
        return Err(EINVAL);
    }
    let sent = copy_file(&stream, input, start as u64, count.min(COUNT_MAX));
    let moved = start + sent.unwrap_or(0) as i64;
    if offset.is_null() {
        if sent.is_ok() {
            seek(input, moved, libc::SEEK_SET)?;
        }
    } else {
        // SAFETY: the application's pointer.
        unsafe { offset.write_unaligned(moved) };
    }
    sent
}

fn seek(fd: c_int, offset: i64, whence: c_int) -> Result<i64> {
    // SAFETY: numbers only.
    unsafe { raw!(lseek, fd, offset, whence) }.map(|at| at as i64)
}

/// Reads as much of the file as there is send room for, then sends that; so a file is rarely read twice.
fn copy_file(stream: &Stream, input: c_int, start: u64, count: usize) -> Result<isize> {
    let mut bounce = [core::mem::MaybeUninit::<u8>::uninit(); BOUNCE];
    let mut sent = 0usize;
    while sent < count {
        let room = stream.ask(|guard| guard.send_room(stream.id)).unwrap_or(0) as usize;
        let wanted = (count - sent).min(if room == 0 { BOUNCE } else { room.min(BOUNCE) });
        // SAFETY: `bounce` is writable for `wanted` bytes.
        let read = unsafe { raw!(pread64, input, bounce.as_mut_ptr(), wanted, start + sent as u64) };
        let n = match read {
            Ok(0) => break,
            Ok(n) => n as usize,
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        };
        // SAFETY: the first `n` bytes were just written.
        let chunk = [iovec { iov_base: bounce.as_mut_ptr().cast(), iov_len: n }];
        let more = if sent + n < count { MSG_MORE } else { 0 };
        // SAFETY: as above.
        match unsafe { transmit(stream, &chunk, more) } {
            Ok(done) => {
                sent += done as usize;
                if (done as usize) < n {
                    break;
                }
            }
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
    }
    uncork(stream);
    Ok(sent as isize)
}

/// The file may have ended before `count`: nothing waits for more then.
fn uncork(stream: &Stream) {
    if stream.local.has(Flag::More) {
        let _ = stream.with_errno(|guard, now| {
            note_more(stream, guard, now, false);
            Ok(())
        });
    }
}
