//! Products of bf16 operands: f32 sums of what is left after rounding.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use half::bf16;
use model::experts::Routes;
use model::kernels::experts::{self, ExpertWeights, experts};
use model::kernels::{IGNORE_INDEX, linear, linear_cross_entropy, token_cross_entropy};

use crate::check::{Noise, Operation, assert_close, assert_outcomes_on, outcome, untracked};

/// Half a unit in the last place of a bf16 from 1/2 to 1.
const ROUNDING: f64 = 1.0 / 512.0;

fn representable(values: Vec<f64>) -> Vec<f64> {
    let round = |value: f64| bf16::from_f64(value).to_f64();
    values.into_iter().map(round).collect()
}

fn in_bf16<const R: usize>(x: Tensor<R>) -> Tensor<R> {
    x.cast(FloatDType::BF16)
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

/// Operands that bf16 holds exactly lose nothing: sums are f32, forward and backward.
#[test]
fn representable_operands_multiply_as_in_f32() {
    let mut noise = Noise::new(91);
    for [rows, inputs, outputs] in [[1, 1, 1], [3, 70, 33], [65, 24, 1], [40, 129, 130]] {
        let operands =
            [rows * inputs, inputs * outputs].map(|count| representable(noise.values(count)));
        let run = |tensors: &[Tensor<1>], lowers: bool| {
            let x = tensors[0].clone().reshape([rows, inputs]);
            let x = if lowers { in_bf16(x) } else { x };
            linear(x, tensors[1].clone().reshape([inputs, outputs])).reshape([-1])
        };
        assert_within(
            &|tensors| run(tensors, true),
            &|tensors| run(tensors, false),
            &operands,
            |_| 2e-5,
            &format!("{rows} x {inputs} x {outputs}"),
        );
    }
}

/// Other operands are rounded to the nearest: the product is that of the rounded ones.
#[test]
fn operands_are_rounded_before_they_are_multiplied() {
    let mut noise = Noise::new(92);
    let (rows, inputs, outputs) = (9, 50, 21);
    let operands = [noise.values(rows * inputs), noise.values(inputs * outputs)];
    let run = |tensors: &[Tensor<1>], lowers: bool| {
        let x = tensors[0].clone().reshape([rows, inputs]);
        let x = if lowers { in_bf16(x) } else { x };
        linear(x, tensors[1].clone().reshape([inputs, outputs])).reshape([-1])
    };
    let found = untracked(&|tensors| run(tensors, true), &operands, DType::F32);
    let rounded = operands.map(representable);
    let expected = untracked(&|tensors| run(tensors, false), &rounded, DType::F64);
    assert_close(&found, &expected, 2e-5, "the product");
}

/// The loss is that of f32; of the gradients, those of the logits are rounded once.
#[test]
fn the_loss_of_a_bf16_head_is_summed_in_f32() {
    let mut noise = Noise::new(93);
    let (tokens, width, vocab_size) = (530, 20, 33);
    let mut label = |_| match noise.below(4) {
        0 => IGNORE_INDEX,
        _ => noise.below(vocab_size) as i32,
    };
    let labels: Vec<i32> = (0..tokens).map(&mut label).collect();
    let operands =
        [tokens * width, vocab_size * width].map(|count| representable(noise.values(count)));
    for (name, body, loss_tolerance) in [
        ("sum", linear_cross_entropy as fn(_, _, _) -> _, 5e-3),
        ("per token", token_cross_entropy, 2e-5),
    ] {
        let run = |tensors: &[Tensor<1>], lowers: bool| {
            let hidden = tensors[0].clone().reshape([tokens, width]);
            let hidden = if lowers { in_bf16(hidden) } else { hidden };
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
            "gradient 0" | "recomputed gradient 0" => 2.0 * ROUNDING,
            _ => tokens as f64 * ROUNDING / 4.0,
        };
        assert_within(
            &|tensors| run(tensors, true),
            &|tensors| run(tensors, false),
            &operands,
            tolerance,
            name,
        );
    }
}

/// The fused experts round where the composed ones do.
#[test]
fn experts_round_their_products() {
    let mut noise = Noise::new(94);
    let (tokens, hidden, width) = (37, 24, 40);
    let chosen: Vec<u32> = (0..tokens as u32).map(|token| token % 3).collect();
    let routes = Arc::new(Routes::new(chosen, 1, 3));
    let mut inputs = vec![noise.values(tokens * hidden), noise.values(tokens)];
    inputs.extend((0..9).map(|_| noise.values(hidden * width)));
    let inputs: Vec<Vec<f64>> = inputs.into_iter().map(representable).collect();
    let run = |tensors: &[Tensor<1>], lowers: bool, fused: bool| {
        let matrix = |index: usize, shape: [usize; 2]| tensors[index].clone().reshape(shape);
        let networks: Vec<ExpertWeights> = (0..3)
            .map(|expert| ExpertWeights {
                gate: matrix(2 + 3 * expert, [hidden, width]),
                up: matrix(3 + 3 * expert, [hidden, width]),
                down: matrix(4 + 3 * expert, [width, hidden]),
            })
            .collect();
        let x = matrix(0, [tokens, hidden]);
        let x = if lowers { in_bf16(x) } else { x };
        let weights = matrix(1, [tokens, 1]);
        let out = if fused {
            experts(x, weights, &routes, networks)
        } else {
            experts::reference::experts(x, weights, &routes, &networks)
        };
        out.reshape([-1])
    };
    let expected = outcome(&|tensors| run(tensors, false, false), &inputs, DType::F64);
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for fused in [true, false] {
        let rounded = |tensors: &[Tensor<1>]| run(tensors, true, fused);
        assert_outcomes_on(
            &Device::flex(),
            &rounded,
            &inputs,
            &expected,
            |found, expected, part| {
                let tolerance = 4.0 * ROUNDING * largest(expected);
                assert_close(
                    found,
                    expected,
                    tolerance,
                    &format!("fused {fused}: {part}"),
                );
            },
        );
    }
    let plain = untracked(&|tensors| run(tensors, false, true), &inputs, DType::F32);
    let rounded = untracked(&|tensors| run(tensors, true, true), &inputs, DType::F32);
    assert_ne!(plain, rounded, "bf16 must differ from f32");
}
