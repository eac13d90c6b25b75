//! The VLAN devices upon the device: `eth0.100` and, upon that, `eth0.100.7`. Their packets are the device's frames, with tags; so
//! their addresses, routes and neighbours are mirrored as the device's own, each with its tags.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
};
use sidestep_stack::link::Tags;
use std::collections::HashMap;

/// The device and the VLANs upon it, by interface index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vlans(HashMap<u32, Tags>);

impl Vlans {
    /// Without a word from the kernel: the device alone.
    pub(crate) fn of(device: u32) -> Vlans {
        Vlans(HashMap::from([(device, Tags::NONE)]))
    }

    /// From a dump of all links. Devices upon VLANs that carry two tags already are left to the kernel.
    pub(crate) fn read(device: u32, links: &[RouteNetlinkMessage]) -> Vlans {
        let found: Vec<Vlan> = links.iter().filter_map(vlan).collect();
        let mut vlans = Vlans::of(device);
        // Twice: the links of a dump are not sorted by what they stand upon.
        for _ in 0..2 {
            for v in &found {
                let tags = vlans.tags(v.lower).and_then(|lower| lower.with(v.id, v.is_service));
                if let Some(tags) = tags {
                    vlans.0.entry(v.index).or_insert(tags);
                }
            }
        }
        vlans
    }

    /// The tags of this interface's packets; `None` when it is neither the device nor upon it.
    pub(crate) fn tags(&self, ifindex: u32) -> Option<Tags> {
        self.0.get(&ifindex).copied()
    }

    /// The interface of these tags.
    pub(crate) fn ifindex(&self, tags: Tags) -> Option<u32> {
        self.0.iter().find(|(_, t)| **t == tags).map(|(index, _)| *index)
    }

    /// Whether there is any but the device itself.
    pub(crate) fn any(&self) -> bool {
        self.0.len() > 1
    }
}

struct Vlan {
    index: u32,
    lower: u32,
    id: u16,
    is_service: bool,
}

/// Whether a change of this link may change the VLANs.
pub(crate) fn is_vlan(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Vlan)),
        _ => false,
    })
}

fn vlan(message: &RouteNetlinkMessage) -> Option<Vlan> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    if !is_vlan(link) || !link.header.flags.contains(LinkFlags::Up) {
        return None;
    }
    let mut vlan = Vlan { index: link.header.index, lower: 0, id: 0, is_service: false };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(lower) => vlan.lower = *lower,
            // The lower device is in another namespace: its number means nothing here.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                for data in
                    infos.iter().filter_map(|i| if let LinkInfo::Data(InfoData::Vlan(d)) = i { Some(d) } else { None })
                {
                    read_data(&mut vlan, data);
                }
            }
            _ => {}
        }
    }
    Some(vlan)
}

fn read_data(vlan: &mut Vlan, data: &[InfoVlan]) {
    for fact in data {
        match fact {
            InfoVlan::Id(id) => vlan.id = *id,
            InfoVlan::Protocol(protocol) => vlan.is_service = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, lower: u32, id: u16, protocol: VlanProtocol) -> RouteNetlinkMessage {
        let mut m = LinkMessage::default();
        m.header.index = index;
        m.header.flags = LinkFlags::Up;
        let data = InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)]);
        m.attributes.push(LinkAttribute::Link(lower));
        m.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]));
        RouteNetlinkMessage::NewLink(m)
    }

    #[test]
    fn vlans_upon_the_device_are_found_in_any_order() {
        let q = VlanProtocol::Ieee8021Q;
        let links = [
            link(12, 11, 7, q),
            link(11, 10, 100, VlanProtocol::Ieee8021Ad),
            link(13, 10, 200, q),
            link(14, 3, 5, q),
            link(15, 12, 9, q),
        ];
        let vlans = Vlans::read(10, &links);
        let service = Tags::NONE.with(100, true).unwrap();
        assert_eq!(vlans.tags(10), Some(Tags::NONE));
        assert_eq!(vlans.tags(11), Some(service));
        assert_eq!(vlans.tags(12), service.with(7, false));
        assert_eq!(vlans.tags(13), Tags::NONE.with(200, false));
        assert_eq!(vlans.tags(14), None, "upon another device");
        assert_eq!(vlans.tags(15), None, "a third tag");
        assert_eq!(vlans.ifindex(service), Some(11));
        assert!(vlans.any() && !Vlans::read(1, &links).any());
    }

    #[test]
    fn a_vlan_that_is_down_or_whose_device_is_elsewhere_does_not_count() {
        let RouteNetlinkMessage::NewLink(mut m) = link(11, 10, 100, VlanProtocol::Ieee8021Q) else { unreachable!() };
        m.attributes.push(LinkAttribute::LinkNetNsId(1));
        assert!(!Vlans::read(10, &[RouteNetlinkMessage::NewLink(m.clone())]).any());
        m.attributes.pop();
        m.header.flags = LinkFlags::empty();
        assert!(!Vlans::read(10, &[RouteNetlinkMessage::NewLink(m)]).any());
    }
}
