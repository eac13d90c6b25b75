use super::*;
use crate::testing::Wire;
use crate::time::Instant;

/// What both ends send: byte `i` of host `h`.
pub(super) fn byte(h: usize, i: usize) -> u8 {
    (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ h as u8
}

struct End {
    host: usize,
    socket: SocketId,
    sent: usize,
    received: usize,
}

/// Moves `total` bytes both ways at once; returns how long it took.
fn both_ways(seed: u64, wire: Wire, total: usize, config: fn(u8) -> HostConfig) -> (Net, u64) {
    let mut net = Net::with(seed, config(1), config(2));
    let (_, server, client) = pair(&mut net);
    net.wire = wire;
    let start = net.now();
    let mut ends =
        [(SERVER, server), (CLIENT, client)].map(|(host, socket)| End { host, socket, sent: 0, received: 0 });
    net.run(600 * SEC, |net| {
        for end in &mut ends {
            pump(net, end, total);
        }
        ends.iter().all(|end| end.received == total)
    });
    let took = net.now().since_us(start);
    (net, took)
}

fn pump(net: &mut Net, end: &mut End, total: usize) {
    while end.sent < total {
        let chunk: Vec<u8> = (end.sent..total.min(end.sent + 16384)).map(|i| byte(end.host, i)).collect();
        match send(net, end.host, end.socket, &chunk) {
            Ok(n) => end.sent += n,
            Err(e) => {
                assert_eq!(e, Errno::EAGAIN);
                break;
            }
        }
    }
    while let Ok(bytes) = recv(net, end.host, end.socket) {
        for (i, b) in bytes.iter().enumerate() {
            assert_eq!(*b, byte(1 - end.host, end.received + i), "byte {}", end.received + i);
        }
        end.received += bytes.len();
    }
}

#[test]
fn five_megabytes_each_way_over_a_clean_wire() {
    let (net, took) = both_ways(1, Wire::default(), 5_000_000, HostConfig::nth);
    assert!(took < 10 * SEC, "took {took} us");
    let counters = |n: usize, net: &mut Net| *net.hosts[n].engine().counters();
    let mut net = net;
    assert_eq!(counters(0, &mut net).retransmits, 0);
    assert_eq!(counters(1, &mut net).retransmits, 0);
    finish(net);
}

#[test]
fn five_megabytes_each_way_at_two_percent_loss() {
    let (net, _) = both_ways(2, Wire { loss: 20, ..Wire::default() }, 5_000_000, HostConfig::nth);
    finish(net);
}

#[test]
fn five_megabytes_each_way_at_five_percent_loss() {
    let (net, _) = both_ways(3, Wire { loss: 50, ..Wire::default() }, 5_000_000, HostConfig::nth);
    finish(net);
}

#[test]
fn everything_that_a_wire_may_do_many_seeds() {
    for seed in 0..40 {
        let wire = Wire { delay_us: 50 + seed * 97, loss: 20, duplicate: 20, reorder: 50, corrupt: 10 };
        let (net, _) = both_ways(seed, wire, 100_000, HostConfig::nth);
        finish(net);
    }
}

#[test]
fn a_host_with_few_frames_gets_through() {
    let poor = |n| HostConfig { frames: if n == 1 { 96 } else { 4096 }, ..HostConfig::nth(n) };
    let (net, _) = both_ways(4, Wire { loss: 5, ..Wire::default() }, 1_000_000, poor);
    finish(net);
}

#[test]
fn a_reader_that_sleeps_closes_the_window_and_opens_it_again() {
    let mut net = Net::new(5);
    let (_, server, client) = pair(&mut net);
    let mut sent = 0;
    let data = [9; 16384];
    for _ in 0..200 {
        sent += send(&mut net, CLIENT, client, &data).unwrap_or(0);
        net.run_for(100_000);
    }
    assert!(sent < 2_000_000, "there is a limit: {sent}");
    assert_eq!(readiness(&mut net, CLIENT, client) & OUT, 0);
    let mut got = 0;
    net.run(300 * SEC, |net| {
        got += recv(net, SERVER, server).map_or(0, |b| b.len());
        got == sent
    });
    net.run(SEC, |net| readiness(net, CLIENT, client) & OUT != 0);
    finish(net);
}

#[test]
fn one_seed_is_one_history() {
    let run = || -> (Instant, u64) {
        let wire = Wire { loss: 30, duplicate: 10, reorder: 30, ..Wire::default() };
        let (net, _) = both_ways(77, wire, 300_000, HostConfig::nth);
        (net.now(), net.frames_seen)
    };
    assert_eq!(run(), run());
}
