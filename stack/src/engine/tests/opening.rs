//! Peers that restart, segments that are older than they look, flows that come back; and how often we answer to that.

use super::raw::{exchange, forget_seen, frame, seen, watch};
use super::*;
use crate::addr::Ip;
use crate::drops::Drop;
use crate::socket::readiness::ERR;
use crate::socket::{How, SocketOption};
use crate::tcp::{Seq, State};
use crate::time::MS;
use crate::wire::tcp::{Flags, Header};

/// The machine of `host` loses power and comes back: nobody is told.
fn reboot(net: &mut Net, host: usize) {
    let frames = net.hosts[host].config.frames;
    let mut engine = net.hosts[host].engine();
    engine.reset_all();
    (0..frames).for_each(|id| engine.frames_mut().push_free(id));
}

fn connect_from(net: &mut Net, local: Endpoint) -> (SocketId, Result<(), Errno>) {
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    let outcome = engine.connect(now, s, Some(local), remote);
    (s, outcome)
}

fn local_of(net: &mut Net, host: usize, s: SocketId) -> Endpoint {
    net.hosts[host].engine().local_endpoint(s).unwrap()
}

#[test]
fn data_for_a_peer_that_forgot_us_is_answered_with_a_reset() {
    let mut net = Net::new(1);
    let (_, _, client) = pair(&mut net);
    net.run_for(SEC);
    reboot(&mut net, SERVER);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT, "half open: nobody knows");
    send(&mut net, CLIENT, client, b"hello?").unwrap();
    net.run(SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET));
    finish(net);
}

/// RFC 9293 §3.5.1, figure 10, with RFC 5961's challenge in it.
#[test]
fn a_peer_that_restarts_gets_in_with_its_old_port() {
    let mut net = Net::new(1);
    let (listener, server, client) = pair(&mut net);
    let local = local_of(&mut net, CLIENT, client);
    net.run_for(SEC);
    reboot(&mut net, CLIENT);
    net.run_for(SEC);
    watch(&mut net);
    let (again, outcome) = connect_from(&mut net, local);
    assert_eq!(outcome, Err(Errno::EINPROGRESS));
    let accepted = accept(&mut net, listener);
    let to_server: Vec<_> = seen(SERVER).iter().map(|s| s.flags).collect();
    assert_eq!(to_server, [Flags::SYN, Flags::RST, Flags::SYN, Flags::ACK]);
    assert_eq!(seen(CLIENT)[0].flags, Flags::ACK, "the challenge");
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ECONNRESET));
    send(&mut net, CLIENT, again, b"new").unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(accepted) == Ok(3));
    finish(net);
}

#[test]
fn an_old_syn_at_a_listener_is_undone_by_the_peer() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let syn = Header { remote_port: PORT, seq: Seq(9), flags: Flags::SYN, window: 500, ..Header::default() };
    let bytes = frame(&net, SERVER, net.endpoint(CLIENT, 4321), &syn, b"");
    net.inject(SERVER, &bytes);
    net.run_for(10 * MS);
    assert_eq!(net.hosts[SERVER].engine().population().connections, 0);
    assert_eq!(net.hosts[SERVER].engine().counters().resets_received, 1);
    assert!(!net.hosts[SERVER].engine().has_pending_accepts(listener));
    finish(net);
}

/// An old SYN of the same flow, in every state: the connection is none the worse for it.
#[test]
fn an_old_syn_hurts_no_connection_in_any_state() {
    type Prepare = fn(&mut Net, SocketId, SocketId);
    let prepare: [(&str, Prepare); 5] = [
        ("established", |_, _, _| {}),
        ("fin-wait", |net, server, _| {
            let now = net.now();
            net.hosts[SERVER].engine().shutdown(now, server, How::Write).unwrap();
        }),
        ("close-wait", |net, _, client| {
            let now = net.now();
            net.hosts[CLIENT].engine().shutdown(now, client, How::Write).unwrap();
        }),
        ("time-wait", |net, server, client| {
            release(net, SERVER, server);
            net.run_for(10 * MS);
            release(net, CLIENT, client);
        }),
        ("data under way", |net, server, _| {
            send(net, SERVER, server, &[4; 5000]).unwrap();
        }),
    ];
    for (name, prepare) in prepare {
        for offset in [0u32, 1, 1000, 1 << 20, 1 << 31, u32::MAX - 5000] {
            let mut net = Net::new(7);
            net.hosts[SERVER].engine().tunables_mut().rfc1337 = 1;
            watch(&mut net);
            let (_, server, client) = pair(&mut net);
            let local = local_of(&mut net, CLIENT, client);
            let first = seen(SERVER)[0];
            net.run_for(10 * MS);
            prepare(&mut net, server, client);
            net.run_for(10 * MS);
            let timestamp = first.options.timestamp;
            let syn = Header {
                remote_port: PORT,
                seq: first.seq + offset,
                flags: Flags::SYN,
                timestamp,
                ..Header::default()
            };
            let bytes = frame(&net, SERVER, local, &syn, b"");
            net.inject(SERVER, &bytes);
            net.run_for(100 * MS);
            if name == "time-wait" {
                assert_eq!(net.hosts[SERVER].engine().population().time_waits, 1, "{name} {offset}");
            } else {
                assert_eq!(readiness(&mut net, SERVER, server) & ERR, 0, "{name} {offset}");
                assert_eq!(readiness(&mut net, CLIENT, client) & ERR, 0, "{name} {offset}");
            }
            finish(net);
        }
    }
}

/// RFC 1337 §2.1: the answer to an old duplicate makes the peer, which has forgotten, send a RST.
#[test]
fn a_time_wait_may_be_assassinated_unless_told_otherwise() {
    for rfc1337 in [0, 1] {
        let mut net = Net::new(7);
        net.hosts[SERVER].engine().tunables_mut().rfc1337 = rfc1337;
        let (_, server, client) = pair(&mut net);
        let local = local_of(&mut net, CLIENT, client);
        release(&mut net, SERVER, server);
        net.run_for(10 * MS);
        release(&mut net, CLIENT, client);
        net.run_for(10 * MS);
        let old = Header { remote_port: PORT, seq: Seq(9), ack: Seq(9), flags: Flags::ACK, ..Header::default() };
        let bytes = frame(&net, SERVER, local, &old, b"old");
        net.inject(SERVER, &bytes);
        net.run_for(10 * MS);
        assert_eq!(net.hosts[SERVER].engine().population().time_waits, rfc1337);
        finish(net);
    }
}

#[test]
fn data_with_the_syn_ack_is_taken() {
    let mut net = Net::new(1);
    watch(&mut net);
    net.hosts[SERVER].engine().net_mut().clear_addresses(); // The server's own stack keeps out of it.
    let client = connect(&mut net);
    net.run_for(MS);
    let (syn, local) = (seen(SERVER)[0], local_of(&mut net, CLIENT, client));
    let server = net.endpoint(SERVER, PORT);
    let header = Header { remote_port: local.port, seq: Seq(50), ack: syn.seq + 1, window: 9000, ..Header::default() };
    let header = Header { flags: Flags::SYN | Flags::ACK, ..header };
    let bytes = frame(&net, CLIENT, server, &header, b"banner");
    let answers = exchange(&mut net, CLIENT, &bytes);
    assert_eq!((answers[0].1.flags, answers[0].1.ack), (Flags::ACK, Seq(57)));
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"banner");
}

#[test]
fn a_stack_s_challenges_are_bounded_and_the_bound_cannot_be_counted() {
    let config = HostConfig { conns: 256, sockets: 256, ..HostConfig::nth(1) };
    let mut net = Net::with(1, config, HostConfig { conns: 256, sockets: 256, ..HostConfig::nth(2) });
    net.hosts[SERVER].engine().tunables_mut().challenge_ack_limit = 20;
    let listener = listen(&mut net, 200);
    let mut locals = vec![];
    for _ in 0..100 {
        let client = connect(&mut net);
        accept(&mut net, listener);
        locals.push(local_of(&mut net, CLIENT, client));
    }
    let mut counts = vec![];
    for _ in 0..12 {
        net.run_for(SEC);
        let mut count = 0;
        for local in &locals {
            let syn = Header { remote_port: PORT, seq: Seq(1), flags: Flags::SYN, ..Header::default() };
            let rcv = in_window(&mut net, *local);
            let bytes = frame(&net, SERVER, *local, &Header { seq: rcv, ..syn }, b"");
            count += exchange(&mut net, SERVER, &bytes).len();
        }
        counts.push(count);
    }
    assert!(counts.iter().all(|n| (10..=30).contains(n)), "{counts:?}");
    assert!(counts.iter().any(|n| *n != counts[0]), "the same each second: {counts:?}");
    let limited = net.hosts[SERVER].engine().counters().drops.of(Drop::ChallengeLimitedStack);
    assert_eq!(limited as usize, 1200 - counts.iter().sum::<usize>());
    finish(net);
}

/// A sequence number in the window of the server's connection with `local`, but not at its edge.
fn in_window(net: &mut Net, local: Endpoint) -> Seq {
    let flow = crate::addr::Flow { local: net.endpoint(SERVER, PORT), remote: local };
    let engine = net.hosts[SERVER].engine();
    let Some(entry) = engine.lookup(&flow) else { panic!("no connection") };
    let crate::engine::flows::Entry::Connection(conn) = entry else { panic!("no connection") };
    engine.conns[conn].farewells()[0].unwrap().ack + 100
}

/// The client closed first; its TIME-WAIT has the flow.
fn waiting(net: &mut Net, tw_reuse: u32) -> (SocketId, Endpoint) {
    net.hosts[CLIENT].engine().tunables_mut().tw_reuse = tw_reuse;
    let (listener, server, client) = pair(net);
    let local = local_of(net, CLIENT, client);
    release(net, CLIENT, client);
    net.run_for(10 * MS);
    release(net, SERVER, server);
    net.run_for(10 * MS);
    assert_eq!(net.hosts[CLIENT].engine().population().time_waits, 1);
    (listener, local)
}

#[test]
fn connect_succeeds_a_time_wait_a_second_later_when_told_to() {
    for tw_reuse in [0, 1, 2] {
        let mut net = Net::new(1);
        let (listener, local) = waiting(&mut net, tw_reuse);
        assert_eq!(connect_from(&mut net, local).1, Err(Errno::EADDRNOTAVAIL), "too soon");
        net.run_for(SEC);
        let (client, outcome) = connect_from(&mut net, local);
        if tw_reuse != 1 {
            assert_eq!(outcome, Err(Errno::EADDRNOTAVAIL));
            finish(net);
            continue;
        }
        assert_eq!(outcome, Err(Errno::EINPROGRESS));
        let server = accept(&mut net, listener);
        assert_eq!(net.hosts[CLIENT].engine().counters().time_wait_reused, 1);
        assert_eq!(net.hosts[SERVER].engine().peer_endpoint(server), Ok(local));
        send(&mut net, CLIENT, client, b"again").unwrap();
        net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(5));
        finish(net);
    }
}

#[test]
fn with_one_port_a_client_still_connects_every_second() {
    let mut net = Net::new(1);
    net.hosts[CLIENT].engine().forget_port_blocks();
    assert!(net.hosts[CLIENT].engine().add_port_block(157));
    net.hosts[CLIENT].engine().use_ports_of_blocks(1);
    let (listener, _) = waiting(&mut net, 1);
    for _ in 0..10 {
        net.run_for(SEC);
        let client = connect(&mut net);
        let server = accept(&mut net, listener);
        release(&mut net, CLIENT, client);
        net.run_for(10 * MS);
        release(&mut net, SERVER, server);
        net.run_for(10 * MS);
    }
    assert_eq!(net.hosts[CLIENT].engine().counters().time_wait_reused, 10);
    finish(net);
}

#[test]
fn without_timestamps_a_time_wait_is_not_succeeded() {
    let mut net = Net::new(1);
    net.hosts[SERVER].engine().tunables_mut().timestamps = 0;
    let (_, local) = waiting(&mut net, 1);
    net.run_for(5 * SEC);
    assert_eq!(connect_from(&mut net, local).1, Err(Errno::EADDRNOTAVAIL));
    finish(net);
}

#[test]
fn time_waits_that_make_room_are_counted() {
    let mut net = Net::with(1, HostConfig { time_waits: 4, ..HostConfig::nth(1) }, HostConfig::nth(2));
    let listener = listen(&mut net, 16);
    for _ in 0..10 {
        let client = connect(&mut net);
        let server = accept(&mut net, listener);
        release(&mut net, SERVER, server);
        net.run_for(10 * MS);
        release(&mut net, CLIENT, client);
        net.run_for(10 * MS);
    }
    assert_eq!(net.hosts[SERVER].engine().counters().time_wait_overflows, 6);
    finish(net);
}

#[test]
fn defer_accept_waits_for_data() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, listener, SocketOption::DeferAccept, 10).unwrap();
    assert_eq!(net.hosts[SERVER].engine().option(listener, SocketOption::DeferAccept), Ok(15), "1 + 2 + 4 + 8");
    watch(&mut net);
    let client = connect(&mut net);
    net.run_for(3 * SEC);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT, "the client is connected");
    assert!(!net.hosts[SERVER].engine().has_pending_accepts(listener));
    assert_eq!(net.hosts[SERVER].engine().counters().drops.of(Drop::AckDeferred), 1);
    send(&mut net, CLIENT, client, b"at last").unwrap();
    let server = accept(&mut net, listener);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"at last");
    // One that says nothing is accepted all the same, when its last SYN-ACK was answered once more.
    let start = net.now();
    forget_seen();
    connect(&mut net);
    net.run(60 * SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    let waited = net.now().since_us(start);
    assert!((15 * SEC..16 * SEC).contains(&waited), "{waited}");
    assert_eq!(seen(CLIENT).iter().filter(|s| s.has(Flags::SYN)).count(), 2, "it rested meanwhile");
    finish(net);
}

#[test]
fn defer_accept_ends_with_the_peer() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, listener, SocketOption::DeferAccept, 5).unwrap();
    connect(&mut net);
    net.run_for(SEC / 2);
    reboot(&mut net, CLIENT);
    net.run_for(100 * SEC);
    assert_eq!(net.hosts[SERVER].engine().population().connections, 0);
    finish(net);
}

#[test]
fn the_number_of_syns_may_be_set() {
    let mut net = Net::new(1);
    net.wire.loss = 1000;
    watch(&mut net);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!(engine.option(s, SocketOption::SynCount), Ok(6));
    assert_eq!(engine.set_option(now, s, SocketOption::SynCount, 0), Err(Errno::EINVAL));
    engine.set_option(now, s, SocketOption::SynCount, 2).unwrap();
    assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS));
    net.run(100 * SEC, |net| readiness(net, CLIENT, s) & ERR != 0);
    assert_eq!(seen(SERVER).len(), 3);
    assert_eq!(net.now().since_us(now) / SEC, 7);
    finish(net);
}

#[test]
fn linger2_below_zero_leaves_no_fin_wait_2() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    for (value, told) in [(-1, -1), (0, 60), (121, 120), (120, 120), (-7, -1)] {
        engine.set_option(now, client, SocketOption::FinTimeout, value).unwrap();
        assert_eq!(engine.option(client, SocketOption::FinTimeout), Ok(told), "{value}");
    }
    release(&mut net, CLIENT, client);
    net.run_for(100 * MS);
    assert_eq!(net.hosts[CLIENT].engine().population().connections, 0);
    let now = net.now();
    assert_eq!(net.hosts[SERVER].engine().info(now, server).unwrap().state, State::CloseWait);
    // Shut first, let go of later: then the peer is told.
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    net.hosts[CLIENT].engine().set_option(now, client, SocketOption::FinTimeout, -1).unwrap();
    net.hosts[CLIENT].engine().shutdown(now, client, How::Write).unwrap();
    net.run_for(100 * MS);
    release(&mut net, CLIENT, client);
    net.run_for(100 * MS);
    assert_ne!(readiness(&mut net, SERVER, server) & ERR, 0);
    finish(net);
}

#[test]
fn an_orphan_does_not_wait_for_ever_for_a_window() {
    for is_orphan in [true, false] {
        let mut net = Net::new(1);
        let (_, server, client) = pair(&mut net);
        // The server reads nothing: its window shuts, and it answers every probe.
        while send(&mut net, CLIENT, client, &[1; 60_000]).is_ok() {
            net.run_for(100 * MS);
        }
        if is_orphan {
            release(&mut net, CLIENT, client);
        }
        net.run_for(3600 * SEC);
        assert_eq!(net.hosts[CLIENT].engine().population().connections, u32::from(!is_orphan));
        let _ = server;
        net.wire.loss = 0;
        let now = net.now();
        net.hosts[SERVER].engine().release_process(now, PROC);
        finish(net);
    }
}

#[test]
fn a_user_timeout_ends_a_shut_window_and_a_silent_opening() {
    let mut net = Net::new(1);
    let (_, _, client) = pair(&mut net);
    let now = net.now();
    net.hosts[CLIENT].engine().set_option(now, client, SocketOption::UserTimeout, 20_000).unwrap();
    while send(&mut net, CLIENT, client, &[1; 60_000]).is_ok() {
        net.run_for(100 * MS);
    }
    let start = net.now();
    net.run(100 * SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    let waited = net.now().since_us(start) / SEC;
    assert!((15..=40).contains(&waited), "{waited}");
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(Errno::ETIMEDOUT));
    let now = net.now();
    net.hosts[SERVER].engine().release_process(now, PROC);
    finish(net);

    let mut net = Net::new(1);
    net.wire.loss = 1000;
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    engine.set_option(now, s, SocketOption::UserTimeout, 5000).unwrap();
    assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS));
    net.run(100 * SEC, |net| readiness(net, CLIENT, s) & ERR != 0);
    assert_eq!(net.now().since_us(now) / SEC, 5);
    finish(net);
}

/// With a user timeout keepalive counts time, not probes (as Linux does).
#[test]
fn a_user_timeout_rules_keepalive() {
    for (user_timeout_ms, seconds) in [(0, 10 + 3), (30_000, 30)] {
        let mut net = Net::new(1);
        let (_, server, _) = pair(&mut net);
        let now = net.now();
        let mut engine = net.hosts[SERVER].engine();
        let options = [(SocketOption::KeepIdle, 10), (SocketOption::KeepInterval, 1), (SocketOption::KeepCount, 3)];
        for (option, value) in options {
            engine.set_option(now, server, option, value).unwrap();
        }
        engine.set_option(now, server, SocketOption::UserTimeout, user_timeout_ms).unwrap();
        engine.set_option(now, server, SocketOption::KeepAlive, 1).unwrap();
        net.run_for(65 * SEC);
        assert_eq!(readiness(&mut net, SERVER, server), OUT, "it answers");
        net.wire.loss = 1000;
        let heard = net.now();
        net.run(100 * SEC, |net| readiness(net, SERVER, server) & ERR != 0);
        let waited = net.now().since_us(heard) / SEC;
        assert!((seconds - 10..=seconds + 1).contains(&waited), "{waited}");
        assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ETIMEDOUT));
        net.wire.loss = 0;
        finish(net);
    }
}

#[test]
fn addresses_that_cannot_be_a_peer_s_get_no_answer() {
    let mut net = Net::new(1);
    listen(&mut net, 16);
    for ip in [[224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0], [127, 0, 0, 1]] {
        let syn = Header { remote_port: PORT, seq: Seq(9), flags: Flags::SYN, ..Header::default() };
        let bytes = frame(&net, SERVER, Endpoint::new(Ip::v4(ip), 999), &syn, b"");
        assert!(exchange(&mut net, SERVER, &bytes).is_empty(), "{ip:?}");
    }
    finish(net);
}
