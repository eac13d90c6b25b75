//! Lines of connections that wait to be accepted, where nobody accepts while others of the port's group would.
//!
//! In the kernel, processes that share a listener share its queue: whoever is free takes what comes. Here each has a stack, and a
//! connection waits at the one that its bucket names. That process may not be free: it holds no accept mutex (nginx), it serves
//! somebody (servers of many processes that each block in accept), it computes. So the line goes to stacks at which a thread waits
//! with nothing to do: at once if nobody asks for it where it is, else when the same connection is first in it for [`LOOK_US`]. Where
//! nobody asks, it does not wait for somebody idle: it goes to who asks, though he is at something else just now. Should that go
//! on, new connections go there in the first place (`follow.rs`).
//!
//! Looks are taken only while connections wait, only at ports that several stacks serve, and less often while there is nothing to
//! be done.

use super::Daemon;
use super::follow::follow;
use super::locks::{Held, lock, try_lock};
use super::moves::send_on;
use super::ports::arena_proto;
use super::steering::Port;
use sidestep_stack::addr::Flow;
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::now;
use sidestep_stack::socket::{Attendance, SocketId};
use sidestep_stack::time::Instant;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::SeqCst;

/// So long nobody moves who is first in line.
const LOOK_US: u64 = 10_000;
/// While whole rounds of looks find nothing to be done, they become as rare as this.
const LOOK_MAX_US: u64 = 80_000;
/// So many go on at once: the stacks are locked meanwhile.
const MOVED_MAX: usize = 256;

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Lines {
    /// Who is first in line, by stack and listener.
    heads: HashMap<(u32, SocketId), Flow>,
    /// When to look again.
    pub(super) due: Option<Instant>,
    pause_us: u64,
    /// Some stack was locked when it was its turn: what waits there is not known.
    has_missed: bool,
    /// Somebody waits where nobody asks for him: no stack is missed then.
    is_urgent: bool,
}

/// A line that does not move.
struct Stuck {
    port: Port,
    stack: u32,
    listener: SocketId,
    attendance: Attendance,
}

impl Lines {
    /// Somebody may wait, or others may accept now.
    pub(super) fn look_soon(&mut self) {
        (self.due, self.pause_us) = (Some(now()), LOOK_US);
    }
}

impl Daemon {
    /// Looks if it is time to. True when it did.
    pub(super) fn see_to_lines(&mut self) -> bool {
        let arrivals = self.take_arrivals();
        if arrivals > 1 || arrivals == 1 && self.lines.due.is_none() {
            self.lines.look_soon();
            self.lines.is_urgent |= arrivals > 1;
        }
        let at = now();
        if self.lines.due.is_none_or(|due| due > at) {
            return false;
        }
        let stuck = self.look_at_lines();
        let helped = stuck.iter().filter(|line| self.send_on_line(line)).count() != 0;
        let lines = &mut self.lines;
        lines.due = (lines.has_missed || !lines.heads.is_empty()).then(|| at.after_us(lines.pause_us));
        lines.pause_us = if helped { LOOK_US } else { (2 * lines.pause_us).min(LOOK_MAX_US) };
        true
    }

    /// What stacks say of connections that came since the last time (`StackSlot::arrivals`).
    fn take_arrivals(&self) -> u32 {
        let take = |index: &u32| {
            let arrivals = &self.arena.stack(*index).arrivals;
            if arrivals.load(SeqCst) == 0 { 0 } else { arrivals.swap(0, SeqCst) }
        };
        self.stacks.keys().map(take).max().unwrap_or(0)
    }

    /// Notes who is first in each line; those lines at which nobody will accept, or nobody has for a while.
    fn look_at_lines(&mut self) -> Vec<Stuck> {
        let before = std::mem::take(&mut self.lines.heads);
        let (mut heads, mut stuck, mut has_missed) = (HashMap::new(), Vec::new(), false);
        let is_patient = std::mem::take(&mut self.lines.is_urgent) || self.lines.has_missed;
        let is_shared = |port: &Port| arena_proto(*port) == Proto::Tcp && self.steering.members(*port).len() > 1;
        for port in self.steering.ports().filter(is_shared) {
            for stack in self.steering.members(port) {
                let Some(live) = self.stacks.get(stack) else { continue };
                // In use just now: it is asked the next time, more urgently.
                let guard = if is_patient { lock(&live.stack) } else { try_lock(&live.stack) };
                let Some(guard) = guard else {
                    has_missed = true;
                    heads.extend(before.iter().filter(|((s, _), _)| s == stack).map(|(at, flow)| (*at, *flow)));
                    continue;
                };
                guard.for_each_line(port.1, |listener, head, attendance| {
                    let has_waited = before.get(&(*stack, listener)) == Some(head);
                    if attendance == Attendance::None || attendance == Attendance::Asked && has_waited {
                        stuck.push(Stuck { port, stack: *stack, listener, attendance });
                    }
                    heads.insert((*stack, listener), *head);
                });
            }
        }
        (self.lines.heads, self.lines.has_missed) = (heads, has_missed);
        stuck
    }

    /// Sends on who waits in a line, in turn to all who would take them. False: nobody would.
    fn send_on_line(&mut self, line: &Stuck) -> bool {
        let members: BTreeSet<u32> = self.steering.members(line.port).iter().copied().collect();
        let mut held = Held::lock(&self.stacks, &members);
        let mut waiting = Vec::new();
        if let Some(guard) = held.guards.get(&line.stack) {
            guard.for_each_unattended(line.listener, |flow| waiting.push(*flow));
        }
        waiting.truncate(MOVED_MAX);
        let mut moving = Vec::new();
        for (n, flow) in waiting.into_iter().enumerate() {
            let others = held.guards.iter().filter(|(index, _)| **index != line.stack);
            let asked: Vec<_> = others.map(|(index, guard)| (*index, guard.who_awaits(&flow))).collect();
            let Some(best) = asked.iter().map(|(_, attendance)| *attendance).max() else { continue };
            let is_better = best == Attendance::Asleep || best > line.attendance;
            let takers: Vec<u32> = asked.iter().filter(|(_, here)| *here == best).map(|(index, _)| *index).collect();
            if is_better {
                moving.push((flow, takers[n % takers.len()]));
            }
        }
        let found = !moving.is_empty();
        if found {
            let moved = moving.len();
            send_on(&mut held, &mut self.steering, line.port, line.stack, moving);
            if line.attendance == Attendance::None && self.arena.policy(arena_proto(line.port), line.port.1).allows() {
                follow(&mut held, &mut self.steering, line.port, line.stack, moved);
            }
        }
        held.flush();
        found
    }
}
