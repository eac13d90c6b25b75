//! Finding out that something was lost, and sending it again.
//!
//! - `rtt.rs`: round-trip times and the retransmission timeout (RFC 6298);
//! - `newreno.rs`: duplicate acknowledgements, fast retransmit, limited transmit (RFC 5681, RFC 6582, RFC 3042).

mod newreno;
mod rtt;

use super::Seq;
pub(super) use newreno::Timer;
pub(super) use rtt::Rtt;

/// How sending stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Fast recovery: until `recover` is acknowledged.
    Recovering,
    /// After a retransmission timeout: until `recover` is acknowledged.
    Loss,
}

/// What loss recovery remembers.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Recovery {
    /// SND.NXT when the current or last recovery began (RFC 6582's "recover", plus one).
    pub(super) recover: Seq,
    /// Octets that duplicate acknowledgements say have left the network: RFC 6582's window inflation.
    pub(super) credit: u32,
    pub(super) phase: Phase,
    pub(super) dupacks: u8,
    /// The next retransmission does not ask the congestion window.
    pub(super) retransmit_now: bool,
    /// A partial acknowledgement came in this recovery: only the first restarts the timer (RFC 6582 §4, "impatient").
    saw_partial: bool,
}

impl Recovery {
    pub(super) fn new(iss: Seq) -> Recovery {
        Recovery { recover: iss, ..Recovery::default() }
    }

    /// Keeps `recover` close behind SND.UNA once that has passed it, lest the numbers wrap between two losses.
    #[inline]
    fn follow(&mut self, una: Seq) {
        if una.is_after(self.recover) {
            self.recover = una - 1;
        }
    }

    /// Nothing unusual: the fast path may be taken.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.phase == Phase::Open && self.dupacks == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recover_never_gets_ahead_however_long_nothing_is_lost() {
        let mut recovery = Recovery::new(Seq(u32::MAX - 5));
        for step in 0..64u32 {
            let una = Seq((u32::MAX - 4).wrapping_add(step.wrapping_mul(1 << 28)));
            assert!(una.is_after(recovery.recover));
            recovery.follow(una);
        }
    }
}
