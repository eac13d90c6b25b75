//! Answers that have no connection behind them: RST, challenge ACKs, TIME-WAIT's ACKs. They are made at once, frame and
//! all, and wait in a small ring until somebody asks for transmissions.

use super::{Engine, TxFrame};
use crate::addr::Flow;
use crate::drops::Drop;
use crate::link::Hop;
use crate::wire::tcp::{Control, Flags, Header, emit};

/// Answers that may wait: as many as a poll takes segments, so that under a flood of SYNs each has its answer. What does not
/// fit is dropped, and counted; whoever waits for it asks again.
const RING: usize = 256;

/// Prepared frames, oldest first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ControlRing {
    frames: [TxFrame; RING],
    head: u32,
    len: u32,
}

impl Default for ControlRing {
    fn default() -> Self {
        ControlRing { frames: [TxFrame::default(); RING], head: 0, len: 0 }
    }
}

impl ControlRing {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn frames_held(&self) -> u32 {
        self.len
    }

    fn is_full(&self) -> bool {
        self.len as usize == RING
    }

    fn push(&mut self, frame: TxFrame) {
        self.frames[(self.head + self.len) as usize % RING] = frame;
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<TxFrame> {
        if self.len == 0 {
            return None;
        }
        let frame = self.frames[self.head as usize];
        self.head = (self.head + 1) % RING as u32;
        self.len -= 1;
        Some(frame)
    }
}

impl Engine<'_> {
    /// Whether [`Engine::reply`] has room, and a frame.
    pub(crate) fn has_room_to_reply(&self) -> bool {
        !self.state.control.is_full() && self.frames.free_count() > 0
    }

    /// Answers with a control segment, to where the segment (or the connection's last one) came from.
    pub(crate) fn reply(&mut self, flow: &Flow, hop: Hop, queue: u8, control: &Control) {
        let Control { seq, ack, flags, window, timestamp } = *control;
        let (local_port, remote_port) = (flow.local.port, flow.remote.port);
        let header = Header { local_port, remote_port, seq, ack, flags, window, timestamp, ..Header::default() };
        self.reply_with(flow, hop, queue, &header);
    }

    /// As [`Engine::reply`], with a header that may have any options.
    pub(crate) fn reply_with(&mut self, flow: &Flow, hop: Hop, queue: u8, header: &Header) {
        if self.state.control.is_full() {
            return self.state.counters.drops.count(Drop::ControlQueueFull);
        }
        let Some(frame) = self.frames.alloc() else { return self.state.counters.drops.count(Drop::NoFrame) };
        let counters = &mut self.state.counters;
        counters.tx_segments += 1;
        match (header.flags.has(Flags::RST), header.flags.has(Flags::SYN)) {
            (true, _) => counters.tx_rsts += 1,
            (_, true) => {}
            _ => counters.tx_pure_acks += 1,
        }
        let off = crate::buf::TX_HEADROOM as u16;
        let out = &mut self.frames.bytes_mut(frame)[usize::from(off)..];
        let len = emit(header, out) as u16;
        let ready =
            self.finish_frame(flow, hop, self.service(0, 0), TxFrame { frame, off, len, queue, ..TxFrame::default() });
        self.state.control.push(ready);
    }
}
