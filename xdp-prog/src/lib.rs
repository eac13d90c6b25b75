//! The XDP program of sidestep: what it shares with the daemon, and its decision, compiled for the host as well as for BPF.
//!
//! In the order of a packet's way:
//!
//! - [`packet`]: bounds-checked reads, over a slice here and over the driver's buffer in the kernel.
//! - [`parse`]: a frame becomes a flow, or passes.
//! - [`fragment`]: the same for a part of a TCP segment.
//! - [`steer`]: the decision which stack gets it.
//! - [`maps`]: the ABI. Maps, keys, values, and the verdicts that are counted.
//! - [`rig`]: what the test rig's dropper shares with its loader.
//!
//! `bpf/main.rs` puts these into the kernel; [`STEER_OBJECT`] is the result.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod fragment;
pub mod maps;
pub mod packet;
pub mod parse;
pub mod rig;
pub mod steer;

// Not in BPF: there, the objects are what is being built.
#[cfg(not(target_arch = "bpf"))]
mod object;
#[cfg(not(target_arch = "bpf"))]
pub use object::{DROPPER_OBJECT, STEER_OBJECT};

#[cfg(test)]
#[path = "../tests/support/frames.rs"]
mod frames;
