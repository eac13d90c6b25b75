//! A stack, attached to a process.
//!
//! - `stack.rs`: the attachment: its lock, its descriptors; `guard.rs`: what is done under the lock: poll, flush;
//! - `bell.rs`: doorbells: how whoever makes a socket ready wakes the thread that waits for it;
//! - [`notice`]: the signals that are sent for sockets;
//! - [`critical`]: where a signal handler has to wait; `thread_block.rs`: what a thread shares with its handlers;
//! - [`control`]: the protocol with the daemon;
//! - `mark.rs`: the name of a connection on its kernel socket, for whoever is given that;
//! - `reclaim.rs`: the frames of stacks that died unseen.
//!
//! The pattern of a call: lock, look at the rings ([`Guard::poll`]), do the call on the engine, send what it left to
//! be sent ([`Guard::flush`]), unlock. A call that must wait registers a bell on what it waits for, under the same
//! lock as its last look, then sleeps in one kernel wait on the stack's XSKs, the bell and the application's own
//! descriptors, bounded by [`Guard::next_deadline`].

mod bell;
pub mod control;
pub mod critical;
mod guard;
mod mark;
pub mod notice;
mod reclaim;
mod stack;
mod thread_block;

pub use crate::sys::note_confinement;
pub use bell::Bell;
pub use guard::Guard;
pub use mark::Mark;
pub use reclaim::reclaim_frames;
pub use stack::{Arrivals, Stack, map_datagram_ports};

use crate::time::Instant;

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::from_micros(crate::sys::monotonic_us())
}
