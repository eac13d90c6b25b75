//! Connections that nobody accepted move between two stacks of one host.

use super::raw::{exchange, frame, seen, watch};
use super::*;
use crate::addr::{Flow, Ip};
use crate::drops::Drop;
use crate::engine::Engine;
use crate::socket::readiness::EXCLUSIVE;
use crate::socket::{How, SocketOption};
use crate::tcp::{Seq, State};
use crate::time::MS;
use crate::wire::tcp::{FastOpenCookie, Flags, Header};

const OLD: usize = 0;
const NEW: usize = 1;

/// A server with two stacks, of which the old one takes flows, and a client.
fn two_stacks(change: impl Fn(&mut HostConfig)) -> Net {
    let (mut server, mut client) = (HostConfig { stacks: 2, ..HostConfig::nth(1) }, HostConfig::nth(2));
    change(&mut server);
    change(&mut client);
    client.stacks = 1;
    Net::with(1, server, client)
}

/// Both stacks listen; the old one's listener, and the new one's.
fn listeners(net: &mut Net) -> [SocketId; 2] {
    let both = [OLD, NEW].map(|stack| {
        net.hosts[SERVER].present = stack;
        listen(net, 16)
    });
    net.hosts[SERVER].present = NEW;
    both
}

fn stack(net: &mut Net, stack: usize) -> Engine<'_> {
    net.hosts[SERVER].engine_of(stack)
}

fn waiting(net: &mut Net, from: usize) -> Vec<Flow> {
    let mut flows = vec![];
    stack(net, from).for_each_waiting(PORT, |_, flow| flows.push(*flow));
    flows
}

/// The flow is steered to another stack, and its connection moves there.
fn send_on(net: &mut Net, flow: &Flow, from: usize, to: usize) {
    let now = net.now();
    net.hosts[SERVER].pin(flow, to);
    let emigrant = stack(net, from).emigrate(now, flow).expect("it waits");
    stack(net, to).immigrate(now, emigrant).expect("somebody listens there");
}

/// The only connection that waits moves; its flow.
fn send_on_the_one(net: &mut Net) -> Flow {
    let flow = waiting(net, OLD)[0];
    send_on(net, &flow, OLD, NEW);
    flow
}

/// All let go of all, and nothing is left of it in any stack.
fn finish_all(mut net: Net) {
    let now = net.now();
    for at in [OLD, NEW] {
        stack(&mut net, at).release_process(now, PROC);
    }
    net.hosts[CLIENT].engine().release_process(now, PROC);
    assert_clean(&mut net);
    for at in [OLD, NEW] {
        assert!(stack(&mut net, at).is_idle_forever(), "stack {at}: {:?}", stack(&mut net, at).population());
        assert!(!stack(&mut net, at).has_transmit() && stack(&mut net, at).next_deadline().is_none());
        let free = stack(&mut net, at).frames().free_count();
        assert_eq!(free, net.hosts[SERVER].frames_owned(at), "what stack {at} owns it has");
    }
    let owned = [OLD, NEW].map(|at| net.hosts[SERVER].frames_owned(at));
    assert_eq!(owned[0] + owned[1], net.hosts[SERVER].config.frames);
}

fn drops(net: &mut Net, at: usize, reason: Drop) -> u64 {
    stack(net, at).counters().drops.of(reason)
}

#[test]
fn an_established_connection_moves_with_all_that_it_received() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    let client = connect(&mut net);
    net.run_for(10 * MS);
    send(&mut net, CLIENT, client, &[1; 10_000]).unwrap();
    net.run_for(10 * MS);
    // A hole: what comes behind it waits out of order.
    net.wire.loss = 1000;
    send(&mut net, CLIENT, client, &[2; 1000]).unwrap();
    net.step(net.now());
    net.wire.loss = 0;
    send(&mut net, CLIENT, client, &[3; 5000]).unwrap();
    let now = net.now();
    net.hosts[CLIENT].engine().shutdown(now, client, How::Write).unwrap();
    net.run_for(150);
    let before = net.hosts[SERVER].frames_owned(NEW);
    send_on_the_one(&mut net);
    assert!(net.hosts[SERVER].frames_owned(NEW) > before, "frames go with it");
    assert!(stack(&mut net, NEW).has_pending_accepts(new));
    assert_eq!(readiness(&mut net, SERVER, new), IN);
    let server = accept(&mut net, new);
    let mut all = vec![];
    net.run(10 * SEC, |net| match recv(net, SERVER, server) {
        Ok(bytes) if bytes.is_empty() => true,
        Ok(bytes) => {
            all.extend(bytes);
            false
        }
        Err(_) => false,
    });
    let expected: Vec<u8> = [vec![1; 10_000], vec![2; 1000], vec![3; 5000]].concat();
    assert_eq!(all, expected);
    send(&mut net, SERVER, server, b"answer").unwrap();
    net.run(SEC, |net| net.hosts[CLIENT].engine().available(client) == Ok(6));
    let counters = *net.hosts[CLIENT].engine().counters();
    assert_eq!((counters.resets_received, counters.drops.of(Drop::PawsRejected)), (0, 0));
    let counts =
        [OLD, NEW].map(|at| (stack(&mut net, at).counters().emigrants, stack(&mut net, at).counters().immigrants));
    assert_eq!(counts, [(1, 0), (0, 1)]);
    finish_all(net);
}

#[test]
fn a_half_open_connection_completes_its_handshake_in_the_new_stack() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    let client = connect(&mut net);
    net.step(net.now());
    net.wire.loss = 1000; // The SYN arrives, its SYN-ACK does not.
    net.run_for(10 * MS);
    net.wire.loss = 0;
    assert_eq!(stack(&mut net, OLD).population().connections, 1);
    send_on_the_one(&mut net);
    assert_eq!(waiting(&mut net, NEW).len(), 1);
    assert!(!stack(&mut net, NEW).has_pending_accepts(new));
    send_data_when_connected(&mut net, client);
    assert!(stack(&mut net, NEW).counters().retransmits >= 1, "the new stack repeats the SYN-ACK");
    let server = accept(&mut net, new);
    net.run(SEC, |net| stack(net, NEW).available(server) == Ok(7));
    finish_all(net);
}

fn send_data_when_connected(net: &mut Net, client: SocketId) {
    net.run(5 * SEC, |net| readiness(net, CLIENT, client) & OUT != 0);
    send(net, CLIENT, client, b"request").unwrap();
}

#[test]
fn a_cookie_of_the_old_stack_makes_its_connection_in_the_new_one() {
    for is_told in [true, false] {
        let mut net = two_stacks(|host| host.tunables.syncookies = 2);
        let [_, new] = listeners(&mut net);
        net.hosts[SERVER].present = OLD;
        let from = Endpoint::new(Ip::v4([10, 0, 0, 100]), 99);
        let syn = Header { remote_port: PORT, seq: Seq(100), flags: Flags::SYN, window: 500, ..Header::default() };
        let bytes = frame(&net, SERVER, from, &syn, b"");
        let cookie = exchange(&mut net, SERVER, &bytes)[0].1;
        let until = stack(&mut net, OLD).cookies_until(PORT);
        assert!(until > net.now() && stack(&mut net, OLD).population().connections == 0);

        let flow = Flow { local: Endpoint::new(net.hosts[SERVER].config.ip(), PORT), remote: from };
        net.hosts[SERVER].pin(&flow, NEW);
        net.hosts[SERVER].present = NEW;
        if is_told {
            stack(&mut net, NEW).expect_cookies(PORT, until);
        }
        let ack = Header { seq: Seq(101), ack: cookie.seq + 1, flags: Flags::ACK, ..syn };
        let bytes = frame(&net, SERVER, from, &ack, b"hello");
        let answers = exchange(&mut net, SERVER, &bytes);
        let is_refused = answers.iter().any(|(_, segment, _)| segment.has(Flags::RST));
        assert_eq!(is_refused, !is_told, "{answers:?}");
        if is_told {
            let server = accept(&mut net, new);
            assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"hello");
        }
    }
}

#[test]
fn late_segments_are_dropped_in_silence_for_a_second() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    let client = connect(&mut net);
    net.run_for(10 * MS);
    watch(&mut net);
    send(&mut net, CLIENT, client, b"late").unwrap();
    net.step(net.now());
    let flow = waiting(&mut net, OLD)[0];
    // What is on its way is for the old stack still.
    let now = net.now();
    let emigrant = stack(&mut net, OLD).emigrate(now, &flow).unwrap();
    stack(&mut net, NEW).immigrate(now, emigrant).unwrap();
    net.run_for(MS);
    assert_eq!(drops(&mut net, OLD, Drop::Departed), 1);
    let mut pinned = vec![];
    stack(&mut net, OLD).flows_of_port(PORT, |flow| pinned.push(*flow));
    assert_eq!(pinned, [], "the flow is the old stack's no more");
    net.hosts[SERVER].pin(&flow, NEW);
    let server = accept(&mut net, new);
    net.run(SEC, |net| stack(net, NEW).available(server) == Ok(4));
    assert!(seen(CLIENT).iter().all(|seg| !seg.has(Flags::RST)));
    // SYNs of the flow and ICMP errors are nobody's business either; a second later they are.
    let late = Header { remote_port: PORT, seq: Seq(7), flags: Flags::SYN, ..Header::default() };
    let late = frame(&net, SERVER, flow.remote, &late, b"");
    net.hosts[SERVER].pin(&flow, OLD);
    assert_eq!(exchange(&mut net, SERVER, &late), []);
    assert_eq!(drops(&mut net, OLD, Drop::Departed), 2);
    net.hosts[SERVER].pin(&flow, NEW);
    net.run_for(1100 * MS);
    assert_eq!(stack(&mut net, OLD).population().connections, 0, "the record is gone");
    let stray = Header { remote_port: PORT, seq: Seq(7), ack: Seq(9), flags: Flags::ACK, ..Header::default() };
    let stray = frame(&net, SERVER, flow.remote, &stray, b"");
    (net.hosts[SERVER].present, net.hosts[SERVER].home) = (OLD, OLD);
    net.hosts[SERVER].pin(&flow, OLD);
    assert!(exchange(&mut net, SERVER, &stray)[0].1.has(Flags::RST));
    finish_all(net);
}

#[test]
fn only_what_waits_may_leave() {
    let mut net = two_stacks(|_| {});
    listeners(&mut net);
    net.hosts[SERVER].present = OLD;
    let now = net.now();
    let nobody = Flow { local: net.endpoint(SERVER, PORT), remote: net.endpoint(CLIENT, 9) };
    assert!(stack(&mut net, OLD).emigrate(now, &nobody).is_none());
    // A client of the old stack's own.
    let remote = net.endpoint(CLIENT, 81);
    let own = {
        let mut engine = stack(&mut net, OLD);
        let s = engine.open_stream(Family::V4, false, PROC).unwrap();
        engine.connect(now, s, None, remote).unwrap_err();
        engine.local_endpoint(s).unwrap()
    };
    assert!(stack(&mut net, OLD).emigrate(now, &Flow { local: own, remote }).is_none());
    // One that waits, one that was accepted, one that was reset while it waited.
    let clients = [connect(&mut net), connect(&mut net)];
    net.run_for(10 * MS);
    let [first, second] = waiting(&mut net, OLD)[..] else { panic!() };
    let listener = {
        let mut found = None;
        stack(&mut net, OLD).for_each_waiting(PORT, |listener, _| found = Some(listener));
        found.unwrap()
    };
    let now = net.now();
    stack(&mut net, OLD).accept(now, listener, PROC).unwrap();
    assert!(stack(&mut net, OLD).emigrate(now, &first).is_none(), "it was accepted");
    let mut engine = net.hosts[CLIENT].engine();
    let is_second = |s: &SocketId, engine: &Engine<'_>| engine.local_endpoint(*s) == Ok(second.remote);
    let s = *clients.iter().find(|s| is_second(s, &engine)).unwrap();
    engine.set_linger(s, Some(0)).unwrap();
    engine.release(now, s, PROC).unwrap();
    net.run_for(10 * MS);
    let now = net.now();
    assert_eq!(waiting(&mut net, OLD), []);
    assert!(stack(&mut net, OLD).emigrate(now, &second).is_none(), "it is over");
    assert!(stack(&mut net, OLD).has_pending_accepts(listener), "and is handed out all the same");
    finish_all(net);
}

#[test]
fn who_finds_no_listener_is_given_back_and_turned_away() {
    let mut net = two_stacks(|_| {});
    net.hosts[SERVER].present = OLD;
    listen(&mut net, 16);
    let client = connect(&mut net);
    net.run_for(10 * MS);
    send(&mut net, CLIENT, client, &[1; 5000]).unwrap();
    net.run_for(10 * MS);
    let (now, flow) = (net.now(), waiting(&mut net, OLD)[0]);
    let emigrant = stack(&mut net, OLD).emigrate(now, &flow).unwrap();
    let emigrant = stack(&mut net, NEW).immigrate(now, emigrant).unwrap_err();
    assert_eq!(*emigrant.flow(), flow);
    // It may go back to where it came from, at once.
    stack(&mut net, OLD).immigrate(now, emigrant).unwrap();
    assert_eq!(waiting(&mut net, OLD), [flow]);
    let emigrant = stack(&mut net, OLD).emigrate(now, &flow).unwrap();
    stack(&mut net, OLD).turn_away(now, emigrant);
    assert_eq!(stack(&mut net, OLD).population().connections, 0);
    net.run_for(10 * MS);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(Errno::ECONNRESET));
    finish_all(net);
}

#[test]
fn a_stack_without_a_slot_gives_it_back() {
    let mut net = two_stacks(|config| config.conns = 4);
    listeners(&mut net);
    for _ in 0..4 {
        connect(&mut net);
    }
    net.run_for(10 * MS);
    for flow in waiting(&mut net, OLD) {
        send_on(&mut net, &flow, OLD, NEW);
    }
    // The slots of those who left are free again after a second.
    let syn = Header { remote_port: PORT, seq: Seq(1), flags: Flags::SYN, window: 1000, ..Header::default() };
    let from = Endpoint::new(Ip::v4([10, 0, 0, 99]), 99);
    let syn = frame(&net, SERVER, from, &syn, b"");
    exchange(&mut net, SERVER, &syn);
    assert_eq!(drops(&mut net, OLD, Drop::NoConnectionSlot), 1);
    net.run_for(1100 * MS);
    exchange(&mut net, SERVER, &syn);
    let (now, flow) = (net.now(), waiting(&mut net, OLD)[0]);
    let emigrant = stack(&mut net, OLD).emigrate(now, &flow).unwrap();
    let emigrant = stack(&mut net, NEW).immigrate(now, emigrant).unwrap_err();
    stack(&mut net, OLD).turn_away(now, emigrant);
    finish_all(net);
}

#[test]
fn it_waits_at_the_listener_that_its_syn_would_have_found() {
    let mut net = two_stacks(|_| {});
    net.hosts[SERVER].present = OLD;
    listen(&mut net, 16);
    let (exact, other) = (net.endpoint(SERVER, PORT), net.endpoint(SERVER, PORT + 1));
    let add = |net: &mut Net, local: Endpoint, v6only: bool| {
        let mut engine = stack(net, NEW);
        let options = Options::new(engine.tunables());
        engine.listen(local, v6only, 1, &options, PROC).unwrap()
    };
    let unspecified = |ip| Endpoint::new(ip, PORT);
    add(&mut net, other, false);
    let only_v6 = add(&mut net, unspecified(Ip::UNSPECIFIED), true);
    let mut net = refused(net);
    let both = add(&mut net, unspecified(Ip::UNSPECIFIED), false);
    taken_by(&mut net, both);
    let wildcard = add(&mut net, unspecified(Ip::UNSPECIFIED_V4), false);
    taken_by(&mut net, wildcard);
    let exact = add(&mut net, exact, false);
    for _ in 0..4 {
        taken_by(&mut net, exact); // The backlog is one.
    }
    assert!(!stack(&mut net, NEW).has_pending_accepts(only_v6));
    finish_all(net);
}

fn refused(mut net: Net) -> Net {
    connect(&mut net);
    net.run_for(10 * MS);
    let (now, flow) = (net.now(), waiting(&mut net, OLD)[0]);
    let emigrant = stack(&mut net, OLD).emigrate(now, &flow).unwrap();
    let emigrant = stack(&mut net, NEW).immigrate(now, emigrant).unwrap_err();
    stack(&mut net, OLD).turn_away(now, emigrant);
    net
}

fn taken_by(net: &mut Net, listener: SocketId) {
    connect(net);
    net.run_for(10 * MS);
    let flow = send_on_the_one(net);
    let mut at = vec![];
    stack(net, NEW).for_each_waiting(PORT, |l, f| at.push((l, *f)));
    assert!(at.contains(&(listener, flow)), "{at:?}");
}

#[test]
fn one_exclusive_waiter_is_woken() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    for bell in 0..4 {
        let mut engine = stack(&mut net, NEW);
        let set = engine.epoll_open(PROC).unwrap();
        engine.epoll_add(set, new, 3, IN | EXCLUSIVE, 0).unwrap();
        engine.epoll_wait_on(set, bell).unwrap();
    }
    connect(&mut net);
    net.run_for(10 * MS);
    send_on_the_one(&mut net);
    assert_eq!(stack(&mut net, NEW).take_wakeups().count_ones(), 1);
    finish_all(net);
}

#[test]
fn an_early_connection_is_counted_where_it_is() {
    let mut net = two_stacks(|config| (config.tunables.fastopen, config.tunables.syncookies) = (3 | 0x200, 1));
    let both = listeners(&mut net);
    let now = net.now();
    for (at, listener) in both.into_iter().enumerate() {
        stack(&mut net, at).set_option(now, listener, SocketOption::FastOpen, 1).unwrap();
    }
    let syn = |net: &Net, n: u8| {
        let fast_open = Some(FastOpenCookie::REQUEST);
        let (flags, window) = (Flags::SYN, 64_240);
        let syn = Header { remote_port: PORT, seq: Seq(1), flags, window, fast_open, ..Header::default() };
        frame(net, SERVER, Endpoint::new(Ip::v4([10, 0, 0, 100 + n]), 99), &syn, b"early")
    };
    let early = |net: &mut Net, n: u8| {
        let syn = syn(net, n);
        exchange(net, SERVER, &syn);
        stack(net, OLD).counters().fast_open_passive
    };
    assert_eq!((early(&mut net, 0), early(&mut net, 1)), (1, 1), "one may be early");
    let flow = waiting(&mut net, OLD)[0];
    send_on(&mut net, &flow, OLD, NEW);
    assert_eq!((early(&mut net, 2), early(&mut net, 3)), (2, 2), "the one that left makes room for another");
    net.hosts[SERVER].home = NEW;
    early(&mut net, 4);
    assert_eq!(stack(&mut net, NEW).counters().fast_open_passive, 0, "it is counted in the new stack");
    let server = accept(&mut net, both[NEW]);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"early");
    net.wire.loss = 1000;
    net.run_for(300 * SEC); // Those handshakes end in nothing, and nobody counts any more.
    net.hosts[SERVER].home = NEW;
    early(&mut net, 5);
    assert_eq!(stack(&mut net, NEW).counters().fast_open_passive, 1);
    finish_all(net);
}

#[test]
fn the_old_stack_neither_speaks_for_it_nor_touches_its_frames() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    let client = connect(&mut net);
    net.run_for(10 * MS);
    send(&mut net, CLIENT, client, &[1; 5000]).unwrap();
    net.wire.loss = 300;
    net.run_for(150);
    net.wire.loss = 0;
    send_on_the_one(&mut net);
    stack(&mut net, OLD).prune_connections();
    // The old stack's lock is found with a dead owner.
    let mut engine = stack(&mut net, OLD);
    let mut walk = engine.farewells();
    engine.reset_all();
    engine.frames_mut().rebuild();
    assert!(!engine.say_farewells(&mut walk));
    assert_eq!(engine.counters().tx_rsts, 0);
    let server = accept(&mut net, new);
    net.run(10 * SEC, |net| stack(net, NEW).available(server) == Ok(5000));
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), [1; 5000]);
    finish_all(net);
}

#[test]
fn an_acknowledgement_that_is_owed_goes_from_the_new_stack() {
    let mut net = two_stacks(|_| {});
    let [_, new] = listeners(&mut net);
    let client = connect(&mut net);
    net.run_for(10 * MS);
    send(&mut net, CLIENT, client, b"request").unwrap();
    net.run_for(150);
    let sent = stack(&mut net, OLD).counters().tx_segments;
    send_on_the_one(&mut net);
    net.run_for(100 * MS);
    assert_eq!(stack(&mut net, OLD).counters().tx_segments, sent);
    assert_eq!(stack(&mut net, NEW).counters().tx_pure_acks, 1);
    assert_eq!(net.hosts[CLIENT].engine().counters().retransmits, 0);
    let server = accept(&mut net, new);
    let now = net.now();
    assert_eq!(stack(&mut net, NEW).info(now, server).unwrap().state, State::Established);
    finish_all(net);
}
