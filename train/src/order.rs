//! Orders that follow from a seed and a number.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The numbers below `len` in the order of a seed's draw.
pub(crate) fn shuffled(len: usize, seed: u64, draw: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&draw.to_le_bytes());
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut ChaCha8Rng::from_seed(key));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number once; another draw and another seed give another order, the same the same.
    #[test]
    fn an_order_has_every_number_once() {
        let order = shuffled(50, 1, 2);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(order, shuffled(50, 1, 2));
        assert_ne!(order, shuffled(50, 1, 3));
        assert_ne!(order, shuffled(50, 2, 2));
    }
}
