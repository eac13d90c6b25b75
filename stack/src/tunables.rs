//! Numbers that an operator may change. Units last. The kernel's sysctls are the defaults where there is one.

use crate::time::{MS, SEC};

/// The tunables of one stack. Copied into the arena when a stack is made.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tunables {
    /// net.ipv4.tcp_wmem[1..=2] in effect: most unacknowledged and unsent bytes a connection holds.
    pub sndbuf_bytes: u32,
    /// net.ipv4.tcp_rmem[1..=2] in effect: the receive window a connection may offer.
    pub rcvbuf_bytes: u32,
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
    /// net.ipv4.ip_default_ttl.
    pub ttl: u32,
    /// Out-of-order frames a connection may hold.
    pub reassembly_frames: u32,
    pub _pad: u32,
}

impl Default for Tunables {
    fn default() -> Self {
        Tunables {
            sndbuf_bytes: 256 * 1024,
            rcvbuf_bytes: 256 * 1024,
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
            ttl: 64,
            reassembly_frames: 256,
            _pad: 0,
        }
    }
}
