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
    /// SYN-ACKs that carried a cookie, connections that one made, and acknowledgements that carried no cookie of ours
    /// where one was looked for.
    pub syn_cookies_sent: u64,
    pub syn_cookies_accepted: u64,
    pub syn_cookies_failed: u64,
    /// Fast Open, client: SYN data taken, and not taken; server: SYN data taken, cookies that were wrong or came when no
    /// more could be taken, cookies given.
    pub fast_open_active: u64,
    pub fast_open_active_failed: u64,
    pub fast_open_passive: u64,
    pub fast_open_passive_failed: u64,
    pub fast_open_cookies_given: u64,
    /// Times that full segments seemed to vanish, and probes for a larger size (RFC 4821).
    pub mtu_black_holes: u64,
    pub mtu_probes: u64,
    /// TIME-WAITs that made room for newer ones before their time.
    pub time_wait_overflows: u64,
    /// Connections that could not be opened because all local ports towards their destination were in use.
    pub port_exhaustions: u64,
    /// Data that came with the mark of congestion, and times our window fell for an echo of one.
    pub ecn_marks: u64,
    pub ecn_reductions: u64,
    pub drops: DropCounters,
    /// SACK blocks received; those that made no sense; reports of duplicates (RFC 2883).
    pub sack_blocks: u64,
    pub sack_garbage: u64,
    pub dsacks: u64,
    /// Tail loss probes sent, and those that repaired a loss (RFC 8985 §7).
    pub tlp_probes: u64,
    pub tlp_recoveries: u64,
    /// The reordering timer found a loss (RFC 8985 §6.3).
    pub rack_timeouts: u64,
    /// Timeouts that turned out to be early (RFC 5682), and window reductions taken back.
    pub spurious_rtos: u64,
    pub undos: u64,
    /// Timeouts at which the peer had forgotten what it reported (RFC 2018 §8).
    pub sack_reneging: u64,
    pub lost_retransmits: u64,
    /// Datagrams received and sent, and those that a call left to the kernel to send.
    pub rx_datagrams: u64,
    pub tx_datagrams: u64,
    pub kernel_datagrams: u64,
    /// TCP packets that came in fragments and were put together.
    pub reassembled: u64,
    /// Rings of io_uring that the shim refused: they would act on the kernel's side of user sockets.
    pub io_uring_refused: u64,
    /// Connections that nobody accepted, which went to another stack, and which came from one.
    pub emigrants: u64,
    pub immigrants: u64,
    /// Connections that a process took up from another, over exec or by SCM_RIGHTS; and those that came to a process which has a
    /// stack of its own, this one.
    pub inherited: u64,
    pub inherited_refused: u64,
    /// Datagrams that no socket of the stack takes, for the daemon to give to the kernel.
    pub foreign_datagrams: u64,
    /// Times that the stack's lock was found with a dead owner.
    pub start_overs: u64,
}
