//! A connection that nobody accepted moves to another stack of its arena, because its listener goes and another takes its place.
//!
//! In the kernel, processes that share a listener share its queues, and who waits there outlives any of them. Here each
//! process's stack has a listener of its own. So whoever takes a stack out of a port's group (the daemon) sends on what waits,
//! a flow at a time, both stacks locked from the first step to the last (else the new one could meet a segment before its
//! connection, and answer with a RST; and should the caller die on the way, both start over, so that no frame is lost):
//! 1. [`Engine::for_each_waiting`] of the old stack names the flows; each is steered to the new stack;
//! 2. what was on its way to the old one is handled there (its receive rings are emptied);
//! 3. [`Engine::emigrate`] takes the connection out of the old stack: established, with all that it received, or half-open;
//!    it may have ended in the meantime;
//! 4. [`Engine::immigrate`] of the new one queues it at the listener that the flow's SYN would find there; or it gives it
//!    back, for another stack to try, or for [`Engine::turn_away`], which tells the peer.
//!
//! What goes with a connection is all that its peer knows of it: sequence numbers, the offset of its timestamps, its timers.
//! Frames stay where they are and change their owner. Answers that the old stack has made already are sent by it. The
//! stacks of a device share the secret of cookies, so a SYN cookie of the old one that comes back to the new one makes its
//! connection there, once that was told ([`Engine::expect_cookies`]); and Fast Open cookies stay good.

use super::flows::Entry;
use super::{Engine, context};
use crate::addr::Flow;
use crate::socket::{QUEUE_ACCEPT, QUEUE_DEPARTED, QUEUE_SYN};
use crate::tcp::Tcb;
use crate::time::{Instant, SEC};

/// How long late segments are waited for: longer than a frame lies in a receive ring, and no longer than anybody waits before
/// a SYN goes again.
const DEPARTED_US: u64 = SEC;

/// A connection between two stacks. Its frames are still the old one's: if it is dropped, they are lost until that ends.
#[must_use = "it has to go to `immigrate`, or to `turn_away`"]
#[derive(Debug)]
pub struct Emigrant {
    tcb: Tcb,
    /// Which of its listener's queues it was in.
    queue: u8,
    /// The old stack's time.
    at: Instant,
}

impl Emigrant {
    pub fn flow(&self) -> &Flow {
        self.tcb.flow()
    }
}

impl Engine<'_> {
    /// Takes the connection of this flow out of the stack, if it waits at a listener; `None` for every other, and for one that
    /// is over already (a RST came): that goes with its listener. Its slot stays taken for another second, in which what still
    /// comes of the flow is dropped in silence ([`Departed`](crate::drops::Drop::Departed)).
    pub fn emigrate(&mut self, now: Instant, flow: &Flow) -> Option<Emigrant> {
        let Some(Entry::Connection(conn)) = self.lookup(flow) else { return None };
        let queue = self.conns[conn].link.queue;
        if !matches!(queue, QUEUE_SYN | QUEUE_ACCEPT) {
            return None;
        }
        let at = self.state.clock.read(now);
        self.leave_listener(conn);
        self.forget_transmit(conn);
        self.state.wheel.disarm(&mut self.conns, conn);
        let tcb = self.conns[conn].move_out(at.after_us(DEPARTED_US));
        self.conns[conn].link.queue = QUEUE_DEPARTED;
        self.arm_timer(at, conn);
        self.state.early.count_emigrant(&tcb);
        self.state.counters.emigrants += 1;
        Some(Emigrant { tcb, queue, at })
    }

    /// Takes in a connection of another stack of this arena. It waits in the queue that it was in, at the listener that a SYN
    /// of its flow would find here; a backlog is no bound to it, as none is in the kernel to those that migrate. Given back
    /// when there is no such listener, no slot, or another connection of the flow.
    #[expect(clippy::result_large_err, reason = "it is the connection itself, and the core allocates nothing")]
    pub fn immigrate(&mut self, now: Instant, emigrant: Emigrant) -> Result<(), Emigrant> {
        let flow = *emigrant.flow();
        let Some(listener) = self.find_listener(&flow) else { return Err(emigrant) };
        self.forget_departure(now, &flow);
        let found = self.lookup(&flow);
        if matches!(found, Some(Entry::Connection(_))) || self.conns.is_full() {
            return Err(emigrant);
        }
        if let Some(Entry::TimeWait(index)) = found {
            self.end_time_wait(index); // The peer's SYN came after it, to the other stack.
        }
        let Emigrant { tcb, queue, at } = emigrant;
        // No timestamp of the connection's may be older than what the old stack sent.
        let now = self.state.clock.read(now.max(at));
        tcb.for_each_frame_list(|list| self.frames.take_over(list));
        self.state.early.count_immigrant(&tcb);
        self.state.counters.immigrants += 1;
        if let Some(conn) = self.adopt(now, tcb) {
            self.join_listener(listener, conn, queue);
        }
        Ok(())
    }

    /// The flow's connection is back, or ends here: what comes of it is dropped in silence no more.
    fn forget_departure(&mut self, now: Instant, flow: &Flow) {
        if let Some(Entry::Connection(conn)) = self.lookup(flow)
            && self.conns[conn].link.queue == QUEUE_DEPARTED
        {
            self.remove_connection(now, conn);
        }
    }

    /// No stack takes the connection: it ends as one does whose listener is closed, and its peer gets a RST. For the stack that
    /// it came from, whose its frames are.
    pub fn turn_away(&mut self, now: Instant, emigrant: Emigrant) {
        let Emigrant { mut tcb, .. } = emigrant;
        let (flow, link) = (*tcb.flow(), tcb.link);
        self.forget_departure(now, &flow);
        let reply = tcb.abort(&mut context!(self, now));
        tcb.release_all(&mut context!(self, now));
        if let Some(reset) = reply.filter(|_| link.hop.is_known()) {
            self.note_reset(now, &flow);
            self.reply(&flow, link.hop, link.rx_queue, &reset);
        }
    }
}
