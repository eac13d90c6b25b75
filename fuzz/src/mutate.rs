//! How an input becomes another.

/// Splitmix64: the seed is the bug report.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n.max(1) as u64) as usize
    }
}

const INTERESTING: [u8; 12] = [0, 1, 2, 4, 5, 6, 8, 10, 0x7f, 0x80, 0xfe, 0xff];

/// One of the corpus, changed in a few places; now and then nothing but noise.
pub(crate) fn next(corpus: &[Vec<u8>], random: &mut Random, most: usize) -> Vec<u8> {
    // Newer inputs lie deeper: half of the time one of the last few.
    let recent = corpus.len().saturating_sub(8);
    let at =
        if random.below(2) == 0 { recent + random.below(corpus.len() - recent) } else { random.below(corpus.len()) };
    let mut input = corpus.get(at).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(&mut input, corpus, random);
    }
    input.truncate(most);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.below(256) as u8,
        2 if !input.is_empty() => input[at] = INTERESTING[random.below(INTERESTING.len())],
        3 if !input.is_empty() => input[at] = input[at].wrapping_add(random.below(9) as u8).wrapping_sub(4),
        4 if !input.is_empty() => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        5 if !input.is_empty() => {
            let end = (at + 1 + random.below(32)).min(input.len());
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        6 if !corpus.is_empty() => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            let end = (from + 1 + random.below(64)).min(other.len());
            input.splice(at..at, other[from.min(end)..end].iter().copied());
        }
        _ => input.extend((0..1 + random.below(12)).map(|_| random.below(256) as u8)),
    }
}
