//! The XDP program of sidestep: what it shares with the daemon, and its decision, compiled for the host as well as for BPF.
//!
//! - [`maps`]: the ABI. Maps, keys, values, and the verdicts that are counted.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod maps;
