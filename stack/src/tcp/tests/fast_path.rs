//! The fast path is the slow path with the steps left out that do nothing: random segments, both ways, same outcome.

use super::harness::*;
use crate::tcp::{Arrival, Tcb};
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

/// Two hosts with the same past.
fn twins(seed: u64) -> [Host; 2] {
    [(); 2].map(|()| {
        let mut random = Random(seed);
        let tunables = Tunables {
            timestamps: u32::from(!seed.is_multiple_of(3)),
            ecn: u32::from(!seed.is_multiple_of(4)),
            congestion: seed as u32 % 3,
            ..Tunables::default()
        };
        let mut pair = Pair::connected(seed, tunables);
        for _ in 0..random.below(20) {
            let now = pair.now;
            let size = 1 + random.below(3000) as usize;
            pair.hosts[random.below(2) as usize].write(now, &vec![9; size]);
            pair.settle(random.below(3));
            if random.chance(50) {
                let now = pair.now;
                pair.hosts[1].read(now, 5000);
            }
        }
        let now = pair.now;
        pair.hosts[1].write(now, &vec![8; random.below(9000) as usize]);
        pair.hosts[1].drain(now);
        pair.hosts.into_iter().nth(1).unwrap()
    })
}

/// What is expected, mostly; else something near it.
fn random_segment(random: &mut Random, tcb: &Tcb, now: Instant) -> (Segment, Vec<u8>) {
    let in_flight = random.below(u64::from(tcb.snd.flight()) + 1) as u32;
    let mut seg = segment(tcb.rcv.nxt.0, (tcb.snd.una + in_flight).0, Flags::ACK);
    seg.window = [0, 1000, 60_000][random.below(3) as usize];
    let (mut value, echo) = tcb.ts.option(now).map_or((0, 0), |(now, recent)| (recent, now));
    if random.chance(15) {
        match random.below(6) {
            0 => seg.seq += random.below(3000) as u32,
            1 => seg.seq = seg.seq - random.below(3000) as u32,
            2 => seg.ack = tcb.snd.nxt + 1,
            3 => seg.ack = tcb.snd.una - random.below(70_000) as u32,
            4 => value = value.wrapping_sub(1),
            _ => seg.flags = Flags(random.next() as u8),
        }
    }
    if tcb.ts.on != random.chance(2) {
        let echo = echo.wrapping_sub(random.below(20) as u32);
        seg.options.timestamp = Some((value.wrapping_add(random.below(3) as u32), echo));
    }
    if random.chance(10) {
        seg.ecn = random.below(4) as u8;
    }
    if random.chance(5) {
        seg.flags = seg.flags | [Flags::ECE, Flags::CWR][random.below(2) as usize];
    }
    if random.chance(8) {
        let edge = |random: &mut Random| tcb.snd.una + random.below(u64::from(tcb.snd.flight()) + 200) as u32;
        seg.options.sack.push(edge(random), edge(random));
    }
    let len = if random.chance(50) { 0 } else { random.below(1448) as usize };
    (seg, vec![3; len])
}

fn arrive_slow(host: &mut Host, now: Instant, seg: &Segment, payload: &[u8]) -> Arrival {
    host.with(now, |tcb, cx| {
        let frame = cx.frames.alloc().unwrap();
        let off = 66;
        cx.frames.bytes_mut(frame)[off..off + payload.len()].copy_from_slice(payload);
        let seg = Segment { payload_off: off as u16, payload_len: payload.len() as u16, ..*seg };
        tcb.note_segment(cx, &seg);
        tcb.arrive_slow(cx, &seg, frame)
    })
}

#[test]
fn fast_and_slow_agree() {
    let (mut fast, mut all) = (0, 0);
    for seed in 1..=400 {
        let [mut a, mut b] = twins(seed);
        let mut random = Random(seed + 99);
        let mut now = at_ms(3000);
        for step in 0..30 {
            now = now.after_us(random.below(3000));
            let (seg, payload) = random_segment(&mut random, &a.tcb, now);
            let before = a.counters.fast_path;
            let (x, y) = (a.arrive(now, &seg, &payload), arrive_slow(&mut b, now, &seg, &payload));
            fast += a.counters.fast_path - before;
            all += 1;
            assert_eq!(x, y, "seed {seed} step {step}: {seg:?}");
            assert_eq!(format!("{:?}", a.tcb), format!("{:?}", b.tcb), "seed {seed} step {step}: {seg:?}");
            assert_eq!(a.drain_bytes(now), b.drain_bytes(now));
            assert_eq!(a.frames_held(), b.frames_held());
            let size = random.below(4000) as usize;
            assert_eq!(a.read(now, size), b.read(now, size));
            assert_eq!(a.write(now, &vec![1; size]), b.write(now, &vec![1; size]));
            assert_eq!(a.drain_bytes(now), b.drain_bytes(now));
        }
    }
    assert!(fast * 5 > all, "the guard lets too little through to prove anything: {fast} of {all}");
}
