//! Descriptors: close, dup, fcntl, ioctl.

use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::local::Flag;
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use crate::{attach, epoll, hidden, listeners};
use libc::{EBADF, EFAULT, EINVAL, ENOTTY, O_NONBLOCK, c_int, c_uint, c_ulong};

/// Linux's numbers of the ioctls that TCP answers; SIOCINQ and SIOCOUTQ are FIONREAD and TIOCOUTQ.
const SIOCATMARK: c_ulong = 0x8905;
const SIOCOUTQNSD: c_ulong = 0x894b;

/// Takes the entry of a number that is going away, or was reused behind our back, and gives its reference back.
pub(crate) fn drop_entry(fd: c_int) {
    if TABLE.lookup(fd).is_kernel() {
        return;
    }
    release(fd, TABLE.replace(fd, Entry::KERNEL));
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
                release_stream(fd, &stream);
            }
        }
        Kind::Datagram => {
            if let Some(datagram) = Datagram::of(fd, entry).filter(|d| d.local.remove_descriptor()) {
                datagram.end();
            }
        }
    }
}

fn release_stream(fd: c_int, stream: &Stream) {
    if !stream.local.remove_descriptor() {
        return;
    }
    let _ = stream.with(|guard, now| {
        // Other processes may hold it still; in our sets the descriptor is no more.
        let _ = guard.epoll_delete_all(stream.id, fd as u32);
        guard.release(now, stream.id, attach::process())
    });
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

/// `new` is a duplicate of `fd`, whose entry was `old`.
fn duplicated(fd: c_int, old: Entry, new: c_int) {
    // A socket that has not connected yet is one socket under two numbers: the kernel keeps it.
    let is_fresh = matches!(old.kind(), Kind::Fresh | Kind::FreshDatagram);
    let entry = if is_fresh { Entry::KERNEL } else { old };
    if old.kind() == Kind::FreshDatagram {
        TABLE.replace_if(fd, old, Entry::KERNEL); // it would take datagrams that the other number waits for
    }
    share(entry);
    release(new, TABLE.replace(new, entry));
}

pub(crate) unsafe fn close(fd: c_int) -> Result<isize> {
    if hidden::is_hidden(fd) {
        return Err(EBADF);
    }
    if !TABLE.lookup(fd).is_kernel() && attach::is_own_process() {
        drop_entry(fd);
    }
    sys::close(fd)
}

pub(crate) unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> Result<isize> {
    let keeps = flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0;
    if !keeps && first <= last && attach::is_own_process() {
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

pub(crate) unsafe fn dup(fd: c_int) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    // SAFETY: a number only.
    let new = unsafe { raw!(dup, fd) }?;
    if attach::is_own_process() || entry.is_kernel() {
        duplicated(fd, entry, new as c_int);
    }
    Ok(new)
}

pub(crate) unsafe fn dup2(old: c_int, new: c_int) -> Result<isize> {
    if old == new {
        return sys::fcntl(old, libc::F_GETFD, 0).map(|_| new as isize);
    }
    // SAFETY: numbers only.
    unsafe { dup3(old, new, 0) }
}

pub(crate) unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> Result<isize> {
    if hidden::is_hidden(new) || hidden::is_hidden(old) {
        return Err(EBADF);
    }
    let (from, to) = (TABLE.lookup(old), TABLE.lookup(new));
    // SAFETY: numbers only.
    let done = unsafe { raw!(dup3, old, new, flags) }?;
    if !(from.is_kernel() && to.is_kernel()) && attach::is_own_process() {
        duplicated(old, from, new);
    }
    Ok(done)
}

pub(crate) unsafe fn fcntl(fd: c_int, command: c_int, arg: c_ulong) -> Result<isize> {
    let entry = TABLE.lookup(fd);
    let forward = || {
        // SAFETY: the application's argument; the kernel checks it where it is a pointer.
        unsafe { raw!(fcntl, fd, command, arg) }
    };
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        let new = forward()?;
        if attach::is_own_process() || entry.is_kernel() {
            duplicated(fd, entry, new as c_int);
        }
        return Ok(new);
    }
    if let Some(datagram) = Datagram::of(fd, entry).filter(|_| command == libc::F_SETFL) {
        if arg as c_int & libc::O_ASYNC != 0 {
            return Err(EINVAL);
        }
        let done = forward()?;
        datagram.ask(|guard| guard.set_nonblocking(datagram.id, arg as c_int & O_NONBLOCK != 0))?;
        return Ok(done);
    }
    let Some(stream) = Stream::of(entry) else {
        return forward();
    };
    match command {
        libc::F_GETFL => {
            let nonblocking = stream.ask(|guard| guard.is_nonblocking(stream.id))?;
            let kernel = forward()? as c_int & !O_NONBLOCK;
            Ok((kernel | if nonblocking { O_NONBLOCK } else { 0 }) as isize)
        }
        libc::F_SETFL if arg as c_int & libc::O_ASYNC != 0 => Err(EINVAL), // no SIGIO here: say so
        libc::F_SETFL => {
            set_nonblocking(fd, &stream, arg as c_int & O_NONBLOCK != 0)?;
            Ok(0)
        }
        _ => forward(),
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
        return unsafe { raw!(ioctl, fd, request, arg) };
    };
    let pointer = arg as *mut c_int;
    let answer = match request {
        libc::FIONREAD => stream.ask(|guard| guard.available(stream.id))? as c_int,
        libc::TIOCOUTQ => stream.ask(|guard| guard.outq(stream.id))? as c_int,
        SIOCOUTQNSD => stream.ask(|guard| guard.outq_unsent(stream.id))? as c_int,
        SIOCATMARK => stream.ask(|guard| guard.is_at_mark(stream.id))?.into(),
        libc::FIONBIO if pointer.is_null() => return Err(EFAULT),
        libc::FIONBIO => {
            // SAFETY: the application's pointer to an int.
            let on = unsafe { pointer.read_unaligned() } != 0;
            return sys::done(set_nonblocking(fd, &stream, on));
        }
        libc::FIOCLEX | libc::FIONCLEX => {
            // SAFETY: these two take no argument and concern the number alone.
            return unsafe { raw!(ioctl, fd, request, arg) };
        }
        _ if stream.local.has(Flag::Shadow) => {
            // SAFETY: as in the first call.
            return unsafe { raw!(ioctl, fd, request, arg) };
        }
        _ => return Err(ENOTTY),
    };
    if pointer.is_null() {
        return Err(EFAULT);
    }
    // SAFETY: the application's pointer to an int.
    unsafe { pointer.write_unaligned(answer) };
    Ok(0)
}

/// The next datagram may be the engine's, and O_NONBLOCK is in both; all else is the shadow's.
unsafe fn ioctl_of_datagram(d: &Datagram, request: c_ulong, arg: c_ulong) -> Result<isize> {
    let pointer = arg as *mut c_int;
    if request == libc::FIONREAD && !pointer.is_null() {
        let next = d.ask(|guard| guard.next_datagram_len(d.id))?;
        if let Some(len) = next {
            // SAFETY: the application's pointer to an int.
            unsafe { pointer.write_unaligned(len as c_int) };
            return Ok(0);
        }
    }
    // SAFETY: the application's argument; the kernel checks it where it is a pointer.
    let done = unsafe { raw!(ioctl, d.fd, request, arg) }?;
    if request == libc::FIONBIO {
        // SAFETY: the kernel has just read an int there.
        let on = unsafe { pointer.read_unaligned() } != 0;
        d.ask(|guard| guard.set_nonblocking(d.id, on))?;
    }
    Ok(done)
}
