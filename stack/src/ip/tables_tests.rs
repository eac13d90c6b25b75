use super::*;
use crate::link::Tags;

fn v4(a: u8, b: u8, c: u8, d: u8) -> Ip {
    Ip::v4([a, b, c, d])
}

/// eth0: 10.0.0.1/24 and 10.1.0.1/16; default via 10.0.0.254; 192.168.0.0/16 is elsewhere; 10.9.0.0/16 nowhere.
fn tables() -> NetTables {
    let mut t = NetTables::default();
    t.set_address(Address::new(v4(10, 0, 0, 1), 120, Tags::NONE));
    t.set_address(Address::new(v4(10, 1, 0, 1), 112, Tags::NONE));
    let r = |prefix, bits, kind| Route { prefix, bits, kind, ..Route::default() };
    t.set_route(Route { gateway: v4(10, 0, 0, 254), metric: 100, ..r(v4(0, 0, 0, 0), 96, RouteKind::ViaDevice) });
    t.set_route(r(v4(10, 0, 0, 0), 120, RouteKind::ViaDevice));
    t.set_route(r(v4(10, 1, 0, 0), 112, RouteKind::ViaDevice));
    t.set_route(r(v4(192, 168, 0, 0), 112, RouteKind::OtherDevice));
    t.set_route(r(v4(10, 9, 0, 0), 112, RouteKind::Unreachable));
    t
}

fn via(next_hop: Ip, src: Ip) -> RouteVerdict {
    RouteVerdict::Via { next_hop, src, tags: Tags::NONE }
}

#[test]
fn routes() {
    let t = tables();
    let cases = [
        (v4(10, 0, 0, 7), via(v4(10, 0, 0, 7), v4(10, 0, 0, 1))),
        (v4(10, 1, 2, 3), via(v4(10, 1, 2, 3), v4(10, 1, 0, 1))),
        (v4(8, 8, 8, 8), via(v4(10, 0, 0, 254), v4(10, 0, 0, 1))),
        (v4(192, 168, 1, 1), RouteVerdict::NotOurs),
        (v4(10, 9, 1, 1), RouteVerdict::Unreachable),
        (v4(10, 0, 0, 1), RouteVerdict::NotOurs),
        (v4(127, 0, 0, 1), RouteVerdict::NotOurs),
        (v4(224, 0, 0, 1), RouteVerdict::NotOurs),
        (Ip([0x20; 16]), RouteVerdict::NotOurs),
    ];
    for (dst, verdict) in cases {
        assert_eq!(t.route(&dst), verdict, "{dst}");
    }
}

#[test]
fn metric_and_source_hint() {
    let mut t = tables();
    let better = Route { prefix: v4(0, 0, 0, 0), bits: 96, metric: 50, ..Route::default() };
    t.set_route(Route { gateway: v4(10, 0, 0, 253), src: v4(10, 1, 0, 1), ..better });
    assert_eq!(t.route(&v4(8, 8, 8, 8)), via(v4(10, 0, 0, 253), v4(10, 1, 0, 1)));
}

#[test]
fn v6_scopes() {
    let mut t = NetTables::default();
    let global = |last| Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let local = |last| Ip([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    t.set_address(Address::new(local(1), 64, Tags::NONE));
    t.set_address(Address::new(global(1), 64, Tags::NONE));
    t.set_route(Route { prefix: Ip::UNSPECIFIED, bits: 0, gateway: local(9), ..Route::default() });
    t.set_route(Route { prefix: local(0), bits: 64, ..Route::default() });
    assert_eq!(t.route(&global(7)), via(local(9), global(1)), "a link-local gateway does not make the source so");
    assert_eq!(t.route(&local(7)), via(local(7), local(1)));
    assert_eq!(t.route(&v4(8, 8, 8, 8)), RouteVerdict::NotOurs, "::/0 is no route for IPv4");
}

#[test]
fn neighbours_change_the_generation_only_when_they_change() {
    let mut t = NetTables::default();
    let (ip, mac) = (v4(10, 0, 0, 2), Mac([2, 0, 0, 0, 0, 2]));
    t.set_neighbour(&ip, Tags::NONE, Some(mac));
    let generation = t.generation();
    t.set_neighbour(&ip, Tags::NONE, Some(mac));
    assert_eq!((t.neighbour(&ip, Tags::NONE), t.generation()), ((NeighbourState::Reachable, mac), generation));
    t.set_neighbour(&ip, Tags::NONE, None);
    assert_ne!(t.generation(), generation);
    assert_eq!(t.neighbour(&ip, Tags::NONE).0, NeighbourState::Failed);
    t.clear_neighbour(&ip, Tags::NONE);
    assert_eq!(t.neighbour(&ip, Tags::NONE).0, NeighbourState::Unknown);
}

#[test]
fn tables_are_bounded() {
    let mut t = NetTables::default();
    for i in 0..2000u16 {
        t.set_neighbour(&v4(10, 0, (i >> 8) as u8, i as u8), Tags::NONE, Some(Mac([i as u8; 6])));
    }
    assert_eq!(t.neighbour(&v4(10, 0, 7, 207), Tags::NONE).0, NeighbourState::Reachable, "the newest is in");
    assert!((0..ROUTES_MAX).all(|_| t.set_route(Route::default())) && !t.set_route(Route::default()));
    assert!((0..ADDRESSES_MAX as u8).all(|i| t.set_address(Address::new(v4(10, 0, 0, i), 120, Tags::NONE))));
    assert!(!t.set_address(Address::new(v4(10, 0, 0, 200), 120, Tags::NONE)));
    assert!(t.set_address(Address::new(v4(10, 0, 0, 3), 128, Tags::NONE)), "a known one is changed");
}

#[test]
fn the_wanted_are_taken_once() {
    let mut t = NetTables::default();
    let (a, b) = (v4(10, 0, 0, 2), v4(10, 0, 0, 3));
    t.want(&a, Tags::NONE);
    t.want(&b, Tags::NONE);
    t.want(&a, Tags::NONE);
    assert!(t.has_wanted());
    let taken = [t.take_wanted(), t.take_wanted(), t.take_wanted()];
    assert_eq!(taken, [Some((b, Tags::NONE)), Some((a, Tags::NONE)), None]);
}

#[test]
fn a_vlan_is_a_link_of_its_own() {
    let vlan = |id| Tags::NONE.with(id, false).unwrap();
    let mut t = NetTables::default();
    t.set_address(Address::new(v4(10, 0, 0, 1), 120, Tags::NONE));
    t.set_address(Address::new(v4(10, 1, 0, 1), 120, vlan(100)));
    for (prefix, tags) in [(v4(10, 0, 0, 0), Tags::NONE), (v4(10, 1, 0, 0), vlan(100)), (v4(10, 2, 0, 0), vlan(100))] {
        t.set_route(Route { prefix, bits: 120, kind: RouteKind::ViaDevice, tags, ..Route::default() });
    }
    let (near, far) = (v4(10, 1, 0, 9), v4(10, 2, 0, 9));
    let src = v4(10, 1, 0, 1);
    assert_eq!(t.route(&near), RouteVerdict::Via { next_hop: near, src, tags: vlan(100) });
    assert_eq!(t.route(&far), RouteVerdict::Via { next_hop: far, src, tags: vlan(100) }, "an address of the VLAN");
    // The same address may be somebody else on another VLAN.
    t.set_neighbour(&near, vlan(100), Some(Mac([2; 6])));
    t.set_neighbour(&near, Tags::NONE, Some(Mac([4; 6])));
    assert_eq!(t.neighbour(&near, vlan(100)), (NeighbourState::Reachable, Mac([2; 6])));
    assert_eq!(t.neighbour(&near, Tags::NONE), (NeighbourState::Reachable, Mac([4; 6])));
    t.clear_neighbour(&near, vlan(100));
    assert_eq!(t.neighbour(&near, vlan(100)).0, NeighbourState::Unknown);
}
