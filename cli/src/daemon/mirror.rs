//! The kernel's addresses, routes and neighbours of the device and of the VLANs upon it, as the stacks shall see them.
//!
//! Addresses and routes are few and change seldom: any change of theirs is answered by asking for all of them again.
//! Neighbours change often and are applied one by one.

use super::vlans::{Vlans, is_vlan};
use crate::failure::{Context, Outcome};
use crate::rtnl::{Events, Heard, Requests};
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sidestep_stack::addr::{Ip, Mac};
use sidestep_stack::ip::tables::{Address, NetTables, Route, RouteKind};
use sidestep_stack::link::Tags;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::RawFd;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

const RT_TABLE_MAIN: u32 = 254;
const RT_TABLE_LOCAL: u32 = 255;

/// What a turn at the event socket found.
#[derive(Default, Debug)]
pub(crate) struct Changes {
    /// Addresses or routes (or everything, after an overrun): push all of it.
    pub(crate) all: bool,
    /// Neighbours that changed: their MAC, `None` for unreachable, or gone.
    pub(crate) neighbours: Vec<(Neighbour, NeighbourChange)>,
    /// The device's link changed or went away, or a VLAN upon it did.
    pub(crate) link: bool,
}

/// Who a neighbour is: the same address may be another on another VLAN.
pub(crate) type Neighbour = (Ip, Tags);

/// What became of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NeighbourChange {
    Known(Mac),
    Failed,
    Gone,
    /// In the middle of a resolution: what was known before stays.
    Nothing,
}

/// The mirror: the daemon's copy, from which every stack's is made.
pub(crate) struct Mirror {
    ifindex: u32,
    requests: Requests,
    events: Events,
    vlans: Vlans,
    pub(crate) addresses: Vec<Address>,
    routes: Vec<Route>,
    neighbours: HashMap<Neighbour, Option<Mac>>,
}

impl Mirror {
    /// Subscribes first and asks second, so that nothing falls in between.
    pub(crate) fn start(ifindex: u32) -> Outcome<Mirror> {
        let groups = [
            RTNLGRP_LINK,
            RTNLGRP_NEIGH,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
        ];
        let events = Events::subscribe(&groups).context("cannot listen to netlink")?;
        let requests = Requests::open().context("cannot open netlink")?;
        let mut mirror = Mirror {
            ifindex,
            requests,
            events,
            vlans: Vlans::of(ifindex),
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: HashMap::new(),
        };
        mirror.ask_all().context("cannot read addresses and routes")?;
        mirror.ask_neighbours().context("cannot read neighbours")?;
        Ok(mirror)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.events.fd()
    }

    /// Whether tagged frames may be ours.
    pub(crate) fn has_vlans(&self) -> bool {
        self.vlans.any()
    }

    fn ask_all(&mut self) -> std::io::Result<()> {
        let links = self.requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let vlans = Vlans::read(self.ifindex, &links);
        if vlans != self.vlans {
            self.vlans = vlans;
            self.ask_neighbours()?;
        }
        let addresses = self.requests.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        self.addresses = addresses.iter().filter_map(|m| address(m, &self.vlans)).collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            routes.extend(self.requests.dump(RouteNetlinkMessage::GetRoute(question))?);
        }
        self.routes = routes.iter().filter_map(|m| route(m, &self.vlans)).collect();
        // What does not fit into the stacks' table shall be the least specific: the kernel serves what is not there.
        self.routes.sort_by_key(|r| (std::cmp::Reverse(r.bits), r.metric));
        Ok(())
    }

    fn ask_neighbours(&mut self) -> std::io::Result<()> {
        self.neighbours.clear();
        for message in self.requests.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
            if let Some((who, change)) = neighbour(&message, &self.vlans) {
                self.note(who, change);
            }
        }
        Ok(())
    }

    fn note(&mut self, who: Neighbour, change: NeighbourChange) {
        match change {
            NeighbourChange::Known(mac) => drop(self.neighbours.insert(who, Some(mac))),
            NeighbourChange::Failed => drop(self.neighbours.insert(who, None)),
            NeighbourChange::Gone => drop(self.neighbours.remove(&who)),
            NeighbourChange::Nothing => {}
        }
    }

    /// Reads the events that wait.
    pub(crate) fn hear(&mut self) -> std::io::Result<Changes> {
        let mut changes = Changes::default();
        loop {
            match self.events.hear() {
                Heard::Messages(messages) => messages.iter().for_each(|m| self.sort(m, &mut changes)),
                Heard::Overrun => {
                    self.ask_neighbours()?;
                    (changes.all, changes.link) = (true, true);
                }
                Heard::Nothing => break,
            }
        }
        if changes.all {
            let before = self.vlans.clone();
            self.ask_all()?;
            changes.link |= self.vlans != before;
        }
        Ok(changes)
    }

    fn sort(&mut self, message: &RouteNetlinkMessage, changes: &mut Changes) {
        match message {
            RouteNetlinkMessage::NewAddress(m) | RouteNetlinkMessage::DelAddress(m) => {
                changes.all |= self.vlans.tags(m.header.index).is_some();
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => changes.all = true,
            RouteNetlinkMessage::NewLink(m) | RouteNetlinkMessage::DelLink(m) if m.header.index == self.ifindex => {
                (changes.all, changes.link) = (true, true);
            }
            RouteNetlinkMessage::NewLink(m) | RouteNetlinkMessage::DelLink(m)
                if is_vlan(m) || self.vlans.tags(m.header.index).is_some() =>
            {
                changes.all = true;
            }
            _ => {
                if let Some((who, change)) = neighbour(message, &self.vlans) {
                    self.note(who, change);
                    changes.neighbours.push((who, change));
                }
            }
        }
    }

    /// Writes addresses and routes into a stack's tables, and neighbours too when it is new.
    pub(crate) fn fill(&self, tables: &mut NetTables, with_neighbours: bool) {
        tables.clear_addresses();
        for a in &self.addresses {
            tables.set_address(*a);
        }
        tables.clear_routes();
        for r in &self.routes {
            tables.set_route(*r);
        }
        if with_neighbours {
            tables.clear_neighbours();
            for ((ip, tags), mac) in &self.neighbours {
                tables.set_neighbour(ip, *tags, *mac);
            }
        }
    }

    /// What the mirror knows of a neighbour, in the tables' terms.
    pub(crate) fn neighbour(&self, who: &Neighbour) -> Option<Option<Mac>> {
        self.neighbours.get(who).copied()
    }

    /// Has the kernel resolve a neighbour (NTF_USE: as if it had a packet for it); the answer comes as an event.
    pub(crate) fn resolve(&mut self, (ip, tags): &Neighbour) -> std::io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = self.vlans.ifindex(*tags).unwrap_or(self.ifindex);
        message.header.flags = NeighbourFlags::Use;
        message.header.state = NeighbourState::None;
        let destination = match ip.is_v4() {
            true => {
                message.header.family = AddressFamily::Inet;
                NeighbourAddress::Inet(ip.v4_bytes().into())
            }
            false => {
                message.header.family = AddressFamily::Inet6;
                NeighbourAddress::Inet6(ip.0.into())
            }
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        self.requests.tell(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}

/// Applies a neighbour's change to a stack's tables.
pub(crate) fn apply(tables: &mut NetTables, (ip, tags): &Neighbour, change: NeighbourChange) {
    match change {
        NeighbourChange::Known(mac) => tables.set_neighbour(ip, *tags, Some(mac)),
        NeighbourChange::Failed => tables.set_neighbour(ip, *tags, None),
        NeighbourChange::Gone => tables.clear_neighbour(ip, *tags),
        NeighbourChange::Nothing => {}
    }
}

pub(crate) fn ip(address: &IpAddr) -> Ip {
    match address {
        IpAddr::V4(a) => Ip::v4(a.octets()),
        IpAddr::V6(a) => Ip(a.octets()),
    }
}

/// Prefix length of the 128-bit form.
fn bits(ip: &Ip, prefix_len: u8) -> u8 {
    prefix_len.saturating_add(if ip.is_v4() { 96 } else { 0 }).min(128)
}

/// An address of ours that is fit to be used. Link-local IPv6 stays with the kernel: it needs a scope.
fn address(message: &RouteNetlinkMessage, vlans: &Vlans) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(m) = message else { return None };
    let tags = vlans.tags(m.header.index)?;
    let unfit = m.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed)
        && !m
            .attributes
            .iter()
            .any(|a| matches!(a, AddressAttribute::Flags(f) if f.contains(AddressFlags::Optimistic)));
    // On a point-to-point link ADDRESS is the peer and LOCAL is us; else LOCAL is missing (IPv6) or the same.
    let local = m.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(ip) } else { None });
    let plain = m.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(ip) } else { None });
    let ip = ip(local.or(plain)?);
    (!unfit && !ip.is_link_local_v6()).then(|| Address::new(ip, bits(&ip, m.header.prefix_len), tags))
}

fn route_ip(address: &RouteAddress) -> Option<Ip> {
    match address {
        RouteAddress::Inet(a) => Some(Ip::v4(a.octets())),
        RouteAddress::Inet6(a) => Some(Ip(a.octets())),
        _ => None,
    }
}

/// What one hop of a route says.
#[derive(Default, Clone, Copy)]
struct Hop {
    device: u32,
    gateway: Option<Ip>,
}

fn hop_of(attributes: &[RouteAttribute], device: u32) -> Hop {
    let mut hop = Hop { device, gateway: None };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.device = *index,
            RouteAttribute::Gateway(a) => hop.gateway = route_ip(a),
            RouteAttribute::Via(RouteVia::Inet6(a)) => hop.gateway = Some(Ip(a.octets())),
            RouteAttribute::Via(RouteVia::Inet(a)) => hop.gateway = Some(Ip::v4(a.octets())),
            _ => {}
        }
    }
    hop
}

/// A route of the main or local table. Policy rules are not mirrored: with them, say `port off` or use the kernel.
fn route(message: &RouteNetlinkMessage, vlans: &Vlans) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(m) = message else { return None };
    let mut table = u32::from(m.header.table);
    let mut route = Route {
        prefix: if m.header.address_family == AddressFamily::Inet { Ip::UNSPECIFIED_V4 } else { Ip::UNSPECIFIED },
        ..Route::default()
    };
    let mut hops: &[RouteNextHop] = &[];
    for attribute in &m.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(a) => route.prefix = route_ip(a)?,
            RouteAttribute::PrefSource(a) => route.src = route_ip(a)?,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(paths) => hops = paths,
            _ => {}
        }
    }
    if !matches!(table, RT_TABLE_MAIN | RT_TABLE_LOCAL) || is_cached(&m.header) {
        return None;
    }
    route.bits = bits(&route.prefix, m.header.destination_prefix_length);
    // Of several paths, the one over our device: the others belong to the kernel, which need not use them.
    let first = hop_of(&m.attributes, 0);
    let hop = hops.iter().map(|h| hop_of(&h.attributes, h.interface_index)).find(|h| vlans.tags(h.device).is_some());
    let hop = hop.unwrap_or_else(|| hops.first().map_or(first, |h| hop_of(&h.attributes, h.interface_index)));
    let tags = vlans.tags(hop.device);
    route.tags = tags.unwrap_or_default();
    route.kind = match m.header.kind {
        RouteType::Unicast if tags.is_some() => RouteKind::ViaDevice,
        RouteType::Unicast => RouteKind::OtherDevice,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => RouteKind::Unreachable,
        _ => RouteKind::Local,
    };
    route.gateway = hop.gateway.unwrap_or_default();
    // An IPv4 route over an IPv6 gateway: the stack looks neighbours up by the gateway's address, whatever its family.
    Some(route)
}

/// Exceptions (a path-MTU, a redirect) are dumped among IPv6 routes; the stack keeps its own.
fn is_cached(header: &RouteHeader) -> bool {
    header.flags.contains(netlink_packet_route::route::RouteFlags::Cloned)
}

fn neighbour(message: &RouteNetlinkMessage, vlans: &Vlans) -> Option<(Neighbour, NeighbourChange)> {
    let (m, gone) = match message {
        RouteNetlinkMessage::NewNeighbour(m) => (m, false),
        RouteNetlinkMessage::DelNeighbour(m) => (m, true),
        _ => return None,
    };
    let tags = vlans.tags(m.header.ifindex)?;
    if m.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let destination = m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(Ip::v4(a.octets())),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(Ip(a.octets())),
        _ => None,
    })?;
    let mac = m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
        _ => None,
    });
    let change = match (gone, m.header.state, mac) {
        (true, _, _) => NeighbourChange::Gone,
        (_, NeighbourState::Failed, _) => NeighbourChange::Failed,
        (_, NeighbourState::Incomplete | NeighbourState::None | NeighbourState::Noarp, _) | (_, _, None) => {
            NeighbourChange::Nothing
        }
        (_, _, Some(mac)) => NeighbourChange::Known(mac),
    };
    Some(((destination, tags), change))
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
