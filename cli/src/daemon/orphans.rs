//! Listeners that nobody holds any more, kept for those who wait there.
//!
//! The last stack of a port's group leaves, and connections wait at its listener. If the application's other processes share
//! the kernel's listener, one of them will serve the port in a moment: nginx's new workers do when they first accept, which
//! with an accept mutex is later than the old ones close. In the kernel they would find there what waits; so here the daemon
//! holds the listener until somebody joins, and sends it on. When the kernel's listener is gone, so is ours.

use super::locks::Held;
use super::moves::send_on_waiting;
use super::steering::Port;
use super::{Daemon, kernel_sockets};
use sidestep_stack::arena::{DAEMON, ProcId};
use sidestep_stack::runtime::{Guard, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::time::{Instant, SEC};
use std::collections::BTreeSet;

/// No longer than this.
const KEPT_US: u64 = 3 * SEC;
/// When it is first looked whether the kernel's listener is still there.
const LOOK_US: u64 = 50_000;

pub(super) struct Orphan {
    port: Port,
    stack: u32,
    listeners: Vec<SocketId>,
    until: Instant,
}

impl Daemon {
    /// The daemon's own number, under which it holds sockets.
    pub(super) fn own_number(&self) -> Option<ProcId> {
        let table = self.arena.processes();
        table.find(DAEMON).or_else(|| table.claim(DAEMON))
    }

    pub(super) fn keep(&mut self, port: Port, stack: u32, listeners: Vec<SocketId>) {
        if !listeners.is_empty() {
            self.orphans.push(Orphan { port, stack, listeners, until: now().after_us(KEPT_US) });
            self.next_sweep = Some(now().after_us(LOOK_US));
        }
    }

    /// Somebody joined: what waits goes to them.
    pub(super) fn send_on_orphans(&mut self, port: Port) {
        let (mine, others) = std::mem::take(&mut self.orphans).into_iter().partition(|o: &Orphan| o.port == port);
        self.orphans = others;
        for orphan in mine {
            let members = self.steering.members(port).iter().copied();
            let everybody: BTreeSet<u32> = members.chain([orphan.stack]).collect();
            let mut held = Held::lock(&self.stacks, &everybody);
            send_on_waiting(&mut held, &mut self.steering, port, orphan.stack);
            let is_empty = held.guards.get(&orphan.stack).is_none_or(|guard| !has_waiting(guard, port));
            held.flush();
            drop(held);
            if is_empty {
                self.let_go(&orphan);
            } else {
                self.orphans.push(orphan);
            }
        }
    }

    /// Those whose time is over, or whose application is.
    pub(super) fn sweep_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let ports: BTreeSet<Port> = self.orphans.iter().map(|o| o.port).collect();
        for port in ports {
            if !self.steering.members(port).is_empty() {
                self.send_on_orphans(port);
            }
        }
        let sockets = kernel_sockets::tcp();
        let is_over = |o: &Orphan| o.until <= now() || !kernel_sockets::has_listener(&sockets, o.port.1);
        let (over, kept) = std::mem::take(&mut self.orphans).into_iter().partition(is_over);
        self.orphans = kept;
        let over: Vec<Orphan> = over;
        over.iter().for_each(|orphan| self.let_go(orphan));
    }

    fn let_go(&self, orphan: &Orphan) {
        let own = self.own_number();
        if let (Some(live), Some(own)) = (self.stacks.get(&orphan.stack), own)
            && let Some(mut guard) = super::locks::lock_patiently(&live.stack)
        {
            for listener in &orphan.listeners {
                let _ = guard.release(now(), *listener, own);
            }
            guard.flush(now());
        }
    }
}

/// The daemon holds the listeners of a port at which somebody waits.
pub(super) fn hold_waiting(guard: &mut Guard<'_>, port: Port, own: ProcId) -> Vec<SocketId> {
    let mut listeners = Vec::new();
    guard.for_each_waiting(port.1, |listener, _| {
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    });
    if !listeners.is_empty() && !kernel_sockets::has_listener(&kernel_sockets::tcp(), port.1) {
        listeners.clear();
    }
    listeners.retain(|listener| guard.hold(*listener, own).is_ok());
    listeners
}

fn has_waiting(guard: &Guard<'_>, port: Port) -> bool {
    let mut some = false;
    guard.for_each_waiting(port.1, |_, _| some = true);
    some
}
