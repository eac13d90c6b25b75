//! AF_XDP sockets and their rings.
//!
//! - `ring.rs`: the four rings as the kernel lays them out, and their protocol;
//! - `umem.rs`: the daemon's side: registering the UMEM, one base socket a queue, a socket for each stack;
//! - `queue.rs`: a stack's side: its receive and transmit ring;
//! - `shared_rings.rs`: the fill and completion ring, which it shares with the other stacks of the queue.
//!
//! Ring positions are never kept in private memory: two processes share a fill ring, so the only truth is in the ring.

mod queue;
mod ring;
mod shared_rings;
mod umem;

pub(crate) use queue::{Queue, request_checksum};
pub use umem::{UmemOwner, XskError};

/// Descriptors in a receive, transmit, fill or completion ring. A receive ring holds more than ever circulates: for one that is
/// full the kernel would keep a frame to itself, which nobody could find.
pub(crate) const RX_RING: u32 = 4096;
pub(crate) const TX_RING: u32 = 2048;
pub(crate) const FILL_RING: u32 = 4096;
pub(crate) const COMPLETION_RING: u32 = 4096;

/// Frames that circulate through one queue's fill ring: half of all at most go to the fill rings together.
pub(crate) fn fill_frames(frames: u32, queues: u32) -> u32 {
    (frames / (2 * queues.max(1))).min(FILL_RING / 2)
}
