//! Products of bf16 and of f16 operands: f32 sums of what is left after rounding.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::DType;
use half::{bf16, f16};
use model::experts::Routes;
use model::kernels::experts::{self, ExpertWeights, experts};
use model::kernels::{IGNORE_INDEX, linear, linear_cross_entropy, token_cross_entropy};
use model::precision::Precision;

use crate::check::{Noise, Operation, assert_close, assert_outcomes_on, outcome, untracked};

/// Each precision with half a unit in the last place of its numbers from 1/2 to 1.
const ROUNDED: [(Precision, f64); 2] = [
    (Precision::Bf16, 1.0 / 512.0),
    (Precision::F16, 1.0 / 4096.0),
];

fn representable(precision: Precision, values: Vec<f64>) -> Vec<f64> {
    let round = |value: f64| match precision {
        Precision::F32 => value,
        Precision::Bf16 => bf16::from_f64(value).to_f64(),
        Precision::F16 => f16::from_f64(value).to_f64(),
    };
    values.into_iter().map(round).collect()
}

/// Compares `rounded` with `plain` in f64, the output and each gradient within its own tolerance.
fn assert_within(
    rounded: Operation<'_>,
    plain: Operation<'_>,
    inputs: &[Vec<f64>],
    tolerance: impl Fn(&str) -> f64,
    what: &str,
) {
    let expected = outcome(plain, inputs, DType::F64);
    let device = Device::flex();
    assert_outcomes_on(
        &device,
        rounded,
        inputs,
        &expected,
        |found, expected, part| {
            assert_close(found, expected, tolerance(part), &format!("{what}: {part}"));
        },
    );
}

/// Operands that are held exactly lose nothing: sums are f32, forward and backward.
#[test]
fn representable_operands_multiply_as_in_f32() {
    let mut noise = Noise::new(91);
    for (precision, _) in ROUNDED {
        for [rows, inputs, outputs] in [[1, 1, 1], [3, 70, 33], [65, 24, 1], [40, 129, 130]] {
            let operands = [rows * inputs, inputs * outputs]
                .map(|count| representable(precision, noise.values(count)));
            let run = |tensors: &[Tensor<1>], precision: Precision| {
                let x = precision.operand(tensors[0].clone().reshape([rows, inputs]));
                linear(x, tensors[1].clone().reshape([inputs, outputs])).reshape([-1])
            };
            assert_within(
                &|tensors| run(tensors, precision),
                &|tensors| run(tensors, Precision::F32),
                &operands,
                |_| 2e-5,
                &format!("{precision}, {rows} x {inputs} x {outputs}"),
            );
        }
    }
}

/// Other operands are rounded to the nearest: the product is that of the rounded ones.
#[test]
fn operands_are_rounded_before_they_are_multiplied() {
    let mut noise = Noise::new(92);
    let (rows, inputs, outputs) = (9, 50, 21);
    let operands = [noise.values(rows * inputs), noise.values(inputs * outputs)];
    let run = |tensors: &[Tensor<1>], precision: Precision| {
        let x = precision.operand(tensors[0].clone().reshape([rows, inputs]));
        linear(x, tensors[1].clone().reshape([inputs, outputs])).reshape([-1])
    };
    for (precision, _) in ROUNDED {
        let found = untracked(&|tensors| run(tensors, precision), &operands, DType::F32);
        let rounded = operands
            .clone()
            .map(|values| representable(precision, values));
        let expected = untracked(
            &|tensors| run(tensors, Precision::F32),
            &rounded,
            DType::F64,
        );
        assert_close(
            &found,
            &expected,
            2e-5,
            &format!("the product in {precision}"),
        );
    }
}

/// An operand beyond 65504 is infinite in f16, and so is what it is multiplied with, forward and
/// backward: nobody takes it for a number.
#[test]
fn what_overflows_in_f16_is_not_finite() {
    let run = |tensors: &[Tensor<1>]| {
        let x = Precision::F16.operand(tensors[0].clone().reshape([1, 2]));
        linear(x, tensors[1].clone().reshape([2, 1])).reshape([-1])
    };
    let product =
        |x: f64, weight: f64| untracked(&run, &[vec![x, 0.5], vec![weight, 2.0]], DType::F32)[0];
    // By hand: 65519 is rounded to 65504, 65520 is a tie and rounded away.
    assert_eq!(product(65_519.0, 1.0).to_bits(), 65_505.0_f64.to_bits());
    for (x, weight) in [(65_520.0, 1.0), (1.0, -1e6)] {
        assert!(product(x, weight).is_infinite(), "{x} * {weight}");
    }
    assert!(product(65_520.0, 0.0).is_nan());
}

/// The loss is that of f32; of the gradients, those of the logits are rounded once.
#[test]
fn the_loss_of_a_rounded_head_is_summed_in_f32() {
    for (precision, rounding) in ROUNDED {
        check_head(precision, rounding);
    }
}

fn check_head(precision: Precision, rounding: f64) {
    let mut noise = Noise::new(93);
    let (tokens, width, vocab_size) = (530, 20, 33);
    let mut label = |_| match noise.below(4) {
        0 => IGNORE_INDEX,
        _ => noise.below(vocab_size) as i32,
    };
    let labels: Vec<i32> = (0..tokens).map(&mut label).collect();
    let operands = [tokens * width, vocab_size * width]
        .map(|count| representable(precision, noise.values(count)));
    for (name, body, loss_tolerance) in [
        ("sum", linear_cross_entropy as fn(_, _, _) -> _, 5e-3),
        ("per token", token_cross_entropy, 2e-5),
    ] {
        let run = |tensors: &[Tensor<1>], precision: Precision| {
            let hidden = precision.operand(tensors[0].clone().reshape([tokens, width]));
            let weight = tensors[1].clone().reshape([vocab_size, width]);
            let labels = TensorData::new(labels.clone(), [tokens]);
            body(
                hidden,
                weight,
                Tensor::from_data(labels, &tensors[0].device()),
            )
        };
        // The logits' gradients of a token sum to at most 2 in size, and every token reaches every
        // row of the weight's gradient.
        let tolerance = |part: &str| match part {
            "output" | "untracked output" => loss_tolerance,
            "gradient 0" | "recomputed gradient 0" => 2.0 * rounding,
            _ => tokens as f64 * rounding / 4.0,
        };
        assert_within(
            &|tensors| run(tensors, precision),
            &|tensors| run(tensors, Precision::F32),
            &operands,
            tolerance,
            &format!("{name}, {precision}"),
        );
    }
}

/// The fused experts round where the composed ones do.
#[test]
fn experts_round_their_products() {
    for (precision, rounding) in ROUNDED {
        check_experts(precision, rounding);
    }
}

fn check_experts(precision: Precision, rounding: f64) {
    let mut noise = Noise::new(94);
    let (tokens, hidden, width) = (37, 24, 40);
    let chosen: Vec<u32> = (0..tokens as u32).map(|token| token % 3).collect();
    let routes = Arc::new(Routes::new(chosen, 1, 3));
    let mut inputs = vec![noise.values(tokens * hidden), noise.values(tokens)];
    inputs.extend((0..9).map(|_| noise.values(hidden * width)));
    let inputs: Vec<Vec<f64>> = inputs
        .into_iter()
        .map(|values| representable(precision, values))
        .collect();
    let run = |tensors: &[Tensor<1>], precision: Precision, fused: bool| {
        let matrix = |index: usize, shape: [usize; 2]| tensors[index].clone().reshape(shape);
        let networks: Vec<ExpertWeights> = (0..3)
            .map(|expert| ExpertWeights {
                gate: matrix(2 + 3 * expert, [hidden, width]),
                up: matrix(3 + 3 * expert, [hidden, width]),
                down: matrix(4 + 3 * expert, [width, hidden]),
            })
            .collect();
        let x = precision.operand(matrix(0, [tokens, hidden]));
        let weights = matrix(1, [tokens, 1]);
        let out = if fused {
            experts(x, weights, &routes, networks)
        } else {
            experts::reference::experts(x, weights, &routes, &networks)
        };
        out.reshape([-1])
    };
    let expected = outcome(
        &|tensors| run(tensors, Precision::F32, false),
        &inputs,
        DType::F64,
    );
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for fused in [true, false] {
        let rounded = |tensors: &[Tensor<1>]| run(tensors, precision, fused);
        assert_outcomes_on(
            &Device::flex(),
            &rounded,
            &inputs,
            &expected,
            |found, expected, part| {
                let tolerance = 4.0 * rounding * largest(expected);
                assert_close(
                    found,
                    expected,
                    tolerance,
                    &format!("{precision}, fused {fused}: {part}"),
                );
            },
        );
    }
    let plain = untracked(
        &|tensors| run(tensors, Precision::F32, true),
        &inputs,
        DType::F32,
    );
    let rounded = untracked(
        &|tensors| run(tensors, precision, true),
        &inputs,
        DType::F32,
    );
    assert_ne!(plain, rounded, "{precision} must differ from f32");
}
