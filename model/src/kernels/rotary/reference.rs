//! Composed body of the rotary embedding.

use burn::prelude::*;

/// What [`super::rotary`] computes, from Burn's operations.
pub fn rotary(
    x: Tensor<4>,
    positions: Tensor<2, Int>,
    cos: Tensor<2>,
    sin: Tensor<2>,
) -> Tensor<4> {
    let [batch, len, _, head_dim] = x.dims();
    let half = head_dim / 2;
    let rows = positions.flatten::<1>(0, 1); // [B * T]
    let cos = cos.select(0, rows.clone()).reshape([batch, len, 1, half]); // [B, T, 1, H/2]
    let sin = sin.select(0, rows).reshape([batch, len, 1, half]); // [B, T, 1, H/2]

    let a = x.clone().narrow(3, 0, half); // [B, T, N, H/2]
    let b = x.narrow(3, half, half); // [B, T, N, H/2]
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second], 3) // [B, T, N, H]
}
