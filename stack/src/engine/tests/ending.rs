//! How calls see a connection go: dissolved, lingered for, and what a read that wants more stops at.

use super::{CLIENT, PROC, SERVER, connect, finish, listen, pair, readiness, recv, send};
use crate::socket::readiness::{HUP, OUT};
use crate::socket::{Errno, How};
use crate::testing::Net;
use crate::time::SEC;

#[test]
fn a_dissolved_connection_is_reset_and_the_socket_connects_again() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    net.hosts[CLIENT].engine().disconnect(now, client).unwrap();
    net.run_for(SEC);
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET), "told once");
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ENOTCONN));
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(Errno::EPIPE));
    assert_eq!(readiness(&mut net, CLIENT, client), OUT | HUP);
    let (now, to) = (net.now(), net.endpoint(SERVER, super::PORT));
    assert_eq!(net.hosts[CLIENT].engine().connect_again(now, client), Err(Errno::ENOTCONN));
    assert_eq!(net.hosts[CLIENT].engine().connect(now, client, None, to), Err(Errno::EINPROGRESS));
    assert_eq!(net.hosts[CLIENT].engine().connect_again(now, client), Err(Errno::EALREADY));
    net.run_for(SEC);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_again(now, client), Ok(()));
    assert_eq!(net.hosts[CLIENT].engine().connect_again(now, client), Err(Errno::EISCONN));
    finish(net);
}

#[test]
fn an_attempt_given_up_is_a_reset_to_whoever_asks() {
    let mut net = Net::new(1);
    listen(&mut net, 16);
    let client = connect(&mut net);
    let now = net.now();
    net.hosts[CLIENT].engine().shutdown(now, client, How::Read).unwrap();
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ENOTCONN));
    finish(net);
}

#[test]
fn lingering_lasts_until_the_end_is_acknowledged() {
    let mut net = Net::new(1);
    let (_, _server, client) = pair(&mut net);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!(engine.begin_linger(now, client, PROC), Ok(0), "nobody asked for it");
    engine.set_linger(client, Some(7)).unwrap();
    engine.hold(client, PROC + 1).unwrap();
    assert_eq!(engine.begin_linger(now, client, PROC), Ok(0), "another process holds it");
    engine.release(now, client, PROC + 1).unwrap();
    assert_eq!((engine.begin_linger(now, client, PROC), engine.is_closing(client)), (Ok(7), Ok(true)));
    net.run_for(SEC);
    assert_eq!(net.hosts[CLIENT].engine().is_closing(client), Ok(false));
    finish(net);
}

#[test]
fn nobody_lingers_over_what_will_be_a_reset() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    send(&mut net, SERVER, server, b"unread").unwrap();
    net.run_for(SEC);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    engine.set_linger(client, Some(7)).unwrap();
    assert_eq!((engine.begin_linger(now, client, PROC), engine.is_closing(client)), (Ok(0), Ok(false)));
    finish(net);
}

#[test]
fn a_read_that_wants_more_stops_at_the_end_and_at_an_error() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    send(&mut net, SERVER, server, b"abc").unwrap();
    net.run_for(SEC);
    let stops = |net: &mut Net, ahead| net.hosts[CLIENT].engine().stops_at(client, ahead).unwrap();
    assert!(!stops(&mut net, 3), "more may come");
    let now = net.now();
    net.hosts[SERVER].engine().set_linger(server, Some(0)).unwrap();
    net.hosts[SERVER].engine().release(now, server, PROC).unwrap();
    net.run_for(SEC);
    assert!(stops(&mut net, 3) && !stops(&mut net, 2));
    assert_eq!(net.hosts[CLIENT].engine().takes_data(client), Ok(false));
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"abc");
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET), "asking has not taken it");
    finish(net);
}
