use super::super::readiness::{HUP, IN, OUT, RDHUP};
use super::*;
use crate::engine::tests::{CLIENT, PROC, SERVER, accept, connect, finish, listen, pair, recv, release, send};
use crate::socket::How;
use crate::testing::Net;
use crate::time::SEC;

const FULL: &[u8] = &[7; 65536];

/// A set on the server with the accepted socket in it, asked for `events`.
fn watched(events: u32) -> (Net, SetId, SocketId, SocketId) {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let mut engine = net.hosts[SERVER].engine();
    let set = engine.epoll_open(PROC).unwrap();
    engine.epoll_add(set, server, 5, events, 55).unwrap();
    (net, set, server, client)
}

fn collect(net: &mut Net, set: SetId) -> Vec<(u32, u64)> {
    let mut out = [EpollEvent::default(); 16];
    let n = net.hosts[SERVER].engine().epoll_collect(set, &mut out).unwrap();
    out[..n].iter().map(|e| (e.events, e.data)).collect()
}

/// The client sends; the data has arrived.
fn feed(net: &mut Net, client: SocketId) {
    send(net, CLIENT, client, b"x").unwrap();
    net.run_for(SEC / 10);
}

#[test]
fn what_each_trigger_reports() {
    // After: nothing new, new data, reading all, new data, modified.
    let cases = [
        ("level", IN, [1, 1, 0, 1, 1]),
        ("edge", IN | ET, [0, 1, 0, 1, 1]),
        ("one-shot", IN | ONESHOT, [0, 0, 0, 0, 1]),
        ("edge one-shot", IN | ET | ONESHOT, [0, 0, 0, 0, 1]),
    ];
    for (name, events, expected) in cases {
        let (mut net, set, server, client) = watched(events);
        assert_eq!(collect(&mut net, set), [], "{name}: nothing yet");
        feed(&mut net, client);
        assert_eq!(collect(&mut net, set), [(IN, 55)], "{name}: first");
        let mut seen = vec![collect(&mut net, set).len()];
        feed(&mut net, client);
        seen.push(collect(&mut net, set).len());
        recv(&mut net, SERVER, server).unwrap();
        seen.push(collect(&mut net, set).len());
        feed(&mut net, client);
        seen.push(collect(&mut net, set).len());
        net.hosts[SERVER].engine().epoll_modify(set, server, 5, events, 55).unwrap();
        seen.push(collect(&mut net, set).len());
        assert_eq!(seen, expected, "{name}");
        finish(net);
    }
}

#[test]
fn adding_reports_what_is_ready_already() {
    let (mut net, set, server, client) = watched(IN | OUT | ET);
    assert_eq!(collect(&mut net, set), [(OUT, 55)]);
    assert_eq!(collect(&mut net, set), []);
    feed(&mut net, client);
    assert_eq!(collect(&mut net, set), [(IN | OUT, 55)], "an edge reports all that is ready");
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_add(set, server, 6, IN, 66).unwrap();
    assert!(engine.epoll_has_ready(set).unwrap());
    assert_eq!(collect(&mut net, set), [(IN, 66)]);
    finish(net);
}

#[test]
fn room_is_an_edge_only_after_there_was_none() {
    let (mut net, set, server, client) = watched(OUT | ET);
    assert_eq!(collect(&mut net, set), [(OUT, 55)]);
    send(&mut net, SERVER, server, b"small").unwrap();
    net.run_for(SEC);
    assert_eq!(collect(&mut net, set), [], "acknowledged, but there was room all along");
    while send(&mut net, SERVER, server, FULL).is_ok() {
        net.run_for(SEC / 10);
    }
    assert_eq!(collect(&mut net, set), []);
    net.run(60 * SEC, |net| {
        let _ = recv(net, CLIENT, client);
        net.hosts[SERVER].engine().epoll_has_ready(set).unwrap()
    });
    assert_eq!(collect(&mut net, set), [(OUT, 55)]);
    finish(net);
}

#[test]
fn room_found_missing_by_epoll_itself() {
    let (mut net, set, server, client) = watched(IN);
    while send(&mut net, SERVER, server, FULL).is_ok() {
        net.run_for(SEC / 10);
    }
    net.hosts[SERVER].engine().epoll_modify(set, server, 5, OUT, 55).unwrap();
    assert_eq!(collect(&mut net, set), []);
    net.run(60 * SEC, |net| {
        let _ = recv(net, CLIENT, client);
        !collect(net, set).is_empty()
    });
    finish(net);
}

#[test]
fn the_end_and_errors_are_always_told() {
    let (mut net, set, _, client) = watched(0);
    release(&mut net, CLIENT, client);
    net.run_for(SEC);
    assert_eq!(collect(&mut net, set), [], "a peer's FIN is no hang-up");
    finish(net);
    let (mut net, set, _, client) = watched(0);
    net.hosts[CLIENT].engine().set_linger(client, Some(0)).unwrap();
    release(&mut net, CLIENT, client);
    net.run_for(SEC);
    assert_eq!(collect(&mut net, set), [(ERR | HUP, 55)]);
    finish(net);
    let (mut net, set, server, client) = watched(IN | RDHUP | ET);
    let now = net.now();
    net.hosts[CLIENT].engine().shutdown(now, client, How::Write).unwrap();
    net.run_for(SEC);
    assert_eq!(collect(&mut net, set), [(IN | RDHUP, 55)]);
    net.hosts[SERVER].engine().shutdown(now, server, How::Both).unwrap();
    assert_eq!(collect(&mut net, set), [(IN | RDHUP | HUP, 55)]);
    finish(net);
}

#[test]
fn the_ready_list_is_fair() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let set = net.hosts[SERVER].engine().epoll_open(PROC).unwrap();
    let mut clients = vec![];
    for i in 0..8 {
        clients.push(connect(&mut net));
        let server = accept(&mut net, listener);
        net.hosts[SERVER].engine().epoll_add(set, server, i, IN, u64::from(i)).unwrap();
    }
    for client in clients {
        feed(&mut net, client);
    }
    let mut seen = vec![];
    let mut out = [EpollEvent::default(); 3];
    for _ in 0..8 {
        let n = net.hosts[SERVER].engine().epoll_collect(set, &mut out).unwrap();
        seen.extend(out[..n].iter().map(|e| e.data));
    }
    assert_eq!(seen, (0..24).map(|i| i % 8).collect::<Vec<u64>>(), "level-triggered items take turns");
    finish(net);
}

#[test]
fn a_listener_is_ready_while_somebody_waits() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let mut engine = net.hosts[SERVER].engine();
    let set = engine.epoll_open(PROC).unwrap();
    engine.epoll_add(set, listener, 3, IN, 33).unwrap();
    engine.epoll_wait_on(set, 4).unwrap();
    connect(&mut net);
    net.run_for(SEC / 10);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 1 << 4);
    assert_eq!(collect(&mut net, set), [(IN, 33)]);
    accept(&mut net, listener);
    assert_eq!(collect(&mut net, set), []);
    finish(net);
}

#[test]
fn exclusive_items_wake_one_waiting_set() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let mut engine = net.hosts[SERVER].engine();
    for bell in 0..4 {
        let set = engine.epoll_open(PROC).unwrap();
        engine.epoll_add(set, listener, 3, IN | EXCLUSIVE, 0).unwrap();
        assert_eq!(engine.epoll_modify(set, listener, 3, IN, 0), Err(Errno::EINVAL));
        engine.epoll_wait_on(set, bell).unwrap();
    }
    let mut rung = vec![];
    for _ in 0..2 {
        connect(&mut net);
        net.run_for(SEC / 10);
        let bells = net.hosts[SERVER].engine().take_wakeups();
        rung.push(bells.count_ones());
    }
    assert_eq!(rung, [1, 1]);
    let mut engine = net.hosts[SERVER].engine();
    let s = engine.epoll_open(PROC).unwrap();
    assert_eq!(engine.epoll_add(s, listener, 3, IN | EXCLUSIVE | ONESHOT, 0), Err(Errno::EINVAL));
    finish(net);
}

#[test]
fn bells_ring_for_the_right_reasons() {
    let (mut net, set, server, client) = watched(IN);
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_wait_on(set, 1).unwrap();
    engine.wait_on(server, 2).unwrap();
    feed(&mut net, client);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 0b110);
    net.hosts[SERVER].engine().epoll_unwait(set, 1).unwrap();
    net.hosts[SERVER].engine().unwait(server, 2).unwrap();
    feed(&mut net, client);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 0);
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_wait_on(set, 1).unwrap();
    engine.forget_bells(1 << 1);
    feed(&mut net, client);
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 0);
    finish(net);
}

#[test]
fn items_come_and_go() {
    let (mut net, set, server, client) = watched(IN);
    feed(&mut net, client);
    let mut engine = net.hosts[SERVER].engine();
    assert_eq!(engine.epoll_add(set, server, 5, IN, 0), Err(Errno::EEXIST));
    engine.epoll_add(set, server, 6, IN, 66).unwrap();
    assert_eq!(engine.epoll_modify(set, server, 7, IN, 0), Err(Errno::ENOENT));
    assert_eq!(engine.epoll_delete(set, server, 7), Err(Errno::ENOENT));
    engine.epoll_delete(set, server, 5).unwrap();
    assert_eq!(collect(&mut net, set), [(IN, 66)]);
    net.hosts[SERVER].engine().epoll_delete_all(server, 9).unwrap();
    assert_eq!(collect(&mut net, set), [(IN, 66)], "another process's descriptor");
    net.hosts[SERVER].engine().epoll_delete_all(server, 0).unwrap();
    assert_eq!(collect(&mut net, set), []);
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_add(set, server, 5, IN, 55).unwrap();
    let now = net.now();
    net.hosts[SERVER].engine().release(now, server, PROC).unwrap();
    assert_eq!(collect(&mut net, set), [], "a closed socket leaves its sets");
    let mut engine = net.hosts[SERVER].engine();
    engine.epoll_hold(set, 9).unwrap();
    engine.epoll_close(set, PROC).unwrap();
    assert_eq!(engine.epoll_has_ready(set), Ok(false), "the child still has it");
    engine.release_process(now, 9);
    assert_eq!(engine.epoll_has_ready(set), Err(Errno::EBADF));
    assert_eq!(engine.population().epoll_items, 0);
    finish(net);
}
