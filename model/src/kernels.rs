//! The decoder's operations composed from Burn's.
//!
//! Axis letters: `B` batch, `T` query positions, `S` key positions, `N` query heads, `K` key/value
//! heads, `G` query heads per key head, `H` head size, `M` tokens, `D` hidden size, `V` vocabulary.

use burn::prelude::*;
use burn::tensor::activation::{log_softmax, silu, softmax};

/// `x / sqrt(mean(x²) + eps) · weight` over the last axis.
pub fn rms_norm<const R: usize>(x: Tensor<R>, weight: Tensor<1>, eps: f64) -> Tensor<R> {
    let mean_square = x.clone().square().mean_dim(R - 1);
    x / (mean_square + eps).sqrt() * weight.unsqueeze()
}

/// Rotates the halves of each head by its position's angles.
pub fn rotary(
    x: Tensor<4>,
    positions: Tensor<2, Int>,
    cos: Tensor<2>,
    sin: Tensor<2>,
) -> Tensor<4> {
    let [batch, len, heads, head_dim] = x.dims();
    let half = head_dim / 2;
    let at = |table: Tensor<2>| {
        table
            .select(0, positions.clone().reshape([batch * len]))
            .reshape([batch, len, 1, half])
    };
    let (cos, sin) = (at(cos), at(sin));
    let first = x.clone().slice([0..batch, 0..len, 0..heads, 0..half]);
    let second = x.slice([0..batch, 0..len, 0..heads, half..head_dim]);
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos + first * sin;
    Tensor::cat(vec![turned_first, turned_second], 3) // [B, T, N, H]
}

/// `silu(gate) · up`.
pub fn swiglu<const R: usize>(gate: Tensor<R>, up: Tensor<R>) -> Tensor<R> {
    silu(gate) * up
}

/// What each query reads from the slots of its own document up to its own.
pub fn causal_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    positions: Tensor<2, Int>,
) -> Tensor<4> {
    let [batch, len, heads, head_dim] = q.dims();
    let [_, slots, shared, _] = k.dims();
    let device = q.device();
    let group = heads / shared;
    let q = q
        .reshape([batch, len, shared, group, head_dim])
        .permute([0, 2, 3, 1, 4]);
    let k = k.permute([0, 2, 3, 1]).unsqueeze_dim::<5>(2); // [B, K, 1, H, S]
    let v = v.swap_dims(1, 2).unsqueeze_dim::<5>(2); // [B, K, 1, S, H]
    let scores = q.matmul(k) / (head_dim as f64).sqrt(); // [B, K, G, T, S]

    let first = (slots - len) as i64;
    let own = Tensor::<1, Int>::arange(first..slots as i64, &device).unsqueeze::<2>(); // [1, T]
    let start = (own.clone() - positions).unsqueeze_dim::<3>(2); // [B, T, 1]
    let slot = Tensor::<1, Int>::arange(0..slots as i64, &device).unsqueeze::<3>(); // [1, 1, S]
    let own = own.unsqueeze_dim::<3>(2); // [1, T, 1]
    let hidden = slot.clone().greater(own).bool_or(slot.lower(start)); // [B, T, S]
    let hidden = hidden
        .reshape([batch, 1, 1, len, slots])
        .expand(scores.dims());

    let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 4);
    let read = weights.matmul(v); // [B, K, G, T, H]
    read.permute([0, 3, 1, 2, 4])
        .reshape([batch, len, heads, head_dim])
}

/// Negative log-likelihood summed over the supervised tokens, in nats.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    let [num_tokens, _] = hidden.dims();
    let ignored = labels.clone().lower_elem(0).reshape([num_tokens, 1]);
    let logps = log_softmax(hidden.matmul(weight.transpose()), 1); // [M, V]
    let nll = logps
        .gather(1, labels.clamp_min(0).reshape([num_tokens, 1]))
        .neg(); // [M, 1]
    nll.mask_fill(ignored, 0.0).sum()
}
