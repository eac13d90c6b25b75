//! What the XDP program is told: addresses, ports, groups, blocks, flows. The owner of its maps.
//!
//! One rule rules: a connection's packets meet the same answer until it is over. So live flows are pinned in FLOWS before
//! their bucket moves, and ports switch through states in which both old and new connections are served.

mod audit;
mod blocks;
mod recover;

use super::groups::{BUCKETS, Group, Owners, part, rebalance};
use super::kernel_sockets;
use super::quiesce::await_runs;
use crate::failure::{Context, Failure, Outcome, fail};
use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHash, Map, MapData, MapError, PerCpuArray, XskMap};
use sidestep_stack::addr::{Flow, Ip};
use sidestep_stack::arena::Policy;
use sidestep_stack::runtime::map_datagram_ports;
use sidestep_stack::udp::DatagramPorts;
use sidestep_xdp::maps::{
    ABI_VERSION, BlockEntry, CONFIG_VLAN_OK, Config, FlowKey, MAX_GROUPS, NO_STACK, PORT_HAS_FLOWS, PORT_KERNEL_FLOWS,
    PortEntry, PortState, Proto, Verdict, bucket_index, names, policy_index, xsk_index,
};
use sidestep_xdp::steer::bucket_of;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

/// A port of a protocol.
pub(crate) type Port = (u8, u16);

/// The protocol of a [`Port`].
pub(crate) fn proto_of(port: Port) -> Proto {
    if port.0 == Proto::Udp as u8 { Proto::Udp } else { Proto::Tcp }
}

pub(crate) struct Steering {
    /// Keeps the program and its maps; the device does too, once it is attached.
    _loaded: Option<Ebpf>,
    config: Array<MapData, [u8; 16]>,
    xsks: XskMap<MapData>,
    ephemeral: Array<MapData, [u8; 8]>,
    datagram_ports: MapData,
    steered: &'static DatagramPorts,
    policy: Array<MapData, [u8; 4]>,
    buckets: Array<MapData, u32>,
    flows: BpfHash<MapData, [u8; 40], u32>,
    local: BpfHash<MapData, [u8; 16], u32>,
    counters: PerCpuArray<MapData, u64>,
    queues: u32,
    groups: HashMap<Port, Group>,
    /// Where the search for a free group begins.
    next_group: u16,
    pinned: HashMap<FlowKey, u32>,
    /// Ports that had pins which are gone.
    unpinned: HashSet<Port>,
    free_blocks: Vec<u8>,
    blocks: Vec<blocks::Block>,
    /// [`Steering::take_cleared`]
    cleared: Vec<(u8, u32)>,
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
    pub(crate) port: Port,
    members: Vec<u32>,
    /// Those of them who get no buckets.
    passed_over: Vec<u32>,
    owners: Owners,
    old: Owners,
    /// Stacks that lose buckets: their live flows are to be pinned.
    pub(crate) losers: Vec<u32>,
    leaver: Option<u32>,
    /// Somebody keeps more than is his.
    is_uneven: bool,
}

impl Plan {
    /// The stacks whose flows may move, from or to.
    pub(crate) fn everybody(&self) -> BTreeSet<u32> {
        self.members.iter().chain(&self.losers).chain(&self.leaver).copied().collect()
    }

    /// Whether nobody is left in the group then.
    pub(crate) fn is_end(&self) -> bool {
        self.members.is_empty()
    }

    /// The stack that is out of the group then.
    pub(crate) fn leaver(&self) -> Option<u32> {
        self.leaver
    }

    /// Whether the stack keeps the flow's bucket.
    fn keeps(&self, stack: u32, bucket: usize) -> bool {
        self.owners[bucket] == stack + 1
    }

    /// The stack keeps its buckets after all; not one that leaves.
    pub(crate) fn keep_all(&mut self, stack: u32) {
        (0..BUCKETS).filter(|b| self.old[*b] == stack + 1).collect::<Vec<_>>().into_iter().for_each(|b| self.keep(b));
    }

    fn keep(&mut self, bucket: usize) {
        let stays = self.old[bucket].checked_sub(1).is_some_and(|stack| Some(stack) != self.leaver);
        if stays && self.owners[bucket] != self.old[bucket] {
            self.owners[bucket] = self.old[bucket];
            self.is_uneven = true;
        }
    }
}

fn bucket_at(port: Port, flow: &Flow) -> usize {
    bucket_of(&key_of(port, flow)) as usize % BUCKETS
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
        let Some(Map::Array(datagram_ports)) = maps(names::DATAGRAM_PORTS) else {
            fail!("the XDP program has no map {}", names::DATAGRAM_PORTS)
        };
        let steered = map_datagram_ports(datagram_ports.fd().as_fd().as_raw_fd()).context(names::DATAGRAM_PORTS)?;
        Ok(Steering {
            datagram_ports,
            steered,
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
            next_group: 0,
            pinned: HashMap::new(),
            unpinned: HashSet::new(),
            free_blocks: Vec::new(),
            blocks: Vec::new(),
            cleared: Vec::new(),
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

    /// The table by which stacks steer the datagrams of their own ports, and its descriptor, for processes.
    pub(crate) fn datagram_ports(&self) -> (&'static DatagramPorts, RawFd) {
        (self.steered, self.datagram_ports.fd().as_fd().as_raw_fd())
    }

    /// A stack that is no more: it must have left its groups.
    pub(crate) fn remove_stack(&mut self, stack: u32) {
        for queue in 0..self.queues {
            let _ = self.xsks.unset(xsk_index(stack, self.queues, queue));
        }
        self.take_blocks_back(stack);
        // What it had no time to clear; its successor starts with none.
        for entry in self.steered {
            let _ = entry.compare_exchange(u64::from(stack) + 1, 0, Relaxed, Relaxed);
        }
        let flows: Vec<FlowKey> = self.pinned.iter().filter(|(_, s)| **s == stack).map(|(k, _)| *k).collect();
        flows.iter().for_each(|key| self.unpin(key));
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
            // The one that was given back last comes last: what is on its way by its entry meets no other port's buckets.
            let ids = (0..MAX_GROUPS as u16).map(|n| (self.next_group + n) % MAX_GROUPS as u16);
            let Some(id) = { ids }.find(|id| !taken.contains(id)) else {
                fail!("{MAX_GROUPS} ports are served already; the kernel serves this one")
            };
            self.next_group = id + 1;
            self.groups.insert(port, Group::new(id));
        }
        let Some(group) = self.groups.get(&port).filter(|g| !g.members.contains(&stack)) else { return Ok(None) };
        let mut members = group.members.clone();
        members.push(stack);
        Ok(Some(plan(port, group, members, &group.passed_over)))
    }

    /// What would move if `stack` left; `None` when it is not in the group.
    pub(crate) fn plan_leave(&self, port: Port, stack: u32) -> Option<Plan> {
        let group = self.groups.get(&port).filter(|g| g.members.contains(&stack))?;
        let members = group.members.iter().copied().filter(|m| *m != stack).collect();
        Some(Plan { leaver: Some(stack), ..plan(port, group, members, &group.passed_over) })
    }

    /// Ports whose buckets are not spread evenly, because somebody could not give his away.
    pub(crate) fn uneven_ports(&self) -> Vec<Port> {
        self.groups.iter().filter(|(_, g)| g.is_uneven).map(|(port, _)| *port).collect()
    }

    /// What would move if they were.
    pub(crate) fn plan_even(&self, port: Port) -> Option<Plan> {
        let group = self.groups.get(&port)?;
        Some(plan(port, group, group.members.clone(), &group.passed_over))
    }

    /// [`Group::count_strays`]
    pub(crate) fn count_strays(&mut self, port: Port, stack: u32, more: u32, accepts: u64) -> Option<u32> {
        self.groups.get_mut(&port)?.count_strays(stack, more, accepts)
    }

    /// [`Group::put_off`]
    pub(crate) fn put_off(&mut self, port: Port, stack: u32, due: u32) {
        self.groups.get_mut(&port).into_iter().for_each(|group| group.put_off(stack, due));
    }

    /// What would move if those had the buckets of `from` who ask.
    pub(crate) fn plan_follow(&self, port: Port, from: u32, asking: &[u32]) -> Option<Plan> {
        let group = self.groups.get(&port)?;
        Some(plan_among(port, group, &group.sharers_without(from, asking)?))
    }

    /// What would move if those had buckets, too, who have none and ask.
    pub(crate) fn plan_return(&self, port: Port, asking: &[u32]) -> Option<Plan> {
        let group = self.groups.get(&port)?;
        Some(plan_among(port, group, &group.sharers_with(asking)?))
    }

    /// Ports at which some members have no buckets, because they did not ask.
    pub(crate) fn partial_ports(&self) -> Vec<Port> {
        self.groups.iter().filter(|(_, g)| !g.passed_over.is_empty()).map(|(port, _)| *port).collect()
    }

    /// A stack serves the port, though it has no bucket: it did not ask when a daemon of before looked.
    pub(crate) fn remember_member(&mut self, port: Port, stack: u32) {
        if let Some(group) = self.groups.get_mut(&port).filter(|g| !g.members.contains(&stack)) {
            group.members.push(stack);
            group.passed_over.push(stack);
        }
    }

    /// Pins a live flow of `stack` whose bucket moves (or moved) away from it; or, if that cannot be, lets it stay.
    pub(crate) fn pin_if_moved(&mut self, plan: &mut Plan, stack: u32, flow: &Flow) {
        let (key, bucket) = (key_of(plan.port, flow), bucket_at(plan.port, flow));
        if plan.keeps(stack, bucket) || self.pinned.get(&key) == Some(&stack) {
            return;
        }
        if let Err(e) = self.pin(key, stack) {
            super::log(format_args!("{e}"));
            plan.keep(bucket);
        }
    }

    pub(crate) fn pin(&mut self, key: FlowKey, stack: u32) -> Outcome<()> {
        self.flows.insert(key.to_bytes(), stack, 0).context("FLOWS is full or broken")?;
        self.pinned.insert(key, stack);
        Ok(())
    }

    /// The flow's segments go to this stack from now on: by their bucket, if it has that. False: they go where they went.
    pub(crate) fn lead(&mut self, port: Port, flow: &Flow, stack: u32) -> bool {
        let key = key_of(port, flow);
        if self.bucket_owner(port, flow) == Some(stack) {
            self.unpin(&key);
            return true;
        }
        let done = self.pin(key, stack);
        done.inspect_err(|e| super::log(format_args!("{e}"))).is_ok()
    }

    /// While buckets move: SYNs pass, and the kernel is asked for each packet.
    pub(crate) fn pause(&mut self, port: Port, policy: Policy) -> Outcome<()> {
        if policy.allows() {
            self.assume_kernel_flows(port);
            self.write_port(port, Policy::Draining)?;
        }
        Ok(())
    }

    /// Moves the buckets. What the map refuses stays where it is.
    pub(crate) fn commit(&mut self, plan: &Plan) {
        let Some(group) = self.groups.get_mut(&plan.port) else { return };
        group.is_uneven = plan.is_uneven;
        for (bucket, (owner, new)) in group.owners.iter_mut().zip(&plan.owners).enumerate() {
            if owner == new {
                continue;
            }
            match self.buckets.set(bucket_index(group.id, bucket as u32), *new, 0) {
                Ok(()) => *owner = *new,
                Err(e) => super::log(format_args!("cannot move a bucket: {e}")),
            }
        }
        group.become_of(&plan.members, &plan.passed_over);
    }

    /// Servers and datagram sockets come and go by the thousand, each with its port: a group that nobody serves is given back,
    /// once the port's entry does not name it any more. Connections that go on are pinned, which takes no group.
    pub(crate) fn forget_if_unserved(&mut self, port: Port) {
        if self.members(port).is_empty() {
            self.groups.remove(&port);
        }
    }

    /// The stack that has the flow's bucket.
    pub(crate) fn bucket_owner(&self, port: Port, flow: &Flow) -> Option<u32> {
        self.groups.get(&port)?.owners[bucket_at(port, flow)].checked_sub(1)
    }

    pub(crate) fn is_pinned(&self, port: Port, flow: &Flow) -> bool {
        self.pinned.contains_key(&key_of(port, flow))
    }

    /// The stack that gets a SYN of this flow.
    pub(crate) fn steered_to(&self, port: Port, flow: &Flow) -> Option<u32> {
        self.pinned.get(&key_of(port, flow)).copied().or_else(|| self.bucket_owner(port, flow))
    }

    /// The pins of a stack.
    pub(crate) fn pins(&self, stack: u32) -> impl Iterator<Item = &FlowKey> {
        self.pinned.iter().filter(move |(_, s)| **s == stack).map(|(key, _)| key)
    }

    /// The port of a pin.
    pub(crate) fn port_of(key: &FlowKey) -> Port {
        (u8::from(key.proto == Proto::Udp.number()), key.local_port)
    }

    /// Takes the pins of a stack back whose flows are not in `live`.
    pub(crate) fn take_pins(&mut self, stack: u32, live: &HashSet<FlowKey>) -> Vec<(FlowKey, u32)> {
        let over: Vec<FlowKey> = self.pins(stack).filter(|key| !live.contains(*key)).copied().collect();
        over.iter().for_each(|key| self.unpin(key));
        over.into_iter().map(|key| (key, stack)).collect()
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

    /// Until it is known that the kernel has no connections on this port, each packet is looked up.
    pub(crate) fn assume_kernel_flows(&mut self, port: Port) {
        if let Some(group) = self.groups.get_mut(&port).filter(|_| proto_of(port) == Proto::Tcp) {
            group.has_kernel_flows = true;
        }
    }

    /// A port that was off is on: the kernel may have connections, the last of which are just coming to be.
    pub(crate) fn expect_kernel_flows(&mut self, port: Port, policy: Policy) -> Outcome<()> {
        self.assume_kernel_flows(port);
        self.write_port(port, policy)?;
        await_runs();
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

    pub(crate) fn unpin(&mut self, key: &FlowKey) {
        let _ = self.flows.remove(&key.to_bytes());
        self.pinned.remove(key);
        self.unpinned.insert(Self::port_of(key));
    }

    /// Whether [`Steering::sweep`] has anything to look after.
    pub(crate) fn needs_sweep(&self) -> bool {
        !self.pinned.is_empty()
            || !self.unpinned.is_empty()
            || self.groups.values().any(|g| g.has_kernel_flows || g.is_uneven || !g.passed_over.is_empty())
            || self.blocks.iter().any(|b| b.is_shared)
    }

    /// The ports and stacks of pinned flows: whose flows are to be looked at.
    pub(crate) fn pinned_ports(&self) -> HashSet<(Port, u32)> {
        self.pinned.iter().map(|(key, stack)| (Self::port_of(key), *stack)).collect()
    }

    /// Looks after what ends with time: kernel connections on ports that are ours, and ports that have no pins any more.
    pub(crate) fn sweep(&mut self, policy: impl Fn(Port) -> Policy) -> Outcome<()> {
        self.look_at_blocks();
        let waiting: Vec<Port> = self.groups.iter().filter(|(_, g)| g.has_kernel_flows).map(|(p, _)| *p).collect();
        if !waiting.is_empty() || self.blocks.iter().any(|b| b.is_shared) {
            await_runs(); // a SYN that was let through a moment ago counts
            let sockets = kernel_sockets::tcp();
            for port in waiting {
                self.look_for_kernel_flows(port, policy(port), &sockets)?;
            }
            self.clear_blocks(&sockets)?;
        }
        let over = std::mem::take(&mut self.unpinned);
        over.into_iter().try_for_each(|port| self.write_port(port, policy(port)))
    }

    /// The key under which a flow would be pinned.
    pub(crate) fn key(port: Port, flow: &Flow) -> FlowKey {
        key_of(port, flow)
    }

    /// The program's counters, summed over the processors.
    pub(crate) fn verdicts(&self) -> Result<Vec<u64>, Failure> {
        let sum = |i: u32| self.counters.get(&i, 0).map(|v| v.iter().sum());
        (0..Verdict::COUNT).map(|i| sum(i).context("cannot read the XDP program's counters")).collect()
    }
}

fn plan(port: Port, group: &Group, members: Vec<u32>, passed_over: &[u32]) -> Plan {
    let (sharers, passed_over) = part(&members, passed_over);
    let owners = rebalance(&group.owners, &sharers);
    let moved = group.owners.iter().zip(&owners).filter(|(old, new)| old != new && **old != NO_STACK);
    let mut losers: Vec<u32> = moved.map(|(old, _)| old - 1).collect();
    losers.sort_unstable();
    losers.dedup();
    Plan { port, members, passed_over, owners, old: group.owners, losers, leaver: None, is_uneven: false }
}

fn plan_among(port: Port, group: &Group, sharers: &[u32]) -> Plan {
    let others: Vec<u32> = group.members.iter().copied().filter(|stack| !sharers.contains(stack)).collect();
    plan(port, group, group.members.clone(), &others)
}
