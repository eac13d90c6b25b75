//! What tools may see of a connection: the fields of Linux's `struct tcp_info` that we know.

use super::{State, Tcb};
use crate::time::Instant;

/// A snapshot of a connection. Sizes in bytes, times in microseconds, unless the name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    pub state: State,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub timestamps: bool,
    pub window_scaling: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    pub rto_us: u32,
    pub rtt_us: u32,
    pub rttvar_us: u32,
    pub min_rtt_us: u32,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub advmss: u32,
    pub pmtu_mss: u32,
    pub snd_cwnd: u32,
    pub snd_ssthresh: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rcv_space: u32,
    /// Bytes in flight, lost, retransmitted ever, queued and not yet sent.
    pub unacked: u32,
    pub lost: u32,
    pub retrans_total: u32,
    pub notsent: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub last_data_sent_ms: u32,
    pub last_data_recv_ms: u32,
}

impl Tcb {
    pub fn info(&self, now: Instant) -> Info {
        let _ = now;
        todo!()
    }
}
