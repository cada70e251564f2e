//! Composed body of causal attention: the score matrix is held whole.
//!
//! Axis letters as in the parent, `G` query heads per key head.

use burn::prelude::*;
use burn::tensor::activation::softmax;

use crate::positions::Positions;

/// What [`super::causal_attention`] computes, from Burn's operations.
pub fn causal_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    positions: impl Into<Positions>,
) -> Tensor<4> {
    let [batch, len, num_heads, head_dim] = q.dims();
    let [_, slots, num_kv_heads, _] = k.dims();
    let group = num_heads / num_kv_heads;

    // Query heads are grouped by the key head they share, rather than keys repeated: the repeat
    // would write N/K copies of k and v.
    let q = q
        .swap_dims(1, 2)
        .reshape([batch, num_kv_heads, group * len, head_dim]); // [B, K, G*T, H]
    let k = k.swap_dims(1, 2); // [B, K, S, H]
    let v = v.swap_dims(1, 2); // [B, K, S, H]

    let scores = q.matmul(k.swap_dims(2, 3)) / (head_dim as f64).sqrt(); // [B, K, G*T, S]
    let scores = scores.reshape([batch, num_heads, len, slots]); // [B, N, T, S]
    let hidden = hidden_slots(positions.into(), slots).expand([batch, num_heads, len, slots]);
    let weights = softmax(scores.mask_fill(hidden, f64::NEG_INFINITY), 3); // [B, N, T, S]

    let weights = weights.reshape([batch, num_kv_heads, group * len, slots]);
    let out = weights.matmul(v); // [B, K, G*T, H]
    out.reshape([batch, num_heads, len, head_dim])
        .swap_dims(1, 2) // [B, T, N, H]
}

/// Which slots a query must not see.
///
/// # Shapes
///
/// - `positions`: places `[B, T]`, gaps `[B, T, 2]`
/// - returns: `[B, 1, T, S]`
fn hidden_slots(positions: Positions, slots: usize) -> Tensor<4, Bool> {
    let Positions { places, gaps } = positions;
    let device = places.device();
    let [batch, len] = places.dims();
    let key = Tensor::<1, Int>::arange(0..slots as i64, &device).reshape([1, 1, slots]);
    let own = Tensor::<1, Int>::arange((slots - len) as i64..slots as i64, &device);
    let own = own.reshape([1, len, 1]);
    let mut first = own.clone() - places.reshape([batch, len, 1]); // [B, T, 1]

    let wide = [batch, len, slots];
    let key = key.expand(wide);
    let mut hidden = key.clone().greater(own.clone().expand(wide));
    if let Some(gaps) = gaps {
        let gap_len = gaps.clone().narrow(2, 1, 1); // [B, T, 1]
        let gap_end = own - gaps.narrow(2, 0, 1); // [B, T, 1]
        let gap_start = gap_end.clone() - gap_len.clone();
        first = first - gap_len;
        let from_gap = key.clone().greater_equal(gap_start.expand(wide));
        let before_end = key.clone().lower(gap_end.expand(wide));
        hidden = hidden.bool_or(from_gap.bool_and(before_end));
    }
    let foreign = key.lower(first.expand(wide));
    hidden.bool_or(foreign).reshape([batch, 1, len, slots]) // [B, 1, T, S]
}
