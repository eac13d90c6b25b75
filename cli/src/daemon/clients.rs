//! The control socket: who asks, what for, and what they get.

use super::access::Peer;
use super::steering::{Plan, Port, Steering};
use super::{Daemon, Token, log};
use crate::failure::{Context, Failure, Outcome};
use crate::snapshot::{self, PortLine, Snapshot, StackLines};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{SockFlag, accept4};
use sidestep_stack::arena::{LAYOUT_VERSION, Mode, Policy, Proto};
use sidestep_stack::runtime::control::{Op, Reply, Request, receive_request, send_reply};
use sidestep_xdp::maps::{MAX_STACKS, Verdict};
use std::collections::HashSet;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

/// Connections held open at once: each process has one.
const CLIENTS_MAX: usize = 1024;

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    peer: Peer,
}

/// What goes back: a reply and its descriptors. Those that were made for it are closed after it was sent.
struct Answer {
    reply: Reply,
    fds: Vec<RawFd>,
    own: Vec<OwnedFd>,
}

impl Answer {
    fn ok(a0: u64) -> Answer {
        Answer { reply: Reply::new(0, [a0, 0, 0, 0], ""), fds: Vec::new(), own: Vec::new() }
    }

    fn refuse(errno: i32, text: &str) -> Answer {
        Answer { reply: Reply::new(errno, [0; 4], text), fds: Vec::new(), own: Vec::new() }
    }

    fn with(mut self, fds: Vec<RawFd>) -> Answer {
        self.fds = fds;
        self
    }
}

impl From<Failure> for Answer {
    fn from(e: Failure) -> Answer {
        log(format_args!("{e}"));
        Answer::refuse(libc::ENOBUFS, &e.to_string())
    }
}

impl Daemon {
    /// Takes new connections.
    pub(super) fn accept(&mut self) {
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            // SAFETY: accept4 returned a descriptor that nobody else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let Ok(peer) = Peer::of(fd) else { continue };
            if self.clients.len() >= CLIENTS_MAX {
                continue;
            }
            self.next_client = self.next_client.wrapping_add(1);
            let token = Token::Client(self.next_client).encode();
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token);
            if self.epoll.add(&socket, event).is_ok() {
                self.clients.insert(self.next_client, Client { socket, peer });
            }
        }
    }

    /// Answers what a connection asks.
    pub(super) fn serve(&mut self, id: u32) {
        loop {
            let Some(client) = self.clients.get(&id) else { return };
            let (fd, peer) = (client.socket.as_raw_fd(), client.peer.clone());
            match receive_request(fd) {
                Ok(Some(request)) => {
                    let answer = self.answer(&request, &peer);
                    if self.ending && request.op == Op::Down as u32 {
                        // The last word comes when all is undone.
                        self.farewell = self.clients.remove(&id);
                        return;
                    }
                    if send_reply(fd, &answer.reply, &answer.fds).is_err() {
                        break;
                    }
                    drop(answer.own);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.clients.remove(&id);
    }

    fn answer(&mut self, request: &Request, peer: &Peer) -> Answer {
        let Some(op) = Op::from_raw(request.op) else {
            return Answer::refuse(libc::EOPNOTSUPP, "the daemon does not know this request: it is of another build");
        };
        // The end must be had from any build: it is what a newer one tells people to ask for.
        if request.version != LAYOUT_VERSION && request.op != Op::Down as u32 {
            let text = "the daemon is of another build: sidestep down, then up, with this one";
            return Answer::refuse(libc::EPROTO, text);
        }
        if let Some(refusal) = self.refusal(op, peer) {
            return refusal;
        }
        let a = request.a;
        match op {
            Op::Hello => self.hello(a, peer),
            Op::Map => Answer::ok(0).with(vec![self.memfd.as_raw_fd()]),
            Op::StackOpen => self.stack_open(peer),
            Op::Join | Op::Leave => self.join_or_leave(op, a, peer),
            Op::Block => self.block(a[0], peer),
            Op::PortSet => self.port_set(a).map_or_else(Answer::from, |()| Answer::ok(0)),
            Op::Refresh => self.refresh(a[0] == 1),
            Op::Down => self.down(a[0] == 1),
        }
    }

    /// Who may ask for what. The report of `status` is for everybody.
    fn refusal(&self, op: Op, peer: &Peer) -> Option<Answer> {
        let (allowed, text) = match op {
            Op::Refresh => return None,
            Op::Down => (self.access.may_administer(peer), "only root may stop the daemon".to_owned()),
            Op::PortSet => (self.access.may_administer(peer), "only root may switch ports".to_owned()),
            _ => {
                // A forked child of an attached process has all of it mapped already, whatever its user is by now.
                let inherits = self.arena.processes().find(peer.pid as u32).is_some();
                let text = format!(
                    "user {} may not use {}: start its daemon with --allow USER (or @GROUP), or run this as root",
                    peer.uid, self.device.name
                );
                (inherits || self.access.may_attach(peer), text)
            }
        };
        (!allowed).then(|| Answer::refuse(libc::EACCES, &text))
    }

    fn hello(&mut self, a: [u64; 4], peer: &Peer) -> Answer {
        if a[0] == 1 && a[1] != self.arena.header().id() {
            return Answer::refuse(libc::ESTALE, "this process belongs to a daemon of before; start it anew");
        }
        let Some(id) = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0).and_then(|pid| self.register(pid)) else {
            return Answer::refuse(libc::EAGAIN, "as many processes as there can be are attached to this device");
        };
        Answer::ok(u64::from(id)).with(vec![self.memfd.as_raw_fd(), self.bell.as_raw_fd()])
    }

    fn stack_open(&mut self, peer: &Peer) -> Answer {
        let Some(id) = self.register(peer.pid as u32) else {
            return Answer::refuse(libc::EPERM, "say hello first");
        };
        match self.open_stack(peer.pid as u32) {
            Ok(index) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.stacks |= 1 << index;
                }
                Answer::ok(u64::from(index)).with(self.stack_fds(index))
            }
            Err(e) => e.into(),
        }
    }

    /// The stack that a request names, if its process uses it.
    fn stack_of(&mut self, index: u64, peer: &Peer) -> Option<u32> {
        let index = u32::try_from(index).ok().filter(|i| *i < MAX_STACKS && self.stacks.contains_key(i))?;
        let id = self.register(peer.pid as u32)?;
        // A child that asks in its parent's name tells us that it uses the stack.
        self.processes.get_mut(&id)?.stacks |= 1 << index;
        Some(index)
    }

    fn block(&mut self, index: u64, peer: &Peer) -> Answer {
        match self.stack_of(index, peer).map(|i| self.give_block(i)) {
            None => Answer::refuse(libc::EINVAL, "no such stack"),
            Some(0) => Answer::refuse(libc::EADDRNOTAVAIL, "no block of local ports is left"),
            Some(n) => Answer::ok(u64::from(n)),
        }
    }

    fn join_or_leave(&mut self, op: Op, a: [u64; 4], peer: &Peer) -> Answer {
        let (Some(port), Some(stack)) = (port_of(a), self.stack_of(a[2], peer)) else {
            return Answer::refuse(libc::EINVAL, "no such port or stack");
        };
        if op == Op::Join && !self.policy(port).allows() {
            return Answer::refuse(libc::EACCES, "the operator switched this port off");
        }
        let done = if op == Op::Join { self.join(port, stack) } else { self.leave(port, stack) };
        done.map_or_else(Answer::from, |()| Answer::ok(0))
    }

    pub(super) fn policy(&self, port: Port) -> Policy {
        self.arena.policy(arena_proto(port), port.1)
    }

    fn join(&mut self, port: Port, stack: u32) -> Outcome<()> {
        match self.steering.plan_join(port, stack)? {
            Some(plan) => self.carry_out(port, &plan),
            None => Ok(()),
        }
    }

    pub(super) fn leave(&mut self, port: Port, stack: u32) -> Outcome<()> {
        match self.steering.plan_leave(port, stack) {
            Some(plan) => self.carry_out(port, &plan),
            None => Ok(()),
        }
    }

    /// A stack serves nothing any more.
    pub(super) fn leave_all(&mut self, stack: u32) {
        for port in self.steering.ports_of(stack) {
            if let Err(e) = self.leave(port, stack) {
                log(format_args!("port {}: {e}", name_of(port)));
            }
        }
    }

    /// Pins the live flows of those who lose buckets, moves the buckets, and pins once more: what arrived between the two.
    fn carry_out(&mut self, port: Port, plan: &Plan) -> Outcome<()> {
        self.pin_losers(port, plan);
        let policy = self.policy(port);
        self.steering.commit(plan, policy)?;
        self.pin_losers(port, plan);
        self.steering.write_port(port, policy)?;
        self.count_members(port);
        Ok(())
    }

    /// Tells the processes how many serve the port.
    pub(super) fn count_members(&self, port: Port) {
        let members = self.steering.members(port).len() as u32;
        self.arena.set_group_members(arena_proto(port), port.1, members);
    }

    fn pin_losers(&mut self, port: Port, plan: &Plan) {
        for stack in &plan.losers {
            let flows = self.stacks.get(stack).map(|live| live.flows(port)).unwrap_or_default();
            flows.iter().for_each(|flow| self.steering.pin_if_moved(plan, *stack, flow));
        }
    }

    /// The operator switches a port.
    fn port_set(&mut self, a: [u64; 4]) -> Outcome<()> {
        let Some(port) = port_of(a) else { crate::failure::fail!("no such port") };
        let mut policy = Policy::from_raw(u8::try_from(a[2]).unwrap_or(0));
        if policy == Policy::Off && self.has_flows(port) {
            policy = Policy::Draining;
        }
        let before = self.policy(port);
        self.arena.set_policy(arena_proto(port), port.1, policy);
        self.draining.remove(&port);
        if policy == Policy::Draining {
            self.draining.insert(port);
        }
        log(format_args!("port {}: {}", name_of(port), policy_name(policy)));
        if policy.allows() && !before.allows() {
            return self.steering.expect_kernel_flows(port, policy);
        }
        self.steering.write_port(port, policy)
    }

    /// Whether connections of the port live in a stack. A datagram socket has none that must stay: what the kernel takes
    /// over from one moment to the next reaches the same socket.
    fn has_flows(&self, port: Port) -> bool {
        if arena_proto(port) == Proto::Udp {
            return false;
        }
        let members = self.steering.members(port);
        members.iter().filter_map(|i| self.stacks.get(i)).any(|live| !live.flows(port).is_empty())
            || self.steering.pinned_ports().iter().any(|(p, _)| *p == port)
    }

    /// Every second while there is something to end: draining ports, pinned flows, connections of the kernel's.
    pub(super) fn sweep(&mut self) {
        let over: Vec<Port> = self.draining.iter().copied().filter(|p| !self.has_flows(*p)).collect();
        for port in over {
            self.draining.remove(&port);
            self.arena.set_policy(arena_proto(port), port.1, Policy::Off);
            log(format_args!("port {}: its last connection ended, it is off", name_of(port)));
            if let Err(e) = self.steering.write_port(port, Policy::Off) {
                log(format_args!("{e}"));
            }
        }
        let mut live = HashSet::new();
        for (port, stack) in self.steering.pinned_ports() {
            let flows = self.stacks.get(&stack).map(|s| s.flows(port)).unwrap_or_default();
            live.extend(flows.iter().map(|flow| (stack, Steering::key(port, flow))));
        }
        let arena = self.arena;
        if let Err(e) = self.steering.sweep(&live, |port| arena.policy(arena_proto(port), port.1)) {
            log(format_args!("{e}"));
        }
    }

    pub(super) fn needs_sweep(&self) -> bool {
        !self.draining.is_empty() || self.steering.needs_sweep()
    }

    fn refresh(&mut self, with_report: bool) -> Answer {
        let verdicts = match self.steering.verdicts() {
            Ok(verdicts) => verdicts,
            Err(e) => return e.into(),
        };
        for (slot, value) in self.arena.header().verdicts.iter().zip(&verdicts) {
            slot.store(*value, Relaxed);
        }
        if !with_report {
            return Answer::ok(0);
        }
        match report_file(&self.snapshot(&verdicts)) {
            Ok(file) => {
                let fds = vec![file.as_raw_fd()];
                Answer { own: vec![file], ..Answer::ok(0).with(fds) }
            }
            Err(e) => e.into(),
        }
    }

    fn snapshot(&self, verdicts: &[u64]) -> Snapshot {
        let header = self.arena.header();
        let census = self.arena.census();
        let in_stacks: u32 = census.stacks.iter().sum();
        let reason = header.reason();
        let end = reason.iter().position(|b| *b == 0).unwrap_or(reason.len());
        let numbers = [
            ("ifindex", u64::from(self.device.index)),
            ("queues", u64::from(self.device.queues)),
            ("daemon_pid", u64::from(std::process::id())),
            ("total", u64::from(census.total)),
            ("pool", u64::from(census.pool)),
            ("fill", u64::from(census.fill)),
            ("stacks", u64::from(in_stacks)),
        ];
        Snapshot {
            name: self.device.name.clone(),
            mode: mode_name(header.mode()).to_owned(),
            copy: if header.zero_copy.load(Relaxed) == 1 { "zero-copy" } else { "copy" }.to_owned(),
            reason: String::from_utf8_lossy(&reason[..end]).into_owned(),
            numbers: numbers.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            verdicts: Verdict::ALL.iter().zip(verdicts).map(|(v, n)| (v.name().to_owned(), *n)).collect(),
            stacks: self.stacks.keys().map(|i| self.stack_lines(*i, census.stacks[*i as usize])).collect(),
            ports: self.port_lines(),
            processes: self.processes.values().map(|p| p.pid).collect(),
        }
    }

    fn stack_lines(&self, index: u32, frames: u32) -> StackLines {
        let pid = self.arena.stack(index).owner_pid.load(Relaxed);
        let mut lines = StackLines { index, pid, ..StackLines::default() };
        if let Some(live) = self.stacks.get(&index)
            && let Some(guard) = super::stacks::lock(&live.stack)
        {
            let alive = guard.population();
            let population = [
                ("connections", alive.connections),
                ("time_waits", alive.time_waits),
                ("sockets", alive.sockets),
                ("frames", frames),
            ];
            lines.numbers = population.iter().map(|(name, n)| ((*name).to_owned(), u64::from(*n))).collect();
            lines.numbers.extend(snapshot::counters(guard.counters()));
            lines.drops = snapshot::drops(guard.counters());
        }
        lines
    }

    fn port_lines(&self) -> Vec<PortLine> {
        let all = [Proto::Tcp, Proto::Udp].map(|proto| (0..=u16::MAX).map(move |port| (proto as u8, port)));
        let is_switched = |port: &Port| self.policy(*port) != Policy::Auto;
        let mut ports: Vec<Port> = all.into_iter().flatten().filter(is_switched).collect();
        ports.extend(self.steering.ports().filter(|p| !self.steering.members(*p).is_empty()));
        ports.sort_unstable();
        ports.dedup();
        let line = |port: Port| PortLine {
            port: port.1,
            proto: proto_name(port).to_owned(),
            policy: policy_name(self.policy(port)).to_owned(),
            members: self.steering.members(port).len() as u32,
        };
        ports.into_iter().map(line).collect()
    }

    fn down(&mut self, force: bool) -> Answer {
        self.scan_processes();
        if !force && !self.processes.is_empty() {
            let pids: Vec<String> = self.processes.values().take(12).map(|p| p.pid.to_string()).collect();
            let text =
                format!("processes are attached: {}; end them, or cut their connections with --force", pids.join(" "));
            return Answer::refuse(libc::EBUSY, &text);
        }
        self.ending = true;
        Answer::ok(0)
    }
}

fn report_file(snapshot: &Snapshot) -> Outcome<OwnedFd> {
    let fd = memfd_create(c"sidestep-status", MFdFlags::MFD_CLOEXEC).context("cannot make a report")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(snapshot.to_text().as_bytes()).context("cannot write a report")?;
    file.rewind().context("cannot write a report")?;
    Ok(file.into())
}

fn port_of(a: [u64; 4]) -> Option<Port> {
    let proto = u8::try_from(a[0]).ok().filter(|p| *p <= Proto::Udp as u8)?;
    Some((proto, u16::try_from(a[1]).ok().filter(|p| *p != 0)?))
}

pub(super) fn arena_proto(port: Port) -> Proto {
    if port.0 == Proto::Udp as u8 { Proto::Udp } else { Proto::Tcp }
}

fn proto_name(port: Port) -> &'static str {
    if port.0 == Proto::Udp as u8 { "udp" } else { "tcp" }
}

/// The port as people write it.
fn name_of(port: Port) -> String {
    format!("{}/{}", port.1, proto_name(port))
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Auto => "auto",
        Policy::On => "on",
        Policy::Off => "off",
        Policy::Draining => "draining",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
        Mode::Unknown => "unknown",
    }
}
