//! The engine: a frame comes in, frames go out. It owns a stack's connections and sockets and everything they need.
//!
//! [`Engine::handle_frame`], [`Engine::handle_timers`] and the socket calls (in [`crate::socket`]) put work in;
//! [`Engine::poll_transmit`], [`Engine::take_wakeups`] and [`Engine::next_deadline`] say what is to be done with it.
//! - `state.rs`: what of a stack lives in shared memory, and how it starts;
//! - `receive.rs`: a frame's way to its connection or listener; `fragments.rs`: of one that came in parts;
//! - `connections.rs`: what becomes of connections: events, lists, timers, the end; `flows.rs`: finding them;
//! - `handover.rs`: a port's flows go to other stacks;
//! - `emigration.rs`: those that nobody accepted move to another stack;
//! - `strays.rs`: SYNs for a port that is served here, but not at that address;
//! - `challenges.rs`: how many answers to what may be forged; `destinations.rs`: what is remembered of peers;
//! - `time_waits.rs`: the records of those that closed first;
//! - `device.rs`: the device changes under live connections; `owners.rs`: who is told by a signal;
//! - `transmit.rs`: out of connections into frames; `control.rs`: answers without a connection;
//! - `resets.rs`: which connections were reset a moment ago;
//! - `farewell.rs`: RSTs for the peers of a stack that has to start over.

mod audit;
mod challenges;
mod connections;
mod control;
mod destinations;
mod device;
mod emigration;
mod farewell;
pub(crate) mod flows;
mod fragments;
mod handover;
mod owners;
mod receive;
mod resets;
mod state;
mod strays;
mod time_waits;
mod transmit;

use crate::buf::{FrameMeta, FrameShared, Frames, Pressure};
use crate::counters::Counters;
use crate::ip::tables::NetTables;
use crate::slab::Slab;
use crate::socket::{EpollItem, EpollSet, Socket, Unconnected};
use crate::tcp::{Tcb, TimeWait};
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::udp::DatagramPorts;

pub use audit::{Audit, Count};
pub use emigration::Emigrant;
pub use farewell::Farewells;
pub(crate) use flows::flow_hash;
pub use owners::{Cause, Owner};
pub(crate) use receive::{Fate, Origin};
pub use state::{Config, StackState, TxChecksum};
pub(crate) use state::{Core, Queue};
pub use transmit::TxFrame;

/// What the protocol machine works with, out of the engine's fields (so that the connection itself can be borrowed too).
macro_rules! context {
    ($engine:expr, $now:expr) => {
        $crate::tcp::Context {
            now: $engine.state.clock.read($now),
            frames: &mut $engine.frames,
            counters: &mut $engine.state.counters,
            tunables: &$engine.state.tunables,
            cookie: None,
        }
    };
}
pub(crate) use context;

/// The shared memory of one stack, as slices. Their lengths are the stack's capacities.
pub struct Parts<'m> {
    pub state: &'m mut StackState,
    pub conns: &'m mut [Tcb],
    pub time_waits: &'m mut [TimeWait],
    pub sockets: &'m mut [Socket],
    /// As many as `sockets`.
    pub unconnected: &'m mut [Unconnected],
    pub epoll_sets: &'m mut [EpollSet],
    pub epoll_items: &'m mut [EpollItem],
    /// A power of two, at least as many as `conns` and `time_waits` together for short chains.
    pub flow_table: &'m mut [u32],
    pub frame_meta: &'m mut [FrameMeta],
    pub frame_shared: &'m [FrameShared],
    pub umem: &'m mut [u8],
    /// The stack's index + 1.
    pub owner: u16,
}

/// One stack, while its lock is held.
pub struct Engine<'m> {
    pub(crate) state: &'m mut Core,
    pub(crate) conns: Slab<'m, Tcb>,
    pub(crate) time_waits: Slab<'m, TimeWait>,
    pub(crate) sockets: Slab<'m, Socket>,
    pub(crate) unconnected: Slab<'m, Unconnected>,
    pub(crate) epoll_sets: Slab<'m, EpollSet>,
    pub(crate) epoll_items: Slab<'m, EpollItem>,
    pub(crate) flow_table: &'m mut [u32],
    pub(crate) frames: Frames<'m>,
    pub(crate) datagram_ports: Option<&'m DatagramPorts>,
}

impl<'m> Engine<'m> {
    /// Builds the view. [`StackState::init`] has run once on the memory behind it.
    pub fn new(parts: Parts<'m>) -> Engine<'m> {
        let Parts { state, conns, time_waits, sockets, unconnected, epoll_sets, epoll_items, .. } = parts;
        let Parts { flow_table, frame_meta, frame_shared, umem, owner, .. } = parts;
        assert!(flow_table.len().is_power_of_two() && unconnected.len() >= sockets.len());
        let StackState { slabs, free_frames, core } = state;
        Engine {
            state: core,
            conns: Slab::new(conns, &mut slabs.conns),
            time_waits: Slab::new(time_waits, &mut slabs.time_waits),
            sockets: Slab::new(sockets, &mut slabs.sockets),
            unconnected: Slab::new(unconnected, &mut slabs.unconnected),
            epoll_sets: Slab::new(epoll_sets, &mut slabs.epoll_sets),
            epoll_items: Slab::new(epoll_items, &mut slabs.epoll_items),
            flow_table,
            frames: Frames::new(frame_meta, frame_shared, umem, free_frames, owner),
            datagram_ports: None,
        }
    }

    /// The stack's frames: for the runtime, which brings free ones and takes completions.
    pub fn frames_mut(&mut self) -> &mut Frames<'m> {
        &mut self.frames
    }

    pub fn frames(&self) -> &Frames<'m> {
        &self.frames
    }

    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.state.counters
    }

    pub fn tunables(&self) -> &Tunables {
        &self.state.tunables
    }

    pub fn tunables_mut(&mut self) -> &mut Tunables {
        &mut self.state.tunables
    }

    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// Addresses, routes and neighbours. The daemon writes them; the shim asks [`NetTables::route`].
    pub fn net(&self) -> &NetTables {
        &self.state.net
    }

    pub fn net_mut(&mut self) -> &mut NetTables {
        &mut self.state.net
    }

    /// Whoever waits by this bell is awake and looks: it is not rung for what has happened so far.
    pub fn take_wakeup(&mut self, bell: u8) {
        self.state.wakeups &= !(1 << bell);
    }

    /// The bells to ring, bit by bit; none are left afterwards.
    pub fn take_wakeups(&mut self) -> u32 {
        core::mem::take(&mut self.state.wakeups)
    }

    /// Whether the daemon has something new to do for this stack: resolve a neighbour ([`NetTables::take_wanted`]), give
    /// a port block ([`Engine::ports_low`]), look who listens ([`Engine::take_stray`]), hand datagrams to the kernel
    /// ([`Engine::take_foreign_datagram`]). Told once; again when somebody still waits a while later.
    #[inline]
    pub fn wants_daemon(&mut self) -> bool {
        let wish = self.wishes_for_daemon();
        let told = core::mem::replace(&mut self.state.daemon_told, wish);
        wish && !told
    }

    #[inline]
    fn wishes_for_daemon(&self) -> bool {
        let own = self.state.net.has_wanted() || self.state.ports.is_low();
        own || self.has_stray() || self.has_foreign_datagrams()
    }

    /// Whether there is something to tell: to sleepers, to the daemon, to whoever signals are for.
    pub fn has_news(&self) -> bool {
        let wish = self.wishes_for_daemon();
        self.state.wakeups != 0 || wish != self.state.daemon_told || self.has_arrival() || self.has_due_signals()
    }

    /// Whether there is something to send: cheap, and true only if [`Engine::poll_transmit`] would (nearly always) send.
    #[inline]
    pub fn has_transmit(&self) -> bool {
        !self.state.control.is_empty() || !self.state.transmit.is_empty() || !self.state.datagrams.is_empty()
    }

    /// Whether a write waits for frames. Those may come from another stack, which tells nobody.
    pub fn is_starved(&self) -> bool {
        self.state.starved
    }

    /// Nothing is alive: no connection, no TIME-WAIT, no socket. The daemon may free the stack.
    pub fn is_idle_forever(&self) -> bool {
        self.conns.live() == 0 && self.time_waits.live() == 0 && self.sockets.live() == 0
    }

    /// Connections (those of half-open and orphaned ones included), TIME-WAITs and sockets, for tools.
    pub fn population(&self) -> Population {
        Population {
            connections: self.conns.live(),
            time_waits: self.time_waits.live(),
            sockets: self.sockets.live(),
            epoll_sets: self.epoll_sets.live(),
            epoll_items: self.epoll_items.live(),
        }
    }

    /// When [`Engine::handle_timers`] wants to be called next.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let candidates = [
            self.state.wheel.next_deadline(),
            self.next_expiry(),
            self.waiting_deadline(),
            self.state.fragments.deadline(),
        ];
        candidates.into_iter().flatten().min()
    }

    /// Does what is due: retransmissions, probes, delayed acknowledgements, the end of TIME-WAITs.
    pub fn handle_timers(&mut self, now: Instant) {
        self.handle_due_connections(now);
        self.expire_time_waits(now);
        self.retry_waiting(now);
        self.expire_fragments(now);
        self.feed_starved();
        if self.frames.pressure() >= Pressure::Critical {
            self.prune_connections();
        }
    }
}

impl Engine<'_> {
    /// Rebuilds the stack from nothing, because its lock's owner died inside: nothing half-written is looked at. Kept
    /// are configuration, tunables, counters, tables and port blocks. The caller gives back the stack's frames (by
    /// owner) before anything else is done with it; then peers get their RSTs ([`Engine::say_farewells`]).
    pub fn reset_all(&mut self) {
        self.conns.reset();
        self.time_waits.reset();
        self.sockets.reset();
        self.steer_all_away();
        self.unconnected.reset();
        self.epoll_sets.reset();
        self.epoll_items.reset();
        self.flow_table.fill(0);
        self.frames.forget_free();
        self.state.forget_everything();
    }
}

/// How many of each thing are alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Population {
    pub connections: u32,
    pub time_waits: u32,
    pub sockets: u32,
    pub epoll_sets: u32,
    pub epoll_items: u32,
}

#[cfg(test)]
pub(crate) mod tests;
