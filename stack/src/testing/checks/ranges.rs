//! A set of octets, as ranges.

use crate::testing::alloc::vec::Vec;

/// Ranges `from..to`, sorted, none touching another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|r| r.1 < from);
        let mut last = first;
        while let Some(r) = self.0.get(last).filter(|r| r.0 <= to) {
            (from, to) = (from.min(r.0), to.max(r.1));
            last += 1;
        }
        self.0.splice(first..last, [(from, to)]);
    }

    /// Whether all of `from..to` is in it.
    pub(crate) fn has(&self, from: u64, to: u64) -> bool {
        let i = self.0.partition_point(|r| r.1 < to);
        self.0.get(i).is_some_and(|r| r.0 <= from && to <= r.1)
    }

    /// The end of what is whole from 0 on.
    pub(crate) fn whole(&self) -> u64 {
        self.0.first().filter(|r| r.0 == 0).map_or(0, |r| r.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn against_a_set_of_single_octets() {
        let mut random = crate::testing::Random::new(1);
        for _ in 0..200 {
            let (mut ranges, mut octets) = (Ranges::default(), [false; 64]);
            for _ in 0..12 {
                let from = random.below(64);
                let to = random.between(from, 63);
                ranges.insert(from, to);
                octets[from as usize..to as usize].fill(true);
                let (a, b) = (random.below(63), random.between(1, 64));
                if a < b {
                    assert_eq!(ranges.has(a, b), octets[a as usize..b as usize].iter().all(|o| *o), "{a}..{b}");
                }
                let whole = octets.iter().position(|o| !o).unwrap_or(64) as u64;
                assert_eq!(ranges.whole(), whole);
                assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
