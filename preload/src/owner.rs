//! Whom a socket's signals go to (F_SETOWN, F_SETSIG, O_ASYNC): the kernel's half is told by the program, and the engine by
//! what that says then. So each sends for what comes by it.

use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind};
use crate::sys::{self, Result, raw};
use crate::user::{Stream, number};
use crate::{interest, listeners};
use libc::{O_ASYNC, c_int};
use sidestep_stack::engine::Owner;
use sidestep_stack::runtime::Stack;
use sidestep_stack::socket::SocketId;

pub(crate) const F_SETSIG: c_int = 10;
pub(crate) const F_SETOWN_EX: c_int = 15;
const F_GETSIG: c_int = 11;
const F_GETOWN_EX: c_int = 16;
const F_OWNER_PGRP: c_int = 2;

/// Whether fcntl's command changes whom, or by what, or whether.
pub(crate) fn is_about(command: c_int) -> bool {
    matches!(command, libc::F_SETOWN | F_SETOWN_EX | F_SETSIG)
}

/// struct f_owner_ex.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct KernelOwner {
    kind: c_int,
    pid: c_int,
}

/// The engine learns whom the socket's kernel half would signal. A thread stands for its process.
pub(crate) fn follow(fd: c_int, stack: &Stack, id: SocketId) -> Result<()> {
    let mut told = KernelOwner::default();
    // SAFETY: a record of ours, writable.
    unsafe { raw!(fcntl, fd, F_GETOWN_EX, &raw mut told) }?;
    let target = if told.kind == F_OWNER_PGRP { -told.pid } else { told.pid };
    let owner = (told.pid != 0).then(|| Owner {
        target,
        pid: sys::getpid(),
        process: crate::attach::process(),
        signal: sys::fcntl(fd, F_GETSIG, 0).unwrap_or(0) as u8,
        is_async: sys::file_flags(fd).is_ok_and(|flags| flags & O_ASYNC != 0),
        fd,
    });
    stack.lock().set_owner(id, owner).map_err(number)
}

pub(crate) fn follow_stream(fd: c_int, stream: &Stream) -> Result<()> {
    follow(fd, stream.stack, stream.id)
}

/// The same for whatever else may be a user socket, or become one.
pub(crate) fn follow_other(fd: c_int, entry: Entry) -> Result<()> {
    match entry.kind() {
        Kind::Datagram => Datagram::of(fd, entry).map_or(Ok(()), |d| follow(fd, d.stack, d.id)),
        Kind::Listener => listeners::live_already(entry).map_or(Ok(()), |live| follow(fd, live.stack, live.id)),
        Kind::Fresh => {
            interest::touch(fd);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// F_SETFL or FIOASYNC was done on a kernel half: the engine follows, if that changed what it knows.
pub(crate) fn follow_flags(fd: c_int, entry: Entry, is_async: bool) -> Result<()> {
    let known = match entry.kind() {
        Kind::Stream => Stream::of(entry).map(|s| (s.stack, s.id)),
        Kind::Datagram => Datagram::of(fd, entry).map(|d| (d.stack, d.id)),
        Kind::Listener => listeners::live_already(entry).map(|live| (live.stack, live.id)),
        Kind::Fresh if is_async => return follow_other(fd, entry),
        _ => None,
    };
    match known {
        Some((stack, id)) if is_async || stack.lock().is_async(id) => follow(fd, stack, id),
        _ => Ok(()),
    }
}
