//! Connections that the stack reset a moment ago.
//!
//! What their peers sent before they heard of it meets no connection any more: it is answered with a RST, as the kernel does, and
//! says nothing of how flows are steered. So it is counted under a name of its own ([`AfterReset`](crate::drops::Drop::AfterReset)), and
//! `NoSocket` on a served port is what it should be: a segment that met the wrong stack.

use super::{Engine, flow_hash};
use crate::addr::Flow;
use crate::time::{Instant, SEC};

const RECENT_MAX: usize = 16;
/// Longer than a segment is on its way, and lies in a ring of a process that gets no processor.
const RECENT_US: u64 = 2 * SEC;

/// The last flows that were reset, by their hashes, and when.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RecentResets {
    hashes: [u32; RECENT_MAX],
    /// In milliseconds, modulo 2^32; with the hash 0 at 0, a slot that was never used.
    times_ms: [u32; RECENT_MAX],
    next: u32,
    _pad: u32,
}

impl Default for RecentResets {
    fn default() -> Self {
        RecentResets { hashes: [0; RECENT_MAX], times_ms: [0; RECENT_MAX], next: 0, _pad: 0 }
    }
}

fn ms(at: Instant) -> u32 {
    (at.micros() / 1000) as u32
}

impl RecentResets {
    fn note(&mut self, hash: u32, now: Instant) {
        let at = self.next as usize % RECENT_MAX;
        (self.hashes[at], self.times_ms[at]) = (hash, ms(now));
        self.next = self.next.wrapping_add(1);
    }

    fn has(&self, hash: u32, now: Instant) -> bool {
        let is_recent = |at: u32| u64::from(ms(now).wrapping_sub(at)) * 1000 < RECENT_US;
        self.hashes.iter().zip(&self.times_ms).any(|(h, at)| *h == hash && is_recent(*at))
    }
}

impl Engine<'_> {
    /// The flow's connection ends with a RST of ours.
    #[cold]
    pub(super) fn note_reset(&mut self, now: Instant, flow: &Flow) {
        let hash = flow_hash(&self.state.config.hash_secret, flow);
        self.state.resets.note(hash, now);
    }

    pub(super) fn was_just_reset(&self, now: Instant, flow: &Flow) -> bool {
        self.state.resets.has(flow_hash(&self.state.config.hash_secret, flow), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn the_last_ones_are_known_for_a_while() {
        let at = |n: u64| Instant::from_micros(n);
        let mut resets = RecentResets::default();
        let start = 5 * SEC;
        (1..=RECENT_MAX as u32 + 1).for_each(|hash| resets.note(hash, at(start)));
        assert!(!resets.has(1, at(start)) && resets.has(2, at(start)));
        assert!(resets.has(2, at(start + RECENT_US - MS)) && !resets.has(2, at(start + RECENT_US)));
    }
}
