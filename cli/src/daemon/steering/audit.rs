//! What the maps say, beside what the daemon believes of them: for `sidestep doctor`.

use super::{BlockEntry, NO_STACK, Steering, bucket_index};
use sidestep_stack::engine::Count;
use sidestep_xdp::maps::{BUCKETS_PER_GROUP, ephemeral_index};
use std::sync::atomic::Ordering::Relaxed;

impl Steering {
    /// Each thing as it is booked, and how many of it are as they should be. `is_live`: the stack exists.
    pub(crate) fn audit(&self, is_live: impl Fn(u32) -> bool) -> Vec<(&'static str, Count)> {
        vec![
            ("buckets of served ports", self.audit_buckets(&is_live)),
            ("flows that stay where they are", self.audit_flows(&is_live)),
            ("blocks of local ports", self.audit_blocks(&is_live)),
            ("datagram ports of stacks", self.audit_datagram_ports(&is_live)),
        ]
    }

    fn audit_buckets(&self, is_live: &impl Fn(u32) -> bool) -> Count {
        let mut count = Count::default();
        for group in self.groups.values() {
            for bucket in 0..BUCKETS_PER_GROUP {
                let owner = group.owners[bucket as usize];
                let in_map = self.buckets.get(&bucket_index(group.id, bucket), 0).unwrap_or(u32::MAX);
                let is_served = match owner {
                    NO_STACK => group.members.is_empty(),
                    owner => is_live(owner - 1) && group.members.contains(&(owner - 1)),
                };
                count.booked += 1;
                count.found += u32::from(is_served && in_map == owner);
            }
        }
        count
    }

    fn audit_flows(&self, is_live: &impl Fn(u32) -> bool) -> Count {
        let in_map = self.flows.keys().count() as u32;
        let right = |(key, stack): &(&_, &u32)| {
            let key: &sidestep_xdp::maps::FlowKey = key;
            is_live(**stack) && self.flows.get(&key.to_bytes(), 0).ok() == Some(**stack)
        };
        let found = self.pinned.iter().filter(right).count() as u32;
        Count { booked: in_map.max(self.pinned.len() as u32), found }
    }

    fn audit_blocks(&self, is_live: &impl Fn(u32) -> bool) -> Count {
        let right = |block: &&super::blocks::Block| {
            let first = *crate::daemon::sysctl::block_ports(block.number).start();
            let entry = self.ephemeral.get(&ephemeral_index(first), 0).map(BlockEntry::from_bytes);
            is_live(block.stack) && entry.is_ok_and(|entry| entry.stack == block.stack + 1)
        };
        let has_stack =
            |entry: &Result<[u8; 8], _>| !matches!(entry, Ok(e) if BlockEntry::from_bytes(*e).stack == NO_STACK);
        let in_map = self.ephemeral.iter().filter(|entry| has_stack(entry)).count() as u32;
        Count { booked: in_map.max(self.blocks.len() as u32), found: self.blocks.iter().filter(right).count() as u32 }
    }

    fn audit_datagram_ports(&self, is_live: &impl Fn(u32) -> bool) -> Count {
        let entries = self.steered.iter().map(|entry| entry.load(Relaxed)).filter(|entry| *entry != 0);
        let mut count = Count::default();
        for entry in entries {
            count.booked += 1;
            count.found += u32::from(u32::try_from(entry - 1).is_ok_and(is_live));
        }
        count
    }
}
