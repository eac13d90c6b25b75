//! Whether a stack's books balance: every frame and every slot that it has is somewhere. For tools, which find by it what
//! was lost; it walks everything, so nobody else calls it.

use super::Engine;
use super::flows::Entry;
use crate::slab::NONE;
use crate::socket::{Kind, ProcId};

/// Something counted twice: as the books have it, and as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub booked: u32,
    pub found: u32,
}

impl Count {
    pub fn is_right(self) -> bool {
        self.booked == self.found
    }
}

/// What an audit found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audit {
    /// The frames that name this stack as their owner; found: free, in a queue, or released and still read by the kernel.
    pub frames: Count,
    /// Slots that are in use; found: those that a flow or a socket leads to.
    pub connections: Count,
    pub time_waits: Count,
    /// Sockets; found: those that somebody alive holds, or that wait to be accepted.
    pub sockets: Count,
}

impl Engine<'_> {
    /// Counts. `is_alive` says whether a process is one whose sockets count.
    pub fn audit(&mut self, is_alive: impl Fn(ProcId) -> bool) -> Audit {
        let sockets = self.count_sockets(is_alive);
        let (connections, time_waits) = self.count_flows();
        Audit { frames: self.count_frames(), connections, time_waits, sockets }
    }

    fn count_frames(&mut self) -> Count {
        self.frames.collect_returned();
        let owner = self.frames.owner();
        let owned = self.frames.all_shared().iter().filter(|frame| frame.owner() == owner);
        let (mut booked, mut leaving) = (0, 0);
        for frame in owned {
            booked += 1;
            leaving += u32::from(frame.is_leaving());
        }
        let held: u32 = (0..self.conns.used()).map(|conn| self.conns[conn].frames_held(&self.frames)).sum();
        let is_mailbox = |index: &u32| self.sockets[*index].kind == Kind::Datagram;
        let mailboxes = (0..self.sockets.used()).filter(is_mailbox).map(|index| self.own(index));
        let received: u32 = mailboxes.map(|own| own.accept_queue.len + own.syn_queue.len).sum();
        let state = &self.state;
        let waiting = state.fragments.frames_held() + state.datagrams.frames_held() + state.control.frames_held();
        let waiting = waiting + state.foreign_datagrams.frames();
        Count { booked, found: self.frames.free_count() + leaving + held + received + waiting }
    }

    /// Connections in the flow table, and those that are over but whose sockets are not.
    fn count_flows(&self) -> (Count, Count) {
        let (mut connections, mut time_waits) = (0, 0);
        self.for_each_entry(|entry, _| match entry {
            Entry::Connection(_) => connections += 1,
            Entry::TimeWait(_) => time_waits += 1,
        });
        // A record whose flow is free again keeps its slot until its time comes.
        let mut at = self.state.time_waits.head;
        for _ in 0..self.time_waits.live() {
            let Some(record) = (at != NONE).then(|| &self.time_waits[at]) else { break };
            time_waits += u32::from(!record.expires_at.is_set());
            at = record.queue_next;
        }
        let is_over = |index: &u32| {
            let socket = &self.sockets[*index];
            socket.kind == Kind::Stream
                && socket.conn != NONE
                && !self.is_flow_of(self.conns[socket.conn].flow(), socket.conn)
        };
        connections += (0..self.sockets.used()).filter(is_over).count() as u32;
        connections += self.count_over_in_queues();
        let booked = (self.conns.live(), self.time_waits.live());
        (Count { booked: booked.0, found: connections }, Count { booked: booked.1, found: time_waits })
    }

    /// Connections that ended before anybody accepted them: accept() still gives them out.
    fn count_over_in_queues(&self) -> u32 {
        let mut count = 0;
        let listeners = (0..self.sockets.used()).filter(|index| self.sockets[*index].kind == Kind::Listener);
        for queue in listeners.map(|index| self.own(index).accept_queue) {
            let mut conn = queue.head;
            for _ in 0..queue.len {
                if conn == NONE {
                    break;
                }
                count += u32::from(!self.is_flow_of(self.conns[conn].flow(), conn));
                conn = self.conns[conn].link.queue_next;
            }
        }
        count
    }

    fn count_sockets(&self, is_alive: impl Fn(ProcId) -> bool) -> Count {
        let is_held = |index: &u32| {
            let socket = &self.sockets[*index];
            socket.kind != Kind::Free && socket.holders.iter().any(&is_alive)
        };
        Count { booked: self.sockets.live(), found: (0..self.sockets.used()).filter(is_held).count() as u32 }
    }
}
