//! What is below IP: VLANs, and a device that changes while connections live.

use super::*;
use crate::addr::{Ip, Mac};
use crate::drops::Drop;
use crate::ip::tables::{Address, Route, RouteKind};
use crate::link::Tags;
use crate::time::MS;
use crate::wire::ethernet;

fn vlan() -> Tags {
    Tags::NONE.with(9, true).unwrap().with(100, false).unwrap()
}

/// Two hosts whose network is behind two VLAN tags.
fn tagged_net() -> Net {
    let mut net = Net::new(3);
    let macs = [0, 1].map(|i| net.hosts[i].config.mac);
    let ips = [0, 1].map(|i| net.hosts[i].config.ip());
    for i in 0..2 {
        let mut engine = net.hosts[i].engine();
        let tables = engine.net_mut();
        tables.clear();
        tables.set_address(Address::new(ips[i], 120, vlan()));
        let prefix = Ip::v4([10, 0, 0, 0]);
        let route = Route { prefix, bits: 120, kind: RouteKind::ViaDevice, tags: vlan(), ..Route::default() };
        tables.set_route(route);
        tables.set_neighbour(&ips[1 - i], vlan(), Some(macs[1 - i]));
    }
    net
}

fn transfer(net: &mut Net, from: (usize, SocketId), to: (usize, SocketId), bytes: usize) {
    let data: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
    let (mut sent, mut got) = (0, vec![]);
    net.run(30 * SEC, |net| {
        sent += send(net, from.0, from.1, &data[sent..]).unwrap_or(0);
        got.extend(recv(net, to.0, to.1).unwrap_or_default());
        got.len() == data.len()
    });
    assert!(got == data);
}

#[test]
fn a_tagged_network_is_a_network() {
    let mut net = tagged_net();
    net.tap = Some(|_, _, bytes| assert_eq!(ethernet::parse(bytes).unwrap().tags, vlan()));
    let (_, server, client) = pair(&mut net);
    transfer(&mut net, (CLIENT, client), (SERVER, server), 200_000);
    transfer(&mut net, (SERVER, server), (CLIENT, client), 200_000);
    // Answers without a connection keep the tags as well: a RST for a port where nobody listens.
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT + 1));
    let mut engine = net.hosts[CLIENT].engine();
    let refused = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!(engine.connect(now, refused, None, remote), Err(Errno::EINPROGRESS));
    net.run_for(MS);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, refused), Err(Errno::ECONNREFUSED));
    finish(net);
}

#[test]
fn frames_of_a_foreign_vlan_are_nobodys() {
    let mut net = tagged_net();
    listen(&mut net, 4);
    let foreign = Tags::NONE.with(5, false).unwrap();
    let mac = net.hosts[SERVER].config.mac;
    let ip = net.hosts[SERVER].config.ip();
    let mut engine = net.hosts[CLIENT].engine();
    engine.net_mut().set_address(Address::new(Ip::v4([10, 0, 0, 2]), 120, foreign));
    engine.net_mut().clear_routes();
    let prefix = Ip::v4([10, 0, 0, 0]);
    let route = Route { prefix, bits: 120, kind: RouteKind::ViaDevice, tags: foreign, ..Route::default() };
    engine.net_mut().set_route(route);
    engine.net_mut().set_neighbour(&ip, foreign, Some(mac));
    connect(&mut net);
    net.run_for(MS);
    assert_eq!(net.hosts[SERVER].engine().counters().drops.of(Drop::LinkForeignVlan), 1);
    finish(net);
}

#[test]
fn connections_live_on_when_the_device_gets_another_mac() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let (now, ip, mac) = (net.now(), net.hosts[SERVER].config.ip(), Mac([2, 9, 9, 9, 9, 9]));
    net.hosts[SERVER].engine().set_device(now, mac, 1500);
    // Until the neighbour knows, frames for the old MAC are nobody's.
    assert_eq!(send(&mut net, CLIENT, client, b"lost at first"), Ok(13));
    net.run_for(MS);
    assert!(net.hosts[SERVER].engine().counters().drops.of(Drop::LinkNotOurs) > 0);
    net.hosts[CLIENT].engine().net_mut().set_neighbour(&ip, Tags::NONE, Some(mac));
    net.run(5 * SEC, |net| recv(net, SERVER, server).is_ok_and(|got| got == b"lost at first"));
    transfer(&mut net, (SERVER, server), (CLIENT, client), 100_000);
    finish(net);
}

#[test]
fn a_smaller_mtu_counts_for_what_is_in_flight() {
    let mut net = Net::new(1);
    net.wire.delay_us = 10 * MS;
    let (_, server, client) = pair(&mut net);
    let data = vec![7; 100_000];
    let sent = send(&mut net, CLIENT, client, &data).unwrap();
    net.run_for(MS);
    let now = net.now();
    let mac = net.hosts[CLIENT].config.mac;
    net.hosts[CLIENT].engine().set_device(now, mac, 1000);
    net.tap = Some(|_, to, bytes| assert!(to == CLIENT || bytes.len() <= 1014, "{} octets", bytes.len()));
    let mut got = 0;
    net.run(30 * SEC, |net| {
        got += recv(net, SERVER, server).map_or(0, |d| d.len());
        got == sent
    });
    finish(net);
}
