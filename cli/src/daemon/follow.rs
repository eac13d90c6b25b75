//! A port's buckets go to those members of its group that ask for connections.
//!
//! Of processes that accept in turn (nginx's `accept_mutex`), or do not at all for a while (haproxy at its maxconn), each has a
//! stack and its share of the port's buckets. Who comes to one that does not ask is sent on (`lines.rs`), which is dear if it is
//! done for everybody. So after some in a row the stack's buckets go to those who ask. It stays in the group, and gets
//! buckets again when it is seen to ask: the daemon looks once a second while somebody has none.
//!
//! Moving them this way takes no pause, in which connections would go to the kernel: whoever loses buckets is locked from before
//! its live flows are pinned until what came by the old entries is dealt with. Nobody can have seen an answer to that by then.
//! Should the daemon die in between, what was not pinned yet is refused where it comes to; it is some packets at most.

use super::Daemon;
use super::groups::STRAYS;
use super::locks::{Held, lock_patiently};
use super::moves::{pin_held, send_on_unpinned, send_on_waiting};
use super::steering::{Plan, Port, Steering};
use sidestep_stack::arena::Proto;
use sidestep_stack::socket::Attendance;
use std::collections::BTreeSet;

/// What moves has its price in connections that are sent on one by one: beside [`STRAYS`] one for each live connection, which
/// takes a pin, and one for so many TIME-WAITs.
const TIME_WAITS_PER_STRAY: u32 = 256;

/// `more` connections were just sent on from the stack, where nobody asked for them.
pub(super) fn follow(held: &mut Held<'_>, steering: &mut Steering, port: Port, from: u32, more: usize) {
    let Some(guard) = held.guards.get(&from) else { return };
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    let Some(strays) = steering.count_strays(port, from, more, guard.counters().accepts) else { return };
    let mut price = STRAYS + guard.population().time_waits / TIME_WAITS_PER_STRAY;
    guard.connections_of_port(port.1, |_| price += 1);
    if strays < price {
        return steering.put_off(port, from, price);
    }
    steering.put_off(port, from, strays.saturating_add(price));
    let asking = who_asks(held, port);
    if !asking.contains(&from)
        && let Some(plan) = steering.plan_follow(port, from, &asking)
        && shift(held, steering, plan)
    {
        send_on_waiting(held, steering, port, from);
    }
}

/// The members at which somebody waits to accept.
fn who_asks(held: &Held<'_>, port: Port) -> Vec<u32> {
    let asks = held.guards.iter().filter(|(_, guard)| guard.attendance_at(port.1) != Attendance::None);
    asks.map(|(stack, _)| *stack).collect()
}

/// Moves the buckets, if all concerned are held.
fn shift(held: &mut Held<'_>, steering: &mut Steering, mut plan: Plan) -> bool {
    if !plan.everybody().iter().all(|stack| held.guards.contains_key(stack)) {
        return false;
    }
    let port = plan.port;
    held.drain();
    pin_held(held, steering, &mut plan);
    steering.commit(&plan);
    // Those who get buckets do not look at what comes before they have the TIME-WAITs, and know the cookies.
    send_on_unpinned(held, steering, &plan);
    held.hand_over_time_waits(port, |flow| steering.steered_to(port, flow));
    held.share_cookies(port);
    true
}

impl Daemon {
    /// Who has no buckets, and asks, gets some.
    pub(super) fn bring_back(&mut self) {
        for port in self.steering.partial_ports() {
            if !self.policy(port).allows() {
                continue;
            }
            let members: BTreeSet<u32> = self.steering.members(port).iter().copied().collect();
            let mut held = Held::lock(&self.stacks, &members);
            let asking = who_asks(&held, port);
            if let Some(plan) = self.steering.plan_return(port, &asking) {
                shift(&mut held, &mut self.steering, plan);
            }
            held.flush();
        }
    }

    /// After a takeover: who has buckets is known, but others may listen who had none just then.
    pub(super) fn remember_members(&mut self) {
        let ports: Vec<Port> =
            self.steering.ports().filter(|port| super::ports::arena_proto(*port) == Proto::Tcp).collect();
        for (stack, live) in &self.stacks {
            let Some(guard) = lock_patiently(&live.stack) else { continue };
            for port in ports.iter().filter(|port| guard.has_listener(port.1)) {
                self.steering.remember_member(*port, *stack);
            }
        }
    }
}
