//! LISTEN (RFC 9293 §3.10.7.2): no connection, only an answer to what arrives at a listening port.

use crate::drops::Drop;
use crate::wire::tcp::{Control, Flags, Segment, reset_for};

/// What a listener does with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenVerdict {
    /// A connection request: make a connection of it.
    Syn,
    /// Answer with this.
    Reset(Control),
    /// Nothing to do.
    Ignore(Drop),
}

/// The listener's three checks, in the RFC's order. Data on a SYN is not taken; the peer sends it again.
pub fn arrive_at_listen(seg: &Segment) -> ListenVerdict {
    // First, check for a RST.
    if seg.has(Flags::RST) {
        return ListenVerdict::Ignore(Drop::RstForNobody);
    }
    // Second, check for an ACK.
    if let (true, Some(reset)) = (seg.has(Flags::ACK), reset_for(seg)) {
        return ListenVerdict::Reset(reset);
    }
    // Third, check for a SYN. SYN with FIN is nobody's honest request (Linux ignores it as well).
    if seg.has(Flags::SYN) && !seg.has(Flags::FIN) {
        return ListenVerdict::Syn;
    }
    // Fourth, other data or control: drop.
    ListenVerdict::Ignore(Drop::NoAck)
}
