//! Fast Open from both ends, and what is left of it when the network or the other end will not have it.

use super::raw::{exchange, forget_seen, frame, seen, watch};
use super::*;
use crate::drops::Drop;
use crate::socket::SocketOption;
use crate::tcp::{Seq, State};
use crate::time::MS;
use crate::wire::tcp::{FastOpenCookie, Flags, Header, Segment};

/// Both ends willing, a listener that takes up to `most` early ones.
fn net(most: i32) -> (Net, SocketId) {
    let config = |n| {
        let mut config = HostConfig::nth(n);
        config.tunables.fastopen = 3;
        config
    };
    let mut net = Net::with(1, config(1), config(2));
    let listener = listen(&mut net, 16);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, listener, SocketOption::FastOpen, most).unwrap();
    watch(&mut net);
    (net, listener)
}

/// sendto() with MSG_FASTOPEN on a new socket.
fn send_fast(net: &mut Net, data: &[u8]) -> (SocketId, Result<usize, Errno>) {
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    let sent = engine.send_fast(now, s, None, remote, data);
    (s, sent)
}

/// A first meeting: the client has the server's cookie afterwards.
fn meet(net: &mut Net, listener: SocketId) {
    let (client, sent) = send_fast(net, b"too early");
    assert_eq!(sent, Err(Errno::EINPROGRESS), "no cookie yet: nothing was taken");
    let server = accept(net, listener);
    let asked = seen(SERVER);
    assert!(asked[0].options.fast_open.unwrap().is_request());
    assert_eq!(asked[0].payload_len, 0);
    assert_eq!(seen(CLIENT)[0].options.fast_open.unwrap().as_slice().len(), 8);
    release(net, CLIENT, client);
    release(net, SERVER, server);
    net.run_for(SEC);
    forget_seen();
}

#[test]
fn the_second_time_data_travels_with_the_syn() {
    let (mut net, listener) = net(10);
    meet(&mut net, listener);
    let start = net.now();
    let (client, sent) = send_fast(&mut net, b"request");
    assert_eq!(sent, Ok(7));
    // One way, and the server has it: it answers before it knows that the client lives.
    net.run(SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    assert_eq!(net.now().since_us(start), 100);
    let now = net.now();
    let server = net.hosts[SERVER].engine().accept(now, listener, PROC).unwrap().0;
    assert_eq!(readiness(&mut net, SERVER, server), IN | OUT);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"request");
    assert_eq!(send(&mut net, SERVER, server, b"answer"), Ok(6));
    net.run(SEC, |net| net.hosts[CLIENT].engine().available(client) == Ok(6));
    assert_eq!(net.now().since_us(start), 200, "one round trip");
    let syn = seen(SERVER)[0];
    assert_eq!((syn.flags, syn.payload_len), (Flags::SYN, 7));
    let answers = seen(CLIENT);
    assert_eq!((answers[0].flags, answers[0].ack), (Flags::SYN | Flags::ACK, syn.seq + 8));
    assert_eq!(answers[0].options.fast_open, None, "it has a cookie that is good");
    // Data of the SYN has used some of the window: the right edge stays where it is.
    let edge = |seg: &Segment, shift: u8| seg.ack + (u32::from(seg.window) << shift);
    let shift = answers[0].options.window_scale.unwrap();
    assert!((edge(&answers[1], shift) + (1 << shift)).is_after(edge(&answers[0], 0)));
    assert_eq!(answers[1].payload_len, 6);
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"answer");
    // And on, both ways.
    net.run_for(SEC);
    for (host, s, other, t) in [(CLIENT, client, SERVER, server), (SERVER, server, CLIENT, client)] {
        assert_eq!(send(&mut net, host, s, &[3; 20_000]), Ok(20_000));
        net.run(SEC, |net| net.hosts[other].engine().available(t) == Ok(20_000));
        recv(&mut net, other, t).unwrap();
    }
    let counters = *net.hosts[CLIENT].engine().counters();
    assert_eq!((counters.fast_open_active, counters.fast_open_active_failed, counters.retransmits), (1, 0, 0));
    let counters = *net.hosts[SERVER].engine().counters();
    assert_eq!((counters.fast_open_passive, counters.fast_open_cookies_given, counters.retransmits), (1, 1, 0));
    finish(net);
}

#[test]
fn more_than_a_segment_waits_for_the_handshake() {
    let (mut net, listener) = net(10);
    meet(&mut net, listener);
    let (client, sent) = send_fast(&mut net, &[5; 5000]);
    assert_eq!(sent, Ok(1448 + 12 - 40), "what fits beside the options");
    assert_eq!(send(&mut net, CLIENT, client, b"more"), Err(Errno::EAGAIN));
    let server = accept(&mut net, listener);
    net.run(SEC, |net| readiness(net, CLIENT, client) & OUT != 0);
    assert_eq!(send(&mut net, CLIENT, client, &[6; 3580]), Ok(3580));
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(5000));
    finish(net);
}

#[test]
fn data_that_the_syn_ack_does_not_acknowledge_goes_again_at_once() {
    let (mut net, listener) = net(10);
    meet(&mut net, listener);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, listener, SocketOption::FastOpen, 0).unwrap();
    let (_, sent) = send_fast(&mut net, b"request");
    assert_eq!(sent, Ok(7));
    let server = accept(&mut net, listener);
    net.run(MS, |net| net.hosts[SERVER].engine().available(server) == Ok(7));
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"request");
    let counters = *net.hosts[CLIENT].engine().counters();
    assert_eq!((counters.fast_open_active_failed, counters.rto_expiries), (1, 0));
    finish(net);
}

#[test]
fn a_lost_syn_is_followed_by_a_bare_one_and_a_rest() {
    let (mut net, listener) = net(10);
    meet(&mut net, listener);
    net.wire.loss = 1000;
    let (_, sent) = send_fast(&mut net, b"request");
    assert_eq!(sent, Ok(7));
    net.run_for(500 * MS);
    net.wire.loss = 0;
    let server = accept(&mut net, listener);
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(7));
    let syns: Vec<_> = seen(SERVER).into_iter().filter(|s| s.has(Flags::SYN)).collect();
    assert_eq!(syns.iter().map(|s| s.payload_len).collect::<Vec<_>>(), [7, 0]);
    assert!(syns[0].options.fast_open.is_some() && syns[1].options.fast_open.is_none());
    assert_eq!(syns[0].seq, syns[1].seq);
    // For a while that server is met as everybody else.
    let (_, sent) = send_fast(&mut net, b"x");
    assert_eq!(sent, Err(Errno::EINPROGRESS));
    accept(&mut net, listener);
    assert_eq!(seen(SERVER).iter().find(|s| s.has(Flags::SYN)).unwrap().options.fast_open, None);
    net.run_for(61 * SEC);
    assert_eq!(send_fast(&mut net, b"x").1, Ok(1));
    accept(&mut net, listener);
    finish(net);
}

#[test]
fn connect_may_wait_for_the_first_write() {
    let (mut net, listener) = net(10);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let open = |net: &mut Net| {
        let mut engine = net.hosts[CLIENT].engine();
        let s = engine.open_stream(Family::V4, false, PROC).unwrap();
        engine.set_option(now, s, SocketOption::FastOpenConnect, 1).unwrap();
        let outcome = engine.connect(now, s, None, remote);
        (s, outcome)
    };
    let (first, outcome) = open(&mut net);
    assert_eq!(outcome, Err(Errno::EINPROGRESS), "it asks for the cookie");
    accept(&mut net, listener);
    let (s, outcome) = open(&mut net);
    assert_eq!(outcome, Ok(()));
    forget_seen();
    net.run_for(5 * SEC);
    assert_eq!(
        (seen(SERVER).len(), readiness(&mut net, CLIENT, s)),
        (0, OUT),
        "nothing goes until something is written"
    );
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect(now, s, None, remote), Err(Errno::EISCONN));
    assert_eq!(net.hosts[CLIENT].engine().set_option(now, s, SocketOption::FastOpenConnect, 1), Err(Errno::EINVAL));
    assert_eq!(send(&mut net, CLIENT, s, b"first words"), Ok(11));
    let server = accept(&mut net, listener);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"first words");
    assert_eq!(seen(SERVER)[0].payload_len, 11);
    // One that is never written to goes as it came.
    let (s, outcome) = open(&mut net);
    assert_eq!(outcome, Ok(()));
    release(&mut net, CLIENT, s);
    release(&mut net, CLIENT, first);
    finish(net);
}

#[test]
fn only_who_may_does() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    watch(&mut net);
    net.hosts[CLIENT].engine().tunables_mut().fastopen = 2;
    assert_eq!(send_fast(&mut net, b"x").1, Err(Errno::EOPNOTSUPP));
    // A server that does not take part gives no cookie.
    net.hosts[CLIENT].engine().tunables_mut().fastopen = 1;
    let (client, sent) = send_fast(&mut net, b"x");
    assert_eq!(sent, Err(Errno::EINPROGRESS));
    accept(&mut net, listener);
    assert_eq!(seen(CLIENT)[0].options.fast_open, None);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    assert_eq!(net.hosts[CLIENT].engine().send_fast(now, client, None, remote, b"x"), Err(Errno::EISCONN));
    assert_eq!(send_fast(&mut net, b"x").1, Err(Errno::EINPROGRESS));
    accept(&mut net, listener);
    // Neither end asks for cookies.
    net.hosts[CLIENT].engine().tunables_mut().fastopen = 1 | 4;
    net.hosts[SERVER].engine().tunables_mut().fastopen = 2 | 0x200 | 0x400;
    assert_eq!(send_fast(&mut net, b"word").1, Ok(4));
    let server = accept(&mut net, listener);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"word");
    finish(net);
}

fn syn(net: &Net, port: u16, cookie: FastOpenCookie) -> (Endpoint, Header) {
    let from = net.endpoint(CLIENT, port);
    let header = Header { remote_port: PORT, seq: Seq(100), flags: Flags::SYN, window: 1000, ..Header::default() };
    (from, Header { fast_open: Some(cookie), ..header })
}

fn ask(net: &mut Net, port: u16, cookie: FastOpenCookie) -> crate::wire::tcp::Segment {
    let (from, header) = syn(net, port, cookie);
    let bytes = frame(net, SERVER, from, &header, b"early");
    exchange(net, SERVER, &bytes)[0].1
}

#[test]
fn cookies_change_with_time_and_are_nobody_else_s() {
    let (mut net, _) = net(10);
    let granted = ask(&mut net, 1000, FastOpenCookie::REQUEST);
    let cookie = granted.options.fast_open.unwrap();
    assert_eq!(granted.ack, Seq(101), "asking takes no data");
    assert_eq!(ask(&mut net, 1001, cookie).ack, Seq(106));
    let wrong = FastOpenCookie::new(&[9; 8]).unwrap();
    let refused = ask(&mut net, 1002, wrong);
    assert_eq!((refused.ack, refused.options.fast_open), (Seq(101), Some(cookie)));
    net.run_for(13 * 3600 * SEC);
    let renewed = ask(&mut net, 1003, cookie);
    assert_eq!(renewed.ack, Seq(106), "the key before still counts");
    let next = renewed.options.fast_open.unwrap();
    assert_ne!(next, cookie);
    net.run_for(12 * 3600 * SEC);
    assert_eq!(ask(&mut net, 1004, cookie).ack, Seq(101));
    assert_eq!(ask(&mut net, 1005, next).ack, Seq(106));
    assert_eq!(net.hosts[SERVER].engine().counters().fast_open_passive_failed, 2);
    finish(net);
}

#[test]
fn the_early_ones_are_bounded_and_resets_count() {
    let (mut net, listener) = net(2);
    let cookie = ask(&mut net, 999, FastOpenCookie::REQUEST).options.fast_open.unwrap();
    let syn_ack = ask(&mut net, 1000, cookie);
    assert_eq!(syn_ack.ack, Seq(106));
    assert_eq!(ask(&mut net, 1001, cookie).ack, Seq(106));
    assert_eq!(ask(&mut net, 1002, cookie).ack, Seq(101), "as ever: its data comes again");
    // One completes: there is room for one.
    let ack = Header { remote_port: PORT, seq: Seq(106), ack: syn_ack.seq + 1, flags: Flags::ACK, ..Header::default() };
    let bytes = frame(&net, SERVER, net.endpoint(CLIENT, 1000), &ack, b"");
    exchange(&mut net, SERVER, &bytes);
    assert_eq!(ask(&mut net, 1003, cookie).ack, Seq(106));
    // One is reset: it counts on for a minute.
    let rst = Header { flags: Flags::RST, ..ack };
    let bytes = frame(&net, SERVER, net.endpoint(CLIENT, 1003), &rst, b"");
    exchange(&mut net, SERVER, &bytes);
    assert_eq!(ask(&mut net, 1004, cookie).ack, Seq(101));
    // (The SYN-ACKs of the others went again, and the client's own stack reset them: that counts as well.)
    net.run_for(63 * SEC);
    assert_eq!(ask(&mut net, 1005, cookie).ack, Seq(106));
    // All four are handed out with what they brought, those that were reset too.
    for _ in 0..4 {
        let now = net.now();
        let s = net.hosts[SERVER].engine().accept(now, listener, PROC).unwrap().0;
        assert_eq!(recv(&mut net, SERVER, s).unwrap(), b"early");
    }
    finish(net);
}

#[test]
fn closing_before_the_handshake_is_complete() {
    let (mut net, listener) = net(10);
    meet(&mut net, listener);
    let (client, _) = send_fast(&mut net, b"GET");
    net.run(SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    let now = net.now();
    let server = net.hosts[SERVER].engine().accept(now, listener, PROC).unwrap().0;
    recv(&mut net, SERVER, server).unwrap();
    assert_eq!(net.hosts[SERVER].engine().info(now, server).unwrap().state, State::SynReceived);
    send(&mut net, SERVER, server, b"all of it").unwrap();
    release(&mut net, SERVER, server);
    net.run(SEC, |net| readiness(net, CLIENT, client) & crate::socket::readiness::RDHUP != 0);
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"all of it");
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"");
    finish(net);
}

#[test]
fn data_on_a_syn_without_a_cookie_is_not_taken() {
    let (mut net, _) = net(10);
    let (from, header) = syn(&net, 1000, FastOpenCookie::REQUEST);
    let bytes = frame(&net, SERVER, from, &Header { fast_open: None, ..header }, b"early");
    assert_eq!(exchange(&mut net, SERVER, &bytes)[0].1.ack, Seq(101));
    assert_eq!(net.hosts[SERVER].engine().counters().drops.of(Drop::NoSocket), 0);
    finish(net);
}

#[test]
fn fast_open_over_a_bad_network() {
    for seed in 0..30 {
        let (mut net, listener) = net(10);
        net.random = crate::testing::Random::new(seed);
        meet(&mut net, listener);
        (net.wire.loss, net.wire.reorder, net.wire.duplicate) = (150, 200, 100);
        let (client, sent) = send_fast(&mut net, &[1; 1000]);
        let mut todo = 3000 - sent.unwrap_or(0);
        let server = accept(&mut net, listener);
        let (mut up, mut down) = (0, 0);
        let mut answer = 3000;
        net.run(300 * SEC, |net| {
            todo -= send(net, CLIENT, client, &vec![1; todo]).unwrap_or(0);
            answer -= send(net, SERVER, server, &vec![2; answer]).unwrap_or(0);
            up += recv(net, SERVER, server).map_or(0, |b| b.len());
            down += recv(net, CLIENT, client).map_or(0, |b| b.len());
            (up, down) == (3000, 3000)
        });
        finish(net);
    }
}
