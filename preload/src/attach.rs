//! Device, daemon and stack: found and attached when they are first needed, in three steps.
//!
//! 1. *armed*: tables mapped, daemon greeted (at load when SIDESTEP_DEV is set, because the daemon looks at the
//!    credentials that the process has then; else at the first TCP or UDP socket);
//! 2. *stack open*: at the first listener somebody wants to accept from, the first datagram socket that is used, or the first
//!    connect over the device;
//! 3. *joined*: a port's group, at the first interest in accepting, or in datagrams.
//!
//! Whatever fails leaves the process on the kernel ([`crate::fallback`]).

use crate::config::{DeviceName, config};
use crate::critical::Mutex;
use crate::fallback::{Why, say_once, warn};
use crate::fd_table::TABLE;
use crate::{fork, hidden, local, sys};
use libc::c_int;
use sidestep_stack::arena::{Arena, BELLS, ProcId, Proto};
use sidestep_stack::runtime::control::{Client, FdSet, Op, RUN_DIR, Reply, Request, netns_inode};
use sidestep_stack::runtime::{Stack, map_datagram_ports};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// How far this process got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Stage {
    Untried = 0,
    Armed = 1,
    /// On the kernel for good.
    Off = 2,
}

/// What the attach lock guards.
pub(crate) struct Attachment {
    device: Option<DeviceName>,
    /// The control connection, or -1: not made, or our parent's.
    control: c_int,
    daemon_bell: c_int,
    arena: Option<&'static Arena>,
    /// What is asked for now changes nothing in how the process runs: no word if it cannot be had.
    is_quiet: bool,
}

pub(crate) static ATTACHMENT: Mutex<Attachment> =
    Mutex::new(Attachment { device: None, control: -1, daemon_bell: -1, arena: None, is_quiet: false });
static STAGE: AtomicU8 = AtomicU8::new(Stage::Untried as u8);
static STACK: OnceLock<Stack> = OnceLock::new();
/// Our ProcId + 1; 0 is none.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Our pid, to tell a vfork child (same memory, other process) from ourselves.
static PID: AtomicU32 = AtomicU32::new(0);

/// The stack, if it is open.
#[inline]
pub(crate) fn stack() -> Option<&'static Stack> {
    STACK.get()
}

/// Whether this process stays on the kernel for good.
pub(crate) fn is_off() -> bool {
    STAGE.load(Ordering::Acquire) == Stage::Off as u8
}

/// Whether the tables are mapped and the daemon was greeted.
pub(crate) fn is_armed() -> bool {
    STAGE.load(Ordering::Acquire) == Stage::Armed as u8
}

/// Our number in the arena.
#[inline]
pub(crate) fn process() -> ProcId {
    (PROCESS.load(Ordering::Relaxed) as u16).wrapping_sub(1)
}

pub(crate) fn has_process() -> bool {
    PROCESS.load(Ordering::Relaxed) != 0
}

/// Whether the calling process is the one whose tables these are. False in a vfork child, which shares our memory:
/// what it does to descriptors must leave no trace in the tables.
pub(crate) fn is_own_process() -> bool {
    PID.load(Ordering::Relaxed) == sys::getpid() as u32
}

/// At load: a device that was named is greeted at once.
pub(crate) fn at_load() {
    if config().device.is_none() {
        return;
    }
    if arm() {
        crate::inherited::take_up_all();
    } else if crate::fallback::has_warned() {
        // SAFETY: the constructor runs before the program can have threads that read the environment.
        unsafe { libc::setenv(c"SIDESTEP_WARNED".as_ptr(), c"1".as_ptr(), 1) };
    }
}

/// Step 1. True when the process is armed; cheap when that was decided before.
#[inline]
pub(crate) fn arm() -> bool {
    match STAGE.load(Ordering::Acquire) {
        1 => true,
        2 => false,
        _ => try_to_arm(),
    }
}

#[cold]
fn try_to_arm() -> bool {
    let mut attachment = ATTACHMENT.lock();
    if STAGE.load(Ordering::Acquire) != Stage::Untried as u8 {
        return STAGE.load(Ordering::Acquire) == Stage::Armed as u8;
    }
    let armed = attachment.arm().is_some();
    STAGE.store(if armed { Stage::Armed } else { Stage::Off } as u8, Ordering::Release);
    armed
}

/// Step 2: the stack, opened if need be.
pub(crate) fn open_stack() -> Option<&'static Stack> {
    if let Some(stack) = STACK.get() {
        return Some(stack);
    }
    if STAGE.load(Ordering::Acquire) != Stage::Armed as u8 {
        return None;
    }
    let mut attachment = ATTACHMENT.lock();
    if STACK.get().is_none() {
        let Some(stack) = attachment.open_stack([0; 4]) else {
            STAGE.store(Stage::Off as u8, Ordering::Release);
            return None;
        };
        stack.lock().counters_mut().io_uring_refused += u64::from(REFUSED_RINGS.swap(0, Ordering::Relaxed));
        let _ = STACK.set(stack);
    }
    STACK.get()
}

/// The stack that another process left us a connection in; `None` when we have one of our own.
pub(crate) fn share_stack(index: u32) -> Option<&'static Stack> {
    if STACK.get().is_none() && is_armed() {
        let mut attachment = ATTACHMENT.lock();
        if STACK.get().is_none()
            && let Some(stack) = attachment.open_stack([1, u64::from(index), 0, 0])
        {
            let _ = STACK.set(stack);
        }
    }
    stack().filter(|stack| stack.index() == index)
}

/// Who the daemon is; 0: the last one said farewell.
pub(crate) fn daemon_pid() -> u32 {
    stack().map_or(0, |stack| stack.arena().header().daemon_pid.load(Ordering::Relaxed))
}

/// Gives the daemon shadows to keep. False: it is not there, or cannot.
pub(crate) fn keep(shadows: &[c_int]) -> bool {
    ATTACHMENT.lock().tell(Op::Keep, 0, shadows)
}

/// Tells the daemon that this process is about to execute another program, or that it could not.
pub(crate) fn tell_of_exec(begins: bool) -> bool {
    ATTACHMENT.lock().tell(Op::Exec, u64::from(begins), &[])
}

/// The daemon shall look what there is to do.
pub(crate) fn ring_daemon() {
    ring(ATTACHMENT.lock().daemon_bell);
}

/// The arena, once armed.
pub(crate) fn arena() -> Option<&'static Arena> {
    ATTACHMENT.lock().arena
}

/// Step 3: the stack takes its share of a port's new flows.
pub(crate) fn join(proto: Proto, port: u16, stack: &Stack) -> Joined {
    let mut attachment = ATTACHMENT.lock();
    let args = [proto as u64, u64::from(port), u64::from(stack.index()), 0];
    if attachment.call(Op::Join, args, &mut FdSet::default()).is_some() {
        return Joined::Yes;
    }
    let has_daemon = attachment.control >= 0;
    drop(attachment);
    warn(Why::Join, format_args!("port {port}"));
    if has_daemon { Joined::Refused } else { Joined::Unheard }
}

/// What came of the wish to serve a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Joined {
    Yes,
    Refused,
    /// The daemon died, or was too slow. It may have done it.
    Unheard,
}

/// The stack takes no more of a port: the kernel has it back.
pub(crate) fn leave(proto: Proto, port: u16, stack: &Stack) {
    let args = [proto as u64, u64::from(port), u64::from(stack.index()), 0];
    let _ = ATTACHMENT.lock().wish(Op::Leave, args);
}

/// Asks for another block of local ports. There may be none: then a connection or a datagram socket is the kernel's.
pub(crate) fn more_ports(stack: &Stack) {
    if ATTACHMENT.lock().wish(Op::Block, [u64::from(stack.index()), 0, 0, 0]).is_none() {
        stack.lock().clear_ports_low();
        say_once(format_args!("sidestep: no local port is left for a connection: the kernel opens it, from its own\n"));
    }
}

/// A descriptor of ours got another number. False: it is none of the attachment's.
pub(crate) fn renumber(old: c_int, new: c_int) -> bool {
    let attachment = &mut *ATTACHMENT.lock();
    let mut found = stack().is_some_and(|stack| stack.lock().renumber(old, new));
    for fd in [&mut attachment.control, &mut attachment.daemon_bell] {
        found |= *fd == old;
        *fd = if *fd == old { new } else { *fd };
    }
    found
}

/// Rings of io_uring that were refused before there was a stack to count them.
static REFUSED_RINGS: AtomicU32 = AtomicU32::new(0);

/// Counts a ring of io_uring that was refused.
pub(crate) fn count_refused_ring() {
    REFUSED_RINGS.fetch_add(1, Ordering::Relaxed);
    if let Some(stack) = stack() {
        stack.lock().counters_mut().io_uring_refused += u64::from(REFUSED_RINGS.swap(0, Ordering::Relaxed));
    }
}

impl Attachment {
    fn arm(&mut self) -> Option<()> {
        self.device = config().device.or_else(only_device);
        self.device?;
        self.greet()?;
        let (_, hard) = sys::file_limit();
        let mapped = TABLE.map(hard).and_then(|()| local::map()).and_then(|()| crate::interest::map(TABLE.len()));
        if mapped.is_err() {
            warn(Why::Full, format_args!("no memory for the descriptor table"));
            return None;
        }
        fork::install();
        Some(())
    }

    /// Connects to the daemon and introduces this process.
    fn greet(&mut self) -> Option<()> {
        let device = self.device?;
        // A process that moved to another network namespace: what we know of routes is not true there.
        if self.arena.is_some_and(|arena| netns_inode().ok() != Some(arena.header().netns())) {
            return None;
        }
        let client = match Client::connect(device.as_str()) {
            Ok(client) => client,
            Err(e) => {
                // Without SIDESTEP_DEV nobody asked for this device: no daemon is no news then.
                if config().device.is_some() {
                    self.complain(
                        Why::NoDaemon,
                        format_args!("{}: errno {}", device.as_str(), e.raw_os_error().unwrap_or(0)),
                    );
                }
                return None;
            }
        };
        self.control = hidden::hide(client.fd());
        let introduced = self.introduce();
        if introduced.is_none() {
            // A daemon that knows us not, or has another arena: nothing else may be asked of it.
            self.hang_up();
        }
        introduced
    }

    /// Hello, on a new connection. A process that has the arena says so and keeps what it has of it: after a fork, or
    /// when a new daemon took over.
    fn introduce(&mut self) -> Option<()> {
        let known = self.arena.map_or([0; 4], |arena| [1, arena.header().id(), 0, 0]);
        let mut fds = FdSet::default();
        let reply = self.call_connected(Op::Hello, known, &mut fds)?;
        let &[memfd, bell, ..] = fds.as_slice() else {
            fds.close_all();
            self.complain(Why::Refused, format_args!("the greeting came without descriptors"));
            return None;
        };
        if self.arena.is_some() {
            fds.close_all();
        } else {
            self.arena = self.map_arena(memfd);
            self.daemon_bell = hidden::hide(bell);
            let _ = sys::close(memfd);
        }
        self.arena?;
        if !has_process() {
            PROCESS.store(reply.a[0] as u32 + 1, Ordering::Relaxed);
        }
        PID.store(sys::getpid() as u32, Ordering::Relaxed);
        Some(())
    }

    fn map_arena(&self, memfd: c_int) -> Option<&'static Arena> {
        match Arena::map(memfd) {
            Ok(arena) => Some(arena),
            Err(e) => {
                self.complain(Why::Arena, format_args!("{e}"));
                None
            }
        }
    }

    /// A request on a connection that is made anew if it is not there: after a fork, or when the daemon died. Then a new
    /// one may have taken over.
    fn call(&mut self, op: Op, args: [u64; 4], fds: &mut FdSet) -> Option<Reply> {
        if self.control >= 0 {
            match self.ask(op, args, fds) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => self.hang_up(),
                answer => return self.judge(op, answer, fds),
            }
        }
        self.greet()?;
        self.call_connected(op, args, fds)
    }

    /// A request whose refusal changes nothing in how the process runs.
    fn wish(&mut self, op: Op, args: [u64; 4]) -> Option<Reply> {
        self.is_quiet = true;
        let reply = self.call(op, args, &mut FdSet::default());
        self.is_quiet = false;
        reply
    }

    fn complain(&self, why: Why, detail: core::fmt::Arguments<'_>) {
        if !self.is_quiet {
            warn(why, detail);
        }
    }

    fn call_connected(&mut self, op: Op, args: [u64; 4], fds: &mut FdSet) -> Option<Reply> {
        let answer = self.ask(op, args, fds);
        self.judge(op, answer, fds)
    }

    fn ask(&self, op: Op, args: [u64; 4], fds: &mut FdSet) -> std::io::Result<Reply> {
        Client::from_fd(self.control).call(&Request::new(op, args), fds)
    }

    /// A word to the daemon that nothing here depends on: whatever becomes of it, nobody is warned. A child made by fork needs no
    /// greeting for it.
    fn tell(&mut self, op: Op, what: u64, given: &[c_int]) -> bool {
        for _ in 0..2 {
            if self.control < 0 {
                let Some(Ok(client)) = self.device.map(|device| Client::connect(device.as_str())) else { return false };
                self.control = hidden::hide(client.fd());
            }
            let request = Request::new(op, [what, 0, 0, 0]);
            let mut fds = FdSet::default();
            match Client::from_fd(self.control).call_with(&request, given, &mut fds) {
                Ok(reply) => {
                    fds.close_all();
                    return reply.status == 0;
                }
                // The one of before is gone.
                Err(_) => self.hang_up(),
            }
        }
        false
    }

    fn judge(&mut self, op: Op, answer: std::io::Result<Reply>, fds: &mut FdSet) -> Option<Reply> {
        match answer {
            Ok(reply) if reply.status == 0 => Some(reply),
            Ok(reply) => {
                fds.close_all();
                self.complain(Why::Refused, format_args!("{} ({op:?}, errno {})", reply.text(), reply.status));
                None
            }
            Err(e) => {
                self.hang_up();
                self.complain(Why::NoDaemon, format_args!("{op:?}: errno {}", e.raw_os_error().unwrap_or(0)));
                None
            }
        }
    }

    fn hang_up(&mut self) {
        if self.control >= 0 {
            hidden::close(self.control);
            self.control = -1;
        }
    }

    fn open_stack(&mut self, which: [u64; 4]) -> Option<Stack> {
        let arena = self.arena?;
        let queues = arena.header().queues() as usize;
        let mut fds = FdSet::default();
        let reply = self.call(Op::StackOpen, which, &mut fds)?;
        if fds.as_slice().len() != queues + BELLS + 1 {
            warn(Why::Attach, format_args!("{} descriptors for {queues} queues", fds.as_slice().len()));
            fds.close_all();
            return None;
        }
        let table = *fds.as_slice().get(queues + BELLS)?;
        let ports = map_datagram_ports(table);
        let _ = sys::close(table);
        let mut moved = [-1; sidestep_stack::runtime::control::MAX_FDS];
        for (to, from) in moved.iter_mut().zip(&fds.as_slice()[..queues + BELLS]) {
            *to = hidden::hide(*from);
        }
        let (xsks, bells) = moved.get(..queues + BELLS)?.split_at(queues);
        let attached = Stack::attach(arena, reply.a[0] as u32, xsks, bells, self.daemon_bell);
        match ports.and_then(|ports| Ok(attached?.steering_datagrams_by(ports))) {
            Ok(stack) => {
                crate::vfork::become_fork();
                Some(stack)
            }
            Err(e) => {
                warn(Why::Attach, format_args!("{e}"));
                None
            }
        }
    }

    /// In a forked child: the control connection is the parent's (answers would go to whoever reads first), and so is
    /// the ProcId, unless the parent claimed one for us.
    pub(crate) fn after_fork(&mut self, claimed: Option<ProcId>) {
        self.hang_up();
        PID.store(sys::getpid() as u32, Ordering::Relaxed);
        PROCESS.store(claimed.map_or(0, |id| u32::from(id) + 1), Ordering::Relaxed);
        if let (Some(id), Some(arena)) = (claimed, self.arena) {
            arena.processes().set_pid(id, sys::getpid() as u32);
            ring(self.daemon_bell);
        }
    }

    /// Greets the daemon again, with the credentials of now.
    pub(crate) fn greet_again(&mut self) {
        if self.control < 0 && self.greet().is_none() {
            STAGE.store(Stage::Off as u8, Ordering::Release);
        }
    }
}

fn ring(bell: c_int) {
    let one = 1u64;
    // SAFETY: `one` is eight readable bytes.
    let _ = unsafe { sys::raw!(write, bell, &raw const one, 8) };
}

/// The one device that has a daemon in this network namespace; `None` when there are several or none.
fn only_device() -> Option<DeviceName> {
    let mut path = [0u8; 64];
    let text = format_path(&mut path, netns_inode().ok()?)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    let dir = unsafe { sys::raw!(openat, libc::AT_FDCWD, text.as_ptr(), flags, 0) }.ok()? as c_int;
    let mut names = [0u8; 2048];
    // SAFETY: `names` is writable for its length.
    let filled = unsafe { sys::raw!(getdents64, dir, names.as_mut_ptr(), names.len()) };
    let _ = sys::close(dir);
    only_socket(names.get(..filled.ok()? as usize)?)
}

fn format_path(out: &mut [u8; 64], netns: u64) -> Option<&[u8]> {
    use std::io::Write;
    let mut cursor = std::io::Cursor::new(&mut out[..]);
    write!(cursor, "{RUN_DIR}/{netns}\0").ok()?;
    let len = cursor.position() as usize;
    out.get(..len)
}

/// Looks through directory records (struct linux_dirent64) for the only `*.sock`.
fn only_socket(mut records: &[u8]) -> Option<DeviceName> {
    let mut found = None;
    while let Some(length) = records.get(16..18) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let name = records.get(19..length)?;
        let name = name.split(|b| *b == 0).next()?;
        if let Some(device) = name.strip_suffix(b".sock").and_then(DeviceName::new) {
            if found.is_some() {
                return None;
            }
            found = Some(device);
        }
        records = records.get(length.max(1)..)?;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Vec<u8> {
        let mut bytes = vec![0u8; 19];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let len = (bytes.len() as u16).to_ne_bytes();
        bytes[16..18].copy_from_slice(&len);
        bytes
    }

    #[test]
    fn the_only_device_is_taken_and_two_are_none() {
        let mut records = [record("."), record(".."), record("veth1.sock")].concat();
        assert_eq!(only_socket(&records).map(|d| d.as_str().to_owned()).as_deref(), Some("veth1"));
        records.extend(record("eth0.sock"));
        assert_eq!(only_socket(&records), None);
        assert_eq!(only_socket(&[]), None);
    }
}
