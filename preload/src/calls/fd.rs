//! Descriptors: close, dup, fcntl, ioctl.

use crate::blocking::{Wait, block};
use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::holder::{self, Holder};
use crate::local::Flag;
use crate::reason::Reason;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, take_in};
use crate::{attach, datagrams, epoll, hidden, interest, listeners, memory, own_socket, owner, stdio};
use libc::{EINVAL, O_ASYNC, O_NONBLOCK, c_int, c_uint, c_ulong};

/// Linux's numbers of the ioctls that TCP answers; SIOCINQ and SIOCOUTQ are FIONREAD and TIOCOUTQ.
const SIOCATMARK: c_ulong = 0x8905;
const SIOCOUTQNSD: c_ulong = 0x894b;
const FIOASYNC: c_ulong = 0x5452;
const FIOSETOWN: c_ulong = 0x8901;
const SIOCSPGRP: c_ulong = 0x8902;
/// What F_SETFL sets besides O_NONBLOCK and O_ASYNC: it is kept, and means nothing to a socket.
const KEPT_FLAGS: c_int = libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME | O_ASYNC;

/// Takes the entry of a number that is going away, or was reused behind our back, and gives its reference back.
pub(crate) fn drop_entry(fd: c_int) {
    let entry = TABLE.lookup(fd);
    if entry.is_empty() {
        return;
    }
    if entry.is_kernel() {
        TABLE.set(fd, Entry::KERNEL);
    } else if attach::is_own_process() {
        holder::lose_number(fd, entry);
        release(fd, TABLE.replace(fd, Entry::KERNEL));
        stdio::follow(fd);
    }
}

/// Gives back the reference that an entry was.
fn release(fd: c_int, entry: Entry) {
    match entry.kind() {
        Kind::Kernel | Kind::Fresh | Kind::FreshDatagram => {}
        Kind::Epoll => epoll::remove_descriptor(entry),
        Kind::Listener => {
            if let Some(listener) = listeners::of(entry) {
                listener.remove_descriptor();
            }
        }
        Kind::Stream => {
            if let Some(stream) = Stream::of(entry) {
                release_stream(&stream);
            }
        }
        Kind::Datagram => {
            if let Some(datagram) = Datagram::of(fd, entry).filter(|d| d.local.remove_descriptor()) {
                datagram.end();
            }
        }
    }
}

pub(crate) fn release_stream(stream: &Stream) {
    if !stream.local.remove_descriptor() {
        return;
    }
    let seconds = stream.with(|guard, now| {
        // Octets that nobody reads any more are answered with a RST: those in the receive rings as well.
        take_in(stream.stack, guard, now);
        // Other processes may hold it still; in our sets the descriptor is no more.
        let _ = guard.epoll_delete_all(stream.id, attach::process());
        let seconds = guard.begin_linger(now, stream.id, attach::process())?;
        if seconds == 0 {
            guard.release(now, stream.id, attach::process())?;
        }
        Ok(seconds)
    });
    if let Ok(seconds @ 1..) = seconds {
        linger(stream, seconds);
    }
    if stream.local.kept_by() != 0 {
        attach::ring_daemon();
    }
}

/// SO_LINGER with a time: waits until the peer has acknowledged our end, or the time is over, or a signal came.
#[cold]
fn linger(stream: &Stream, seconds: u16) {
    let wait = Wait { timeout_us: u64::from(seconds) * 1_000_000, holder: Holder::Closing(*stream), done: None };
    let _ = block(stream.stack, stream.id, wait, |guard, _| match guard.is_closing(stream.id) {
        Ok(true) => Err(libc::EAGAIN),
        _ => Ok(()),
    });
}

/// The end of a stream that has lingered.
pub(crate) fn end_linger(stream: &Stream) {
    let _ = stream.with(|guard, now| guard.release(now, stream.id, attach::process()));
}

/// A second descriptor for what an entry stands for.
fn share(entry: Entry) {
    match entry.kind() {
        Kind::Kernel | Kind::Fresh | Kind::FreshDatagram => {}
        Kind::Epoll => epoll::add_descriptor(entry),
        Kind::Listener => {
            if let Some(listener) = listeners::of(entry) {
                listener.add_descriptor();
            }
        }
        Kind::Stream => {
            if let Some(stream) = Stream::of(entry) {
                stream.local.add_descriptor();
            }
        }
        Kind::Datagram => {
            if let Some(local) = crate::local::of(entry.index()) {
                local.add_descriptor();
            }
        }
    }
}

/// What dup() makes another number of. A bound datagram socket becomes a user socket first: memcached's threads each wait
/// at a duplicate of one, and would else find theirs with the kernel while another's took the port to the stack.
fn before_duplicating(fd: c_int, entry: Entry) -> Entry {
    if entry.kind() != Kind::FreshDatagram || !attach::is_own_process() {
        return entry;
    }
    let _ = datagrams::receiver(fd, entry);
    TABLE.lookup(fd)
}

/// `new` is a duplicate of `fd`, whose entry was `old`. In a vfork child, which has descriptors of its own and our tables,
/// nothing is noted.
fn duplicated(fd: c_int, old: Entry, new: c_int) {
    if old.is_empty() && TABLE.lookup(new).is_empty() || !attach::is_own_process() {
        return;
    }
    let mut entry = old;
    if matches!(old.kind(), Kind::Fresh | Kind::FreshDatagram) {
        // One socket under two numbers, before it is known what becomes of it: the kernel keeps both.
        entry = Reason::Duplicated.entry();
        if TABLE.replace_if(fd, old, entry) {
            interest::forget(fd);
        }
    }
    share(entry);
    release(new, TABLE.replace(new, entry));
    stdio::follow(new);
}

pub(crate) unsafe fn close(fd: c_int) -> Result<isize> {
    hidden::refuse(fd)?;
    if TABLE.lookup(fd).kind() == Kind::Stream && attach::is_own_process() {
        // The number is free before it lingers, as in the kernel.
        let entry = TABLE.replace(fd, Entry::KERNEL);
        stdio::follow(fd);
        let closed = sys::close(fd);
        release(fd, entry);
        return closed;
    }
    drop_entry(fd);
    sys::close(fd)
}

pub(crate) unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> Result<isize> {
    let known = (libc::CLOSE_RANGE_CLOEXEC | libc::CLOSE_RANGE_UNSHARE) as c_int;
    if flags & !known != 0 || first > last {
        return Err(EINVAL);
    }
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0 && attach::is_own_process() {
        let end = (last as usize).min(TABLE.len().saturating_sub(1));
        (first as usize..=end).filter(|_| TABLE.is_mapped()).for_each(|fd| drop_entry(fd as c_int));
    }
    let mut at = first;
    // Ours are close-on-exec already, so only the gaps between them are the application's to close.
    while let Some(ours) = hidden::lowest_in(at, last) {
        if ours > at {
            // SAFETY: numbers only.
            unsafe { raw!(close_range, at, ours - 1, flags) }?;
        }
        match ours.checked_add(1).filter(|next| *next <= last) {
            Some(next) => at = next,
            None => return Ok(0),
        }
    }
    // SAFETY: numbers only.
    unsafe { raw!(close_range, at, last, flags) }
}

pub(crate) unsafe fn closefrom(low: c_int) -> Result<isize> {
    // SAFETY: numbers only.
    unsafe { close_range(low.max(0) as c_uint, c_uint::MAX, 0) }
}

pub(crate) unsafe fn dup(fd: c_int) -> Result<isize> {
    hidden::refuse(fd)?;
    let entry = before_duplicating(fd, TABLE.lookup(fd));
    // SAFETY: a number only.
    let new = unsafe { raw!(dup, fd) }?;
    duplicated(fd, entry, new as c_int);
    Ok(new)
}

pub(crate) unsafe fn dup2(old: c_int, new: c_int) -> Result<isize> {
    if old == new {
        hidden::refuse(old)?;
        return sys::fcntl(old, libc::F_GETFD, 0).map(|_| new as isize);
    }
    // SAFETY: numbers only.
    unsafe { dup3(old, new, 0) }
}

pub(crate) unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> Result<isize> {
    if flags & !libc::O_CLOEXEC != 0 || old == new {
        return Err(EINVAL);
    }
    hidden::refuse(old)?;
    hidden::give_way(new, old)?;
    let from = TABLE.lookup(old);
    if attach::is_own_process() {
        holder::lose_number(new, TABLE.lookup(new));
    }
    // SAFETY: numbers only.
    let done = unsafe { raw!(dup3, old, new, flags) }?;
    duplicated(old, from, new);
    Ok(done)
}

pub(crate) unsafe fn fcntl(fd: c_int, command: c_int, arg: c_ulong) -> Result<isize> {
    hidden::refuse(fd)?;
    let entry = TABLE.lookup(fd);
    let forward = || {
        // SAFETY: the application's argument; the kernel checks it where it is a pointer.
        unsafe { raw!(fcntl, fd, command, arg) }
    };
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        let entry = before_duplicating(fd, entry);
        let new = forward()?;
        duplicated(fd, entry, new as c_int);
        return Ok(new);
    }
    if let Some(datagram) = Datagram::of(fd, entry).filter(|_| command == libc::F_SETFL) {
        let done = forward()?;
        owner::follow_flags(fd, entry, arg as c_int & O_ASYNC != 0)?;
        datagram.ask(|guard| guard.set_nonblocking(datagram.id, arg as c_int & O_NONBLOCK != 0))?;
        return Ok(done);
    }
    let Some(stream) = Stream::of(entry) else {
        let done = forward()?;
        if command == libc::F_SETFL {
            owner::follow_flags(fd, entry, arg as c_int & O_ASYNC != 0)?;
        } else if owner::is_about(command) {
            owner::follow_other(fd, entry)?;
        }
        return Ok(done);
    };
    match command {
        libc::F_GETFL => {
            let nonblocking = stream.ask(|guard| guard.is_nonblocking(stream.id))?;
            let kernel = forward()? as c_int & !O_NONBLOCK;
            Ok((kernel | if nonblocking { O_NONBLOCK } else { 0 }) as isize)
        }
        libc::F_SETFL => {
            if arg as c_int & KEPT_FLAGS != 0 || stream.local.has(Flag::Shadow) {
                own_socket::ensure(fd, &stream)?;
                forward()?;
                owner::follow_flags(fd, entry, arg as c_int & O_ASYNC != 0)?;
            }
            set_nonblocking(fd, &stream, arg as c_int & O_NONBLOCK != 0)?;
            Ok(0)
        }
        command if owner::is_about(command) => {
            own_socket::ensure(fd, &stream)?;
            let done = forward()?;
            owner::follow_stream(fd, &stream)?;
            Ok(done)
        }
        _ => forward(),
    }
}

/// What only the kernel has (SIGIO, many an option) was wanted of a socket before it is used: it stays there. A listener in
/// use cannot.
pub(super) fn stay_with_kernel(fd: c_int, entry: Entry) -> Result<()> {
    match entry.kind() {
        Kind::Listener if !listeners::leave_to_kernel(entry) => Err(EINVAL),
        Kind::Fresh | Kind::FreshDatagram => {
            if TABLE.replace_if(fd, entry, Reason::Option.entry()) {
                interest::note_foreign(fd);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// O_NONBLOCK lives in the engine's socket: accepted connections share the template's description. A shadow follows.
fn set_nonblocking(fd: c_int, stream: &Stream, on: bool) -> Result<()> {
    stream.ask(|guard| guard.set_nonblocking(stream.id, on))?;
    if stream.local.has(Flag::Shadow) {
        let flags = sys::file_flags(fd)? & !O_NONBLOCK | if on { O_NONBLOCK } else { 0 };
        sys::fcntl(fd, libc::F_SETFL, flags as usize)?;
    }
    Ok(())
}

/// libc asks by a call of its own, which an interposed ioctl does not see.
pub(crate) unsafe fn sockatmark(fd: c_int) -> Result<isize> {
    let mut answer: c_int = 0;
    // SAFETY: a pointer to an int of ours.
    unsafe { ioctl(fd, SIOCATMARK, (&raw mut answer) as c_ulong) }?;
    Ok(answer as isize)
}

pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, arg: c_ulong) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    if let Some(datagram) = Datagram::of(fd, entry) {
        // SAFETY: the same contract.
        return unsafe { ioctl_of_datagram(&datagram, request, arg) };
    }
    let Some(stream) = Stream::of(entry) else {
        // SAFETY: the application's argument; the kernel checks it where it is a pointer.
        let done = unsafe { raw!(ioctl, fd, request, arg) }?;
        if matches!(request, FIOSETOWN | SIOCSPGRP | FIOASYNC) {
            owner::follow_other(fd, entry)?;
        }
        return Ok(done);
    };
    let pointer = arg as *mut c_int;
    let answer = match request {
        libc::FIONREAD => stream.look(|guard| guard.available(stream.id))? as c_int,
        libc::TIOCOUTQ => stream.look(|guard| guard.outq(stream.id))? as c_int,
        SIOCOUTQNSD => stream.look(|guard| guard.outq_unsent(stream.id))? as c_int,
        SIOCATMARK => stream.look(|guard| guard.is_at_mark(stream.id))?.into(),
        libc::FIONBIO => {
            // SAFETY: the application's pointer to an int.
            let on = unsafe { memory::read(pointer) }? != 0;
            return sys::done(set_nonblocking(fd, &stream, on));
        }
        libc::FIOCLEX | libc::FIONCLEX => {
            // SAFETY: these two take no argument and concern the number alone.
            return unsafe { raw!(ioctl, fd, request, arg) };
        }
        FIOSETOWN | SIOCSPGRP | FIOASYNC => {
            own_socket::ensure(fd, &stream)?;
            // SAFETY: as in the first call.
            let done = unsafe { raw!(ioctl, fd, request, arg) }?;
            owner::follow_stream(fd, &stream)?;
            return Ok(done);
        }
        // Of devices, or unknown.
        _ => {
            // SAFETY: as in the first call.
            return unsafe { raw!(ioctl, fd, request, arg) };
        }
    };
    // SAFETY: the application's pointer to an int.
    sys::done(unsafe { memory::write(pointer, answer) })
}

/// The next datagram may be the engine's, and O_NONBLOCK is in both; all else is the shadow's.
unsafe fn ioctl_of_datagram(d: &Datagram, request: c_ulong, arg: c_ulong) -> Result<isize> {
    let pointer = arg as *mut c_int;
    if request == libc::FIONREAD {
        let next = d.look(|guard| guard.next_datagram_len(d.id))?;
        if let Some(len) = next {
            // SAFETY: the application's pointer to an int.
            return sys::done(unsafe { memory::write(pointer, len as c_int) });
        }
    }
    // SAFETY: the application's argument; the kernel checks it where it is a pointer.
    let done = unsafe { raw!(ioctl, d.fd, request, arg) }?;
    if matches!(request, FIOSETOWN | SIOCSPGRP | FIOASYNC) {
        owner::follow(d.fd, d.stack, d.id)?;
    }
    if request == libc::FIONBIO {
        // SAFETY: the kernel has just read an int there.
        let on = unsafe { memory::read(pointer) }? != 0;
        d.ask(|guard| guard.set_nonblocking(d.id, on))?;
    }
    Ok(done)
}
