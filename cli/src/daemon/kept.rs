//! Connections on their way to another program or process: by exec, posix_spawn or SCM_RIGHTS. Whoever gives one away hands us
//! its shadow, the kernel socket that travels. As long as anybody has that open, be it in a message that nobody has received,
//! or a program that knows nothing of us, we hold the connection; whoever takes it up holds it as well.
//!
//! We keep no descriptor of a shadow: an epoll set does not keep its members open, and loses them with their last descriptor. An
//! unconnected socket is always ready (EPOLLHUP), so a set says at any time which of its members are left.
//!
//! Also here: programs that are replaced by exec. What one held ends with it, but for what we keep.

use super::ports::arena_proto;
use super::processes::has_ended;
use super::{Daemon, log};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sidestep_stack::arena::{EXECUTED, MAX_PROCS, ProcId, Proto};
use sidestep_stack::runtime::{Mark, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::time::Instant;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// After a hint that a shadow was closed: its owner may be about to close it. Then as often as this, in case nobody told us.
const LOOKS_US: [u64; 3] = [2_000, 20_000, 250_000];

/// Most shadows that are kept: what one more would carry is refused.
const KEPT_MAX: usize = 1 << 18;

/// Most connections that are let go in one turn at a stack's lock.
const LET_GO_AT_ONCE: usize = 64;

/// A connection of a stack.
type Connection = (u32, SocketId);

/// The shadows.
pub(super) struct Kept {
    epoll: Epoll,
    /// By the number that the set knows each by.
    shadows: HashMap<u64, Connection>,
    /// How many each connection has.
    counts: BTreeMap<(u32, u64), u32>,
    next_number: u64,
    next_look: Option<Instant>,
    looks: usize,
    /// Looking at many takes time: no look comes before this.
    rest_until: Instant,
    /// Programs that were replaced, by pid, until they end or attach again: what they may is what the one of before might.
    executed: HashMap<u32, OwnedFd>,
}

impl Kept {
    pub(super) fn new() -> nix::Result<Kept> {
        Ok(Kept {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            shadows: HashMap::new(),
            counts: BTreeMap::new(),
            next_number: 0,
            next_look: None,
            looks: 0,
            rest_until: now(),
            executed: HashMap::new(),
        })
    }

    fn add(&mut self, fd: RawFd, connection: Connection) -> bool {
        // SAFETY: the caller's descriptor, open as long as this borrow.
        let shadow = unsafe { BorrowedFd::borrow_raw(fd) };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT, self.next_number);
        if self.shadows.len() >= KEPT_MAX {
            return false;
        }
        match self.epoll.add(shadow, event) {
            Ok(()) => {}
            // It came under the same number before.
            Err(nix::Error::EEXIST) => return true,
            Err(_) => return false,
        }
        self.shadows.insert(self.next_number, connection);
        self.next_number += 1;
        *self.counts.entry(key(connection)).or_default() += 1;
        self.look_soon();
        true
    }

    /// The connections whose last shadow is gone.
    fn take_ended(&mut self) -> Vec<Connection> {
        let mut events = vec![EpollEvent::empty(); self.shadows.len() + 1];
        let Ok(n) = self.epoll.wait(&mut events, EpollTimeout::ZERO) else { return Vec::new() };
        let mut gone = std::mem::take(&mut self.shadows);
        for event in &events[..n] {
            if let Some(connection) = gone.remove(&event.data()) {
                self.shadows.insert(event.data(), connection);
            }
        }
        let mut ended = Vec::new();
        for connection in gone.into_values() {
            let Some(count) = self.counts.get_mut(&key(connection)) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key(connection));
                ended.push(connection);
            }
        }
        ended
    }

    /// Somebody may have closed one.
    pub(super) fn look_soon(&mut self) {
        if !self.shadows.is_empty() {
            self.looks = 0;
            self.next_look = Some(now().max(self.rest_until));
        }
    }

    /// Whether the process has executed another program while it was attached.
    pub(super) fn has_executed(&self, pid: u32) -> bool {
        self.executed.get(&pid).is_some_and(|pidfd| !has_ended(pidfd))
    }

    fn note_executed(&mut self, pid: u32, pidfd: OwnedFd) {
        self.executed.retain(|_, pidfd| !has_ended(pidfd));
        if self.executed.len() < MAX_PROCS {
            self.executed.insert(pid, pidfd);
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    fn is_due(&self, at: Instant) -> bool {
        self.next_look.is_some_and(|due| due <= at)
    }

    fn look_again(&mut self, took_us: u64) {
        self.rest_until = now().after_us(took_us * 20);
        let pause = LOOKS_US[self.looks.min(LOOKS_US.len() - 1)].max(took_us * 20);
        self.looks += 1;
        self.next_look = (!self.shadows.is_empty()).then(|| now().after_us(pause));
    }
}

fn key((stack, id): Connection) -> (u32, u64) {
    (stack, id.to_bits())
}

impl Daemon {
    /// Holds the connections whose shadows these are. How many of them.
    pub(super) fn keep_shadows(&mut self, fds: &[RawFd]) -> usize {
        let Some(own) = self.own_number() else { return 0 };
        let arena = self.arena.header().id();
        let marks = fds.iter().filter_map(|fd| Some((*fd, Mark::read(*fd, arena)?)));
        marks.filter(|(fd, mark)| self.keep_shadow(*fd, mark, own)).count()
    }

    fn keep_shadow(&mut self, fd: RawFd, mark: &Mark, own: ProcId) -> bool {
        let Some(live) = self.stacks.get(&mark.stack) else { return false };
        let Some(mut guard) = super::locks::lock(&live.stack) else { return false };
        if guard.hold(mark.id, own).is_err() {
            return false;
        }
        if self.kept.add(fd, (mark.stack, mark.id)) {
            return true;
        }
        if !self.kept.counts.contains_key(&key((mark.stack, mark.id))) {
            let _ = guard.release(now(), mark.id, own);
            guard.flush(now());
        }
        false
    }

    /// Lets go of connections whose shadows nobody has any more.
    pub(super) fn look_after_shadows(&mut self) {
        let at = now();
        if !self.kept.is_due(at) {
            return;
        }
        let ended = self.kept.take_ended();
        if let Some(own) = self.own_number() {
            for index in self.stacks.keys().copied().collect::<Vec<_>>() {
                let here: Vec<SocketId> =
                    ended.iter().filter(|(stack, _)| *stack == index).map(|(_, id)| *id).collect();
                here.chunks(LET_GO_AT_ONCE).for_each(|ids| self.let_go_of(index, ids, own));
            }
        }
        self.kept.look_again(now().since_us(at));
    }

    fn let_go_of(&self, stack: u32, ids: &[SocketId], own: ProcId) {
        if let Some(live) = self.stacks.get(&stack)
            && let Some(mut guard) = super::locks::lock_patiently(&live.stack)
        {
            for id in ids {
                let _ = guard.release(now(), *id, own);
            }
            guard.flush(now());
        }
    }

    /// A process said that it is about to execute another program, or that it could not.
    pub(super) fn note_exec(&mut self, client: u32, begins: bool) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.executes = begins;
        }
    }

    /// The connection that said so has ended, or its process greets us by another: it executes another program now. What the one
    /// of before held, its ends of sockets and epoll sets, is gone with it; its number stays what the dead leave.
    pub(super) fn finish_exec(&mut self, pid: u32) {
        let Some(id) = self.arena.processes().find(pid) else { return };
        let uses = match self.processes.remove(&id) {
            Some(process) => {
                let stacks = process.stacks;
                self.kept.note_executed(pid, process.pidfd);
                stacks
            }
            None => 0,
        };
        self.arena.processes().set_pid(id, EXECUTED);
        self.leave_for_exec(id);
        self.finish_process(id, uses);
        self.kept.look_soon();
    }

    /// The kernel's listeners and datagram sockets may go on in the next program: so ports that only this one served go back to the
    /// kernel before nobody serves them.
    fn leave_for_exec(&mut self, id: ProcId) {
        for port in self.steering.ports().collect::<Vec<_>>() {
            for stack in self.steering.members(port).to_vec() {
                let Some(live) = self.stacks.get(&stack) else { continue };
                let is_served = super::locks::lock(&live.stack).is_none_or(|guard| match arena_proto(port) {
                    Proto::Tcp => guard.has_listener_of_others(port.1, id),
                    Proto::Udp => guard.has_mailbox_of_others(port.1, id),
                });
                if !is_served {
                    let done = self.leave(port, stack);
                    self.tell(done);
                }
            }
        }
    }

    /// As [`Daemon::finish_exec`], when the process has been heard of by a connection that is not `client`.
    pub(super) fn finish_exec_of_others(&mut self, client: u32, pid: u32) {
        let of_before = |(number, c): (&u32, &super::Client)| *number != client && c.executes && c.pid() == pid;
        if let Some(number) = self.clients.iter().find(|entry| of_before(*entry)).map(|(number, _)| *number) {
            self.note_exec(number, false);
            self.finish_exec(pid);
        }
    }

    /// A shadow that cannot be kept is a connection that the next program will not have.
    pub(super) fn note_unkept(&self, wanted: usize, kept: usize) {
        if kept < wanted {
            log(format_args!(
                "{} connections cannot be passed on: {} are kept",
                wanted - kept,
                self.kept.shadows.len()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_connection_ends_with_its_last_shadow() {
        let mut kept = Kept::new().unwrap();
        let shadow = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        let id = SocketId { index: 3, generation: 9 };
        let (first, second, other) = (shadow(), shadow(), shadow());
        assert!(kept.add(first.as_raw_fd(), (1, id)) && kept.add(second.as_raw_fd(), (1, id)));
        assert!(kept.add(other.as_raw_fd(), (2, id)));
        assert!(kept.add(other.as_raw_fd(), (2, id)), "it is there already");
        assert_eq!(kept.take_ended(), []);
        let copy = first.try_clone().unwrap();
        drop((first, second));
        assert_eq!(kept.take_ended(), [], "a copy is left");
        drop(copy);
        assert_eq!(kept.take_ended(), [(1, id)]);
        assert_eq!((kept.take_ended(), kept.shadows.len()), (vec![], 1));
        kept.look_again(0);
        assert!(kept.next_look().is_some());
        drop(other);
        assert_eq!(kept.take_ended(), [(2, id)]);
        kept.look_again(0);
        assert!(kept.next_look().is_none(), "nothing to look for: nothing to wake up for");
    }
}
