//! What frames being few does to one connection.

use super::harness::*;
use crate::buf::Pressure;
use crate::drops::Drop;
use crate::tcp::Options;
use crate::tunables::Tunables;
use crate::wire::tcp::Flags;

const ACK: Flags = Flags::ACK;

fn press(host: &mut Host, pressure: Pressure) {
    host.memory.frames().set_pressure(pressure);
}

#[test]
fn the_right_edge_stays_and_never_moves_left() {
    let mut host = established_with(Tunables { timestamps: 0, ..Tunables::default() });
    let edge = host.tcb.rcv.edge;
    press(&mut host, Pressure::Low);
    let mut seq = host.tcb.rcv.nxt.0;
    for round in 0..60 {
        let now = at_ms(1001 + round);
        host.arrive(now, &segment(seq, 1001, ACK), &[1; 1000]);
        assert_eq!(host.with(now, |tcb, cx| tcb.read(cx, &mut [0; 4096], false)), 1000);
        host.drain(now);
        seq += 1000;
        let promised = host.tcb.rcv.edge.since(host.tcb.rcv.nxt);
        assert!(!host.tcb.rcv.edge.is_before(edge) && (promised >= 1000), "round {round}: {promised}");
    }
    assert!(host.tcb.rcv.window() <= Pressure::Low.allowance(), "{}", host.tcb.rcv.window());
    press(&mut host, Pressure::None);
    host.arrive(at_ms(1100), &segment(seq, 1001, ACK), &[1; 1000]);
    host.with(at_ms(1100), |tcb, cx| tcb.read(cx, &mut [0; 4096], false));
    assert!(host.drain(at_ms(1100)).len() == 1, "a window update goes out");
    assert!(host.tcb.rcv.window() >= 60_000);
}

#[test]
fn a_new_connection_announces_little_and_keeps_its_word() {
    let tunables = Tunables::default();
    for (pressure, window) in [(Pressure::None, 65535), (Pressure::Low, 8192), (Pressure::Exhausted, 2048)] {
        let mut host = Host::connecting(at_ms(1), 1, None, tunables);
        press(&mut host, pressure);
        let options = Options::new(&tunables);
        let tcb = host.with(at_ms(1), |_, cx| crate::tcp::Tcb::connect(cx, flow(1, 2), 1, 0, MSS, &options));
        host.tcb = tcb;
        press(&mut host, Pressure::None);
        let syn = host.drain(at_ms(1));
        assert_eq!((syn.len(), syn[0].window), (1, window));
    }
}

#[test]
fn whoever_holds_frames_gets_no_more_of_them_and_whoever_reads_does() {
    let mut host = established_with(Tunables { timestamps: 0, ..Tunables::default() });
    let mut seq = host.tcb.rcv.nxt.0;
    let refused = |host: &Host| host.counters.drops.of(Drop::FramePressure);
    press(&mut host, Pressure::Exhausted);
    host.arrive(at_ms(1001), &segment(seq, 1001, ACK), &[1; 1000]);
    assert_eq!((host.tcb.available(), refused(&host)), (0, 1), "it never read anything");
    press(&mut host, Pressure::Critical);
    host.arrive(at_ms(1002), &segment(seq, 1001, ACK), &[1; 1000]);
    seq += 1000;
    host.arrive(at_ms(1003), &segment(seq, 1001, ACK), &[2; 1400]);
    assert_eq!((host.tcb.available(), refused(&host)), (1000, 2), "it holds a frame");
    assert_eq!(host.drain(at_ms(1003)).last().map(|s| s.ack.0), Some(seq), "the peer hears where we are");
    host.arrive(at_ms(1004), &segment(seq, 1001, ACK), &[3; 900]);
    seq += 900;
    assert_eq!((host.tcb.available(), host.tcb.rcv.queue.frames()), (1900, 1), "it fits behind what is there");
    host.arrive(at_ms(1005), &segment(seq + 1400, 1001, ACK), &[4; 1400]);
    assert_eq!(host.tcb.frames_out_of_order(), 0);
    press(&mut host, Pressure::Exhausted);
    host.with(at_ms(1006), |tcb, cx| tcb.read(cx, &mut [0; 4096], false));
    host.arrive(at_ms(1006), &segment(seq, 1001, ACK), &[5; 1400]);
    assert_eq!(host.tcb.available(), 1400, "it reads what it gets");
    assert_eq!(host.counters.drops.of(Drop::ReassemblyFull), 1);
}

#[test]
fn few_frames_leave_little_room_to_write() {
    let mut host = established();
    press(&mut host, Pressure::Low);
    assert_eq!(host.write(at_ms(1001), &[1; 50_000]), 8192);
    press(&mut host, Pressure::Critical);
    assert_eq!(host.write(at_ms(1001), &[1; 50_000]), 0);
    let mut host = established();
    press(&mut host, Pressure::Critical);
    assert_eq!(host.write(at_ms(1001), &[1; 50_000]), 2048, "but never nothing");
}

#[test]
fn pruned_octets_come_again() {
    let mut host = established_with(Tunables { timestamps: 0, ..Tunables::default() });
    let seq = host.tcb.rcv.nxt.0;
    host.arrive(at_ms(1001), &segment(seq + 1000, 1001, ACK), &[2; 1000]);
    assert_eq!(host.tcb.frames_out_of_order(), 1);
    host.with(at_ms(1002), |tcb, cx| tcb.prune(cx.frames));
    host.arrive(at_ms(1003), &segment(seq, 1001, ACK), &[1; 1000]);
    host.arrive(at_ms(1004), &segment(seq + 1000, 1001, ACK), &[2; 1000]);
    let mut out = [0; 4096];
    assert_eq!(host.with(at_ms(1005), |tcb, cx| tcb.read(cx, &mut out, false)), 2000);
    assert!(out[..1000].iter().all(|b| *b == 1) && out[1000..2000].iter().all(|b| *b == 2));
}

#[test]
fn cutting_what_got_too_long_leaves_the_last_frames() {
    let mut host = Host::make_with(
        96,
        Tunables { timestamps: 0, mtu_probing: 0, ..Tunables::default() },
        |cx| {
            let mut syn = segment(PEER_ISS, 0, Flags::SYN);
            syn.options.mss = Some(MSS);
            crate::tcp::Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &Options::new(cx.tunables))
        },
        at_ms(1000),
    );
    host.drain(at_ms(1000));
    host.arrive(at_ms(1000), &segment(PEER_ISS + 1, OUR_ISS + 1, ACK), b"");
    while host.memory.frames().free_count() > 40 && host.write(at_ms(1001), &[1; MSS as usize]) > 0 {}
    let written = host.tcb.unacked_bytes();
    assert!(host.memory.frames().free_count() <= 40 && written > 80 * 1000, "{written}");
    assert!(host.tcb.limit_path(576));
    let (mut now, mut una) = (at_ms(1001), OUR_ISS + 1);
    while una != OUR_ISS + 1 + written {
        for seg in host.drain(now) {
            una = una.max(seg.end().0);
        }
        assert!(host.memory.frames().free_count() >= 16, "{}", host.memory.frames().free_count());
        now = now.after_us(10_000);
        host.arrive(now, &segment(PEER_ISS + 1, una, ACK), b"");
        host.expire(now);
        assert!(now < at_ms(60_000), "it goes on nevertheless: {una}");
    }
}
