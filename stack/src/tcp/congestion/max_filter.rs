//! The largest of the values seen in a window of rounds, from three numbers: the best, and the best of those that came
//! after it, twice (Kathleen Nichols' algorithm).

#[derive(Clone, Copy)]
struct Sample {
    /// Low half: the window is a few rounds, and each of them brings a sample.
    round: u16,
    value: u32,
}

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct MaxFilter {
    values: [u32; 3],
    rounds: [u16; 3],
    _pad: u16,
}

impl MaxFilter {
    #[inline]
    pub(super) fn max(&self) -> u32 {
        self.values[0]
    }

    /// Rounds only move forward, and wrap.
    pub(super) fn update(&mut self, round: u32, window: u32, value: u32) {
        let sample = Sample { round: round as u16, value };
        let best = [0, 1, 2].map(|i| Sample { round: self.rounds[i], value: self.values[i] });
        let best = with(best, sample, window);
        (self.values, self.rounds) = (best.map(|s| s.value), best.map(|s| s.round));
    }
}

fn with(mut best: [Sample; 3], sample: Sample, window: u32) -> [Sample; 3] {
    let age = |s: &Sample| u32::from(sample.round.wrapping_sub(s.round));
    if sample.value >= best[0].value || age(&best[2]) > window {
        return [sample; 3];
    }
    if sample.value >= best[1].value {
        (best[1], best[2]) = (sample, sample);
    } else if sample.value >= best[2].value {
        best[2] = sample;
    }
    let [first, second, third] = best;
    if age(&first) > window {
        // The best is too old, and perhaps the second as well.
        return if age(&second) > window { [third, sample, sample] } else { [second, third, sample] };
    }
    if second.round == first.round && age(&second) > window / 4 {
        // A quarter of the window without a second choice: the newest is one.
        (best[1], best[2]) = (sample, sample);
    } else if third.round == second.round && age(&third) > window / 2 {
        best[2] = sample;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_less_than_recent_nor_more_than_the_window_ever_saw() {
        let (mut filter, mut seen) = (MaxFilter::default(), Vec::new());
        let mut random = 12345u32;
        for step in 0..5000u32 {
            let round = step.wrapping_add(u32::MAX - 100) / 3;
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = random >> 16;
            seen.push((round, value));
            filter.update(round, 10, value);
            // It may forget some of the older half of the window, never what is new.
            let since =
                |rounds| seen.iter().rev().take(40).filter(move |s| round.wrapping_sub(s.0) <= rounds).map(|s| s.1);
            assert!(filter.max() >= value);
            assert!(filter.max() <= since(11).max().unwrap(), "step {step}");
        }
    }

    #[test]
    fn a_fall_is_seen_after_the_window() {
        let mut filter = MaxFilter::default();
        filter.update(0, 10, 1000);
        for round in 1..=10 {
            filter.update(round, 10, 500);
            assert_eq!(filter.max(), 1000);
        }
        filter.update(11, 10, 500);
        assert_eq!(filter.max(), 500);
    }
}
