//! Pacing: data goes at its rate, whatever the timers' grain, and never waits for ever.

use super::harness::*;
use crate::tcp::Algorithm;
use crate::time::{Instant, MS, SEC};
use crate::tunables::Tunables;
use crate::wire::tcp::Flags;

fn pair(algorithm: Algorithm, delay_us: u64) -> Pair {
    let tunables = Tunables {
        congestion: algorithm as u32,
        rmem_bytes: [4096, 8 << 20, 8 << 20],
        wmem_bytes: [4096, 8 << 20, 8 << 20],
        ..Tunables::default()
    };
    let mut pair = Pair::connected(1, tunables);
    pair.wire.delay_us = delay_us;
    pair
}

/// Moves `total` octets from end 0 to end 1; returns how long it took.
fn transfer(pair: &mut Pair, total: usize) -> u64 {
    let (start, mut sent, mut got) = (pair.now, 0, 0);
    let data = vec![7; 65_536];
    while got < total {
        let now = pair.now;
        sent += pair.hosts[0].write(now, &data[..data.len().min(total - sent)]);
        pair.transmit();
        assert!(pair.step(), "hangs after {got} octets");
        let now = pair.now;
        got += pair.hosts[1].read(now, 1 << 20).len();
        assert!(now.since_us(start) < 600 * SEC);
    }
    pair.now.since_us(start)
}

#[test]
fn the_applications_limit_is_kept_and_reached() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        for rate in [20_000, 1_000_000, 50_000_000] {
            let mut pair = pair(algorithm, 500);
            pair.hosts[0].tcb.set_max_pacing_rate(rate);
            let total = (rate as usize * 2).min(1_000_000);
            let took = transfer(&mut pair, total);
            let reached = total as u64 * SEC / took;
            // The first ten segments go free, and two milliseconds' worth.
            assert!(reached < rate * 21 / 20 + 15_000 * SEC / took, "{algorithm:?}: {reached} of {rate}");
            assert!(reached > rate * 9 / 10, "{algorithm:?}: {reached} of {rate}");
        }
    }
}

#[test]
fn timers_that_are_late_cost_nothing() {
    // As the wheel does it: what is due comes with the next tick.
    let tick = |at: Instant| Instant::from_micros((at.micros() / 1024 + 1) * 1024);
    let mut host = established();
    let rate = 1_460_000;
    host.tcb.set_max_pacing_rate(rate);
    host.write(at_ms(1001), &vec![7; 14_600]);
    assert_eq!(host.drain(at_ms(1001)).len(), 10);
    let (mut now, mut una, mut sent) = (at_ms(1002), 1001 + 14_600, 0);
    host.arrive(now, &segment(5001, una, Flags::ACK), b"");
    while now < at_ms(1502) {
        host.write(now, &vec![7; 100_000]);
        let segments = host.drain(now);
        sent += segments.iter().map(|s| u64::from(s.payload_len)).sum::<u64>();
        assert!(segments.len() <= 4, "a burst of {}", segments.len());
        if let Some(last) = segments.last() {
            una = last.end().0;
        }
        assert!(!host.tcb.wants_transmit(), "only the pace holds it back");
        now = tick(host.tcb.deadline().expect("the pace has a deadline"));
        host.arrive(now, &segment(5001, una, Flags::ACK), b"");
        host.expire(now);
    }
    let reached = sent * SEC / now.since_us(at_ms(1002));
    assert!(reached > rate * 97 / 100 && reached < rate * 106 / 100, "{reached}");
}

/// An established connection that sent its ten free segments, has them acknowledged, and is to send slowly from now on.
fn slow() -> Host {
    let mut host = established();
    host.tcb.set_max_pacing_rate(14_600);
    host.write(at_ms(1001), &vec![7; 14_600]);
    assert_eq!(host.drain(at_ms(1001)).len(), 10);
    host.arrive(at_ms(1002), &segment(5001, 1001 + 14_600, Flags::ACK), b"");
    host
}

#[test]
fn what_is_no_data_does_not_wait() {
    let mut host = slow();
    host.write(at_ms(1010), &vec![7; 5 * 1460]);
    assert_eq!(host.drain(at_ms(1010)).len(), 1);
    assert!(!host.tcb.wants_transmit());
    let at = host.tcb.deadline().unwrap();
    assert!((95..=100).contains(&at.since_us(at_ms(1010)).div_ceil(MS)), "{}", at.since_us(at_ms(1010)));
    // An acknowledgement goes.
    host.arrive(at_ms(1011), &segment(5001, 1001 + 14_600, Flags::ACK), &[1; 1460]);
    host.arrive(at_ms(1011), &segment(6461, 1001 + 14_600, Flags::ACK), &[1; 1460]);
    let ack = host.drain(at_ms(1011));
    assert_eq!((ack.len(), ack[0].payload_len), (1, 0));
    // Data does when its time comes, also without the timer: an acknowledgement is occasion enough.
    host.arrive(at.after_us(1), &segment(7921, 1001 + 11 * 1460, Flags::ACK), b"");
    assert_eq!(host.drain(at.after_us(1)).len(), 1);
    // A FIN behind data waits with it; alone it goes at once.
    host.shutdown(at_ms(1120));
    let (mut at, mut fins) = (at_ms(1120), Vec::new());
    while fins.last() != Some(&true) {
        at = host.tcb.deadline().expect("the FIN has its turn");
        host.expire(at);
        for seg in host.drain(at) {
            fins.push(seg.has(Flags::FIN));
            host.arrive(at, &segment(7921, seg.end().0, Flags::ACK), b"");
        }
    }
    assert_eq!(fins, [false, false, true]);
    assert!(at.since_us(at_ms(1120)) > 200 * MS);
    let mut alone = slow();
    alone.write(at_ms(1010), &[7; 1460]);
    assert_eq!(alone.drain(at_ms(1010)).len(), 1);
    alone.shutdown(at_ms(1010));
    assert!(alone.drain(at_ms(1010))[0].has(Flags::FIN));
}

#[test]
fn retransmissions_wait_as_well() {
    let mut host = slow();
    host.write(at_ms(1010), &vec![7; 3 * 1460]);
    let mut now = at_ms(1010);
    let mut sent = host.drain(now).len();
    while sent < 3 {
        now = host.tcb.deadline().unwrap();
        host.expire(now);
        sent += host.drain(now).len();
    }
    // All are lost. What goes again does so a tenth of a second apart.
    let mut times = Vec::new();
    for _ in 0..20 {
        now = host.tcb.deadline().unwrap();
        host.expire(now);
        for seg in host.drain(now) {
            times.push((now, seg.seq.0));
        }
        if times.len() == 1 {
            host.arrive(now, &segment(5001, 1001 + 11 * 1460, Flags::ACK), b"");
            for seg in host.drain(now) {
                times.push((now, seg.seq.0));
            }
        }
        if times.len() >= 3 {
            break;
        }
    }
    assert!(times.len() >= 3, "{times:?}");
    assert!(times.windows(2).all(|w| w[1].0.since_us(w[0].0) >= 97 * MS), "{times:?}");
}

#[test]
fn a_limit_that_is_lifted_lets_everything_go() {
    let mut host = slow();
    host.write(at_ms(1010), &vec![7; 5 * 1460]);
    assert_eq!(host.drain(at_ms(1010)).len(), 1);
    host.tcb.set_max_pacing_rate(u64::MAX);
    assert!(host.tcb.wants_transmit());
    assert_eq!(host.drain(at_ms(1010)).len(), 4);
}

#[test]
fn switching_keeps_the_window_and_ends_bbrs_pace() {
    let mut host = established();
    host.tcb.set_congestion(at_ms(1001), Algorithm::Bbr);
    assert_ne!(host.tcb.pacing_rate(), u64::MAX);
    host.write(at_ms(1001), &vec![7; 20 * 1460]);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1051), &segment(5001, 1001 + 5 * 1460, Flags::ACK), b"");
    let before = host.tcb.info(at_ms(1051)).snd_cwnd;
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        host.tcb.set_congestion(at_ms(1051), algorithm);
        assert_eq!(host.tcb.info(at_ms(1051)).snd_cwnd, before);
        assert_eq!(host.tcb.pacing_rate() == u64::MAX, algorithm != Algorithm::Bbr);
    }
}

#[test]
fn every_algorithm_fills_a_long_path() {
    // 4 ms there and back, no loss and no bottleneck: only the algorithm and the windows set the pace.
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        let mut pair = pair(algorithm, 2_000);
        let took = transfer(&mut pair, 4_000_000);
        assert!(took < 500_000, "{algorithm:?}: {} ms", took / 1000);
        assert_eq!(pair.hosts[0].counters.retransmits, 0, "{algorithm:?}");
        let (rate, _) = pair.hosts[0].tcb.delivery_rate();
        assert!(rate > 1_000_000, "{algorithm:?}: {rate}");
    }
}

#[test]
fn every_algorithm_gets_through_losses() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        for seed in 1..6 {
            let tunables = Tunables { congestion: algorithm as u32, ecn: 1, ..Tunables::default() };
            let mut pair = Pair::connected(seed, tunables);
            pair.wire = Wire { loss: 3, repeat: 1, delay_us: 2_000, jitter_us: 1_000 };
            transfer(&mut pair, 300_000);
            let held = pair.hosts[1].frames_held();
            assert_eq!(held, 0);
        }
    }
}

#[test]
fn a_write_that_finds_no_room_leaves_the_timer() {
    let mut host = slow();
    host.write(at_ms(1010), &vec![7; 1 << 20]);
    assert_eq!(host.drain(at_ms(1010)).len(), 1);
    host.arrive(at_ms(1050), &segment(5001, 1001 + 11 * 1460, Flags::ACK), b"");
    while host.write(at_ms(1050), &[7; 1460]) > 0 {}
    let at = host.tcb.deadline().expect("the pace's");
    assert_eq!((host.drain(at_ms(1050)).len(), host.write(at.after_us(1), &[7]) > 0), (0, false));
    assert!(host.tcb.deadline().is_some(), "nothing was brought, so nobody asks what may go");
    host.expire(at.after_us(1));
    assert_eq!(host.drain(at.after_us(1)).len(), 1);
}
