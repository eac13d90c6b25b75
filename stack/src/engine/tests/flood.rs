//! SYNs without end: cookies, limits, and that honest peers get through.

use super::raw::{exchange, frame, sent};
use super::*;
use crate::addr::Ip;
use crate::drops::Drop;
use crate::tcp::Seq;
use crate::testing::Host;
use crate::time::MS;
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Header};

/// A server with these tunables and an ordinary client.
fn net(conns: u32, change: impl FnOnce(&mut Tunables)) -> Net {
    let mut server = HostConfig { conns, sockets: 256, ..HostConfig::nth(1) };
    change(&mut server.tunables);
    Net::with(1, server, HostConfig { conns: 256, sockets: 256, ..HostConfig::nth(2) })
}

/// The `n`th attacker's endpoint.
fn source(n: u32) -> Endpoint {
    let [_, a, b, c] = n.to_be_bytes();
    Endpoint::new(Ip::v4([198, a & 0x3f, b, c]), 1024 + (n % 60_000) as u16)
}

fn syn(seq: u32) -> Header {
    let timestamp = Some((seq, 0));
    let (mss, window_scale) = (Some(1460), Some(7));
    let header = Header { remote_port: PORT, seq: Seq(seq), flags: Flags::SYN, window: 64_240, ..Header::default() };
    Header { mss, window_scale, timestamp, sack_permitted: true, ..header }
}

fn flood(net: &mut Net, from: u32, count: u32) {
    for n in from..from + count {
        let bytes = frame(net, SERVER, source(n), &syn(n), b"");
        exchange(net, SERVER, &bytes);
    }
}

fn server(net: &mut Net) -> crate::engine::Engine<'_> {
    Host::engine(&mut net.hosts[SERVER])
}

#[test]
fn a_flood_of_a_hundred_thousand_keeps_nobody_out() {
    let mut net = net(1024, |_| {});
    let listener = listen(&mut net, 64);
    for round in 0..100u32 {
        flood(&mut net, round * 1000, 1000);
        let client = connect(&mut net);
        let accepted = accept(&mut net, listener);
        send(&mut net, CLIENT, client, b"through").unwrap();
        net.run(SEC, |net| net.hosts[SERVER].engine().available(accepted) == Ok(7));
        assert_eq!(recv(&mut net, SERVER, accepted).unwrap(), b"through");
        assert_eq!(net.hosts[CLIENT].engine().counters().retransmits, 0, "no second try was needed");
    }
    assert!(server(&mut net).population().connections <= 128 + 100, "half-open ones are bounded");
    let counters = *server(&mut net).counters();
    assert!(counters.syn_cookies_sent > 99_000 && counters.syn_cookies_accepted >= 99, "{counters:?}");
    assert_eq!((counters.syn_cookies_failed, counters.accepts, counters.passive_opens), (0, 100, 100 + 128));
    assert_eq!(net.hosts[SERVER].frames_held(), 0);
    finish(net);
}

#[test]
fn a_cookie_s_connection_is_as_good_as_any() {
    for timestamps in [1, 0] {
        let mut net = net(64, |t| t.syncookies = 2);
        net.hosts[CLIENT].engine().tunables_mut().timestamps = timestamps;
        let (_, accepted, client) = pair(&mut net);
        let now = net.now();
        let info = server(&mut net).info(now, accepted).unwrap();
        let on = timestamps == 1;
        assert_eq!((info.timestamps, info.window_scaling), (on, on));
        assert_eq!(info.snd_mss, if on { 1448 } else { 1460 });
        assert_eq!(server(&mut net).counters().syn_cookies_accepted, 1);
        for (host, s, other, t) in [(CLIENT, client, SERVER, accepted), (SERVER, accepted, CLIENT, client)] {
            assert_eq!(send(&mut net, host, s, &[9; 40_000]), Ok(40_000));
            net.run(10 * SEC, |net| net.hosts[other].engine().available(t) == Ok(40_000));
            recv(&mut net, other, t).unwrap();
        }
        finish(net);
    }
}

#[test]
fn data_that_follows_the_last_ack_is_not_lost_with_it() {
    let mut net = net(64, |t| t.syncookies = 2);
    let listener = listen(&mut net, 16);
    let bytes = frame(&net, SERVER, source(1), &syn(100), b"");
    let cookie = exchange(&mut net, SERVER, &bytes)[0].1;
    assert_eq!((cookie.flags, cookie.ack), (Flags::SYN | Flags::ACK, Seq(101)));
    assert_eq!(server(&mut net).population().connections, 0, "nothing is kept");
    // The bare ACK never came.
    let timestamp = cookie.options.timestamp.map(|(value, _)| (120, value));
    let data = Header { seq: Seq(101), ack: cookie.seq + 1, flags: Flags::ACK, timestamp, window: 500, ..syn(0) };
    let data = Header { mss: None, window_scale: None, sack_permitted: false, ..data };
    let bytes = frame(&net, SERVER, source(1), &data, b"hello");
    exchange(&mut net, SERVER, &bytes);
    let now = net.now();
    let accepted = server(&mut net).accept(now, listener, PROC).unwrap().0;
    assert_eq!(recv(&mut net, SERVER, accepted).unwrap(), b"hello");
    // The window of the acknowledgement counts, scaled by the shift that the timestamp kept.
    assert_eq!(server(&mut net).info(now, accepted).unwrap().snd_wnd, 500 << 7);
}

#[test]
fn what_brings_no_cookie_is_reset() {
    let mut net = net(64, |t| t.syncookies = 2);
    listen(&mut net, 16);
    let ack = Header { remote_port: PORT, seq: Seq(101), ack: Seq(5), flags: Flags::ACK, ..Header::default() };
    let reply = |net: &mut Net, n: u32, header: &Header| {
        let bytes = frame(net, SERVER, source(n), header, b"");
        exchange(net, SERVER, &bytes)[0].1
    };
    assert_eq!(reply(&mut net, 1, &ack).flags, Flags::RST);
    assert_eq!(server(&mut net).counters().syn_cookies_failed, 0, "no cookie was sent yet: none is looked for");
    let cookie = reply(&mut net, 1, &syn(100));
    assert_eq!(reply(&mut net, 1, &ack).flags, Flags::RST);
    let good = Header { ack: cookie.seq + 1, ..ack };
    assert_eq!(reply(&mut net, 2, &good).flags, Flags::RST, "somebody else's");
    assert_eq!(server(&mut net).counters().syn_cookies_failed, 2);
    net.run_for(195 * SEC);
    assert_eq!(reply(&mut net, 1, &good).flags, Flags::RST, "too old");
    assert_eq!(server(&mut net).population().connections, 0);
    finish(net);
}

#[test]
fn without_cookies_the_queue_is_bounded_and_old_ones_give_way() {
    let mut net = net(1024, |t| t.syncookies = 0);
    let listener = listen(&mut net, 64);
    flood(&mut net, 0, 1000);
    assert_eq!(server(&mut net).population().connections, 128);
    assert_eq!(server(&mut net).counters().drops.of(Drop::SynBacklogFull), 872);
    let client = connect(&mut net);
    net.run_for(500 * MS);
    assert_eq!(readiness(&mut net, CLIENT, client), 0, "all are young: nobody gives way");
    // After a second each has let a SYN-ACK go unanswered; the client's second SYN finds room.
    net.run_for(2 * SEC);
    accept(&mut net, listener);
    assert_eq!(server(&mut net).counters().drops.of(Drop::SynEvicted), 1);
    flood(&mut net, 5000, 1000);
    assert!(server(&mut net).population().connections <= 129);
    finish(net);
}

#[test]
fn the_syn_backlog_tunable_binds_too() {
    let mut net = net(1024, |t| (t.syncookies, t.syn_backlog) = (0, 10));
    listen(&mut net, 1000);
    flood(&mut net, 0, 50);
    assert_eq!(server(&mut net).population().connections, 10);
    finish(net);
}

#[test]
fn half_open_connections_leave_slots_to_others() {
    let mut net = net(64, |_| {});
    listen(&mut net, 1000);
    flood(&mut net, 0, 100);
    assert_eq!(server(&mut net).population().connections, 56);
    assert_eq!(server(&mut net).counters().syn_cookies_sent, 44);
    finish(net);
}

#[test]
fn a_flood_of_acknowledgements_makes_nothing() {
    let mut net = net(64, |t| t.syncookies = 2);
    listen(&mut net, 16);
    flood(&mut net, 0, 1);
    for n in 0..5_000u32 {
        let ack = Header { seq: Seq(n), ack: Seq(n.wrapping_mul(2_654_435_761)), flags: Flags::ACK, ..syn(0) };
        let bytes = frame(&net, SERVER, source(n), &ack, b"");
        exchange(&mut net, SERVER, &bytes);
    }
    assert_eq!(server(&mut net).population().connections, 0);
    assert_eq!(server(&mut net).counters().syn_cookies_failed, 5_000);
    finish(net);
}

#[test]
fn an_overflowing_accept_queue_resets_when_told_to() {
    for abort in [0, 1] {
        let mut net = net(64, |t| t.abort_on_overflow = abort);
        listen(&mut net, 0);
        // Three handshakes begin before the first one ends: there is room for one.
        let syn_acks: Vec<_> = (0..3)
            .map(|n| {
                let bytes = frame(&net, SERVER, source(n), &syn(100), b"");
                exchange(&mut net, SERVER, &bytes)[0].1
            })
            .collect();
        for (n, syn_ack) in syn_acks.iter().enumerate() {
            if n == 2 {
                // Somebody else's guess resets nobody, full queue or not.
                let guess = Header { seq: Seq(101), ack: syn_ack.seq + 2, flags: Flags::ACK, ..syn(100) };
                let bytes = frame(&net, SERVER, source(2), &guess, b"");
                assert!(exchange(&mut net, SERVER, &bytes).is_empty());
            }
            let ack = Header { seq: Seq(101), ack: syn_ack.seq + 1, flags: Flags::ACK, ..syn(100) };
            let bytes = frame(&net, SERVER, source(n as u32), &ack, b"");
            let answers = exchange(&mut net, SERVER, &bytes);
            let is_reset = answers.first().is_some_and(|(_, seg, _)| seg.has(Flags::RST));
            assert_eq!(is_reset, abort == 1 && n > 0, "{n}");
        }
        let expected = if abort == 1 { (2, 1, 1) } else { (0, 3, 3) };
        let drops = server(&mut net).counters().drops;
        let (resets, full) = (drops.of(Drop::AcceptOverflowReset), drops.of(Drop::AcceptQueueFull));
        assert_eq!((resets, full, server(&mut net).population().connections), expected);
        assert!(sent(&mut net, SERVER).is_empty());
        finish(net);
    }
}

/// Hostile in every field, at a server that offers everything: nothing panics, nothing leaks, an honest client gets in.
#[test]
fn anything_at_all_at_a_listener() {
    for (syncookies, mtu_probing) in [(0, 0), (1, 1), (2, 2)] {
        let mut net = net(64, |t| {
            (t.syncookies, t.fastopen, t.mtu_probing) = (syncookies, 2 | 0x400, mtu_probing);
        });
        let listener = listen(&mut net, 20);
        let mut answers: Vec<(Endpoint, crate::wire::tcp::Segment)> = vec![];
        for round in 0..30_000u32 {
            let mut below = |n: u64| net.random.below(n);
            let (from, heard) = match answers.len() as u64 {
                0 => (source(round % 200), None),
                n if below(3) > 0 => {
                    let (remote, seg) = answers[below(n) as usize];
                    (remote, Some(seg))
                }
                _ => (source(below(200) as u32), None),
            };
            let flags = Flags([0x02, 0x10, 0x12, 0x04, 0x11, 0x18, 0x03, 0xc2, below(256) as u8][below(9) as usize]);
            let (seq, ack) = heard
                .map_or((Seq(below(1 << 32) as u32), Seq(below(1 << 32) as u32)), |seg| (seg.ack, seg.seq + seg.len()));
            let nudge = [0, 0, 0, 1, u32::MAX, 5, 1 << 31][below(7) as usize];
            let mut header = Header {
                remote_port: PORT,
                seq: seq + nudge,
                ack,
                flags,
                window: below(65_536) as u16,
                ..Header::default()
            };
            if below(2) == 0 {
                let echo = heard.and_then(|s| s.options.timestamp).map_or(below(1 << 32) as u32, |(value, _)| value);
                header.timestamp = Some((below(1 << 32) as u32, echo));
            }
            if flags.has(Flags::SYN) {
                header.mss = (below(2) == 0).then_some(below(65_536) as u16);
                header.window_scale = (below(2) == 0).then_some(below(256) as u8);
                header.sack_permitted = below(2) == 0;
                header.fast_open = match below(4) {
                    0 => Some(crate::wire::tcp::FastOpenCookie::REQUEST),
                    1 => crate::wire::tcp::FastOpenCookie::new(&[7; 8]),
                    _ => heard.and_then(|seg| seg.options.fast_open),
                };
            }
            let payload = vec![1; [0, 0, 1, 100, 1200][below(5) as usize]];
            let bytes = frame(&net, SERVER, from, &header, &payload);
            answers.extend(exchange(&mut net, SERVER, &bytes).into_iter().map(|(remote, seg, _)| (remote, seg)));
            answers.drain(..answers.len().saturating_sub(50));
            let now = net.now();
            if round % 7 == 0
                && let Ok((s, _)) = server(&mut net).accept(now, listener, PROC)
            {
                let _ = (recv(&mut net, SERVER, s), send(&mut net, SERVER, s, &[2; 5000]));
                release(&mut net, SERVER, s);
            }
            if round % 50 == 0 {
                net.run_for(40 * MS);
            }
        }
        net.run_for(400 * SEC);
        let now = net.now();
        while let Ok((s, _)) = server(&mut net).accept(now, listener, PROC) {
            release(&mut net, SERVER, s);
        }
        net.run_for(400 * SEC);
        let client = connect(&mut net);
        let accepted = accept(&mut net, listener);
        send(&mut net, CLIENT, client, b"honest").unwrap();
        net.run(SEC, |net| net.hosts[SERVER].engine().available(accepted) == Ok(6));
        finish(net);
    }
}

#[test]
fn cookies_over_ipv6() {
    let mut net = net(64, |t| t.syncookies = 2);
    let any = Endpoint::new(Ip::UNSPECIFIED, PORT);
    let options = crate::tcp::Options::new(server(&mut net).tunables());
    let listener = server(&mut net).listen(any, false, 16, &options, PROC).unwrap();
    let (now, remote) = (net.now(), Endpoint::new(net.hosts[SERVER].config.v6, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let client = engine.open_stream(Family::V6, false, PROC).unwrap();
    assert_eq!(engine.connect(now, client, None, remote), Err(Errno::EINPROGRESS));
    let accepted = accept(&mut net, listener);
    assert_eq!(server(&mut net).counters().syn_cookies_accepted, 1);
    let now = net.now();
    assert_eq!(server(&mut net).info(now, accepted).unwrap().snd_mss, 1428, "1500 - 40 - 20 - 12");
    send(&mut net, CLIENT, client, &[7; 3000]).unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(accepted) == Ok(3000));
    finish(net);
}

#[test]
fn what_a_cookie_s_syn_ack_offered_stands_though_frames_are_few_now() {
    let mut net = net(64, |t| t.syncookies = 2);
    listen(&mut net, 16);
    let bytes = frame(&net, SERVER, source(1), &syn(100), b"");
    let cookie = exchange(&mut net, SERVER, &bytes)[0].1;
    // Frames go, but for a twentieth.
    let all = net.hosts[SERVER].config.frames;
    let taken: Vec<_> = (0..all - all / 20).filter_map(|_| server(&mut net).frames_mut().alloc()).collect();
    net.hosts[SERVER].watch_frames();
    let timestamp = cookie.options.timestamp.map(|(value, _)| (120, value));
    let ack = Header { seq: Seq(101), ack: cookie.seq + 1, flags: Flags::ACK, timestamp, window: 500, ..syn(0) };
    let ack = Header { mss: None, window_scale: None, sack_permitted: false, ..ack };
    let bytes = frame(&net, SERVER, source(1), &ack, b"");
    exchange(&mut net, SERVER, &bytes);
    let data = Header { seq: Seq(101 + 1000), ..ack };
    let bytes = frame(&net, SERVER, source(1), &data, b"beyond a hole");
    let answer = exchange(&mut net, SERVER, &bytes)[0].1;
    let shift = cookie.options.window_scale.unwrap();
    assert_eq!(answer.ack, Seq(101));
    // But for the rounding to units.
    assert!((u32::from(answer.window) + 1) << shift > u32::from(cookie.window), "{} {shift}", answer.window);
    for frame in taken {
        server(&mut net).frames_mut().release(frame);
    }
}
