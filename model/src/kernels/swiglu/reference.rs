//! Composed body of the feed-forward gate.

use burn::prelude::*;
use burn::tensor::activation::silu;

/// What [`super::swiglu`] computes, from Burn's operations.
pub fn swiglu<const R: usize>(gate: Tensor<R>, up: Tensor<R>) -> Tensor<R> {
    silu(gate) * up
}
