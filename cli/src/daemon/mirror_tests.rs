use super::*;
use netlink_packet_route::route::RouteProtocol;

const DEVICE: u32 = 7;

fn new_route(prefix: [u8; 4], len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut m = RouteMessage::default();
    m.header.address_family = AddressFamily::Inet;
    m.header.destination_prefix_length = len;
    m.header.table = RouteHeader::RT_TABLE_MAIN;
    m.header.protocol = RouteProtocol::Static;
    m.header.kind = RouteType::Unicast;
    if len > 0 {
        m.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(prefix.into())));
    }
    m.attributes.extend(attributes);
    m
}

fn read(m: RouteMessage) -> Option<Route> {
    route(&RouteNetlinkMessage::NewRoute(m), &Vlans::of(DEVICE))
}

#[test]
fn routes_by_kind() {
    let direct = read(new_route([10, 0, 0, 0], 24, vec![RouteAttribute::Oif(DEVICE)])).unwrap();
    assert_eq!((direct.kind, direct.bits, direct.gateway), (RouteKind::ViaDevice, 120, Ip::UNSPECIFIED));
    let gateway = RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into()));
    let default = read(new_route([0; 4], 0, vec![RouteAttribute::Oif(DEVICE), gateway])).unwrap();
    assert_eq!((default.prefix, default.bits, default.gateway), (Ip::UNSPECIFIED_V4, 96, Ip::v4([10, 0, 0, 1])));
    let other = read(new_route([10, 1, 0, 0], 16, vec![RouteAttribute::Oif(3)])).unwrap();
    assert_eq!(other.kind, RouteKind::OtherDevice);
    let mut hole = new_route([10, 2, 0, 0], 16, vec![]);
    hole.header.kind = RouteType::BlackHole;
    assert_eq!(read(hole).unwrap().kind, RouteKind::Unreachable);
    let elsewhere = new_route([10, 3, 0, 0], 16, vec![RouteAttribute::Table(100), RouteAttribute::Oif(DEVICE)]);
    assert_eq!(read(elsewhere), None);
}

#[test]
fn of_several_paths_ours() {
    let hop = |index, last| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, last].into())));
        hop
    };
    let paths = vec![RouteAttribute::MultiPath(vec![hop(3, 1), hop(DEVICE, 2)])];
    let route = read(new_route([10, 9, 0, 0], 16, paths)).unwrap();
    assert_eq!((route.kind, route.gateway), (RouteKind::ViaDevice, Ip::v4([10, 0, 0, 2])));
}

#[test]
fn addresses_that_can_be_used() {
    let message = |index, len, a: IpAddr| {
        let mut m = AddressMessage::default();
        m.header.index = index;
        m.header.prefix_len = len;
        m.attributes.push(AddressAttribute::Address(a));
        m
    };
    let read = |m| address(&RouteNetlinkMessage::NewAddress(m), &Vlans::of(DEVICE));
    let v4 = message(DEVICE, 24, "10.0.0.2".parse().unwrap());
    assert_eq!(read(v4.clone()), Some(Address::new(Ip::v4([10, 0, 0, 2]), 120, Tags::NONE)));
    assert_eq!(read(message(3, 24, "10.0.0.2".parse().unwrap())), None);
    assert_eq!(read(message(DEVICE, 64, "fe80::1".parse().unwrap())), None);
    let mut tentative = message(DEVICE, 64, "2001:db8::1".parse().unwrap());
    assert_eq!(read(tentative.clone()).unwrap().bits, 64);
    tentative.header.flags = AddressHeaderFlags::Tentative;
    assert_eq!(read(tentative), None);
    let mut peer = v4;
    peer.attributes.push(AddressAttribute::Local("10.0.0.3".parse().unwrap()));
    assert_eq!(read(peer).unwrap().ip, Ip::v4([10, 0, 0, 3]));
}

#[test]
fn neighbours_change() {
    let message = |state, mac: Option<Vec<u8>>| {
        let mut m = NeighbourMessage::default();
        m.header.ifindex = DEVICE;
        m.header.state = state;
        m.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 9].into())));
        m.attributes.extend(mac.map(NeighbourAttribute::LinkLayerAddress));
        m
    };
    let change = |m| neighbour(&RouteNetlinkMessage::NewNeighbour(m), &Vlans::of(DEVICE)).unwrap().1;
    let mac = vec![2, 0, 0, 0, 0, 9];
    let known = NeighbourChange::Known(Mac([2, 0, 0, 0, 0, 9]));
    for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Permanent, NeighbourState::Probe] {
        assert_eq!(change(message(state, Some(mac.clone()))), known);
    }
    assert_eq!(change(message(NeighbourState::Failed, Some(mac.clone()))), NeighbourChange::Failed);
    assert_eq!(change(message(NeighbourState::Incomplete, None)), NeighbourChange::Nothing);
    assert_eq!(change(message(NeighbourState::Reachable, Some(vec![1]))), NeighbourChange::Nothing);
    let gone =
        neighbour(&RouteNetlinkMessage::DelNeighbour(message(NeighbourState::Stale, Some(mac))), &Vlans::of(DEVICE));
    assert_eq!(gone.unwrap().1, NeighbourChange::Gone);
}
