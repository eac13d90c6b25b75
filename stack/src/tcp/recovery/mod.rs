//! Finding out that something was lost, and sending it again.
//!
//! - `scoreboard.rs`: what is known of each frame in flight (RFC 6675 §3);
//! - `cover.rs`: what a block covers, found without a walk;
//! - `sack.rs`: what the peer reports: blocks and duplicates (RFC 2018, RFC 2883);
//! - `rack.rs`: loss by time: what was sent earlier than something delivered (RFC 8985 §6);
//! - `tlp.rs`: a probe for a lost tail (RFC 8985 §7);
//! - `newreno.rs`: duplicate acknowledgements, for a peer without SACK (RFC 5681, RFC 6582);
//! - `episode.rs`: how a recovery begins, goes on and ends; what an acknowledgement and a timeout mean for it;
//! - `undo.rs`: it was no loss: F-RTO (RFC 5682), Eifel (RFC 3522, RFC 4015), duplicates reported;
//! - `prr.rs`: the window during recovery (RFC 6937 and its revision);
//! - `rtt.rs`: round-trip times and the retransmission timeout (RFC 6298).

#[cfg(test)]
mod check;
mod cover;
mod episode;
mod newreno;
mod prr;
mod rack;
mod rtt;
mod sack;
mod scoreboard;
mod tlp;
mod undo;

use super::Seq;
use super::congestion::Carried;
use prr::Prr;
use rack::Rack;
pub(super) use rtt::Rtt;
pub(super) use scoreboard::Scoreboard;
use tlp::Probe;
use undo::Undo;

/// How sending stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Fast recovery: until `recover` is acknowledged.
    Recovering,
    /// After a retransmission timeout, or after the path got narrower: until `recover` is acknowledged.
    Loss,
}

/// What loss recovery remembers.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Recovery {
    rack: Rack,
    prr: Prr,
    undo: Undo,
    /// SND.NXT when the current or last recovery began (RFC 6582's "recover", plus one).
    pub(super) recover: Seq,
    /// SND.NXT when the probe that is out was sent (TLP.end_seq).
    probe_end: Seq,
    /// Reports of duplicates ever.
    dsacks: u32,
    pub(super) phase: Phase,
    pub(super) dupacks: u8,
    /// The next retransmission does not ask the congestion window.
    pub(super) retransmit_now: bool,
    /// F-RTO wants to hear what becomes of data never sent before: that goes first, once (RFC 5682 §2.1, step 2b).
    pub(super) new_first: bool,
    /// The last timeout may turn out to have been early.
    frto: bool,
    /// A probe has to be sent, whatever the congestion window says.
    pub(super) owes_probe: bool,
    probe: Probe,
    _pad: u8,
}

impl Recovery {
    pub(super) fn new(iss: Seq) -> Recovery {
        Recovery { recover: iss, rack: Rack::new(), ..Recovery::default() }
    }

    /// Keeps `recover` close behind SND.UNA once that has passed it, lest the numbers wrap between two losses.
    #[inline]
    fn follow(&mut self, una: Seq) {
        if una.is_after(self.recover) {
            self.recover = una - 1;
        }
    }

    /// Nothing unusual, if the scoreboard is clear as well: the fast path may be taken.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.phase == Phase::Open && self.dupacks == 0 && self.probe == Probe::None && !self.undo.is_possible()
    }

    /// A probe is out, and even an acknowledgement of nothing may tell what became of it.
    pub(super) fn is_probing(&self) -> bool {
        self.probe != Probe::None
    }

    /// Segments that reordering moved at most, and at least three, as Linux tells it.
    pub(super) fn reordering(&self) -> u32 {
        self.rack.reordering()
    }

    /// Duplicates the peer reported.
    pub(super) fn dsacks(&self) -> u32 {
        self.dsacks
    }
}

/// What one acknowledgement tells, before anything follows from it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// How things stood before: octets in the network, behind the highest octet reported, `Recovery::recover`.
    prior_in_flight: u32,
    prior_lost_total: u32,
    prior_lost_again: u32,
    fack: Seq,
    recover: Seq,
    /// Octets newly below SND.UNA; and those newly known to be delivered.
    pub(super) acked: u32,
    delivered: u32,
    /// The latter in frames.
    pub(super) delivered_segments: u32,
    /// Round trips of what was sent once: the oldest frame acknowledged, the first reported.
    oldest_rtt_us: Option<u32>,
    sacked_rtt_us: Option<u32>,
    /// The frame delivered that was sent last.
    newest: Option<Newest>,
    /// And what that frame carried, for the delivery rate.
    carried: Carried,
    /// The lowest frame that arrived, on its first way, after one behind it.
    reordered_from: Option<Seq>,
    /// Something was acknowledged that had been sent more than once.
    has_resent: bool,
    /// Something below `recover` was delivered that had been sent once.
    has_original: bool,
    newly_sacked: bool,
    /// A duplicate was reported; and it was not our probe's.
    dsack: bool,
    dsack_of_loss: bool,
    /// It says nothing else but that something arrived (RFC 5681 §2).
    is_duplicate: bool,
    /// The timestamp it echoes.
    echo: Option<u32>,
    /// The reordering timer has to look again after this long.
    reorder_wait_us: Option<u64>,
    /// Recovery ended with it: the window is ssthresh now.
    ended: bool,
}

/// The frame that was sent last of those an acknowledgement delivers.
#[derive(Clone, Copy, Debug)]
struct Newest {
    rtt_us: u32,
    seq: Seq,
    end: Seq,
    was_resent: bool,
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
