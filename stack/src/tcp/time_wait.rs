//! TIME-WAIT: what is left of a connection that closed first (RFC 9293 §3.6.1): enough to acknowledge a FIN that
//! comes again, to keep old segments away from a successor, and to let a successor in early (RFC 6191).

use super::{Seq, Tcb};
use crate::addr::{Flow, Mac};
use crate::slab::{NONE, SlabItem};
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp::{Control, Segment};

/// The record of one connection in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TimeWait {
    pub expires_at: Instant,
    pub free: u32,
    pub hash_next: u32,
    pub queue_next: u32,
    pub flow: Flow,
    pub peer_mac: Mac,
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

impl SlabItem for TimeWait {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.free
    }
}

impl TimeWait {
    pub fn from_tcb(tcb: &Tcb, now: Instant) -> TimeWait {
        let _ = (tcb, now, NONE);
        todo!()
    }

    pub fn arrive(&mut self, now: Instant, tunables: &Tunables, seg: &Segment) -> TimeWaitVerdict {
        let _ = (now, tunables, seg);
        todo!()
    }
}
