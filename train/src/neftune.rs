//! Uniform noise on embeddings. Source: Jain et al. 2023, arXiv:2310.05914, algorithm 1.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws in ±`alpha / sqrt(T · D)`, the same for the same seed and pass.
///
/// `T` is the row's length: packed documents share one strength.
///
/// # Shapes
///
/// - returns: `[B, T, D]`
pub(crate) fn embedding_noise(alpha: f64, shape: [usize; 3], seed: u64, pass: u64) -> TensorData {
    let [batch, len, hidden_size] = shape;
    let bound = alpha / ((len * hidden_size) as f64).sqrt();
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&pass.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let values: Vec<f32> = (0..batch * len * hidden_size)
        .map(|_| {
            let unit = f64::from(rng.next_u32()) / f64::from(u32::MAX);
            ((2.0 * unit - 1.0) * bound) as f32
        })
        .collect();
    TensorData::new(values, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 5 / sqrt(4 * 25) is 0.5; the mean of 1,000 draws is 0 within 5 sigma (0.046).
    #[test]
    fn noise_is_uniform_within_its_bound() {
        let noise = |pass| embedding_noise(5.0, [10, 4, 25], 7, pass);
        let data = noise(1);
        let values: &[f32] = data.as_slice().unwrap();
        assert!(values.iter().all(|value| value.abs() <= 0.5));
        assert!(values.iter().any(|value| value.abs() > 0.49));
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.046, "{mean}");
        assert_eq!(noise(1), data);
        assert_ne!(noise(2), data);
    }
}
