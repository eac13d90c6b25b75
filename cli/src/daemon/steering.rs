//! What the XDP program is told: addresses, ports, groups, blocks, flows. The owner of its maps.
//!
//! One rule rules: a connection's packets meet the same answer until it is over. So live flows are pinned in FLOWS before
//! their bucket moves, and ports switch through states in which both old and new connections are served.

mod recover;

use super::groups::{BUCKETS, Group, Owners, rebalance};
use super::kernel_sockets;
use super::sysctl::block_ports;
use crate::failure::{Context, Failure, Outcome, fail};
use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHash, Map, MapData, MapError, PerCpuArray, XskMap};
use sidestep_stack::addr::{Flow, Ip};
use sidestep_stack::arena::Policy;
use sidestep_xdp::maps::{
    ABI_VERSION, CONFIG_VLAN_OK, Config, EPHEMERAL_KERNEL_FLOWS, FlowKey, MAX_GROUPS, NO_STACK, PORT_HAS_FLOWS,
    PORT_KERNEL_FLOWS, PortEntry, PortState, Proto, Verdict, bucket_index, ephemeral_index, names, policy_index,
    xsk_index,
};
use sidestep_xdp::steer::bucket_of;
use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;

/// A port of a protocol.
pub(crate) type Port = (u8, u16);

/// The protocol of a [`Port`].
pub(crate) fn proto_of(port: Port) -> Proto {
    if port.0 == Proto::Udp as u8 { Proto::Udp } else { Proto::Tcp }
}

/// An ephemeral block that a stack has.
struct Block {
    number: u8,
    stack: u32,
    has_kernel_flows: bool,
}

pub(crate) struct Steering {
    /// Keeps the program and its maps; the device does too, once it is attached.
    _loaded: Option<Ebpf>,
    config: Array<MapData, [u8; 16]>,
    xsks: XskMap<MapData>,
    ephemeral: Array<MapData, u32>,
    policy: Array<MapData, [u8; 4]>,
    buckets: Array<MapData, u32>,
    flows: BpfHash<MapData, [u8; 40], u32>,
    local: BpfHash<MapData, [u8; 16], u32>,
    counters: PerCpuArray<MapData, u64>,
    queues: u32,
    groups: HashMap<Port, Group>,
    pinned: HashMap<FlowKey, u32>,
    free_blocks: Vec<u8>,
    blocks: Vec<Block>,
    addresses: HashSet<[u8; 16]>,
}

/// Where maps come from, by name.
type Maps<'a> = dyn FnMut(&str) -> Option<Map> + 'a;

fn take<T: TryFrom<Map, Error = MapError>>(maps: &mut Maps<'_>, name: &str) -> Outcome<T> {
    let Some(map) = maps(name) else { fail!("the XDP program has no map {name}") };
    T::try_from(map).context(format!("map {name} of the XDP program"))
}

fn key_of(port: Port, flow: &Flow) -> FlowKey {
    FlowKey::new(proto_of(port), flow.local.ip.0, flow.local.port, flow.remote.ip.0, flow.remote.port)
}

/// What moves when a group changes, and from whom.
pub(crate) struct Plan {
    port: Port,
    members: Vec<u32>,
    owners: Owners,
    /// Stacks that lose buckets: their live flows are to be pinned.
    pub(crate) losers: Vec<u32>,
}

impl Steering {
    pub(crate) fn new(mut loaded: Ebpf, queues: u32, mut blocks: Vec<u8>) -> Outcome<Steering> {
        let mut steering = Self::from_maps(&mut |name| loaded.take_map(name), queues)?;
        steering._loaded = Some(loaded);
        blocks.reverse(); // taken from the end: highest first
        steering.free_blocks = blocks;
        Ok(steering)
    }

    fn from_maps(maps: &mut Maps<'_>, queues: u32) -> Outcome<Steering> {
        Ok(Steering {
            config: take(maps, names::CONFIG)?,
            xsks: take(maps, names::XSKS)?,
            ephemeral: take(maps, names::EPHEMERAL)?,
            policy: take(maps, names::POLICY)?,
            buckets: take(maps, names::BUCKETS)?,
            flows: take(maps, names::FLOWS)?,
            local: take(maps, names::LOCAL)?,
            counters: take(maps, names::COUNTERS)?,
            _loaded: None,
            queues,
            groups: HashMap::new(),
            pinned: HashMap::new(),
            free_blocks: Vec::new(),
            blocks: Vec::new(),
            addresses: HashSet::new(),
        })
    }

    /// Opens the gate: before, everything passes. Tagged frames pass unless there are VLANs that they can belong to.
    pub(crate) fn configure(&mut self, has_vlans: bool) -> Outcome<()> {
        let flags = if has_vlans { CONFIG_VLAN_OK } else { 0 };
        let config = Config { queues: self.queues, flags, abi: ABI_VERSION, reserved: 0 };
        self.config.set(0, config.to_bytes(), 0).context("cannot configure the XDP program")
    }

    /// Closes it.
    pub(crate) fn pass_everything(&mut self) {
        let _ = self.config.set(0, Config::default().to_bytes(), 0);
    }

    /// The device's addresses are these.
    pub(crate) fn set_addresses(&mut self, now: impl Iterator<Item = Ip>) -> Outcome<()> {
        let now: HashSet<[u8; 16]> = now.map(|ip| ip.0).collect();
        for gone in self.addresses.difference(&now) {
            let _ = self.local.remove(gone);
        }
        for new in now.difference(&self.addresses) {
            self.local.insert(new, 1, 0).context("cannot tell the XDP program an address")?;
        }
        self.addresses = now;
        Ok(())
    }

    pub(crate) fn add_stack(&mut self, stack: u32, xsks: &[RawFd]) -> Outcome<()> {
        for (queue, fd) in xsks.iter().enumerate() {
            let index = xsk_index(stack, self.queues, queue as u32);
            self.xsks.set(index, *fd, 0).context("cannot give the XDP program a socket")?;
        }
        Ok(())
    }

    /// A stack that is no more: it must have left its groups.
    pub(crate) fn remove_stack(&mut self, stack: u32) {
        for queue in 0..self.queues {
            let _ = self.xsks.unset(xsk_index(stack, self.queues, queue));
        }
        for block in self.blocks.extract_if(.., |b| b.stack == stack).collect::<Vec<_>>() {
            let _ = self.ephemeral.set(ephemeral_index(*block_ports(block.number).start()), NO_STACK, 0);
            self.free_blocks.insert(0, block.number); // used last: peers may hold its ports in TIME-WAIT
        }
        let flows: Vec<FlowKey> = self.pinned.iter().filter(|(_, s)| **s == stack).map(|(k, _)| *k).collect();
        flows.iter().for_each(|key| self.unpin(key));
    }

    /// Whether [`Steering::take_block`] would find one.
    pub(crate) fn has_block(&self) -> bool {
        !self.free_blocks.is_empty()
    }

    /// A block of local ports for a stack's active opens: its first port, and how many.
    pub(crate) fn take_block(&mut self, stack: u32) -> Outcome<Option<(u16, u16)>> {
        let sockets = kernel_sockets::all();
        let is_used = |block: u8| sockets.iter().any(|s| block_ports(block).contains(&s.port));
        // One without kernel sockets if there is any; else the program must look each packet up.
        let at = self.free_blocks.iter().rposition(|b| !is_used(*b)).or(self.free_blocks.len().checked_sub(1));
        let Some(at) = at else { return Ok(None) };
        let number = self.free_blocks.remove(at);
        let has_kernel_flows = is_used(number);
        let ports = block_ports(number);
        let entry = (stack + 1) | if has_kernel_flows { EPHEMERAL_KERNEL_FLOWS } else { 0 };
        self.ephemeral.set(ephemeral_index(*ports.start()), entry, 0).context("cannot steer a block of ports")?;
        self.blocks.push(Block { number, stack, has_kernel_flows });
        Ok(Some((*ports.start(), ports.len() as u16)))
    }

    /// The ports that a stack serves.
    pub(crate) fn ports_of(&self, stack: u32) -> Vec<Port> {
        self.groups.iter().filter(|(_, g)| g.members.contains(&stack)).map(|(port, _)| *port).collect()
    }

    pub(crate) fn members(&self, port: Port) -> &[u32] {
        self.groups.get(&port).map_or(&[], |g| &g.members)
    }

    pub(crate) fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.groups.keys().copied()
    }

    /// What would move if `stack` joined the port's group; `None` when it is in it.
    pub(crate) fn plan_join(&mut self, port: Port, stack: u32) -> Outcome<Option<Plan>> {
        if !self.groups.contains_key(&port) {
            let taken: HashSet<u16> = self.groups.values().map(|g| g.id).collect();
            let Some(id) = (0..MAX_GROUPS as u16).find(|id| !taken.contains(id)) else {
                fail!("{MAX_GROUPS} ports are served already; the kernel serves this one")
            };
            self.groups.insert(port, Group::new(id));
        }
        let Some(group) = self.groups.get(&port).filter(|g| !g.members.contains(&stack)) else { return Ok(None) };
        let mut members = group.members.clone();
        members.push(stack);
        Ok(Some(plan(port, group, members)))
    }

    /// What would move if `stack` left; `None` when it is not in the group.
    pub(crate) fn plan_leave(&self, port: Port, stack: u32) -> Option<Plan> {
        let group = self.groups.get(&port).filter(|g| g.members.contains(&stack))?;
        let members = group.members.iter().copied().filter(|m| *m != stack).collect();
        Some(plan(port, group, members))
    }

    /// Pins a live flow of `stack` whose bucket moves (or moved) away from it.
    pub(crate) fn pin_if_moved(&mut self, plan: &Plan, stack: u32, flow: &Flow) {
        let key = key_of(plan.port, flow);
        if plan.owners[bucket_of(&key) as usize % BUCKETS] == stack + 1 || self.pinned.get(&key) == Some(&stack) {
            return;
        }
        match self.flows.insert(key.to_bytes(), stack, 0) {
            Ok(()) => drop(self.pinned.insert(key, stack)),
            Err(e) => super::log(format_args!("a connection cannot be kept: FLOWS is full or broken: {e}")),
        }
    }

    /// Moves the buckets.
    pub(crate) fn commit(&mut self, plan: &Plan, policy: Policy) -> Outcome<()> {
        let Some(group) = self.groups.get_mut(&plan.port) else { return Ok(()) };
        let starts = group.members.is_empty() && !plan.members.is_empty();
        for (bucket, (old, new)) in group.owners.iter().zip(&plan.owners).enumerate() {
            if old != new {
                self.buckets.set(bucket_index(group.id, bucket as u32), *new, 0).context("cannot move a bucket")?;
            }
        }
        group.owners = plan.owners;
        group.members.clone_from(&plan.members);
        let starts = starts && proto_of(plan.port) == Proto::Tcp;
        if starts {
            // Until it is known that the kernel has no connections on this port, each packet is looked up.
            group.has_kernel_flows = true;
        }
        self.write_port(plan.port, policy)?;
        if starts {
            self.look_for_kernel_flows(plan.port, policy, &kernel_sockets::tcp())?;
        }
        // Datagram sockets come and go by the thousand, each with its port: a group that nobody serves is given back.
        if plan.members.is_empty() && proto_of(plan.port) == Proto::Udp {
            self.groups.remove(&plan.port);
        }
        Ok(())
    }

    /// Writes the port's entry as its policy, members and flows want it.
    pub(crate) fn write_port(&mut self, port: Port, policy: Policy) -> Outcome<()> {
        let group = self.groups.get(&port);
        let is_served = group.is_some_and(|g| !g.members.is_empty());
        let state = match policy {
            Policy::Auto | Policy::On if is_served => PortState::On,
            Policy::Draining if is_served => PortState::Draining,
            _ => PortState::Off,
        };
        let mut flags = 0;
        if group.is_some_and(|g| g.has_kernel_flows) {
            flags |= PORT_KERNEL_FLOWS;
        }
        if self.has_pinned(port) {
            flags |= PORT_HAS_FLOWS;
        }
        let entry = PortEntry::new(state, flags, group.map_or(0, |g| g.id));
        self.policy
            .set(policy_index(proto_of(port), port.1), entry.to_bytes(), 0)
            .context(format!("cannot switch port {}", port.1))
    }

    /// Writes the entries of all ports anew.
    pub(crate) fn refresh_ports(&mut self, policy: impl Fn(Port) -> Policy) -> Outcome<()> {
        let ports: Vec<Port> = self.ports().collect();
        ports.into_iter().try_for_each(|port| self.write_port(port, policy(port)))
    }

    /// A port that was off is on again: the kernel may have connections.
    pub(crate) fn expect_kernel_flows(&mut self, port: Port, policy: Policy) -> Outcome<()> {
        if let Some(group) = self.groups.get_mut(&port).filter(|_| proto_of(port) == Proto::Tcp) {
            group.has_kernel_flows = true;
        }
        self.write_port(port, policy)?;
        self.look_for_kernel_flows(port, policy, &kernel_sockets::tcp())
    }

    fn look_for_kernel_flows(
        &mut self,
        port: Port,
        policy: Policy,
        sockets: &[kernel_sockets::KernelSocket],
    ) -> Outcome<()> {
        let Some(group) = self.groups.get_mut(&port).filter(|g| g.has_kernel_flows) else { return Ok(()) };
        if kernel_sockets::has_connections(sockets, port.1) {
            return Ok(());
        }
        group.has_kernel_flows = false;
        self.write_port(port, policy)
    }

    fn has_pinned(&self, port: Port) -> bool {
        let number = proto_of(port).number();
        self.pinned.keys().any(|k| k.local_port == port.1 && k.proto == number)
    }

    fn unpin(&mut self, key: &FlowKey) {
        let _ = self.flows.remove(&key.to_bytes());
        self.pinned.remove(key);
    }

    /// Whether [`Steering::sweep`] has anything to look after.
    pub(crate) fn needs_sweep(&self) -> bool {
        !self.pinned.is_empty()
            || self.groups.values().any(|g| g.has_kernel_flows)
            || self.blocks.iter().any(|b| b.has_kernel_flows)
    }

    /// The ports and stacks of pinned flows: whose live flows [`Steering::sweep`] wants to know.
    pub(crate) fn pinned_ports(&self) -> HashSet<(Port, u32)> {
        let port = |k: &FlowKey| (u8::from(k.proto == Proto::Udp.number()), k.local_port);
        self.pinned.iter().map(|(key, stack)| (port(key), *stack)).collect()
    }

    /// Forgets what is over: pinned flows that are not in `live`, kernel connections that ended.
    pub(crate) fn sweep(&mut self, live: &HashSet<(u32, FlowKey)>, policy: impl Fn(Port) -> Policy) -> Outcome<()> {
        let over = |(key, stack): (&FlowKey, &u32)| (!live.contains(&(*stack, *key))).then_some(*key);
        let gone: Vec<FlowKey> = self.pinned.iter().filter_map(over).collect();
        gone.iter().for_each(|key| self.unpin(key));
        let mut ports: HashSet<Port> =
            gone.iter().map(|k| (u8::from(k.proto == Proto::Udp.number()), k.local_port)).collect();
        let waiting: Vec<Port> = self.groups.iter().filter(|(_, g)| g.has_kernel_flows).map(|(p, _)| *p).collect();
        if !waiting.is_empty() || self.blocks.iter().any(|b| b.has_kernel_flows) {
            let sockets = kernel_sockets::all();
            for port in waiting {
                self.look_for_kernel_flows(port, policy(port), &sockets)?;
            }
            self.clear_blocks(&sockets)?;
        }
        ports.retain(|p| !self.has_pinned(*p));
        ports.into_iter().try_for_each(|port| self.write_port(port, policy(port)))
    }

    fn clear_blocks(&mut self, sockets: &[kernel_sockets::KernelSocket]) -> Outcome<()> {
        for block in self.blocks.iter_mut().filter(|b| b.has_kernel_flows) {
            let ports = block_ports(block.number);
            if !sockets.iter().any(|s| ports.contains(&s.port)) {
                block.has_kernel_flows = false;
                let index = ephemeral_index(*ports.start());
                self.ephemeral.set(index, block.stack + 1, 0).context("cannot steer a block of ports")?;
            }
        }
        Ok(())
    }

    /// The key under which a flow would be pinned: for [`Steering::sweep`].
    pub(crate) fn key(port: Port, flow: &Flow) -> FlowKey {
        key_of(port, flow)
    }

    /// The program's counters, summed over the processors.
    pub(crate) fn verdicts(&self) -> Result<Vec<u64>, Failure> {
        let sum = |i: u32| self.counters.get(&i, 0).map(|v| v.iter().sum());
        (0..Verdict::COUNT).map(|i| sum(i).context("cannot read the XDP program's counters")).collect()
    }
}

fn plan(port: Port, group: &Group, members: Vec<u32>) -> Plan {
    let owners = rebalance(&group.owners, &members);
    let moved = group.owners.iter().zip(&owners).filter(|(old, new)| old != new && **old != NO_STACK);
    let mut losers: Vec<u32> = moved.map(|(old, _)| old - 1).collect();
    losers.sort_unstable();
    losers.dedup();
    Plan { port, members, owners, losers }
}
