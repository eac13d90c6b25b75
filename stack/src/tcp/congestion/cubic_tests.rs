//! CUBIC against the RFC's formulas in floating point, and HyStart++ on a path that fills and on one that only jitters.

use super::super::{Algorithm, Congestion, RateSample, Signal};
use super::*;
use crate::time::SEC;

const MSS: u32 = 1448;

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

fn delivery(now: Instant, acked: u32, rtt_us: u32) -> Delivery {
    Delivery {
        now,
        delivered: acked,
        acked,
        lost: 0,
        prior_in_flight: 0,
        in_flight: 0,
        una: 0,
        nxt: 0,
        rtt_us: Some(rtt_us),
        srtt_us: rtt_us,
        is_recovering: false,
        is_cwnd_limited: true,
        is_paced: false,
        rate: RateSample::default(),
        mss: MSS,
    }
}

/// A connection whose window was `segments` when a segment was lost, and is repaired.
fn after_loss(segments: u32, now: Instant) -> Congestion {
    let mut c = Congestion::new(Algorithm::Cubic, MSS);
    c.set_cwnd(segments * MSS);
    lose(&mut c, now);
    c
}

fn lose(c: &mut Congestion, now: Instant) {
    c.on_congestion(now, Signal::Loss, c.cwnd(), MSS);
    c.set_cwnd(c.ssthresh());
    c.on_recovered(now);
}

fn cubic(c: &Congestion) -> &Cubic {
    match &c.private {
        super::super::Private::Cubic(cubic) => cubic,
        other => panic!("{other:?}"),
    }
}

/// RFC 9438 §4, in seconds and segments, for each acknowledgement.
struct Reference {
    cwnd: f64,
    w_max: f64,
    w_est: f64,
    prior: f64,
    k: f64,
}

impl Reference {
    fn after_loss(segments: f64) -> Reference {
        let cwnd = segments * 0.7;
        let k = ((segments - cwnd) / 0.4).cbrt();
        Reference { cwnd, w_max: segments, w_est: cwnd, prior: segments, k }
    }

    fn cubic(&self, t: f64) -> f64 {
        0.4 * (t - self.k).powi(3) + self.w_max
    }

    fn ack(&mut self, segments: f64, t: f64, rtt: f64) {
        let alpha = if self.w_est < self.prior { 3.0 * 0.3 / 1.7 } else { 1.0 };
        self.w_est += alpha * segments / self.cwnd;
        if self.cubic(t) < self.w_est {
            self.cwnd = self.cwnd.max(self.w_est);
        } else {
            let target = self.cubic(t + rtt).clamp(self.cwnd, 1.5 * self.cwnd);
            self.cwnd += (target - self.cwnd) / self.cwnd * segments;
        }
    }
}

/// Acknowledges two segments at a time, evenly over each round trip; calls `look` with seconds, window and reference.
fn grow(c: &mut Congestion, reference: &mut Reference, rtt_us: u64, seconds: u64, mut look: impl FnMut(f64, f64, f64)) {
    let (start, mut now) = (SEC, SEC as f64);
    while now < (start + seconds * SEC) as f64 {
        c.on_ack(&delivery(at(now as u64), 2 * MSS, rtt_us as u32));
        let t = (now - start as f64) / 1e6;
        reference.ack(2.0, t, rtt_us as f64 / 1e6);
        look(t, f64::from(c.cwnd()) / f64::from(MSS), reference.cwnd);
        now += rtt_us as f64 / (reference.cwnd / 2.0);
    }
}

#[test]
fn window_follows_the_cubic_function_within_a_percent() {
    for (segments, rtt_us, seconds) in [(1000, 100_000, 20), (100, 100_000, 20), (5000, 20_000, 24), (400, 300_000, 60)]
    {
        let mut c = after_loss(segments, at(SEC));
        let mut reference = Reference::after_loss(f64::from(segments));
        let plateau = reference.k;
        let mut worst: f64 = 0.0;
        let mut near_plateau = 0.0;
        grow(&mut c, &mut reference, rtt_us, seconds, |t, cwnd, expected| {
            worst = worst.max((cwnd / expected - 1.0).abs());
            if t < plateau {
                near_plateau = cwnd;
            }
        });
        assert!(worst < 0.01, "{segments} segments, {rtt_us} us: off by {worst}");
        assert!((near_plateau / f64::from(segments) - 1.0).abs() < 0.05, "{near_plateau} at the plateau of {segments}");
        assert!(c.cwnd() > segments * MSS, "it probes beyond");
    }
}

#[test]
fn short_paths_are_renos() {
    // 20 segments, 2 ms: the cubic function would take 2.5 s to the plateau; Reno is there after 12 round trips.
    let mut c = after_loss(20, at(SEC));
    let mut reference = Reference::after_loss(20.0);
    grow(&mut c, &mut reference, 2_000, 1, |_, cwnd, expected| {
        assert!((cwnd / expected - 1.0).abs() < 0.01, "{cwnd} {expected}");
    });
    // 500 round trips: 0.53 segments each up to 20, and one each from there. A growing window makes it a little less.
    let segments = c.cwnd() / MSS;
    assert!((450..=520).contains(&segments), "{segments}");
}

#[test]
fn a_second_loss_below_the_plateau_leaves_room_for_others() {
    let mut c = after_loss(1000, at(SEC));
    assert_eq!((c.cwnd(), cubic(&c).curve.w_max), (1000 * MSS / 10 * 7, 1000 * MSS));
    lose(&mut c, at(SEC));
    assert_eq!(cubic(&c).curve.w_max, 700 * MSS / 20 * 17);
    assert_eq!(c.cwnd(), 490 * MSS);
    // Above it: no such thing.
    c.set_cwnd(800 * MSS);
    lose(&mut c, at(SEC));
    assert_eq!(cubic(&c).curve.w_max, 800 * MSS);
    // The floor.
    c.set_cwnd(2 * MSS);
    lose(&mut c, at(SEC));
    assert_eq!((c.cwnd(), c.ssthresh()), (2 * MSS, 2 * MSS));
}

#[test]
fn time_in_which_the_window_is_not_used_does_not_count() {
    let mut straight = after_loss(1000, at(SEC));
    let mut paused = after_loss(1000, at(SEC));
    let mut slow = after_loss(1000, at(SEC));
    for step in 0..2000 {
        let now = SEC + step * 1000;
        straight.on_ack(&delivery(at(now), 2 * MSS, 100_000));
        // Silence for a minute, at half time.
        let later = now + if step < 1000 { 0 } else { 60 * SEC };
        if step == 1000 {
            paused.on_restart(at(later - 1000));
        }
        paused.on_ack(&delivery(at(later), 2 * MSS, 100_000));
        // A minute in which acknowledgements come, but of a window that was not full.
        if step == 1000 {
            for tick in 1..600 {
                let quiet = Delivery { is_cwnd_limited: false, ..delivery(at(now + tick * 100_000), 2 * MSS, 100_000) };
                slow.on_ack(&quiet);
            }
            slow.on_restart(at(later - 1000));
        }
        slow.on_ack(&delivery(at(later), 2 * MSS, 100_000));
    }
    assert_eq!(paused.cwnd(), straight.cwnd());
    assert_eq!(slow.cwnd(), straight.cwnd());
}

#[test]
fn a_spurious_loss_gives_the_curve_back() {
    let mut c = after_loss(1000, at(SEC));
    let mut twin = after_loss(1000, at(SEC));
    let ack = |c: &mut Congestion, from: u64, to: u64| {
        (from..to).for_each(|ms| c.on_ack(&delivery(at(SEC + ms * 1000), 2 * MSS, 100_000)));
    };
    ack(&mut c, 0, 3000);
    ack(&mut twin, 0, 3000);
    c.on_congestion(at(4 * SEC), Signal::Loss, c.cwnd(), MSS);
    c.set_cwnd(c.ssthresh());
    c.undo();
    ack(&mut c, 3000, 6000);
    ack(&mut twin, 3000, 6000);
    assert_eq!((c.cwnd(), c.ssthresh()), (twin.cwnd(), twin.ssthresh()));
    // So does a spurious timeout.
    c.on_timeout(at(8 * SEC), c.cwnd(), MSS, true);
    assert_eq!(c.cwnd(), MSS);
    c.undo();
    assert_eq!((c.cwnd(), c.ssthresh()), (twin.cwnd(), twin.ssthresh()));
}

#[test]
fn after_a_timeout_the_plateau_is_where_slow_start_ends() {
    let mut c = after_loss(1000, at(SEC));
    c.on_timeout(at(2 * SEC), c.cwnd(), MSS, true);
    assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 490 * MSS));
    c.on_timeout(at(3 * SEC), MSS, MSS, false);
    assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 490 * MSS));
    // Slow start also while the loss is repaired; not in fast recovery.
    let repairing = Delivery { is_recovering: true, ..delivery(at(4 * SEC), MSS, 100_000) };
    c.on_ack(&repairing);
    assert_eq!(c.cwnd(), 2 * MSS);
    for _ in 0..488 {
        c.on_ack(&delivery(at(4 * SEC), MSS, 100_000));
    }
    assert_eq!(c.cwnd(), 490 * MSS);
    c.on_ack(&delivery(at(4 * SEC), MSS, 100_000));
    assert_eq!((cubic(&c).curve.k_ms, cubic(&c).curve.w_max), (0, 490 * MSS));
    c.on_congestion(at(5 * SEC), Signal::Loss, c.cwnd(), MSS);
    let cwnd = c.cwnd();
    c.on_ack(&repairing);
    assert_eq!(c.cwnd(), cwnd);
}

#[test]
fn nothing_overflows() {
    for cwnd in [1, 64, CWND_MAX] {
        for mss in [64, 1448, 65_495] {
            let mut c = Congestion::new(Algorithm::Cubic, mss);
            c.set_cwnd(CWND_MAX);
            c.on_congestion(at(1), Signal::Loss, CWND_MAX, mss);
            c.set_cwnd(cwnd);
            c.on_recovered(at(1));
            let least = c.cwnd();
            // Clocks that disagree, and times beyond all sense.
            for now in [5, 1, 0, 1 << 40, 1 << 62, 3] {
                c.on_ack(&Delivery { mss, srtt_us: u32::MAX, ..delivery(at(now), CWND_MAX, 1) });
                assert!(c.cwnd() <= CWND_MAX && c.cwnd() >= least);
            }
        }
    }
}

#[test]
fn cube_roots_are_exact() {
    for n in (0..2000u64).chain([u64::MAX, 1 << 62, 2_684_354_560_000_000_000]) {
        let root = u128::from(cube_root(n));
        assert!(root.pow(3) <= u128::from(n) && (root + 1).pow(3) > u128::from(n), "{n}: {root}");
    }
}

/// A connection in its first slow start, and what it has seen.
struct SlowStart {
    c: Congestion,
    una: u32,
    now: u64,
}

impl SlowStart {
    fn new() -> SlowStart {
        SlowStart { c: Congestion::new(Algorithm::Cubic, MSS), una: u32::MAX - 5, now: SEC }
    }

    /// One window's worth of acknowledgements; the round trip of the i-th is `rtt_us(i, window in segments then)`.
    fn round(&mut self, mut rtt_us: impl FnMut(u32, u32) -> u32) {
        let segments = self.c.cwnd() / MSS;
        for i in 0..segments {
            let rtt_us = rtt_us(i, self.c.cwnd() / MSS);
            self.una = self.una.wrapping_add(MSS);
            self.now += 20;
            let nxt = self.una.wrapping_add(self.c.cwnd());
            self.c.on_ack(&Delivery { una: self.una, nxt, ..delivery(at(self.now), MSS, rtt_us) });
        }
    }

    fn is_over(&self) -> bool {
        self.c.ssthresh() != CWND_MAX
    }

    fn is_careful(&self) -> bool {
        cubic(&self.c).hystart.is_careful()
    }
}

#[test]
fn slow_start_ends_when_round_trips_grow_before_it_overshoots() {
    // 50 ms, 10 segments a millisecond: 500 segments fit the path, 1500 more its queue. Doubling would go to 2560.
    let mut start = SlowStart::new();
    let mut rounds = 0;
    while !start.is_over() {
        let before = start.c.cwnd();
        start.round(|_, window| 50_000 + window.saturating_sub(500) * 100);
        rounds += 1;
        assert!(start.is_careful() || start.c.cwnd() < 700 * MSS, "{} segments", start.c.cwnd() / MSS);
        assert!(start.c.cwnd() < 2000 * MSS, "{} segments: the queue overflows", start.c.cwnd() / MSS);
        assert!(start.c.cwnd() <= before * 2 && rounds < 14, "{rounds}: {}", start.c.cwnd() / MSS);
    }
    assert!(start.c.cwnd() >= 500 * MSS, "{}", start.c.cwnd() / MSS);
    // And from there it goes on gently.
    let before = start.c.cwnd();
    start.round(|_, _| 60_000);
    assert!(start.c.cwnd() - before <= 2 * MSS);
}

#[test]
fn jitter_does_not_end_slow_start() {
    let mut start = SlowStart::new();
    let mut random = 7u32;
    // Seven rounds: the next one's acknowledgements take more than half a round trip to come, and that does end it.
    for round in 0..7 {
        let before = start.c.cwnd();
        start.round(|_, _| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            50_000 + (random >> 8) % 15_000
        });
        assert_eq!(start.c.cwnd(), 2 * before, "round {round}");
    }
    assert!(!start.is_over() && !start.is_careful());
}

#[test]
fn slow_start_ends_when_half_a_round_trip_is_full_of_acknowledgements() {
    // One in 20 µs: 1250 of them take the half of 50 ms.
    let mut start = SlowStart::new();
    while !start.is_over() {
        start.round(|_, _| 50_000);
        assert!(start.c.cwnd() < 2600 * MSS, "{} segments", start.c.cwnd() / MSS);
    }
    assert!(start.c.cwnd() >= 1250 * MSS, "{} segments", start.c.cwnd() / MSS);
}

#[test]
fn acknowledgements_with_gaps_are_no_train() {
    let mut start = SlowStart::new();
    for _ in 0..5 {
        start.round(|_, _| 50_000);
    }
    for _ in 0..2 {
        let before = start.c.cwnd();
        start.now += 3_000; // nothing came for so long in the midst of it
        start.una = start.una.wrapping_add(MSS);
        let nxt = start.una.wrapping_add(start.c.cwnd());
        start.c.on_ack(&Delivery { una: start.una, nxt, ..delivery(at(start.now + 40_000), MSS, 50_000) });
        assert_eq!(start.c.cwnd(), before + MSS);
    }
    assert!(!start.is_over());
}

#[test]
fn careful_slow_start_becomes_bold_again_when_round_trips_fall() {
    let mut start = SlowStart::new();
    start.round(|_, _| 50_000);
    start.round(|_, _| 50_000);
    // Something else used the path for a while.
    start.round(|_, _| 60_000);
    assert!(start.is_careful() && !start.is_over());
    let before = start.c.cwnd();
    start.round(|_, _| 60_000);
    assert_eq!(start.c.cwnd(), before + before / 4);
    start.round(|_, _| 50_000);
    assert!(!start.is_careful() && !start.is_over());
    let before = start.c.cwnd();
    start.round(|_, _| 50_000);
    assert_eq!(start.c.cwnd(), 2 * before);
}

#[test]
fn slow_start_that_stays_careful_ends_after_five_rounds() {
    let mut start = SlowStart::new();
    start.round(|_, _| 50_000);
    start.round(|_, _| 50_000);
    let mut rounds = 0;
    while !start.is_over() {
        start.round(|_, _| 60_000);
        rounds += 1;
        assert!(rounds < 10);
    }
    assert!((5..=6).contains(&rounds), "{rounds}");
}

#[test]
fn round_trips_longer_by_a_quarter_end_slow_start_within_the_round() {
    let mut start = SlowStart::new();
    start.round(|_, _| 50_000);
    start.round(|_, _| 50_000);
    let before = start.c.cwnd();
    // Not by few samples: one acknowledgement that was late is no queue.
    start.round(|i, _| if i < 7 { 62_500 } else { 50_000 });
    assert_eq!((start.c.cwnd(), start.is_over()), (2 * before, false));
    let before = start.c.cwnd();
    start.round(|_, _| 62_500);
    assert!(start.is_over() && start.c.cwnd() < before + 9 * MSS, "{}", start.c.cwnd() / MSS);
}
