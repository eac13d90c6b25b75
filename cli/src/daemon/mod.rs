//! sidestepd, the daemon of one device: control plane and safety net, never on the hot path.
//!
//! In the order in which it is built (`start.rs`), and torn down in reverse:
//! - [`device`]: what the device is; [`sysctl`]: the kernel's settings, and the local ports it leaves to us;
//! - [`attach`]: the XDP program on it; [`steering`], `groups.rs`: what the program is told;
//! - [`mirror`]: addresses, routes and neighbours; [`kernel_sockets`]: which ports the kernel uses;
//! - `clients.rs`, [`access`]: who asks for what, and may; `processes.rs`: who is attached, and what the dead leave;
//! - `ports.rs`: the operator's switch, and what ends with time; `moves.rs`, `quiesce.rs`: flows go from stack to stack;
//!   `orphans.rs`: what waits for a stack that is yet to come; `lines.rs`: what waits where nobody accepts; `follow.rs`:
//!   buckets go to who accepts; `apart.rs`: ports
//!   of several programs; `kept.rs`: connections on their way to another program;
//! - `stacks.rs`: the stacks, run when nobody else does; `locks.rs`, `urgency.rs`: their locks, and how not to die in the midst
//!   of a change; `foreign.rs`: datagrams that are the kernel's after all; `doctor.rs`: whether all that was given out is there;
//! - `takeover.rs`: what a daemon that was killed left in use; [`state`]: what it left to be undone.
//!
//! This file is the event loop. The daemon has one thread.

pub(crate) mod access;
mod apart;
pub(crate) mod attach;
mod clients;
pub(crate) mod device;
mod doctor;
mod follow;
mod foreign;
mod groups;
mod kept;
mod kernel_sockets;
mod lines;
mod locks;
mod mirror;
mod moves;
mod orphans;
mod ports;
pub(crate) mod processes;
mod quiesce;
mod stacks;
pub(crate) mod start;
pub(crate) mod state;
mod steering;
pub(crate) mod sysctl;
mod takeover;
mod urgency;
mod vlans;

use crate::failure::{Context, Outcome};
use access::Access;
use clients::Client;
use device::{AttachedProgram, Device};
use kept::Kept;
use lines::Lines;
use mirror::Mirror;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::signalfd::SignalFd;
use orphans::Orphan;
use processes::{Process, Unborn};
use sidestep_stack::arena::{Arena, ProcId};
use sidestep_stack::drops::DropCounters;
use sidestep_stack::runtime::control::{Reply, send_reply};
use sidestep_stack::runtime::now;
use sidestep_stack::time::{Instant, SEC};
use sidestep_stack::xsk::UmemOwner;
use stacks::{LiveStack, Rest};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use steering::{Port, Steering};

static NAME: OnceLock<String> = OnceLock::new();

/// A line in the daemon's log (standard error, or the file of `--log`).
pub(crate) fn log(line: std::fmt::Arguments<'_>) {
    crate::failure::say(format_args!("sidestepd {}: {line}", NAME.get().map_or("", String::as_str)));
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Bell,
    Netlink,
    Signal,
    Client(u32),
    Process(ProcId),
    Xsk(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, n) = match self {
            Token::Listener => (0, 0),
            Token::Bell => (1, 0),
            Token::Netlink => (2, 0),
            Token::Signal => (3, 0),
            Token::Client(n) => (4, n),
            Token::Process(n) => (5, u32::from(n)),
            Token::Xsk(n) => (6, n),
        };
        kind << 32 | u64::from(n)
    }

    fn decode(data: u64) -> Token {
        let n = data as u32;
        match data >> 32 {
            0 => Token::Listener,
            1 => Token::Bell,
            2 => Token::Netlink,
            3 => Token::Signal,
            4 => Token::Client(n),
            5 => Token::Process(n as ProcId),
            _ => Token::Xsk(n),
        }
    }
}

/// The daemon.
pub(crate) struct Daemon {
    device: Device,
    arena: &'static Arena,
    memfd: OwnedFd,
    attached: AttachedProgram,
    stacks: BTreeMap<u32, LiveStack>,
    umem: UmemOwner,
    steering: Steering,
    /// The local ports that were taken from the kernel.
    blocks: Vec<u8>,
    mirror: Mirror,
    access: Access,
    epoll: Epoll,
    listener: OwnedFd,
    bell: OwnedFd,
    signals: SignalFd,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    processes: BTreeMap<ProcId, Process>,
    /// Dead processes whose sockets could not be released yet.
    dying: HashSet<ProcId>,
    /// Children that were announced before they were forked, and have not said who they are; since when.
    unborn: BTreeMap<ProcId, Unborn>,
    draining: HashSet<Port>,
    /// There may be stacks in groups of ports on which nothing listens there.
    has_deserters: bool,
    orphans: Vec<Orphan>,
    kept: Kept,
    /// Ports that the kernel serves because several programs listen there.
    apart: HashSet<Port>,
    lines: Lines,
    /// What stacks dropped that are no more.
    gone: DropCounters,
    next_sweep: Option<Instant>,
    /// So long after a stack's last use the daemon ticks on.
    linger_us: u64,
    next_age: u64,
    ending: bool,
    /// Stacks of a daemon of before.
    adopted: usize,
    /// Who asked for the end.
    farewell: Option<Client>,
}

impl Daemon {
    /// Serves until told to stop, then takes everything back.
    pub(crate) fn run(mut self) -> Outcome<()> {
        let mut rest = Rest::Tick;
        let result = loop {
            if let Err(e) = self.turn(rest) {
                break Err(e);
            }
            if self.ending {
                break Ok(());
            }
            rest = self.soft_interrupt();
            if self.see_to_lines() || !self.dying.is_empty() {
                rest = Rest::Tick;
            }
        };
        self.wake_up();
        let farewell = self.farewell.take();
        self.tear_down();
        if let Some(client) = farewell {
            let _ = send_reply(client.socket.as_raw_fd(), &Reply::new(0, [0; 4], ""), &[]);
        }
        result
    }

    /// Sleeps as long as it may, then sees to what happened.
    fn turn(&mut self, rest: Rest) -> Outcome<()> {
        let mut events = [EpollEvent::empty(); 32];
        let others = stacks::earlier(self.lines.due, self.kept.next_look());
        let timeout = stacks::timeout(rest, stacks::earlier(self.next_sweep, others));
        let timeout = timeout.map_or(Ok(EpollTimeout::NONE), EpollTimeout::try_from).unwrap_or(EpollTimeout::MAX);
        let since = now();
        let n = match self.epoll.wait(&mut events, timeout) {
            Ok(n) => n,
            Err(nix::Error::EINTR) => 0,
            Err(e) => return Err(e).context("epoll"),
        };
        self.wake_up();
        if rest != Rest::Tick {
            self.linger_us = stacks::linger_us(now().since_us(since));
        }
        for event in &events[..n] {
            self.handle(Token::decode(event.data()))?;
        }
        if !self.dying.is_empty() {
            self.release_dying();
        }
        self.look_after_shadows();
        self.sweep_if_due();
        Ok(())
    }

    fn handle(&mut self, token: Token) -> Outcome<()> {
        match token {
            Token::Listener => self.accept(),
            Token::Client(id) => self.serve(id),
            Token::Process(id) => self.process_died(id),
            Token::Netlink => self.hear()?,
            Token::Signal => {
                while let Ok(Some(signal)) = self.signals.read_signal() {
                    log(format_args!("signal {}: going down", signal.ssi_signo));
                    self.ending = true;
                }
            }
            Token::Bell => {
                let mut count = [0u8; 8];
                let _ = nix::unistd::read(&self.bell, &mut count);
                self.scan_processes();
                self.attend();
                self.kept.look_soon();
            }
            Token::Xsk(index) => {
                // The turn at the stacks that follows every event runs it.
                if let Some(live) = self.stacks.get_mut(&index) {
                    live.is_armed = false;
                }
            }
        }
        Ok(())
    }

    /// The kernel's tables changed.
    fn hear(&mut self) -> Outcome<()> {
        let changes = self.mirror.hear().context("netlink")?;
        if changes.link {
            self.look_at_link();
        }
        if changes.all {
            self.steering.configure(self.mirror.has_vlans())?;
            self.steering.set_addresses(self.mirror.addresses.iter().map(|a| a.ip))?;
        }
        if changes.all || !changes.neighbours.is_empty() {
            self.push_changes(&changes);
        }
        Ok(())
    }

    fn look_at_link(&mut self) {
        match Device::find(&self.device.name) {
            Ok(now) if now.index == self.device.index => {
                if now.mac != self.device.mac || now.mtu != self.device.mtu {
                    (self.device.mac, self.device.mtu) = (now.mac, now.mtu);
                    self.push_device();
                }
                if now.xdp.map(|p| p.id) != Some(self.attached.id) {
                    log(format_args!("somebody removed the XDP program; the kernel serves everything"));
                }
            }
            _ => {
                log(format_args!("the device is gone"));
                self.ending = true;
            }
        }
    }

    fn sweep_if_due(&mut self) {
        if !self.needs_sweep() {
            self.next_sweep = None;
            return;
        }
        let at = now();
        match self.next_sweep {
            Some(due) if due > at => return,
            Some(_) => self.sweep(),
            None => {}
        }
        self.next_sweep = Some(at.after_us(SEC));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_epoll() {
        let all = [Token::Listener, Token::Bell, Token::Netlink, Token::Signal, Token::Client(7), Token::Process(255)];
        for token in all.into_iter().chain([Token::Xsk(63), Token::Client(u32::MAX)]) {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
