//! From a 4-tuple to its connection or TIME-WAIT: a table of chains, hashed with a secret.

use super::Engine;
use crate::addr::Flow;
use crate::slab::NONE;
use crate::socket::QUEUE_DEPARTED;

/// What a flow leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Connection(u32),
    TimeWait(u32),
}

/// In the table and in the chains: 0 ends, else index + 1, tagged in the top bit. Zeroed memory is an empty table.
const TIME_WAIT_TAG: u32 = 1 << 31;

impl Entry {
    fn encode(self) -> u32 {
        match self {
            Entry::Connection(i) => i + 1,
            Entry::TimeWait(i) => (i + 1) | TIME_WAIT_TAG,
        }
    }

    fn decode(word: u32) -> Option<Entry> {
        match word {
            0 | NONE => None,
            w if w & TIME_WAIT_TAG != 0 => Some(Entry::TimeWait((w & !TIME_WAIT_TAG) - 1)),
            w => Some(Entry::Connection(w - 1)),
        }
    }
}

impl Engine<'_> {
    /// The connection or TIME-WAIT of a flow.
    #[inline(always)]
    pub(crate) fn lookup(&self, flow: &Flow) -> Option<Entry> {
        let mut at = self.flow_table[self.bucket(flow)];
        while let Some(entry) = Entry::decode(at) {
            let (found, next) = match entry {
                Entry::Connection(i) => (self.conns[i].flow(), self.conns[i].link.hash_next),
                Entry::TimeWait(i) => (&self.time_waits[i].flow, self.time_waits[i].hash_next),
            };
            if found == flow {
                return Some(entry);
            }
            at = next;
        }
        None
    }

    /// Whether the flow leads to this connection: else the slot is free, or the connection over.
    pub(crate) fn is_flow_of(&self, flow: &Flow, conn: u32) -> bool {
        self.lookup(flow) == Some(Entry::Connection(conn))
    }

    pub(crate) fn link_flow(&mut self, flow: &Flow, entry: Entry) {
        let bucket = self.bucket(flow);
        let head = core::mem::replace(&mut self.flow_table[bucket], entry.encode());
        *self.hash_next(entry) = head;
    }

    /// Takes an entry out of the table; does nothing when it is not there.
    pub(crate) fn unlink_flow(&mut self, flow: &Flow, entry: Entry) {
        let (word, next) = (entry.encode(), *self.hash_next(entry));
        let bucket = self.bucket(flow);
        if self.flow_table[bucket] == word {
            self.flow_table[bucket] = next;
            return;
        }
        let mut at = Entry::decode(self.flow_table[bucket]);
        while let Some(before) = at {
            let link = self.hash_next(before);
            if *link == word {
                *link = next;
                return;
            }
            at = Entry::decode(*link);
        }
    }

    fn hash_next(&mut self, entry: Entry) -> &mut u32 {
        match entry {
            Entry::Connection(i) => &mut self.conns[i].link.hash_next,
            Entry::TimeWait(i) => &mut self.time_waits[i].hash_next,
        }
    }

    #[inline]
    fn bucket(&self, flow: &Flow) -> usize {
        flow_hash(&self.state.config.hash_secret, flow) as usize & (self.flow_table.len() - 1)
    }

    /// Calls `f` with the flow of every connection and TIME-WAIT of a local port: for the daemon, which writes them to
    /// the exact-match map before the port's buckets move.
    pub fn flows_of_port(&self, port: u16, mut f: impl FnMut(&Flow)) {
        self.for_each_flow(|flow| {
            if flow.local.port == port {
                f(flow);
            }
        });
    }

    /// Calls `f` with the flow of every connection and TIME-WAIT that is this stack's.
    pub fn for_each_flow(&self, mut f: impl FnMut(&Flow)) {
        self.for_each_entry(|entry, flow| {
            if !self.has_departed(entry) {
                f(flow);
            }
        });
    }

    /// Whether it only keeps the place of a connection that went to another stack.
    pub(super) fn has_departed(&self, entry: Entry) -> bool {
        matches!(entry, Entry::Connection(i) if self.conns[i].link.queue == QUEUE_DEPARTED)
    }

    pub(super) fn for_each_entry(&self, mut f: impl FnMut(Entry, &Flow)) {
        for head in self.flow_table.iter() {
            let mut at = *head;
            while let Some(entry) = Entry::decode(at) {
                let (flow, next) = match entry {
                    Entry::Connection(i) => (self.conns[i].flow(), self.conns[i].link.hash_next),
                    Entry::TimeWait(i) => (&self.time_waits[i].flow, self.time_waits[i].hash_next),
                };
                f(entry, flow);
                at = next;
            }
        }
    }
}

/// A keyed hash of a flow: two 64×64→128 multiplications, so that nobody outside can aim at one chain.
#[inline]
pub(crate) fn flow_hash(secret: &[u64; 2], flow: &Flow) -> u32 {
    let (r0, r1) = flow.remote.ip.halves();
    let (l0, l1) = flow.local.ip.halves();
    let ports = u64::from(flow.remote.port) << 16 | u64::from(flow.local.port);
    let a = fold(r1 ^ secret[0], l1 ^ ports.rotate_left(32) ^ secret[1]);
    let b = fold(r0 ^ a ^ secret[1], l0.rotate_left(17) ^ ports ^ secret[0]);
    (b ^ b >> 32) as u32
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Endpoint, Ip};

    #[test]
    fn neighbouring_flows_spread_evenly() {
        let secret = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321];
        let mut counts = vec![0u32; 1024];
        for host in 0..16u8 {
            for port in 32768..32768 + 1024u16 {
                let flow = Flow {
                    local: Endpoint::new(Ip::v4([10, 0, 0, 1]), 80),
                    remote: Endpoint::new(Ip::v4([10, 0, 0, 2 + host]), port),
                };
                counts[flow_hash(&secret, &flow) as usize % 1024] += 1;
            }
        }
        // 16 per bucket on average; a Poisson spread stays well below 48.
        assert!(counts.iter().all(|n| (1..48).contains(n)), "{:?}", counts.iter().minmax_pair());
    }

    trait MinMax {
        fn minmax_pair(self) -> (u32, u32);
    }
    impl<'a, I: Iterator<Item = &'a u32> + Clone> MinMax for I {
        fn minmax_pair(self) -> (u32, u32) {
            (*self.clone().min().unwrap(), *self.max().unwrap())
        }
    }
}
