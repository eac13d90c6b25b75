//! Addresses, routes and neighbours of the device: the kernel's, mirrored by the daemon under the stack's lock.

use crate::addr::{Ip, Mac};
use crate::link::Tags;

/// What the tables hold at most. What does not fit stays with the kernel (routes), or is asked for again (neighbours).
pub const ADDRESSES_MAX: usize = 64;
pub const ROUTES_MAX: usize = 256;
pub const NEIGHBOURS_MAX: usize = 1024;
const WANTED_MAX: usize = 16;

/// Where a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RouteKind {
    /// Out of this device.
    #[default]
    ViaDevice,
    /// To this host itself (the kernel's business).
    Local,
    /// Out of another device (the kernel's business).
    OtherDevice,
    Unreachable,
}

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Route {
    pub prefix: Ip,
    /// Of the 128-bit form: an IPv4 /24 has 120 here.
    pub bits: u8,
    pub kind: RouteKind,
    pub _pad: [u8; 2],
    /// Smaller wins among equal prefixes.
    pub metric: u32,
    /// Unspecified: the destination is on the link.
    pub gateway: Ip,
    /// Preferred source address; unspecified when the kernel gave none.
    pub src: Ip,
    /// The VLAN it leads to: those of the device's own are untagged.
    pub tags: Tags,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum NeighbourState {
    #[default]
    Unknown,
    Reachable,
    /// The kernel tried and got no answer.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
struct Neighbour {
    ip: Ip,
    mac: Mac,
    state: NeighbourState,
    _pad: u8,
    tags: Tags,
}

/// One address of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Address {
    pub ip: Ip,
    /// Prefix length of the 128-bit form.
    pub bits: u8,
    _pad: [u8; 3],
    /// The VLAN it is on.
    pub tags: Tags,
}

impl Address {
    pub fn new(ip: Ip, bits: u8, tags: Tags) -> Address {
        Address { ip, bits, tags, _pad: [0; 3] }
    }
}

/// The answer to "where does a packet for this destination go?".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteVerdict {
    /// Out of our device, on this VLAN, to this neighbour (the destination itself, or a gateway), from this address.
    Via { next_hop: Ip, src: Ip, tags: Tags },
    /// The kernel has to send it: the host itself, another device, or nothing known of it.
    NotOurs,
    /// A route says that there is no way.
    Unreachable,
}

/// The three tables.
#[derive(Debug)]
#[repr(C)]
pub struct NetTables {
    /// Changes with every change that may alter a next hop or its MAC; 15 bits, and never 0, which means "not looked
    /// up yet".
    generation: u16,
    address_count: u16,
    route_count: u16,
    neighbour_count: u16,
    wanted_count: u16,
    /// The slot that goes next when all are taken.
    neighbour_victim: u16,
    addresses: [Address; ADDRESSES_MAX],
    routes: [Route; ROUTES_MAX],
    neighbours: [Neighbour; NEIGHBOURS_MAX],
    wanted: [(Ip, Tags); WANTED_MAX],
}

impl Default for NetTables {
    fn default() -> Self {
        NetTables {
            generation: 1,
            address_count: 0,
            route_count: 0,
            neighbour_count: 0,
            wanted_count: 0,
            neighbour_victim: 0,
            addresses: [Address::default(); ADDRESSES_MAX],
            routes: [Route::default(); ROUTES_MAX],
            neighbours: [Neighbour::default(); NEIGHBOURS_MAX],
            wanted: [(Ip::UNSPECIFIED, Tags::NONE); WANTED_MAX],
        }
    }
}

impl NetTables {
    /// Empties everything.
    pub fn clear(&mut self) {
        self.clear_addresses();
        self.clear_routes();
        self.clear_neighbours();
        self.wanted_count = 0;
    }

    /// Changes when a next hop, or the MAC of one, may have changed.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    fn changed(&mut self) {
        self.generation = (self.generation % 0x7fff) + 1;
    }

    pub fn clear_addresses(&mut self) {
        self.address_count = 0;
        self.changed();
    }

    /// Adds an address, or changes its prefix length. False when the table is full.
    pub fn set_address(&mut self, address: Address) -> bool {
        let n = self.address_count as usize;
        let slot = self.addresses[..n].iter().position(|a| a.ip == address.ip).unwrap_or(n);
        if slot == ADDRESSES_MAX {
            return false;
        }
        self.addresses[slot] = address;
        self.address_count = self.address_count.max(slot as u16 + 1);
        self.changed();
        true
    }

    pub fn addresses(&self) -> &[Address] {
        &self.addresses[..self.address_count as usize]
    }

    /// Whether the address is one of ours.
    pub fn is_local(&self, ip: &Ip) -> bool {
        self.addresses().iter().any(|a| a.ip == *ip)
    }

    /// Whether the device has an address on this VLAN (an untagged network counts as one).
    pub fn has_vlan(&self, tags: Tags) -> bool {
        tags.is_empty() || self.addresses().iter().any(|a| a.tags == tags)
    }

    pub fn clear_routes(&mut self) {
        self.route_count = 0;
        self.changed();
    }

    /// Adds a route. False when the table is full.
    pub fn set_route(&mut self, route: Route) -> bool {
        let n = self.route_count as usize;
        if n == ROUTES_MAX {
            return false;
        }
        self.routes[n] = route;
        self.route_count += 1;
        self.changed();
        true
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes[..self.route_count as usize]
    }

    /// Longest prefix, then smallest metric.
    pub fn route(&self, dst: &Ip) -> RouteVerdict {
        if self.is_local(dst) || dst.is_loopback() || dst.is_multicast_or_broadcast() || dst.is_unspecified() {
            return RouteVerdict::NotOurs;
        }
        let family = dst.is_v4();
        let mut best: Option<&Route> = None;
        for route in
            self.routes().iter().filter(|r| r.prefix.is_v4() == family && dst.matches_prefix(&r.prefix, r.bits))
        {
            if best.is_none_or(|b| (route.bits, b.metric) > (b.bits, route.metric)) {
                best = Some(route);
            }
        }
        let Some(route) = best else { return RouteVerdict::NotOurs };
        match route.kind {
            RouteKind::Local | RouteKind::OtherDevice => RouteVerdict::NotOurs,
            RouteKind::Unreachable => RouteVerdict::Unreachable,
            RouteKind::ViaDevice => {
                let next_hop = if route.gateway.is_unspecified() { *dst } else { route.gateway };
                match self.source(route, dst, &next_hop) {
                    Some(src) => RouteVerdict::Via { next_hop, src, tags: route.tags },
                    None => RouteVerdict::NotOurs,
                }
            }
        }
    }

    /// The route's own hint; else an address on the next hop's subnet; else one on its VLAN; else any of the
    /// family and scope.
    fn source(&self, route: &Route, dst: &Ip, next_hop: &Ip) -> Option<Ip> {
        if !route.src.is_unspecified() {
            return Some(route.src);
        }
        let link_local = dst.is_link_local_v6();
        let fits = |a: &&Address| a.ip.is_v4() == dst.is_v4() && a.ip.is_link_local_v6() == link_local;
        let on_vlan = |a: &&Address| a.tags == route.tags;
        let on_link = |a: &&Address| next_hop.matches_prefix(&a.ip, a.bits);
        let mut candidates = self.addresses().iter().filter(fits);
        let best = candidates.clone().filter(on_vlan).find(on_link).or_else(|| candidates.clone().find(on_vlan));
        best.or_else(|| candidates.next()).map(|a| a.ip)
    }

    pub fn clear_neighbours(&mut self) {
        self.neighbour_count = 0;
        self.neighbour_victim = 0;
        self.changed();
    }

    /// Records a neighbour's MAC, or that the kernel could not resolve it (`None`).
    pub fn set_neighbour(&mut self, ip: &Ip, tags: Tags, mac: Option<Mac>) {
        let state = if mac.is_some() { NeighbourState::Reachable } else { NeighbourState::Failed };
        let new = Neighbour { ip: *ip, mac: mac.unwrap_or_default(), state, _pad: 0, tags };
        let n = self.neighbour_count as usize;
        let slot = match self.position(ip, tags) {
            Some(slot) if self.neighbours[slot] == new => return,
            Some(slot) => slot,
            None if n < NEIGHBOURS_MAX => {
                self.neighbour_count += 1;
                n
            }
            None => {
                self.neighbour_victim = (self.neighbour_victim + 1) % NEIGHBOURS_MAX as u16;
                self.neighbour_victim as usize
            }
        };
        self.neighbours[slot] = new;
        self.changed();
    }

    /// Forgets a neighbour (the kernel dropped its entry).
    pub fn clear_neighbour(&mut self, ip: &Ip, tags: Tags) {
        if let Some(slot) = self.position(ip, tags) {
            let last = self.neighbour_count as usize - 1;
            self.neighbours[slot] = self.neighbours[last];
            self.neighbour_count -= 1;
            self.changed();
        }
    }

    fn position(&self, ip: &Ip, tags: Tags) -> Option<usize> {
        self.neighbours[..self.neighbour_count as usize].iter().position(|n| n.ip == *ip && n.tags == tags)
    }

    /// What is known of a neighbour; its MAC means something only when it is reachable.
    pub fn neighbour(&self, ip: &Ip, tags: Tags) -> (NeighbourState, Mac) {
        match self.position(ip, tags) {
            Some(slot) => (self.neighbours[slot].state, self.neighbours[slot].mac),
            None => (NeighbourState::Unknown, Mac::default()),
        }
    }

    /// Asks the daemon to have a neighbour resolved. Forgotten when too many are asked for: whoever needs it asks again.
    pub fn want(&mut self, ip: &Ip, tags: Tags) {
        let n = self.wanted_count as usize;
        if n < WANTED_MAX && !self.wanted[..n].contains(&(*ip, tags)) {
            self.wanted[n] = (*ip, tags);
            self.wanted_count += 1;
        }
    }

    pub fn has_wanted(&self) -> bool {
        self.wanted_count != 0
    }

    /// One neighbour that somebody waits for. For the daemon.
    pub fn take_wanted(&mut self) -> Option<(Ip, Tags)> {
        self.wanted_count = self.wanted_count.checked_sub(1)?;
        Some(self.wanted[self.wanted_count as usize])
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
