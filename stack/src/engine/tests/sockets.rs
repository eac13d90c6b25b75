use super::*;
use crate::addr::{Flow, Ip};
use crate::engine::Engine;
use crate::socket::SocketOption;
use crate::socket::{How, readiness};
use crate::time::Instant;

fn listen_at(net: &mut Net, ip: Ip, v6only: bool) -> SocketId {
    let mut engine = net.hosts[SERVER].engine();
    let options = Options::new(engine.tunables());
    engine.listen(Endpoint::new(ip, PORT), v6only, 16, &options, PROC).unwrap()
}

#[test]
fn the_most_specific_listener_wins() {
    let mut net = Net::new(1);
    let (v4, v6) = (net.hosts[SERVER].config.ip(), net.hosts[SERVER].config.v6);
    let (peer_v4, peer_v6) = (net.endpoint(CLIENT, 1000), Endpoint::new(net.hosts[CLIENT].config.v6, 1000));
    let flow = |ip, remote| Flow { local: Endpoint::new(ip, PORT), remote };
    let both = listen_at(&mut net, Ip::UNSPECIFIED, false);
    let found = |net: &mut Net, ip, remote| net.hosts[SERVER].engine().find_listener(&flow(ip, remote));
    assert_eq!(found(&mut net, v4, peer_v4), Some(both.index));
    let any_v4 = listen_at(&mut net, Ip::UNSPECIFIED_V4, false);
    assert_eq!(found(&mut net, v4, peer_v4), Some(any_v4.index));
    assert_eq!(found(&mut net, v6, peer_v6), Some(both.index));
    let exact = listen_at(&mut net, v4, false);
    assert_eq!(found(&mut net, v4, peer_v4), Some(exact.index));
    release(&mut net, SERVER, exact);
    release(&mut net, SERVER, any_v4);
    release(&mut net, SERVER, both);
    assert_eq!(found(&mut net, v4, peer_v4), None);
    let v6only = listen_at(&mut net, Ip::UNSPECIFIED, true);
    assert_eq!(found(&mut net, v4, peer_v4), None);
    assert_eq!(found(&mut net, v6, peer_v6), Some(v6only.index));
    finish(net);
}

#[test]
fn listeners_that_share_a_port_share_the_flows() {
    let mut net = Net::new(1);
    let listeners = [0; 4].map(|_| listen_at(&mut net, Ip::UNSPECIFIED_V4, false).index);
    let local = net.endpoint(SERVER, PORT);
    let mut counts = [0; 4];
    for port in 1000..2000 {
        let flow = Flow { local, remote: net.endpoint(CLIENT, port) };
        let found = net.hosts[SERVER].engine().find_listener(&flow).unwrap();
        counts[listeners.iter().position(|l| *l == found).unwrap()] += 1;
    }
    assert!(counts.iter().all(|n| *n > 180), "{counts:?}");
    finish(net);
}

#[test]
fn a_listener_that_is_shut_listens_no_more() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let client = connect(&mut net);
    net.run_for(SEC);
    let now = net.now();
    net.hosts[SERVER].engine().shutdown(now, listener, How::Write).unwrap();
    assert!(net.hosts[SERVER].engine().has_listener(PORT));
    net.hosts[SERVER].engine().shutdown(now, listener, How::Read).unwrap();
    assert_eq!(net.hosts[SERVER].engine().accept(now, listener, PROC), Err(Errno::EINVAL));
    assert_eq!(readiness(&mut net, SERVER, listener), OUT | HUP);
    net.run(SEC, |net| readiness(net, CLIENT, client) & readiness::ERR != 0);
    finish(net);
}

#[test]
fn simultaneous_open() {
    let mut net = Net::new(1);
    let ends = [net.endpoint(SERVER, 5000), net.endpoint(CLIENT, 5001)];
    let now = net.now();
    let sockets = [SERVER, CLIENT].map(|host| {
        let mut engine = net.hosts[host].engine();
        let s = engine.open_stream(Family::V4, false, PROC).unwrap();
        assert_eq!(engine.connect(now, s, Some(ends[host]), ends[1 - host]), Err(Errno::EINPROGRESS));
        s
    });
    net.run(5 * SEC, |net| (0..2).all(|h| readiness(net, h, sockets[h]) == OUT));
    send(&mut net, SERVER, sockets[0], b"hello").unwrap();
    net.run(5 * SEC, |net| net.hosts[CLIENT].engine().available(sockets[1]) == Ok(5));
    finish(net);
}

#[test]
fn peek_discard_and_lowat() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, server, SocketOption::ReceiveLowat, 6).unwrap();
    send(&mut net, CLIENT, client, b"hello").unwrap();
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, SERVER, server), OUT, "too little");
    send(&mut net, CLIENT, client, b" world").unwrap();
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, SERVER, server), IN | OUT);
    let (mut out, now) = ([0; 32], net.now());
    let mut engine = net.hosts[SERVER].engine();
    assert_eq!(engine.recv(now, server, &mut out, true), Ok(11));
    assert_eq!(engine.discard(now, server, 6), Ok(6));
    assert_eq!(engine.recv(now, server, &mut out, false), Ok(5));
    assert_eq!(&out[..5], b"world");
    assert_eq!(engine.available(server), Ok(0));
    finish(net);
}

#[test]
fn options_have_linux_s_ranges_and_are_inherited() {
    use SocketOption::*;
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let now = net.now();
    let mut engine = net.hosts[SERVER].engine();
    let refused = [(KeepIdle, 0), (KeepIdle, 32768), (KeepCount, 128), (MaxSegment, 87), (UserTimeout, -1)];
    for (option, value) in refused {
        assert_eq!(engine.set_option(now, listener, option, value), Err(Errno::EINVAL), "{option:?} {value}");
    }
    let set = [(NoDelay, 1), (KeepAlive, 1), (KeepIdle, 7), (KeepCount, 3), (UserTimeout, 5000), (ReceiveLowat, 2)];
    for (option, value) in set {
        engine.set_option(now, listener, option, value).unwrap();
    }
    engine.set_option(now, listener, SendBuffer, 50_000).unwrap();
    engine.set_linger(listener, Some(3)).unwrap();
    connect(&mut net);
    let server = accept(&mut net, listener);
    let mut engine = net.hosts[SERVER].engine();
    for (option, value) in set {
        assert_eq!(engine.option(server, option), Ok(value), "{option:?}");
    }
    assert_eq!(engine.option(server, SendBuffer), Ok(100_000), "doubled");
    assert_eq!(engine.linger(server), Ok(Some(3)));
    engine.set_linger(server, None).unwrap();
    engine.set_option(now, server, NoDelay, 0).unwrap();
    assert_eq!((engine.option(server, NoDelay), engine.option(listener, NoDelay)), (Ok(0), Ok(1)));
    finish(net);
}

#[test]
fn keepalive_finds_a_dead_peer() {
    let mut net = Net::new(1);
    let (_, server, _) = pair(&mut net);
    let now = net.now();
    for (option, value) in [(SocketOption::KeepIdle, 10), (SocketOption::KeepInterval, 1), (SocketOption::KeepCount, 3)]
    {
        net.hosts[SERVER].engine().set_option(now, server, option, value).unwrap();
    }
    net.hosts[SERVER].engine().set_option(now, server, SocketOption::KeepAlive, 1).unwrap();
    net.run_for(60 * SEC);
    assert_eq!(readiness(&mut net, SERVER, server), OUT, "it answers");
    net.wire.loss = 1000;
    net.run(30 * SEC, |net| readiness(net, SERVER, server) & readiness::ERR != 0);
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ETIMEDOUT));
    net.wire.loss = 0;
    finish(net);
}

#[test]
fn ports_are_used_in_turn_and_run_out() {
    let (mut net, remote) = client_of(&[BLOCK]);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    for i in 0..256 {
        let s = engine.open_stream(Family::V4, false, PROC).unwrap();
        assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS), "{i}");
        assert!(engine.owns_port(engine.local_endpoint(s).unwrap().port));
    }
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EADDRNOTAVAIL));
    assert!(engine.ports_low() && engine.wants_daemon() && !engine.wants_daemon());
    let elsewhere = Endpoint::new(remote.ip, 81);
    assert_eq!(engine.connect(now, s, None, elsewhere), Err(Errno::EINPROGRESS), "another destination, the same port");
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert!(engine.add_port_block(OTHER_BLOCK));
    assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS));
    assert!(!engine.ports_low());
}

const BLOCK: u8 = 157;
const OTHER_BLOCK: u8 = 160;

fn first_of(block: u8) -> u16 {
    u16::from(block) << 8
}

/// A client whose SYNs nobody answers, with the ports of these blocks.
fn client_of(blocks: &[u8]) -> (Net, Endpoint) {
    let config = HostConfig { conns: 2048, sockets: 2048, ..HostConfig::nth(2) };
    let mut net = Net::with(1, HostConfig::nth(1), config);
    net.wire.loss = 1000;
    let remote = net.endpoint(SERVER, PORT);
    let mut engine = net.hosts[CLIENT].engine();
    engine.forget_port_blocks();
    blocks.iter().for_each(|block| assert!(engine.add_port_block(*block)));
    (net, remote)
}

fn try_to_connect(engine: &mut Engine<'_>, now: Instant, remote: Endpoint) -> Result<u16, Errno> {
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    match engine.connect(now, s, None, remote) {
        Err(Errno::EINPROGRESS) => Ok(engine.local_endpoint(s).unwrap().port),
        other => Err(other.unwrap_err()),
    }
}

#[test]
fn ports_that_have_run_out_are_not_looked_through_for_everybody() {
    let (mut net, remote) = client_of(&[BLOCK]);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    for _ in 0..256 {
        assert!(try_to_connect(&mut engine, now, remote).is_ok());
    }
    let looks = |engine: &mut Engine<'_>, now| {
        engine.clear_ports_low();
        assert_eq!(try_to_connect(engine, now, remote), Err(Errno::EADDRNOTAVAIL));
        engine.ports_low()
    };
    assert!(looks(&mut engine, now) && !looks(&mut engine, now) && !looks(&mut engine, now.after_us(255)));
    assert_eq!(engine.counters().port_exhaustions, 3);
    let elsewhere = Endpoint::new(remote.ip, 81);
    assert!(try_to_connect(&mut engine, now, elsewhere).is_ok(), "towards others there are ports");
    assert!(looks(&mut engine, now.after_us(256)) && !looks(&mut engine, now.after_us(256)));
    assert!(engine.add_port_block(OTHER_BLOCK));
    assert_eq!(try_to_connect(&mut engine, now.after_us(257), remote), Ok(first_of(OTHER_BLOCK)));
}

#[test]
fn from_a_block_in_which_somebody_serves_nobody_connects() {
    let (mut net, remote) = client_of(&[BLOCK, OTHER_BLOCK]);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    engine.retire_port_block(first_of(BLOCK) + 255);
    let ports: Vec<u16> = (0..256).map(|_| try_to_connect(&mut engine, now, remote).unwrap()).collect();
    assert!(ports.iter().all(|port| *port >= first_of(OTHER_BLOCK)) && engine.owns_port(first_of(BLOCK)));
    assert_eq!(try_to_connect(&mut engine, now, remote), Err(Errno::EADDRNOTAVAIL));
    assert!(engine.ports_low());
    engine.retire_port_block(first_of(OTHER_BLOCK));
    assert_eq!(try_to_connect(&mut engine, now, Endpoint::new(remote.ip, 81)), Err(Errno::EADDRNOTAVAIL));
    engine.reopen_port_block(BLOCK);
    assert!((0..256).all(|n| try_to_connect(&mut engine, now, remote) == Ok(first_of(BLOCK) + n)));
    assert_eq!(try_to_connect(&mut engine, now, remote), Err(Errno::EADDRNOTAVAIL));
}

#[test]
fn a_stack_starts_over() {
    let mut net = Net::new(1);
    let (_, server, _) = pair(&mut net);
    let frames = net.hosts[SERVER].config.frames;
    let mut engine = net.hosts[SERVER].engine();
    engine.reset_all();
    assert!(engine.is_idle_forever() && !engine.is_socket(server));
    for id in 0..frames {
        engine.frames_mut().push_free(id);
    }
    release_client(&mut net);
    pair(&mut net);
    finish(net);
}

/// The old peer's connections end by the new stack's RST.
fn release_client(net: &mut Net) {
    let now = net.now();
    net.hosts[CLIENT].engine().release_process(now, PROC);
    net.run_for(SEC);
    assert_eq!(net.hosts[CLIENT].engine().population().connections, 0);
}

#[test]
fn a_caller_whose_clock_is_behind_sends_no_older_timestamp() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    net.run_for(SEC);
    let now = net.now();
    net.hosts[CLIENT].engine().set_option(now, client, SocketOption::NoDelay, 1).unwrap();
    let mut values = vec![];
    for behind_us in [0, 3000, 0, 5000] {
        let now = crate::time::Instant::from_micros(net.now().micros() - behind_us);
        let mut engine = net.hosts[CLIENT].engine();
        assert_eq!(engine.send(now, client, b"tick"), Ok(4));
        let tx = engine.poll_transmit(now).unwrap();
        let tcp = usize::from(tx.off) + usize::from(tx.transport);
        let option = &engine.frames().bytes(tx.frame)[tcp + 20..tcp + 32];
        assert_eq!(option[..4], [1, 1, 8, 10]);
        values.push(u32::from_be_bytes([option[4], option[5], option[6], option[7]]));
        net.hosts[CLIENT].complete(tx.frame);
        net.run_for(crate::time::MS);
    }
    net.run_for(SEC);
    assert!(values.is_sorted(), "{values:?}");
    assert_eq!(recv(&mut net, SERVER, server), Ok(b"ticktickticktick".to_vec()));
    finish(net);
}

/// Records of sockets without a connection that are in use.
fn unconnected(net: &mut Net, host: usize) -> u32 {
    net.hosts[host].engine().unconnected.live()
}

#[test]
fn a_connected_socket_has_no_record_of_an_unconnected_one() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let mut engine = net.hosts[CLIENT].engine();
    let client = engine.open_stream(crate::socket::Family::V4, false, PROC).unwrap();
    assert_eq!(unconnected(&mut net, CLIENT), 1);
    let (now, to) = (net.now(), net.endpoint(SERVER, PORT));
    assert_eq!(net.hosts[CLIENT].engine().connect(now, client, None, to), Err(Errno::EINPROGRESS));
    assert_eq!(unconnected(&mut net, CLIENT), 0);
    net.run_for(SEC);
    let now = net.now();
    net.hosts[SERVER].engine().accept(now, listener, PROC).unwrap();
    assert_eq!(unconnected(&mut net, SERVER), 1, "the listener's alone");
    finish(net);
}

#[test]
fn what_was_set_on_a_socket_outlives_a_failed_connection() {
    let mut net = Net::new(1);
    let (now, closed) = (net.now(), net.endpoint(SERVER, PORT + 1));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(crate::socket::Family::V4, false, PROC).unwrap();
    engine.set_option(now, s, SocketOption::NoDelay, 1).unwrap();
    engine.set_option(now, s, SocketOption::KeepIdle, 77).unwrap();
    assert_eq!(engine.connect(now, s, None, closed), Err(Errno::EINPROGRESS));
    engine.set_option(now, s, SocketOption::UserTimeout, 1234).unwrap();
    let name = engine.local_endpoint(s).unwrap();
    net.run_for(SEC);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!(engine.connect_status(now, s), Err(Errno::ECONNREFUSED));
    let check = |engine: &Engine<'_>| {
        let told = [SocketOption::NoDelay, SocketOption::KeepIdle, SocketOption::UserTimeout];
        assert_eq!(told.map(|option| engine.option(s, option).unwrap()), [1, 77, 1234]);
    };
    check(&engine);
    assert_eq!(engine.local_endpoint(s), Ok(Endpoint::new(Ip::UNSPECIFIED_V4, name.port)), "as on Linux");
    assert_eq!(unconnected(&mut net, CLIENT), 1);
    listen(&mut net, 16);
    let to = net.endpoint(SERVER, PORT);
    assert_eq!(net.hosts[CLIENT].engine().connect(now, s, None, to), Err(Errno::EINPROGRESS));
    check(&net.hosts[CLIENT].engine());
    net.run_for(SEC);
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, s), Ok(()));
    assert_eq!(unconnected(&mut net, CLIENT), 0);
    release(&mut net, CLIENT, s);
    finish(net);
}

#[test]
fn records_of_unconnected_sockets_never_run_out_before_sockets_do() {
    let mut net = Net::new(1);
    let mut engine = net.hosts[CLIENT].engine();
    let open = |engine: &mut Engine<'_>| engine.open_stream(crate::socket::Family::V4, false, PROC);
    let all: Vec<_> = core::iter::from_fn(|| open(&mut engine).ok()).collect();
    assert_eq!((all.len(), open(&mut engine)), (64, Err(Errno::ENFILE)));
    assert_eq!(engine.unconnected.live(), 64);
    all.into_iter().for_each(|s| engine.release(Instant::ZERO, s, PROC).unwrap());
    assert_eq!((engine.unconnected.live(), engine.sockets.live()), (0, 0));
    finish(net);
}
