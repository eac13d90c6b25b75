//! A port's buckets go to those members of its group that ask for connections.
//!
//! Of processes that accept in turn (nginx's `accept_mutex`), or do not at all for a while (haproxy at its maxconn), each has a
//! stack and its share of the port's buckets. Who comes to one that does not ask is sent on (`lines.rs`), which is dear if it is
//! done for everybody. So after some in a row the stack's buckets go to those who ask. It stays in the group, and gets
//! buckets again when it is seen to ask: the daemon looks once a second while somebody has none.

use super::Daemon;
use super::groups::STRAYS;
use super::locks::{Held, lock_patiently};
use super::moves::{send_on_waiting, shift};
use super::steering::{Port, Steering};
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
        && let Some(mut plan) = steering.plan_follow(port, from, &asking)
        && shift(held, steering, &mut plan)
    {
        send_on_waiting(held, steering, port, from);
    }
}

/// The members at which somebody waits to accept.
fn who_asks(held: &Held<'_>, port: Port) -> Vec<u32> {
    let asks = held.guards.iter().filter(|(_, guard)| guard.attendance_at(port.1) != Attendance::None);
    asks.map(|(stack, _)| *stack).collect()
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
            if let Some(mut plan) = self.steering.plan_return(port, &asking) {
                shift(&mut held, &mut self.steering, &mut plan);
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
