//! Two hosts and the wire between them, in virtual time.

use super::alloc::collections::BinaryHeap;
use super::alloc::vec::Vec;
use super::{Host, HostConfig, Random};
use crate::addr::Endpoint;
use crate::link::Tags;
use crate::time::{Instant, MS, SEC};
use core::cmp::Reverse;

/// What the wire does to frames. Chances in a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub delay_us: u64,
    pub loss: u32,
    pub duplicate: u32,
    /// A frame is held back for up to four delays.
    pub reorder: u32,
    /// One bit of the frame is flipped.
    pub corrupt: u32,
}

impl Default for Wire {
    fn default() -> Self {
        Wire { delay_us: 100, loss: 0, duplicate: 0, reorder: 0, corrupt: 0 }
    }
}

/// A frame on its way: arrival time, order of sending, receiver, bytes.
type Flying = Reverse<(u64, u64, usize, Vec<u8>)>;

/// Host 0, host 1, and what is on its way.
pub struct Net {
    pub hosts: [Host; 2],
    pub wire: Wire,
    pub random: Random,
    now: Instant,
    flying: BinaryHeap<Flying>,
    /// Frames that the "kernel" of a host reads: completed one step later.
    in_tx: [Vec<u32>; 2],
    sent: u64,
    /// Frames seen by the wire, dropped ones included; and a tap on them.
    pub frames_seen: u64,
    pub tap: Option<fn(&Instant, usize, &[u8])>,
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net::with(seed, HostConfig::nth(1), HostConfig::nth(2))
    }

    pub fn with(seed: u64, a: HostConfig, b: HostConfig) -> Net {
        let mut random = Random::new(seed);
        let (ips, macs) = ([[a.ip(), a.v6], [b.ip(), b.v6]], [a.mac, b.mac]);
        let mut hosts = [Host::new(a, random.number()), Host::new(b, random.number())];
        for (i, host) in hosts.iter_mut().enumerate() {
            for stack in 0..host.config.stacks {
                let mut engine = host.engine_of(stack);
                for ip in &ips[1 - i] {
                    engine.net_mut().set_neighbour(ip, Tags::NONE, Some(macs[1 - i]));
                }
            }
        }
        Net {
            hosts,
            wire: Wire::default(),
            random,
            now: Instant::from_micros(1_000_000),
            flying: BinaryHeap::new(),
            in_tx: [Vec::new(), Vec::new()],
            sent: 0,
            frames_seen: 0,
            tap: None,
        }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// An endpoint of a host.
    pub fn endpoint(&self, host: usize, port: u16) -> Endpoint {
        Endpoint::new(self.hosts[host].config.ip(), port)
    }

    /// Takes all that the hosts want to send, then goes to the next event: an arrival or a deadline. False when there
    /// is none before `until`; the clock then stands there.
    pub fn step(&mut self, until: Instant) -> bool {
        self.transmit();
        let arrival = self.flying.peek().map(|Reverse((at, ..))| Instant::from_micros(*at));
        let deadline = self.hosts.iter_mut().filter_map(Host::next_deadline).min();
        let next = [deadline, arrival].into_iter().flatten().min().filter(|at| *at <= until);
        self.now = next.unwrap_or(until).max(self.now);
        self.deliver();
        for host in &mut self.hosts {
            host.watch_frames();
            host.handle_timers(self.now);
        }
        self.transmit();
        next.is_some()
    }

    /// Runs until `done`, or panics after `limit_us` of virtual time.
    pub fn run(&mut self, limit_us: u64, mut done: impl FnMut(&mut Net) -> bool) {
        let limit = self.now.after_us(limit_us);
        while !done(self) {
            assert!(self.now < limit, "not done after {} ms", limit_us / MS);
            self.step(limit);
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, us: u64) {
        let until = self.now.after_us(us);
        while self.step(until) {}
    }

    /// Runs until nothing is on its way and no timer is armed; panics when that takes more than an hour.
    pub fn run_dry(&mut self) {
        let limit = self.now.after_us(3600 * SEC);
        while self.step(limit) {}
        let is_idle = self.hosts.iter_mut().all(|host| host.next_deadline().is_none());
        assert!(is_idle && self.flying.is_empty(), "still busy after an hour");
    }

    /// Puts a frame on the wire, as if host `1 - to` had sent it. It arrives after the delay.
    pub fn inject(&mut self, to: usize, bytes: &[u8]) {
        self.fly(to, bytes.to_vec(), self.wire.delay_us);
    }

    fn fly(&mut self, to: usize, bytes: Vec<u8>, delay_us: u64) {
        self.sent += 1;
        self.flying.push(Reverse((self.now.micros() + delay_us, self.sent, to, bytes)));
    }

    fn transmit(&mut self) {
        for from in [0, 1] {
            for frame in core::mem::take(&mut self.in_tx[from]) {
                self.hosts[from].complete(frame);
            }
            for stack in 0..self.hosts[from].config.stacks {
                self.transmit_of(from, stack);
            }
        }
    }

    fn transmit_of(&mut self, from: usize, stack: usize) {
        loop {
            let mut engine = self.hosts[from].engine_of(stack);
            let Some(tx) = engine.poll_transmit(self.now) else { break };
            let at = usize::from(tx.off);
            let bytes = engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)].to_vec();
            self.in_tx[from].push(tx.frame);
            self.send(1 - from, bytes);
        }
    }

    fn send(&mut self, to: usize, mut bytes: Vec<u8>) {
        self.frames_seen += 1;
        if let Some(tap) = self.tap {
            tap(&self.now, to, &bytes);
        }
        let Wire { delay_us, loss, duplicate, reorder, corrupt } = self.wire;
        if self.random.chance(loss) {
            return;
        }
        if self.random.chance(corrupt) {
            let bit = self.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if self.random.chance(duplicate) {
            let later = self.random.below(delay_us * 4 + 1);
            self.fly(to, bytes.clone(), delay_us + later);
        }
        let held = if self.random.chance(reorder) { self.random.below(delay_us * 4 + 1) } else { 0 };
        self.fly(to, bytes, delay_us + held);
    }

    fn deliver(&mut self) {
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.micros()) {
            if let Some(Reverse((_, _, to, bytes))) = self.flying.pop() {
                self.hosts[to].receive(self.now, &bytes);
            }
        }
    }
}
