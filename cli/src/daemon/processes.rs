//! The processes attached to the device: watched by pidfd, and finished when they die, as the kernel would.

use super::{Daemon, Token, locks, log, stacks};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use sidestep_stack::arena::{BORN, DAEMON, EXECUTED, PENDING_FORK, ProcId};
use sidestep_stack::runtime::now;
use sidestep_stack::time::{Instant, SEC};
use std::collections::btree_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

/// In the place of a pid: slots that are no living process's.
pub(super) const NOBODYS: [u32; 4] = [PENDING_FORK, BORN, DAEMON, EXECUTED];

/// A process.
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The epoll set holds it as long as it is open.
    pub(super) pidfd: OwnedFd,
    /// The stacks it may be using, bit by bit.
    pub(crate) stacks: u64,
}

/// Whether a process is gone.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut look = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO) == Ok(1)
}

/// Opens a pidfd; `None` when the process is gone.
pub(crate) fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a descriptor that is ours alone, or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    // SAFETY: as above.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits, not for ever, until a process is gone, and with it its sockets and memory.
pub(crate) fn await_end(pid: u32) {
    if let Some(pidfd) = open_pidfd(pid) {
        let mut wait = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut wait, PollTimeout::from(5000u16));
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_parent(&stat)
}

/// The fourth field of /proc/PID/stat; the second, in parentheses, may contain anything.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a process was stopped, by a signal or a debugger.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_state(&stat).is_some_and(|state| matches!(state, "T" | "t"))
}

fn parse_state(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().next()
}

/// How long a fork may take, which copies the page tables of all its memory. Whether the parent was killed in it cannot be told.
const FORK_US: u64 = 30 * SEC;
/// How long a child that is there may take to say who it is; then it is looked for.
const BIRTH_US: u64 = SEC / 10;

/// A child of which nobody knows yet who it is.
pub(super) struct Unborn {
    /// The fork made it.
    pub(super) is_there: bool,
    due: Instant,
}

/// Whether what stands in the place of a pid is such a child's.
pub(super) fn is_unborn(pid: u32) -> bool {
    matches!(pid, PENDING_FORK | BORN)
}

impl Daemon {
    /// Registers a process, or finds it: the same pid keeps its number over exec.
    pub(super) fn register(&mut self, pid: u32) -> Option<ProcId> {
        let table = self.arena.processes();
        match table.find(pid) {
            Some(id) if self.processes.get(&id).is_none_or(|p| p.pid != pid) => {
                self.watch_process(id, pid, self.inherited_stacks(pid));
            }
            Some(_) => {}
            None => {
                let id = table.claim(pid)?;
                self.watch_process(id, pid, 0);
            }
        }
        let id = table.find(pid)?;
        self.processes.contains_key(&id).then_some(id)
    }

    pub(super) fn watch_process(&mut self, id: ProcId, pid: u32, stacks: u64) {
        let Some(pidfd) = open_pidfd(pid) else {
            self.finish_process(id, stacks);
            return;
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, Token::Process(id).encode());
        if let Err(e) = self.epoll.add(&pidfd, event) {
            log(format_args!("cannot watch process {pid}: {e}"));
        }
        self.processes.insert(id, Process { pid, pidfd, stacks });
    }

    /// A forked child uses its parent's stacks. When the parent cannot be told any more (it died first), any stack may be
    /// in use: one freed too late costs memory, one freed too early a connection.
    pub(super) fn inherited_stacks(&self, pid: u32) -> u64 {
        let parent = parent_of(pid);
        match self.processes.values().find(|p| Some(p.pid) == parent) {
            Some(parent) => parent.stacks,
            None => self.stacks.keys().filter(|i| !self.is_in_use(**i)).fold(0, |mask, i| mask | 1 << i),
        }
    }

    /// Whether a living process may be using the stack.
    pub(super) fn is_in_use(&self, stack: u32) -> bool {
        self.processes.values().any(|p| p.stacks & 1 << stack != 0)
    }

    /// Finds processes that forked themselves into the table.
    pub(super) fn scan_processes(&mut self) {
        let there: Vec<(ProcId, u32)> = self.arena.processes().iter().collect();
        let unborn: HashMap<ProcId, bool> =
            there.iter().filter(|(_, pid)| is_unborn(*pid)).map(|(id, pid)| (*id, *pid == BORN)).collect();
        self.unborn.retain(|id, known| unborn.get(id) == Some(&known.is_there));
        for (id, is_there) in unborn {
            if let Entry::Vacant(place) = self.unborn.entry(id) {
                let due = now().after_us(if is_there { BIRTH_US } else { FORK_US });
                place.insert(Unborn { is_there, due });
                self.next_sweep = stacks::earlier(self.next_sweep, Some(due));
            }
        }
        for (id, pid) in there {
            if !NOBODYS.contains(&pid) && self.processes.get(&id).is_none_or(|p| p.pid != pid) {
                self.watch_process(id, pid, self.inherited_stacks(pid));
            }
        }
    }

    /// A child that was killed before it could say who it is: after a while nobody has the arena mapped whom we do not know.
    /// What it held by its parent's word is let go.
    pub(super) fn finish_unborn(&mut self) {
        self.scan_processes();
        let is_late = |child: &Unborn| child.due <= now();
        if !self.unborn.values().any(is_late) {
            return;
        }
        let Ok(arena) = nix::sys::stat::fstat(&self.memfd) else { return };
        let own = std::process::id();
        let is_known = |pid: u32| pid == own || self.arena.processes().find(pid).is_some();
        if !super::takeover::who_maps(arena.st_ino).into_iter().all(is_known) {
            return;
        }
        let late: Vec<ProcId> = self.unborn.iter().filter(|(_, child)| is_late(child)).map(|(id, _)| *id).collect();
        // One that said it meanwhile is there, and known by now.
        let still = |id: &ProcId| is_unborn(self.arena.processes().pid_of(*id));
        for id in late.into_iter().filter(still).collect::<Vec<_>>() {
            self.unborn.remove(&id);
            self.finish_process(id, 0);
        }
    }

    /// A process died.
    pub(super) fn process_died(&mut self, id: ProcId) {
        // Its children first: they keep what it leaves.
        self.scan_processes();
        // The number may have been another's when it was told.
        if self.processes.get(&id).is_some_and(|process| has_ended(&process.pidfd))
            && let Some(process) = self.processes.remove(&id)
        {
            self.finish_process(id, process.stacks);
        }
        self.kept.look_soon();
    }

    /// Gives back what a dead process held, stack by stack; then its number.
    pub(super) fn finish_process(&mut self, id: ProcId, used: u64) {
        for index in self.stacks.keys().copied().collect::<Vec<_>>() {
            if used & 1 << index != 0 && !self.is_in_use(index) {
                // Nobody accepts any more: new connections go elsewhere, live ones stay to be finished.
                self.leave_all(index);
                let slot = self.arena.stack(index);
                slot.sleepers.store(0, Relaxed);
                slot.owner_pid.store(0, Relaxed);
            } else if used & 1 << index != 0 {
                // It may have made something ready for another process, and not have come to say so.
                self.stacks.get(&index).into_iter().for_each(|live| live.stack.wake_all());
            }
        }
        self.dying.insert(id);
        self.release_dying();
    }

    /// Releases the sockets of the dead. What cannot be had now (a stopped process holds the lock) is tried again.
    pub(super) fn release_dying(&mut self) {
        let dying: HashSet<ProcId> = std::mem::take(&mut self.dying);
        for id in dying {
            let mut done = true;
            for (index, live) in &self.stacks {
                let slot = self.arena.stack(*index);
                let Some(mut guard) = locks::lock(&live.stack) else {
                    done = false;
                    continue;
                };
                // Those that it had nothing to do with are not touched: should this daemon be killed meanwhile, they lose nothing.
                let bells = slot.bells_of(id);
                if bells == 0 && !guard.is_used_by(id) {
                    continue;
                }
                guard.forget_bells(bells);
                slot.release_process(id);
                let at = now();
                guard.poll(at);
                guard.release_process(at, id);
                guard.flush(at);
            }
            if done {
                self.has_deserters = true;
                self.arena.processes().free(id);
            } else {
                self.dying.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        assert_eq!(parse_parent("12 (a b) c) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parse_parent("12 (x"), None);
        assert_eq!(parse_state("12 (a b) c) S 7 12 12 0 -1"), Some("S"));
        assert!(!is_stopped(std::process::id()));
        assert_eq!(parent_of(std::process::id()), Some(nix::unistd::getppid().as_raw() as u32));
    }

    #[test]
    fn pidfds_are_for_the_living() {
        assert!(open_pidfd(std::process::id()).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(open_pidfd(child.id()).is_none());
    }
}
