//! A call that waits holds its socket: close() by another thread takes the number away and nothing else, as in the kernel. The
//! call goes on until there is something, or the peer ends, and the socket ends with the last that held it.
//!
//! What a call also looks at in the kernel it knows by the number, which may be another's by then. So whoever takes the
//! number away leaves a duplicate for those who wait.

use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind};
use crate::listeners::{self, Live};
use crate::user::Stream;
use crate::{calls, hidden, sys};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use libc::c_int;

/// What a call waits on.
#[derive(Clone, Copy)]
pub(crate) enum Holder {
    Stream(Stream),
    /// One that nobody has any more: close() lingers on it.
    Closing(Stream),
    Datagram(Datagram),
    Listener(Live, c_int),
}

impl Holder {
    /// One more that refers to the socket.
    pub(crate) fn take(&self) {
        match self {
            Holder::Stream(stream) => stream.local.add_descriptor(),
            Holder::Closing(_) => {}
            Holder::Datagram(d) => {
                d.local.add_descriptor();
                d.local.waiters.begin();
            }
            Holder::Listener(live, _) => {
                live.listener.add_descriptor();
                live.listener.waiters.begin();
            }
        }
    }

    /// And one less; the last ends the socket.
    pub(crate) fn give_back(&self) {
        match self {
            Holder::Stream(stream) => calls::fd::release_stream(stream),
            Holder::Closing(stream) => calls::fd::end_linger(stream),
            Holder::Datagram(d) => {
                d.local.waiters.end();
                if d.local.remove_descriptor() {
                    d.end();
                }
            }
            Holder::Listener(live, _) => {
                live.listener.waiters.end();
                live.listener.remove_descriptor();
            }
        }
    }

    /// The kernel's half of the socket, by a number that is still its own.
    pub(crate) fn shadow(&self) -> Option<c_int> {
        match self {
            Holder::Stream(_) | Holder::Closing(_) => None,
            Holder::Datagram(d) => Some(d.local.waiters.number(d.fd)),
            Holder::Listener(live, fd) => Some(live.listener.waiters.number(*fd)),
        }
    }
}

/// Calls that wait on one socket with a half in the kernel.
#[derive(Debug)]
pub(crate) struct Waiters {
    count: AtomicU32,
    /// The duplicate that stands in for the number, + 1; 0: the number is good.
    spare: AtomicI32,
}

impl Waiters {
    pub(crate) const fn none() -> Waiters {
        Waiters { count: AtomicU32::new(0), spare: AtomicI32::new(0) }
    }

    fn begin(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            let spare = self.spare.swap(0, Ordering::AcqRel);
            if spare != 0 {
                hidden::close(spare - 1);
            }
        }
    }

    fn number(&self, fd: c_int) -> c_int {
        match self.spare.load(Ordering::Acquire) {
            0 => fd,
            spare => spare - 1,
        }
    }

    /// The number is about to go.
    fn lose(&self, fd: c_int) {
        if self.count.load(Ordering::Acquire) == 0 || self.spare.load(Ordering::Acquire) != 0 {
            return;
        }
        if let Ok(twin) = sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) {
            let twin = hidden::hide(twin as c_int);
            if self.spare.compare_exchange(0, twin + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                hidden::close(twin);
            }
        }
    }
}

/// The number `fd`, whose entry this is, is about to be closed or to become another's.
pub(crate) fn lose_number(fd: c_int, entry: Entry) {
    match entry.kind() {
        Kind::Datagram => {
            if let Some(d) = Datagram::of(fd, entry) {
                d.local.waiters.lose(fd);
            }
        }
        Kind::Listener => {
            if let Some(listener) = listeners::of(entry) {
                listener.waiters.lose(fd);
            }
        }
        _ => {}
    }
}
