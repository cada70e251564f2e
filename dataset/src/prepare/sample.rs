//! A few of many rows, each as likely as any other, in the order in which they came.

use crate::draw::Draw;

/// Stream of the seed that samples are drawn from.
const STREAM: u64 = 0x5a4d_504c;

/// The rows that are kept so far.
///
/// Algorithm R. Source: Vitter 1985, doi:10.1145/3147.3165.
#[derive(Debug)]
pub(super) struct Sample<T> {
    capacity: usize,
    draw: Draw,
    num_seen: usize,
    kept: Vec<(usize, T)>,
}

impl<T> Sample<T> {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            capacity,
            draw: Draw::new(seed, STREAM),
            num_seen: 0,
            kept: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: T) {
        let index = self.num_seen;
        self.num_seen += 1;
        if self.kept.len() < self.capacity {
            self.kept.push((index, row));
            return;
        }
        let place = self.draw.below(self.num_seen);
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = (index, row);
        }
    }

    pub(super) fn into_rows(mut self) -> impl Iterator<Item = T> {
        self.kept.sort_by_key(|&(index, _)| index);
        self.kept.into_iter().map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(seed: u64, capacity: usize) -> Vec<usize> {
        let mut sample = Sample::new(capacity, seed);
        (0..10).for_each(|row| sample.push(row));
        sample.into_rows().collect()
    }

    /// Three of ten rows, a thousand times: each is kept 300 times on average; 5 sigma are 73.
    #[test]
    fn each_row_is_as_likely_as_any_other() {
        let mut counts = [0_usize; 10];
        for seed in 0..1000 {
            let rows = sampled(seed, 3);
            assert!(rows.len() == 3 && rows.is_sorted());
            for row in rows {
                counts[row] += 1;
            }
        }
        assert!(
            counts.iter().all(|count| count.abs_diff(300) < 73),
            "{counts:?}"
        );
        assert_eq!(sampled(1, 3), sampled(1, 3));
        assert_eq!(sampled(1, 20), (0..10).collect::<Vec<_>>());
    }
}
