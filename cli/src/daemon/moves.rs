//! Buckets move from stack to stack, and no packet of a live connection meets the wrong one.
//!
//! When a stack joins a TCP port's group, or leaves it, the connections of those who lose buckets are pinned. Then, as long as
//! somebody stays in the group ([`shift`]): all stacks concerned are locked, what came is handled and pinned, the buckets move, and
//! what came by the old entries meanwhile goes where they lead now, before anybody sees an answer. With the buckets go the
//! TIME-WAITs, and what waits to be accepted at a stack that leaves. Should the daemon die between the two looks, what came in
//! that tenth of a millisecond is refused where its next packet comes to.
//!
//! When the last one leaves, or a lock cannot be had (its process is stopped):
//! 1. the port's entry is paused: SYNs pass to the kernel, where the same application listens too, and each packet is
//!    looked up there. Once nobody runs by the old entry, the losers get no connection that they did not have;
//! 2. their rings are emptied, and what came last is pinned;
//! 3. once nobody runs without those pins, the stacks concerned are locked, and under their locks the buckets move, and
//!    all that goes with them;
//! 4. the port is on again. The kernel is asked on until it has no connection left.
//!
//! Should the daemon die anywhere in between, the port is served: by those who had the buckets, and by the kernel. The
//! next daemon writes the entry as the policy wants it, and puts out who does not listen ([`Daemon::leave_deserted`]).

use super::locks::{Held, await_users, lock, lock_patiently};
use super::orphans::hold_waiting;
use super::ports::{arena_proto, name_of};
use super::quiesce::await_runs;
use super::steering::{Plan, Port, Steering};
use super::{Daemon, log};
use crate::failure::{Outcome, fail};
use sidestep_stack::addr::Flow;
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::{Guard, now};
use sidestep_xdp::maps::FlowKey;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Daemon {
    pub(super) fn join(&mut self, port: Port, stack: u32) -> Outcome<()> {
        if self.steering.members(port).is_empty() {
            self.make_way(port)?;
        }
        match self.steering.plan_join(port, stack)? {
            Some(plan) => {
                let done = self.carry_out(plan);
                self.forget_who_listens(port);
                // Those who came before him may wait for him alone.
                self.lines.look_soon();
                self.send_on_orphans(port);
                done
            }
            None => Ok(()),
        }
    }

    /// A port that nobody served may be one of a stack's own, from which it opens connections: it opens no more from there, and
    /// those that it has are pinned.
    fn make_way(&mut self, port: Port) -> Outcome<()> {
        let Some(opener) = self.steering.opener_from(port) else { return Ok(()) };
        let Some(live) = self.stacks.get(&opener) else { return Ok(()) };
        let Some(mut guard) = lock_patiently(&live.stack) else {
            fail!("port {}: the program that connects from there does not answer", name_of(port))
        };
        guard.retire_port_block(port.1);
        let mut flows = Vec::new();
        guard.connections_of_port(port.1, |flow| flows.push(Steering::key(port, flow)));
        drop(guard);
        flows.into_iter().try_for_each(|key| self.steering.pin(key, opener))?;
        self.steering.share_block_of(port)
    }

    pub(super) fn leave(&mut self, port: Port, stack: u32) -> Outcome<()> {
        match self.steering.plan_leave(port, stack) {
            Some(plan) => self.carry_out(plan),
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

    /// Stacks leave the groups of ports on which nothing listens there any more. Who closes a listener says so; this is
    /// for those who could not: they died, or there was no daemon.
    pub(super) fn leave_deserted(&mut self) {
        for port in self.steering.ports().collect::<Vec<_>>() {
            for stack in self.steering.members(port).to_vec() {
                let is_served = |guard: &Guard<'_>| match arena_proto(port) {
                    Proto::Tcp => guard.has_listener(port.1),
                    Proto::Udp => guard.has_mailbox(port.1),
                };
                let live = self.stacks.get(&stack);
                if live.is_some_and(|live| lock(&live.stack).is_some_and(|guard| !is_served(&guard))) {
                    log(format_args!("port {}: nothing listens in stack {stack} any more", name_of(port)));
                    let done = self.leave(port, stack);
                    self.tell(done);
                }
            }
        }
    }

    /// Groups that could not be evened out when somebody joined.
    pub(super) fn even_out(&mut self) {
        for port in self.steering.uneven_ports() {
            if let Some(plan) = self.steering.plan_even(port) {
                let done = self.carry_out(plan);
                self.tell(done);
            }
        }
        self.bring_back();
    }

    fn carry_out(&mut self, mut plan: Plan) -> Outcome<()> {
        let (port, policy) = (plan.port, self.policy(plan.port));
        let done = match arena_proto(port) {
            // Who is first takes nothing from another stack; the kernel may have connections.
            Proto::Tcp if plan.losers.is_empty() && plan.leaver().is_none() => {
                self.steering.commit(&plan);
                self.steering.expect_kernel_flows(port, policy)
            }
            Proto::Tcp => self.move_buckets(&mut plan),
            Proto::Udp => {
                self.pin_losers(&mut plan);
                self.steering.commit(&plan);
                self.pin_losers(&mut plan);
                Ok(())
            }
        };
        // A port that is off and has members names its group: so the count goes first when they go.
        let is_over = self.steering.members(port).is_empty();
        if is_over {
            self.count_members(port);
        }
        let written = self.steering.write_port(port, policy);
        if !is_over {
            self.count_members(port);
        }
        self.steering.forget_if_unserved(port);
        done.and(written)
    }

    fn move_buckets(&mut self, plan: &mut Plan) -> Outcome<()> {
        if !plan.losers.is_empty() {
            self.pin_losers(plan);
        }
        if plan.is_end() || !self.move_at_once(plan) { self.move_in_a_pause(plan) } else { Ok(()) }
    }

    /// Somebody stays in the group. False: not all stacks could be locked, and nothing moved.
    fn move_at_once(&mut self, plan: &mut Plan) -> bool {
        let everybody = plan.everybody();
        await_users(everybody.iter().filter_map(|stack| self.stacks.get(stack)));
        let mut held = Held::lock(&self.stacks, &everybody);
        let done = shift(&mut held, &mut self.steering, plan);
        if let Some(leaver) = plan.leaver().filter(|_| done) {
            part_with(&mut held, &mut self.steering, plan.port, leaver);
        }
        held.flush();
        done
    }

    fn move_in_a_pause(&mut self, plan: &mut Plan) -> Outcome<()> {
        let port = plan.port;
        // Who leaves may have no buckets; somebody may wait there all the same.
        if !plan.losers.is_empty() {
            self.steering.pause(port, self.policy(port))?;
            await_runs();
            self.pin_losers(plan);
            await_runs();
        }
        let own = self.own_number();
        let everybody = plan.everybody();
        await_users(everybody.iter().filter_map(|stack| self.stacks.get(stack)));
        let mut held = Held::lock(&self.stacks, &everybody);
        let has_cookies = held.share_cookies(port);
        if has_cookies {
            held.drain();
            pin_held(&held, &mut self.steering, plan);
            await_runs();
        }
        self.steering.commit(plan);
        if has_cookies {
            send_on_unpinned(&mut held, &mut self.steering, plan);
        } else if held.have_time_waits() {
            // What came for them by the old entries is answered before they go; by the new ones it waits for them.
            await_runs();
            held.drain();
        }
        held.hand_over_time_waits(port, |flow| self.steering.steered_to(port, flow));
        let mut kept = Vec::new();
        if let Some(leaver) = plan.leaver() {
            part_with(&mut held, &mut self.steering, port, leaver);
            if let (Some(guard), Some(own)) = (held.guards.get_mut(&leaver), own.filter(|_| plan.is_end())) {
                kept = hold_waiting(guard, port, own);
            }
        }
        held.flush();
        drop(held);
        plan.leaver().into_iter().for_each(|leaver| self.keep(port, leaver, std::mem::take(&mut kept)));
        Ok(())
    }

    /// Pins the live flows of those who lose buckets. A stack whose lock cannot be had, or a flow that cannot be pinned,
    /// keeps its buckets, unless it leaves.
    fn pin_losers(&mut self, plan: &mut Plan) {
        for stack in plan.losers.clone() {
            let Some(live) = self.stacks.get(&stack) else { continue };
            match live.connections(plan.port) {
                Some(flows) => flows.iter().for_each(|flow| self.steering.pin_if_moved(plan, stack, flow)),
                None => plan.keep_all(stack),
            }
        }
    }

    /// Pins whose flows are over are taken back; a TIME-WAIT goes to the stack that a new connection of its flow would go
    /// to. A SYN may be on its way by such a pin, so: first the pins go, then what they let through is looked at, and
    /// whoever got a connection by it keeps the pin. Nobody else can have seen an answer: the stacks are locked, and
    /// send afterwards.
    pub(super) fn release_pins(&mut self) {
        let ports = self.steering.pinned_ports();
        let stacks: BTreeSet<u32> = ports.iter().map(|(_, stack)| *stack).collect();
        if !ports.iter().any(|(port, stack)| self.has_over(*port, *stack)) {
            return;
        }
        let members = ports.iter().flat_map(|(port, _)| self.steering.members(*port)).copied();
        let everybody: BTreeSet<u32> = members.chain(stacks.iter().copied()).collect();
        let mut held = Held::lock(&self.stacks, &everybody);
        let mut taken = Vec::new();
        for stack in &stacks {
            let live = held.guards.get(stack).map(|guard| keys_of(guard, &ports));
            // Without a stack its pins lead nowhere; one that cannot be asked keeps all.
            if live.is_some() || !self.stacks.contains_key(stack) {
                taken.extend(self.steering.take_pins(*stack, &live.unwrap_or_default()));
            }
        }
        await_runs();
        held.drain();
        let alive: BTreeMap<u32, HashSet<FlowKey>> =
            held.guards.iter().map(|(stack, guard)| (*stack, keys_of(guard, &ports))).collect();
        for (key, stack) in taken {
            let lives = alive.get(&stack).is_some_and(|keys| keys.contains(&key));
            if lives && let Err(e) = self.steering.pin(key, stack) {
                log(format_args!("{e}"));
            }
        }
        for (port, _) in ports.iter().filter(|(port, _)| arena_proto(*port) == Proto::Tcp) {
            held.hand_over_time_waits(*port, |flow| self.steering.steered_to(*port, flow));
        }
        held.flush();
    }

    /// Whether a pin of the port to the stack may be taken back.
    fn has_over(&self, port: Port, stack: u32) -> bool {
        let Some(live) = self.stacks.get(&stack) else { return true };
        let Some(flows) = live.connections(port) else { return false };
        let keys: HashSet<_> = flows.iter().map(|flow| Steering::key(port, flow)).collect();
        self.steering.pins(stack).any(|key| Steering::port_of(key) == port && !keys.contains(key))
    }
}

/// Moves the buckets within a group, if all concerned are held.
pub(super) fn shift(held: &mut Held<'_>, steering: &mut Steering, plan: &mut Plan) -> bool {
    if !plan.everybody().iter().all(|stack| held.guards.contains_key(stack)) {
        return false;
    }
    let port = plan.port;
    held.drain();
    pin_held(held, steering, plan);
    steering.commit(plan);
    // Those who get buckets do not look at what comes before they have the TIME-WAITs, and know the cookies.
    send_on_unpinned(held, steering, plan);
    held.hand_over_time_waits(port, |flow| steering.steered_to(port, flow));
    held.share_cookies(port);
    true
}

/// A stack has left the group: what waits there goes to the others, and what comes late is not refused.
fn part_with(held: &mut Held<'_>, steering: &mut Steering, port: Port, leaver: u32) {
    send_on_waiting(held, steering, port, leaver);
    if let Some(guard) = held.guards.get_mut(&leaver) {
        guard.note_left_port(port.1);
    }
}

/// The live flows of these ports in a stack, by the keys of their pins.
fn keys_of(guard: &Guard<'_>, ports: &HashSet<(Port, u32)>) -> HashSet<FlowKey> {
    let mut keys = HashSet::new();
    for (port, _) in ports.iter().filter(|(_, stack)| *stack == guard.stack_index()) {
        let mut note = |flow: &Flow| {
            keys.insert(Steering::key(*port, flow));
        };
        match arena_proto(*port) {
            Proto::Tcp => guard.connections_of_port(port.1, &mut note),
            Proto::Udp => guard.datagram_flows_of_port(port.1, &mut note),
        }
    }
    keys
}

/// What waits at a listener of a stack that is not in the port's group any more goes to those who have its buckets now.
/// Whom they do not take stays, and is reset when the listener is closed, as the kernel does.
pub(super) fn send_on_waiting(held: &mut Held<'_>, steering: &mut Steering, port: Port, from: u32) {
    let waiting = waiting_elsewhere(held, steering, port, from);
    send_on(held, steering, port, from, waiting);
}

/// Connections that wait to be accepted go to other stacks; both are among those that are held.
pub(super) fn send_on(
    held: &mut Held<'_>,
    steering: &mut Steering,
    port: Port,
    from: u32,
    mut moving: Vec<(Flow, u32)>,
) {
    // From here on their segments go to rings that nobody looks at before the locks are given back.
    moving.retain(|(flow, to)| *to != from && held.guards.contains_key(to) && steering.lead(port, flow, *to));
    if moving.is_empty() {
        return;
    }
    held.rest();
    await_runs();
    if let Some(old) = held.guards.get_mut(&from) {
        old.drain(now());
    }
    for (flow, to) in moving {
        held.rest();
        // It may be over by now.
        let Some(emigrant) = held.guards.get_mut(&from).and_then(|old| old.emigrate(now(), &flow)) else { continue };
        let rest = match held.guards.get_mut(&to) {
            Some(new) => new.immigrate(now(), emigrant).err(),
            None => Some(emigrant),
        };
        let (Some(emigrant), Some(old)) = (rest, held.guards.get_mut(&from)) else { continue };
        if let Err(emigrant) = old.immigrate(now(), emigrant) {
            old.turn_away(now(), emigrant);
        } else if let Err(e) = steering.pin(Steering::key(port, &flow), from) {
            log(format_args!("{e}"));
        }
    }
}

/// As [`Daemon::pin_losers`], with the locks held: the acknowledgement of a cookie makes a connection although SYNs pass by.
pub(super) fn pin_held(held: &Held<'_>, steering: &mut Steering, plan: &mut Plan) {
    for stack in plan.losers.clone() {
        if let Some(guard) = held.guards.get(&stack) {
            guard.connections_of_port(plan.port.1, |flow| steering.pin_if_moved(plan, stack, flow));
        }
    }
}

/// What a cookie made of an acknowledgement that came by the old entries after the last look is not pinned, and nobody can
/// have accepted it: it goes where its next segment goes.
pub(super) fn send_on_unpinned(held: &mut Held<'_>, steering: &mut Steering, plan: &Plan) {
    await_runs();
    for loser in &plan.losers {
        if let Some(old) = held.guards.get_mut(loser) {
            old.drain(now());
        }
        let mut waiting = waiting_elsewhere(held, steering, plan.port, *loser);
        waiting.retain(|(flow, _)| !steering.is_pinned(plan.port, flow));
        send_on(held, steering, plan.port, *loser, waiting);
    }
}

/// What waits in a stack although its flow's bucket is another's.
fn waiting_elsewhere(held: &Held<'_>, steering: &Steering, port: Port, from: u32) -> Vec<(Flow, u32)> {
    let mut waiting: Vec<(Flow, u32)> = Vec::new();
    let mut note = |flow: &Flow| waiting.extend(steering.bucket_owner(port, flow).map(|owner| (*flow, owner)));
    if let Some(old) = held.guards.get(&from) {
        old.for_each_waiting(port.1, |_, flow| note(flow));
    }
    waiting.retain(|(_, owner)| *owner != from && held.guards.contains_key(owner));
    waiting
}
