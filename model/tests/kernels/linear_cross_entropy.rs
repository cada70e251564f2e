//! The language-model head and its loss.

use burn::prelude::*;
use burn::tensor::DType;
use model::kernels::{
    IGNORE_INDEX, linear_cross_entropy, linear_cross_entropy::reference, token_cross_entropy,
};

#[cfg(feature = "cube")]
use crate::card::{assert_equals_reference_on_card, card};
#[cfg(feature = "cube")]
use crate::check::outcome_on;
use crate::check::{
    Noise, Operation, assert_close, assert_deterministic, assert_equals_finite_differences,
    assert_equals_reference, outcome, untracked,
};

/// Tokens, widths and vocabularies. On the CPU, 1,300 tokens are three chunks.
const SHAPES: [(usize, usize, usize); 6] = [
    (1, 1, 2),
    (2, 5, 7),
    (9, 16, 33),
    (33, 24, 100),
    (1300, 8, 19),
    (40, 64, 301),
];

/// The loss and the weight's gradient sum one term per token.
fn tolerance(tokens: usize) -> f64 {
    2e-6 * (1.0 + tokens as f64 / 4.0)
}

/// WGSL promises no less than 2^-21 of error for a logarithm, and 3 roundings for an exponential: each
/// token's loss may be off by about 1e-6, and a sum in f32 by all of them together.
#[cfg(feature = "cube")]
fn tolerance_on_card(tokens: usize) -> f64 {
    1e-6 * (2.0 + tokens as f64)
}

/// Sizes of one case and its labels.
struct Case {
    tokens: usize,
    width: usize,
    vocab_size: usize,
    labels: Vec<i32>,
}

impl Case {
    /// About one label in four is ignored.
    fn new(tokens: usize, width: usize, vocab_size: usize, noise: &mut Noise) -> Self {
        let mut label = || {
            if noise.below(4) == 0 {
                IGNORE_INDEX
            } else {
                noise.below(vocab_size) as i32
            }
        };
        let labels = (0..tokens).map(|_| label()).collect();
        Self {
            tokens,
            width,
            vocab_size,
            labels,
        }
    }

    fn inputs(&self, noise: &mut Noise) -> [Vec<f64>; 2] {
        [
            noise.values(self.tokens * self.width),
            noise.values(self.vocab_size * self.width),
        ]
    }

    fn run(
        &self,
        inputs: &[Tensor<1>],
        body: impl Fn(Tensor<2>, Tensor<2>, Tensor<1, Int>) -> Tensor<1>,
    ) -> Tensor<1> {
        let hidden = inputs[0].clone().reshape([self.tokens, self.width]);
        let weight = inputs[1].clone().reshape([self.vocab_size, self.width]);
        let labels = TensorData::new(self.labels.clone(), [self.tokens]);
        body(
            hidden,
            weight,
            Tensor::from_data(labels, &inputs[0].device()),
        )
    }
}

fn with_case(case: &Case, check: impl Fn(Operation<'_>, Operation<'_>)) {
    let fused = |inputs: &[Tensor<1>]| case.run(inputs, linear_cross_entropy);
    let composed = |inputs: &[Tensor<1>]| case.run(inputs, reference::linear_cross_entropy);
    check(&fused, &composed);
}

/// The composed body in f64 is the expected value.
#[test]
fn linear_cross_entropy_equals_its_reference_on_odd_shapes() {
    let mut noise = Noise::new(31);
    for (tokens, width, vocab_size) in SHAPES {
        let case = Case::new(tokens, width, vocab_size, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, composed| {
            let what = format!("{tokens} x {width} x {vocab_size}");
            assert_equals_reference(fused, composed, &inputs, tolerance(tokens), &what);
        });
    }
}

/// The composed body in f64 on the CPU is the expected value; the last shape is two chunks.
#[cfg(feature = "cube")]
#[test]
fn linear_cross_entropy_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(44);
    for (tokens, width, vocab_size) in SHAPES.into_iter().chain([(300, 2, 60_000)]) {
        let case = Case::new(tokens, width, vocab_size, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, composed| {
            let what = format!("{tokens} x {width} x {vocab_size}");
            assert_equals_reference_on_card(
                fused,
                composed,
                &inputs,
                tolerance_on_card(tokens),
                &what,
            );
        });
    }
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn linear_cross_entropy_gradients_equal_finite_differences() {
    let mut noise = Noise::new(32);
    let case = Case::new(7, 5, 11, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, composed| {
        assert_equals_finite_differences(fused, composed, &inputs, 5e-6, "7 x 5 x 11");
    });
}

/// What an ignored token's hidden state is must not matter, not even by a rounding error.
#[test]
fn ignored_tokens_have_exactly_zero_gradient() {
    let mut noise = Noise::new(33);
    let case = Case::new(50, 12, 20, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| {
        let grads = outcome(fused, &inputs, DType::F32).grads;
        for (label, row) in case.labels.iter().zip(grads[0].chunks_exact(case.width)) {
            let is_zero = row.iter().all(|value| *value == 0.0);
            assert_eq!(is_zero, *label == IGNORE_INDEX, "label {label}");
        }
    });
}

/// No token is trained on: zero loss, zero gradients, no division by the count.
#[test]
fn all_labels_ignored_is_zero_loss_and_zero_gradients() {
    let mut noise = Noise::new(34);
    let mut case = Case::new(6, 5, 9, &mut noise);
    case.labels.fill(IGNORE_INDEX);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| {
        let found = outcome(fused, &inputs, DType::F32);
        assert_eq!(found.out, [0.0]);
        assert!(found.grads.iter().flatten().all(|value| *value == 0.0));
    });
}

/// By hand: equal logits make every label equally likely.
#[test]
fn zero_weights_cost_the_log_of_the_vocabulary_per_token() {
    let mut noise = Noise::new(35);
    let mut case = Case::new(10, 4, 6400, &mut noise);
    case.labels = (0..10).map(|token| token * 600).collect();
    let mut inputs = case.inputs(&mut noise);
    inputs[1].fill(0.0);
    with_case(&case, |fused, _| {
        let found = untracked(fused, &inputs, DType::F32);
        assert_close(&found, &[10.0 * 6400.0_f64.ln()], 1e-5, "uniform");
    });
}

/// Logits of several hundred must neither overflow nor lose the label's.
#[test]
fn large_logits_give_a_finite_loss() {
    let mut noise = Noise::new(36);
    let case = Case::new(5, 3, 8, &mut noise);
    let [hidden, weight] = case.inputs(&mut noise);
    let inputs = [hidden.iter().map(|value| value * 400.0).collect(), weight];
    with_case(&case, |fused, composed| {
        assert_equals_reference(fused, composed, &inputs, 2e-3, "large");
    });
}

/// An untied head is stored `[D, V]`: its view is read, and its gradient laid out, as it lies.
#[test]
fn a_transposed_weight_has_the_gradient_of_its_copy() {
    let mut noise = Noise::new(40);
    let case = Case::new(600, 6, 15, &mut noise);
    let inputs = case.inputs(&mut noise);
    let (width, vocab_size) = (case.width, case.vocab_size);
    let turned = |inputs: &[Tensor<1>]| {
        let view = inputs[1].clone().reshape([width, vocab_size]).transpose();
        let hidden = inputs[0].clone().reshape([case.tokens, width]);
        let labels = TensorData::new(case.labels.clone(), [case.tokens]);
        let labels = Tensor::from_data(labels, &inputs[0].device());
        linear_cross_entropy(hidden, view, labels)
    };
    let composed = |inputs: &[Tensor<1>]| {
        let view = inputs[1].clone().reshape([width, vocab_size]).transpose();
        let inputs = [inputs[0].clone(), view.reshape([-1])];
        case.run(&inputs, reference::linear_cross_entropy)
    };
    assert_equals_reference(&turned, &composed, &inputs, 3e-4, "transposed");
}

/// A weight that is not trained costs no gradient; the hidden gradient is the same.
#[test]
fn an_untracked_weight_leaves_the_hidden_gradient_alone() {
    let mut noise = Noise::new(37);
    let case = Case::new(20, 6, 15, &mut noise);
    let inputs = case.inputs(&mut noise);
    let frozen = |inputs: &[Tensor<1>]| {
        case.run(
            &[inputs[0].clone(), inputs[1].clone().detach()],
            linear_cross_entropy,
        ) + inputs[1].clone().sum() * 0.0
    };
    with_case(&case, |fused, _| {
        let found = outcome(&frozen, &inputs, DType::F32).grads;
        assert_eq!(found[0], outcome(fused, &inputs, DType::F32).grads[0]);
        assert!(found[1].iter().all(|value| *value == 0.0));
    });
}

/// A label outside the vocabulary must not read other memory.
#[test]
#[should_panic(expected = "label 9 of token 2, expected -100 or 0 to 8")]
fn a_label_past_the_vocabulary_is_refused() {
    let mut noise = Noise::new(38);
    let mut case = Case::new(4, 3, 9, &mut noise);
    case.labels[2] = 9;
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| {
        untracked(fused, &inputs, DType::F32);
    });
}

/// Sums over tokens and over chunks have a fixed order.
#[test]
fn linear_cross_entropy_gives_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(39);
    let case = Case::new(700, 64, 500, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| assert_deterministic(fused, &inputs));
}

fn with_losses_per_token(case: &Case, check: impl Fn(Operation<'_>, Operation<'_>)) {
    let fused = |inputs: &[Tensor<1>]| case.run(inputs, token_cross_entropy);
    let composed = |inputs: &[Tensor<1>]| case.run(inputs, reference::token_cross_entropy);
    check(&fused, &composed);
}

/// Another gradient reaches each token, so nothing may be exchanged.
#[test]
fn token_cross_entropy_equals_its_reference_on_odd_shapes() {
    let mut noise = Noise::new(41);
    for (tokens, width, vocab_size) in SHAPES {
        let case = Case::new(tokens, width, vocab_size, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_losses_per_token(&case, |fused, composed| {
            let what = format!("{tokens} x {width} x {vocab_size}");
            assert_equals_reference(fused, composed, &inputs, tolerance(tokens), &what);
        });
    }
}

/// The composed body in f64 on the CPU is the expected value.
#[cfg(feature = "cube")]
#[test]
fn token_cross_entropy_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(45);
    for (tokens, width, vocab_size) in SHAPES {
        let case = Case::new(tokens, width, vocab_size, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_losses_per_token(&case, |fused, composed| {
            let what = format!("{tokens} x {width} x {vocab_size}");
            assert_equals_reference_on_card(fused, composed, &inputs, tolerance(tokens), &what);
        });
    }
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn token_cross_entropy_gradients_equal_finite_differences() {
    let mut noise = Noise::new(42);
    let case = Case::new(7, 5, 11, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_losses_per_token(&case, |fused, composed| {
        assert_equals_finite_differences(fused, composed, &inputs, 5e-6, "7 x 5 x 11");
    });
}

/// An ignored token has no loss and no gradient, not even by a rounding error.
#[test]
fn ignored_tokens_have_exactly_zero_loss_and_gradient() {
    let mut noise = Noise::new(43);
    let case = Case::new(50, 12, 20, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_losses_per_token(&case, |fused, _| {
        let found = outcome(fused, &inputs, DType::F32);
        let rows = found.grads[0].chunks_exact(case.width);
        for ((label, loss), row) in case.labels.iter().zip(&found.out).zip(rows) {
            let is_zero = *loss == 0.0 && row.iter().all(|value| *value == 0.0);
            assert_eq!(is_zero, *label == IGNORE_INDEX, "label {label}");
        }
    });
}

/// An ignored token has no loss and no gradient on a graphics card either.
#[cfg(feature = "cube")]
#[test]
fn ignored_tokens_have_exactly_zero_loss_and_gradient_on_a_graphics_card() {
    let Some(device) = card() else { return };
    let mut noise = Noise::new(46);
    let case = Case::new(50, 12, 20, &mut noise);
    let inputs = case.inputs(&mut noise);
    with_losses_per_token(&case, |fused, _| {
        let found = outcome_on(fused, &inputs, DType::F32, &device.clone().autodiff());
        let rows = found.grads[0].chunks_exact(case.width);
        for ((label, loss), row) in case.labels.iter().zip(&found.out).zip(rows) {
            let is_zero = *loss == 0.0 && row.iter().all(|value| *value == 0.0);
            assert_eq!(is_zero, *label == IGNORE_INDEX, "label {label}");
        }
    });
}
