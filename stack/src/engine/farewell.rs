//! The end of a stack whose lock's owner died inside: its peers are told, before they wonder.
//!
//! What the dead one left may be half-written. Nothing is followed, nothing believed: of each slot that ever held a
//! connection a few numbers are read, and where they could be a connection's, its peer gets a RST. A wrong one is
//! answered, or ignored, by a peer that knows better (RFC 5961 §3); one that is missing comes with the peer's next
//! segment.

use super::Engine;
use crate::addr::Flow;
use crate::ip;
use crate::link::Hop;

/// A walk over the slots of the connections that are no more.
#[derive(Clone, Copy, Debug)]
pub struct Farewells {
    next: u32,
    end: u32,
}

impl Engine<'_> {
    /// The walk: to be asked for before [`Engine::reset_all`]. It ends when a connection is made.
    pub fn farewells(&self) -> Farewells {
        let end = self.conns.used().min(self.conns.capacity() as u32);
        Farewells { next: 0, end }
    }

    /// After [`Engine::reset_all`] and with frames again: makes as many RSTs as there is room and frames for. True while
    /// there may be more, to be made once these were sent.
    pub fn say_farewells(&mut self, walk: &mut Farewells) -> bool {
        if self.conns.used() != 0 {
            walk.next = walk.end; // The slots belong to others now.
        }
        while walk.next < walk.end {
            if !self.has_room_to_reply() {
                return true;
            }
            let tcb = &self.conns[walk.next];
            let (flow, link, reset) = (*tcb.flow(), tcb.link, tcb.farewell());
            if let Some(reset) = reset.filter(|_| self.may_be_ours(&flow, link.hop)) {
                self.reply(&flow, link.hop, link.rx_queue, &reset);
            }
            walk.next += 1;
        }
        false
    }

    /// Whether a connection could have had this flow.
    fn may_be_ours(&self, flow: &Flow, hop: Hop) -> bool {
        let Flow { local, remote } = flow;
        local.port != 0
            && remote.port != 0
            && local.ip.is_v4() == remote.ip.is_v4()
            && ip::is_possible_source(&remote.ip)
            && self.state.net.is_local(&local.ip)
            && hop.is_known()
            && hop.mac.0[0] & 1 == 0
    }
}
