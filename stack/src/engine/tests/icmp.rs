use super::*;
use crate::addr::{Endpoint, Mac};
use crate::drops::Drop;
use crate::link::Tags;
use crate::socket::readiness::ERR;
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4};

/// An ICMP error from the server's address to the client, about a segment of `local` → server:80.
fn error(net: &Net, kind: u8, code: u8, rest: u32, local: Endpoint, seq: u32) -> Vec<u8> {
    let (server, client) = (net.hosts[SERVER].config.ip(), net.hosts[CLIENT].config.ip());
    let mut f = vec![0; 14 + 20 + 8 + 20 + 8];
    let header = ethernet::Header {
        dst: net.hosts[CLIENT].config.mac,
        src: Mac([2, 0, 0, 0, 0, 1]),
        tags: Tags::NONE,
        ethertype: ethernet::IPV4,
    };
    ethernet::emit(&header, &mut f);
    ipv4::emit(&server, &client, 1, ipv4::Service { tos: 0, ttl: 64 }, 36, &mut f[14..]);
    f[34..36].copy_from_slice(&[kind, code]);
    f[38..42].copy_from_slice(&rest.to_be_bytes());
    ipv4::emit(&client, &server, 6, ipv4::Service { tos: 0, ttl: 60 }, 1460, &mut f[42..]);
    f[62..64].copy_from_slice(&local.port.to_be_bytes());
    f[64..66].copy_from_slice(&PORT.to_be_bytes());
    f[66..70].copy_from_slice(&seq.to_be_bytes());
    let sum = Sum::ZERO.add_bytes(&f[34..]).checksum();
    f[36..38].copy_from_slice(&sum.to_be_bytes());
    f
}

/// The sequence number of the client's oldest segment in flight, found by trying.
fn tell(net: &mut Net, kind: u8, code: u8, rest: u32, local: Endpoint) {
    let seq = SEQ.with(|s| s.get());
    let frame = error(net, kind, code, rest, local, seq);
    let now = net.now();
    net.hosts[CLIENT].receive(now, &frame);
}

thread_local! {
    static SEQ: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Remembers the sequence number of what the client sent last.
fn remember(net: &mut Net) {
    net.tap = Some(|_, to, bytes| {
        if to == SERVER {
            SEQ.with(|s| s.set(u32::from_be_bytes([bytes[38], bytes[39], bytes[40], bytes[41]])));
        }
    });
}

#[test]
fn a_smaller_path_mtu_is_used_at_once() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
    remember(&mut net);
    net.wire.loss = 1000;
    send(&mut net, CLIENT, client, &[1; 1448]).unwrap();
    net.step(net.now());
    net.wire.loss = 0;
    tell(&mut net, 3, 4, 1000, local);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().info(now, client).unwrap().snd_mss, 1000 - 40 - 12);
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(1448));
    finish(net);
}

#[test]
fn unreachable_ends_an_attempt_but_not_a_connection() {
    let mut net = Net::new(1);
    remember(&mut net);
    net.wire.loss = 1000;
    let client = connect(&mut net);
    net.step(net.now());
    let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
    tell(&mut net, 3, 3, 0, local);
    assert_ne!(readiness(&mut net, CLIENT, client) & ERR, 0);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(Errno::ECONNREFUSED));
    finish(net);

    let mut net = Net::new(1);
    let (_, _, client) = pair(&mut net);
    let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
    remember(&mut net);
    send(&mut net, CLIENT, client, b"x").unwrap();
    net.step(net.now());
    tell(&mut net, 3, 1, 0, local);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT);
    finish(net);
}

#[test]
fn errors_about_nobody_are_counted() {
    let mut net = Net::new(1);
    let local = Endpoint::new(net.hosts[CLIENT].config.ip(), 4242);
    tell(&mut net, 3, 4, 576, local);
    assert_eq!(net.hosts[CLIENT].engine().counters().drops.of(Drop::IcmpNoFlow), 1);
    finish(net);
}

#[test]
fn a_path_s_mtu_is_remembered_for_the_next_connection() {
    let mut net = Net::new(1);
    let (listener, _, client) = pair(&mut net);
    let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
    remember(&mut net);
    send(&mut net, CLIENT, client, &[1; 1448]).unwrap();
    net.step(net.now());
    tell(&mut net, 3, 4, 1000, local);
    net.run_for(SEC);
    let mss = |net: &mut Net, s| {
        let now = net.now();
        net.hosts[CLIENT].engine().info(now, s).unwrap().snd_mss
    };
    let (second, _) = (connect(&mut net), accept(&mut net, listener));
    assert_eq!((mss(&mut net, client), mss(&mut net, second)), (948, 948));
    net.run_for(600 * SEC);
    let (third, server) = (connect(&mut net), accept(&mut net, listener));
    assert_eq!(mss(&mut net, third), 1448, "forgotten after ten minutes");
    let now = net.now();
    let info = net.hosts[SERVER].engine().info(now, server).unwrap();
    assert_eq!(info.snd_mss, 1448, "what we announce is what the device carries");
    finish(net);
}

#[test]
fn an_error_s_errno_is_linux_s() {
    let cases = [
        (3, 0, Errno::ENETUNREACH),
        (3, 1, Errno::EHOSTUNREACH),
        (3, 2, Errno::ENOPROTOOPT),
        (3, 3, Errno::ECONNREFUSED),
        (3, 13, Errno::EHOSTUNREACH),
        (11, 0, Errno::EHOSTUNREACH),
        (12, 0, Errno::EPROTO),
    ];
    for (kind, code, errno) in cases {
        let mut net = Net::new(1);
        remember(&mut net);
        net.wire.loss = 1000;
        let client = connect(&mut net);
        net.step(net.now());
        let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
        tell(&mut net, kind, code, 0, local);
        let now = net.now();
        assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(errno), "type {kind} code {code}");
        finish(net);
    }
}
