//! Seeded draws that come out the same on every machine and with every version of the `rand`
//! crates: exact resume and the playground corpus depend on it.
//!
//! Only ChaCha's raw output is used, whose values are part of its definition; how a number in a
//! range is made from it is decided here.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random choices.
#[derive(Debug, Clone)]
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream with number `stream` of a seed; streams of one seed are independent.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&stream.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number in `0..end`.
    ///
    /// Lemire's multiply-shift without its rejection step: the bias is below `end / 2^64`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "there must be something to draw from");
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    /// True in `percent` of a hundred draws.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the items.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts the items into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every order of three items comes up about equally often (1,000 of 6,000 each; 5 sigma is
    /// 144), and another stream gives another order of them.
    #[test]
    fn shuffles_are_fair_and_streams_differ() {
        let mut draw = Draw::new(1, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            draw.shuffle(&mut items);
            *counts.entry(items).or_insert(0_usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(1000) < 144));

        let draws = |seed, stream| -> Vec<usize> {
            let mut draw = Draw::new(seed, stream);
            (0..8).map(|_| draw.below(1000)).collect()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(2, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
    }
}
