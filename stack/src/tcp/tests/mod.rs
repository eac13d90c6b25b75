//! Tests of the machine: two connections and a wire between them, in virtual time.

mod calls;
mod close;
mod cost;
mod ecn;
mod fast_path;
mod handshake;
mod harness;
mod icmp;
mod info;
mod loss;
mod pacing;
mod path_mtu;
mod peer;
mod random;
mod reassembly;
mod recovery;
mod sack;
mod scarce;
mod states;
mod steps;
mod urgent;
mod window;
