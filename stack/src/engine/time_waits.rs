//! TIME-WAITs: small records, first in first out, since all wait equally long.

use super::flows::Entry;
use super::{Engine, Queue};
use crate::addr::Flow;
use crate::slab::NONE;
use crate::tcp::TimeWait;
use crate::time::{Instant, SEC};

impl Engine<'_> {
    /// A closed connection becomes a record. When there is no slot, the oldest record makes room.
    pub(super) fn make_time_wait(&mut self, now: Instant, conn: u32) {
        let record = TimeWait::from_tcb(&self.conns[conn], now);
        self.remove_connection(now, conn);
        self.keep_time_wait(record);
    }

    pub(super) fn keep_time_wait(&mut self, record: TimeWait) {
        if self.time_waits.live() as usize == self.time_waits.capacity() {
            self.drop_oldest();
        }
        let flow = record.flow;
        if let Some(index) = self.time_waits.insert(record) {
            self.link_flow(&flow, Entry::TimeWait(index));
            self.push_time_wait(index);
        }
    }

    fn push_time_wait(&mut self, index: u32) {
        self.time_waits[index].queue_next = NONE;
        let queue = &mut self.state.time_waits;
        match queue.tail {
            NONE => queue.head = index,
            tail => self.time_waits[tail].queue_next = index,
        }
        queue.tail = index;
        queue.len += 1;
    }

    fn pop_time_wait(&mut self) -> u32 {
        let queue = &mut self.state.time_waits;
        let index = queue.head;
        queue.head = self.time_waits[index].queue_next;
        match queue.head {
            NONE => *queue = Queue::EMPTY,
            _ => queue.len -= 1,
        }
        index
    }

    fn drop_oldest(&mut self) {
        if self.state.time_waits.head != NONE {
            self.state.counters.time_wait_overflows += 1;
            let index = self.pop_time_wait();
            self.end_time_wait(index);
            self.time_waits.remove(index);
        }
    }

    /// Whether a connection of ours may have the flow: nobody has it, or a TIME-WAIT that may be succeeded.
    pub(crate) fn is_flow_free(&self, now: Instant, flow: &Flow) -> bool {
        match self.lookup(flow) {
            None => true,
            Some(Entry::Connection(_)) => false,
            Some(Entry::TimeWait(i)) => self.time_waits[i].may_succeed(now, &self.state.tunables).is_some(),
        }
    }

    /// A connection of ours takes the flow: its TIME-WAIT ends, and says where sequence numbers may begin.
    pub(crate) fn succeed_time_wait(&mut self, now: Instant, flow: &Flow) -> Option<u32> {
        let Some(Entry::TimeWait(index)) = self.lookup(flow) else { return None };
        let iss = self.time_waits[index].may_succeed(now, &self.state.tunables);
        self.state.counters.time_wait_reused += 1;
        self.end_time_wait(index);
        iss
    }

    /// The flow is free again. The record keeps its place in the queue until that comes to the front: it counts as
    /// expired from now on.
    pub(super) fn end_time_wait(&mut self, index: u32) {
        let flow = self.time_waits[index].flow;
        self.unlink_flow(&flow, Entry::TimeWait(index));
        self.time_waits[index].expires_at = Instant::ZERO;
    }

    /// Rounded up to the second: many expire at one waking.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        match self.state.time_waits.head {
            NONE => None,
            oldest => {
                let at = self.time_waits[oldest].expires_at.micros();
                Some(Instant::from_micros(at.div_ceil(SEC) * SEC))
            }
        }
    }

    pub(super) fn expire_time_waits(&mut self, now: Instant) {
        // A record that was extended (the peer's FIN came again) goes to the back; no record is looked at twice.
        for _ in 0..self.state.time_waits.len {
            if self.time_waits[self.state.time_waits.head].expires_at > now && !self.oldest_was_extended() {
                return;
            }
            let index = self.pop_time_wait();
            if self.time_waits[index].expires_at > now {
                self.push_time_wait(index);
            } else {
                self.end_time_wait(index);
                self.time_waits.remove(index);
            }
        }
    }

    /// Whether the record at the front expires after the one behind it.
    fn oldest_was_extended(&self) -> bool {
        let oldest = &self.time_waits[self.state.time_waits.head];
        oldest.queue_next != NONE && self.time_waits[oldest.queue_next].expires_at < oldest.expires_at
    }
}
