//! One guard in front of the eight steps: the segments that nearly all are, in an established connection with nothing
//! out of order, lost or ending. The guard only leaves out steps that would do nothing; the differential test in
//! `fast_path_tests.rs` holds it to that.

use super::{Context, Events, State, Tcb};
use crate::buf::FrameId;
use crate::ip::ecn;
use crate::wire::tcp::{Flags, Segment};

/// These decide what a segment is; PSH does not.
const DECISIVE: u8 = !Flags::PSH.0;

impl Tcb {
    /// Whether the segment is the next data, or a new acknowledgement, and nothing else.
    #[inline]
    pub(super) fn is_expected(&self, seg: &Segment) -> bool {
        let (snd, rcv) = (&self.snd, &self.rcv);
        let timestamp_is_fine = match seg.options.timestamp {
            Some((value, _)) => !self.ts.on || value.wrapping_sub(self.ts.recent) as i32 >= 0,
            None => !self.ts.on,
        };
        self.state == State::Established
            && seg.flags.0 & DECISIVE == Flags::ACK.0
            && seg.ecn != ecn::CE
            && seg.seq == rcv.nxt
            && timestamp_is_fine
            && seg.ack.since(snd.una) <= snd.flight()
            && u32::from(seg.payload_len) <= rcv.window()
            && (seg.payload_len != 0 || seg.ack != snd.una)
            && rcv.is_calm()
            && !self.urgent.is_awaited()
            && seg.options.sack.is_empty()
            && self.is_calm()
    }

    /// Steps five and seven, for a segment that [`Tcb::is_expected`].
    #[inline]
    pub(super) fn arrive_fast(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Events {
        cx.counters.fast_path += 1;
        self.ts.note(seg.options.timestamp, seg.seq, self.rcv.acked, cx.now);
        self.update_window(seg);
        self.timers.probes = 0;
        let mut events = Events::NONE;
        if seg.ack != self.snd.una {
            events = self.acknowledge(cx, seg, false);
        }
        if seg.payload_len == 0 {
            cx.frames.release(frame);
        } else {
            self.note_capable(seg);
            let meta = cx.frames.meta_mut(frame);
            meta.seq = seg.seq.0;
            meta.off = seg.payload_off;
            meta.len = seg.payload_len;
            events |= self.take_in_order(cx, seg, frame);
        }
        self.arm_persist(cx);
        events
    }
}
