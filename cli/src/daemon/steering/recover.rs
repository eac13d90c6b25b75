//! What a daemon of before told the XDP program, read back from the program's maps: they live as long as it is attached.

use super::blocks::Block;
use super::{BlockEntry, Group, Port, Steering, rebalance};
use crate::failure::{Context, Outcome, fail};
use aya::maps::{Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use sidestep_xdp::maps::{
    ABI_VERSION, Config, EPHEMERAL_BLOCKS, FlowKey, MAX_GROUPS, NO_STACK, PORT_KERNEL_FLOWS, PortEntry, PortState,
    Proto, bucket_index, policy_index,
};
use std::collections::HashMap;

/// The maps of a loaded program, by name.
fn maps_of(program: &ProgramInfo) -> Outcome<HashMap<String, Map>> {
    let ids = program.map_ids().context("cannot ask for the XDP program's maps")?.unwrap_or_default();
    let mut maps = HashMap::new();
    for id in ids {
        let name = MapInfo::from_id(id).ok().and_then(|info| info.name_as_str().map(str::to_owned));
        let map = MapData::from_id(id).and_then(Map::from_map_data);
        maps.insert(name.unwrap_or_default(), map.context(format!("cannot open map {id} of the XDP program"))?);
    }
    Ok(maps)
}

impl Steering {
    /// Goes on where another daemon stopped. `blocks` are those that it had reserved; `has_members`: ports whose groups may
    /// have members although they are off.
    pub(crate) fn recover(
        program: &ProgramInfo,
        queues: u32,
        blocks: &[u8],
        has_members: impl Fn(Port) -> bool,
    ) -> Outcome<Steering> {
        let mut maps = maps_of(program)?;
        let mut steering = Steering::from_maps(&mut |name| maps.remove(name), queues)?;
        let config =
            steering.config.get(&0, 0).map(Config::from_bytes).context("cannot read the XDP program's maps")?;
        if config.abi != ABI_VERSION || config.queues != queues {
            fail!("the XDP program on the device is of another build, which this one cannot take over");
        }
        steering.recover_all(blocks, has_members).context("cannot read the XDP program's maps")?;
        Ok(steering)
    }

    fn recover_all(&mut self, blocks: &[u8], has_members: impl Fn(Port) -> bool) -> Result<(), aya::maps::MapError> {
        self.addresses = self.local.keys().collect::<Result<_, _>>()?;
        for entry in self.flows.iter() {
            let (key, stack) = entry?;
            self.pinned.insert(FlowKey::from_bytes(&key), stack);
        }
        for number in (0..EPHEMERAL_BLOCKS).filter_map(|n| u8::try_from(n).ok()) {
            let entry = BlockEntry::from_bytes(self.ephemeral.get(&u32::from(number), 0)?);
            if let Some(stack) = entry.stack.checked_sub(1) {
                self.blocks.push(Block { number, stack, is_shared: entry.shared != 0 });
            }
        }
        self.free_blocks =
            blocks.iter().rev().copied().filter(|b| !self.blocks.iter().any(|used| used.number == *b)).collect();
        self.recover_groups(has_members)
    }

    /// The entry of a port that is off names a group only if the operator switched it off; one that nobody serves has given
    /// its group back, perhaps to another port.
    fn recover_groups(&mut self, has_members: impl Fn(Port) -> bool) -> Result<(), aya::maps::MapError> {
        let mut are_off = Vec::new();
        for proto in [Proto::Tcp, Proto::Udp] {
            for number in 0..=u16::MAX {
                let entry = PortEntry::from_bytes(self.policy.get(&policy_index(proto, number), 0)?);
                let port = (proto as u8, number);
                if entry.state() != PortState::Off {
                    let group = self.recover_group(entry)?;
                    self.groups.insert(port, group);
                } else if has_members(port) {
                    are_off.push((port, entry));
                } else if entry.flags != 0 {
                    self.unpinned.insert(port); // to be looked at, and written anew
                }
            }
        }
        for (port, entry) in are_off {
            let group = self.recover_group(entry)?;
            if self.groups.values().all(|other| other.id != group.id) {
                self.groups.insert(port, group);
            }
        }
        Ok(())
    }

    /// The group of a port: its members are those who own its buckets. Others are remembered later
    /// ([`Steering::remember_member`]).
    fn recover_group(&self, entry: PortEntry) -> Result<Group, aya::maps::MapError> {
        let mut group = Group::new(entry.group.min(MAX_GROUPS as u16 - 1));
        group.has_kernel_flows = entry.flags & PORT_KERNEL_FLOWS != 0;
        for (bucket, owner) in group.owners.iter_mut().enumerate() {
            *owner = self.buckets.get(&bucket_index(group.id, bucket as u32), 0)?;
        }
        group.members = group.owners.iter().filter(|o| **o != NO_STACK).map(|o| o - 1).collect();
        group.members.sort_unstable();
        group.members.dedup();
        // Its buckets may have been on the move.
        group.is_uneven = rebalance(&group.owners, &group.members) != group.owners;
        Ok(group)
    }
}
