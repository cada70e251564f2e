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
        ([32, 1], 70, 300),
        ([7, 2], 130, 513),
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

/// One token of each of many sequences: the sums of a sequence must not depend on how many others
/// are decoded beside it, whichever way the weight lies.
#[test]
fn a_row_has_the_same_bits_among_few_and_among_many() {
    let device = Device::flex();
    let mut noise = Noise::new(75);
    for (rows, width, outputs) in [(5, 70, 40), (6, 130, 300), (32, 64, 513), (9, 1, 1)] {
        let values = |count: usize, noise: &mut Noise| -> Vec<f32> {
            let values = noise.values(count).into_iter();
            values.map(|value| value as f32).collect()
        };
        let x = TensorData::new(values(rows * width, &mut noise), [rows, 1, width]);
        let x = Tensor::<3>::from_data(x, &device);
        let weight = TensorData::new(values(width * outputs, &mut noise), [width, outputs]);
        let weight = Tensor::<2>::from_data(weight, &device);
        let turned = weight.clone().transpose().mul_scalar(1.0).transpose();
        for (name, weight) in [("as it is", weight), ("transposed", turned)] {
            let bits = |x: Tensor<3>| -> Vec<u32> {
                let out = linear(x, weight.clone()).into_data();
                out.iter::<f32>().map(f32::to_bits).collect()
            };
            let together = bits(x.clone());
            for (row, found) in together.chunks_exact(outputs).enumerate() {
                let alone = bits(x.clone().narrow(0, row, 1));
                assert_eq!(
                    found, alone,
                    "{name}: row {row} of {rows}, {width} x {outputs}"
                );
            }
        }
    }
}

/// A prompt's tokens: their sums must not depend on how many are read at once, also where the inner
/// axis is summed in blocks.
#[test]
fn a_row_has_the_same_bits_in_a_long_sequence_and_in_a_longer_one() {
    const LONGEST: usize = 320;
    let device = Device::flex();
    let mut noise = Noise::new(76);
    for (width, outputs) in [(70, 33), (600, 40), (1408, 512), (512, 1408), (1030, 7)] {
        let mut values = |count: usize| -> Vec<f32> {
            let values = noise.values(count).into_iter();
            values.map(|value| value as f32).collect()
        };
        let x = TensorData::new(values(LONGEST * width), [1, LONGEST, width]);
        let x = Tensor::<3>::from_data(x, &device);
        let weight = TensorData::new(values(width * outputs), [width, outputs]);
        let weight = Tensor::<2>::from_data(weight, &device);
        let bits = |len: usize| -> Vec<u32> {
            let out = linear(x.clone().narrow(1, 0, len), weight.clone()).into_data();
            out.iter::<f32>().map(f32::to_bits).collect()
        };
        let longest = bits(LONGEST);
        for len in [5, 64, 65, 128, 192] {
            let found = bits(len);
            assert!(
                found == longest[..found.len()],
                "{width} x {outputs}: {len} rows have other bits than among {LONGEST}"
            );
        }
    }
}
