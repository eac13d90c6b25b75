//! A stack, attached to a process.
//!
//! - `stack.rs`: the attachment: lock, poll, flush;
//! - `bell.rs`: doorbells: how whoever makes a socket ready wakes the thread that waits for it;
//! - [`control`]: the protocol with the daemon.
//!
//! The pattern of a call: lock, look at the rings ([`Guard::poll`]), do the call on the engine, send what it left to
//! be sent ([`Guard::flush`]), unlock. A call that must wait registers a bell on what it waits for, under the same
//! lock as its last look, then sleeps in one kernel wait on the stack's XSKs, the bell and the application's own
//! descriptors, bounded by [`Guard::next_deadline`].

mod bell;
pub mod control;
mod stack;

pub use bell::Bell;
pub use stack::{Guard, Stack};

use crate::time::Instant;

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::from_micros(crate::sys::monotonic_us())
}
