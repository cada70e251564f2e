//! Composed body of the sum of squares.

use burn::prelude::*;

/// What [`super::squares`] computes, from Burn's operations: one number.
pub fn squares(x: Tensor<1>) -> Tensor<1> {
    x.square().sum_dim(0)
}
