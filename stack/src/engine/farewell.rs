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
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Farewells {
    next: u32,
    end: u32,
}

impl Engine<'_> {
    /// The walk: to be asked for before [`Engine::salvage`] or [`Engine::reset_all`]. It ends when a connection is made. Whoever
    /// was on it may have died as well: then it begins anew.
    pub fn farewells(&mut self) -> Farewells {
        let used = self.conns.used().min(self.conns.capacity() as u32);
        let left = self.state.farewells;
        let end = if used == 0 { left.end.min(self.conns.capacity() as u32) } else { used };
        let walk = Farewells { next: 0, end };
        self.state.farewells = walk;
        walk
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
            let (flow, link, resets) = (*tcb.flow(), tcb.link, tcb.farewells());
            let is_ours = self.may_be_ours(&flow, link.hop);
            for reset in resets.into_iter().flatten().filter(|_| is_ours) {
                self.reply(&flow, link.hop, link.rx_queue, &reset);
            }
            walk.next += 1;
        }
        false
    }

    /// They were sent. Until then whoever starts over in the midst of it says them again.
    pub fn note_farewells_said(&mut self) {
        self.state.farewells = Farewells::default();
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
