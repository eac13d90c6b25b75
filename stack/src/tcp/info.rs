//! What tools may see of a connection: the fields of Linux's `struct tcp_info` that mean something here.

use super::holdup::{Spent, SpentTimes};
use super::recovery::Phase;
use super::sender::Fin;
use super::{State, Tcb};
use crate::time::{Instant, MS, SEC};
use crate::wire::tcp::{HEADER_LEN, TIMESTAMP_LEN};

/// What is counted of a connection for tools alone. Wraps, as Linux's does.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Tally {
    pub(super) segs_in: u32,
    pub(super) data_segs_in: u32,
    pub(super) segs_out: u32,
    pub(super) data_segs_out: u32,
    pub(super) out_of_order: u32,
    /// Clock's low half in milliseconds: when data came last.
    pub(super) data_at_ms: u32,
    pub(super) bytes_retrans: u64,
    /// Segments delivered, the SYN among them; and those whose delivery was told together with a mark of the network's.
    pub(super) delivered: u32,
    pub(super) delivered_ce: u32,
    pub(super) spent: Spent,
}

/// A snapshot of a connection. Sizes in bytes, times in microseconds, unless the name says otherwise. What Linux tells
/// in segments is [`Info::segments`] of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    pub state: State,
    /// Linux's number of it: open, disorder, reduced, recovery, loss.
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub timestamps: bool,
    pub sack: bool,
    pub window_scaling: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    pub rto_us: u32,
    /// The longest delay of an acknowledgement; 0 while nothing came.
    pub ato_us: u32,
    pub rtt_us: u32,
    pub rttvar_us: u32,
    pub min_rtt_us: u32,
    /// Payload in a full segment of ours; in the largest of the peer's; the MSS we announced; the path's.
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub advmss: u32,
    pub path_mss: u32,
    /// The largest packet, headers included.
    pub pmtu: u32,
    pub snd_cwnd: u32,
    pub snd_ssthresh: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    /// The window we would offer at most now; the receiver's round trip; the most that was read in one.
    pub rcv_ssthresh: u32,
    pub rcv_rtt_us: u32,
    pub rcv_space: u32,
    pub unacked: u32,
    pub lost: u32,
    /// Octets the peer reported beyond its acknowledgement; and those on their way again.
    pub sacked: u32,
    pub retrans: u32,
    /// Segments that reordering moved at most (three, until there was some); duplicates the peer reported.
    pub reordering: u32,
    pub dsack_dups: u32,
    /// How often reordering was seen.
    pub reord_seen: u32,
    pub notsent: u32,
    /// Segments sent again, ever.
    pub retrans_total: u32,
    pub bytes_acked: u64,
    /// What of it, and of what was received, was no data: a SYN, a FIN.
    pub controls: (u64, u64),
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub segs_in: u32,
    pub data_segs_in: u32,
    pub segs_out: u32,
    pub data_segs_out: u32,
    /// Segments that came out of order.
    pub out_of_order: u32,
    /// Segments delivered, and those of them under marks.
    pub delivered: u32,
    pub delivered_ce: u32,
    pub spent: SpentTimes,
    /// Timeouts, handshakes' included; and how often a first one began a repair.
    pub timeouts: u16,
    pub repairs: u16,
    /// Bytes a second: how fast data goes out, and at most may; how fast it was delivered lately, and whether the application held that down.
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    pub delivery_rate: u64,
    pub is_app_limited: bool,
    /// Both ends agreed on explicit congestion notification.
    pub ecn: bool,
    /// The peer's data said that the network may mark it.
    pub ecn_seen: bool,
    /// The data of a SYN was taken: of ours, or of the peer's. Linux's number of why not.
    pub syn_data: bool,
    pub fast_open_failure: u8,
    pub last_data_sent_ms: u32,
    pub last_data_recv_ms: u32,
    pub last_ack_recv_ms: u32,
}

/// Linux's TCP_ATO_MIN, which is our longest delay as well.
const ATO_US: u32 = 40 * MS as u32;

impl Info {
    /// Bytes as segments, the last one perhaps not full.
    pub fn segments(&self, bytes: u32) -> u32 {
        bytes.div_ceil(self.snd_mss.max(1))
    }
}

impl Tcb {
    pub fn info(&self, now: Instant) -> Info {
        let (snd, rcv, tally) = (&self.snd, &self.rcv, &self.tally);
        let ms_since = |at: Instant| (now.since_us(at) / MS).min(u64::from(u32::MAX)) as u32;
        let timestamp = if self.ts.on { TIMESTAMP_LEN as u32 } else { 0 };
        let (delivery_rate, is_app_limited) = self.delivery_rate();
        let rto_us = (self.rtt.rto_us() << self.timers.backoff.min(20)).min(120 * SEC);
        Info {
            state: self.state,
            ca_state: self.ca_state(),
            retransmits: self.timers.retransmits,
            probes: self.timers.probes,
            backoff: self.timers.backoff,
            timestamps: self.ts.on,
            sack: self.sack,
            window_scaling: rcv.scaling,
            snd_wscale: snd.shift,
            rcv_wscale: rcv.shift,
            rto_us: if self.state.is_synchronized() { rto_us as u32 } else { self.rtt.rto_us() as u32 },
            ato_us: if rcv.bytes_total > 0 { ATO_US } else { 0 },
            rtt_us: self.rtt.srtt_us(),
            rttvar_us: self.rtt.rttvar_us(),
            min_rtt_us: self.rtt.min_us(),
            snd_mss: u32::from(snd.mss),
            rcv_mss: u32::from(rcv.mss),
            advmss: u32::from(rcv.own_mss).saturating_sub(timestamp),
            path_mss: u32::from(snd.wire_mss),
            pmtu: self.pmtu(),
            snd_cwnd: self.congestion.cwnd(),
            snd_ssthresh: self.congestion.ssthresh(),
            snd_wnd: snd.wnd,
            rcv_wnd: rcv.window(),
            rcv_ssthresh: rcv.space,
            rcv_rtt_us: rcv.pace.rtt_us(),
            rcv_space: rcv.pace.copied_most,
            unacked: snd.flight(),
            lost: snd.board.lost,
            sacked: snd.board.sacked,
            retrans: snd.board.resent,
            reordering: self.recovery.reordering(),
            dsack_dups: self.recovery.dsacks(),
            reord_seen: self.reord_seen.into(),
            notsent: snd.unsent(),
            retrans_total: snd.retransmits_total,
            bytes_acked: self.octets_acked(),
            controls: self.controls(),
            bytes_received: rcv.bytes_total + u64::from(rcv.fin_reached),
            bytes_sent: self.octets_sent() + tally.bytes_retrans,
            bytes_retrans: tally.bytes_retrans,
            segs_in: tally.segs_in,
            data_segs_in: tally.data_segs_in,
            segs_out: tally.segs_out,
            data_segs_out: tally.data_segs_out,
            out_of_order: tally.out_of_order,
            delivered: tally.delivered,
            delivered_ce: tally.delivered_ce,
            spent: self.spent(now),
            timeouts: self.timers.expiries,
            repairs: snd.repairs,
            pacing_rate: self.shown_rate(),
            max_pacing_rate: self.options.max_pacing_rate,
            delivery_rate,
            is_app_limited,
            ecn: self.ecn.is_on(),
            ecn_seen: self.ecn.is_seen(),
            syn_data: self.fast_open.was_taken(),
            fast_open_failure: self.fast_open_failure(),
            last_data_sent_ms: ms_since(snd.last_sent_at),
            last_data_recv_ms: super::timestamps::ms(now).wrapping_sub(tally.data_at_ms),
            last_ack_recv_ms: super::timestamps::ms_since(rcv.last_at_ms, now),
        }
    }

    /// Linux counts the SYN of who connected as an octet, and everybody's FIN.
    fn octets_acked(&self) -> u64 {
        self.snd.bytes_acked + u64::from(self.tally.delivered > 0 && !self.passive)
    }

    fn controls(&self) -> (u64, u64) {
        let syn = u64::from(self.tally.delivered > 0 && !self.passive);
        (syn + u64::from(self.snd.fin == Fin::Acked), u64::from(self.rcv.fin_reached))
    }

    /// Of data alone.
    fn octets_sent(&self) -> u64 {
        let fin = u64::from(matches!(self.snd.fin, Fin::Sent | Fin::Acked));
        let syn = u64::from(self.tally.delivered == 0);
        (self.snd.bytes_acked + u64::from(self.snd.flight())).saturating_sub(fin + syn)
    }

    fn ca_state(&self) -> u8 {
        match self.recovery.phase {
            Phase::Loss => 4,
            Phase::Recovering => 3,
            _ => u8::from(self.recovery.dupacks > 0 || self.snd.board.sacked > 0),
        }
    }

    /// The MSS and what stands in front of it. Smaller than the path's when the peer announced less.
    fn pmtu(&self) -> u32 {
        u32::from(self.snd.wire_mss) + HEADER_LEN as u32 + crate::ip::header_len(&self.flow().remote.ip) as u32
    }

    /// The algorithm's, or what Linux works out where nobody paces: twice the window in a round trip of slow start, a fifth
    /// more than it later. Unknown is "unlimited", as there.
    fn shown_rate(&self) -> u64 {
        let (cwnd, srtt_us) = (u64::from(self.congestion.cwnd()), u64::from(self.rtt.srtt_us()));
        let percent = if self.congestion.cwnd() < self.congestion.ssthresh() / 2 { 200 } else { 120 };
        let by_window = (cwnd * percent / 100 * SEC).checked_div(srtt_us).unwrap_or(u64::MAX);
        self.pace().unwrap_or(by_window)
    }
}
