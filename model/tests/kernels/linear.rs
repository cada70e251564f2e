//! Linear projection without a bias.

use burn::prelude::*;
use model::kernels::{linear, linear::reference};

use crate::check::{
    Noise, assert_deterministic, assert_equals_finite_differences, assert_equals_reference,
};

/// Axes before the last, inputs, outputs.
type Sizes = ([usize; 2], usize, usize);

fn run(
    inputs: &[Tensor<1>],
    (rows, width, outputs): Sizes,
    body: fn(Tensor<3>, Tensor<2>) -> Tensor<3>,
) -> Tensor<1> {
    let x = inputs[0].clone().reshape([rows[0], rows[1], width]);
    body(x, inputs[1].clone().reshape([width, outputs])).reshape([-1])
}

fn inputs((rows, width, outputs): Sizes, noise: &mut Noise) -> [Vec<f64>; 2] {
    [
        noise.values(rows[0] * rows[1] * width),
        noise.values(width * outputs),
    ]
}

/// The composed body in f64 is the expected value.
#[test]
fn linear_equals_its_reference_on_odd_shapes() {
    let mut noise = Noise::new(71);
    let shapes = [
        ([1, 1], 1, 1),
        ([1, 1], 33, 20),
        ([1, 1], 37, 600),
        ([1, 3], 70, 300),
        ([2, 2], 6, 513),
        ([2, 3], 5, 7),
        ([4, 65], 24, 1),
        ([3, 70], 96, 130),
    ];
    for sizes in shapes {
        let fused = |inputs: &[Tensor<1>]| run(inputs, sizes, linear);
        let composed = |inputs: &[Tensor<1>]| run(inputs, sizes, reference::linear);
        let inputs = inputs(sizes, &mut noise);
        assert_equals_reference(&fused, &composed, &inputs, 2e-5, &format!("{sizes:?}"));
    }
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn linear_gradients_equal_finite_differences() {
    let sizes = ([2, 2], 5, 3);
    let fused = |inputs: &[Tensor<1>]| run(inputs, sizes, linear);
    let composed = |inputs: &[Tensor<1>]| run(inputs, sizes, reference::linear);
    let inputs = inputs(sizes, &mut Noise::new(72));
    assert_equals_finite_differences(&fused, &composed, &inputs, 1e-6, "2 x 2 x 5 x 3");
}

/// A weight stored the other way round is read where it lies.
#[test]
fn a_transposed_weight_projects_like_its_copy() {
    let ([a, b], width, outputs) = ([2, 9], 12, 10);
    let fused = |inputs: &[Tensor<1>]| {
        let weight = inputs[1].clone().reshape([outputs, width]).transpose();
        linear(inputs[0].clone().reshape([a, b, width]), weight).reshape([-1])
    };
    let composed = |inputs: &[Tensor<1>]| {
        let weight = inputs[1].clone().reshape([outputs, width]).transpose();
        reference::linear(inputs[0].clone().reshape([a, b, width]), weight).reshape([-1])
    };
    let inputs = inputs(([a, b], width, outputs), &mut Noise::new(73));
    assert_equals_reference(&fused, &composed, &inputs, 1e-5, "transposed");
}

/// However the product is cut into pieces, each element is one sum in one order.
#[test]
fn linear_gives_the_same_bits_on_any_number_of_threads() {
    let sizes = ([4, 100], 96, 200);
    let fused = |inputs: &[Tensor<1>]| run(inputs, sizes, linear);
    assert_deterministic(&fused, &inputs(sizes, &mut Noise::new(74)));
}
