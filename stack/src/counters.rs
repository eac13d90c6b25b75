//! What a stack counts, besides its drops.

use crate::drops::DropCounters;

/// The counters of one stack; only ever grow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counters {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Transmit system calls.
    pub kicks: u64,
    pub rx_segments: u64,
    pub tx_segments: u64,
    /// Segments that carried no data and no SYN, FIN or RST.
    pub tx_pure_acks: u64,
    pub tx_rsts: u64,
    pub retransmits: u64,
    pub fast_retransmits: u64,
    pub rto_expiries: u64,
    pub active_opens: u64,
    pub passive_opens: u64,
    pub accepts: u64,
    pub out_of_order: u64,
    pub fast_path: u64,
    pub zero_window_probes: u64,
    pub keepalive_probes: u64,
    pub time_wait_made: u64,
    pub time_wait_reused: u64,
    pub resets_received: u64,
    pub challenge_acks: u64,
    /// Times somebody slept waiting for this stack, and times the daemon ran it.
    pub sleeps: u64,
    pub daemon_runs: u64,
    /// Datagrams received and sent, and those that a call left to the kernel to send.
    pub rx_datagrams: u64,
    pub tx_datagrams: u64,
    pub kernel_datagrams: u64,
    pub drops: DropCounters,
}
