//! What is known of one connection from the frames that passed one host: what it said, and what it was told.

use super::ranges::Ranges;
use super::sight::{ACK, FIN, SYN, Sight};
use crate::testing::alloc::vec::Vec;

/// What a SYN said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) seq: u32,
    pub(crate) mss: Option<u16>,
    pub(crate) shift: Option<u8>,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    window: u16,
    /// Octets that came with it (RFC 7413).
    text: u64,
}

impl Opening {
    fn of(sight: &Sight) -> Opening {
        Opening {
            seq: sight.seq,
            mss: sight.mss,
            shift: sight.shift,
            timestamps: sight.timestamp.is_some(),
            sack: sight.sack_permitted,
            window: sight.window,
            text: sight.payload.len() as u64,
        }
    }
}

/// One connection at one host. Places in a stream count from the octet behind the SYN, which is 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Our SYNs: more than one when a listener answered a SYN again with another number (a cookie).
    own: Vec<(Opening, u32)>,
    /// The peer's SYNs that came before ours went.
    heard: Vec<Opening>,
    peer: Option<Opening>,
    /// Behind the last octet sent; where our FIN is.
    pub(crate) sent_to: i64,
    pub(crate) fin: Option<i64>,
    /// The last acknowledgement sent, the furthest right edge of a window offered, the last timestamp.
    pub(crate) acked: Option<i64>,
    pub(crate) edge: Option<i64>,
    pub(crate) tsval: Option<u32>,
    /// Octets that came (the peer's FIN counts as one), the latest acknowledgement, the furthest right edge, the newest
    /// timestamp.
    pub(crate) got: Ranges,
    pub(crate) una: i64,
    pub(crate) peer_edge: i64,
    pub(crate) peer_tsval: Option<u32>,
    /// Data segments that were sent again.
    pub(crate) resent: u64,
    /// The host knows nothing of it any more.
    pub(crate) is_over: bool,
}

/// How far `seq` is behind `base`, as a signed number.
fn place(seq: u32, base: u32) -> i64 {
    i64::from(seq.wrapping_sub(base).wrapping_sub(1) as i32)
}

/// Whether timestamp `a` is older than `b`, by how much.
pub(crate) fn older_by(a: u32, b: u32) -> u32 {
    let behind = b.wrapping_sub(a);
    if behind < 1 << 31 { behind } else { 0 }
}

impl View {
    /// A SYN or a SYN-ACK leaves. One with a number that is news is another connection, or a cookie.
    pub(crate) fn open(&mut self, sight: &Sight) {
        let opening = Opening::of(sight);
        let acked = sight.ack.wrapping_sub(1);
        // It may acknowledge data of the SYN as well.
        let is_its = |o: &&Opening| u64::from(acked.wrapping_sub(o.seq)) <= o.text;
        let irs = self.heard.iter().rev().find(is_its).map_or(acked, |o| o.seq);
        if self.own.iter().any(|(own, _)| own.seq == sight.seq) {
            if sight.has(ACK) && self.peer.is_none() {
                self.meet(irs);
            }
            return;
        }
        let is_cookie = sight.has(ACK) && self.own.iter().any(|(_, of)| *of == irs) && self.sent_to == 0;
        if !is_cookie {
            let heard = core::mem::take(&mut self.heard);
            *self = View { heard, ..View::default() };
        }
        self.own.push((opening, if sight.has(ACK) { irs } else { 0 }));
        if sight.has(ACK) {
            self.meet(irs);
        }
    }

    /// The host forgot the connection, and the peer, which does not know, brought its cookie once more: another begins, with
    /// the same numbers, that nothing was sent on and nothing came. What the peer offered and its clock stand.
    pub(crate) fn begin_again(&mut self) {
        (self.sent_to, self.fin, self.una, self.is_over) = (0, None, 0, false);
        (self.acked, self.edge) = (None, None);
    }

    /// Nothing was sent but SYNs.
    pub(crate) fn is_untold(&self) -> bool {
        self.is_open() && self.sent_to == 0 && self.fin.is_none()
    }

    /// The peer's SYN is the one with this number.
    fn meet(&mut self, irs: u32) {
        let peer = self.heard.iter().rev().find(|o| o.seq == irs).copied();
        let Some(peer) = peer else { return };
        self.peer = Some(peer);
        self.peer_edge = self.peer_edge.max(i64::from(peer.window));
        self.got.insert(0, peer.text);
    }

    pub(crate) fn own(&self) -> Opening {
        self.own.last().map(|(own, _)| *own).unwrap_or_default()
    }

    pub(crate) fn peer(&self) -> Option<Opening> {
        self.peer
    }

    /// Whether it has sent a SYN: else it is nobody's connection.
    pub(crate) fn is_open(&self) -> bool {
        !self.own.is_empty()
    }

    pub(crate) fn has_timestamps(&self) -> bool {
        self.own().timestamps && self.peer.is_some_and(|p| p.timestamps)
    }

    pub(crate) fn has_sack(&self) -> bool {
        self.own().sack && self.peer.is_some_and(|p| p.sack)
    }

    /// The shift of the windows we offer, and of those the peer offers.
    pub(crate) fn shifts(&self) -> (u8, u8) {
        match (self.own().shift, self.peer.and_then(|p| p.shift)) {
            (Some(own), Some(peer)) => (own.min(14), peer.min(14)),
            _ => (0, 0),
        }
    }

    /// Of several SYNs of ours, the one that this segment belongs to.
    pub(crate) fn settle(&mut self, sight: &Sight) {
        if self.own.len() > 1 {
            let nearest = (0..self.own.len()).min_by_key(|i| sight.seq.wrapping_sub(self.own[*i].0.seq));
            let nearest = self.own[nearest.unwrap_or(0)];
            self.own = Vec::from([nearest]);
        }
    }

    /// Where the payload of our segment stands.
    pub(crate) fn own_place(&self, seq: u32) -> i64 {
        place(seq, self.own().seq)
    }

    /// Where a number of the peer's stands.
    pub(crate) fn peer_place(&self, seq: u32) -> i64 {
        place(seq, self.peer.unwrap_or_default().seq)
    }

    /// A segment left: what it said stands from now on.
    pub(crate) fn note_sent(&mut self, sight: &Sight) {
        let from = self.own_place(sight.text());
        let to = from + sight.payload.len() as i64;
        self.resent += u64::from(!sight.payload.is_empty() && from < self.sent_to);
        self.sent_to = self.sent_to.max(to);
        if sight.has(FIN) {
            self.fin = Some(to);
        }
        if sight.has(ACK) && self.peer.is_some() {
            let ack = self.peer_place(sight.ack);
            let shift = if sight.has(SYN) { 0 } else { self.shifts().0 };
            self.acked = Some(ack);
            let edge = ack + (i64::from(sight.window) << shift);
            self.edge = Some(self.edge.map_or(edge, |furthest| furthest.max(edge)));
        }
        if let Some((value, _)) = sight.timestamp {
            self.tsval = Some(value);
        }
    }

    /// A segment came.
    pub(crate) fn note_received(&mut self, sight: &Sight) {
        if sight.has(SYN) {
            let opening = Opening::of(sight);
            let text = self.heard.iter().filter(|o| o.seq == sight.seq).map(|o| o.text).fold(opening.text, u64::max);
            self.heard.retain(|o| o.seq != sight.seq);
            self.heard.push(Opening { text, ..opening });
            let answers = sight.has(ACK) && self.is_open() && self.own_place(sight.ack) >= 0;
            if self.peer.is_none() && answers {
                self.meet(sight.seq);
            }
        }
        if self.peer.is_none() {
            return;
        }
        let from = self.peer_place(sight.text());
        let to = from + sight.payload.len() as i64 + i64::from(sight.has(FIN));
        if to > 0 {
            self.got.insert(from.max(0) as u64, to as u64);
        }
        // What lies before the window is answered and else ignored, its acknowledgement too (RFC 9293 §3.10.7.4): a keepalive
        // probe, something held up on the way.
        let is_old = self.acked.is_some_and(|acked| to < acked);
        if sight.has(ACK) && !is_old {
            let ack = self.own_place(sight.ack);
            let shift = if sight.has(SYN) { 0 } else { self.shifts().1 };
            self.una = self.una.max(ack.min(self.sent_to + 1));
            self.peer_edge = self.peer_edge.max(ack + (i64::from(sight.window) << shift));
        }
        if let Some((value, _)) = sight.timestamp
            && self.peer_tsval.is_none_or(|newest| older_by(value, newest) == 0)
        {
            self.peer_tsval = Some(value);
        }
    }
}
