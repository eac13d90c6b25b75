//! The counters against what passed.

use super::Verdict;
use crate::testing::Host;
use crate::testing::alloc::format;

/// What a monitor counted at one host since that started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Whole TCP segments with right checksums among them.
    pub(crate) segments_received: u64,
    pub(crate) resets_sent: u64,
    pub(crate) resent: u64,
}

pub(crate) fn check(host: &mut Host, tally: &Tally) -> Verdict {
    let engine = host.engine();
    let c = engine.counters();
    let compare = [
        ("tx_frames", c.tx_frames, tally.sent),
        ("rx_frames", c.rx_frames, tally.received),
        ("rx_segments", c.rx_segments, tally.segments_received),
        ("tx_rsts", c.tx_rsts, tally.resets_sent),
    ];
    for (name, counted, seen) in compare {
        if counted != seen {
            return Err(format!("{name} is {counted}, but {seen} passed"));
        }
    }
    if c.retransmits < tally.resent {
        return Err(format!("retransmits is {}, but {} data segments went again", c.retransmits, tally.resent));
    }
    Ok(())
}
