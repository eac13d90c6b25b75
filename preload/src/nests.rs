//! Sets in sets. The kernel has them all, and says which may be (ELOOP). The engine has those whose inner set has user
//! sockets: for that an outer set must know, when the inner one gets its first, that it is in there.

use crate::attach;
use crate::critical::Mutex;
use crate::epoll;
use crate::epoll_members::{Member, in_kernel};
use crate::fd_table::Entry;
use crate::sys::Result;
use libc::{ENOSPC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event};
use sidestep_stack::socket::Watched;

const MAX_NESTS: usize = 256;

/// One set in another, by their entries and numbers in the table.
#[derive(Clone, Copy)]
struct Nest {
    outer: Entry,
    inner: Entry,
    epfd: c_int,
    fd: c_int,
    event: epoll_event,
    /// The engine has it.
    is_linked: bool,
}

const FREE: Nest = Nest {
    outer: Entry::KERNEL,
    inner: Entry::KERNEL,
    epfd: -1,
    fd: -1,
    event: epoll_event { events: 0, u64: 0 },
    is_linked: false,
};

static NESTS: Mutex<[Nest; MAX_NESTS]> = Mutex::new([FREE; MAX_NESTS]);

impl Nest {
    /// Both sets are still what they were.
    fn is_live(&self) -> bool {
        epoll::of(self.outer).is_some() && epoll::of(self.inner).is_some()
    }

    /// The member, once the inner set has user sockets.
    fn member(&self) -> Option<Member> {
        let id = epoll::of(self.inner)?.id()?;
        Some(Member { what: Watched::Set(id), stack: attach::stack()?, fd: self.fd, kernels: Some(u32::MAX) })
    }

    /// Tells the engine, if there is something to tell: out of the kernel's set, into both.
    fn link(&mut self) {
        if let (false, Some(member), Some(outer)) = (self.is_linked, self.member(), epoll::of(self.outer))
            && in_kernel(self.epfd, EPOLL_CTL_DEL, self.fd, 0, 0).is_ok()
        {
            let epoll_event { events, u64: data } = self.event;
            self.is_linked = member.open_and_add(outer, self.epfd, self.event).is_ok()
                || in_kernel(self.epfd, EPOLL_CTL_ADD, self.fd, events, data).is_err();
        }
    }
}

/// epoll_ctl of a set on a set.
pub(crate) fn control(
    (epfd, outer): (c_int, Entry),
    op: c_int,
    (fd, inner): (c_int, Entry),
    event: epoll_event,
) -> Result<isize> {
    let mut nests = NESTS.lock();
    let found = nests.iter().position(|n| n.outer == outer && n.inner == inner && n.fd == fd);
    let linked = found.and_then(|at| nests.get(at).copied()).filter(|n| n.is_linked);
    let epoll_event { events, u64: data } = event;
    let done = match (linked.and_then(|n| n.member()), epoll::of(outer)) {
        (Some(member), Some(set)) => member.control(set, epfd, op, Some(event)),
        _ => in_kernel(epfd, op, fd, events, data),
    }?;
    let slot = match op {
        EPOLL_CTL_ADD => found.or_else(|| nests.iter().position(|n| !n.is_live())),
        _ => found,
    };
    let Some(slot) = slot.and_then(|at| nests.get_mut(at)) else {
        if op == EPOLL_CTL_ADD {
            let _ = in_kernel(epfd, EPOLL_CTL_DEL, fd, 0, 0);
            return Err(ENOSPC);
        }
        return Ok(done);
    };
    match op {
        EPOLL_CTL_ADD if linked.is_none() => {
            *slot = Nest { outer, inner, epfd, fd, event, is_linked: false };
            link_all(&mut nests);
        }
        EPOLL_CTL_MOD => slot.event = event,
        EPOLL_CTL_DEL => *slot = FREE,
        _ => {}
    }
    Ok(done)
}

/// A set has its first user socket: the sets it is in learn of it, and those that they are in.
pub(crate) fn link_above() {
    link_all(&mut NESTS.lock());
}

/// Each link may open a set that is in others.
fn link_all(nests: &mut [Nest; MAX_NESTS]) {
    loop {
        let mut any = false;
        for nest in nests.iter_mut().filter(|n| !n.is_linked && n.is_live()) {
            nest.link();
            any |= nest.is_linked;
        }
        if !any {
            return;
        }
    }
}

/// In a forked child.
pub(crate) fn after_fork() {
    // SAFETY: the thread that holds it is not in this process.
    unsafe { NESTS.free() };
}
