//! One direction of the wire: what becomes of a frame, decided when it comes. No I/O and no clock: times are arguments.
//!
//! The order is that of a real path: the queue before the bottleneck, the bottleneck, then the way, on which frames are lost,
//! held up and doubled. So a frame that is lost has taken its turn at the bottleneck, and one that the queue refused has not.

use std::collections::VecDeque;
use std::time::Duration;

use sidestep_xdp::rig::{seeded, threshold};

/// What the wire does to the frames of both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) delay: Duration,
    pub(crate) bottleneck: Option<Bottleneck>,
    pub(crate) loss: Share,
    pub(crate) duplicate: Share,
    pub(crate) reorder: Share,
    /// How much later than its neighbours a reordered frame arrives.
    pub(crate) late: Duration,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bottleneck {
    pub(crate) bits_per_second: u64,
    pub(crate) queue: Queue,
}

/// What waits for the bottleneck at most, the frame being sent included; more is dropped at the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queue {
    Packets(usize),
    Time(Duration),
}

/// A probability, as what the dice must stay below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    threshold: u64,
}

impl Share {
    pub(crate) fn of_a_million(parts: u32) -> Self {
        Self { threshold: threshold(parts) }
    }

    fn holds(self, seed: u64, direction: u32, number: u64) -> bool {
        u64::from(seeded(seed, direction, number)) < self.threshold
    }
}

/// When a frame arrives at the far end, and whether it arrives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at_ns: u64,
    pub(crate) is_twin: bool,
}

/// What came by, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) seen: u64,
    /// Refused by the full queue before the bottleneck.
    pub(crate) tail_dropped: u64,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicated: u64,
}

/// The state of one direction.
pub(crate) struct Direction {
    conditions: Conditions,
    index: u32,
    /// When each frame in the queue has left the bottleneck, oldest first.
    leaving_ns: VecDeque<u64>,
    last_arrival_ns: u64,
    /// Frames that the dice were thrown for: what is spared does not shift the fate of others.
    thrown: u64,
    pub(crate) tally: Tally,
}

impl Direction {
    pub(crate) fn new(conditions: Conditions, index: u32) -> Self {
        Self { conditions, index, leaving_ns: VecDeque::new(), last_arrival_ns: 0, thrown: 0, tally: Tally::default() }
    }

    pub(crate) fn delay(&self) -> Duration {
        self.conditions.delay
    }

    /// The fate of a frame of `len` bytes that came at `now_ns`; None when it never arrives. A spared frame (ARP, neighbour
    /// discovery, ICMP) waits its turn as all do, but no dice are thrown for it.
    pub(crate) fn admit(&mut self, now_ns: u64, len: usize, is_spared: bool) -> Option<Arrival> {
        self.tally.seen += 1;
        let Some(left_ns) = self.pass_bottleneck(now_ns, len) else {
            self.tally.tail_dropped += 1;
            return None;
        };
        let arrival_ns = (left_ns + nanos(self.conditions.delay)).max(self.last_arrival_ns);
        if is_spared {
            self.last_arrival_ns = arrival_ns;
            return Some(Arrival { at_ns: arrival_ns, is_twin: false });
        }
        self.throw_dice(arrival_ns)
    }

    fn throw_dice(&mut self, arrival_ns: u64) -> Option<Arrival> {
        let conditions = &self.conditions;
        let number = self.thrown;
        self.thrown += 1;
        // Three dice for each frame: with one, more loss would mean other duplicates.
        let throw = |share: Share, die: u64| share.holds(conditions.seed ^ (die << 56), self.index, number);
        if throw(conditions.loss, 0) {
            self.tally.lost += 1;
            return None;
        }
        let is_twin = throw(conditions.duplicate, 1);
        self.tally.duplicated += u64::from(is_twin);
        if throw(conditions.reorder, 2) {
            self.tally.reordered += 1;
            return Some(Arrival { at_ns: arrival_ns + nanos(conditions.late), is_twin });
        }
        self.last_arrival_ns = arrival_ns;
        Some(Arrival { at_ns: arrival_ns, is_twin })
    }

    /// When the frame has left the bottleneck; None when its queue is full.
    fn pass_bottleneck(&mut self, now_ns: u64, len: usize) -> Option<u64> {
        let Some(bottleneck) = self.conditions.bottleneck else {
            return Some(now_ns);
        };
        while self.leaving_ns.front().is_some_and(|left_ns| *left_ns <= now_ns) {
            self.leaving_ns.pop_front();
        }
        let free_ns = self.leaving_ns.back().copied().unwrap_or(now_ns);
        let is_full = match bottleneck.queue {
            Queue::Packets(limit) => self.leaving_ns.len() >= limit,
            Queue::Time(limit) => free_ns - now_ns > nanos(limit),
        };
        if is_full {
            return None;
        }
        let left_ns = free_ns + len as u64 * 8 * 1_000_000_000 / bottleneck.bits_per_second;
        self.leaving_ns.push_back(left_ns);
        Some(left_ns)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn plain() -> Conditions {
        Conditions {
            delay: Duration::from_millis(10),
            bottleneck: None,
            loss: Share::of_a_million(0),
            duplicate: Share::of_a_million(0),
            reorder: Share::of_a_million(0),
            late: Duration::from_millis(1),
            seed: 7,
        }
    }

    fn arrivals(conditions: Conditions, count: u64, gap_ns: u64) -> (Vec<Option<u64>>, Tally) {
        let mut direction = Direction::new(conditions, 0);
        let fates = (0..count).map(|n| direction.admit(n * gap_ns, 1250, false).map(|arrival| arrival.at_ns)).collect();
        (fates, direction.tally)
    }

    #[test]
    fn a_plain_wire_only_delays() {
        let (fates, tally) = arrivals(plain(), 3, MS);
        assert_eq!(fates, [Some(10 * MS), Some(11 * MS), Some(12 * MS)]);
        assert_eq!(tally, Tally { seen: 3, ..Tally::default() });
    }

    #[test]
    fn a_stamp_that_goes_back_does_not_reorder() {
        let mut direction = Direction::new(plain(), 0);
        let first = direction.admit(5 * MS, 100, false).expect("nothing is lost");
        let second = direction.admit(4 * MS, 100, false).expect("nothing is lost");
        assert_eq!(first, second);
    }

    #[test]
    fn the_bottleneck_serves_one_after_the_other() {
        // 1250 bytes at 10 Mbit/s take a millisecond.
        let bottleneck = Some(Bottleneck { bits_per_second: 10_000_000, queue: Queue::Packets(100) });
        let (fates, _) = arrivals(Conditions { bottleneck, ..plain() }, 3, 0);
        assert_eq!(fates, [Some(11 * MS), Some(12 * MS), Some(13 * MS)]);
        let (fates, _) = arrivals(Conditions { bottleneck, ..plain() }, 3, 5 * MS);
        assert_eq!(fates, [Some(11 * MS), Some(16 * MS), Some(21 * MS)], "an idle bottleneck saves nothing up");
    }

    #[test]
    fn a_full_queue_drops_at_the_tail() {
        for queue in [Queue::Packets(4), Queue::Time(Duration::from_millis(3))] {
            let bottleneck = Some(Bottleneck { bits_per_second: 10_000_000, queue });
            let mut direction = Direction::new(Conditions { bottleneck, ..plain() }, 0);
            let taken = (0..10).filter(|_| direction.admit(0, 1250, false).is_some()).count();
            assert_eq!((taken, direction.tally.tail_dropped), (4, 6), "{queue:?}");
            assert!(direction.admit(2 * MS, 1250, false).is_some(), "{queue:?}: a place is free again");
        }
    }

    #[test]
    fn loss_is_fair_repeatable_and_its_own_in_each_direction() {
        let conditions = Conditions { loss: Share::of_a_million(100_000), ..plain() };
        let (fates, tally) = arrivals(conditions, 10_000, 0);
        assert!((900..1100).contains(&tally.lost), "{tally:?}");
        assert_eq!((fates, tally), arrivals(conditions, 10_000, 0));
        let mut other = Direction::new(conditions, 1);
        let there: Vec<bool> = (0..1000).map(|_| other.admit(0, 100, false).is_some()).collect();
        let here: Vec<bool> = arrivals(conditions, 1000, 0).0.iter().map(Option::is_some).collect();
        assert_ne!(there, here);
    }

    #[test]
    fn spared_frames_are_not_lost_and_shift_no_dice() {
        let conditions = Conditions { loss: Share::of_a_million(500_000), ..plain() };
        let mut direction = Direction::new(conditions, 0);
        let fates: Vec<bool> = (0..100)
            .map(|_| {
                assert!(direction.admit(0, 60, true).is_some());
                direction.admit(0, 60, false).is_some()
            })
            .collect();
        let alone: Vec<bool> = arrivals(conditions, 100, 0).0.iter().map(Option::is_some).collect();
        assert_eq!(fates, alone);
    }

    #[test]
    fn a_reordered_frame_is_late_and_holds_nobody_up() {
        let conditions = Conditions { reorder: Share::of_a_million(200_000), ..plain() };
        let (fates, tally) = arrivals(conditions, 1000, 1000);
        let late = fates.iter().zip(0..).filter(|(fate, n)| **fate == Some(11 * MS + n * 1000)).count() as u64;
        let in_time = fates.iter().zip(0..).filter(|(fate, n)| **fate == Some(10 * MS + n * 1000)).count() as u64;
        assert_eq!((late, in_time), (tally.reordered, 1000 - tally.reordered));
        assert!((150..250).contains(&late), "{late}");
    }

    #[test]
    fn a_share_is_doubled() {
        let mut direction = Direction::new(Conditions { duplicate: Share::of_a_million(100_000), ..plain() }, 0);
        let twins = (0..1000).filter(|_| direction.admit(0, 100, false).is_some_and(|arrival| arrival.is_twin)).count();
        assert!((70..130).contains(&twins) && twins as u64 == direction.tally.duplicated, "{twins}");
    }
}
