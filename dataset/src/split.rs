//! Which documents are held out for validation.

use crate::cache::TokenShards;
use crate::source::hashed_fraction;

/// Indices of the documents to train on and of those held out, in ascending order.
///
/// A document is held out by a hash of the seed and its index, so the choice is the same in every
/// run. With a fraction above 0 and at least two documents neither side is empty; a single document
/// is trained on.
pub fn split(shards: &TokenShards, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    split_indices(shards.num_documents() as u32, fraction, seed)
}

/// The same for numbers from 0 to below `num_documents`.
pub(crate) fn split_indices(num_documents: u32, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    if num_documents < 2 {
        return ((0..num_documents).collect(), Vec::new());
    }
    let hash = |&document: &u32| hashed_fraction(seed, u64::from(document));
    let (mut held_out, mut train): (Vec<u32>, Vec<u32>) =
        (0..num_documents).partition(|document| hash(document) < fraction);
    let by_hash = |a: &u32, b: &u32| hash(a).total_cmp(&hash(b));
    if fraction > 0.0 {
        if held_out.is_empty() {
            let nearest = (0..num_documents).min_by(by_hash).expect("not empty");
            train.retain(|&document| document != nearest);
            held_out.push(nearest);
        } else if train.is_empty() {
            let farthest = (0..num_documents).max_by(by_hash).expect("not empty");
            held_out.retain(|&document| document != farthest);
            train.push(farthest);
        }
    }
    (train, held_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 % of 10,000 is 500, and 5 sigma are 109; both sides together are all documents.
    #[test]
    fn the_fraction_is_held_out() {
        let (train, held_out) = split_indices(10_000, 0.05, 1);
        assert!(held_out.len().abs_diff(500) < 109, "{}", held_out.len());
        let mut all = [train.clone(), held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10_000).collect::<Vec<u32>>());
        assert_eq!(split_indices(10_000, 0.05, 1), (train, held_out.clone()));
        assert_ne!(split_indices(10_000, 0.05, 2).1, held_out);
    }

    /// Two documents are enough for both sides, whatever the fraction and the seed.
    #[test]
    fn no_side_is_empty() {
        for seed in 0..50 {
            for fraction in [1e-9, 0.5, 0.999_999] {
                let (train, held_out) = split_indices(2, fraction, seed);
                assert_eq!((train.len(), held_out.len()), (1, 1));
            }
        }
        assert_eq!(split_indices(2, 0.0, 0), (vec![0, 1], vec![]));
        assert_eq!(split_indices(1, 0.999, 7), (vec![0], vec![]));
    }
}
