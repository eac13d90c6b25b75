//! What socket options say about sending: the pace, the algorithm, the IP header's octets; on the wire, with the wheel.

use super::*;
use crate::socket::SocketOption;
use crate::tcp::Algorithm;
use crate::time::{Instant, MS};
use crate::wire::{ethernet, ipv4};

/// Moves `total` octets from client to server; returns the microseconds it took.
fn transfer(net: &mut Net, client: SocketId, server: SocketId, total: usize) -> u64 {
    let (start, mut sent, mut got) = (net.now(), 0, 0);
    let data = vec![7; 65_536];
    net.run(600 * SEC, |net| {
        while sent < total {
            match send(net, CLIENT, client, &data[..data.len().min(total - sent)]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        while let Ok(bytes) = recv(net, SERVER, server) {
            got += bytes.len();
        }
        got == total
    });
    net.now().since_us(start)
}

#[test]
fn the_pace_is_kept_and_reached_whatever_the_wheels_grain() {
    for rate in [100_000, 2_000_000, 40_000_000] {
        let mut net = Net::new(rate);
        let (_, server, client) = pair(&mut net);
        let now = net.now();
        net.hosts[CLIENT].engine().set_max_pacing_rate(now, client, rate).unwrap();
        assert_eq!(net.hosts[CLIENT].engine().max_pacing_rate(client), Ok(rate));
        let total = (rate as usize).min(2_000_000);
        let took = transfer(&mut net, client, server, total);
        let reached = total as u64 * SEC / took;
        assert!(reached < rate * 105 / 100 + 15_000 * SEC / took, "{reached} of {rate}");
        assert!(reached > rate * 93 / 100, "{reached} of {rate}");
        finish(net);
    }
}

#[test]
fn a_write_that_takes_nothing_does_not_stop_the_pace() {
    let mut net = Net::new(1);
    net.wire.delay_us = 100 * MS;
    let (_, server, client) = pair(&mut net);
    let start = net.now();
    net.hosts[CLIENT].engine().set_max_pacing_rate(start, client, 1_000_000).unwrap();
    let mut got = 0;
    // Ten segments go at once; twenty with their acknowledgements, over 29 ms, in which nothing arrives.
    let mut left = send(&mut net, CLIENT, client, &[7; 80_000]).map(|n| 80_000 - n).unwrap();
    while net.now().since_us(start) < 350 * MS {
        net.run_for(100);
        left -= send(&mut net, CLIENT, client, &[7; 80_000][..left.min(1)]).unwrap_or(0);
        while let Ok(bytes) = recv(&mut net, SERVER, server) {
            got += bytes.len();
        }
    }
    assert!((29 * 1448..=30 * 1448).contains(&got), "{got}");
}

#[test]
fn bbr_and_cubic_carry_bulk_and_come_to_rest() {
    for name in ["bbr", "cubic", "reno"] {
        for delay_us in [50, 5_000, 50_000] {
            let mut net = Net::new(delay_us);
            net.wire.delay_us = delay_us;
            let (_, server, client) = pair(&mut net);
            let now = net.now();
            net.hosts[CLIENT].engine().set_congestion(now, client, name).unwrap();
            let took = transfer(&mut net, client, server, 2_000_000);
            // From a window of 64 kB: 2 MB are 31 of them, fewer once it grows.
            let most = 31 * 2 * delay_us.max(600) + 600_000;
            assert!(took < most, "{name}, {delay_us} us: {took} of {most}");
            assert_eq!(net.hosts[CLIENT].engine().counters().retransmits, 0);
            finish(net);
        }
    }
}

#[test]
fn algorithms_are_named_as_on_linux_and_may_change_while_data_flows() {
    let mut net = Net::new(1);
    let (listener, server, client) = pair(&mut net);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!(engine.congestion(client), Ok(Algorithm::Cubic));
    for name in ["", "nope", "cubicc", "Cubic"] {
        assert_eq!(engine.set_congestion(now, client, name), Err(Errno::ENOENT));
    }
    for name in ["bbr", "reno", "cubic", "bbr"] {
        let now = net.now();
        net.hosts[CLIENT].engine().set_congestion(now, client, name).unwrap();
        assert_eq!(net.hosts[CLIENT].engine().congestion(client).unwrap().name(), name);
        transfer(&mut net, client, server, 300_000);
    }
    // A listener's is its connections'.
    let now = net.now();
    net.hosts[SERVER].engine().set_congestion(now, listener, "reno").unwrap();
    connect(&mut net);
    let accepted = accept(&mut net, listener);
    assert_eq!(net.hosts[SERVER].engine().congestion(accepted), Ok(Algorithm::Reno));
    finish(net);
}

#[test]
fn tos_and_ttl_are_on_the_wire() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    for (option, good, bad) in [
        (SocketOption::Tos, 0xbb, None),
        (SocketOption::TrafficClass, 0xbb, Some(256)),
        (SocketOption::Ttl, 9, Some(0)),
        (SocketOption::HopLimit, 9, Some(-2)),
    ] {
        engine.set_option(now, client, option, good).unwrap();
        assert!(bad.is_none_or(|bad| engine.set_option(now, client, option, bad) == Err(Errno::EINVAL)));
    }
    // The two low bits are not the application's.
    assert_eq!((engine.option(client, SocketOption::Tos), engine.option(client, SocketOption::Ttl)), (Ok(0xb8), Ok(9)));
    fn look(_: &Instant, to: usize, bytes: &[u8]) {
        let packet = ipv4::parse(&bytes[ethernet::HEADER_LEN..]).unwrap();
        let expected = if to == SERVER { (0xb8, 9) } else { (0, 64) };
        assert_eq!((packet.tos, bytes[ethernet::HEADER_LEN + 8]), expected);
    }
    net.tap = Some(look);
    transfer(&mut net, client, server, 10_000);
    net.tap = None;
    let now = net.now();
    let mut engine = net.hosts[CLIENT].engine();
    engine.set_option(now, client, SocketOption::Ttl, -1).unwrap();
    assert_eq!(engine.option(client, SocketOption::Ttl), Ok(64));
    finish(net);
}

#[test]
fn marks_go_out_come_in_and_are_echoed() {
    let asking = |n| {
        let mut config = HostConfig::nth(n);
        config.tunables.ecn = 1;
        config
    };
    let mut net = Net::with(1, asking(1), asking(2));
    let (_, server, client) = pair(&mut net);
    transfer(&mut net, client, server, 10_000);
    net.run_for(100_000);
    // One segment is marked on its way: the low bits of the octet, and the header's checksum to match.
    let mut frame = Vec::new();
    send(&mut net, CLIENT, client, b"marked").unwrap();
    let now = net.now();
    {
        let mut engine = net.hosts[CLIENT].engine();
        let tx = engine.poll_transmit(now).unwrap();
        frame.extend_from_slice(&engine.frames().bytes(tx.frame)[usize::from(tx.off)..][..usize::from(tx.len)]);
        net.hosts[CLIENT].complete(tx.frame);
    }
    let packet = ipv4::parse(&frame[14..]).unwrap();
    assert_eq!(packet.tos, 2);
    let ip = |i: usize| crate::addr::Ip::v4([10, 0, 0, i as u8]);
    let service = ipv4::Service { tos: 3, ttl: 64 };
    ipv4::emit(&ip(2), &ip(1), 6, service, packet.payload_len as u16, &mut frame[14..]);
    net.inject(SERVER, &frame);
    net.run(SEC, |net| recv(net, SERVER, server).is_ok());
    net.run_for(10_000);
    assert_eq!(net.hosts[SERVER].engine().counters().ecn_marks, 1);
    assert_eq!(net.hosts[CLIENT].engine().counters().ecn_reductions, 1);
    assert_eq!(net.hosts[CLIENT].engine().counters().retransmits, 0);
    transfer(&mut net, client, server, 100_000);
    assert_eq!(net.hosts[CLIENT].engine().counters().ecn_reductions, 1, "the peer stops when it hears");
    finish(net);
}
