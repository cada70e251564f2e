//! Root-mean-square normalisation.

use burn::prelude::*;
use model::kernels::{rms_norm, rms_norm::reference};

#[cfg(feature = "cube")]
use crate::card::{assert_deterministic_on_card, assert_equals_reference_on_card};
use crate::check::{
    Noise, assert_deterministic, assert_equals_finite_differences, assert_equals_reference,
};

const EPS: f64 = 1e-5;
/// Rows of up to 96 products of numbers up to 1, gradients divided by an rms near 0.6.
const TOLERANCE: f64 = 5e-6;

/// Rows and their widths: below, at and above what one team of a graphics card holds.
const SHAPES: [(usize, usize); 8] = [
    (1, 1),
    (1, 7),
    (3, 16),
    (5, 33),
    (2, 96),
    (1030, 17),
    (70, 512),
    (37, 777),
];

fn fused(inputs: &[Tensor<1>]) -> Tensor<1> {
    let [x, weight] = [inputs[0].clone(), inputs[1].clone()];
    let [width] = weight.dims();
    rms_norm(x.reshape([-1, width as i32]), weight, EPS).reshape([-1])
}

fn composed(inputs: &[Tensor<1>]) -> Tensor<1> {
    let [x, weight] = [inputs[0].clone(), inputs[1].clone()];
    let [width] = weight.dims();
    reference::rms_norm(x.reshape([-1, width as i32]), weight, EPS).reshape([-1])
}

/// The composed body in f64 is the expected value.
#[test]
fn rms_norm_equals_its_reference_on_odd_shapes() {
    let mut noise = Noise::new(1);
    for (rows, width) in SHAPES {
        let inputs = [noise.values(rows * width), noise.values(width)];
        let what = format!("{rows} x {width}");
        assert_equals_reference(&fused, &composed, &inputs, tolerance(rows), &what);
    }
}

/// The weight's gradient sums one term per row.
fn tolerance(rows: usize) -> f64 {
    TOLERANCE * (1.0 + rows as f64 / 20.0)
}

/// The composed body in f64 on the CPU is the expected value. The most rows need three passes
/// of sums.
#[cfg(feature = "cube")]
#[test]
fn rms_norm_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(4);
    for (rows, width) in SHAPES.into_iter().chain([(70_000, 3)]) {
        let inputs = [noise.values(rows * width), noise.values(width)];
        let what = format!("{rows} x {width}");
        assert_equals_reference_on_card(&fused, &composed, &inputs, tolerance(rows), &what);
    }
}

/// The weight's gradient is a sum over rows from many cubes.
#[cfg(feature = "cube")]
#[test]
fn rms_norm_gives_the_same_bits_on_a_graphics_card_each_time() {
    let mut noise = Noise::new(3);
    assert_deterministic_on_card(&fused, &[noise.values(500 * 96), noise.values(96)]);
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn rms_norm_gradients_equal_finite_differences() {
    let mut noise = Noise::new(2);
    for (rows, width) in [(1, 3), (4, 9), (3, 24)] {
        let inputs = [noise.values(rows * width), noise.values(width)];
        let what = format!("{rows} x {width}");
        assert_equals_finite_differences(&fused, &composed, &inputs, 1e-5, &what);
    }
}

/// A row of zeros has no direction: the output is zero and nothing divides by zero.
#[test]
fn a_row_of_zeros_stays_zero_with_finite_gradients() {
    let inputs = [vec![0.0; 24], vec![1.0; 24]];
    assert_equals_reference(&fused, &composed, &inputs, 2e-4, "zeros");
}

/// The weight's gradient is a sum over rows from many tasks.
#[test]
fn rms_norm_gives_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(3);
    assert_deterministic(&fused, &[noise.values(500 * 96), noise.values(96)]);
}

/// A transposed view is no run of memory, and its values are not in row order.
#[test]
fn rms_norm_reads_views_in_their_own_order() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
    let weight = Tensor::<1>::ones([2], &device);
    let view = rms_norm(x.clone().transpose(), weight.clone(), EPS);
    let copied = Tensor::<2>::from_data(x.transpose().into_data(), &device);
    let copy = rms_norm(copied, weight, EPS);
    view.into_data().assert_eq(&copy.into_data(), true);
}
