//! Taking over from a daemon that was killed. Its processes go on being served by their stacks; all that is missing is
//! us. What a daemon needs of a living stack is kept alive by the processes that use it, and written down in the arena:
//!
//! - the arena itself: found in `/proc/PID/maps`, opened through `map_files`;
//! - sockets, doorbells and the daemon's own bell: the arena names them by the kernel's numbers, the processes have them
//!   among their descriptors, pidfd_getfd copies them;
//! - the XDP program and its maps: on the device (`steering/recover.rs`);
//! - who uses which stack: whoever has its sockets.
//!
//! A stack whose sockets nobody has died with its processes; its frames and flows are taken back ([`Daemon::settle`]).

use super::device::Device;
use super::locks::Held;
use super::processes::{is_unborn, open_pidfd};
use super::quiesce::await_runs;
use super::stacks::LiveStack;
use super::{Daemon, log};
use crate::failure::{Context, Outcome, fail};
use nix::sys::stat::fstat;
use sidestep_stack::arena::{Arena, ArenaError, MAX_STACKS, Policy, Proto};
use sidestep_stack::runtime::control::netns_inode;
use sidestep_stack::runtime::{Guard, Stack, reclaim_frames};
use sidestep_stack::xsk::UmemOwner;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a daemon that was just killed may take to be gone, and a process to finish its exit or fork.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a dead daemon left that is still in use.
pub(crate) struct Estate {
    pub(crate) arena: &'static Arena,
    pub(crate) memfd: OwnedFd,
    /// The daemon's bell, if a process has it.
    pub(crate) bell: Option<OwnedFd>,
    /// The stacks that live.
    pub(crate) stacks: BTreeMap<u32, StackFds>,
    /// Living processes, and which stacks each has the sockets of, bit by bit.
    users: BTreeMap<u32, u64>,
}

/// A stack's descriptors.
pub(crate) struct StackFds {
    xsks: Vec<OwnedFd>,
    bells: Vec<OwnedFd>,
}

/// What the processes have.
struct Found {
    stacks: BTreeMap<u32, StackFds>,
    users: BTreeMap<u32, u64>,
    bell: Option<OwnedFd>,
}

impl Estate {
    /// Looks for what a dead daemon of this device left. `None`: nothing that anybody uses.
    pub(crate) fn find(device: &Device) -> Outcome<Option<Estate>> {
        let whose = (device.index, netns_inode().context("cannot tell the network namespace")?);
        for (file, pids) in mapped_arenas() {
            let fd = file.as_raw_fd();
            // Root's own: what somebody else calls by this name is not to be trusted.
            let owner = fstat(&file).map(|s| s.st_uid);
            if owner != Ok(nix::unistd::geteuid().as_raw()) || Arena::whose(fd).ok() != Some(whose) {
                continue;
            }
            let arena = match Arena::map(fd) {
                Ok(arena) => arena,
                Err(ArenaError::Version { .. }) => fail!(
                    "the daemon of before died, and processes still use its stacks: {}; it was of another build, which \
                     this one cannot take over from; they go on being served; end them first",
                    list(&pids)
                ),
                Err(e) => fail!("{}: {e}", device.name),
            };
            if let Some(estate) = Self::gather(arena, file.into(), &pids)? {
                return Ok(Some(estate));
            }
        }
        Ok(None)
    }

    fn gather(arena: &'static Arena, memfd: OwnedFd, pids: &[u32]) -> Outcome<Option<Estate>> {
        let header = arena.header();
        let dead = header.daemon_pid.load(Relaxed);
        let mut looks = 0;
        loop {
            let is_last = looks == LOOKS;
            if pids.contains(&dead) && maps_an_arena(dead) {
                if is_last {
                    fail!("its daemon, process {dead}, lives but does not answer: end it first");
                }
            } else {
                let holdings = pids.iter().map(|pid| Holdings::of(*pid)).collect::<Outcome<Vec<_>>>();
                let holdings: Outcome<Vec<Holdings>> = holdings.map(|h| h.into_iter().flatten().collect());
                match holdings.and_then(|h| Self::collect(arena, &h)) {
                    Ok(found) => return Self::judge(arena, memfd, found),
                    Err(e) if is_last => return Err(e),
                    Err(_) => {}
                }
            }
            looks += 1;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What was found: nothing worth keeping, an estate, or what must be refused.
    fn judge(arena: &'static Arena, memfd: OwnedFd, found: Found) -> Outcome<Option<Estate>> {
        let Found { stacks, users, bell } = found;
        let pids = || list(&users.iter().filter(|(_, uses)| **uses != 0).map(|(pid, _)| *pid).collect::<Vec<_>>());
        if stacks.is_empty() && !users.keys().any(|pid| arena.processes().find(*pid).is_some()) {
            return Ok(None);
        }
        if !stacks.is_empty() && arena.header().daemon_pid.load(Relaxed) == 0 {
            fail!(
                "its daemon was stopped with --force, and processes still hold its queues: {}; end them first",
                pids()
            );
        }
        if !stacks.is_empty() && bell.is_none() {
            fail!("the daemon of before died, and none of its processes has its bell: {}; end them first", pids());
        }
        Ok(Some(Estate { arena, memfd, bell, stacks, users }))
    }

    /// Copies the descriptors of every stack that somebody has any of. Fails when one has only some: then a process is
    /// just ending, or something is wrong.
    fn collect(arena: &Arena, holdings: &[Holdings]) -> Outcome<Found> {
        let mut stacks = BTreeMap::new();
        let mut users: BTreeMap<u32, u64> = holdings.iter().map(|h| (h.pid, 0)).collect();
        let queues = arena.header().queues() as usize;
        for index in (0..MAX_STACKS as u32).filter(|i| arena.stack(*i).is_in_use()) {
            let slot = arena.stack(index);
            let inodes: Vec<u64> = slot.xsk_inodes[..queues].iter().map(|i| i.load(Relaxed)).collect();
            let has_some = |h: &&Holdings| inodes.iter().any(|i| h.sockets.contains_key(i));
            let holders: Vec<&Holdings> = holdings.iter().filter(has_some).collect();
            if holders.is_empty() {
                continue;
            }
            let xsks: Option<Vec<OwnedFd>> =
                inodes.iter().map(|inode| holders.iter().find_map(|h| h.socket(*inode))).collect();
            let bell = |id: u32| holders.iter().find_map(|h| h.event(id));
            let bells: Option<Vec<OwnedFd>> = slot.bell_ids.iter().map(|id| bell(id.load(Relaxed))).collect();
            let (Some(xsks), Some(bells)) = (xsks, bells) else {
                let pids: Vec<u32> = holders.iter().map(|h| h.pid).collect();
                fail!(
                    "the daemon of before died, and stack {index} cannot be taken over from the processes that use it: \
                     {}; they go on being served; end them first",
                    list(&pids)
                )
            };
            for holder in holders {
                *users.entry(holder.pid).or_default() |= 1 << index;
            }
            stacks.insert(index, StackFds { xsks, bells });
        }
        let id = arena.header().daemon_bell_id.load(Relaxed);
        let bell = holdings.iter().find_map(|h| h.event(id));
        Ok(Found { stacks, users, bell })
    }

    /// The UMEM as the living stacks keep it.
    pub(crate) fn umem(&self, device: &Device) -> Outcome<UmemOwner> {
        let Some(any) = self.stacks.values().next() else { fail!("no stack lives") };
        let survivors: Vec<RawFd> = any.xsks.iter().map(AsRawFd::as_raw_fd).collect();
        UmemOwner::adopt(self.arena, device.index, &survivors).context(&device.name)
    }

    /// Nobody has a socket of the arena: all its stacks are gone, its frames free, its ports unserved.
    pub(crate) fn clear(&self) {
        for index in (0..MAX_STACKS as u32).filter(|i| self.arena.stack(*i).is_in_use()) {
            self.arena.free_stack(index, true);
        }
        self.arena.reclaim_rings();
        (0..=u16::MAX).for_each(|port| self.arena.set_group_members(Proto::Tcp, port, 0));
    }

    /// What the daemon does last, when it is whole.
    pub(crate) fn heirs(self) -> Heirs {
        Heirs { stacks: self.stacks, users: self.users }
    }
}

/// The stacks and processes that a new daemon takes on.
pub(crate) struct Heirs {
    stacks: BTreeMap<u32, StackFds>,
    users: BTreeMap<u32, u64>,
}

impl Daemon {
    /// What was in the rings of the dead.
    fn reclaim_frames(&self) {
        if self.umem.is_zero_copy() {
            return;
        }
        let held = Held::lock(&self.stacks, &self.stacks.keys().copied().collect());
        if held.guards.len() == self.stacks.len() {
            let guards: Vec<&Guard<'_>> = held.guards.values().collect();
            let found = reclaim_frames(self.arena, &guards, await_runs);
            log(format_args!("{found} frames were in the rings of the dead"));
        }
    }

    /// Takes on the living, and takes back what the dead left.
    pub(super) fn settle(&mut self, heirs: Heirs) -> Outcome<()> {
        for (index, fds) in heirs.stacks {
            let raw = |fds: &[OwnedFd]| fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
            let stack = Stack::attach(self.arena, index, &raw(&fds.xsks), &raw(&fds.bells), self.bell.as_raw_fd())
                .context("cannot attach to a stack")?
                .steering_datagrams_by(self.steering.datagram_ports().0)
                .of_daemon();
            // The daemon before may have been about to wake somebody.
            stack.wake_all();
            self.next_age += 1;
            self.stacks.insert(index, LiveStack::new(stack, fds.xsks, fds.bells, self.next_age));
        }
        let all = super::mirror::Changes { all: true, link: true, ..Default::default() };
        self.push_changes(&all);
        self.draining = self.steering.ports().filter(|port| self.policy(*port) == Policy::Draining).collect();
        let lost = |i: &u32| self.arena.stack(*i).is_in_use() && !self.stacks.contains_key(i);
        let lost: Vec<u32> = (0..MAX_STACKS as u32).filter(lost).collect();
        for index in &lost {
            self.leave_all(*index);
            self.steering.remove_stack(*index);
            self.arena.free_stack(*index, true);
            log(format_args!("stack {index} died with its processes"));
        }
        if !lost.is_empty() {
            self.reclaim_frames();
        }
        self.steering.refresh_ports(|port| self.arena.policy(super::ports::arena_proto(port), port.1))?;
        self.remember_members();
        for port in self.steering.ports().collect::<Vec<_>>() {
            self.count_members(port);
            self.steering.forget_if_unserved(port);
        }
        self.meet(&heirs.users);
        // Somebody may have closed a listener with nobody to tell.
        self.has_deserters = true;
        self.adopted = self.stacks.len();
        log(format_args!("took over: {} stacks, {} processes", self.stacks.len(), self.processes.len()));
        Ok(())
    }

    /// Watches the processes of the table; the dead among them are finished.
    fn meet(&mut self, users: &BTreeMap<u32, u64>) {
        let table: Vec<_> = self.arena.processes().iter().filter(|(_, pid)| !is_unborn(*pid)).collect();
        // The living first: what they use is not the dead's alone.
        let (living, others): (Vec<_>, Vec<_>) = table.into_iter().partition(|(_, pid)| users.contains_key(pid));
        for (id, pid) in living {
            self.watch_process(id, pid, users.get(&pid).copied().unwrap_or(0));
        }
        for (id, pid) in others {
            // A number that was given again, to a process that has nothing to do with us, is a dead one's too.
            match open_pidfd(pid).filter(|_| maps_an_arena(pid)) {
                Some(_) => self.watch_process(id, pid, self.inherited_stacks(pid)),
                None => self.finish_process(id, 0),
            }
        }
    }
}

/// What a process has among its descriptors, by the kernel's numbers.
struct Holdings {
    pid: u32,
    pidfd: OwnedFd,
    sockets: HashMap<u64, RawFd>,
    events: HashMap<u32, RawFd>,
}

impl Holdings {
    /// `None`: the process is gone.
    fn of(pid: u32) -> Outcome<Option<Holdings>> {
        let Some(pidfd) = open_pidfd(pid) else { return Ok(None) };
        let mut holdings = Holdings { pid, pidfd, sockets: HashMap::new(), events: HashMap::new() };
        let entries = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(_) if !maps_an_arena(pid) => return Ok(None),
            Err(e) => fail!("cannot look at the descriptors of process {pid}: {e}"),
        };
        for entry in entries.filter_map(Result::ok) {
            let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok()) else { continue };
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            match target.to_str().and_then(classify) {
                Some(Kind::Socket(inode)) => drop(holdings.sockets.insert(inode, fd)),
                Some(Kind::Event) => {
                    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
                    if let Some(id) = parse_event_id(&info) {
                        holdings.events.insert(id, fd);
                    }
                }
                None => {}
            }
        }
        // It ended meanwhile: perhaps not all of its descriptors were seen.
        Ok(maps_an_arena(pid).then_some(holdings))
    }

    /// A copy of the AF_XDP socket with this inode number.
    fn socket(&self, inode: u64) -> Option<OwnedFd> {
        let copy = self.copy(*self.sockets.get(&inode)?)?;
        let is_it = fstat(&copy).is_ok_and(|s| s.st_ino == inode);
        (is_it && socket_domain(&copy) == Some(libc::AF_XDP)).then_some(copy)
    }

    /// A copy of the eventfd that an arena names by `id`.
    fn event(&self, id: u32) -> Option<OwnedFd> {
        let copy = self.copy(*self.events.get(&id)?)?;
        (id != 0 && event_id(&copy) == id).then_some(copy)
    }

    fn copy(&self, fd: RawFd) -> Option<OwnedFd> {
        // SAFETY: pidfd_getfd takes three integers and returns a descriptor that is ours alone, or -1.
        let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), fd, 0) };
        // SAFETY: as above.
        (got >= 0).then(|| unsafe { OwnedFd::from_raw_fd(got as RawFd) })
    }
}

/// A descriptor that may be one of ours.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Socket(u64),
    Event,
}

fn classify(target: &str) -> Option<Kind> {
    if target == "anon_inode:[eventfd]" {
        return Some(Kind::Event);
    }
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok().map(Kind::Socket)
}

/// The number of an eventfd in its fdinfo, plus 1.
fn parse_event_id(fdinfo: &str) -> Option<u32> {
    let id = fdinfo.lines().find_map(|l| l.strip_prefix("eventfd-id:"))?;
    id.trim().parse::<u32>().ok()?.checked_add(1)
}

/// By what an eventfd of our own is known to the kernel, plus 1; 0 where it does not say (before Linux 5.2).
pub(super) fn event_id(event: &OwnedFd) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", event.as_raw_fd())).unwrap_or_default();
    parse_event_id(&info).unwrap_or(0)
}

fn socket_domain(socket: &OwnedFd) -> Option<i32> {
    let mut domain = 0i32;
    let mut len = size_of::<i32>() as u32;
    // SAFETY: `domain` is writable for `len` bytes.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len)
    };
    (done == 0).then_some(domain)
}

/// Writes down by what the descriptors of a stack are known to the kernel.
pub(super) fn write_down(arena: &Arena, index: u32, live: &LiveStack) {
    let slot = arena.stack(index);
    for (slot, xsk) in slot.xsk_inodes.iter().zip(&live.xsks) {
        slot.store(fstat(xsk).map_or(0, |s| s.st_ino), Relaxed);
    }
    for (slot, bell) in slot.bell_ids.iter().zip(&live.bells) {
        slot.store(event_id(bell), Relaxed);
    }
}

const ARENA: &str = "/memfd:sidestep-arena";

fn maps_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

fn maps_an_arena(pid: u32) -> bool {
    maps_of(pid).contains(ARENA)
}

/// A line of /proc/PID/maps that maps an arena from its start: the mapping's name, and the inode number.
fn parse_mapping(line: &str) -> Option<(&str, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, _, offset, _, inode, path) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    (path == ARENA && offset.bytes().all(|b| b == b'0')).then_some(())?;
    Some((range, inode.parse().ok()?))
}

/// The processes that have the arena of this inode number mapped.
pub(super) fn who_maps(inode: u64) -> Vec<u32> {
    let names = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    let maps_it = |pid: &u32| maps_of(*pid).lines().filter_map(parse_mapping).any(|(_, ino)| ino == inode);
    names.filter_map(|name| name.parse().ok()).filter(maps_it).collect()
}

/// Every arena that another process has mapped, the newest first, with the processes.
fn mapped_arenas() -> Vec<(File, Vec<u32>)> {
    let names = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    let me = std::process::id();
    let mut arenas: BTreeMap<u64, (Option<File>, Vec<u32>)> = BTreeMap::new();
    for pid in names.filter_map(|n| n.parse::<u32>().ok()).filter(|pid| *pid != me) {
        for (range, inode) in maps_of(pid).lines().filter_map(parse_mapping) {
            let (file, pids) = arenas.entry(inode).or_default();
            if file.is_none() {
                let path = format!("/proc/{pid}/map_files/{range}");
                let opened = OpenOptions::new().read(true).write(true).open(path);
                *file = opened.ok().filter(|f| f.metadata().is_ok_and(|m| m.ino() == inode));
            }
            if !pids.contains(&pid) {
                pids.push(pid);
            }
        }
    }
    arenas.into_values().rev().filter_map(|(file, pids)| Some((file?, pids))).collect()
}

fn list(pids: &[u32]) -> String {
    pids.iter().take(12).map(u32::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_the_kernels_numbers() {
        assert_eq!(classify("socket:[4711]"), Some(Kind::Socket(4711)));
        assert_eq!(classify("anon_inode:[eventfd]"), Some(Kind::Event));
        for other in ["socket:[x]", "pipe:[1]", "/dev/null", "anon_inode:[eventpoll]", ""] {
            assert_eq!(classify(other), None);
        }
        assert_eq!(parse_event_id("pos:\t0\neventfd-count: 0\neventfd-id: 0\n"), Some(1));
        assert_eq!(parse_event_id("pos:\t0\n"), None);
        let event = OwnedFd::from(nix::sys::eventfd::EventFd::new().unwrap());
        let other = OwnedFd::from(nix::sys::eventfd::EventFd::new().unwrap());
        assert_ne!(event_id(&event), 0);
        assert_ne!(event_id(&event), event_id(&other));
        assert_eq!(event_id(&event.try_clone().unwrap()), event_id(&event));
    }

    #[test]
    fn mappings() {
        let line = "7f0000000000-7f0000200000 rw-s 00000000 00:01 2057      /memfd:sidestep-arena (deleted)";
        assert_eq!(parse_mapping(line), Some(("7f0000000000-7f0000200000", 2057)));
        for junk in [
            "7f0000000000-7f0000200000 rw-s 00001000 00:01 2057 /memfd:sidestep-arena (deleted)",
            "7f0000000000-7f0000200000 rw-s 00000000 00:01 2057 /memfd:another (deleted)",
            "7f0000000000-7f0000200000 rw-p 00000000 00:00 0",
            "",
        ] {
            assert_eq!(parse_mapping(junk), None, "{junk}");
        }
    }

    #[test]
    fn what_a_process_holds_can_be_copied() {
        let event = OwnedFd::from(nix::sys::eventfd::EventFd::new().unwrap());
        let mut holdings = Holdings {
            pid: std::process::id(),
            pidfd: open_pidfd(std::process::id()).unwrap(),
            sockets: HashMap::new(),
            events: HashMap::from([(event_id(&event), event.as_raw_fd())]),
        };
        assert!(holdings.event(event_id(&event)).is_some());
        // A number that means something else by now is not believed.
        holdings.events.insert(event_id(&event) + 1, event.as_raw_fd());
        assert!(holdings.event(event_id(&event) + 1).is_none());
        assert!(holdings.socket(1).is_none());
    }
}
