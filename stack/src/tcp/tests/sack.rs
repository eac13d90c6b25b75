//! What an acknowledgement says of octets beyond it (RFC 2018 §4) and of those that came twice (RFC 2883).

use super::harness::*;
use crate::tcp::{Algorithm, Options, Seq, Tcb};
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;
/// RCV.NXT of [`selective`].
const FIRST: u32 = PEER_ISS + 1;

/// A connection with a peer that agreed on selective acknowledgements; with timestamps, its clock stands at 1.
fn selective(tunables: Tunables) -> Host {
    let mut syn = segment(PEER_ISS, 0, Flags::SYN);
    (syn.options.mss, syn.options.sack_permitted) = (Some(MSS), true);
    syn.options.timestamp = (tunables.timestamps != 0).then_some((1, 0));
    let options = Options::new(&tunables);
    let now = at_ms(1000);
    let mut host = Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &options), now);
    assert!(host.drain(at_ms(1000))[0].options.sack_permitted);
    say(&mut host, 0, 0);
    assert!(!host.tcb.wants_transmit());
    host
}

fn plain() -> Host {
    selective(Tunables { timestamps: 0, ..Tunables::default() })
}

/// The octets `from..from + len` of the peer's stream arrive.
fn say(host: &mut Host, from: u32, len: u16) {
    let mut seg = segment(FIRST + from, OUR_ISS + 1, ACK);
    seg.options.timestamp = host.tcb.ts.on.then_some((1, 0));
    host.arrive(at_ms(1001), &seg, &vec![7; usize::from(len)]);
}

/// The acknowledgement that goes now, and its blocks, both counted from [`FIRST`].
fn hear(host: &mut Host) -> (u32, Vec<(u32, u32)>) {
    let sent = host.drain(at_ms(1001));
    assert_eq!(sent.len(), 1);
    counted(&sent[0])
}

fn counted(seg: &Segment) -> (u32, Vec<(u32, u32)>) {
    let offset = |seq: Seq| seq.since(Seq(FIRST));
    (offset(seg.ack), seg.options.sack.as_slice().iter().map(|(l, r)| (offset(*l), offset(*r))).collect())
}

#[test]
fn the_newest_block_comes_first_and_as_many_as_fit() {
    for (timestamps, fit) in [(0, 4), (1, 3)] {
        let mut host = selective(Tunables { timestamps, ..Tunables::default() });
        let mut expected = Vec::new();
        for i in 0..6u32 {
            say(&mut host, 2000 * (i + 1), 1000);
            expected.insert(0, (2000 * (i + 1), 2000 * (i + 1) + 1000));
            expected.truncate(fit);
            assert_eq!(hear(&mut host), (0, expected.clone()));
        }
    }
}

#[test]
fn the_first_block_is_the_whole_of_what_the_segment_joined() {
    let mut host = plain();
    for at in [2000, 4000, 6000, 8000, 10_000, 12_000] {
        say(&mut host, at, 1000);
        hear(&mut host);
    }
    // That block is not among the four remembered ones.
    say(&mut host, 3000, 500);
    assert_eq!(hear(&mut host).1[0], (2000, 3500));
    say(&mut host, 3500, 500);
    assert_eq!(hear(&mut host).1, [(2000, 5000), (12_000, 13_000), (10_000, 11_000), (8000, 9000)]);
    say(&mut host, 11_000, 1000);
    assert_eq!(hear(&mut host).1, [(10_000, 13_000), (2000, 5000), (8000, 9000)]);
}

#[test]
fn a_filled_hole_ends_its_block() {
    let mut host = plain();
    say(&mut host, 1000, 1000);
    say(&mut host, 3000, 1000);
    assert_eq!(hear(&mut host), (0, vec![(3000, 4000), (1000, 2000)]));
    say(&mut host, 0, 1000);
    assert_eq!(hear(&mut host), (2000, vec![(3000, 4000)]));
    say(&mut host, 2000, 1000);
    assert_eq!(hear(&mut host), (4000, vec![]));
    assert_eq!(host.read(at_ms(1001), 9999).len(), 4000);
}

#[test]
fn without_an_agreement_there_are_no_blocks() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(FIRST + 1000, 1001, ACK), &[1; 1000]);
    assert!(host.drain(at_ms(1001))[0].options.sack.is_empty());
    let mut host = selective(Tunables { timestamps: 0, sack: 1, dsack: 0, ..Tunables::default() });
    say(&mut host, 0, 100);
    hear_delayed(&mut host);
    say(&mut host, 0, 100);
    assert_eq!(hear(&mut host), (100, vec![]));
}

fn hear_delayed(host: &mut Host) {
    host.tcb.acknowledge_now();
    hear(host);
}

#[test]
fn what_came_twice_is_reported_once_and_first() {
    let mut host = plain();
    say(&mut host, 0, 1000);
    hear_delayed(&mut host);
    // Below RCV.NXT, all of it (RFC 2883 §4.1.1).
    say(&mut host, 200, 300);
    assert_eq!(hear(&mut host), (1000, vec![(200, 500)]));
    // In part: what is new of it is taken.
    say(&mut host, 900, 600);
    host.tcb.acknowledge_now();
    assert_eq!(hear(&mut host), (1500, vec![(900, 1000)]));
    // Within a block, which then comes second (§4.1.2).
    say(&mut host, 3000, 1000);
    say(&mut host, 5000, 1000);
    hear(&mut host);
    say(&mut host, 3200, 300);
    assert_eq!(hear(&mut host), (1500, vec![(3200, 3500), (3000, 4000), (5000, 6000)]));
    say(&mut host, 7000, 1000);
    assert_eq!(hear(&mut host), (1500, vec![(7000, 8000), (3000, 4000), (5000, 6000)]), "it was told");
    // In front of a block, and behind it (§4.1.3).
    say(&mut host, 3500, 1000);
    assert_eq!(hear(&mut host).1[..2], [(3500, 4000), (3000, 4500)]);
    say(&mut host, 2500, 1000);
    assert_eq!(hear(&mut host).1[..2], [(3000, 3500), (2500, 4500)]);
    // Over several.
    say(&mut host, 4800, 1400);
    assert_eq!(hear(&mut host).1[..2], [(5000, 6000), (4800, 6200)]);
    // What fills the hole, and more.
    say(&mut host, 1500, 1460);
    assert_eq!(hear(&mut host), (4500, vec![(2500, 2960), (4800, 6200), (7000, 8000)]));
}

#[test]
fn duplicates_that_the_first_step_turns_away_are_reported_too() {
    let mut host = selective(Tunables::default());
    say(&mut host, 0, 1000);
    hear_delayed(&mut host);
    say(&mut host, 1000, 1000);
    hear_delayed(&mut host);
    say(&mut host, 0, 900);
    assert_eq!(hear(&mut host), (2000, vec![(0, 900)]));
    // Beyond the window nothing came before.
    say(&mut host, 500_000, 900);
    assert_eq!(hear(&mut host), (2000, vec![]));
}

#[test]
fn a_full_segment_has_no_room_for_blocks_so_they_go_first() {
    let mut host = plain();
    say(&mut host, 1000, 1000);
    host.write(at_ms(1001), &[1; 1460 + 1448]);
    let sent = host.drain(at_ms(1001));
    let what: Vec<_> = sent.iter().map(|s| (s.payload_len, counted(s).1)).collect();
    assert_eq!(what, [(0, vec![(1000, 2000)]), (1460, vec![]), (1448, vec![(1000, 2000)])]);
    assert!(sent.iter().all(|s| usize::from(s.payload_len + s.payload_off) <= 1480));
}

#[test]
fn with_blocks_the_window_may_move_while_there_is_a_hole() {
    let mut host = plain();
    for i in 0..20 {
        say(&mut host, i * 1460, 1460);
        host.drain(at_ms(1001));
    }
    say(&mut host, 21 * 1460, 1460);
    let before = (host.drain(at_ms(1001))[0].window, host.tcb.rcv.edge);
    host.read(at_ms(1001), 20 * 1460);
    say(&mut host, 22 * 1460, 1460);
    let after = host.drain(at_ms(1001))[0].window;
    assert!(after > before.0 && host.tcb.rcv.edge.is_after(before.1), "{} then {after}", before.0);
}

#[test]
fn a_segment_at_the_limit_takes_the_place_of_what_lies_highest() {
    let mut host = selective(Tunables { timestamps: 0, reassembly_frames: 16, ..Tunables::default() });
    for i in 0..16 {
        say(&mut host, 20_000 + 2000 * i, 1000);
    }
    assert_eq!(host.tcb.frames_out_of_order(), 16);
    host.drain(at_ms(1001));
    say(&mut host, 55_000, 1000);
    assert_eq!(host.tcb.frames_out_of_order(), 16, "nothing goes for what is the highest of all");
    say(&mut host, 10_000, 1000);
    assert_eq!(host.tcb.frames_out_of_order(), 15);
    assert_eq!(host.counters.drops.of(crate::drops::Drop::ReassemblyPruned), 2);
    let blocks = hear(&mut host).1;
    assert_eq!((blocks[0], blocks.len()), ((10_000, 11_000), 3));
    assert!(blocks.iter().all(|b| b.1 <= 47_000), "what went is not reported any more: {blocks:?}");
    host.with(at_ms(1001), |tcb, cx| tcb.rcv.out_of_order.check(cx.frames));
}

#[test]
fn every_other_octet_costs_a_bounded_search_and_a_bounded_number_of_frames() {
    for reversed in [false, true] {
        let tunables = Tunables { timestamps: 0, ..Tunables::default() };
        let mut host = selective(tunables);
        host.tcb.rcv.space = 4 << 20;
        for i in 0..2000 {
            say(&mut host, if reversed { 10_000 - 2 * i } else { 10_000 + 2 * i }, 1);
        }
        assert!(host.tcb.frames_out_of_order() <= 1024, "{}", host.tcb.frames_out_of_order());
        host.with(at_ms(1001), |tcb, cx| tcb.rcv.out_of_order.check(cx.frames));
    }
}

#[test]
fn small_pieces_that_come_backwards_share_frames_as_well() {
    let mut host = plain();
    for i in (0..100).rev() {
        say(&mut host, 1000 + i, 1);
    }
    assert_eq!(host.frames_held(), 1);
    say(&mut host, 0, 1000);
    assert_eq!(host.tcb.available(), 1100);
}

#[test]
fn the_block_that_a_duplicate_lies_in_is_the_next_though_another_grew() {
    let mut host = plain();
    say(&mut host, 2000, 1000);
    hear(&mut host);
    say(&mut host, 5000, 1000);
    hear(&mut host);
    // Two segments come at once: the one again, the other new.
    say(&mut host, 2000, 1000);
    say(&mut host, 6000, 1000);
    assert_eq!(hear(&mut host), (0, vec![(2000, 3000), (2000, 3000), (5000, 7000)]));
}

#[test]
fn a_syn_with_data_that_comes_again_reports_the_data() {
    let mut host = plain();
    say(&mut host, 0, MSS);
    say(&mut host, u32::from(MSS), MSS);
    assert_eq!(hear(&mut host).0, 2 * u32::from(MSS));
    let syn = segment(PEER_ISS, 0, Flags::SYN);
    host.arrive(at_ms(1001), &syn, &[7; 500]);
    assert_eq!(hear(&mut host), (2 * u32::from(MSS), vec![(0, 500)]));
}

#[test]
fn a_window_is_a_segment_at_least_however_little_is_in_flight() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        let mut host = selective(Tunables { timestamps: 0, congestion: algorithm as u32, ..Tunables::default() });
        host.tcb.set_nodelay(true);
        for i in 0..5 {
            host.write(at_ms(1001), &[i; 2]);
            assert_eq!(host.drain(at_ms(1001)).len(), 1);
        }
        // The first is lost, and acknowledgements come one by one.
        for i in 2..5 {
            let mut ack = segment(FIRST, OUR_ISS + 1, ACK);
            ack.options.sack.push(Seq(OUR_ISS + 3), Seq(OUR_ISS + 1 + 2 * i));
            host.arrive(at_ms(1100), &ack, b"");
            host.drain(at_ms(1100));
            let info = host.tcb.info(at_ms(1100));
            assert!(info.snd_cwnd >= info.snd_mss, "{algorithm:?}: {}", info.snd_cwnd);
        }
        assert_eq!(host.counters.fast_retransmits, 1);
    }
}
