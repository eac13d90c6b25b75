//! The stacks of the device: opened, watched, run when nobody else does, freed when nothing lives in them any more.
//!
//! A stack is run by the threads that use it. The daemon steps in when nobody did for a few milliseconds and nobody sleeps
//! on it: the application computes, is stopped, or is dead. While all is asleep the daemon sleeps, too: it watches the
//! sockets of unattended stacks, and whoever uses a stack rings it (`Header::daemon_asleep`).

use super::locks::{await_users, lock, lock_patiently, try_lock};
use super::mirror::Neighbour;
use super::ports::arena_proto;
use super::quiesce::await_runs;
use super::steering::Port;
use super::{Daemon, Token, log};
use crate::failure::{Context, Outcome, fail};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sidestep_stack::addr::{Endpoint, Flow};
use sidestep_stack::arena::{BELLS, MAX_STACKS, Proto};
use sidestep_stack::engine::{Config, TxChecksum};
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::PORTS_PER_BLOCK;
use sidestep_stack::time::Instant;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::time::Duration;

/// Unpolled for so long, with no sleeper: the daemon runs it.
const STALE_US: u64 = 4_000;
/// So long after the last use the daemon ticks on; then it sleeps, and the next use costs a ring of its bell.
pub(super) const LINGER_US: u64 = 20_000;
/// Woken after a sleep of this length: the uses are so sparse (a server's housekeeping) that a ring each is the cheaper way.
const SPARSE_US: u64 = 40_000;
/// Sleepers whose frames lie about for so long do not wake: their process is stopped. The daemon then runs the stack.
const OVERSLEPT_US: u64 = 200_000;
/// How often it looks for them, which nothing announces. The one thing that wakes an idle daemon.
const OVERSLEPT_LOOK_US: u64 = 1_000_000;
/// The tick.
const TICK: Duration = Duration::from_millis(5);

/// A stack, and the daemon's end of it.
pub(crate) struct LiveStack {
    // Dropped before the descriptors whose rings it maps.
    pub(crate) stack: Stack,
    pub(crate) xsks: Vec<OwnedFd>,
    pub(crate) bells: Vec<OwnedFd>,
    /// Its sockets are in the daemon's epoll set; and armed there.
    is_watched: bool,
    pub(super) is_armed: bool,
    /// `last_poll_us` as our own last poll left it.
    own_poll_us: u64,
    /// Its sleepers do not wake although they should.
    has_overslept: bool,
    /// Counts up from stack to stack.
    age: u64,
}

/// How long the daemon may sleep as far as stacks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Tick,
    Until(Option<Instant>),
}

/// What a stack wants of the daemon.
#[derive(Default)]
struct Wishes {
    neighbours: Vec<Neighbour>,
    ports_low: bool,
    /// Datagrams for the kernel.
    foreign: Vec<Vec<u8>>,
    /// Where a SYN went that nobody in the stack listens for.
    stray: Option<Endpoint>,
}

impl Wishes {
    fn take(guard: &mut Guard<'_>) -> Wishes {
        let mut wishes = Wishes { ports_low: guard.ports_low(), stray: guard.take_stray(), ..Wishes::default() };
        while let Some(who) = guard.net_mut().take_wanted() {
            wishes.neighbours.push(who);
        }
        while let Some(packet) = guard.take_foreign_datagram(<[u8]>::to_vec) {
            wishes.foreign.push(packet);
        }
        guard.clear_ports_low();
        wishes
    }
}

impl LiveStack {
    pub(super) fn new(stack: Stack, xsks: Vec<OwnedFd>, bells: Vec<OwnedFd>, age: u64) -> LiveStack {
        LiveStack { stack, xsks, bells, is_watched: false, is_armed: false, own_poll_us: 0, has_overslept: false, age }
    }

    fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.xsks.iter().chain(&self.bells).map(AsRawFd::as_raw_fd)
    }

    fn watch(&mut self, epoll: &Epoll) {
        if self.is_watched && self.is_armed {
            return;
        }
        for fd in &self.xsks {
            let token = Token::Xsk(self.stack.index());
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token.encode());
            let done = if self.is_watched { epoll.modify(fd, &mut event) } else { epoll.add(fd, event) };
            if let Err(e) = done {
                log(format_args!("cannot watch stack {}: {e}", self.stack.index()));
            }
        }
        (self.is_watched, self.is_armed) = (true, true);
    }

    fn unwatch(&mut self, epoll: &Epoll) {
        if std::mem::take(&mut self.is_watched) {
            for fd in &self.xsks {
                let _ = epoll.delete(fd);
            }
        }
        self.is_armed = false;
    }

    /// The flows of one of its ports, TIME-WAITs among them. `None`: its lock cannot be had.
    pub(crate) fn flows(&self, port: Port) -> Option<Vec<Flow>> {
        self.list(|guard, flows| guard.flows_of_port(port.1, |flow| flows.push(*flow)))
    }

    /// The live flows of one of its ports: connections, or connected datagram sockets. `None`: its lock cannot be had.
    pub(crate) fn connections(&self, port: Port) -> Option<Vec<Flow>> {
        self.list(|guard, flows| match arena_proto(port) {
            Proto::Tcp => guard.connections_of_port(port.1, |flow| flows.push(*flow)),
            Proto::Udp => guard.datagram_flows_of_port(port.1, |flow| flows.push(*flow)),
        })
    }

    fn list(&self, list: impl FnOnce(&Guard<'_>, &mut Vec<Flow>)) -> Option<Vec<Flow>> {
        // What waits in the rings may be a SYN that belongs to us already.
        let arrivals = await_users([self]).pop()?;
        let mut guard = lock_patiently(&self.stack)?;
        let mut flows = Vec::new();
        guard.drain_to(&arrivals, now());
        list(&guard, &mut flows);
        guard.flush(now());
        Some(flows)
    }
}

/// Two words that nobody can guess.
pub(super) fn secret() -> Outcome<[u64; 2]> {
    let mut bytes = [0u8; 16];
    let mut source = std::fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    source.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    let word = |i: usize| u64::from_ne_bytes(std::array::from_fn(|n| bytes[8 * i + n]));
    Ok([word(0), word(1)])
}

/// The kernel takes some ten milliseconds to close an AF_XDP socket, and more when many are closed: nobody who needs the daemon
/// meanwhile waits for that.
fn close_aside(live: LiveStack) {
    // Without another thread it is closed here and now.
    let _ = std::thread::Builder::new().name("closer".to_owned()).spawn(move || drop(live));
}

impl Daemon {
    /// Makes a stack for the process `pid`.
    pub(super) fn open_stack(&mut self, pid: u32) -> Outcome<u32> {
        let config = Config {
            mac: self.device.mac,
            mtu: self.arena.header().mtu(),
            ifindex: self.device.index,
            device_is_virtual: self.device.is_virtual(),
            tx_checksum: if self.umem.finishes_checksums() { TxChecksum::PseudoHeader } else { TxChecksum::Full },
            isn_secret: self.arena.header().isn_secret(),
            hash_secret: secret()?,
            ..Config::default()
        };
        let tunables = super::sysctl::tunables();
        if self.stacks.len() >= MAX_STACKS || !self.steering.has_block() {
            self.reclaim();
        }
        let Some(index) = self.arena.alloc_stack(&config, &tunables).context("cannot make a stack")? else {
            fail!("{} has no stack left; the kernel serves this process", self.device.name)
        };
        match self.attach_stack(index) {
            Ok(live) => {
                self.arena.stack(index).owner_pid.store(pid, Relaxed);
                super::takeover::write_down(self.arena, index, &live);
                self.stacks.insert(index, live);
                self.give_block(index);
                Ok(index)
            }
            Err(e) => {
                self.steering.remove_stack(index);
                self.arena.free_stack(index, true);
                Err(e)
            }
        }
    }

    /// Stacks or blocks of ports have run out: of those that dead processes left with nothing but TIME-WAITs, the oldest
    /// goes before its time. Its ports are the last to be used again, which is what the wait was for.
    fn reclaim(&mut self) {
        let only_waits = |live: &LiveStack| {
            let alive = try_lock(&live.stack).map(|guard| guard.population());
            alive.is_some_and(|p| p.connections == 0 && p.sockets == 0)
        };
        let orphans = self.stacks.iter().filter(|(index, live)| !self.is_in_use(**index) && only_waits(live));
        if let Some(index) = orphans.min_by_key(|(_, live)| live.age).map(|(index, _)| *index) {
            self.free_stack(index);
        }
    }

    fn attach_stack(&mut self, index: u32) -> Outcome<LiveStack> {
        let open = |queue| self.umem.open_stack_socket(queue);
        let xsks: Vec<OwnedFd> = (0..self.device.queues).map(open).collect::<Result<_, _>>().context("AF_XDP")?;
        let bell = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(OwnedFd::from);
        let bells: Vec<OwnedFd> = (0..BELLS).map(|_| bell()).collect::<Result<_, _>>().context("cannot make a bell")?;
        let raw = |fds: &[OwnedFd]| fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
        let stack = Stack::attach(self.arena, index, &raw(&xsks), &raw(&bells), self.bell.as_raw_fd())
            .context("cannot attach to a stack")?
            .steering_datagrams_by(self.steering.datagram_ports().0)
            .of_daemon();
        let mut guard = stack.lock();
        self.mirror.fill(guard.net_mut(), true);
        drop(guard);
        self.steering.add_stack(index, &raw(&xsks))?;
        self.next_age += 1;
        Ok(LiveStack::new(stack, xsks, bells, self.next_age))
    }

    /// The descriptors that go to a stack's process: its sockets, then its bells, then the table of datagram ports.
    pub(super) fn stack_fds(&self, index: u32) -> Vec<RawFd> {
        let own = self.stacks.get(&index).into_iter().flat_map(LiveStack::fds);
        own.chain([self.steering.datagram_ports().1]).collect()
    }

    /// Gives a stack another block of local ports; returns how many it got.
    pub(super) fn give_block(&mut self, index: u32) -> u32 {
        let Some(live) = self.stacks.get(&index) else { return 0 };
        let block = self.steering.take_block(index).unwrap_or_else(|e| {
            log(format_args!("{e}"));
            None
        });
        let Some(mut guard) = lock(&live.stack) else { return 0 };
        let Some(block) = block else {
            guard.clear_ports_low();
            return 0;
        };
        if guard.add_port_block(block) { PORTS_PER_BLOCK } else { 0 }
    }

    /// Frees a stack in which nothing lives and that nobody uses; at once, for it must not be found again meanwhile.
    fn free_stack(&mut self, index: u32) {
        self.leave_all(index);
        self.steering.remove_stack(index);
        // Whatever came into its rings after the last look would be lost to the device with them.
        await_runs();
        let Some(mut live) = self.stacks.remove(&index) else { return };
        live.unwatch(&self.epoll);
        if let Some(mut guard) = lock_patiently(&live.stack) {
            guard.drain(now());
            guard.flush(now());
            guard.recall();
            self.gone.add(&guard.counters().drops);
        }
        close_aside(live);
        self.arena.free_stack(index, false);
        log(format_args!("stack {index} is free again"));
    }

    /// Runs what nobody runs; says how long the daemon may sleep.
    pub(super) fn soft_interrupt(&mut self) -> Rest {
        let at = now();
        let mut tick = false;
        let mut until: Option<Instant> = None;
        let mut wishes = Vec::new();
        let mut idle = Vec::new();
        for (index, live) in &mut self.stacks {
            let slot = self.arena.stack(*index);
            let last = slot.last_poll_us.load(Acquire);
            let age = at.micros().saturating_sub(last);
            let is_used = last != live.own_poll_us;
            tick |= is_used && age < self.linger_us;
            live.has_overslept &= !is_used;
            if slot.sleepers.load(Acquire) > 0 && !live.has_overslept {
                live.has_overslept = age >= OVERSLEPT_US && live.stack.has_received();
                if !live.has_overslept {
                    live.unwatch(&self.epoll);
                    until = earlier(until, Some(at.after_us(OVERSLEPT_LOOK_US)));
                    continue;
                }
            }
            if is_used && age < STALE_US {
                tick = true;
                live.unwatch(&self.epoll);
                continue;
            }
            let Some(mut guard) = try_lock(&live.stack) else {
                tick = true;
                continue;
            };
            let handled = guard.poll(at);
            guard.flush(at);
            guard.counters_mut().daemon_runs += u64::from(handled != 0);
            let deadline = guard.next_deadline(at);
            until = earlier(until, deadline);
            if guard.is_idle_forever() {
                idle.push(*index);
            }
            wishes.push((*index, Wishes::take(&mut guard)));
            drop(guard);
            live.own_poll_us = slot.last_poll_us.load(Acquire);
            live.watch(&self.epoll);
        }
        wishes.into_iter().for_each(|(index, w)| self.grant(index, &w));
        for index in idle {
            if !self.is_in_use(index) {
                self.free_stack(index);
            }
        }
        if tick { Rest::Tick } else { self.fall_asleep(until) }
    }

    /// Announces that the daemon sleeps, and looks once more: a use of a stack in between must not be missed.
    fn fall_asleep(&mut self, until: Option<Instant>) -> Rest {
        self.arena.header().daemon_asleep.store(1, SeqCst);
        // Each stack is attended by a sleeper, or as our own last look, with its deadline, left it.
        let is_settled = |(index, live): (&u32, &LiveStack)| {
            let slot = self.arena.stack(*index);
            slot.sleepers.load(SeqCst) > 0 || live.is_watched && slot.last_poll_us.load(SeqCst) == live.own_poll_us
        };
        if self.stacks.iter().all(is_settled) {
            return Rest::Until(until);
        }
        self.wake_up();
        Rest::Tick
    }

    pub(super) fn wake_up(&self) {
        self.arena.header().daemon_asleep.swap(0, AcqRel);
    }

    /// Sees to the wishes of stacks that are in use; called when the daemon's bell rang.
    pub(super) fn attend(&mut self) {
        let mut wishes = Vec::new();
        for (index, live) in &self.stacks {
            // Not `wants_daemon`: that told the process which rang, and tells once.
            if let Some(mut guard) = lock(&live.stack)
                && (guard.net().has_wanted() || guard.ports_low() || guard.has_stray() || guard.has_foreign_datagrams())
            {
                wishes.push((*index, Wishes::take(&mut guard)));
            }
        }
        wishes.into_iter().for_each(|(index, w)| self.grant(index, &w));
    }

    fn grant(&mut self, index: u32, wishes: &Wishes) {
        if wishes.ports_low {
            self.give_block(index);
        }
        if let Some(local) = wishes.stray {
            self.look_who_listens(index, local);
        }
        for who in &wishes.neighbours {
            self.resolve(index, who);
        }
        super::foreign::give_to_kernel(&wishes.foreign);
    }

    /// A stack needs a neighbour: perhaps it is known by now; else the kernel finds out.
    fn resolve(&mut self, index: u32, who: &Neighbour) {
        let known = self.mirror.neighbour(who);
        let (ip, tags) = who;
        if let Some(live) = self.stacks.get(&index)
            && let Some(mut guard) = lock(&live.stack)
        {
            match known {
                Some(Some(mac)) => return guard.net_mut().set_neighbour(ip, *tags, Some(mac)),
                // It failed before; that is no reason not to try again.
                Some(None) => guard.net_mut().clear_neighbour(ip, *tags),
                None => {}
            }
        }
        if let Err(e) = self.mirror.resolve(who) {
            log(format_args!("cannot have {ip} resolved: {e}"));
        }
    }

    /// The device has another MAC or MTU: every stack, and those to come, shall know.
    pub(super) fn push_device(&mut self) {
        let (mac, mtu) = (self.device.mac, self.device.mtu.min(super::start::MTU_MAX) as u16);
        self.arena.header().set_mtu(mtu);
        for live in self.stacks.values() {
            if let Some(mut guard) = lock(&live.stack) {
                let at = now();
                guard.set_device(at, mac, mtu);
                guard.poll(at);
                guard.flush(at);
            }
        }
    }

    /// Writes changed tables into every stack.
    pub(super) fn push_changes(&mut self, changes: &super::mirror::Changes) {
        for live in self.stacks.values() {
            let Some(mut guard) = lock(&live.stack) else { continue };
            let tables = guard.net_mut();
            if changes.all {
                self.mirror.fill(tables, changes.link);
            }
            for (who, change) in &changes.neighbours {
                super::mirror::apply(tables, who, *change);
            }
            // A connection may wait for just this neighbour.
            guard.poll(now());
            guard.flush(now());
        }
    }
}

pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}

/// How long to tick after the next use, given how long this sleep was.
pub(crate) fn linger_us(slept_us: u64) -> u64 {
    if slept_us >= SPARSE_US { 0 } else { LINGER_US }
}

/// The rest as epoll wants it: rounded up, so that a deadline just ahead is no busy loop.
pub(crate) fn timeout(rest: Rest, others: Option<Instant>) -> Option<Duration> {
    let until = match rest {
        Rest::Tick => return Some(TICK),
        Rest::Until(until) => earlier(until, others)?,
    };
    Some(Duration::from_micros(until.since_us(now())).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests() {
        assert_eq!(timeout(Rest::Tick, None), Some(TICK));
        assert_eq!(timeout(Rest::Until(None), None), None);
        // Due or overdue: not at once, or a ring that is full would make it spin.
        assert_eq!(timeout(Rest::Until(Some(Instant::from_micros(1))), None), Some(Duration::from_millis(1)));
        let soon = timeout(Rest::Until(Some(now().after_us(90_000_000))), Some(now().after_us(50_000)));
        assert!(soon.is_some_and(|t| t <= Duration::from_millis(50)));
        assert_eq!((linger_us(100_000), linger_us(1_000)), (0, LINGER_US));
    }
}
