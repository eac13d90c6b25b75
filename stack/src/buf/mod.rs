//! Frames and what is built of them.
//!
//! A frame is one UMEM chunk, named by index. A stack owns the frames it works with; [`Frames`] is its view of them:
//! - `custody.rs`: who has a frame, which all may know ([`FrameShared`]);
//! - `frame.rs`: the frame's name, its owner's record of it ([`FrameMeta`]), and which are free;
//! - `list.rs`: a queue of frame slices: receive queues, send queues, reassembly;
//! - `pressure.rs`: what is left to each connection when frames are few.

mod custody;
mod frame;
mod list;
mod pressure;

pub use custody::{FrameShared, OWNER_FILL, OWNER_POOL};
pub use frame::{FRAME_SIZE, FrameId, FrameMeta, Frames, FreeList, TX_HEADROOM};
pub use list::FrameList;
pub use pressure::Pressure;
