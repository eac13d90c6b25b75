//! BBR on a simulated link: a bottleneck with a queue without end, and a delay.

use super::super::{Algorithm, Carried, Congestion, Private, Signal};
use super::*;
use crate::buf::FrameMeta;
use std::collections::VecDeque;

const MSS: u32 = 1448;

/// A sender that always has data, and the link it sends over.
struct Link {
    c: Congestion,
    now: u64,
    /// Octets a second, and the round trip without a queue.
    rate: u64,
    rtt_us: u64,
    /// When the bottleneck is done with what it has.
    busy_until: u64,
    /// When frames are acknowledged, and their records.
    flying: VecDeque<(u64, FrameMeta)>,
    /// Nanoseconds: a fast link's pace is not a whole number of microseconds.
    may_send_at_ns: u64,
    min_rtt_us: u32,
    /// Octets the application has left; nothing is sent without.
    backlog: u64,
    delivered: u64,
}

impl Link {
    fn new(rate: u64, rtt_us: u64) -> Link {
        let mut c = Congestion::new(Algorithm::Bbr, MSS);
        c.start(Instant::from_micros(1000), rtt_us as u32);
        let min_rtt_us = rtt_us as u32;
        Link {
            c,
            now: 1000,
            rate,
            rtt_us,
            busy_until: 0,
            flying: VecDeque::new(),
            may_send_at_ns: 0,
            min_rtt_us,
            backlog: u64::MAX,
            delivered: 0,
        }
    }

    fn bbr(&self) -> &Bbr {
        match &self.c.private {
            Private::Bbr(bbr) => bbr,
            other => panic!("{other:?}"),
        }
    }

    fn in_flight(&self) -> u32 {
        self.flying.len() as u32 * MSS
    }

    /// The bandwidth it believes in, octets a second.
    fn bandwidth(&self) -> u64 {
        u64::from(self.bbr().bandwidth.max()) * BW_UNIT
    }

    fn may_send(&self) -> bool {
        self.backlog >= u64::from(MSS) && self.in_flight() + MSS <= self.c.cwnd()
    }

    fn send(&mut self) {
        let now = Instant::from_micros(self.now);
        let flight = self.in_flight();
        let mut meta =
            FrameMeta { len: MSS as u16, sent_at: self.now as u32, transmissions: 1, ..FrameMeta::default() };
        self.c.rate.on_sent(&mut meta, flight, now);
        self.busy_until = self.busy_until.max(self.now) + u64::from(MSS) * SEC / self.rate;
        self.flying.push_back((self.busy_until + self.rtt_us, meta));
        let gap_ns = u64::from(MSS) * SEC * 1000 / self.c.pacing_rate().unwrap();
        self.may_send_at_ns = self.may_send_at_ns.max((self.now - 1) * 1000) + gap_ns;
        self.backlog -= u64::from(MSS);
    }

    fn acknowledge(&mut self, lost: u32, is_recovering: bool) {
        let now = Instant::from_micros(self.now);
        let prior_in_flight = self.in_flight();
        let (_, meta) = self.flying.pop_front().unwrap();
        let mut carried = Carried::default();
        self.c.rate.on_delivered(&meta, now, &mut carried);
        let rtt_us = (self.now as u32).wrapping_sub(meta.sent_at);
        self.min_rtt_us = self.min_rtt_us.min(rtt_us);
        self.delivered += u64::from(MSS);
        let rate = self.c.rate.sample(now, self.min_rtt_us, &carried);
        self.c.on_ack(&Delivery {
            now,
            delivered: MSS,
            acked: MSS,
            lost,
            prior_in_flight,
            in_flight: self.in_flight(),
            una: 0,
            nxt: self.now as u32,
            rtt_us: Some(rtt_us),
            srtt_us: rtt_us,
            is_recovering,
            is_cwnd_limited: true,
            is_paced: false,
            rate,
            mss: MSS,
        });
    }

    /// The next thing happens.
    fn step(&mut self) {
        let send_at = self.may_send().then_some((self.may_send_at_ns / 1000).max(self.now));
        let ack_at = self.flying.front().map(|f| f.0);
        match (send_at, ack_at) {
            (Some(at), ack) if ack.is_none_or(|ack| at <= ack) => {
                self.now = at;
                self.send();
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                self.acknowledge(0, false);
            }
            _ => panic!("nothing will ever happen"),
        }
        if self.backlog < u64::MAX / 2 {
            return;
        }
        self.backlog = u64::MAX;
    }

    fn run(&mut self, us: u64, mut look: impl FnMut(&Link)) {
        let end = self.now + us;
        while self.now < end {
            self.step();
            look(self);
        }
    }
}

fn is_near(a: u64, b: u64, percent: u64) -> bool {
    a.abs_diff(b) * 100 <= b * percent
}

#[test]
fn bandwidth_converges_and_the_queue_stays_short() {
    // Microseconds on the wire for a segment, and for a round trip: 145 MB/s to 60 kB/s.
    for (wire_us, rtt_us) in [(1158, 40_000), (10, 10_000), (24_133, 100_000), (116, 200)] {
        let rate = u64::from(MSS) * SEC / wire_us;
        let mut link = Link::new(rate, rtt_us);
        link.run(5 * SEC, |_| {});
        assert_eq!(link.bbr().mode, Mode::ProbeBw, "{rate} {rtt_us}");
        assert!(is_near(link.bandwidth(), rate, 3), "{} instead of {rate}", link.bandwidth());
        // The handshake's, for ten seconds: a SYN is short.
        assert!(is_near(u64::from(link.bbr().min_rtt_us), rtt_us, 5), "{}", link.bbr().min_rtt_us);
        let (before, at) = (link.delivered, link.now);
        let (mut sum, mut count) = (0, 0);
        link.run(4 * SEC, |l| {
            sum += u64::from(l.in_flight());
            count += 1;
        });
        let goodput = (link.delivered - before) * SEC / (link.now - at);
        assert!(goodput * 100 > rate * 93, "{goodput} of {rate}");
        let bdp = rate * rtt_us / SEC;
        assert!(
            sum / count < bdp * 3 / 2 + 3 * (rate / 1024) + 8 * u64::from(MSS),
            "{} in flight, {bdp} fit",
            sum / count
        );
    }
}

#[test]
fn startup_ends_when_the_bandwidth_no_longer_grows() {
    let mut link = Link::new(1_250_000, 40_000);
    let mut modes = Vec::new();
    link.run(SEC, |l| {
        if modes.last() != Some(&l.bbr().mode) {
            modes.push(l.bbr().mode);
        }
    });
    assert_eq!(modes, [Mode::Startup, Mode::Drain, Mode::ProbeBw]);
    // 50 kB fit; it took some doublings of 14.5 kB to see it, three rounds to believe it and one to drain.
    assert!(link.bbr().rounds < 40);
    assert_ne!(link.c.ssthresh(), CWND_MAX);
}

#[test]
fn startup_does_not_end_while_the_application_is_what_limits() {
    let mut link = Link::new(1_250_000, 40_000);
    for _ in 0..30 {
        link.backlog = 4 * u64::from(MSS);
        while link.backlog > 0 {
            link.step();
            link.c.rate.mark_app_limited(link.in_flight());
        }
        while !link.flying.is_empty() {
            link.step();
        }
        link.now += 1000;
    }
    assert_eq!(link.bbr().mode, Mode::Startup);
    link.backlog = u64::MAX;
    link.run(2 * SEC, |_| {});
    assert!(is_near(link.bandwidth(), 1_250_000, 3));
}

#[test]
fn the_path_is_emptied_every_ten_seconds_to_see_its_length() {
    let mut link = Link::new(1_250_000, 40_000);
    let (mut entered, mut fewest, mut left) = (0, u32::MAX, 0);
    link.run(11 * SEC, |l| {
        if l.bbr().mode == Mode::ProbeRtt {
            entered = if entered == 0 { l.now } else { entered };
            fewest = fewest.min(l.in_flight());
            assert!(l.c.cwnd() <= 4 * MSS);
            left = l.now;
        }
    });
    assert!((9 * SEC..11 * SEC).contains(&entered), "{entered}");
    assert!((3 * MSS..=4 * MSS).contains(&fewest), "{fewest}");
    let took = left - entered;
    assert!((200_000..400_000).contains(&took), "{took}");
    assert_eq!(link.bbr().mode, Mode::ProbeBw);
    assert!(link.c.cwnd() > 50_000, "the window of before is back: {}", link.c.cwnd());
    assert!(is_near(link.bandwidth(), 1_250_000, 3));
}

#[test]
fn a_faster_path_is_found_and_a_slower_one_too() {
    let mut link = Link::new(1_250_000, 40_000);
    link.run(3 * SEC, |_| {});
    link.rate = 2_500_000;
    link.run(3 * SEC, |_| {});
    assert!(is_near(link.bandwidth(), 2_500_000, 3), "{}", link.bandwidth());
    link.rate = 625_000;
    link.run(5 * SEC, |_| {});
    assert!(is_near(link.bandwidth(), 625_000, 5), "{}", link.bandwidth());
}

#[test]
fn recovery_keeps_what_is_in_the_network_for_a_round_and_gives_the_window_back() {
    let mut link = Link::new(1_250_000, 40_000);
    link.run(2 * SEC, |_| {});
    while link.in_flight() < 50_000 {
        link.step();
    }
    let (cwnd, flight) = (link.c.cwnd(), link.in_flight());
    link.c.on_congestion(Instant::from_micros(link.now), Signal::Loss, flight, MSS);
    link.c.set_cwnd(MSS);
    assert_eq!(link.c.cwnd(), cwnd, "nobody else sets it");
    // One of those in flight is lost: what was delivered may be sent, no more.
    link.flying.pop_front();
    link.now = link.flying[0].0;
    link.acknowledge(MSS, true);
    assert_eq!(link.c.cwnd(), flight - MSS);
    link.now = link.flying[0].0;
    link.acknowledge(0, true);
    assert_eq!(link.c.cwnd(), flight - MSS, "conserved");
    link.c.on_recovered(Instant::from_micros(link.now));
    assert_eq!(link.c.cwnd(), cwnd);
    // A timeout: from one segment, and back when it is over.
    link.c.on_timeout(Instant::from_micros(link.now), flight, MSS, true);
    assert_eq!(link.c.cwnd(), MSS);
    link.now = link.flying[0].0;
    link.acknowledge(0, true);
    assert_eq!(link.c.cwnd(), 4 * MSS, "no less than four, once something is heard");
    link.now = link.flying[0].0;
    link.acknowledge(0, false);
    assert_eq!(link.c.cwnd().max(cwnd), link.c.cwnd());
}

#[test]
fn numbers_beyond_all_sense_do_no_harm() {
    let mut c = Congestion::new(Algorithm::Bbr, 65_495);
    c.start(Instant::ZERO, 0);
    let extremes = [0, 1, 1448, CWND_MAX, u32::MAX];
    for (i, &a) in extremes.iter().enumerate() {
        for &b in &extremes {
            for now in [0, 5, 1 << 40, 1 << 63, 7] {
                c.on_ack(&Delivery {
                    now: Instant::from_micros(now),
                    delivered: a,
                    acked: a,
                    lost: b,
                    prior_in_flight: b,
                    in_flight: a,
                    una: a,
                    nxt: b,
                    rtt_us: (i > 1).then_some(b),
                    srtt_us: a,
                    is_recovering: i % 2 == 0,
                    is_cwnd_limited: true,
                    is_paced: false,
                    rate: super::super::RateSample {
                        delivered: a,
                        interval_us: b,
                        prior_delivered: a,
                        is_app_limited: false,
                    },
                    mss: 65_495,
                });
                c.on_restart(Instant::from_micros(now));
                assert!(c.cwnd() <= CWND_MAX && c.pacing_rate().is_some());
            }
        }
    }
}
