//! Engines joined by a model of a network: for unit tests, simulations, fuzzers and benchmarks.
//!
//! - [`host`]: one stack in ordinary memory, and the part of the runtime that moves its frames;
//! - [`net`]: two hosts and a simple wire, for tests that say themselves what happens;
//! - [`link`], [`network`]: any number of hosts, with everything that a network does; `icmp.rs`: what its routers say;
//! - `checks`: what has to hold in every history; `content.rs`: what applications send, octet by octet;
//! - [`sim`]: whole histories from a seed; `throughput.rs`: how fast a connection is, as committed text;
//! - [`torture`]: a history from octets, for fuzzers.
//!
//! This is the only place of the core that allocates.

extern crate alloc;

mod checks;
mod content;
mod host;
pub(crate) mod icmp;
mod link;
mod net;
mod network;
mod random;
mod sim;
#[cfg(test)]
mod throughput;
mod torture;

pub use host::{Host, HostConfig};
pub use link::{Burst, Link, LinkConfig, Passage};
pub use net::{Net, Wire};
pub use network::{Attachment, Network, Nobody, Watcher};
pub use random::Random;
pub use sim::{Outcome, Profile, simulate};
pub use torture::torture;
