//! How a daemon comes up, step by step, and how everything is taken back.

use super::access::{Access, Peer};
use super::device::{AttachedProgram, Device};
use super::kept::Kept;
use super::mirror::Mirror;
use super::ports::arena_proto;
use super::steering::{Port, Steering};
use super::takeover::{self, Estate, Heirs};
use super::{Daemon, NAME, Token, attach, log, processes, state, sysctl};
use crate::args::Up;
use crate::failure::{Context, Outcome, fail};
use aya::programs::ProgramInfo;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use sidestep_stack::arena::{Arena, ArenaConfig, Mode};
use sidestep_stack::drops::DropCounters;
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request, netns_inode};
use sidestep_stack::xsk::UmemOwner;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering::Relaxed;

/// The largest packet that a frame holds behind the kernel's XDP headroom (256), with Ethernet and two tags.
pub(super) const MTU_MAX: u32 = 2048 - 256 - 14 - 8;

/// Whether a daemon of this device answers. One that was just killed may accept and never answer; its end is waited for.
/// One that is merely stuck counts as up.
pub(crate) fn is_up(device: &str) -> bool {
    let Ok(client) = Client::connect(device) else { return false };
    let peer = Peer::of(client.fd());
    let answer = client.call(&Request::new(Op::Refresh, [0; 4]), &mut FdSet::default());
    client.close();
    let is_gone = matches!(answer, Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE)));
    if let (true, Ok(peer)) = (is_gone, peer) {
        processes::await_end(peer.pid as u32);
    }
    !is_gone
}

/// What can be refused before anything is done, without a trace. Returns what is to be taken over.
pub(crate) fn check(options: &Up) -> Outcome<Option<Estate>> {
    if !nix::unistd::geteuid().is_root() {
        fail!("needs root (CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW); run it with sudo");
    }
    Access::parse(&options.allow)?;
    let device = Device::find(&options.device)?;
    if is_up(&options.device) {
        fail!("{} is up already (sidestep status {} shows it)", options.device, options.device);
    }
    if !device.is_up {
        fail!("{} is down: ip link set dev {} up", options.device, options.device);
    }
    let estate = Estate::find(&device)?;
    match &estate {
        Some(estate) if !estate.stacks.is_empty() => {
            program_of_before(&device)?;
        }
        _ => attach::check_free(&device, options.replace)?,
    }
    Ok(estate)
}

/// The XDP program that steers the stacks of a dead daemon.
fn program_of_before(device: &Device) -> Outcome<(AttachedProgram, ProgramInfo)> {
    let there = device.xdp.filter(|p| attach::is_ours(*p));
    let Some((there, program)) = there.and_then(|p| Some((p, attach::loaded_program(p.id)?))) else {
        fail!(
            "the daemon of before died, and somebody removed its XDP program from {}: its processes must be ended first",
            device.name
        )
    };
    Ok((there, program))
}

/// Takes away what a killed daemon left: its program, its reservation of ports, its socket. True if there was anything.
pub(crate) fn clean_up_after_the_dead(device: &str) -> Outcome<bool> {
    let blocks = state::saved_blocks(device);
    let had_files = state::devices().iter().any(|d| d == device);
    let mut found = had_files || !blocks.is_empty();
    if !blocks.is_empty() {
        sysctl::unreserve_blocks(&blocks)?;
    }
    state::remove(device);
    if let Some(there) = Device::find(device)?.xdp.filter(|p| attach::is_ours(*p)) {
        attach::detach(there).context(format!("cannot remove the XDP program from {device}"))?;
        found = true;
    }
    Ok(found)
}

/// What a daemon stands on: made anew, or taken over.
struct Ground {
    device: Device,
    arena: &'static Arena,
    memfd: OwnedFd,
    attached: AttachedProgram,
    umem: UmemOwner,
    steering: Steering,
    bell: OwnedFd,
    undo: Undo,
    heirs: Option<Heirs>,
}

/// Starts a daemon; what it did so far is undone when a later step fails.
pub(crate) fn start(options: &Up) -> Outcome<Daemon> {
    let _ = NAME.set(options.device.clone());
    let estate = check(options)?;
    // Packet memory is locked; a privileged process may lift its own limit. If it may not, the error will say so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let ground = match estate {
        Some(estate) if !estate.stacks.is_empty() => take_over(options, estate)?,
        estate => break_ground(options, estate)?,
    };
    stand_on(options, ground)
}

/// Arena, XDP program, UMEM and ports. `estate`: processes use the arena of before, but no stack in it.
fn break_ground(options: &Up, estate: Option<Estate>) -> Outcome<Ground> {
    clean_up_after_the_dead(&options.device)?;
    let mut device = Device::find(&options.device)?;
    let (arena, memfd, bell, heirs) = match estate {
        Some(mut estate) => {
            estate.clear();
            device.queues = estate.arena.header().queues();
            (
                estate.arena,
                estate.memfd.try_clone().context("cannot keep the arena")?,
                estate.bell.take(),
                Some(estate.heirs()),
            )
        }
        None => {
            let (arena, memfd) = make_arena(options, &device)?;
            (arena, memfd, None, None)
        }
    };
    let mut loaded = attach::load()?;
    let attachment = attach::attach(&mut loaded, &device, options.replace, options.generic)?;
    let attached =
        AttachedProgram { id: attachment.program_id, ifindex: device.index, is_generic: attachment.is_generic };
    let mut undo = Undo { attached: Some(attached), blocks: Vec::new(), device: device.name.clone() };
    let zero_copy = !options.copy && !attachment.is_generic;
    let umem = UmemOwner::open(arena, device.index, device.queues, zero_copy).map_err(|e| fail_text(&device, &e))?;
    describe(arena, &attachment, &umem, options, &device);
    undo.blocks = sysctl::reserve_blocks()?;
    let steering = Steering::new(loaded, device.queues, undo.blocks.clone())?;
    let bell = bell.map_or_else(new_bell, Ok)?;
    Ok(Ground { device, arena, memfd, attached, umem, steering, bell, undo, heirs })
}

/// The same, all of it as living processes use it. Nothing here is undone: it is theirs.
fn take_over(options: &Up, mut estate: Estate) -> Outcome<Ground> {
    let mut device = Device::find(&options.device)?;
    let (attached, program) = program_of_before(&device)?;
    let arena = estate.arena;
    device.queues = arena.header().queues();
    let umem = estate.umem(&device)?;
    let blocks = state::saved_blocks(&device.name);
    let has_members = |port: Port| arena.group_members(arena_proto(port), port.1) != 0;
    let steering = Steering::recover(&program, device.queues, &blocks, has_members)?;
    let memfd = estate.memfd.try_clone().context("cannot keep the arena")?;
    let bell = estate.bell.take().map_or_else(new_bell, Ok)?;
    let undo = Undo { attached: None, blocks, device: device.name.clone() };
    Ok(Ground { device, arena, memfd, attached, umem, steering, bell, undo, heirs: Some(estate.heirs()) })
}

fn new_bell() -> Outcome<OwnedFd> {
    let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("cannot make an eventfd")?;
    Ok(bell.into())
}

/// The daemon itself.
fn stand_on(options: &Up, ground: Ground) -> Outcome<Daemon> {
    let Ground { device, arena, memfd, attached, umem, mut steering, bell, mut undo, heirs } = ground;
    let access = Access::parse(&options.allow)?;
    let mirror = Mirror::start(device.index)?;
    steering.set_addresses(mirror.addresses.iter().map(|a| a.ip))?;
    let listener = listen_at(&device.name)?;
    state::save(&device.name, &undo.blocks)?;
    let signals = block_signals()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll set")?;
    let watch = |fd: &dyn AsRawFd, token: Token| {
        // SAFETY: the descriptor is open and outlives the borrow, which ends with the call.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.encode())).context("cannot watch a descriptor")
    };
    watch(&listener, Token::Listener)?;
    watch(&bell, Token::Bell)?;
    watch(&signals.as_fd(), Token::Signal)?;
    watch(&mirror.fd(), Token::Netlink)?;
    steering.configure(mirror.has_vlans())?;
    arena.header().daemon_bell_id.store(takeover::event_id(&bell), Relaxed);
    arena.header().daemon_pid.store(std::process::id(), Relaxed);
    let mut daemon = Daemon {
        attached,
        blocks: undo.blocks.clone(),
        device,
        arena,
        memfd,
        stacks: BTreeMap::new(),
        umem,
        steering,
        mirror,
        access,
        epoll,
        listener,
        bell,
        signals,
        clients: BTreeMap::new(),
        next_client: 0,
        processes: BTreeMap::new(),
        dying: HashSet::new(),
        unborn: BTreeMap::new(),
        draining: HashSet::new(),
        has_deserters: false,
        orphans: Vec::new(),
        apart: HashSet::new(),
        lines: super::lines::Lines::default(),
        gone: DropCounters::default(),
        next_sweep: None,
        kept: Kept::new().context("epoll")?,
        linger_us: super::stacks::LINGER_US,
        next_age: 0,
        ending: false,
        adopted: 0,
        farewell: None,
    };
    if let Some(heirs) = heirs {
        daemon.settle(heirs)?;
    }
    undo.attached = None;
    Ok(daemon)
}

fn fail_text(device: &Device, e: &dyn std::fmt::Display) -> crate::failure::Failure {
    crate::failure::Failure::new(format!("{}: {e}", device.name))
}

/// What was done so far, taken back unless it is disarmed.
struct Undo {
    attached: Option<AttachedProgram>,
    blocks: Vec<u8>,
    device: String,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(attached) = self.attached {
            let _ = attach::detach(attached);
            let _ = sysctl::unreserve_blocks(&self.blocks);
            state::remove(&self.device);
        }
    }
}

fn make_arena(options: &Up, device: &Device) -> Outcome<(&'static Arena, OwnedFd)> {
    let mut name = [0u8; 16];
    name[..device.name.len()].copy_from_slice(device.name.as_bytes());
    let config = ArenaConfig {
        device: name,
        ifindex: device.index,
        netns: netns_inode().context("cannot tell the network namespace")?,
        queues: device.queues,
        transmit_queues: device.transmit_queues,
        frames: options.frames,
        mac: device.mac,
        mtu: device.mtu.min(MTU_MAX) as u16,
        device_is_virtual: device.is_virtual(),
        isn_secret: super::stacks::secret()?,
        tunables: sysctl::tunables(),
    };
    Arena::create(&config).context("cannot make the shared memory")
}

/// Writes into the arena how the device is run, and why not faster.
fn describe(arena: &Arena, attachment: &attach::Attachment, umem: &UmemOwner, options: &Up, device: &Device) {
    let header = arena.header();
    header.set_mode(if attachment.is_generic { Mode::Generic } else { Mode::Native });
    header.zero_copy.store(u32::from(umem.is_zero_copy()), Relaxed);
    header.finishes_checksums.store(u32::from(umem.finishes_checksums()), Relaxed);
    header.xdp_program_id.store(attachment.program_id, Relaxed);
    let reason = match (attachment.is_generic, umem.is_zero_copy(), options.copy) {
        (true, _, _) => attachment.reason.clone(),
        (_, true, _) => String::new(),
        (_, _, true) => "zero-copy was not asked for".into(),
        _ => format!("the driver ({}) has no AF_XDP zero-copy", device.driver),
    };
    header.set_reason(&reason);
}

fn listen_at(device: &str) -> Outcome<OwnedFd> {
    let path = state::socket_path(device)?;
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .context(format!("cannot set the mode of {}", path.display()))
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
        // Whatever the umask was: any process must be able to find the socket; the daemon decides who may use it.
        set_mode(dir, 0o755)?;
        dir.parent().map_or(Ok(()), |d| set_mode(d, 0o755))?;
    }
    let _ = std::fs::remove_file(&path); // of a daemon that died: one that lives answers, and we are not here
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).context("cannot make a socket")?;
    let address = UnixAddr::new(&path).context("the socket's path")?;
    bind(fd.as_raw_fd(), &address).context(format!("cannot bind {}", path.display()))?;
    set_mode(&path, 0o666)?;
    let backlog = Backlog::new(128).context("backlog")?;
    listen(&fd, backlog).context(format!("cannot listen on {}", path.display()))?;
    Ok(fd)
}

fn block_signals() -> Outcome<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("cannot make a signalfd")
}

impl Daemon {
    /// One line for the operator.
    pub(crate) fn headline(&self) -> String {
        let header = self.arena.header();
        let mode = if self.attached.is_generic { "generic" } else { "native" };
        let copy = if header.zero_copy.load(Relaxed) == 1 { "zero-copy" } else { "copy" };
        let reason = header.reason();
        let end = reason.iter().position(|b| *b == 0).unwrap_or(reason.len());
        let reason = match String::from_utf8_lossy(&reason[..end]) {
            text if text.is_empty() => String::new(),
            text => format!(" ({text})"),
        };
        let plural = if self.device.queues == 1 { "" } else { "s" };
        let adopted = match self.adopted {
            0 => String::new(),
            1 => ", which took over a stack".into(),
            n => format!(", which took over {n} stacks"),
        };
        format!(
            "{}: up, {mode} XDP, {} queue{plural}, {copy}{reason}; daemon pid {}{adopted}",
            self.device.name,
            self.device.queues,
            std::process::id()
        )
    }

    /// Everything back as it was. Nothing that fails here can be helped; it is logged.
    pub(super) fn tear_down(&mut self) {
        self.steering.pass_everything();
        let complain = |what: &str, e: &dyn std::fmt::Display| log(format_args!("{what}: {e}"));
        match Device::find(&self.device.name) {
            // Only what is ours: somebody may have replaced it in the meantime.
            Ok(device) if device.xdp.map(|p| p.id) == Some(self.attached.id) => {
                if let Err(e) = attach::detach(self.attached) {
                    complain("cannot detach the XDP program", &e);
                }
            }
            _ => {}
        }
        if let Err(e) = sysctl::unreserve_blocks(&self.blocks) {
            complain("cannot give the local ports back", &e);
        }
        state::remove(&self.device.name);
        self.arena.header().daemon_pid.store(0, Relaxed);
        log(format_args!("down"));
    }
}
