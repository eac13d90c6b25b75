//! TIME-WAIT: what is left of a connection that closed first (RFC 9293 §3.6.1): enough to acknowledge a FIN that
//! comes again, to keep old segments away from a successor, and to let a successor in early (RFC 6191).

use super::timestamps::ms;
use super::{Seq, Tcb};
use crate::addr::Flow;
use crate::link::Hop;
use crate::slab::{NONE, SlabItem};
use crate::time::{Instant, SEC};
use crate::tunables::Tunables;
use crate::wire::tcp::{Control, Flags, Segment};

/// The record of one connection in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TimeWait {
    pub expires_at: Instant,
    pub free: u32,
    pub hash_next: u32,
    pub queue_next: u32,
    pub flow: Flow,
    pub hop: Hop,
    pub rx_queue: u8,
    has_timestamps: bool,
    window: u16,
    snd_nxt: Seq,
    rcv_nxt: Seq,
    ts_recent: u32,
    ts_offset: u32,
    /// When it last answered, in milliseconds.
    answered_at_ms: u32,
}

/// What TIME-WAIT does with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeWaitVerdict {
    Drop,
    Ack(Control),
    /// A new connection may take the flow over: its first sequence number has to be above this one.
    Reuse {
        iss_above: u32,
    },
    /// The record is to be removed.
    Gone,
}

/// Answers to what is not data are this far apart at least (Linux: tcp_invalid_ratelimit).
const ANSWER_INTERVAL_MS: u32 = 500;
/// How far a successor's first sequence number lies beyond ours: more than any window in flight (Linux does the same).
const ISS_GAP: u32 = 65535 + 2;

impl SlabItem for TimeWait {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.free
    }
}

impl TimeWait {
    /// The record of a connection that is in TIME-WAIT.
    pub fn from_tcb(tcb: &Tcb, now: Instant) -> TimeWait {
        TimeWait {
            expires_at: tcb.timers.alive_at.max(now),
            free: NONE,
            hash_next: NONE,
            queue_next: NONE,
            flow: *tcb.flow(),
            hop: tcb.link.hop,
            rx_queue: tcb.link.rx_queue,
            has_timestamps: tcb.ts.on,
            window: (tcb.rcv.window() >> tcb.rcv.shift).min(u32::from(u16::MAX)) as u16,
            snd_nxt: tcb.snd.nxt,
            rcv_nxt: tcb.rcv.nxt,
            ts_recent: tcb.ts.recent,
            ts_offset: tcb.ts.offset,
            answered_at_ms: 0,
        }
    }

    /// A segment for the flow came.
    pub fn arrive(&mut self, now: Instant, tunables: &Tunables, seg: &Segment) -> TimeWaitVerdict {
        let is_old = match seg.options.timestamp {
            Some((value, _)) => self.has_timestamps && Seq(value).is_before(Seq(self.ts_recent)),
            None => false,
        };
        if seg.has(Flags::RST) {
            // Exactly at RCV.NXT it is believed (RFC 5961 §3). It may be the answer to our answer to an old duplicate: RFC 1337
            // would ignore it, Linux does not unless told to.
            return if seg.seq == self.rcv_nxt && !is_old && tunables.rfc1337 == 0 {
                TimeWaitVerdict::Gone
            } else {
                TimeWaitVerdict::Drop
            };
        }
        if seg.has(Flags::SYN) && !seg.has(Flags::ACK) && !is_old && self.is_successor(seg) {
            return TimeWaitVerdict::Reuse { iss_above: (self.snd_nxt + ISS_GAP).0 };
        }
        if seg.has(Flags::ACK) && seg.len() == 0 && seg.seq == self.rcv_nxt && !is_old {
            // Nothing new: an acknowledgement of an acknowledgement.
            return TimeWaitVerdict::Drop;
        }
        // All else, a FIN that comes again above all: acknowledge, and wait anew.
        if seg.has(Flags::FIN) && !is_old {
            self.expires_at = now.after_us(tunables.time_wait_us);
        }
        if seg.payload_len == 0 && !seg.has(Flags::FIN) && !self.may_answer(now) {
            return TimeWaitVerdict::Drop;
        }
        TimeWaitVerdict::Ack(self.ack(now))
    }

    /// Whether a connection of ours may take the flow over, and what its first sequence number has to be above
    /// (net.ipv4.tcp_tw_reuse; RFC 6191 from the other side). Its timestamps have to be newer than all of the old one's: a
    /// second later they are.
    pub fn may_succeed(&self, now: Instant, tunables: &Tunables) -> Option<u32> {
        let made_at = self.expires_at.micros().saturating_sub(tunables.time_wait_us);
        let is_newer = now.micros() >= made_at.saturating_add(SEC);
        let may = tunables.tw_reuse == 1 && tunables.timestamps != 0 && self.has_timestamps && is_newer;
        may.then_some((self.snd_nxt + ISS_GAP).0)
    }

    /// A SYN that cannot be an old one: beyond all we received, or with a newer timestamp (RFC 6191 §2, RFC 9293 §3.6.1).
    fn is_successor(&self, seg: &Segment) -> bool {
        let is_newer = match seg.options.timestamp {
            Some((value, _)) => self.has_timestamps && Seq(value).is_after(Seq(self.ts_recent)),
            None => false,
        };
        is_newer || seg.seq.is_after(self.rcv_nxt)
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let now = ms(now);
        let may = self.answered_at_ms == 0 || now.wrapping_sub(self.answered_at_ms) >= ANSWER_INTERVAL_MS;
        if may {
            self.answered_at_ms = now.max(1);
        }
        may
    }

    fn ack(&self, now: Instant) -> Control {
        Control {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.window,
            timestamp: self.has_timestamps.then(|| (ms(now).wrapping_add(self.ts_offset), self.ts_recent)),
        }
    }
}
