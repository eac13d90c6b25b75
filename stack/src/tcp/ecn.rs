//! Explicit congestion notification (RFC 3168): agreed on in the handshake; a mark on what we receive is echoed until the
//! peer says that it heard, and an echo of the peer's is a sign of congestion, once per window.

use super::congestion::Signal;
use super::recovery::Phase;
use super::tcb::Owed;
use super::{Context, Seq, State, Tcb};
use crate::ip::ecn;
use crate::wire::tcp::{Flags, Segment};

/// SYNs that ask for it before one goes without: something on the way may drop what it does not know (§6.1.1.1).
const ASKING_SYNS: u8 = 2;

/// What both ends know of each other's marks.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Ecn {
    /// SND.NXT when the window last fell for a mark: until that is acknowledged, further echoes tell nothing.
    until: Seq,
    /// Before the handshake: we would. After: both agreed.
    is_on: bool,
    /// A mark came, and the peer's CWR did not yet.
    is_echoing: bool,
    /// Data came that the network may mark.
    is_seen: bool,
    _pad: u8,
}

impl Ecn {
    /// `policy` is net.ipv4.tcp_ecn. Its values for accurate ECN, which we do not speak, fall back to this one (as Linux
    /// does when the peer does not speak it).
    pub(super) fn new(policy: u32, state: State, iss: Seq) -> Ecn {
        let asks = matches!(policy, 1 | 3 | 4);
        let is_on = if state == State::SynSent { asks } else { policy != 0 };
        Ecn { until: iss, is_on, ..Ecn::default() }
    }

    pub(super) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Whether both ends agreed; before the handshake, whether we would.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }
}

impl Tcb {
    /// The bits that our SYN or SYN-ACK carries (§6.1.1).
    pub(super) fn ecn_of_syn(&mut self) -> Flags {
        if self.state == State::SynSent && self.timers.retransmits >= ASKING_SYNS {
            self.ecn.is_on = false;
        }
        match (self.ecn.is_on, self.state) {
            (false, _) => Flags::default(),
            (true, State::SynSent) => Flags::ECE | Flags::CWR,
            (true, _) => Flags::ECE,
        }
    }

    /// The peer's SYN or SYN-ACK: does it agree? A SYN must not be marked itself: some networks mark everything.
    pub(super) fn agree_on_ecn(&mut self, seg: &Segment) {
        let agrees = match seg.has(Flags::ACK) {
            true => seg.has(Flags::ECE) && !seg.has(Flags::CWR),
            false => seg.has(Flags::ECE | Flags::CWR) && seg.ecn == ecn::NOT_ECT,
        };
        self.ecn.is_on &= agrees;
    }

    /// Data came: was it marked, or has the peer reacted (§6.1.3)? Either way it may have next to no window left and is
    /// not to wait for our acknowledgement (as Linux does it).
    pub(super) fn note_marks(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) {
        if !self.ecn.is_on {
            return;
        }
        if seg.has(Flags::CWR) {
            self.ecn.is_echoing = false;
            self.owed.add(Owed::ACK);
        }
        self.note_capable(seg);
        if seg.ecn == ecn::CE {
            cx.counters.ecn_marks += 1;
            if !core::mem::replace(&mut self.ecn.is_echoing, true) {
                self.owed.add(Owed::ACK);
            }
        }
    }

    /// Data that the network may mark: for tools.
    #[inline]
    pub(super) fn note_capable(&mut self, seg: &Segment) {
        self.ecn.is_seen |= self.ecn.is_on & (seg.ecn != ecn::NOT_ECT);
    }

    /// The peer echoes a mark (§6.1.2).
    pub(super) fn note_echo(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) {
        // What is older than our last reaction, or is not acknowledged beyond it, is the same congestion.
        let in_flight = self.snd.nxt.since(seg.ack);
        let is_news = self.ecn.until.since(seg.ack) > in_flight;
        if self.ecn.is_on && seg.has(Flags::ECE) && !seg.ack.is_before(self.snd.una) && is_news {
            self.note_congestion_mark(cx);
        }
    }

    /// The network marked one of ours: the window falls, once for all that is in flight now. While a loss is repaired it
    /// falls anyway.
    pub(super) fn note_congestion_mark(&mut self, cx: &mut Context<'_, '_>) {
        if self.recovery.phase != Phase::Open {
            return;
        }
        cx.counters.ecn_reductions += 1;
        self.ecn.until = self.snd.nxt;
        self.congestion.on_congestion(cx.now, Signal::Ecn, self.snd.flight(), u32::from(self.snd.mss));
        let window = self.congestion.cwnd().min(self.congestion.ssthresh());
        self.congestion.set_cwnd(window);
    }

    /// The flags and the TOS octet of an outgoing segment. `is_new`: data that was not sent before; only that may be marked
    /// (§6.1.4 to §6.1.6) and tell that the window fell (§6.1.2).
    #[inline]
    pub(super) fn mark(&mut self, flags: Flags, is_new: bool) -> (Flags, u8) {
        let tos = self.options.tos & !ecn::MASK;
        if !self.ecn.is_on || flags.has(Flags::SYN) {
            return (flags, tos);
        }
        let mut flags = flags;
        if self.ecn.is_echoing && flags.has(Flags::ACK) {
            flags = flags | Flags::ECE;
        }
        if !is_new {
            return (flags, tos);
        }
        if self.congestion.take_cwr() {
            flags = flags | Flags::CWR;
        }
        (flags, tos | ecn::ECT_0)
    }

    /// Whether both ends agreed on it: for tools.
    pub fn uses_ecn(&self) -> bool {
        self.ecn.is_on && self.state.is_synchronized()
    }
}
