//! Routed experts: gather, a network per expert, weighted sum.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::DType;
use model::experts::Routes;
use model::kernels::experts::{ExpertWeights, experts, reference};

#[cfg(feature = "cube")]
use crate::card::{assert_deterministic_on_card, assert_equals_reference_on_card};
use crate::check::{
    Noise, assert_deterministic, assert_equals_finite_differences, assert_equals_reference,
    outcome, untracked,
};

/// Tokens, hidden size, width inside an expert, experts, experts per token.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    tokens: usize,
    hidden: usize,
    width: usize,
    experts: usize,
    per_token: usize,
}

impl Sizes {
    const fn new(numbers: [usize; 5]) -> Self {
        let [tokens, hidden, width, experts, per_token] = numbers;
        Self {
            tokens,
            hidden,
            width,
            experts,
            per_token,
        }
    }

    /// Tokens, weights, then gate, up and down of every expert.
    fn inputs(self, noise: &mut Noise) -> Vec<Vec<f64>> {
        let matrices = 3 * self.experts;
        let mut inputs = vec![
            noise.values(self.tokens * self.hidden),
            noise.values(self.tokens * self.per_token),
        ];
        inputs.extend((0..matrices).map(|_| noise.values(self.hidden * self.width)));
        inputs
    }

    /// Each token's experts, all different, from those below `limit`.
    fn routes(self, limit: usize, noise: &mut Noise) -> Arc<Routes> {
        let mut chosen = Vec::new();
        for _ in 0..self.tokens {
            let mut left: Vec<u32> = (0..limit as u32).collect();
            for _ in 0..self.per_token {
                chosen.push(left.remove(noise.below(left.len())));
            }
        }
        Arc::new(Routes::new(chosen, self.per_token, self.experts))
    }

    fn tensors(self, inputs: &[Tensor<1>]) -> (Tensor<2>, Tensor<2>, Vec<ExpertWeights>) {
        let matrix = |index: usize, shape: [usize; 2]| inputs[index].clone().reshape(shape);
        let (wide, tall) = ([self.hidden, self.width], [self.width, self.hidden]);
        let networks = (0..self.experts)
            .map(|expert| ExpertWeights {
                gate: matrix(2 + 3 * expert, wide),
                up: matrix(3 + 3 * expert, wide),
                down: matrix(4 + 3 * expert, tall),
            })
            .collect();
        (
            matrix(0, [self.tokens, self.hidden]),
            matrix(1, [self.tokens, self.per_token]),
            networks,
        )
    }

    fn fused(self, routes: &Arc<Routes>, inputs: &[Tensor<1>]) -> Tensor<1> {
        let (x, weights, networks) = self.tensors(inputs);
        experts(x, weights, routes, networks).reshape([-1])
    }

    fn composed(self, routes: &Arc<Routes>, inputs: &[Tensor<1>]) -> Tensor<1> {
        let (x, weights, networks) = self.tensors(inputs);
        reference::experts(x, weights, routes, &networks).reshape([-1])
    }
}

/// Sizes, and how many of the experts are chosen: random routes, few rows, experts without tokens,
/// one expert that takes all.
const CASES: [([usize; 5], usize); 6] = [
    ([1, 4, 6, 4, 2], 4),
    ([3, 8, 5, 3, 1], 3),
    ([17, 16, 24, 4, 2], 4),
    ([40, 12, 33, 8, 3], 5),
    ([130, 32, 48, 4, 2], 2),
    ([9, 6, 7, 1, 1], 1),
];

/// The composed body in f64 is the expected value.
#[test]
fn experts_equal_their_reference() {
    let mut noise = Noise::new(81);
    for (numbers, limit) in CASES {
        let sizes = Sizes::new(numbers);
        let routes = sizes.routes(limit, &mut noise);
        let inputs = sizes.inputs(&mut noise);
        let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
        let composed = |inputs: &[Tensor<1>]| sizes.composed(&routes, inputs);
        assert_equals_reference(&fused, &composed, &inputs, 5e-5, &format!("{sizes:?}"));
    }
}

/// The composed body in f64 on the CPU is the expected value.
#[cfg(feature = "cube")]
#[test]
fn experts_equal_their_reference_on_a_graphics_card() {
    let mut noise = Noise::new(86);
    // Each product of another shape is measured anew: two cases, one with idle experts.
    for (numbers, limit) in [CASES[2], CASES[3]] {
        let sizes = Sizes::new(numbers);
        let routes = sizes.routes(limit, &mut noise);
        let inputs = sizes.inputs(&mut noise);
        let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
        let composed = |inputs: &[Tensor<1>]| sizes.composed(&routes, inputs);
        let what = format!("{sizes:?}");
        assert_equals_reference_on_card(&fused, &composed, &inputs, 5e-5, &what);
    }
}

/// Rows are summed in the order of a token's experts.
#[cfg(feature = "cube")]
#[test]
fn experts_give_the_same_bits_on_a_graphics_card_each_time() {
    let mut noise = Noise::new(87);
    let sizes = Sizes::new([60, 24, 40, 4, 2]);
    let routes = sizes.routes(4, &mut noise);
    let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
    assert_deterministic_on_card(&fused, &sizes.inputs(&mut noise));
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn expert_gradients_equal_finite_differences() {
    let mut noise = Noise::new(82);
    let sizes = Sizes::new([4, 3, 4, 3, 2]);
    let routes = sizes.routes(3, &mut noise);
    let inputs = sizes.inputs(&mut noise);
    let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
    let composed = |inputs: &[Tensor<1>]| sizes.composed(&routes, inputs);
    assert_equals_finite_differences(&fused, &composed, &inputs, 5e-6, "4 tokens");
}

/// Two of four experts get nothing: their gradients are there, and every number in them is zero.
#[test]
fn an_expert_without_tokens_has_exactly_zero_gradient() {
    let mut noise = Noise::new(83);
    let sizes = Sizes::new([50, 8, 12, 4, 2]);
    let routes = sizes.routes(2, &mut noise);
    let inputs = sizes.inputs(&mut noise);
    let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
    let grads = outcome(&fused, &inputs, DType::F32).grads;
    let (busy, idle) = grads[2..].split_at(2 * 3);
    assert!(
        busy.iter()
            .all(|grad| grad.iter().any(|value| *value != 0.0))
    );
    assert!(idle.iter().flatten().all(|value| value.to_bits() == 0));
}

/// Whatever an expert without tokens holds, it is not read: a token costs its own experts only.
#[test]
fn an_expert_without_tokens_is_not_read() {
    let mut noise = Noise::new(85);
    for tokens in [1, 60] {
        let sizes = Sizes::new([tokens, 8, 12, 4, 2]);
        let routes = sizes.routes(2, &mut noise);
        let mut inputs = sizes.inputs(&mut noise);
        for matrix in &mut inputs[2 + 2 * 3..] {
            matrix.fill(f64::NAN);
        }
        let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
        let out = untracked(&fused, &inputs, DType::F32);
        assert!(out.iter().all(|value| value.is_finite()), "{tokens} tokens");
    }
}

/// Sums over a token's rows come in the order of its experts, whichever thread is done first.
#[test]
fn experts_give_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(84);
    let sizes = Sizes::new([300, 96, 130, 4, 2]);
    let routes = sizes.routes(4, &mut noise);
    let fused = |inputs: &[Tensor<1>]| sizes.fused(&routes, inputs);
    assert_deterministic(&fused, &sizes.inputs(&mut noise));
}
