//! Routed experts: gather each expert's tokens, run its network on them, add the answers back.
//!
//! Sources: Shazeer et al. 2017, arXiv:1701.06538, eq. 1; Gale et al. 2022, arXiv:2211.15841
//! (tokens sorted by expert, so that no expert has a capacity and nothing is dropped).
//!
//! Axis letters: `N` tokens, `D` hidden size, `I` intermediate size, `K` experts per token,
//! `R` rows (`N · K`), sorted by expert.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod dispatch;
pub mod reference;
mod segment;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::FloatDType;

use self::dispatch::DispatchOps;
use self::segment::{Segment, SegmentOps};
use crate::experts::Routes;
use crate::kernels::flex::is_flex_f32;
use crate::kernels::{is_fused_f32, is_fused_operand};
use crate::precision::Precision;

/// The matrices of one expert.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// `[D, I]`.
    pub gate: Tensor<2>,
    /// `[D, I]`.
    pub up: Tensor<2>,
    /// `[I, D]`.
    pub down: Tensor<2>,
}

impl ExpertWeights {
    fn are_fused_f32(&self) -> bool {
        [&self.gate, &self.up, &self.down]
            .into_iter()
            .all(is_fused_f32)
    }
}

/// The weighted sum of what its experts make of each token.
///
/// `Σ_k weights[n, k] · down_e(silu(gate_e(x_n)) · up_e(x_n))` with `e` the `k`-th expert of token
/// `n`. Every expert works on one run of rows. An expert without tokens is not read, and its
/// gradient is exactly zero. Where `x` is bf16 or f16, the products' other operands are
/// rounded to it; everything else is f32.
///
/// # Shapes
///
/// - `x`: `[N, D]`
/// - `weights`: `[N, K]`
/// - returns: `[N, D]`
///
/// # Panics
///
/// When the shapes disagree with one another or with the routes.
pub fn experts(
    x: Tensor<2>,
    weights: Tensor<2>,
    routes: &Arc<Routes>,
    experts: Vec<ExpertWeights>,
) -> Tensor<2> {
    let [num_tokens, hidden_size] = x.dims();
    assert_eq!(
        weights.dims(),
        [num_tokens, routes.num_experts_per_tok()],
        "experts: weights must be [N, K]"
    );
    assert_eq!(
        (routes.num_tokens(), routes.num_experts()),
        (num_tokens, experts.len()),
        "experts: tokens and experts of the routes"
    );
    for expert in &experts {
        let [inputs, width] = expert.gate.dims();
        assert_eq!(
            (inputs, expert.up.dims(), expert.down.dims()),
            (hidden_size, [hidden_size, width], [width, hidden_size]),
            "experts: gate, up and down must be [D, I], [D, I] and [I, D]"
        );
    }
    let precision = Precision::of_operand(x.dtype());
    // Graphics cards launch nothing over nothing.
    let has_work = num_tokens > 0 || is_flex_f32(&weights);
    let fused = has_work && is_fused_operand(&x) && is_fused_f32(&weights);
    if !(fused && experts.iter().all(ExpertWeights::are_fused_f32)) {
        return reference::experts(x, weights, routes, &experts);
    }
    let x = x.cast(FloatDType::F32); // [N, D]
    let mut rows = Dispatch::gather_rows(x.into_dispatch(), routes.clone()); // [R, D]
    for (index, expert) in experts.into_iter().enumerate() {
        rows = Dispatch::segment_feed_forward(
            rows,
            expert.gate.into_dispatch(),
            expert.up.into_dispatch(),
            expert.down.into_dispatch(),
            Segment {
                rows: routes.rows_of(index),
                precision,
            },
        );
    }
    Tensor::from_dispatch(Dispatch::combine_rows(
        rows,
        weights.into_dispatch(),
        routes.clone(),
    ))
}
