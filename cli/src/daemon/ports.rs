//! Ports: who may serve them, the operator's switch, and what is looked after until it is over. How buckets move when
//! a group changes is in `moves.rs`.

use super::access::Peer;
use super::clients::Answer;
use super::kernel_sockets;
use super::locks::lock_patiently;
use super::steering::Port;
use super::{Daemon, log};
use crate::failure::Outcome;
use crate::snapshot::PortLine;
use sidestep_stack::arena::{Policy, Proto};
use sidestep_stack::runtime::control::Op;
use std::collections::BTreeMap;

impl Daemon {
    pub(super) fn join_or_leave(&mut self, op: Op, a: [u64; 4], peer: &Peer) -> Answer {
        let (Some(port), Some(stack)) = (port_of(a), self.stack_of(a[2], peer)) else {
            return Answer::refuse(libc::EINVAL, "no such port or stack");
        };
        if op == Op::Join && !self.policy(port).allows() {
            return Answer::refuse(libc::EACCES, "the operator switched this port off");
        }
        if op == Op::Join && self.is_apart(port) {
            return Answer::refuse(libc::EADDRINUSE, "another program listens on this port at another address");
        }
        let done = if op == Op::Join { self.join(port, stack) } else { self.leave(port, stack) };
        done.map_or_else(Answer::from, |()| Answer::ok(0))
    }

    pub(super) fn policy(&self, port: Port) -> Policy {
        self.arena.policy(arena_proto(port), port.1)
    }

    /// Tells the processes how many serve the port.
    pub(super) fn count_members(&self, port: Port) {
        let members = self.steering.members(port).len() as u32;
        self.arena.set_group_members(arena_proto(port), port.1, members);
    }

    /// The operator switches a port.
    pub(super) fn port_set(&mut self, a: [u64; 4]) -> Outcome<()> {
        let Some(port) = port_of(a) else { crate::failure::fail!("no such port") };
        let mut policy = Policy::from_raw(u8::try_from(a[2]).unwrap_or(0));
        let before = self.policy(port);
        if policy == Policy::Off && before != Policy::Off {
            // No SYN comes to a stack any more; those on the way arrive before it is asked what lives.
            self.switch(port, Policy::Draining)?;
            super::quiesce::await_runs();
            if self.has_flows(port) {
                policy = Policy::Draining;
            }
        }
        log(format_args!("port {}: {}", name_of(port), policy_name(policy)));
        if policy.allows() && !before.allows() {
            self.steering.assume_kernel_flows(port);
            self.switch(port, policy)?;
            return self.steering.expect_kernel_flows(port, policy);
        }
        self.switch(port, policy)
    }

    fn switch(&mut self, port: Port, policy: Policy) -> Outcome<()> {
        self.arena.set_policy(arena_proto(port), port.1, policy);
        self.draining.remove(&port);
        if policy == Policy::Draining {
            self.draining.insert(port);
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
        // A stack that does not say is one that may have some.
        let may_have =
            |i: &u32| self.stacks.get(i).is_some_and(|s| s.flows(port).is_none_or(|flows| !flows.is_empty()));
        members.iter().any(may_have) || self.steering.pinned_ports().iter().any(|(p, _)| *p == port)
    }

    /// Every second while there is something to end: draining ports, pinned flows, connections of the kernel's, stacks
    /// that serve what nobody listens to.
    pub(super) fn sweep(&mut self) {
        let over: Vec<Port> = self.draining.iter().copied().filter(|p| !self.has_flows(*p)).collect();
        for port in over {
            log(format_args!("port {}: its last connection ended, it is off", name_of(port)));
            let done = self.switch(port, Policy::Off);
            self.tell(done);
        }
        self.release_pins();
        let arena = self.arena;
        let done = self.steering.sweep(|port| arena.policy(arena_proto(port), port.1));
        self.tell(done);
        for (block, stack) in self.steering.take_cleared() {
            let live = self.stacks.get(&stack).and_then(|live| lock_patiently(&live.stack));
            live.into_iter().for_each(|mut guard| guard.reopen_port_block(block));
        }
        self.even_out();
        self.sweep_orphans();
        if std::mem::take(&mut self.has_deserters) {
            self.leave_deserted();
        }
        self.finish_unborn();
    }

    /// A failure that nobody waits to hear of.
    pub(super) fn tell(&self, done: Outcome<()>) {
        if let Err(e) = done {
            log(format_args!("{e}"));
        }
    }

    pub(super) fn needs_sweep(&self) -> bool {
        !self.draining.is_empty()
            || !self.orphans.is_empty()
            || self.has_deserters
            || !self.unborn.is_empty()
            || self.steering.needs_sweep()
    }

    pub(super) fn port_lines(&self) -> Vec<PortLine> {
        let all = [Proto::Tcp, Proto::Udp].map(|proto| (0..=u16::MAX).map(move |port| (proto as u8, port)));
        let is_switched = |port: &Port| self.policy(*port) != Policy::Auto;
        let mut ports: Vec<Port> = all.into_iter().flatten().filter(is_switched).collect();
        ports.extend(self.steering.ports().filter(|p| !self.steering.members(*p).is_empty()));
        ports.sort_unstable();
        ports.dedup();
        let connections = self.connections_by_port();
        let sockets = if ports.is_empty() { Vec::new() } else { kernel_sockets::tcp() };
        let line = |port: Port| PortLine {
            port: port.1,
            proto: proto_name(port).to_owned(),
            policy: policy_name(self.policy(port)).to_owned(),
            members: self.steering.members(port).len() as u32,
            connections: connections.get(&port.1).copied().filter(|_| arena_proto(port) == Proto::Tcp).unwrap_or(0),
            in_kernel: match arena_proto(port) {
                Proto::Tcp => kernel_sockets::established(&sockets, port.1),
                Proto::Udp => 0,
            },
        };
        ports.into_iter().map(line).collect()
    }

    fn connections_by_port(&self) -> BTreeMap<u16, u32> {
        let mut counts = BTreeMap::new();
        for live in self.stacks.values() {
            if let Some(guard) = super::locks::lock(&live.stack) {
                guard.for_each_connection(|flow| *counts.entry(flow.local.port).or_default() += 1);
            }
        }
        counts
    }
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
pub(super) fn name_of(port: Port) -> String {
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
