//! Frames and what is built of them.
//!
//! A frame is one UMEM chunk, named by index. A stack owns the frames it works with; [`Frames`] is its view of them:
//! - `frame.rs`: the frame's name, its private record ([`FrameMeta`]) and its shared one ([`FrameShared`]);
//! - `list.rs`: a queue of frame slices: receive queues, send queues, reassembly;
//! - `pressure.rs`: what is left to each connection when frames are few.

mod frame;
mod list;
mod pressure;

pub use frame::{FRAME_SIZE, FrameId, FrameMeta, FrameShared, Frames, FreeList, OWNER_FILL, OWNER_POOL, TX_HEADROOM};
pub use list::FrameList;
pub use pressure::Pressure;
