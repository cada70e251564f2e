//! Dropout whose masks follow from a seed and counters, so that a resumed run draws them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::params::path_hash;

/// Number of the forward pass that draws masks and noise, shared by all parts of a model; while
/// there is none, nothing is drawn.
#[derive(Debug, Clone, Default)]
pub struct DropoutPass(Arc<AtomicU64>);

impl DropoutPass {
    /// Begins a pass: the same number gives the same masks.
    pub fn begin(&self, pass: u64) {
        self.0.store(pass.max(1), Ordering::Relaxed);
    }

    /// Ends it: nothing is dropped any more.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Number of the pass under way.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&pass| pass > 0)
    }
}

/// Leaves out some of an adapter's inputs and scales the others up.
#[derive(Debug, Clone)]
pub(super) struct Dropout {
    ratio: f64,
    seed: u64,
    stream: u64,
    pass: DropoutPass,
}

impl Dropout {
    /// A dropout of its own stream for each path; `None` for a share of 0.
    pub(super) fn new(ratio: f64, path: &str, seed: u64, pass: &DropoutPass) -> Option<Self> {
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
        let mask = Tensor::from_data(TensorData::new(mask, dims), &x.device());
        x * mask
    }
}
