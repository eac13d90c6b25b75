//! Sets in sets, members that the kernel has too, and bells that threads share.

use super::super::epoll_twins::{is_token, token_of_nothing};
use super::super::readiness::{IN, OUT, RDNORM};
use super::*;
use crate::engine::tests::{CLIENT, PROC, SERVER, finish, pair, recv, send};
use crate::testing::Net;
use crate::time::SEC;

/// A set on the server with the accepted socket in it as a twin; and the word that the kernel's half carries.
fn twin(events: u32) -> (Net, SetId, SocketId, SocketId, u64) {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let mut engine = net.hosts[SERVER].engine();
    let set = engine.epoll_open(PROC).unwrap();
    let asked = Registration { key: 5, events, data: 55, owner: PROC, is_twin: true };
    let token = engine.epoll_register(set, server.into(), &asked).unwrap();
    (net, set, server, client, token)
}

/// Collects, adds what the kernel is to have reported, and settles.
fn settled(net: &mut Net, set: SetId, kernels: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let mut out = [EpollEvent::default(); 16];
    let mut engine = net.hosts[SERVER].engine();
    let n = engine.epoll_collect(set, &mut out).unwrap();
    for (slot, (events, data)) in out[n..].iter_mut().zip(kernels) {
        *slot = EpollEvent { events: *events, data: *data };
    }
    let n = engine.epoll_settle(set, &mut out[..n + kernels.len()]).unwrap();
    out[..n].iter().map(|e| (e.events, e.data)).collect()
}

fn feed(net: &mut Net, client: SocketId) {
    send(net, CLIENT, client, b"x").unwrap();
    net.run_for(SEC / 10);
}

#[test]
fn twins_are_one_event() {
    let (mut net, set, server, client, token) = twin(IN);
    assert!(is_token(token) && is_token(token_of_nothing()) && !is_token(55));
    assert_eq!(settled(&mut net, set, &[]), []);
    assert_eq!(settled(&mut net, set, &[(IN, token), (OUT, 66)]), [(IN, 55), (OUT, 66)], "the kernel's alone");
    feed(&mut net, client);
    assert_eq!(settled(&mut net, set, &[]), [(IN, 55)], "the engine's alone");
    assert_eq!(settled(&mut net, set, &[(HUP, token)]), [(IN | HUP, 55)], "both");
    assert_eq!(settled(&mut net, set, &[(IN, token_of_nothing())]), [(IN, 55)]);
    recv(&mut net, SERVER, server).unwrap();
    assert_eq!(settled(&mut net, set, &[]), []);
    finish(net);
}

#[test]
fn a_shot_twin_is_shot_in_both() {
    let (mut net, set, server, client, token) = twin(IN | ONESHOT);
    feed(&mut net, client);
    assert_eq!(settled(&mut net, set, &[]), [(IN, 55)]);
    assert_eq!(settled(&mut net, set, &[(IN, token)]), [], "the kernel's half was not disarmed");
    let next = net.hosts[SERVER].engine().epoll_modify(set, server, 5, IN | ONESHOT, 56).unwrap();
    assert_ne!(next, token);
    recv(&mut net, SERVER, server).unwrap();
    assert_eq!(settled(&mut net, set, &[(IN, token)]), [], "from before it was armed anew");
    assert_eq!(settled(&mut net, set, &[(IN, next)]), [(IN, 56)]);
    feed(&mut net, client);
    assert_eq!(settled(&mut net, set, &[]), [], "the engine's half went with it");
    finish(net);
}

#[test]
fn an_edge_of_both_is_one_edge() {
    let (mut net, set, _, client, token) = twin(IN | ET);
    feed(&mut net, client);
    let mut events = [EpollEvent { events: HUP, data: token }];
    assert_eq!(net.hosts[SERVER].engine().epoll_settle(set, &mut events), Ok(1));
    assert_eq!(({ events[0].events }, { events[0].data }), (IN | HUP, 55), "with what the engine knows");
    assert_eq!(settled(&mut net, set, &[]), []);
    finish(net);
}

#[test]
fn twins_are_taken_back_by_their_owner() {
    let (mut net, set, server, _, token) = twin(IN);
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_add(set, server, 6, IN, 66).unwrap();
    assert!(engine.epoll_take_twin(server, PROC + 1).unwrap().is_none());
    let (of, taken) = engine.epoll_take_twin(server, PROC).unwrap().unwrap();
    assert_eq!((of, taken.key, taken.events, taken.data), (set, 5, IN | ERR | HUP, 55));
    assert!(engine.epoll_take_twin(server, PROC).unwrap().is_none(), "the other is none");
    assert_eq!(settled(&mut net, set, &[(IN, token)]), []);
    finish(net);
}

#[test]
fn a_set_in_a_set_is_ready_when_it_has_something() {
    for edge in [0, ET] {
        let mut net = Net::new(1);
        let (_, server, client) = pair(&mut net);
        let mut engine = net.hosts[SERVER].engine();
        let [inner, outer, outermost] = [(); 3].map(|()| engine.epoll_open(PROC).unwrap());
        engine.epoll_add(inner, server, 5, IN, 5).unwrap();
        engine.epoll_add(outer, Watched::Set(inner), 6, IN | OUT | edge, 6).unwrap();
        engine.epoll_add(outermost, Watched::Set(outer), 7, RDNORM, 7).unwrap();
        engine.epoll_wait_on(outermost, 3).unwrap();
        assert_eq!(engine.epoll_has_ready(outermost), Ok(false));
        feed(&mut net, client);
        assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 1 << 3, "whoever waits outside is told");
        assert_eq!(settled(&mut net, outermost, &[]), [(RDNORM, 7)]);
        assert_eq!(settled(&mut net, outer, &[]), [(IN, 6)]);
        assert_eq!(settled(&mut net, outer, &[]).len(), usize::from(edge == 0));
        assert_eq!(settled(&mut net, inner, &[]), [(IN, 5)]);
        recv(&mut net, SERVER, server).unwrap();
        assert_eq!(settled(&mut net, outermost, &[]), []);
        feed(&mut net, client);
        net.hosts[SERVER].engine().epoll_close(inner, PROC).unwrap();
        assert_eq!(settled(&mut net, outermost, &[]), [], "a closed set leaves the sets it is in");
        finish(net);
    }
}

#[test]
fn sets_in_sets_are_bounded() {
    let mut net = Net::new(1);
    let mut engine = net.hosts[SERVER].engine();
    let sets: Vec<SetId> = (0..9).map(|_| engine.epoll_open(PROC).unwrap()).collect();
    for (inner, outer) in (0..7).zip(1..) {
        engine.epoll_add(sets[outer], Watched::Set(sets[inner]), 1, IN, 0).unwrap();
    }
    assert_eq!(engine.epoll_add(sets[8], Watched::Set(sets[7]), 1, IN, 0), Err(Errno::ELOOP));
    assert_eq!(engine.epoll_add(sets[0], Watched::Set(sets[7]), 1, IN, 0), Err(Errno::ELOOP), "a ring");
    assert_eq!(engine.epoll_add(sets[8], Watched::Set(sets[0]), 1, IN | EXCLUSIVE, 0), Err(Errno::EINVAL));
    assert_eq!(engine.epoll_has_ready(sets[7]), Ok(false));
}

#[test]
fn a_shared_bell_rings_once_and_for_everybody() {
    let (mut net, set, server, client, _) = twin(IN);
    let mut engine = net.hosts[SERVER].engine();
    for _ in 0..2 {
        engine.epoll_wait_on(set, 20).unwrap();
        engine.wait_on(server, 21).unwrap();
    }
    // One of two threads leaves: the other one waits still.
    engine.epoll_unwait(set, 20).unwrap();
    engine.unwait(server, 21).unwrap();
    feed(&mut net, client);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 1 << 20 | 1 << 21);
    feed(&mut net, client);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 0, "whoever still waits says so again");
    finish(net);
}

#[test]
fn a_thread_that_looks_need_not_be_rung() {
    let (mut net, set, _, client, _) = twin(IN);
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_wait_on(set, 1).unwrap();
    engine.epoll_wait_on(set, 2).unwrap();
    feed(&mut net, client);
    let mut engine = net.hosts[SERVER].engine();
    engine.take_wakeup(1);
    assert_eq!(engine.take_wakeups(), 1 << 2);
    finish(net);
}
