//! Composed body of routed experts.
//!
//! Axis letters: `N` tokens, `D` hidden size, `K` experts per token, `R` rows (`N · K`).

use burn::prelude::*;

use super::ExpertWeights;
use crate::experts::Routes;
use crate::kernels::linear;
use crate::kernels::swiglu;

/// What [`super::experts`] computes, from Burn's operations.
///
/// Where gradients are tracked, an expert without tokens has a gradient of zeros too: an optimizer
/// treats a parameter without one otherwise.
pub fn experts(
    x: Tensor<2>,
    weights: Tensor<2>,
    routes: &Routes,
    experts: &[ExpertWeights],
) -> Tensor<2> {
    let is_tracked = x.device().is_autodiff();
    let out = dispatch(x, weights, routes, |expert, x| {
        let ExpertWeights { gate, up, down } = experts[expert].clone();
        let dtype = x.dtype();
        let gated = linear(x.clone(), gate); // [S, I]
        let mixed = swiglu(gated, linear(x, up)); // [S, I]
        linear(mixed.cast(dtype), down) // [S, D]
    }); // [N, D]
    if !is_tracked || routes.num_tokens() == 0 {
        return out;
    }
    let nothing = experts
        .iter()
        .enumerate()
        .filter(|(expert, _)| routes.rows_of(*expert).is_empty())
        .flat_map(|(_, idle)| [&idle.gate, &idle.up, &idle.down])
        .map(|matrix| matrix.clone().slice([0..1, 0..1]).mul_scalar(0.0)) // [1, 1]
        .reduce(|sum, zero| sum + zero);
    match nothing {
        Some(nothing) => out + nothing, // [N, D]
        None => out,
    }
}

/// The same for networks of any kind; those without tokens are not called.
///
/// # Shapes
///
/// - `x`: `[N, D]`
/// - `weights`: `[N, K]`
/// - `network`: number of an expert and its tokens `[S, D]`, to `[S, D]`
/// - returns: `[N, D]`
pub fn dispatch(
    x: Tensor<2>,
    weights: Tensor<2>,
    routes: &Routes,
    network: impl Fn(usize, Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    let [num_tokens, hidden_size] = x.dims();
    if num_tokens == 0 {
        return x.cast(weights.dtype());
    }
    let device = x.device();
    let (num_rows, per_token) = (routes.num_rows(), routes.num_experts_per_tok());
    let indices = |values: Vec<i32>| {
        let length = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [length]), &device)
    };
    let tokens = routes.tokens().map(|token| token as i32).collect();
    let places = routes.places().iter().map(|&place| place as i32).collect();
    let rows = routes.rows().iter().map(|&row| row as i32).collect();

    let gathered = x.select(0, indices(tokens)); // [R, D]
    let weights = weights.reshape([num_rows, 1]).select(0, indices(places)); // [R, 1]
    let outputs: Vec<Tensor<2>> = (0..routes.num_experts())
        .map(|expert| (expert, routes.rows_of(expert)))
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(expert, rows)| network(expert, gathered.clone().slice([rows, 0..hidden_size])))
        .collect();
    let weighted = Tensor::cat(outputs, 0) * weights; // [R, D]
    weighted
        .select(0, indices(rows))
        .reshape([num_tokens, per_token, hidden_size])
        .sum_dim(1)
        .squeeze_dim::<2>(1) // [N, D]
}
