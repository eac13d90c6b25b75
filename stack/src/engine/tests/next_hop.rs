use super::*;
use crate::addr::{Ip, Mac};
use crate::ip::tables::{Route, RouteKind};
use crate::link::Tags;
use crate::socket::readiness::ERR;
use crate::time::MS;

const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn connect_waits_for_the_neighbour() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let ip = net.hosts[SERVER].config.ip();
    net.hosts[CLIENT].engine().net_mut().clear_neighbours();
    let client = connect(&mut net);
    net.run_for(50 * MS);
    let mut engine = net.hosts[CLIENT].engine();
    assert!(engine.wants_daemon() && !engine.has_transmit());
    assert_eq!(engine.net_mut().take_wanted(), Some((ip, Tags::NONE)));
    assert!(engine.next_deadline().is_some(), "asks again");
    engine.net_mut().set_neighbour(&ip, Tags::NONE, Some(SERVER_MAC));
    accept(&mut net, listener);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT);
    finish(net);
}

#[test]
fn connect_fails_when_the_neighbour_does() {
    let mut net = Net::new(1);
    let ip = net.hosts[SERVER].config.ip();
    net.hosts[CLIENT].engine().net_mut().clear_neighbours();
    let client = connect(&mut net);
    net.run_for(50 * MS);
    net.hosts[CLIENT].engine().net_mut().set_neighbour(&ip, Tags::NONE, None);
    net.run(SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(Errno::EHOSTUNREACH));
    finish(net);
}

#[test]
fn a_server_answers_to_where_the_frame_came_from() {
    let mut net = Net::new(1);
    net.hosts[SERVER].engine().net_mut().clear_neighbours();
    net.hosts[SERVER].engine().net_mut().clear_routes();
    pair(&mut net);
    finish(net);
}

#[test]
fn the_gateway_s_address_changes_under_a_connection() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let ip = net.hosts[SERVER].config.ip();
    let elsewhere = Mac([2, 0, 0, 0, 0, 77]);
    net.hosts[CLIENT].engine().net_mut().set_neighbour(&ip, Tags::NONE, Some(elsewhere));
    send(&mut net, CLIENT, client, b"lost").unwrap();
    net.run_for(100 * MS);
    assert_eq!(net.hosts[SERVER].engine().available(server), Ok(0));
    net.hosts[CLIENT].engine().net_mut().set_neighbour(&ip, Tags::NONE, Some(SERVER_MAC));
    net.run(5 * SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(4));
    finish(net);
}

#[test]
fn unreachable_destinations_and_no_ports() {
    let mut net = Net::new(1);
    let prefix = Ip::v4([10, 9, 0, 0]);
    let unreachable = Route { prefix, bits: 112, kind: RouteKind::Unreachable, ..Route::default() };
    net.hosts[CLIENT].engine().net_mut().set_route(unreachable);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    let to = |ip| Endpoint::new(Ip::v4(ip), 80);
    assert_eq!(engine.connect(now, s, None, to([10, 9, 0, 1])), Err(Errno::EHOSTUNREACH));
    assert_eq!(engine.connect(now, s, None, to([8, 8, 8, 8])), Err(Errno::ENETUNREACH));
    let foreign = Some(Endpoint::new(Ip::v4([1, 2, 3, 4]), 0));
    assert_eq!(engine.connect(now, s, foreign, to([10, 0, 0, 1])), Err(Errno::EADDRNOTAVAIL));
    finish(net);
}
