//! Two engines joined by a model of a network: for unit tests, simulations, fuzzers and benchmarks.
//!
//! - [`host`]: one stack in ordinary memory, and the part of the runtime that moves its frames;
//! - [`net`]: two hosts, a virtual clock and a seeded wire that delays, drops, duplicates, reorders and corrupts.
//!
//! This is the only place of the core that allocates.

extern crate alloc;

mod host;
mod net;
mod random;

pub use host::{Host, HostConfig};
pub use net::{Net, Wire};
pub use random::Random;
