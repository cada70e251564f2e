//! Dropout whose masks follow from a seed and counters, so that a resumed run draws them again.

use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::params::path_hash;
use crate::training_pass::TrainingPass;

/// Leaves out some of an adapter's inputs and scales the others up.
#[derive(Debug, Clone)]
pub(super) struct Dropout {
    ratio: f64,
    seed: u64,
    stream: u64,
    pass: TrainingPass,
}

impl Dropout {
    /// A dropout of its own stream for each path; `None` for a share of 0.
    pub(super) fn new(ratio: f64, path: &str, seed: u64, pass: &TrainingPass) -> Option<Self> {
        (ratio > 0.0).then(|| Self {
            ratio,
            seed,
            stream: path_hash(path),
            pass: pass.clone(),
        })
    }

    pub(super) fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(pass) = self.pass.number() else {
            return x;
        };
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([self.seed, self.stream, pass]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        let mut rng = ChaCha8Rng::from_seed(key);
        let dims = x.dims();
        let threshold = (self.ratio * f64::from(u32::MAX)) as u32;
        let kept = (1.0 / (1.0 - self.ratio)) as f32;
        let mask: Vec<f32> = (0..dims.iter().product())
            .map(|_| {
                if rng.next_u32() < threshold {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        let mask = Tensor::<D>::from_data(TensorData::new(mask, dims), &x.device());
        let dtype = x.dtype();
        (x.cast(mask.dtype()) * mask).cast(dtype)
    }
}
