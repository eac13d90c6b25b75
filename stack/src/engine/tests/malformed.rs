use super::*;
use crate::drops::Drop;
use crate::ip;
use crate::wire::checksum::Sum;
use std::cell::RefCell;

thread_local! {
    static SEEN: RefCell<Vec<(usize, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// Every kind of frame that a short conversation brings to the server.
fn conversation() -> (Net, SocketId, SocketId, Vec<Vec<u8>>) {
    let mut net = Net::new(3);
    SEEN.with(|s| s.borrow_mut().clear());
    net.tap = Some(|_, to, bytes| SEEN.with(|s| s.borrow_mut().push((to, bytes.to_vec()))));
    let (_, server, client) = pair(&mut net);
    send(&mut net, CLIENT, client, &[5; 4000]).unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(4000));
    net.tap = None;
    let frames = SEEN.with(|s| s.borrow().iter().filter(|(to, _)| *to == SERVER).map(|(_, b)| b.clone()).collect());
    (net, server, client, frames)
}

fn drops(net: &mut Net) -> u64 {
    Drop::ALL.iter().map(|d| net.hosts[SERVER].engine().counters().drops.of(*d)).sum()
}

#[test]
fn every_truncation_is_counted_and_harmless() {
    let (mut net, server, client, frames) = conversation();
    let mut shown = 0;
    let before = drops(&mut net);
    for frame in &frames {
        for len in 0..frame.len() {
            let now = net.now();
            assert!(net.hosts[SERVER].receive(now, &frame[..len]));
            shown += 1;
        }
    }
    assert_eq!(drops(&mut net) - before, shown);
    send(&mut net, CLIENT, client, b"still here").unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(4010));
    finish(net);
}

#[test]
fn random_bytes_behind_valid_checksums_never_panic() {
    let (mut net, _, _, frames) = conversation();
    for round in 0..60_000u64 {
        let mut bytes = frames[(round % frames.len() as u64) as usize].clone();
        for _ in 0..=net.random.below(4) {
            let at = net.random.below(bytes.len().min(90) as u64) as usize;
            bytes[at] = net.random.number() as u8;
        }
        if net.random.chance(300) {
            let len = net.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(len);
        }
        seal(&mut bytes);
        let now = net.now();
        assert!(net.hosts[SERVER].receive(now, &bytes), "frames leak");
        if round % 64 == 0 {
            net.run_for(10_000);
            net.hosts.iter_mut().for_each(|h| {
                h.engine().take_wakeups();
            });
        }
    }
    finish(net);
}

#[test]
fn noise_never_panics() {
    let mut net = Net::new(9);
    listen(&mut net, 16);
    for _ in 0..20_000 {
        let len = net.random.below(200) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| net.random.number() as u8).collect();
        if len > 14 {
            bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            let ethertype = if net.random.chance(500) { [0x08, 0x00] } else { [0x86, 0xdd] };
            bytes[12..14].copy_from_slice(&ethertype);
        }
        seal(&mut bytes);
        let now = net.now();
        assert!(net.hosts[SERVER].receive(now, &bytes));
    }
    finish(net);
}

/// Makes checksums right where there are any, so that what lies behind them is reached.
fn seal(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [0x08, 0x00] {
        return;
    }
    let header = usize::from(frame[14] & 0xf) * 4;
    if header < 20 || frame.len() < 14 + header {
        return;
    }
    let (network, rest) = frame[14..].split_at_mut(header);
    network[10..12].copy_from_slice(&[0, 0]);
    let sum = Sum::ZERO.add_bytes(network).checksum();
    network[10..12].copy_from_slice(&sum.to_be_bytes());
    let total = usize::from(u16::from_be_bytes([network[2], network[3]]));
    if total < header + 20 || total - header > rest.len() || network[9] != ip::TCP {
        return;
    }
    let segment = &mut rest[..total - header];
    let at = |n: usize| crate::addr::Ip::v4([network[n], network[n + 1], network[n + 2], network[n + 3]]);
    let pseudo = Sum::pseudo_header(&at(12), &at(16), ip::TCP, segment.len() as u16);
    segment[16..18].copy_from_slice(&[0, 0]);
    let sum = pseudo.add_bytes(segment).checksum();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn checksums_are_verified_but_virtual_devices_may_leave_them_half_done() {
    for virtual_device in [false, true] {
        let mut net =
            Net::with(1, HostConfig { device_is_virtual: virtual_device, ..HostConfig::nth(1) }, HostConfig::nth(2));
        let (_, server, client) = pair(&mut net);
        SEEN.with(|s| s.borrow_mut().clear());
        net.tap = Some(|_, to, bytes| SEEN.with(|s| s.borrow_mut().push((to, bytes.to_vec()))));
        net.wire.loss = 1000;
        send(&mut net, CLIENT, client, b"abc").unwrap();
        net.step(net.now());
        let mut frame = SEEN.with(|s| s.borrow().last().unwrap().1.clone());
        frame[50..52].copy_from_slice(&[0xba, 0xad]);
        let now = net.now();
        net.hosts[SERVER].receive(now, &frame);
        assert_eq!(net.hosts[SERVER].engine().counters().drops.of(Drop::TcpChecksum), 1);
        let (a, b) = (net.hosts[CLIENT].config.ip(), net.hosts[SERVER].config.ip());
        let pseudo = Sum::pseudo_header(&a, &b, ip::TCP, frame.len() as u16 - 34).fold();
        frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
        net.hosts[SERVER].receive(now, &frame);
        let expected = if virtual_device { 3 } else { 0 };
        assert_eq!(net.hosts[SERVER].engine().available(server), Ok(expected));
        net.wire.loss = 0;
        finish(net);
    }
}
