//! What tools may see of a connection: the fields of Linux's `struct tcp_info` that we know.

use super::{State, Tcb};
use crate::time::{Instant, MS};

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
    /// Payload in a full segment of ours; in the largest of the peer's; the MSS we announced; the path's.
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub advmss: u32,
    pub path_mss: u32,
    pub snd_cwnd: u32,
    pub snd_ssthresh: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rcv_space: u32,
    pub unacked: u32,
    pub lost: u32,
    /// Octets the peer reported beyond its acknowledgement; and those on their way again.
    pub sacked: u32,
    pub retrans: u32,
    /// Segments that reordering moved at most (three, until there was some); duplicates the peer reported.
    pub reordering: u32,
    pub dsack_dups: u32,
    pub notsent: u32,
    /// Segments sent again, ever.
    pub retrans_total: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub last_data_sent_ms: u32,
    pub last_data_recv_ms: u32,
}

impl Tcb {
    pub fn info(&self, now: Instant) -> Info {
        let (snd, rcv) = (&self.snd, &self.rcv);
        let ms_since = |at: Instant| (now.since_us(at) / MS).min(u64::from(u32::MAX)) as u32;
        Info {
            state: self.state,
            retransmits: self.timers.retransmits,
            probes: self.timers.probes,
            backoff: self.timers.backoff,
            timestamps: self.ts.on,
            window_scaling: rcv.scaling,
            snd_wscale: snd.shift,
            rcv_wscale: rcv.shift,
            rto_us: self.rtt.rto_us().min(u64::from(u32::MAX)) as u32,
            rtt_us: self.rtt.srtt_us(),
            rttvar_us: self.rtt.rttvar_us(),
            min_rtt_us: self.rtt.min_us(),
            snd_mss: u32::from(snd.mss),
            rcv_mss: u32::from(rcv.mss),
            advmss: u32::from(rcv.own_mss),
            path_mss: u32::from(snd.wire_mss),
            snd_cwnd: self.congestion.cwnd(),
            snd_ssthresh: self.congestion.ssthresh(),
            snd_wnd: snd.wnd,
            rcv_wnd: rcv.window(),
            rcv_space: rcv.space,
            unacked: snd.flight(),
            lost: snd.board.lost,
            sacked: snd.board.sacked,
            retrans: snd.board.resent,
            reordering: self.recovery.reordering(),
            dsack_dups: self.recovery.dsacks(),
            notsent: snd.unsent(),
            retrans_total: snd.retransmits_total,
            bytes_acked: snd.bytes_acked,
            bytes_received: rcv.bytes_total,
            last_data_sent_ms: ms_since(snd.last_sent_at),
            last_data_recv_ms: ms_since(rcv.last_at),
        }
    }
}
