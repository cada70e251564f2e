//! Composed body of root-mean-square normalisation.

use burn::prelude::*;

/// What [`super::rms_norm`] computes, from Burn's operations.
pub fn rms_norm<const R: usize>(x: Tensor<R>, weight: Tensor<1>, eps: f64) -> Tensor<R> {
    let mean_square = x.clone().square().mean_dim(R - 1); // [.., 1]
    let normalized = x / (mean_square + eps).sqrt();
    normalized * weight.unsqueeze()
}
