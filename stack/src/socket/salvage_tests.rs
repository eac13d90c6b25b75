use super::*;
use crate::addr::{Endpoint, Ip};
use crate::engine::tests::*;
use crate::slab::mishap;
use crate::socket::readiness::{ERR, HUP, IN};
use crate::socket::{DatagramFacts, EpollEvent, Family, SetId, SocketId};
use crate::testing::Net;
use crate::time::SEC;
use crate::udp::Marks;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Another process that shares the stack.
const CHILD: u16 = PROC + 1;

/// What the runtime does when the owner of the lock died inside, and the daemon when it hears who died.
fn start_over(net: &mut Net, dead: u16) {
    let now = net.now();
    let mut engine = net.hosts[SERVER].engine();
    let mut walk = engine.farewells();
    engine.salvage();
    engine.frames_mut().rebuild();
    while net.hosts[SERVER].engine().say_farewells(&mut walk) {
        net.run_for(0);
    }
    net.run_for(0);
    net.hosts[SERVER].engine().note_farewells_said();
    net.hosts[SERVER].engine().release_process(now, dead);
}

fn events(net: &mut Net, set: SetId) -> Vec<u64> {
    let mut out = [EpollEvent::default(); 8];
    let n = net.hosts[SERVER].engine().epoll_collect(set, &mut out).unwrap();
    out[..n].iter().map(|event| event.data).collect()
}

fn expect_balance(net: &mut Net) {
    let audit = net.hosts[SERVER].engine().audit(|process| process == PROC);
    for count in [audit.frames, audit.connections, audit.time_waits, audit.sockets] {
        assert!(count.is_right(), "{audit:?}");
    }
}

/// A new client is served at the listener, which is in the set.
fn expect_service(net: &mut Net, listener: SocketId, set: SetId) {
    let client = connect(net);
    net.run(5 * SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    assert!(events(net, set).contains(&7));
    let server = accept(net, listener);
    send(net, CLIENT, client, b"alive").unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(5));
    assert_eq!(recv(net, SERVER, server).unwrap(), b"alive");
    release(net, SERVER, server);
    release(net, CLIENT, client);
}

#[test]
fn who_shares_a_stack_with_the_dead_serves_on() {
    let mut net = Net::new(1);
    let (listener, server, client) = pair(&mut net);
    let mut engine = net.hosts[SERVER].engine();
    let set = engine.epoll_open(PROC).unwrap();
    engine.epoll_add(set, listener, 3, IN, 7).unwrap();
    engine.epoll_add(set, server, 4, IN, 8).unwrap();
    engine.epoll_wait_on(set, 5).unwrap();
    engine.hold(server, CHILD).unwrap();
    start_over(&mut net, CHILD);

    assert_ne!(net.hosts[SERVER].engine().take_wakeups() & 1 << 5, 0, "who waits looks again");
    net.run_for(SEC);
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET));
    assert_eq!(events(&mut net, set), [8]);
    assert_eq!(readiness(&mut net, SERVER, server) & (ERR | HUP), ERR | HUP);
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ENOTCONN));
    release(&mut net, SERVER, server);
    release(&mut net, CLIENT, client);
    expect_service(&mut net, listener, set);
    expect_balance(&mut net);
    assert_eq!(net.hosts[SERVER].engine().counters().start_overs, 1);
}

/// What a child does with the stack that it shares: all kinds of calls, each of which may be its last.
fn be_busy(net: &mut Net, listener: SocketId, set: SetId) {
    let (now, local) = (net.now(), Endpoint::new(Ip::UNSPECIFIED_V4, 99));
    let mut engine = net.hosts[SERVER].engine();
    let own = engine.epoll_open(CHILD).unwrap();
    let other = engine.listen(local, false, 4, &Options::default(), CHILD).unwrap();
    engine.epoll_add(own, other, 5, IN, 9).unwrap();
    engine.epoll_add(set, other, 5, IN, 9).unwrap();
    let marks = Marks::default();
    let facts =
        DatagramFacts { local, family: Family::V4, v6only: false, shares_port: false, rcvbuf_bytes: 9999, marks };
    let datagrams = engine.open_datagram(&facts, CHILD).unwrap();
    engine.epoll_add(own, datagrams, 6, IN, 10).unwrap();
    let accepted = engine.accept(now, listener, CHILD).unwrap().0;
    engine.epoll_add(own, accepted, 7, IN, 11).unwrap();
    engine.send(now, accepted, &[1; 6000]).unwrap();
    let _ = engine.recv(now, accepted, &mut [0; 100], false);
    net.run_for(SEC / 10);
    let now = net.now();
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_delete(own, accepted, 7).unwrap();
    engine.release(now, accepted, CHILD).unwrap();
    engine.release(now, other, CHILD).unwrap();
    engine.epoll_close(own, CHILD).unwrap();
    net.run_for(SEC / 10);
}

#[test]
fn a_child_may_die_at_any_step() {
    let (mut steps, mut deaths) = (1, 0);
    loop {
        let mut net = Net::new(steps);
        let listener = listen(&mut net, 16);
        let mut engine = net.hosts[SERVER].engine();
        let set = engine.epoll_open(PROC).unwrap();
        engine.epoll_add(set, listener, 3, IN, 7).unwrap();
        engine.hold(listener, CHILD).unwrap();
        let client = connect(&mut net);
        send(&mut net, CLIENT, client, b"request").unwrap_or(0);
        net.run_for(SEC);
        mishap::arm(steps);
        let outcome = catch_unwind(AssertUnwindSafe(|| be_busy(&mut net, listener, set)));
        mishap::arm(0);
        if outcome.is_ok() {
            break;
        }
        deaths += 1;
        steps += 1 + steps / 64;
        start_over(&mut net, CHILD);
        net.run_for(SEC);
        release(&mut net, CLIENT, client);
        net.run_for(SEC);
        expect_service(&mut net, listener, set);
        expect_balance(&mut net);
    }
    assert!(deaths > 100, "{deaths}");
}

#[test]
fn whoever_starts_over_may_die_as_well() {
    let (mut steps, mut deaths) = (1, 0);
    loop {
        let mut net = Net::new(steps);
        let (listener, server, client) = pair(&mut net);
        let mut engine = net.hosts[SERVER].engine();
        let set = engine.epoll_open(PROC).unwrap();
        engine.epoll_add(set, listener, 3, IN, 7).unwrap();
        engine.epoll_add(set, server, 4, IN, 8).unwrap();
        engine.hold(server, CHILD).unwrap();
        net.run_for(SEC);
        mishap::arm(steps);
        let outcome = catch_unwind(AssertUnwindSafe(|| start_over(&mut net, CHILD)));
        mishap::arm(0);
        if outcome.is_ok() {
            break;
        }
        (deaths, steps) = (deaths + 1, steps + 1);
        start_over(&mut net, CHILD);
        net.run_for(SEC);
        assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET), "step {steps}");
        assert_eq!(events(&mut net, set), [8], "step {steps}");
        assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ECONNRESET), "step {steps}");
        release(&mut net, SERVER, server);
        release(&mut net, CLIENT, client);
        expect_service(&mut net, listener, set);
        expect_balance(&mut net);
    }
    assert!(deaths > 20, "{deaths}");
}
