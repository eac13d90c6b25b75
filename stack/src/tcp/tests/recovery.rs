//! Loss recovery as a peer with SACK sees it, and one without: RFC 2018, 2883, 5682, 6675, 6937, 8985.

use super::harness::*;
use super::peer::*;
use crate::time::MS;

const M: u32 = 1460;
/// With timestamps a segment is shorter.
const T: u32 = 1448;

/// The first transmission of the segments whose numbers (counted from 0) are named is lost.
fn lose<'a>(mss: u32, which: &'a [u32]) -> impl FnMut(&Sent) -> Fate + 'a {
    move |s| if s.times == 0 && which.contains(&(s.offset / mss)) { Fate::Lost } else { Fate::Arrives }
}

/// A path whose window has grown to 40 segments or so.
fn grown(sack: bool, timestamps: bool, rtt_ms: u64) -> Path {
    let mut path = Path::new(sack, timestamps, rtt_ms);
    path.write(60 * M as usize);
    path.run(|_| Fate::Arrives);
    assert_eq!((path.resent(), path.host.counters.tlp_probes), (0, 0));
    path.sent.clear();
    path.windows.clear();
    path
}

fn offsets_from(start: u32, mss: u32, which: &[u32]) -> Vec<u32> {
    which.iter().map(|n| start + n * mss).collect()
}

/// Loses the first transmission of what starts at these offsets.
fn lose_at(offsets: Vec<u32>) -> impl FnMut(&Sent) -> Fate {
    move |s| if s.times == 0 && offsets.contains(&s.offset) { Fate::Lost } else { Fate::Arrives }
}

#[test]
fn one_loss_is_repaired_in_one_round_trip() {
    let mut path = Path::new(true, false, 50);
    path.write(10 * M as usize);
    let tenths = path.run(lose(M, &[2]));
    // One for the first, one for the second time.
    assert_eq!((tenths, path.resent()), (20, 1));
    let c = &path.host.counters;
    assert_eq!((c.fast_retransmits, c.rto_expiries, c.retransmits, c.undos), (1, 0, 1, 0));
    assert_eq!(path.host.frames_held(), 0);
}

#[test]
fn a_burst_of_losses_is_repaired_without_a_timeout() {
    for n in [2, 5, 8, 15, 25] {
        let mut path = grown(true, true, 50);
        let start = 60 * M;
        let lost = offsets_from(start, T, &(3..3 + n).collect::<Vec<_>>());
        path.write(40 * T as usize);
        let tenths = path.run(lose_at(lost));
        let c = &path.host.counters;
        assert_eq!((path.resent() as u32, c.rto_expiries, c.fast_retransmits), (n, 0, 1), "{n}");
        assert!(tenths <= 60, "{n}: {tenths}");
    }
}

#[test]
fn every_other_one_lost_is_repaired_without_a_timeout() {
    let mut path = grown(true, false, 50);
    let lost = offsets_from(60 * M, M, &(0..15).map(|n| 2 * n).collect::<Vec<_>>());
    path.write(40 * M as usize);
    path.run(lose_at(lost));
    assert_eq!((path.resent(), path.host.counters.rto_expiries), (15, 0));
}

#[test]
fn the_window_ends_at_ssthresh_and_never_collapses() {
    for n in [1u32, 4, 10] {
        let mut path = grown(true, false, 50);
        let flight = 40 * M;
        let lost = offsets_from(60 * M, M, &(0..n).collect::<Vec<_>>());
        path.write(flight as usize);
        path.run(lose_at(lost));
        let info = path.host.tcb.info(path.now);
        assert_eq!((info.snd_cwnd, info.snd_ssthresh), (flight / 2, flight / 2), "{n}");
        for (cwnd, pipe) in &path.windows {
            assert!(cwnd >= pipe || *pipe > flight / 2, "{n}: {cwnd} {pipe}");
        }
    }
}

#[test]
fn new_data_goes_on_during_recovery() {
    let mut path = grown(true, false, 50);
    path.write(300 * M as usize);
    let start = path.now;
    path.run(lose_at(vec![60 * M]));
    // In no round trip is the path left empty.
    for round in 0..4 {
        let (from, to) = (start.after_us(round * 50 * MS), start.after_us((round + 1) * 50 * MS));
        assert!(path.sent.iter().any(|s| s.at >= from && s.at < to), "round {round}");
    }
    assert_eq!((path.resent(), path.host.counters.rto_expiries), (1, 0));
}

#[test]
fn a_lost_tail_is_probed_after_two_round_trips() {
    for lost in [vec![8, 9], vec![5, 6, 7, 8, 9], (0..10).collect()] {
        let mut path = Path::new(true, false, 100);
        path.write(10 * M as usize);
        let start = path.now;
        path.run(lose(M, &lost));
        let probe = path.sent.iter().find(|s| s.times > 0).unwrap();
        assert_eq!(probe.offset, 9 * M, "the last segment");
        // Two after the last acknowledgement, or the start when there was none.
        let since = if lost.len() == 10 { 200 } else { 300 };
        assert!(probe.at.since_us(start) <= (since + 2) * MS, "{} us", probe.at.since_us(start));
        let c = &path.host.counters;
        assert_eq!((c.tlp_probes, c.rto_expiries, path.resent()), (1, 0, lost.len()));
    }
}

#[test]
fn a_probe_that_repairs_a_loss_halves_the_window() {
    let mut path = Path::new(true, false, 300);
    path.write(10 * M as usize);
    path.run(lose(M, &[9]));
    // One segment may wait for its acknowledgement: the probe goes instead of the timeout.
    let c = &path.host.counters;
    assert_eq!((c.tlp_probes, c.rto_expiries, path.resent()), (1, 0, 1));
    let before = path.host.tcb.info(path.now).snd_cwnd;
    path.write(2 * M as usize);
    path.run(|_| Fate::Arrives);
    assert_eq!(path.host.counters.tlp_recoveries, 1);
    let info = path.host.tcb.info(path.now);
    assert!(info.snd_ssthresh < before && info.snd_cwnd < before, "{} {before}", info.snd_cwnd);
}

#[test]
fn a_probe_for_nothing_leaves_the_window() {
    for dsack in [true, false] {
        let mut path = Path::new(true, false, 100);
        path.dsack = dsack;
        path.write(4 * M as usize);
        // All acknowledgements are late by more than two round trips, and less than a timeout.
        path.run_dry(|s| if s.times == 0 { Fate::Late(115 * MS) } else { Fate::Arrives });
        assert_eq!((path.host.counters.tlp_probes, path.resent()), (1, 1), "{dsack}");
        path.write(M as usize);
        path.run_dry(|_| Fate::Arrives);
        let c = &path.host.counters;
        assert_eq!((c.tlp_recoveries, c.rto_expiries), (0, 0), "{dsack}");
        assert!(path.host.tcb.info(path.now).snd_ssthresh > 1 << 20);
    }
}

#[test]
fn a_probe_is_new_data_when_there_is_some() {
    let mut path = Path::new(true, false, 100);
    path.write(12 * M as usize);
    path.run(lose(M, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let probe = path.sent.iter().find(|s| s.nth == 10).unwrap();
    assert_eq!((probe.offset, probe.times), (10 * M, 0));
    assert_eq!(path.host.counters.rto_expiries, 0);
}

#[test]
fn a_lone_fin_is_probed_for() {
    let mut path = Path::new(true, false, 20);
    path.write(M as usize);
    path.run(|_| Fate::Arrives);
    path.host.shutdown(path.now);
    path.run_dry(|s| if s.times == 0 { Fate::Lost } else { Fate::Arrives });
    assert_eq!((path.sent.len(), path.host.state()), (3, crate::tcp::State::FinWait2));
    assert_eq!((path.host.counters.tlp_probes, path.host.counters.rto_expiries), (1, 0));
}

#[test]
fn a_lost_retransmission_is_found_without_a_timeout() {
    for times in [1, 2, 4] {
        let mut path = grown(true, false, 50);
        path.write(400 * M as usize);
        path.run(|s| if s.offset == 61 * M && s.times <= times { Fate::Lost } else { Fate::Arrives });
        let c = &path.host.counters;
        assert_eq!(
            (c.rto_expiries, c.lost_retransmits, path.resent()),
            (0, times as u64, times + 1),
            "{:?}",
            path.sent
        );
    }
}

#[test]
fn a_lost_retransmission_is_found_by_those_behind_it() {
    // Nothing else is left to send; and behind the hole the peer echoes a timestamp from before all of them.
    for timestamps in [true, false] {
        let len = if timestamps { T } else { M };
        let mut path = grown(true, timestamps, 50);
        let lost = offsets_from(60 * M, len, &[3, 4, 5, 6, 7, 8]);
        path.write(40 * len as usize);
        path.run(|s| {
            let is_lost = lost.contains(&s.offset) && s.times <= usize::from(s.offset == lost[0]);
            if is_lost { Fate::Lost } else { Fate::Arrives }
        });
        let c = &path.host.counters;
        assert_eq!((c.rto_expiries, c.lost_retransmits, path.resent()), (0, 1, 7), "{timestamps}");
    }
}

#[test]
fn a_little_reordering_costs_nothing() {
    // Two overtake: that is no three, and waits for a quarter of a round trip.
    let mut path = Path::new(true, false, 40);
    path.write(10 * M as usize);
    path.run(|s| if s.offset == 7 * M { Fate::Late(8 * MS) } else { Fate::Arrives });
    assert_eq!(path.resent(), 0);
    let info = path.host.tcb.info(path.now);
    assert!(info.reordering >= 3 && info.reord_seen > 0 && info.snd_ssthresh > 1 << 20);
}

/// Every fifth segment is late by a part of the round trip, and is overtaken by many.
fn shuffled(late_us: u64) -> impl FnMut(&Sent) -> Fate {
    move |s| if s.times == 0 && (s.offset / M).is_multiple_of(5) { Fate::Late(late_us) } else { Fate::Arrives }
}

#[test]
fn the_reordering_window_is_learnt() {
    let mut path = grown(true, false, 100);
    path.write(30 * M as usize);
    path.run_dry(shuffled(20 * MS));
    let first = path.resent();
    assert!(first > 0);
    // Reordering is known now: a quarter of a round trip is waited.
    path.write(30 * M as usize);
    path.run_dry(shuffled(20 * MS));
    assert_eq!(path.resent(), first);
    // Later than that: it goes again too early, until duplicates have widened the window far enough.
    let mut rounds = vec![];
    for _ in 0..6 {
        let before = path.resent();
        path.write(30 * M as usize);
        path.run_dry(shuffled(90 * MS));
        rounds.push(path.resent() - before);
    }
    assert!(rounds[0] > 0 && rounds[5] == 0, "{rounds:?}");
    let c = &path.host.counters;
    assert!(c.dsacks > 0 && c.undos > 0 && c.rto_expiries == 0);
}

#[test]
fn the_reordering_timer_finds_what_no_acknowledgement_would() {
    let mut path = grown(true, false, 100);
    path.write(30 * M as usize);
    path.run_dry(shuffled(20 * MS));
    let before = path.resent();
    // The third from the end is lost: two follow, which say nothing for half a round trip: a duplicate has widened
    // the window to that.
    let start = path.now;
    path.write(10 * M as usize);
    let offset = (60 + 30 + 7) * M;
    path.run_dry(lose_at(vec![offset]));
    assert_eq!(path.resent(), before + 1);
    let again = path.sent.iter().rfind(|s| s.times > 0).unwrap();
    let waited_ms = again.at.since_us(start) / MS;
    assert!((145..=155).contains(&waited_ms), "{waited_ms}");
    assert_eq!((path.host.counters.rack_timeouts, path.host.counters.rto_expiries), (1, 0));
}

#[test]
fn an_early_timeout_is_undone() {
    for (sack, timestamps) in KIND {
        let mut path = grown(sack, timestamps, 50);
        let mss = if timestamps { T } else { M };
        let (cwnd, ssthresh) = {
            let info = path.host.tcb.info(path.now);
            (info.snd_cwnd, info.snd_ssthresh)
        };
        path.write(20 * mss as usize);
        // All are late by much, as when a radio link pauses: longer than the timeout.
        let end = path.now.after_us(600 * MS);
        let mut held = |s: &Sent| Fate::Late(end.since_us(s.at));
        while path.now < end && path.step(end, &mut held) {}
        assert!(path.host.counters.rto_expiries >= 1);
        assert!(path.host.tcb.info(path.now).snd_cwnd < cwnd);
        path.write(20 * mss as usize);
        path.run_dry(|_| Fate::Arrives);
        let (info, c) = (path.host.tcb.info(path.now), &path.host.counters);
        assert_eq!(c.spurious_rtos, 1, "SACK {sack}, timestamps {timestamps}");
        assert!(info.snd_cwnd >= cwnd && info.snd_ssthresh >= ssthresh, "{} {cwnd}", info.snd_cwnd);
        assert!(path.resent() <= 4, "{} {sack} {timestamps} {:?}", path.resent(), path.sent);
    }
}

#[test]
fn a_timeout_that_was_right_is_not_undone() {
    for (sack, timestamps) in KIND {
        let mut path = grown(sack, timestamps, 50);
        let mss = if timestamps { T } else { M };
        path.write(20 * mss as usize);
        // The path is dead for a while: all of it is lost, the first retransmissions too.
        let end = path.now.after_us(700 * MS);
        path.run_dry(|s| if s.at < end { Fate::Lost } else { Fate::Arrives });
        let c = &path.host.counters;
        assert!(c.rto_expiries >= 1);
        assert_eq!((c.spurious_rtos, c.undos), (0, 0), "SACK {sack}, timestamps {timestamps}");
        assert_eq!(path.host.frames_held(), 0);
    }
}

#[test]
fn duplicates_of_everything_resent_undo_a_recovery() {
    let mut path = grown(true, false, 100);
    let before = path.host.tcb.info(path.now);
    path.write(30 * M as usize);
    // The first is overtaken by the rest, once, by almost a round trip.
    path.run_dry(|s| if s.offset == 60 * M && s.times == 0 { Fate::Late(90 * MS) } else { Fate::Arrives });
    let (info, c) = (path.host.tcb.info(path.now), &path.host.counters);
    assert_eq!((c.fast_retransmits, c.undos, c.dsacks, path.resent()), (1, 1, 1, 1));
    assert!(info.snd_cwnd >= before.snd_cwnd && info.snd_ssthresh >= before.snd_ssthresh);
}

#[test]
fn a_timestamp_undoes_a_recovery() {
    let mut path = grown(true, true, 100);
    path.dsack = false;
    let before = path.host.tcb.info(path.now);
    path.write(30 * T as usize);
    path.run_dry(|s| if s.offset == 60 * M && s.times == 0 { Fate::Late(90 * MS) } else { Fate::Arrives });
    let (info, c) = (path.host.tcb.info(path.now), &path.host.counters);
    assert_eq!((c.fast_retransmits, c.undos, path.resent()), (1, 1, 1));
    assert!(info.snd_cwnd >= before.snd_cwnd && info.snd_ssthresh >= before.snd_ssthresh);
}

#[test]
fn a_peer_that_forgets_gets_it_again() {
    let mut path = Path::new(true, false, 50);
    path.write(10 * M as usize);
    // All but the first arrive and are reported, then are thrown away. The first retransmissions are lost.
    let end = path.now.after_us(60 * MS);
    let mut first = |s: &Sent| if s.offset == 0 { Fate::Lost } else { Fate::Arrives };
    while path.step(end, &mut first) {}
    assert_eq!(path.host.tcb.info(path.now).sacked, 9 * M);
    path.renege();
    path.run(|_| Fate::Arrives);
    assert_eq!(path.host.counters.sack_reneging, 1);
    assert_eq!(path.host.frames_held(), 0);
}

#[test]
fn without_sack_duplicates_do() {
    let mut path = grown(false, false, 50);
    let lost = offsets_from(60 * M, M, &[3, 9, 20]);
    path.write(40 * M as usize);
    path.run(lose_at(lost));
    let c = &path.host.counters;
    assert_eq!((path.resent(), c.rto_expiries, c.fast_retransmits, c.sack_blocks), (3, 0, 1, 0));
}

#[test]
fn numbers_may_wrap_in_the_middle() {
    for wrap in 0..12u32 {
        let iss = u32::MAX - wrap * M - wrap;
        let mut path = Path::with(true, false, 50, iss, 256 << 10);
        path.write(30 * M as usize);
        path.run_dry(|s| match s.offset / M {
            3 if s.times < 2 => Fate::Lost,
            5 | 6 | 11 if s.times == 0 => Fate::Lost,
            8 => Fate::Late(7 * MS),
            _ => Fate::Arrives,
        });
        let c = &path.host.counters;
        assert_eq!((c.rto_expiries, c.sack_garbage), (0, 0), "{wrap}");
        assert_eq!(path.host.frames_held(), 0);
    }
}

#[test]
fn blocks_that_make_no_sense_are_counted_and_do_nothing() {
    let mut path = Path::new(true, false, 50);
    path.write(10 * M as usize);
    path.host.drain(path.now);
    path.acknowledge(2 * M, &[], None);
    let nonsense: [&[(u32, u32)]; 7] = [
        // Empty, backwards, beyond what was sent, from below the acknowledgement, everything, far below.
        &[(4 * M, 4 * M)],
        &[(5 * M, 4 * M)],
        &[(4 * M, 11 * M)],
        &[(M, 4 * M)],
        &[(0x8000_0000, 0x7fff_ffff)],
        &[(0xf000_0000, 0xf000_1000)],
        &[(11 * M, 12 * M)],
    ];
    for (i, blocks) in nonsense.iter().enumerate() {
        for _ in 0..5 {
            path.acknowledge(2 * M, blocks, None);
        }
        let info = path.host.tcb.info(path.now);
        assert_eq!((info.sacked, info.lost, path.host.counters.sack_garbage), (0, 0, 5 * (i as u64 + 1)), "{blocks:?}");
    }
    assert_eq!((path.host.counters.fast_retransmits, path.host.counters.dsacks), (0, 0));
    assert!(!path.host.tcb.wants_transmit());
    // A report of a duplicate is counted, but nothing was sent twice: it widens nothing.
    path.acknowledge(2 * M, &[(M, 2 * M)], None);
    assert_eq!((path.host.counters.dsacks, path.host.counters.undos), (1, 0));
    // A block that covers a frame in part says nothing of the rest.
    path.acknowledge(2 * M, &[(3 * M + 1, 5 * M - 1)], None);
    assert_eq!(path.host.tcb.info(path.now).sacked, 0);
    path.acknowledge(2 * M, &[(3 * M, 5 * M)], None);
    assert_eq!(path.host.tcb.info(path.now).sacked, 2 * M);
}

#[test]
fn any_blocks_at_all_leave_the_scoreboard_whole() {
    for seed in 1..=300u64 {
        let mut random = Random(seed);
        let mut path = Path::new(true, false, 20);
        path.write(40 * M as usize);
        path.host.drain(path.now);
        let mut ack = 0;
        for _ in 0..60 {
            path.now = path.now.after_us(random.below(30_000));
            let flight = path.host.tcb.snd.flight().max(1);
            let near = |random: &mut Random| match random.below(4) {
                0 => random.next() as u32,
                1 => ack + random.below(u64::from(flight) + 2000) as u32,
                _ => (ack + random.below(u64::from(flight)) as u32) / M * M,
            };
            let blocks: Vec<_> = (0..random.below(5)).map(|_| (near(&mut random), near(&mut random))).collect();
            if random.chance(20) {
                ack += random.below(u64::from(flight)) as u32;
            }
            path.acknowledge(ack, &blocks, None);
            if random.chance(30)
                && let Some(at) = path.host.tcb.deadline()
            {
                path.now = path.now.max(at);
                path.host.expire(path.now);
            }
            path.host.drain(path.now);
        }
        // And the connection goes on.
        while path.host.tcb.unacked_bytes() > 0 {
            let all = path.host.tcb.snd.nxt.since(crate::tcp::Seq(OUR_ISS) + 1);
            path.acknowledge(all, &[], None);
            path.host.drain(path.now);
        }
        assert_eq!((path.host.tcb.unacked_bytes(), path.host.frames_held()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_narrow_path_splits_what_is_lost() {
    let mut path = grown(true, false, 50);
    path.write(20 * M as usize);
    let end = path.now.after_us(60 * MS);
    let mut fate = lose_at(offsets_from(60 * M, M, &[0, 1, 2, 3, 9]));
    while path.step(end, &mut fate) {}
    let una = path.host.tcb.snd.una;
    path.host.with(path.now, |tcb, cx| tcb.handle_icmp(cx, crate::tcp::IcmpKind::TooBig { mtu: 1000 }, una));
    path.run_dry(|s| {
        assert!(s.times == 0 || s.len <= 960);
        Fate::Arrives
    });
    assert_eq!(path.host.frames_held(), 0);
}

#[test]
fn large_flights_are_not_walked_for_each_acknowledgement() {
    // Three thousand frames, the first lost: the time must not grow with the square.
    let mut path = Path::with(true, false, 50, OUR_ISS, 8 << 20);
    path.host.tcb.snd.shift = 8;
    path.host.tcb.snd.wnd = 16 << 20;
    path.host.tcb.congestion.set_cwnd(3000 * M);
    path.write(3000 * M as usize);
    path.host.drain(path.now);
    assert_eq!(path.host.tcb.snd.flight(), 3000 * M);
    let looked = |path: &Path| path.host.tcb.snd.board.looked_at;
    let before = looked(&path);
    for n in 2..3000 {
        path.acknowledge(0, &[(M, n * M)], None);
    }
    assert_eq!(path.host.tcb.info(path.now).sacked, 2998 * M);
    assert!(looked(&path) - before < 4 * 3000, "{}", looked(&path) - before);
}

#[test]
fn a_lost_frame_in_the_ring_waits_for_it() {
    let mut path = Path::new(true, false, 50);
    path.host.holds_ring = true;
    path.write(8 * M as usize);
    path.host.drain(path.now);
    path.now = path.now.after_us(50 * MS);
    path.acknowledge(0, &[(M, 8 * M)], None);
    assert_eq!(path.host.counters.fast_retransmits, 1);
    assert!(path.host.drain(path.now).is_empty());
    path.host.holds_ring = false;
    path.host.complete();
    // The next acknowledgement looks again, and so does a timer.
    let at = path.host.tcb.deadline().unwrap();
    assert!(at <= path.now.after_us(10 * MS));
    path.acknowledge(0, &[(M, 8 * M)], None);
    assert_eq!(path.host.drain(path.now).len(), 1);
    assert_eq!(path.host.counters.rto_expiries, 0);
}

#[test]
fn a_user_timeout_counts_from_the_probe() {
    let mut path = Path::new(true, false, 20);
    path.host.tcb.options_mut().user_timeout_ms = 3000;
    path.write(5 * M as usize);
    let start = path.now;
    path.host.drain(path.now);
    while let Some(at) = path.host.tcb.deadline() {
        path.now = at;
        path.host.expire(at);
        path.host.drain(at);
    }
    assert_eq!(path.host.tcb.take_error(), Some(crate::tcp::TcpError::TimedOut));
    assert_eq!((path.now.since_us(start) / MS, path.host.counters.tlp_probes), (3000, 1));
}

/// A path that loses, delays, repeats what was lost before, and cuts out, as a seed says.
fn weather(seed: u64) -> impl FnMut(&Sent) -> Fate {
    let mut random = Random(seed * 7919 + 1);
    let (loss, late) = ([0, 1, 5, 20][seed as usize % 4], [0, 3, 30][seed as usize % 3]);
    let spread_us = 1 + random.below(60_000);
    let mut outage = 0;
    move |_| {
        if outage > 0 || seed.is_multiple_of(5) && random.below(200) == 0 {
            outage = if outage > 0 { outage - 1 } else { 8 };
            return Fate::Lost;
        }
        match () {
            () if random.chance(loss) => Fate::Lost,
            () if random.chance(late) => Fate::Late(random.below(spread_us)),
            () => Fate::Arrives,
        }
    }
}

#[test]
fn everything_is_repaired_in_any_weather() {
    for seed in 1..=240u64 {
        let (sack, timestamps) = KIND[seed as usize / 12 % 4];
        let mut path = Path::with(sack, timestamps, 1 + seed % 40, (seed as u32) << 26, 256 << 10);
        let mut fate = weather(seed);
        for _ in 0..3 {
            path.write(100_000);
            path.run(&mut fate);
        }
        path.host.shutdown(path.now);
        path.run_dry(&mut fate);
        assert_eq!(path.host.frames_held(), 0, "seed {seed}");
        let (c, info) = (&path.host.counters, path.host.tcb.info(path.now));
        assert_eq!((info.lost, info.sacked, info.retrans, c.sack_garbage), (0, 0, 0, 0), "seed {seed}");
        if sack && seed % 4 == 0 {
            // Nothing is lost but by outages: what goes again beyond that is bounded by what was reordered.
            assert!(path.resent() <= path.sent.len() / 3, "seed {seed}: {} of {}", path.resent(), path.sent.len());
        }
        assert!(info.snd_cwnd >= M / 2, "seed {seed}");
    }
}

#[test]
fn with_sack_a_lossy_path_hardly_ever_waits_for_the_timer() {
    let (mut timeouts, mut losses) = (0, 0);
    for seed in 1..=20u64 {
        let mut path = Path::new(true, true, 20);
        let mut random = Random(seed);
        for _ in 0..4 {
            path.write(300_000);
            path.run(|_| {
                let is_lost = random.chance(2);
                losses += u64::from(is_lost);
                if is_lost { Fate::Lost } else { Fate::Arrives }
            });
        }
        timeouts += path.host.counters.rto_expiries;
    }
    assert!(losses > 300 && timeouts * 20 < losses, "{timeouts} timeouts, {losses} losses");
}
