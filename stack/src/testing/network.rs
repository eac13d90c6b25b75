//! Hosts on a switch, each with a link up and a link down, in virtual time.
//!
//! Everything that leaves or reaches a host is shown to a [`Watcher`]: the checks of the simulation, or a trace.

use super::alloc::collections::BinaryHeap;
use super::alloc::vec::Vec;
use super::icmp::too_big;
use super::link::{Link, LinkConfig, Passage};
use super::{Host, HostConfig, Random};
use crate::addr::{Endpoint, Ip, Mac};
use crate::time::Instant;
use crate::wire::ethernet::Tags;
use core::cmp::Reverse;

/// Who looks on.
pub trait Watcher {
    /// A host gave a frame to its link.
    fn sent(&mut self, now: Instant, host: usize, bytes: &[u8]);
    /// A frame is about to reach a host, which has a buffer for it.
    fn received(&mut self, now: Instant, host: usize, bytes: &[u8]);
    /// A frame came to nothing on the way from or to a host.
    fn lost(&mut self, now: Instant, host: usize, why: &'static str, bytes: &[u8]);
    /// The host did something: frames came, timers were served.
    fn worked(&mut self, now: Instant, index: usize, host: &mut Host);
}

/// Nobody looks.
pub struct Nobody;

impl Watcher for Nobody {
    fn sent(&mut self, _: Instant, _: usize, _: &[u8]) {}
    fn received(&mut self, _: Instant, _: usize, _: &[u8]) {}
    fn lost(&mut self, _: Instant, _: usize, _: &'static str, _: &[u8]) {}
    fn worked(&mut self, _: Instant, _: usize, _: &mut Host) {}
}

/// Where a frame on its way comes out next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stop {
    Switch { from: usize },
    Host(usize),
}

type Flying = Reverse<(u64, u64, Stop, Vec<u8>)>;

/// A host's two directions, and how its transmit ring behaves.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    pub up: Link,
    pub down: Link,
    /// The "kernel" reads a frame for up to so long before it is done with it.
    pub ring_hold_us: u64,
    /// Callers' clocks are up to so much behind: `now` may go backwards from call to call.
    pub clock_skew_us: u64,
}

/// The hosts and what is between them.
pub struct Network {
    pub hosts: Vec<Host>,
    pub attachments: Vec<Attachment>,
    pub random: Random,
    now: Instant,
    flying: BinaryHeap<Flying>,
    /// Frames that the "kernel" of a host reads, and until when.
    in_tx: Vec<Vec<(u32, u64)>>,
    order: u64,
    /// Steps that did not move the clock.
    repeats: u32,
}

/// So many steps may happen at one instant; then the clock moves by this much.
const REPEATS_MAX: u32 = 4;
const STUCK_STEP_US: u64 = 100;

impl Network {
    pub fn new(seed: u64, configs: &[HostConfig]) -> Network {
        let mut random = Random::new(seed);
        let hosts: Vec<Host> = configs.iter().map(|c| Host::new(c.clone(), random.number())).collect();
        let mut network = Network {
            attachments: hosts.iter().map(|_| Attachment::default()).collect(),
            in_tx: hosts.iter().map(|_| Vec::new()).collect(),
            hosts,
            random,
            now: Instant::from_micros(1_000_000),
            flying: BinaryHeap::new(),
            order: 0,
            repeats: 0,
        };
        (0..network.hosts.len()).for_each(|i| network.introduce(i));
        network
    }

    /// Tells a host everybody's hardware address.
    pub fn introduce(&mut self, host: usize) {
        let others: Vec<(Ip, Ip, Mac)> =
            self.hosts.iter().map(|h| (h.config.ip(), h.config.v6, h.config.mac)).collect();
        let mut engine = self.hosts[host].engine();
        for (_, (v4, v6, mac)) in others.iter().enumerate().filter(|(i, _)| *i != host) {
            engine.net_mut().set_neighbour(v4, Tags::NONE, Some(*mac));
            engine.net_mut().set_neighbour(v6, Tags::NONE, Some(*mac));
        }
    }

    /// All links of all hosts, both ways.
    pub fn set_links(&mut self, config: LinkConfig) {
        for attachment in &mut self.attachments {
            attachment.up.config = config;
            attachment.down.config = config;
        }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time as the next caller on a host reads it.
    pub fn clock(&mut self, host: usize) -> Instant {
        match self.attachments[host].clock_skew_us {
            0 => self.now,
            skew => Instant::from_micros(self.now.micros() - self.random.below(skew + 1)),
        }
    }

    /// An endpoint of a host.
    pub fn endpoint(&self, host: usize, v6: bool, port: u16) -> Endpoint {
        let config = &self.hosts[host].config;
        Endpoint::new(if v6 { config.v6 } else { config.ip() }, port)
    }

    /// Frames on their way.
    pub fn frames_in_flight(&self) -> usize {
        self.flying.len()
    }

    /// The host starts again; what its transmit ring held is gone with it.
    pub fn reboot(&mut self, host: usize) {
        let secret = self.random.number();
        self.in_tx[host].clear();
        self.hosts[host].reboot(secret);
        self.introduce(host);
    }

    /// Takes all that the hosts want to send, then goes to the next event: an arrival, a deadline, a completion. False
    /// when there is none before `until`; the clock then stands there.
    pub fn step(&mut self, until: Instant, watcher: &mut dyn Watcher) -> bool {
        self.transmit(watcher);
        let next = self.next_event().filter(|at| *at <= until);
        self.go_to(next, until);
        self.deliver(watcher);
        for host in 0..self.hosts.len() {
            let now = self.clock(host);
            self.hosts[host].watch_frames();
            let due = self.hosts[host].engine().next_deadline().is_some_and(|at| at <= now);
            self.hosts[host].engine().handle_timers(now);
            if due {
                watcher.worked(self.now, host, &mut self.hosts[host]);
            }
        }
        self.transmit(watcher);
        next.is_some()
    }

    /// A host whose clock is behind has not served what is due: then time goes on nevertheless, a little.
    fn go_to(&mut self, next: Option<Instant>, until: Instant) {
        let is_stuck = next == Some(self.now);
        self.repeats = if is_stuck { self.repeats + 1 } else { 0 };
        let at = if self.repeats > REPEATS_MAX { self.now.after_us(STUCK_STEP_US) } else { next.unwrap_or(until) };
        self.now = at.max(self.now);
    }

    /// Runs for a while.
    pub fn run_for(&mut self, us: u64, watcher: &mut dyn Watcher) {
        let until = self.now.after_us(us);
        while self.step(until, watcher) {}
    }

    fn next_event(&mut self) -> Option<Instant> {
        let arrival = self.flying.peek().map(|Reverse((at, ..))| Instant::from_micros(*at));
        let held = self.in_tx.iter().flatten().filter(|(_, at)| *at > self.now.micros());
        let completion = held.map(|(_, at)| Instant::from_micros(*at)).min();
        let deadline = self.hosts.iter_mut().filter_map(|host| host.engine().next_deadline()).min();
        [arrival, completion, deadline].into_iter().flatten().min().map(|at| at.max(self.now))
    }

    /// Whether nothing will ever happen again without a call.
    pub fn is_dry(&mut self) -> bool {
        self.next_event().is_none()
    }

    fn complete(&mut self, host: usize) {
        let now = self.now.micros();
        let mut i = 0;
        while i < self.in_tx[host].len() {
            match self.in_tx[host][i] {
                (frame, until) if until <= now => {
                    self.in_tx[host].swap_remove(i);
                    self.hosts[host].complete(frame);
                }
                _ => i += 1,
            }
        }
    }

    fn transmit(&mut self, watcher: &mut dyn Watcher) {
        for from in 0..self.hosts.len() {
            self.complete(from);
            loop {
                let now = self.clock(from);
                let mut engine = self.hosts[from].engine();
                let Some(tx) = engine.poll_transmit(now) else { break };
                let at = usize::from(tx.off);
                let bytes = engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)].to_vec();
                let hold = match self.attachments[from].ring_hold_us {
                    0 => 0,
                    most => self.random.below(most + 1),
                };
                self.in_tx[from].push((tx.frame, self.now.micros() + hold));
                watcher.sent(self.now, from, &bytes);
                self.enter(from, true, bytes, watcher);
            }
        }
    }

    /// A frame enters the link up or down of `host`.
    fn enter(&mut self, host: usize, is_up: bool, mut bytes: Vec<u8>, watcher: &mut dyn Watcher) {
        let attachment = &mut self.attachments[host];
        let (link, stop) = match is_up {
            true => (&mut attachment.up, Stop::Switch { from: host }),
            false => (&mut attachment.down, Stop::Host(host)),
        };
        match link.carry(self.now.micros(), &mut self.random, &mut bytes) {
            Passage::Lost(why) => watcher.lost(self.now, host, why, &bytes),
            Passage::TooBig(mtu) => {
                watcher.lost(self.now, host, "too big", &bytes);
                self.answer_too_big(mtu, &bytes);
            }
            passage => {
                for at in passage.arrivals() {
                    self.fly(at, stop, bytes.clone());
                }
            }
        }
    }

    /// The router in front of a narrow link tells the sender (RFC 1191, RFC 8201).
    fn answer_too_big(&mut self, mtu: u16, bytes: &[u8]) {
        let Some(answer) = too_big(bytes, mtu) else { return };
        if let Some(to) = self.host_of(&answer) {
            self.fly(self.now.micros() + 50, Stop::Host(to), answer);
        }
    }

    fn fly(&mut self, at: u64, stop: Stop, bytes: Vec<u8>) {
        self.order += 1;
        self.flying.push(Reverse((at, self.order, stop, bytes)));
    }

    /// Whose hardware address a frame is for.
    fn host_of(&self, bytes: &[u8]) -> Option<usize> {
        self.hosts.iter().position(|h| bytes.starts_with(&h.config.mac.0))
    }

    fn deliver(&mut self, watcher: &mut dyn Watcher) {
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.micros()) {
            let Some(Reverse((_, _, stop, bytes))) = self.flying.pop() else { break };
            match stop {
                Stop::Switch { from } => match self.host_of(&bytes) {
                    Some(to) => self.enter(to, false, bytes, watcher),
                    None => watcher.lost(self.now, from, "nobody has that address", &bytes),
                },
                Stop::Host(host) => self.arrive(host, &bytes, watcher),
            }
        }
    }

    fn arrive(&mut self, host: usize, bytes: &[u8], watcher: &mut dyn Watcher) {
        self.hosts[host].watch_frames();
        if self.host_of(bytes) != Some(host) {
            return watcher.lost(self.now, host, "the address is another by now", bytes);
        }
        if self.hosts[host].engine().frames().free_count() == 0 {
            return watcher.lost(self.now, host, "no buffer to receive into", bytes);
        }
        watcher.received(self.now, host, bytes);
        let now = self.clock(host);
        self.hosts[host].receive(now, bytes);
        watcher.worked(self.now, host, &mut self.hosts[host]);
    }
}
