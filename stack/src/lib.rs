//! The engine of sidestep.
//!
//! In the order a frame travels. The edge (feature `linux`: the only unsafe code, the only system calls):
//! - [`arena`]: the shared memory of one device: UMEM, stacks, tables, processes;
//! - [`xsk`]: AF_XDP sockets and their four rings;
//! - [`runtime`]: a stack attached to a process: its lock, polling it, sleeping on it, kicking it.
//!
//! The core (no I/O, no clock, no unsafe, no operating system):
//! - [`engine`]: a frame comes in, frames go out; the owner of everything below;
//! - [`wire`]: headers and checksums; [`link`], [`ip`]: Ethernet, IPv4 and IPv6, routes and neighbours;
//! - [`tcp`]: the protocol machine, in the words of RFC 9293; [`udp`]: datagrams, in those of RFC 768;
//! - [`socket`]: listeners, streams, datagrams, options, readiness and epoll, in the words of POSIX;
//! - [`buf`], [`slab`], [`timer_wheel`]: frames, slots and deadlines;
//! - [`drops`], [`counters`], [`tunables`], [`addr`], [`time`]: the vocabulary.
#![cfg_attr(not(any(feature = "linux", feature = "testing", test)), no_std)]

pub mod addr;
#[cfg(feature = "linux")]
pub mod arena;
pub mod buf;
pub mod counters;
pub mod drops;
pub mod engine;
pub mod ip;
pub mod link;
#[cfg(feature = "linux")]
pub mod runtime;
pub mod slab;
pub mod socket;
#[cfg(feature = "linux")]
mod sys;
pub mod tcp;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod timer_wheel;
pub mod tunables;
pub mod udp;
pub mod wire;
#[cfg(feature = "linux")]
pub mod xsk;
