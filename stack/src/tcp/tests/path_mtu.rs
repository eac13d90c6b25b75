//! Paths that carry less than both ends would: told by routers, and not told.

use super::harness::*;
use crate::tcp::{IcmpKind, State};
use crate::time::SEC;
use crate::tunables::Tunables;

fn tunables(mtu_probing: u32) -> Tunables {
    Tunables {
        mtu_probing,
        rmem_bytes: [4096, 2 << 20, 2 << 20],
        wmem_bytes: [4096, 2 << 20, 2 << 20],
        ..Tunables::default()
    }
}

/// Sends `total` octets from end 0 to end 1; false when that is not done after `limit_s`.
fn transfer(pair: &mut Pair, total: usize, limit_s: u64) -> bool {
    let (mut sent, mut got) = (0, 0);
    let end = pair.now.after_us(limit_s * SEC);
    while got < total && pair.now < end {
        let n = (total - sent).min(30_000);
        let data: Vec<u8> = (sent..sent + n).map(|i| (i / 7) as u8).collect();
        let now = pair.now;
        sent += pair.hosts[0].write(now, &data);
        pair.transmit();
        if !pair.step() {
            return false;
        }
        for byte in pair.hosts[1].read(now, 1 << 20) {
            assert_eq!(byte, (got / 7) as u8, "octet {got}");
            got += 1;
        }
    }
    got == total
}

fn mss(pair: &Pair) -> u32 {
    pair.hosts[0].tcb.info(pair.now).snd_mss
}

#[test]
fn a_black_hole_is_found_and_gone_around() {
    let mut pair = Pair::connected(3, tunables(1));
    pair.longest = 1180; // Packets of 1200, IP header included.
    assert!(transfer(&mut pair, 300_000, 60));
    assert_eq!(pair.hosts[0].counters.mtu_black_holes, 1);
    // Searched upwards since: the path carries 1180 with a header of 32.
    pair.settle(1000);
    let found = mss(&pair);
    assert!((1180 - 32 - 16..=1180 - 32).contains(&found), "{found}");
    assert_eq!((pair.hosts[0].frames_held(), pair.hosts[0].state()), (0, State::Established));
}

#[test]
fn without_probing_a_black_hole_stays_one() {
    let mut pair = Pair::connected(3, tunables(0));
    pair.longest = 1180;
    assert!(!transfer(&mut pair, 300_000, 60));
    assert_eq!(mss(&pair), 1448);
}

#[test]
fn a_narrower_black_hole_takes_longer() {
    let mut pair = Pair::connected(4, tunables(1));
    pair.longest = 400;
    assert!(transfer(&mut pair, 50_000, 120));
    assert!(mss(&pair) < 400 && pair.hosts[0].counters.mtu_black_holes > 1);
}

#[test]
fn small_segments_that_vanish_are_no_black_hole() {
    let mut pair = Pair::connected(5, tunables(1));
    pair.longest = 0;
    let now = pair.now;
    pair.hosts[0].write(now, b"small");
    pair.settle(20_000);
    assert_eq!((mss(&pair), pair.hosts[0].counters.mtu_black_holes), (1448, 0));
}

#[test]
fn probing_from_the_start_finds_the_whole_path() {
    let mut pair = Pair::connected(6, tunables(2));
    assert_eq!(mss(&pair), 1012);
    assert!(transfer(&mut pair, 600_000, 60));
    let found = mss(&pair);
    assert!(found >= 1448 - 8, "{found}");
    assert!((4..12).contains(&pair.hosts[0].counters.mtu_probes), "{}", pair.hosts[0].counters.mtu_probes);
    assert_eq!(pair.hosts[0].counters.retransmits, 0);
    // The path becomes wider again only for a search that starts over.
    let probes = pair.hosts[0].counters.mtu_probes;
    assert!(transfer(&mut pair, 600_000, 60));
    assert_eq!(pair.hosts[0].counters.mtu_probes, probes);
}

#[test]
fn a_lost_probe_costs_one_segment_and_narrows_the_search() {
    let mut pair = Pair::connected(7, tunables(2));
    pair.longest = 1300;
    assert!(transfer(&mut pair, 900_000, 60));
    let found = mss(&pair);
    assert!((1300 - 32 - 16..=1300 - 32).contains(&found), "{found}");
    assert_eq!(pair.hosts[0].counters.mtu_black_holes, 0);
}

#[test]
fn what_a_router_says_binds_the_search() {
    let mut pair = Pair::connected(8, tunables(2));
    let now = pair.now;
    pair.hosts[0].write(now, &[0; 100]);
    let una = pair.hosts[0].drain(now)[0].seq;
    pair.hosts[0].with(now, |tcb, cx| tcb.handle_icmp(cx, IcmpKind::TooBig { mtu: 1200 }, una));
    assert_eq!(mss(&pair), 1012, "it was below already");
    let mut pair = Pair::connected(8, tunables(2));
    let now = pair.now;
    pair.hosts[0].write(now, &[0; 100]);
    let una = pair.hosts[0].drain(now)[0].seq;
    pair.hosts[0].with(now, |tcb, cx| tcb.handle_icmp(cx, IcmpKind::TooBig { mtu: 600 }, una));
    assert_eq!(mss(&pair), 600 - 40 - 12);
}

#[test]
fn an_absurd_mtu_is_not_believed() {
    let mut pair = Pair::connected(9, tunables(0));
    let now = pair.now;
    pair.hosts[0].write(now, &[0; 100]);
    let una = pair.hosts[0].drain(now)[0].seq;
    pair.hosts[0].with(now, |tcb, cx| tcb.handle_icmp(cx, IcmpKind::TooBig { mtu: 68 }, una));
    assert_eq!(mss(&pair), 552 - 40 - 12);
    pair.hosts[0].with(now, |tcb, cx| tcb.handle_icmp(cx, IcmpKind::TooBig { mtu: 500 }, una + 5000));
    assert_eq!(mss(&pair), 500, "not about anything in flight");
}

#[test]
fn black_holes_and_loss_together() {
    for seed in 0..10 {
        let mut pair = Pair::connected(seed, tunables(1 + (seed % 2) as u32));
        pair.longest = 900 + 50 * seed as usize;
        pair.wire = Wire { loss: 3, repeat: 2, delay_us: 2000, jitter_us: 1000 };
        assert!(transfer(&mut pair, 200_000, 300), "seed {seed}");
        let now = pair.now;
        pair.hosts[0].close(now);
        pair.hosts[1].close(now);
        pair.settle(200_000);
        assert_eq!((pair.hosts[0].frames_held(), pair.hosts[1].frames_held()), (0, 0));
    }
}
