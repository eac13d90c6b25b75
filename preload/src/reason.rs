//! Why a descriptor is the kernel's: what `sidestep_fd_reason()` answers. Where the kernel keeps a socket for good, the
//! reason is noted in its entry of the fd table; the rest follows from what the descriptor is.

use crate::datagrams::kernel_name;
use crate::fallback::{self, Why};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::sys::{self, Result};
use crate::{attach, epoll, hidden, interest, listeners};
use core::ffi::CStr;
use libc::{AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, c_int};
use sidestep_stack::addr::Endpoint;
use sidestep_stack::arena::Proto;

/// enum sidestep_reason of the header. Numbers are never given again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Reason {
    User = 0,
    NotSocket = 1,
    NotServed = 2,
    Undecided = 3,
    NoDevice = 4,
    NoDaemon = 5,
    Refused = 6,
    Mismatch = 7,
    Attach = 8,
    Full = 9,
    PortOff = 10,
    PortNotListed = 11,
    Loopback = 12,
    OtherWay = 13,
    BoundFirst = 14,
    SeveralSets = 15,
    Duplicated = 16,
    ErrorQueue = 17,
    Stack = 18,
    KernelAccepted = 19,
    NotSeen = 20,
    Option = 21,
}

impl Reason {
    pub(crate) const ALL: [(Reason, &'static CStr); 22] = [
        (Reason::User, c"carried by the user-mode stack"),
        (Reason::NotSocket, c"not a socket"),
        (Reason::NotServed, c"not a TCP or UDP socket over IP"),
        (Reason::Undecided, c"not decided before it connects, is accepted from, or is used"),
        (Reason::NoDevice, c"no device is named, and not exactly one has a daemon here"),
        (Reason::NoDaemon, c"no daemon serves the device"),
        (Reason::Refused, c"the daemon refused this process"),
        (Reason::Mismatch, c"library and daemon are of different builds"),
        (Reason::Attach, c"the stack could not be attached"),
        (Reason::Full, c"a table is full"),
        (Reason::PortOff, c"the port is switched off"),
        (Reason::PortNotListed, c"the port is not among those that were asked for"),
        (Reason::Loopback, c"loopback"),
        (Reason::OtherWay, c"the way there is not over the device"),
        (Reason::BoundFirst, c"bound to a port before it connected"),
        (Reason::SeveralSets, c"in several epoll sets before it was decided"),
        (Reason::Duplicated, c"duplicated before it was decided"),
        (Reason::ErrorQueue, c"it wants the kernel's error queue"),
        (Reason::Stack, c"the stack could not take it"),
        (Reason::KernelAccepted, c"the connection came over the kernel"),
        (Reason::NotSeen, c"made where the library did not see it"),
        (Reason::Option, c"it was given an option that only the kernel has"),
    ];

    pub(crate) fn from_number(number: u32) -> Option<Reason> {
        Reason::ALL.into_iter().map(|(reason, _)| reason).find(|reason| *reason as u32 == number)
    }

    pub(crate) fn text(number: u32) -> Option<&'static CStr> {
        Reason::ALL.into_iter().find(|(reason, _)| *reason as u32 == number).map(|(_, text)| text)
    }

    /// The entry of a descriptor that the kernel keeps for this reason.
    pub(crate) fn entry(self) -> Entry {
        Entry::kept(self as u32)
    }

    /// Why this process has no stack.
    pub(crate) fn of_process() -> Reason {
        match fallback::first() {
            None => Reason::NoDevice,
            Some(Why::NoDaemon) => Reason::NoDaemon,
            Some(Why::Refused) => Reason::Refused,
            Some(Why::Arena) => Reason::Mismatch,
            Some(Why::Attach) => Reason::Attach,
            Some(Why::Full) => Reason::Full,
            Some(Why::Listen | Why::Join) => Reason::Stack,
        }
    }

    /// Why a TCP socket that has just connected to `remote` did so in the kernel.
    pub(crate) fn of_connect(fd: c_int, remote: Endpoint) -> Reason {
        if remote.ip.is_loopback() || remote.ip.is_unspecified() {
            Reason::Loopback
        } else if interest::is_explicitly_bound(fd) {
            Reason::BoundFirst
        } else if interest::is_in_several(fd) {
            Reason::SeveralSets
        } else {
            Self::of_way(remote)
        }
    }

    fn of_way(remote: Endpoint) -> Reason {
        use sidestep_stack::ip::tables::RouteVerdict;
        match attach::stack() {
            None if attach::is_off() => Self::of_process(),
            None => Reason::OtherWay,
            Some(stack) => match stack.lock().net().route(&remote.ip) {
                RouteVerdict::NotOurs => Reason::OtherWay,
                _ => Reason::Stack,
            },
        }
    }

    /// Why a datagram socket that is bound or connected stays with the kernel.
    pub(crate) fn of_datagram(fd: c_int) -> Reason {
        let Some(name) = kernel_name(fd) else { return Reason::NotSeen };
        if name.ip.is_loopback() {
            Reason::Loopback
        } else if interest::is_in_several(fd) {
            Reason::SeveralSets
        } else if !crate::config::config().ports.allow(Proto::Udp, name.port) {
            Reason::PortNotListed
        } else if attach::arena().is_some_and(|arena| !arena.policy(Proto::Udp, name.port).allows()) {
            Reason::PortOff
        } else if attach::stack().is_none() && attach::is_off() {
            Self::of_process()
        } else {
            Reason::OtherWay
        }
    }
}

/// The answer for an open descriptor.
pub(crate) fn of_descriptor(fd: c_int) -> Result<Reason> {
    hidden::refuse(fd)?;
    sys::fcntl(fd, libc::F_GETFD, 0)?;
    let entry = TABLE.lookup(fd);
    Ok(match entry.kind() {
        Kind::Stream | Kind::Datagram => Reason::User,
        Kind::Epoll if epoll::of(entry).is_some_and(|set| set.id().is_some()) => Reason::User,
        Kind::Epoll => Reason::NotSocket,
        Kind::Listener if listeners::live_already(entry).is_some() => Reason::User,
        Kind::Listener => listeners::why_kernel(entry).unwrap_or(Reason::Undecided),
        Kind::Fresh | Kind::FreshDatagram if attach::is_off() => Reason::of_process(),
        Kind::Fresh | Kind::FreshDatagram => Reason::Undecided,
        Kind::Kernel => {
            Reason::from_number(entry.index()).filter(|r| *r != Reason::User).unwrap_or_else(|| of_plain(fd))
        }
    })
}

/// For a descriptor that nothing is noted of.
fn of_plain(fd: c_int) -> Reason {
    let option = |name| sys::option::<c_int>(fd, SOL_SOCKET, name);
    let Ok(domain) = option(libc::SO_DOMAIN) else { return Reason::NotSocket };
    let kind = option(libc::SO_TYPE).unwrap_or(0);
    let protocol = option(libc::SO_PROTOCOL).unwrap_or(0);
    let is_ours = matches!(domain, AF_INET | AF_INET6)
        && matches!((kind, protocol), (SOCK_STREAM, libc::IPPROTO_TCP) | (SOCK_DGRAM, libc::IPPROTO_UDP));
    match () {
        () if !is_ours => Reason::NotServed,
        () if !attach::is_armed() => Reason::of_process(),
        () if kernel_name(fd).is_some_and(|name| name.ip.is_loopback()) => Reason::Loopback,
        () => Reason::NotSeen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::EBADF;

    #[test]
    fn every_number_has_its_text_and_stands_in_the_header() {
        let header = include_str!("../../include/sidestep.h");
        for (i, (reason, text)) in Reason::ALL.into_iter().enumerate() {
            assert_eq!((reason as usize, Reason::from_number(i as u32)), (i, Some(reason)));
            assert_eq!(Reason::text(i as u32), Some(text));
            assert!(header.contains(&format!(" = {i},")) || header.contains(&format!(" = {i} ")), "{reason:?}");
        }
        assert_eq!(Reason::text(Reason::ALL.len() as u32), None);
    }

    #[test]
    fn what_is_no_socket_says_so() {
        assert_eq!(of_descriptor(0).unwrap_or(Reason::NotSocket), Reason::NotSocket);
        assert_eq!(of_descriptor(-1), Err(EBADF));
        let unix = sys::socket(libc::AF_UNIX, SOCK_STREAM, 0).unwrap();
        assert_eq!(of_descriptor(unix), Ok(Reason::NotServed));
        let _ = sys::close(unix);
    }
}
