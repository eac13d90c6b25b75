//! The states of a connection (RFC 9293 §3.3.2) and the table of their transitions.
//!
//! Once synchronized, a state is two facts: how far our FIN has got, and whether theirs was reached.
//!
//! | our FIN \ their FIN | not yet     | reached                                             |
//! |---------------------|-------------|-----------------------------------------------------|
//! | not queued          | ESTABLISHED | CLOSE-WAIT                                          |
//! | queued or sent      | FIN-WAIT-1  | CLOSING (we closed first), LAST-ACK (they did)      |
//! | acknowledged        | FIN-WAIT-2  | TIME-WAIT (we closed first), CLOSED (they did)      |

/// The state of a connection. LISTEN is not here: a listener is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum State {
    #[default]
    Closed,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    Closing,
    CloseWait,
    LastAck,
    TimeWait,
}

/// What moves a connection from state to state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// SYN-SENT met the peer's own SYN: simultaneous open.
    SynCrossed,
    /// Our SYN was acknowledged, and theirs received.
    Synchronized,
    /// The application closed, or shut its sending side: our FIN is queued.
    Close,
    /// Our FIN was acknowledged.
    OurFinAcked,
    /// Every byte before the peer's FIN has been received, and the FIN.
    PeerFin,
}

/// Every transition there is; what is not listed leaves the state as it is. Loss of the connection (RST, time-out,
/// abort) leads from everywhere to CLOSED and needs no rows.
const TRANSITIONS: &[(State, Event, State)] = {
    use Event::*;
    use State::*;
    &[
        (SynSent, SynCrossed, SynReceived),
        (SynSent, Synchronized, Established),
        (SynSent, Close, Closed),
        (SynReceived, Synchronized, Established),
        // Close in SYN-RECEIVED waits for ESTABLISHED, with whatever is queued (RFC 9293 §3.10.4 allows either).
        (Established, Close, FinWait1),
        (Established, PeerFin, CloseWait),
        (FinWait1, OurFinAcked, FinWait2),
        (FinWait1, PeerFin, Closing),
        (FinWait2, PeerFin, TimeWait),
        (Closing, OurFinAcked, TimeWait),
        (CloseWait, Close, LastAck),
        (LastAck, OurFinAcked, Closed),
    ]
};

impl State {
    /// The state after `event`.
    #[must_use]
    pub(crate) fn after(self, event: Event) -> State {
        TRANSITIONS.iter().find(|(from, on, _)| *from == self && *on == event).map_or(self, |&(_, _, to)| to)
    }

    /// Both sides know each other's sequence numbers (RFC 9293 §3.3.2).
    pub fn is_synchronized(self) -> bool {
        !matches!(self, State::Closed | State::SynSent | State::SynReceived)
    }

    /// Our FIN is not queued yet: there may be more to send.
    pub fn may_send(self) -> bool {
        matches!(self, State::Established | State::CloseWait)
    }

    /// The peer's FIN was not reached yet: there may be more to come.
    pub fn may_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// The number Linux uses for the state (`TCP_ESTABLISHED` and so on), as in `struct tcp_info`.
    pub fn linux(self) -> u8 {
        match self {
            State::Established => 1,
            State::SynSent => 2,
            State::SynReceived => 3,
            State::FinWait1 => 4,
            State::FinWait2 => 5,
            State::TimeWait => 6,
            State::Closed => 7,
            State::CloseWait => 8,
            State::LastAck => 9,
            State::Closing => 11,
        }
    }
}
