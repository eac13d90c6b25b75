//! Numbers that an operator may change. Units last. The kernel's sysctls are the defaults where there is one.

use crate::time::{MS, SEC};

/// The tunables of one stack. Copied into the arena when a stack is made.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tunables {
    /// net.core.somaxconn: cap on listen()'s backlog.
    pub somaxconn: u32,
    /// net.ipv4.tcp_max_syn_backlog.
    pub syn_backlog: u32,
    /// net.ipv4.tcp_syn_retries, tcp_synack_retries, tcp_retries2.
    pub syn_retries: u32,
    pub synack_retries: u32,
    pub retries2: u32,
    /// Linux's TCP_RTO_MIN, TCP_RTO_MAX and first timeout (RFC 6298).
    pub rto_min_us: u64,
    pub rto_max_us: u64,
    pub rto_initial_us: u64,
    /// Longest delay of an acknowledgement (RFC 1122 §4.2.3.2 allows 500 ms; Linux uses 40).
    pub delayed_ack_us: u64,
    /// TIME-WAIT (2 MSL) and net.ipv4.tcp_fin_timeout.
    pub time_wait_us: u64,
    pub fin_timeout_us: u64,
    /// net.ipv4.tcp_keepalive_time, _intvl, _probes.
    pub keepalive_time_us: u64,
    pub keepalive_intvl_us: u64,
    pub keepalive_probes: u32,
    /// net.ipv4.tcp_timestamps, tcp_window_scaling (0 or 1).
    pub timestamps: u32,
    pub window_scaling: u32,
    /// net.ipv4.tcp_challenge_ack_limit, per second.
    pub challenge_ack_limit: u32,
    /// net.ipv4.tcp_sack, tcp_dsack, tcp_slow_start_after_idle: 0 or 1.
    pub sack: u32,
    pub dsack: u32,
    pub slow_start_after_idle: u32,
    /// net.ipv4.tcp_ecn: 0 never, 1 asks and accepts, 2 accepts.
    pub ecn: u32,
    /// net.ipv4.tcp_syncookies: 0 never, 1 when the SYN queue is full, 2 always.
    pub syncookies: u32,
    /// net.ipv4.tcp_fastopen: 1 clients, 2 servers, and Linux's further bits.
    pub fastopen: u32,
    /// net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 for loopback alone (then never here).
    pub tw_reuse: u32,
    /// net.ipv4.tcp_mtu_probing: 0 never, 1 after a black hole was met, 2 always.
    pub mtu_probing: u32,
    /// net.ipv4.tcp_abort_on_overflow.
    pub abort_on_overflow: u32,
    /// net.ipv4.tcp_notsent_lowat.
    pub notsent_lowat_bytes: u32,
    /// net.ipv4.tcp_congestion_control, when we have it: [`crate::tcp::Algorithm`] as a number.
    pub congestion: u32,
    /// What tcp_rmem and tcp_wmem name: least (not used), at first, at most. A window is half of its buffer.
    pub rmem_bytes: [u32; 3],
    pub wmem_bytes: [u32; 3],
    /// net.core.rmem_max, wmem_max: most that SO_RCVBUF and SO_SNDBUF may ask for, before it is doubled.
    pub rmem_max_bytes: u32,
    pub wmem_max_bytes: u32,
    /// net.ipv4.ip_default_ttl.
    pub ttl: u32,
    /// Out-of-order frames a connection may hold; and no more than its receive buffer pays for.
    pub reassembly_frames: u32,
    /// net.ipv4.tcp_rfc1337: TIME-WAIT ignores RSTs (RFC 1337 §3, F1); 0, as Linux's default, does not.
    pub rfc1337: u32,
}

impl Default for Tunables {
    fn default() -> Self {
        Tunables {
            somaxconn: 4096,
            syn_backlog: 4096,
            syn_retries: 6,
            synack_retries: 5,
            retries2: 15,
            rto_min_us: 200 * MS,
            rto_max_us: 120 * SEC,
            rto_initial_us: SEC,
            delayed_ack_us: 40 * MS,
            time_wait_us: 60 * SEC,
            fin_timeout_us: 60 * SEC,
            keepalive_time_us: 7200 * SEC,
            keepalive_intvl_us: 75 * SEC,
            keepalive_probes: 9,
            timestamps: 1,
            window_scaling: 1,
            challenge_ack_limit: 1000,
            sack: 1,
            dsack: 1,
            slow_start_after_idle: 1,
            ecn: 2,
            syncookies: 1,
            fastopen: 1,
            tw_reuse: 2,
            mtu_probing: 0,
            abort_on_overflow: 0,
            notsent_lowat_bytes: u32::MAX,
            congestion: 0,
            rmem_bytes: [4096, 131_072, 6 << 20],
            wmem_bytes: [4096, 16_384, 4 << 20],
            rmem_max_bytes: 4 << 20,
            wmem_max_bytes: 4 << 20,
            ttl: 64,
            reassembly_frames: 65_536,
            rfc1337: 0,
        }
    }
}
