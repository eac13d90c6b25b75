//! The simulation: one seed is one history of hosts, a network, its faults and applications, with every check on.
//!
//! - `plan.rs`: what a seed chooses; `faults.rs`: what goes wrong, and when;
//! - `end.rs`: an application at one end of a connection.
//!
//! [`simulate`] runs a seed. It panics where the stack does; everything else that is wrong it returns.

mod end;
mod faults;
mod plan;

use super::alloc::format;
use super::alloc::string::String;
use super::alloc::vec::Vec;
use super::checks::monitor::Monitor;
use super::checks::{Verdict, counters, hosts, pairs};
use super::content::{SERVER_PORT, Side};
use super::network::Network;
use crate::addr::{Endpoint, Flow, Ip};
use crate::socket::{EpollEvent, Errno, Family, SetId, SocketId, SocketOption};
use crate::tcp::Options;
use crate::time::{Instant, SEC};
use end::{Buffer, End, Phase};
use plan::{ConnPlan, Ending, Plan};

pub use plan::Profile;

/// The host that listens.
const SERVER: usize = 0;
/// Processes: of the listener and the epoll sets; the ends of connection `i` are behind.
const PROC: u16 = 1;
const PROC_ENDS: u16 = 8;
/// Connections whose SYN may carry data come from ports of their own.
const FAST_PORTS: u16 = 7000;
/// The bell that rings for epoll sets.
const BELL: u8 = 0;
/// TCP_FASTOPEN of the listener.
const FAST_MOST: i32 = 4;
/// How soon one looks again who found something.
const LOOK_AGAIN_US: u64 = 100;
/// After the network is whole again, everything has to end within this time.
const PATIENCE_US: u64 = 1200 * SEC;
/// And what is left in the stacks (orphans, TIME-WAITs) within this.
const LINGER_US: u64 = 600 * SEC;
/// Steps at most: more are a live-lock.
const STEPS_MAX: u64 = 400_000;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub profile: Profile,
    /// What was wrong first; nothing, if all is well.
    pub violation: Option<String>,
    pub frames: u64,
    pub octets: u64,
    pub virtual_us: u64,
}

/// One connection and its two ends, as far as they exist.
struct Conn {
    plan: ConnPlan,
    client: Option<End>,
    server: Option<End>,
}

impl Conn {
    fn is_done(&self) -> bool {
        let done = |end: &Option<End>| end.as_ref().is_none_or(|e| e.phase == Phase::Done);
        self.client.is_some() && done(&self.client) && done(&self.server)
    }

    /// Whether the plan itself accounts for an error at either end.
    fn may_fail(&self) -> bool {
        let breaks = |e: &plan::EndPlan| {
            use Ending::*;
            let is_abrupt = matches!(e.ending, ShutRead(_) | Abort(_) | CloseEarly(_) | Die(_));
            is_abrupt || e.keepalive || e.user_timeout_ms != 0
        };
        self.plan.to_closed_port || self.plan.local_port != 0 || self.plan.ends.iter().any(breaks)
    }
}

/// One history.
struct Sim {
    plan: Plan,
    network: Network,
    monitor: Monitor,
    conns: Vec<Conn>,
    /// By host: the epoll set of its ends, and whether its last collection left something.
    sets: Vec<Option<SetId>>,
    unfinished: Vec<bool>,
    listener: Option<SocketId>,
    accepts_at: u64,
    faults_done: usize,
    began: Instant,
    buffer: Buffer,
    steps: u64,
}

/// Runs one seed. With `trace`, every frame, call and fault becomes a line.
pub fn simulate(seed: u64, trace: Option<fn(&str)>) -> Outcome {
    let mut sim = Sim::new(seed, trace);
    sim.run();
    sim.wind_up();
    let sent: u64 = (0..sim.network.hosts.len()).map(|i| sim.monitor.tally(i).sent).sum();
    let octets = sim.conns.iter().flat_map(|c| [&c.client, &c.server]).flatten().map(|e| e.read).sum();
    let virtual_us = sim.network.now().since_us(sim.began);
    Outcome { profile: sim.plan.profile, violation: sim.monitor.violation, frames: sent, octets, virtual_us }
}

impl Sim {
    fn new(seed: u64, trace: Option<fn(&str)>) -> Sim {
        let plan = Plan::new(seed);
        let mut network = Network::new(seed, &plan.hosts);
        network.attachments.clone_from(&plan.attachments);
        let mtus = plan.hosts.iter().map(|host| host.mtu);
        let n = plan.hosts.len();
        let mut sim = Sim {
            monitor: Monitor::new(mtus, trace),
            conns: plan.conns.iter().map(|c| Conn { plan: *c, client: None, server: None }).collect(),
            sets: (0..n).map(|_| None).collect(),
            unfinished: (0..n).map(|_| false).collect(),
            listener: None,
            accepts_at: 0,
            faults_done: 0,
            began: network.now(),
            buffer: Buffer::new(),
            steps: 0,
            network,
            plan,
        };
        sim.monitor.say(sim.began, || format!("{:#?}", sim.plan));
        (0..n).for_each(|host| sim.set_up_host(host));
        sim
    }

    /// What a host has from its start on: an epoll set; the server, its listener.
    fn set_up_host(&mut self, host: usize) {
        let mut engine = self.network.hosts[host].engine();
        let set = engine.epoll_open(PROC).ok();
        if let Some(set) = set {
            let _ = engine.epoll_wait_on(set, BELL);
        }
        self.sets[host] = set;
        if host == SERVER {
            let options = Options::new(engine.tunables());
            let local = Endpoint::new(Ip::UNSPECIFIED, SERVER_PORT);
            self.listener = engine.listen(local, false, self.plan.backlog, &options, PROC).ok();
            if let Some(listener) = self.listener {
                let _ = engine.set_option(self.began, listener, SocketOption::FastOpen, FAST_MOST);
            }
        }
    }

    /// Until all connections are done.
    fn run(&mut self) {
        let limit = self.began.after_us(self.plan.heals_at + PATIENCE_US);
        while self.monitor.violation.is_none() && !self.conns.iter().all(Conn::is_done) {
            if self.network.now() >= limit || self.steps >= STEPS_MAX {
                let stuck = self.describe_stuck();
                return self.note(stuck.map_or(Ok(()), Err), "the run");
            }
            self.turn(limit);
        }
    }

    /// One event, and what everybody does about it.
    fn turn(&mut self, limit: Instant) {
        self.steps += 1;
        let now = self.network.now().micros();
        let until = self.next_turn_at().map_or(limit, |at| Instant::from_micros(at.max(now)).min(limit));
        self.network.step(until, &mut self.monitor);
        self.do_faults();
        self.open_connections();
        self.accept();
        self.let_ends_act();
        let verdict = pairs::check(&mut self.network.hosts);
        self.note(verdict, "a pair");
        self.check_ends();
    }

    fn note(&mut self, verdict: Verdict, what: &str) {
        self.monitor.note(self.network.now(), verdict, || what.into());
    }

    /// When somebody acts who does not wait for frames or deadlines.
    fn next_turn_at(&self) -> Option<u64> {
        let began = self.began.micros();
        let opens = self.conns.iter().filter(|c| c.client.is_none()).map(|c| began + c.plan.starts_at);
        let ends = self.conns.iter().flat_map(|c| [&c.client, &c.server]).flatten();
        let acts = ends.filter(|e| e.phase != Phase::Done).flat_map(|e| {
            let stays = match e.phase {
                Phase::Staying(until) => Some(until),
                _ => None,
            };
            let sleeps = matches!(e.plan.wait, plan::Wait::Sleeps(_)).then_some(e.next_at);
            [stays, sleeps, e.breaks_at()]
        });
        let accepts = (self.plan.accept_pause_us > 0).then_some(self.accepts_at);
        let accepts = accepts.filter(|at| *at > self.network.now().micros());
        let is_busy = |e: &End| e.has_moved && e.plan.wait == plan::Wait::Busy && e.phase == Phase::Working;
        let mut busy = self.conns.iter().flat_map(|c| [&c.client, &c.server]).flatten().filter(|e| is_busy(e));
        let looks_again = self.unfinished.contains(&true) || busy.next().is_some();
        let again = looks_again.then(|| self.network.now().micros() + LOOK_AGAIN_US);
        opens.chain(acts.flatten()).chain(self.next_fault_at()).chain(accepts).chain(again).min()
    }

    fn open_connections(&mut self) {
        for i in 0..self.conns.len() {
            let due = self.began.micros() + self.conns[i].plan.starts_at;
            if self.conns[i].client.is_none() && due <= self.network.now().micros() {
                self.open(i);
            }
        }
    }

    fn open(&mut self, i: usize) {
        let plan = self.conns[i].plan;
        let now = self.network.clock(plan.client);
        let port = if plan.to_closed_port { SERVER_PORT + 1 } else { SERVER_PORT };
        let remote = self.network.endpoint(SERVER, plan.v6, port);
        // What goes with the SYN depends on the port: one that nobody else has.
        let port = if plan.is_fast { FAST_PORTS + i as u16 } else { plan.local_port };
        let local = Endpoint::new(self.network.endpoint(plan.client, plan.v6, 0).ip, port);
        let family = if plan.v6 { Family::V6 } else { Family::V4 };
        let proc = PROC_ENDS + 2 * i as u16;
        let mut engine = self.network.hosts[plan.client].engine();
        let Ok(socket) = engine.open_stream(family, false, proc) else {
            self.conns[i].plan.starts_at += SEC; // No socket left: once more, later.
            return;
        };
        let mut end = End::new(plan.client, Side::Client, proc, socket, 0, plan.ends[0], plan.ends[1].total, now);
        if let Some(set) = self.sets[plan.client] {
            end.prepare(&mut engine, now, set, 2 * i as u32);
        }
        let begun = match plan.is_fast {
            true => end.begin_fast(&mut engine, now, local, remote),
            false => engine.connect(now, socket, Some(local), remote),
        };
        match begun {
            Err(Errno::EINPROGRESS) => end.client_port = engine.local_endpoint(socket).map_or(0, |e| e.port),
            other => {
                end.error = other.err();
                end.phase = Phase::Done;
                let _ = engine.release(now, socket, proc);
            }
        }
        self.monitor.say(now, || format!("** connection {i} opens from port {}", end.client_port));
        self.conns[i].client = Some(end);
    }

    fn accept(&mut self) {
        let Some(listener) = self.listener.filter(|_| self.accepts_at <= self.network.now().micros()) else { return };
        while self.network.hosts[SERVER].engine().has_pending_accepts(listener) {
            let now = self.network.clock(SERVER);
            self.accepts_at = now.micros() + self.plan.accept_pause_us;
            let mut engine = self.network.hosts[SERVER].engine();
            let Ok((socket, peer)) = engine.accept(now, listener, PROC) else { return };
            let Some(i) = self.conn_of(&peer) else { continue };
            let (plan, proc) = (self.conns[i].plan, PROC_ENDS + 2 * i as u16 + 1);
            let mut engine = self.network.hosts[SERVER].engine();
            // The process that serves it takes it over.
            let _ = engine.hold(socket, proc);
            let _ = engine.release(now, socket, PROC);
            let mut end =
                End::new(SERVER, Side::Server, proc, socket, peer.port, plan.ends[1], plan.ends[0].total, now);
            if let Some(set) = self.sets[SERVER] {
                end.prepare(&mut engine, now, set, 2 * i as u32 + 1);
            }
            self.monitor.say(now, || format!("** connection {i} is accepted"));
            if let Some(old) = self.conns[i].server.replace(end)
                && old.phase != Phase::Done
            {
                let _ = engine.release(now, old.socket, old.proc);
            }
        }
    }

    /// The newest connection from there.
    fn conn_of(&self, peer: &Endpoint) -> Option<usize> {
        let host = self.network.hosts.iter().position(|h| h.config.ip() == peer.ip || h.config.v6 == peer.ip)?;
        let is_its = |c: &Conn| {
            let from = c.client.as_ref().map(|e| (e.host, e.client_port));
            from == Some((host, peer.port)) && c.plan.v6 != peer.ip.is_v4() && !c.plan.to_closed_port
        };
        let began = |i: &usize| self.conns[*i].client.as_ref().map(|e| e.began_at);
        (0..self.conns.len()).filter(|i| is_its(&self.conns[*i])).max_by_key(began)
    }

    fn let_ends_act(&mut self) {
        for host in 0..self.network.hosts.len() {
            let rang = self.network.hosts[host].engine().take_wakeups() & 1 << BELL != 0;
            if rang || self.unfinished[host] {
                self.collect(host);
            }
        }
        let now = self.network.now().micros();
        for key in 0..2 * self.conns.len() {
            let Some(end) = self.end(key) else { continue };
            let is_due = match (end.phase, end.plan.wait) {
                (Phase::Done, _) => false,
                (Phase::Staying(until), _) if until <= now => true,
                _ if end.breaks_at().is_some_and(|at| at <= now) => true,
                (_, plan::Wait::Busy) => true,
                (_, plan::Wait::Sleeps(_)) => end.next_at <= now,
                _ => false,
            };
            if is_due {
                self.act(key);
            }
        }
    }

    /// What the epoll set of a host reports: these ends have their turn.
    fn collect(&mut self, host: usize) {
        let Some(set) = self.sets[host] else { return };
        let mut out = [EpollEvent::default(); 16];
        let n = self.network.hosts[host].engine().epoll_collect(set, &mut out).unwrap_or(0);
        // What is level-triggered may be ready still.
        self.unfinished[host] = n > 0;
        for EpollEvent { events, data } in out[..n].iter().copied() {
            self.monitor.say(self.network.now(), || format!("{host} ** epoll says {events:#x} of end {data}"));
            self.act(data as usize);
        }
    }

    fn end(&mut self, key: usize) -> Option<&mut End> {
        let conn = self.conns.get_mut(key / 2)?;
        if key.is_multiple_of(2) { conn.client.as_mut() } else { conn.server.as_mut() }
    }

    fn act(&mut self, key: usize) {
        let Some(end) = self.end(key) else { return };
        let host = end.host;
        let now = self.network.clock(host);
        let Some(set) = self.sets[host] else { return };
        let mut buffer = core::mem::take(&mut self.buffer);
        let conn = &mut self.conns[key / 2];
        let (end, peer) = match key % 2 {
            0 => (&mut conn.client, &conn.server),
            _ => (&mut conn.server, &conn.client),
        };
        let Some(end) = end.as_mut() else { return };
        let time = self.network.now().micros();
        let before = (end.written, end.read, end.phase);
        let mut engine = self.network.hosts[host].engine();
        let marks = peer.as_ref().map_or(&[][..], |peer| &peer.marks);
        let result = end.act(&mut engine, time, now, set, key as u32, &mut buffer, marks);
        end.has_moved = before != (end.written, end.read, end.phase);
        if end.has_moved {
            let (w, r, phase) = (end.written, end.read, end.phase);
            self.monitor.say(now, || format!("{host} ** end {key}: written {w}, read {r}, {phase:?} {:?}", end.error));
        }
        self.buffer = buffer;
        self.note(result, &format!("end {key} on host {host}"));
        let host_itself = &mut self.network.hosts[host];
        let mut verdict = hosts::check(host_itself, now);
        if now.micros().is_multiple_of(64) {
            verdict = verdict.and_then(|()| hosts::check_books(host_itself)); // which looks at every slot
        }
        self.note(verdict, &format!("host {host}, after end {key} acted"));
    }

    /// Errors need a reason, and the end of a stream stands where its writer stopped.
    fn check_ends(&mut self) {
        let is_broken = self.plan.may_break || self.plan.is_rough;
        let denied: Vec<bool> = (0..self.conns.len()).map(|i| self.was_denied(i)).collect();
        let mut verdict = Ok(());
        for (i, conn) in self.conns.iter().enumerate() {
            for (end, peer) in [(&conn.client, &conn.server), (&conn.server, &conn.client)] {
                let Some(end) = end else { continue };
                let may_come_twice = conn.plan.is_fast && self.plan.has_duplicates;
                let has_reason = is_broken || conn.may_fail() || denied[i] || may_come_twice;
                if let Some(error) = end.error.filter(|_| !has_reason) {
                    verdict = Err(format!("connection {i}, {:?}: {error:?} without a reason", end.side));
                }
                if let Some(peer) = peer.as_ref().filter(|_| end.trusts_eof() && conn.plan.local_port == 0)
                    && peer.written != end.read
                {
                    let (w, r) = (peer.written, end.read);
                    verdict =
                        Err(format!("connection {i}, {:?}: the end after {r} octets, but {w} were written", end.side));
                }
            }
        }
        self.note(verdict, "an application");
    }

    /// Those that did not end, and should have: one whose peer was lost without a word may wait for ever, as everywhere.
    fn describe_stuck(&mut self) -> Option<String> {
        let mut text = String::new();
        for i in 0..self.conns.len() {
            // What accept() never saw may be a cookie whose last segment found no room: its server does not know of it.
            let is_cookie = self.conns[i].server.is_none() && self.has_sent_cookies();
            let may_wait = self.plan.is_rough || self.plan.may_break || self.conns[i].may_fail() || is_cookie;
            let is_alone = [0, 1].map(|side| self.has_connection(2 * i + side)) != [true, true];
            if self.conns[i].is_done() || may_wait && is_alone {
                continue;
            }
            for end in [&self.conns[i].client, &self.conns[i].server].into_iter().flatten() {
                let End { side, phase, written, read, plan, peer_total, .. } = end;
                text += &format!(
                    " connection {i} {side:?} {phase:?} wrote {written} of {} read {read} of {peer_total};",
                    plan.total
                );
            }
        }
        let steps = self.steps;
        (!text.is_empty() || steps >= STEPS_MAX).then(|| format!("does not end ({steps} steps):{text}"))
    }

    fn has_sent_cookies(&mut self) -> bool {
        self.network.hosts[SERVER].engine().counters().syn_cookies_sent > 0
    }

    /// Whether the server reset a connection that it knew by a cookie alone.
    fn was_denied(&mut self, i: usize) -> bool {
        self.has_sent_cookies()
            && self.flow_of(2 * i + 1).is_some_and(|(host, flow)| self.monitor.was_denied(host, &flow))
    }

    /// The host of this end, and its connection's flow there.
    fn flow_of(&self, key: usize) -> Option<(usize, Flow)> {
        let client = self.conns[key / 2].client.as_ref()?;
        let v6 = self.conns[key / 2].plan.v6;
        let client_end = Endpoint::new(self.network.endpoint(client.host, v6, 0).ip, client.client_port);
        let server_end = self.network.endpoint(SERVER, v6, SERVER_PORT);
        Some(match key % 2 {
            0 => (client.host, Flow { local: client_end, remote: server_end }),
            _ => (SERVER, Flow { local: server_end, remote: client_end }),
        })
    }

    /// Whether the stack of this end still has its connection, held or orphaned.
    fn has_connection(&mut self, key: usize) -> bool {
        let found = self.flow_of(key);
        found.is_some_and(|(host, flow)| self.network.hosts[host].engine().lookup(&flow).is_some())
    }

    /// Everybody lets go of everything; then nothing may be left.
    fn wind_up(&mut self) {
        if self.monitor.violation.is_some() {
            return;
        }
        for host in 0..self.network.hosts.len() {
            let now = self.network.clock(host);
            for proc in PROC..PROC_ENDS + 2 * self.conns.len() as u16 {
                self.network.hosts[host].engine().release_process(now, proc);
            }
        }
        let limit = self.network.now().after_us(LINGER_US);
        while self.monitor.violation.is_none() && self.network.step(limit, &mut self.monitor) {
            self.steps += 1;
            if self.steps >= STEPS_MAX {
                return self.note(Err("too many steps".into()), "the end");
            }
        }
        self.network.step(self.network.now().after_us(SEC), &mut self.monitor);
        for host in 0..self.network.hosts.len() {
            if self.monitor.violation.is_some() {
                return;
            }
            let tally = self.monitor.tally(host);
            let verdict = hosts::check_empty(&mut self.network.hosts[host])
                .and_then(|()| counters::check(&mut self.network.hosts[host], &tally));
            self.note(verdict, &format!("host {host} in the end"));
        }
    }
}
