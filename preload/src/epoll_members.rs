//! What goes into a set, and how: a connection into the engine's set alone; a listener, a datagram socket, or another
//! set into both as *twins* (stack: `socket/epoll_twins.rs`); sockets that become ours while they are in a kernel set.

use crate::datagrams::Datagram;
use crate::epoll::{self, Set};
use crate::fd_table::{Entry, TABLE};
use crate::interest::{self, Interest};
use crate::sys::{Result, raw};
use crate::user::{Stream, number};
use crate::{attach, listeners, nests};
use libc::{EFAULT, EINVAL, ENOENT, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event};
use sidestep_stack::runtime::Stack;
use sidestep_stack::socket::{Registration, SetId, SocketId, Watched};

/// What the shadow of a datagram socket is not asked: whether there is room to send.
pub(crate) const ROOM: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM | libc::EPOLLWRBAND) as u32;

/// What epoll_ctl names.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) what: Watched,
    pub(crate) stack: &'static Stack,
    pub(crate) fd: c_int,
    /// What the kernel's half is asked at most; `None`: it has none.
    pub(crate) kernels: Option<u32>,
}

impl Member {
    pub(crate) fn stream(fd: c_int, stream: &Stream) -> Member {
        Member { what: stream.id.into(), stack: stream.stack, fd, kernels: None }
    }

    pub(crate) fn listener(fd: c_int, live: &listeners::Live) -> Member {
        Member { what: live.id.into(), stack: live.stack, fd, kernels: Some(u32::MAX) }
    }

    pub(crate) fn datagram(datagram: &Datagram) -> Member {
        Member { what: datagram.id.into(), stack: datagram.stack, fd: datagram.fd, kernels: Some(!ROOM) }
    }

    /// epoll_ctl on a member of ours.
    pub(crate) fn control(&self, set: &Set, epfd: c_int, op: c_int, event: Option<epoll_event>) -> Result<isize> {
        let asked = match (op, event) {
            (EPOLL_CTL_DEL, _) => epoll_event { events: 0, u64: 0 },
            (EPOLL_CTL_ADD | EPOLL_CTL_MOD, Some(event)) => event,
            (_, None) => return Err(EFAULT),
            _ => return Err(EINVAL),
        };
        if op == EPOLL_CTL_ADD {
            let was_open = set.id().is_some();
            let done = self.open_and_add(set, epfd, asked);
            if !was_open {
                nests::link_above();
            }
            return done;
        }
        let _locked = set.lock(epfd);
        match (op, set.id()) {
            (EPOLL_CTL_MOD, Some(id)) => self.modify(id, epfd, asked),
            (_, Some(id)) => self.delete(id, epfd),
            (_, None) => self.in_kernel_alone(epfd, op, asked),
        }
    }

    /// EPOLL_CTL_ADD, without a word to the sets that the set is in.
    pub(crate) fn open_and_add(&self, set: &Set, epfd: c_int, asked: epoll_event) -> Result<isize> {
        let _locked = set.lock(epfd);
        let id = set.open(epfd, self.stack)?;
        self.add(set, id, epfd, asked)
    }

    fn add(&self, set: &Set, id: SetId, epfd: c_int, asked: epoll_event) -> Result<isize> {
        let registration = Registration {
            key: self.fd as u32,
            events: asked.events,
            data: asked.u64,
            owner: attach::process(),
            is_twin: self.kernels.is_some(),
        };
        if registration.is_twin {
            set.note_twin();
        }
        let token = self.stack.lock().epoll_register(id, self.what, &registration).map_err(number)?;
        let Some(kernels) = self.kernels else { return Ok(0) };
        in_kernel(epfd, EPOLL_CTL_ADD, self.fd, asked.events & kernels, token).inspect_err(|_| {
            let _ = self.stack.lock().epoll_delete(id, self.what, self.fd as u32);
        })
    }

    fn modify(&self, id: SetId, epfd: c_int, asked: epoll_event) -> Result<isize> {
        let done =
            self.stack.lock().epoll_modify(id, self.what, self.fd as u32, asked.events, asked.u64).map_err(number);
        match (done, self.kernels) {
            (Ok(token), Some(kernels)) => in_kernel(epfd, EPOLL_CTL_MOD, self.fd, asked.events & kernels, token),
            (Err(ENOENT), _) => self.in_kernel_alone(epfd, EPOLL_CTL_MOD, asked),
            (done, _) => done.map(|_| 0),
        }
    }

    fn delete(&self, id: SetId, epfd: c_int) -> Result<isize> {
        let done = self.stack.lock().epoll_delete(id, self.what, self.fd as u32).map_err(number);
        match (done, self.kernels) {
            (Ok(()), None) => Ok(0),
            (Err(ENOENT), None) => Err(ENOENT),
            (_, _) => in_kernel(epfd, EPOLL_CTL_DEL, self.fd, 0, 0),
        }
    }

    /// What the engine's set does not have may be in the kernel's, from before it was ours.
    fn in_kernel_alone(&self, epfd: c_int, op: c_int, asked: epoll_event) -> Result<isize> {
        match self.kernels {
            Some(_) => in_kernel(epfd, op, self.fd, asked.events, asked.u64),
            None => Err(ENOENT),
        }
    }

    /// It was in a kernel set when it became ours: now it is where it belongs.
    fn adopt(&self, interest: &Interest) {
        let epfd = interest.epfd.wrapping_sub(1) as c_int;
        let Some(set) = epoll::of(TABLE.lookup(epfd)) else { return };
        // Not there any more: somebody closed that set and this number names another.
        if in_kernel(epfd, EPOLL_CTL_DEL, self.fd, 0, 0).is_ok() {
            let event = epoll_event { events: interest.events, u64: interest.data };
            let _ = self.control(set, epfd, EPOLL_CTL_ADD, Some(event));
        }
    }
}

/// epoll_ctl in the kernel.
pub(crate) fn in_kernel(epfd: c_int, op: c_int, fd: c_int, events: u32, data: u64) -> Result<isize> {
    let mut event = epoll_event { events, u64: data };
    // SAFETY: `event` is ours.
    unsafe { raw!(epoll_ctl, epfd, op, fd, &raw mut event) }
}

/// A socket that was in a kernel set became a user connection.
pub(crate) fn adopt_stream(fd: c_int, stream: &Stream, interest: &Interest) {
    Member::stream(fd, stream).adopt(interest);
}

/// A socket that was in a kernel set listens now.
pub(crate) fn adopt_listener(fd: c_int, entry: Entry, interest: &Interest) {
    if let Some(live) = listeners::live(fd, entry) {
        Member::listener(fd, &live).adopt(interest);
    }
}

/// A datagram socket that was in a kernel set is a user socket now.
pub(crate) fn adopt_datagram(datagram: &Datagram, interest: &Interest) {
    Member::datagram(datagram).adopt(interest);
}

/// The last descriptor of a socket is about to go, and with it what is in both sets: also the kernel's halves, though
/// another process may keep the file open.
pub(crate) fn forget_twins(stack: &Stack, id: SocketId) {
    while let Some((epfd, twin)) = take_twin(stack, id) {
        let _ = in_kernel(epfd, EPOLL_CTL_DEL, twin.key as c_int, 0, 0);
    }
}

/// A socket that stays is the kernel's alone from now on: so are its halves there.
pub(crate) fn hand_back_twins(stack: &Stack, id: SocketId) {
    while let Some((epfd, twin)) = take_twin(stack, id) {
        let fd = twin.key as c_int;
        let _ = in_kernel(epfd, EPOLL_CTL_DEL, fd, 0, 0);
        let _ = in_kernel(epfd, EPOLL_CTL_ADD, fd, twin.events, twin.data);
        interest::note_epoll(fd, epfd, twin.events, twin.data);
    }
}

fn take_twin(stack: &Stack, id: SocketId) -> Option<(c_int, Registration)> {
    let taken = stack.lock().epoll_take_twin(id, attach::process());
    let (set, twin) = taken.ok().flatten()?;
    Some((epoll::number_of(set), twin))
}
