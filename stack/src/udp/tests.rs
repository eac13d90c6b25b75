use super::*;
use crate::drops::Drop;
use crate::engine::tests::{CLIENT, PROC, SERVER, finish};
use crate::ip::tables::{Route, RouteKind};
use crate::socket::readiness::{ERR, HUP, IN, OUT};
use crate::socket::{DatagramFacts, Errno, How, SocketId};
use crate::testing::Net;
use crate::time::Instant;
use crate::time::SEC;
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, ipv6, udp};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PORT: u16 = 53;
const SERVICE: crate::ip::Service = crate::ip::Service { tos: 0, ttl: 61 };

fn facts(local: Endpoint) -> DatagramFacts {
    let family = if local.ip.is_v4() { Family::V4 } else { Family::V6 };
    let marks = Marks { ttl: 64, tos: 0, hop_limit: 64, traffic_class: 0, ..Marks::default() };
    DatagramFacts { local, family, v6only: false, shares_port: false, rcvbuf_bytes: 212_992, marks }
}

fn open(net: &mut Net, host: usize, local: Endpoint) -> SocketId {
    net.hosts[host].engine().open_datagram(&facts(local), PROC).unwrap()
}

fn server(net: &mut Net) -> SocketId {
    open(net, SERVER, Endpoint::new(Ip::UNSPECIFIED_V4, PORT))
}

fn client(net: &mut Net) -> SocketId {
    let port = net.hosts[CLIENT].engine().choose_datagram_port().unwrap();
    open(net, CLIENT, Endpoint::new(Ip::UNSPECIFIED_V4, port))
}

fn send(net: &mut Net, host: usize, s: SocketId, to: Option<Endpoint>, payload: &[u8]) -> Result<Sent, Errno> {
    let out = Outgoing { to, ..Outgoing::default() };
    net.hosts[host].engine().send_to(s, &out, payload.len(), |room| room.copy_from_slice(payload))
}

fn recv(net: &mut Net, host: usize, s: SocketId) -> Result<(Facts, Vec<u8>), Errno> {
    net.hosts[host].engine().recv_from(s, false, 0, |d| (d.facts, d.payload.to_vec()))
}

fn drops(net: &mut Net, host: usize, reason: Drop) -> u64 {
    net.hosts[host].engine().counters().drops.of(reason)
}

/// Datagrams that no socket took: the kernel's, and the lost.
fn nobodys(net: &mut Net, host: usize) -> u64 {
    drops(net, host, Drop::NoMailbox) + net.hosts[host].engine().counters().foreign_datagrams
}

fn readiness(net: &mut Net, host: usize, s: SocketId) -> u32 {
    net.hosts[host].engine().readiness(s).unwrap() & (IN | OUT | ERR | HUP)
}

/// A frame from the client to the server, for tests that the client's own stack would not send.
fn frame(net: &Net, from: Endpoint, to: Endpoint, payload: &[u8], checksum: Option<u16>) -> Vec<u8> {
    let network_len = crate::ip::header_len(&to.ip);
    let len = (payload.len() + udp::HEADER_LEN) as u16;
    let mut f = vec![0; 14 + network_len];
    let is_v4 = to.ip.is_v4();
    let ethertype = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    let (dst, src) = (net.hosts[SERVER].config.mac, net.hosts[CLIENT].config.mac);
    ethernet::emit(&ethernet::Header { dst, src, tags: Tags::NONE, ethertype }, &mut f);
    match is_v4 {
        true => ipv4::emit(&from.ip, &to.ip, udp::PROTOCOL, SERVICE, len, &mut f[14..]),
        false => ipv6::emit(&from.ip, &to.ip, udp::PROTOCOL, SERVICE, len, &mut f[14..]),
    }
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::emit(from.port, to.port, payload.len() as u16, &mut datagram);
    datagram.extend_from_slice(payload);
    udp::seal(&from.ip, &to.ip, &mut datagram, true);
    if let Some(checksum) = checksum {
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    f.extend_from_slice(&datagram);
    f
}

/// Such a frame arrives at the server.
fn hear(net: &mut Net, from: Endpoint, to: Endpoint, payload: &[u8], checksum: Option<u16>) {
    let frame = frame(net, from, to, payload, checksum);
    arrive(net, &frame);
}

fn arrive(net: &mut Net, frame: &[u8]) {
    let now = net.now();
    assert!(net.hosts[SERVER].receive(now, frame));
}

#[test]
fn a_question_and_its_answer() {
    let mut net = Net::new(1);
    let (s, c) = (server(&mut net), client(&mut net));
    let to = net.endpoint(SERVER, PORT);
    assert_eq!(send(&mut net, CLIENT, c, Some(to), b"who?"), Ok(Sent::Queued));
    assert_eq!(readiness(&mut net, SERVER, s), OUT);
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, SERVER, s), IN | OUT);
    assert_eq!(net.hosts[SERVER].engine().next_datagram_len(s), Ok(Some(4)));
    let (facts, payload) = recv(&mut net, SERVER, s).unwrap();
    assert_eq!(
        (facts.source.ip, facts.destination, facts.ttl, facts.tos),
        (net.hosts[CLIENT].config.ip(), to.ip, 64, 0)
    );
    assert_eq!(payload, b"who?");
    assert_eq!(recv(&mut net, SERVER, s), Err(Errno::EAGAIN));
    assert_eq!(send(&mut net, SERVER, s, Some(facts.source), b"me"), Ok(Sent::Queued));
    net.run_for(SEC);
    assert_eq!(recv(&mut net, CLIENT, c).unwrap().1, b"me");
    let counters = *net.hosts[SERVER].engine().counters();
    assert_eq!((counters.rx_datagrams, counters.tx_datagrams, counters.kernel_datagrams), (1, 1, 0));
    finish(net);
}

#[test]
fn over_ipv6_and_to_a_socket_of_both_families() {
    let mut net = Net::new(1);
    let s = open(&mut net, SERVER, Endpoint::new(Ip::UNSPECIFIED, PORT));
    let port = net.hosts[CLIENT].engine().choose_datagram_port().unwrap();
    let c = open(&mut net, CLIENT, Endpoint::new(Ip::UNSPECIFIED, port));
    let v6 = net.hosts[SERVER].config.v6;
    let v4 = net.hosts[SERVER].config.ip();
    for ip in [v6, v4] {
        assert_eq!(send(&mut net, CLIENT, c, Some(Endpoint::new(ip, PORT)), b"six"), Ok(Sent::Queued));
        net.run_for(SEC);
        let (facts, payload) = recv(&mut net, SERVER, s).unwrap();
        assert_eq!((facts.destination, payload.as_slice()), (ip, &b"six"[..]));
        assert_eq!(send(&mut net, SERVER, s, Some(facts.source), b"back"), Ok(Sent::Queued));
        net.run_for(SEC);
        assert_eq!(recv(&mut net, CLIENT, c).unwrap().0.source, Endpoint::new(ip, PORT));
    }
    let only = DatagramFacts { v6only: true, ..facts(Endpoint::new(Ip::UNSPECIFIED, 54)) };
    let s = net.hosts[SERVER].engine().open_datagram(&only, PROC).unwrap();
    send(&mut net, CLIENT, c, Some(Endpoint::new(v4, 54)), b"not for it").unwrap();
    send(&mut net, CLIENT, c, Some(Endpoint::new(v6, 54)), b"for it").unwrap();
    net.run_for(SEC);
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"for it");
    assert_eq!(recv(&mut net, SERVER, s), Err(Errno::EAGAIN));
    assert_eq!(nobodys(&mut net, SERVER), 1);
    finish(net);
}

#[test]
fn the_best_fit_has_it() {
    let mut net = Net::new(1);
    let ours = net.hosts[SERVER].config.ip();
    let (peer, other) = (net.endpoint(CLIENT, 1000), net.endpoint(CLIENT, 1001));
    let wild = server(&mut net);
    let to = Endpoint::new(ours, PORT);
    let expect = |net: &mut Net, s: SocketId, from: Endpoint| {
        hear(net, from, to, b"x", None);
        assert!(recv(net, SERVER, s).is_ok());
    };
    expect(&mut net, wild, peer);
    let bound = open(&mut net, SERVER, to);
    expect(&mut net, bound, peer);
    let connected = server(&mut net);
    net.hosts[SERVER].engine().connect_datagram(connected, ours, peer).unwrap();
    expect(&mut net, connected, peer);
    expect(&mut net, bound, other);
    net.hosts[SERVER].engine().disconnect_datagram(connected, Ip::UNSPECIFIED_V4).unwrap();
    expect(&mut net, bound, peer);
    let latest = open(&mut net, SERVER, to);
    expect(&mut net, latest, peer);
    let mut flows = 0;
    net.hosts[SERVER].engine().connect_datagram(connected, ours, peer).unwrap();
    net.hosts[SERVER].engine().datagram_flows_of_port(PORT, |flow| {
        assert_eq!((flow.local, flow.remote), (to, peer));
        flows += 1;
    });
    assert_eq!(flows, 1);
    finish(net);
}

#[test]
fn a_shared_port_is_spread_and_a_peer_stays_where_it_is() {
    let mut net = Net::new(1);
    let to = net.endpoint(SERVER, PORT);
    let shared = DatagramFacts { shares_port: true, ..facts(Endpoint::new(Ip::UNSPECIFIED_V4, PORT)) };
    let sockets: Vec<_> = (0..4).map(|_| net.hosts[SERVER].engine().open_datagram(&shared, PROC).unwrap()).collect();
    for _ in 0..2 {
        for port in 2000..2064 {
            let from = net.endpoint(CLIENT, port);
            hear(&mut net, from, to, b"x", None);
        }
    }
    for s in sockets {
        let mut from = Vec::new();
        while let Ok((facts, _)) = recv(&mut net, SERVER, s) {
            from.push(facts.source.port);
        }
        assert!((16..=64).contains(&from.len()), "{} of 128", from.len());
        let (first, second) = from.split_at(from.len() / 2);
        assert_eq!(first, second, "the same peers as before");
    }
    finish(net);
}

#[test]
fn what_is_damaged_is_named() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    let good = frame(&net, from, to, b"hello", None);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut f = good.clone();
        change(&mut f);
        f
    };
    arrive(&mut net, &with(&|f| f[45] ^= 1));
    assert_eq!(drops(&mut net, SERVER, Drop::UdpChecksum), 1);
    arrive(&mut net, &with(&|f| f[39] = 200));
    assert_eq!(drops(&mut net, SERVER, Drop::UdpMalformed), 1);
    hear(&mut net, from, Endpoint::new(to.ip, 99), b"nobody", None);
    assert_eq!(nobodys(&mut net, SERVER), 1);
    hear(&mut net, from, to, b"no checksum", Some(0));
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"no checksum");
    let (from6, to6) =
        (Endpoint::new(net.hosts[CLIENT].config.v6, 1), Endpoint::new(net.hosts[SERVER].config.v6, PORT));
    hear(&mut net, from6, to6, b"no checksum", Some(0));
    assert_eq!(drops(&mut net, SERVER, Drop::UdpChecksum), 2);
    hear(&mut net, Endpoint::new(Ip::v4([255; 4]), 1), to, b"x", None);
    assert_eq!(drops(&mut net, SERVER, Drop::IpBadSource), 1);
    hear(&mut net, from, Endpoint::new(Ip::v4([10, 0, 0, 77]), PORT), b"x", None);
    assert_eq!(drops(&mut net, SERVER, Drop::IpNotLocal), 1);
    hear(&mut net, from, to, b"", None);
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"", "an empty datagram is one");
    finish(net);
}

#[test]
fn a_full_buffer_loses_what_comes_and_counts_it() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    net.hosts[SERVER].engine().set_datagram_buffer(s, 3 * 832).unwrap();
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    for i in 0..10u8 {
        hear(&mut net, from, to, &[i], None);
    }
    assert_eq!(net.hosts[SERVER].engine().datagram_bytes_held(s), Ok(4 * 832));
    assert_eq!(drops(&mut net, SERVER, Drop::MailboxFull), 6);
    for i in 0..4u8 {
        assert_eq!(recv(&mut net, SERVER, s).unwrap().1, [i]);
    }
    assert_eq!(net.hosts[SERVER].engine().datagram_overflows(s), Ok(6));
    hear(&mut net, from, to, b"again", None);
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"again");
    finish(net);
}

#[test]
fn a_buffer_of_the_default_size_holds_as_many_as_linux_does() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    for (len, least) in [(1, 256), (100, 256), (300, 166), (600, 166), (1000, 92), (1472, 92)] {
        for _ in 0..300 {
            hear(&mut net, from, to, &vec![1; len], None);
        }
        let mut held = 0;
        while recv(&mut net, SERVER, s).is_ok() {
            held += 1;
        }
        assert!((least..=least + 13).contains(&held), "{held} of {len} octets");
    }
    finish(net);
}

#[test]
fn few_frames_leave_a_hoarder_with_one() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    let mut taken = Vec::new();
    let mut engine = net.hosts[SERVER].engine();
    while engine.frames().free_count() > 300 {
        taken.extend(engine.frames_mut().alloc());
    }
    for _ in 0..5 {
        hear(&mut net, from, to, b"x", None);
    }
    assert_eq!(net.hosts[SERVER].engine().datagram_bytes_held(s), Ok(832));
    assert_eq!(drops(&mut net, SERVER, Drop::FramePressure), 4);
    let mut engine = net.hosts[SERVER].engine();
    taken.into_iter().for_each(|id| engine.frames_mut().release(id));
    finish(net);
}

#[test]
fn peeking_leaves_it_and_closing_frees_it() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    hear(&mut net, from, to, b"one", None);
    hear(&mut net, from, to, b"two", None);
    for _ in 0..2 {
        let mut engine = net.hosts[SERVER].engine();
        assert_eq!(engine.recv_from(s, true, 0, |d| d.payload.to_vec()), Ok(b"one".to_vec()));
    }
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"one");
    finish(net); // which finds a frame that leaked
}

#[test]
fn what_the_kernel_has_to_send() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let server = net.endpoint(SERVER, PORT);
    let to = |ip| Some(Endpoint::new(ip, PORT));
    let by_kernel = [
        Ip::v4([224, 0, 0, 251]),
        Ip::v4([255; 4]),
        Ip::v4([10, 0, 0, 255]),
        Ip::v4([127, 0, 0, 1]),
        net.hosts[CLIENT].config.ip(),
        Ip::v4([192, 168, 1, 1]),
        Ip::v4([10, 0, 0, 99]),
        net.hosts[SERVER].config.v6,
    ];
    for ip in by_kernel {
        assert_eq!(send(&mut net, CLIENT, c, to(ip), b"x"), Ok(Sent::ByKernel), "{ip}");
    }
    let mut wanted = Vec::new();
    while let Some(ip) = net.hosts[CLIENT].engine().net_mut().take_wanted() {
        wanted.push(ip.0);
    }
    assert_eq!(wanted, [Ip::v4([10, 0, 0, 99])], "what might have a MAC, and nothing else");
    assert_eq!(send(&mut net, CLIENT, c, Some(server), &[1; 1472]), Ok(Sent::Queued));
    assert_eq!(send(&mut net, CLIENT, c, Some(server), &[1; 1473]), Ok(Sent::ByKernel));
    assert_eq!(net.hosts[CLIENT].engine().counters().kernel_datagrams, by_kernel.len() as u64 + 1);
    let prefix = Ip::v4([10, 9, 0, 0]);
    let gateway = net.hosts[SERVER].config.ip();
    let route = Route { prefix, bits: 112, kind: RouteKind::ViaDevice, gateway, ..Route::default() };
    net.hosts[CLIENT].engine().net_mut().set_route(route);
    assert_eq!(send(&mut net, CLIENT, c, to(Ip::v4([10, 9, 1, 1])), b"x"), Ok(Sent::Queued));
    finish(net);
}

#[test]
fn a_way_is_looked_up_again_when_tables_change() {
    let mut net = Net::new(1);
    let (s, c) = (server(&mut net), client(&mut net));
    let to = net.endpoint(SERVER, PORT);
    send(&mut net, CLIENT, c, Some(to), b"1").unwrap();
    net.hosts[CLIENT].engine().net_mut().clear_neighbour(&to.ip, Tags::NONE);
    assert_eq!(send(&mut net, CLIENT, c, Some(to), b"2"), Ok(Sent::ByKernel));
    let mac = net.hosts[SERVER].config.mac;
    net.hosts[CLIENT].engine().net_mut().set_neighbour(&to.ip, Tags::NONE, Some(mac));
    assert_eq!(send(&mut net, CLIENT, c, Some(to), b"3"), Ok(Sent::Queued));
    net.run_for(SEC);
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"1");
    assert_eq!(recv(&mut net, SERVER, s).unwrap().1, b"3");
    finish(net);
}

#[test]
fn addresses_and_marks_of_a_single_datagram() {
    let mut net = Net::new(1);
    let (s, c) = (server(&mut net), client(&mut net));
    let second = crate::ip::tables::Address::new(Ip::v4([10, 0, 0, 22]), 120, Tags::NONE);
    net.hosts[CLIENT].engine().net_mut().set_address(second);
    let to = Some(net.endpoint(SERVER, PORT));
    let say = |net: &mut Net, out: Outgoing| {
        let queued = net.hosts[CLIENT].engine().send_to(c, &out, 1, |room| room[0] = b'x');
        net.run_for(SEC);
        queued.map(|_| recv(net, SERVER, s).map(|(facts, _)| facts).unwrap_or_default())
    };
    let facts = say(&mut net, Outgoing { to, source: Some(second.ip), ttl: Some(3), tos: Some(0xb8) }).unwrap();
    assert_eq!((facts.source.ip, facts.ttl, facts.tos), (second.ip, 3, 0xb8));
    let facts = say(&mut net, Outgoing { to, source: Some(Ip::v4([10, 0, 0, 77])), ..Outgoing::default() }).unwrap();
    assert_eq!(facts, Facts::default(), "not our address: the kernel says what it thinks of that");
    net.hosts[CLIENT]
        .engine()
        .set_marks(c, Marks { ttl: 9, tos: 4, hop_limit: 1, traffic_class: 1, ..Marks::default() })
        .unwrap();
    let facts = say(&mut net, Outgoing { to, ..Outgoing::default() }).unwrap();
    assert_eq!((facts.source.ip, facts.ttl, facts.tos), (Ip::v4([10, 0, 0, 2]), 9, 4));
    finish(net);
}

#[test]
fn sends_that_cannot_be() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let (server, local) = (net.endpoint(SERVER, PORT), net.hosts[CLIENT].config.ip());
    assert_eq!(send(&mut net, CLIENT, c, None, b"x"), Err(Errno::EDESTADDRREQ));
    assert_eq!(send(&mut net, CLIENT, c, Some(Endpoint::new(server.ip, 0)), b"x"), Err(Errno::EINVAL));
    net.hosts[CLIENT].engine().connect_datagram(c, local, server).unwrap();
    assert_eq!(send(&mut net, CLIENT, c, None, b"x"), Ok(Sent::Queued));
    net.hosts[CLIENT].engine().shutdown_datagram(c, How::Write).unwrap();
    assert_eq!(send(&mut net, CLIENT, c, None, b"x"), Err(Errno::EPIPE));
    assert_eq!(net.hosts[CLIENT].engine().is_receive_shut(c), Ok(false));
    net.hosts[CLIENT].engine().shutdown_datagram(c, How::Both).unwrap();
    assert_eq!(net.hosts[CLIENT].engine().is_receive_shut(c), Ok(true));
    assert_eq!(readiness(&mut net, CLIENT, c), IN | OUT | HUP);
    finish(net);
}

#[test]
fn a_full_queue_waits_for_the_device() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let to = Some(net.endpoint(SERVER, PORT));
    let mut queued = 0;
    while send(&mut net, CLIENT, c, to, b"x") == Ok(Sent::Queued) {
        queued += 1;
    }
    assert_eq!(queued, 256);
    assert_eq!(send(&mut net, CLIENT, c, to, b"x"), Err(Errno::EAGAIN));
    assert_eq!(readiness(&mut net, CLIENT, c), 0);
    assert_eq!(net.hosts[CLIENT].engine().has_send_room(c, 1), Ok(false));
    net.hosts[CLIENT].engine().wait_on(c, 3).unwrap();
    net.run_for(SEC);
    assert_eq!(net.hosts[CLIENT].engine().take_wakeups(), 1 << 3, "there is room again");
    assert_eq!(readiness(&mut net, CLIENT, c), OUT);
    assert_eq!(nobodys(&mut net, SERVER), 256);
    finish(net);
}

#[test]
fn datagrams_leave_frames_for_others() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let to = Some(net.endpoint(SERVER, PORT));
    let mut taken = Vec::new();
    let mut engine = net.hosts[CLIENT].engine();
    while engine.frames().free_count() > 40 {
        taken.extend(engine.frames_mut().alloc());
    }
    let queued = (0..100).filter(|_| send(&mut net, CLIENT, c, to, b"x") == Ok(Sent::Queued)).count();
    assert_eq!(queued, 8);
    assert!(net.hosts[CLIENT].engine().is_starved());
    let mut engine = net.hosts[CLIENT].engine();
    taken.into_iter().for_each(|id| engine.frames_mut().release(id));
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, CLIENT, c), OUT);
    assert!(!net.hosts[CLIENT].engine().is_starved());
    finish(net);
}

/// An ICMP error from the server's address about a datagram of the client's.
fn icmp_error(net: &Net, kind: u8, code: u8, rest: u32, flow: &Flow) -> Vec<u8> {
    let mut f = vec![0; 14 + 20 + 8 + 20 + 8];
    let (dst, src) = (net.hosts[CLIENT].config.mac, net.hosts[SERVER].config.mac);
    ethernet::emit(&ethernet::Header { dst, src, tags: Tags::NONE, ethertype: ethernet::IPV4 }, &mut f);
    ipv4::emit(&flow.remote.ip, &flow.local.ip, 1, SERVICE, 36, &mut f[14..]);
    f[34..36].copy_from_slice(&[kind, code]);
    f[38..42].copy_from_slice(&rest.to_be_bytes());
    ipv4::emit(&flow.local.ip, &flow.remote.ip, udp::PROTOCOL, SERVICE, 9, &mut f[42..]);
    udp::emit(flow.local.port, flow.remote.port, 1, &mut f[62..]);
    let sum = Sum::ZERO.add_bytes(&f[34..]).checksum();
    f[36..38].copy_from_slice(&sum.to_be_bytes());
    f
}

#[test]
fn errors_reach_connected_sockets_alone() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let (now, remote, ip) = (net.now(), net.endpoint(SERVER, PORT), net.hosts[CLIENT].config.ip());
    let local = net.hosts[CLIENT].engine().local_endpoint(c).unwrap();
    let flow = Flow { local: Endpoint::new(ip, local.port), remote };
    let refused = icmp_error(&net, 3, 3, 0, &flow);
    net.hosts[CLIENT].receive(now, &refused);
    assert_eq!(readiness(&mut net, CLIENT, c), OUT, "not connected: it could not tell what this is about");
    net.hosts[CLIENT].engine().connect_datagram(c, ip, remote).unwrap();
    let elsewhere = Flow { remote: Endpoint::new(remote.ip, 99), ..flow };
    let other = icmp_error(&net, 3, 3, 0, &elsewhere);
    net.hosts[CLIENT].receive(now, &other);
    assert_eq!(readiness(&mut net, CLIENT, c), OUT);
    for (kind, code, errno) in [
        (3, 3, Errno::ECONNREFUSED),
        (3, 2, Errno::ENOPROTOOPT),
        (3, 13, Errno::EHOSTUNREACH),
        (3, 4, Errno::EMSGSIZE),
        (12, 0, Errno::EPROTO),
    ] {
        let error = icmp_error(&net, kind, code, 1400, &flow);
        net.hosts[CLIENT].receive(now, &error);
        assert_eq!(readiness(&mut net, CLIENT, c), OUT | ERR, "{kind}/{code}");
        assert_eq!(recv(&mut net, CLIENT, c), Err(errno));
        assert_eq!(recv(&mut net, CLIENT, c), Err(Errno::EAGAIN));
    }
    for (kind, code) in [(3, 0), (3, 1), (11, 0)] {
        let error = icmp_error(&net, kind, code, 0, &flow);
        net.hosts[CLIENT].receive(now, &error);
        assert_eq!(readiness(&mut net, CLIENT, c), OUT, "{kind}/{code} may pass");
    }
    net.hosts[CLIENT].receive(now, &refused);
    assert_eq!(send(&mut net, CLIENT, c, None, b"x"), Err(Errno::ECONNREFUSED));
    assert_eq!(send(&mut net, CLIENT, c, None, b"x"), Ok(Sent::Queued));
    finish(net);
}

#[test]
fn a_smaller_path_mtu_lets_routers_cut() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let local = net.hosts[CLIENT].engine().local_endpoint(c).unwrap();
    let flow = Flow { local: Endpoint::new(net.hosts[CLIENT].config.ip(), local.port), remote };
    thread_local! { static SEEN: std::cell::RefCell<Vec<(u16, bool)>> = const { std::cell::RefCell::new(Vec::new()) } }
    net.tap = Some(|_, _, f| {
        let len = u16::from_be_bytes([f[16], f[17]]);
        SEEN.with(|s| s.borrow_mut().push((len, f[20] & 0x40 != 0)));
        assert!(ipv4::parse(&f[14..]).is_ok());
    });
    let error = icmp_error(&net, 3, 4, 1000, &flow);
    net.hosts[CLIENT].receive(now, &error);
    for len in [548, 549] {
        send(&mut net, CLIENT, c, Some(remote), &vec![0; len]).unwrap();
    }
    for cutting in [Cutting::Never, Cutting::Always] {
        let marks = Marks { ttl: 64, hop_limit: 64, cutting, ..Marks::default() };
        net.hosts[CLIENT].engine().set_marks(c, marks).unwrap();
        send(&mut net, CLIENT, c, Some(remote), &vec![0; if cutting == Cutting::Never { 900 } else { 10 }]).unwrap();
    }
    net.run_for(SEC);
    assert_eq!(SEEN.with(|s| s.borrow().clone()), [(576, true), (577, false), (928, true), (38, false)]);
    finish(net);
}

#[test]
fn what_is_longer_than_ipv6_mtu_is_the_kernels_over_ipv6() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let marks = Marks { ttl: 64, hop_limit: 64, ipv6_mtu: 1280, ..Marks::default() };
    net.hosts[CLIENT].engine().set_marks(c, marks).unwrap();
    let remote = net.endpoint(SERVER, PORT);
    let over_v4 = send(&mut net, CLIENT, c, Some(remote), &[0; 1400]).unwrap();
    assert_eq!(over_v4, Sent::Queued, "IPv4 has its own limits");
    let v6 = crate::addr::Ip([0xfd; 16]);
    let mut fits = |octets| net.hosts[CLIENT].engine().fits_frame(c.index, &v6, octets);
    assert!(fits(1280 - 48) && !fits(1280 - 47));
    finish(net);
}

/// A block of local ports, and the first of them.
const BLOCK: u8 = 157;
const FIRST: u16 = 157 * 256;

#[test]
fn ports_are_used_in_turn_and_none_twice() {
    let mut net = Net::new(1);
    let mut engine = net.hosts[CLIENT].engine();
    engine.forget_port_blocks();
    assert!(engine.add_port_block(BLOCK));
    engine.use_ports_of_blocks(8);
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let port = engine.choose_datagram_port().unwrap();
        engine.open_datagram(&facts(Endpoint::new(Ip::UNSPECIFIED_V4, port)), PROC).unwrap();
        assert!(engine.has_mailbox(port) && ports.insert(port));
    }
    assert_eq!(engine.choose_datagram_port(), Err(Errno::EADDRNOTAVAIL));
    assert!(engine.ports_low());
    finish(net);
}

#[test]
fn a_port_is_steered_here_for_as_long_as_it_has_a_socket() {
    let table: Box<DatagramPorts> = Box::new([const { AtomicU64::new(0) }; PORTS]);
    let mut net = Net::new(1);
    let mut engine = net.hosts[CLIENT].engine();
    engine.steer_datagrams_by(&table);
    engine.forget_port_blocks();
    assert!(engine.add_port_block(BLOCK));
    engine.use_ports_of_blocks(8);
    let own = u64::from(engine.frames().owner());
    let entry = |port: u16| table[usize::from(port)].load(Relaxed);
    let open = |engine: &mut Engine<'_>, port| {
        engine.open_datagram(&facts(Endpoint::new(Ip::UNSPECIFIED_V4, port)), PROC).unwrap()
    };
    let (first, second) = (open(&mut engine, FIRST + 3), open(&mut engine, FIRST + 3));
    let server = open(&mut engine, PORT);
    assert_eq!(
        (own != 0, entry(FIRST + 3), entry(FIRST + 2), entry(PORT)),
        (true, own, 0, 0),
        "a server's port is the daemon's"
    );
    let now = Instant::from_micros(1);
    engine.release(now, first, PROC).unwrap();
    assert_eq!(entry(FIRST + 3), own, "two sockets share it");
    engine.release(now, second, PROC).unwrap();
    assert_eq!(entry(FIRST + 3), 0);
    // What another stack says of a port stays when a socket of ours there goes.
    table[usize::from(PORT)].store(own + 1, Relaxed);
    engine.release(now, server, PROC).unwrap();
    assert_eq!(entry(PORT), own + 1);
    // A dead owner of the lock: nothing is left of its sockets, and nothing comes here for them.
    open(&mut engine, FIRST + 7);
    assert_eq!(entry(FIRST + 7), own);
    engine.reset_all();
    assert_eq!((entry(FIRST + 7), entry(PORT)), (0, own + 1));
}

#[test]
fn connections_and_datagrams_take_turns() {
    let mut net = Net::new(1);
    let (_, server, _) = crate::engine::tests::pair(&mut net);
    let now = net.now();
    let s = self::server(&mut net);
    let to = Some(net.endpoint(CLIENT, 9));
    let mut engine = net.hosts[SERVER].engine();
    engine.send(now, server, &[0; 10 * 1448]).unwrap();
    for _ in 0..4 {
        let out = Outgoing { to, ..Outgoing::default() };
        engine.send_to(s, &out, 1, |room| room[0] = 0).unwrap();
    }
    let mut order = String::new();
    let mut sent = Vec::new();
    while let Some(out) = engine.poll_transmit(now) {
        order.push(if out.checksum == 6 { 'd' } else { 't' });
        sent.push(out.frame);
    }
    assert!(order.starts_with("dtdtdtdt"), "{order}");
    sent.into_iter().for_each(|frame| net.hosts[SERVER].complete(frame));
    net.run_for(SEC);
    finish(net);
}

#[test]
fn a_wire_that_corrupts_delivers_nothing_damaged() {
    let mut net = Net::new(7);
    (net.wire.corrupt, net.wire.duplicate, net.wire.reorder) = (500, 100, 100);
    let (s, c) = (server(&mut net), client(&mut net));
    let to = Some(net.endpoint(SERVER, PORT));
    let mut got = 0;
    for i in 0..400u16 {
        let payload = [i.to_be_bytes(), i.to_be_bytes()].concat();
        send(&mut net, CLIENT, c, to, &payload).unwrap();
        net.run_for(1000);
        while let Ok((_, payload)) = recv(&mut net, SERVER, s) {
            assert_eq!(payload[..2], payload[2..]);
            got += 1;
        }
    }
    assert!((150..350).contains(&got), "{got}");
    finish(net);
}

/// What MSG_ERRQUEUE tells of the oldest error: errno, type, code, info, and how much is quoted.
fn next_error(net: &mut Net, c: SocketId) -> Result<(Errno, u8, u8, u32, usize), Errno> {
    let take = |r: &Reported, quoted: &[u8]| (r.errno, r.number, r.code, r.info, quoted.len());
    net.hosts[CLIENT].engine().recv_error(c, take)
}

#[test]
fn an_error_queue_keeps_what_is_said_of_any_datagram_in_order_and_bounded() {
    let mut net = Net::new(1);
    let c = client(&mut net);
    let (now, remote, ip) = (net.now(), net.endpoint(SERVER, PORT), net.hosts[CLIENT].config.ip());
    let local = net.hosts[CLIENT].engine().local_endpoint(c).unwrap();
    let flow = Flow { local: Endpoint::new(ip, local.port), remote };
    net.hosts[CLIENT].engine().set_error_queue(c, false, true).unwrap();
    let refused = icmp_error(&net, 3, 3, 0, &flow);
    net.hosts[CLIENT].receive(now, &refused);
    assert_eq!(readiness(&mut net, CLIENT, c), OUT, "it asked for the errors of the other family");
    net.hosts[CLIENT].engine().set_error_queue(c, true, false).unwrap();
    for (kind, code, rest) in [(3, 3, 0), (3, 1, 0), (3, 4, 1280)] {
        let error = icmp_error(&net, kind, code, rest, &flow);
        net.hosts[CLIENT].receive(now, &error);
    }
    assert_eq!(readiness(&mut net, CLIENT, c), OUT | ERR);
    assert_eq!(recv(&mut net, CLIENT, c), Err(Errno::EMSGSIZE), "the newest is the next call's");
    assert_eq!(readiness(&mut net, CLIENT, c), OUT | ERR, "the queue is there still");
    assert_eq!(next_error(&mut net, c), Ok((Errno::ECONNREFUSED, 3, 3, 0, 0)));
    assert_eq!(recv(&mut net, CLIENT, c), Err(Errno::EHOSTUNREACH), "the next entry's");
    assert_eq!(next_error(&mut net, c), Ok((Errno::EHOSTUNREACH, 3, 1, 0, 0)));
    assert_eq!(next_error(&mut net, c), Ok((Errno::EMSGSIZE, 3, 4, 1280, 0)));
    assert_eq!(next_error(&mut net, c), Err(Errno::EAGAIN));
    assert_eq!(readiness(&mut net, CLIENT, c), OUT);
    for _ in 0..50 {
        net.hosts[CLIENT].receive(now, &refused);
    }
    assert_eq!(drops(&mut net, CLIENT, Drop::ErrorQueueFull), 18);
    net.hosts[CLIENT].engine().release(now, c, PROC).unwrap();
    finish(net);
}

/// What one receive gives a server that takes datagrams together: the octets, and how many came.
fn recv_together(net: &mut Net, s: SocketId, room: usize) -> Result<(Vec<u8>, u32), Errno> {
    net.hosts[SERVER].engine().recv_from(s, false, room, |d| {
        let octets = d.others.payloads().fold(d.payload.to_vec(), |all, one| [&all, one].concat());
        (octets, d.others.count() + 1)
    })
}

#[test]
fn datagrams_that_are_alike_are_received_together() {
    let mut net = Net::new(1);
    let s = server(&mut net);
    net.hosts[SERVER].engine().set_coalesces(s, true).unwrap();
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    let other = net.endpoint(CLIENT, 1001);
    for payload in ["aaa", "bbb", "c", "ddd"] {
        hear(&mut net, from, to, payload.as_bytes(), None);
    }
    for (from, payload) in [(other, "eee"), (other, "ffff"), (other, ""), (other, "gg"), (other, "hh"), (other, "ii")] {
        hear(&mut net, from, to, payload.as_bytes(), None);
    }
    let expected: [(usize, &str, u32); 6] = [
        (100, "aaabbbc", 3), // a shorter one is the last
        (100, "ddd", 1),     // another sender
        (100, "eee", 1),     // longer than the first
        (100, "ffff", 1),
        (100, "", 1),
        (5, "gghh", 2), // no room for more
    ];
    for (room, octets, count) in expected {
        assert_eq!(recv_together(&mut net, s, room), Ok((octets.as_bytes().to_vec(), count)));
    }
    assert_eq!(recv_together(&mut net, s, 5), Ok((b"ii".to_vec(), 1)));
    assert_eq!(recv_together(&mut net, s, 5), Err(Errno::EAGAIN));
    finish(net);
}

#[test]
fn what_no_socket_takes_is_kept_for_the_kernel_finished_and_bounded() {
    let mut net = Net::new(1);
    let (from, to) = (net.endpoint(CLIENT, 1000), net.endpoint(SERVER, PORT));
    for checksum in [None, Some(0)] {
        hear(&mut net, from, to, b"hello", checksum);
    }
    assert!(net.hosts[SERVER].engine().has_foreign_datagrams() && net.hosts[SERVER].engine().wants_daemon());
    for has_checksum in [true, false] {
        let packet = net.hosts[SERVER].engine().take_foreign_datagram(<[u8]>::to_vec).unwrap();
        let parsed = ipv4::parse(&packet).unwrap();
        let datagram = &packet[parsed.payload_off..];
        assert_eq!(&datagram[8..], b"hello");
        assert_eq!(datagram[6..8] != [0, 0], has_checksum);
        assert!(udp::is_checksum_right(&from.ip, &to.ip, datagram, false));
    }
    assert!(!net.hosts[SERVER].engine().has_foreign_datagrams() && !net.hosts[SERVER].engine().wants_daemon());
    for _ in 0..70 {
        hear(&mut net, from, to, b"hello", None);
    }
    assert_eq!(drops(&mut net, SERVER, Drop::NoMailbox), 6);
    finish(net);
}
