//! Tests of the machine: two connections and a wire between them, in virtual time.

mod calls;
mod close;
mod cost;
mod ecn;
mod fast_path;
mod handshake;
mod harness;
mod loss;
mod pacing;
mod peer;
mod random;
mod reassembly;
mod recovery;
mod scarce;
mod states;
mod steps;
mod window;
