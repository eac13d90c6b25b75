//! The control socket: who asks, what for, and what they get.

use super::access::Peer;
use super::{Daemon, Token, log};
use crate::failure::{Context, Failure, Outcome};
use crate::snapshot::{self, Snapshot, StackLines};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{SockFlag, accept4};
use sidestep_stack::arena::{LAYOUT_VERSION, Mode};
use sidestep_stack::runtime::control::{FdSet, Op, Reply, Request, receive_request, send_reply};
use sidestep_xdp::maps::{MAX_STACKS, Verdict};
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

/// Connections held open at once: each process has one.
const CLIENTS_MAX: usize = 1024;

/// Of these, connections of those who may not attach: they may ask for the status, and must not keep others out.
const STRANGERS_MAX: usize = 64;
/// Requests of one connection that are answered before others have their turn.
const REQUESTS_AT_ONCE: u32 = 16;

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    peer: Peer,
    /// When it ends, its process has executed another program.
    pub(super) executes: bool,
}

impl Client {
    pub(super) fn pid(&self) -> u32 {
        self.peer.pid as u32
    }
}

/// What goes back: a reply and its descriptors. Those that were made for it are closed after it was sent.
pub(super) struct Answer {
    reply: Reply,
    fds: Vec<RawFd>,
    own: Vec<OwnedFd>,
}

impl Answer {
    pub(super) fn ok(a0: u64) -> Answer {
        Answer { reply: Reply::new(0, [a0, 0, 0, 0], ""), fds: Vec::new(), own: Vec::new() }
    }

    pub(super) fn refuse(errno: i32, text: &str) -> Answer {
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
            if self.clients.len() >= CLIENTS_MAX || self.is_stranger_too_many(&peer) {
                continue;
            }
            self.next_client = self.next_client.wrapping_add(1);
            let token = Token::Client(self.next_client).encode();
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token);
            if self.epoll.add(&socket, event).is_ok() {
                self.clients.insert(self.next_client, Client { socket, peer, executes: false });
            }
        }
    }

    fn is_stranger_too_many(&self, peer: &Peer) -> bool {
        let is_stranger = |peer: &Peer| !self.may_attach(peer);
        is_stranger(peer) && self.clients.values().filter(|c| is_stranger(&c.peer)).count() >= STRANGERS_MAX
    }

    /// The rule, and who got in by it before: a forked child of an attached process has all of it mapped already, and a program
    /// that such a process executes had it a moment ago, whatever their user is by now.
    fn may_attach(&self, peer: &Peer) -> bool {
        let pid = peer.pid as u32;
        self.access.may_attach(peer) || self.arena.processes().find(pid).is_some() || self.kept.has_executed(pid)
    }

    /// Answers what a connection asks; what it asks beyond its turn makes the next one.
    pub(super) fn serve(&mut self, id: u32) {
        for _ in 0..REQUESTS_AT_ONCE {
            let Some(client) = self.clients.get(&id) else { return };
            let (fd, peer) = (client.socket.as_raw_fd(), client.peer.clone());
            let mut given = FdSet::default();
            match receive_request(fd, &mut given) {
                Ok(Some(request)) => {
                    self.finish_exec_of_others(id, peer.pid as u32);
                    let answer = self.answer(&request, &peer, id, &given);
                    given.close_all();
                    if self.ending && request.op == Op::Down as u32 {
                        // The last word comes when all is undone.
                        self.farewell = self.clients.remove(&id);
                        return;
                    }
                    if send_reply(fd, &answer.reply, &answer.fds).is_err() {
                        return self.hang_up(id);
                    }
                    drop(answer.own);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Ok(None) | Err(_) => return self.hang_up(id),
            }
        }
    }

    fn hang_up(&mut self, id: u32) {
        if let Some(client) = self.clients.remove(&id).filter(|client| client.executes) {
            self.finish_exec(client.pid());
        }
        // Perhaps it did not wait for the answer to a Join.
        self.has_deserters = true;
    }

    fn answer(&mut self, request: &Request, peer: &Peer, client: u32, given: &FdSet) -> Answer {
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
            Op::StackOpen if a[0] == 1 => self.stack_share(a[1], peer),
            Op::StackOpen => self.stack_open(peer),
            Op::Join | Op::Leave => self.join_or_leave(op, a, peer),
            Op::Block => self.block(a[0], peer),
            Op::PortSet => self.port_set(a).map_or_else(Answer::from, |()| Answer::ok(0)),
            Op::Refresh => self.refresh(a[0] == 1),
            Op::Down => self.down(a[0] == 1),
            Op::Doctor => report(&self.examine().to_text()),
            Op::Keep => self.keep_given(given),
            Op::Exec => {
                self.note_exec(client, a[0] == 1);
                Answer::ok(0)
            }
        }
    }

    /// Who may ask for what. The report of `status` is for everybody.
    fn refusal(&self, op: Op, peer: &Peer) -> Option<Answer> {
        let (allowed, text) = match op {
            Op::Refresh => return None,
            Op::Down => (self.access.may_administer(peer), "only root may stop the daemon".to_owned()),
            Op::Doctor => (self.access.may_administer(peer), "only root may have everything counted".to_owned()),
            Op::PortSet => (self.access.may_administer(peer), "only root may switch ports".to_owned()),
            Op::Hello | Op::Map | Op::StackOpen if !peer.shares_our_pids() => {
                let text = "the daemon cannot tell processes of another PID namespace apart: run it in theirs";
                (false, text.to_owned())
            }
            _ => {
                let text = format!(
                    "user {} may not use {}: start its daemon with --allow USER (or @GROUP), or run this as root",
                    peer.uid, self.device.name
                );
                (self.may_attach(peer), text)
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

    /// A stack that another process opened, for one that was left a connection in it.
    fn stack_share(&mut self, index: u64, peer: &Peer) -> Answer {
        match self.stack_of(index, peer) {
            Some(index) => Answer::ok(u64::from(index)).with(self.stack_fds(index)),
            None => Answer::refuse(libc::EINVAL, "no such stack"),
        }
    }

    fn keep_given(&mut self, given: &FdSet) -> Answer {
        let (wanted, kept) = (given.as_slice().len(), self.keep_shadows(given.as_slice()));
        self.note_unkept(wanted, kept);
        if kept == wanted { Answer::ok(0) } else { Answer::refuse(libc::ENOBUFS, "not all connections can be kept") }
    }

    /// The stack that a request names, if its process uses it.
    pub(super) fn stack_of(&mut self, index: u64, peer: &Peer) -> Option<u32> {
        let index = u32::try_from(index).ok().filter(|i| *i < MAX_STACKS && self.stacks.contains_key(i))?;
        let id = self.register(peer.pid as u32)?;
        // A child that asks in its parent's name tells us that it uses the stack.
        self.processes.get_mut(&id)?.stacks |= 1 << index;
        Some(index)
    }

    fn block(&mut self, index: u64, peer: &Peer) -> Answer {
        match self.stack_of(index, peer).map(|i| self.give_block(i)) {
            None => Answer::refuse(libc::EINVAL, "no such stack"),
            Some(0) => Answer::refuse(libc::EADDRNOTAVAIL, "all local ports of the device are given to programs"),
            Some(n) => Answer::ok(u64::from(n)),
        }
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
        report(&self.snapshot(&verdicts).to_text())
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
            gone: snapshot::drops(&self.gone),
            ports: self.port_lines(),
            processes: self.processes.values().map(|p| p.pid).collect(),
        }
    }

    fn stack_lines(&self, index: u32, frames: u32) -> StackLines {
        let pid = self.arena.stack(index).owner_pid.load(Relaxed);
        let mut lines = StackLines { index, pid, ..StackLines::default() };
        if let Some(live) = self.stacks.get(&index)
            && let Some(guard) = super::locks::lock_patiently(&live.stack)
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
            lines.drops = snapshot::drops(&guard.counters().drops);
        }
        lines
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

/// An answer with a text that the asker reads from a file.
fn report(text: &str) -> Answer {
    match report_file(text) {
        Ok(file) => {
            let fds = vec![file.as_raw_fd()];
            Answer { own: vec![file], ..Answer::ok(0).with(fds) }
        }
        Err(e) => e.into(),
    }
}

fn report_file(text: &str) -> Outcome<OwnedFd> {
    let fd = memfd_create(c"sidestep-status", MFdFlags::MFD_CLOEXEC).context("cannot make a report")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text.as_bytes()).context("cannot write a report")?;
    file.rewind().context("cannot write a report")?;
    Ok(file.into())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
        Mode::Unknown => "unknown",
    }
}
