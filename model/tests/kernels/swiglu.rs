//! The gate of the feed-forward block.

use burn::prelude::*;
use model::kernels::{swiglu, swiglu::reference};

#[cfg(feature = "cube")]
use crate::card::{assert_equals_reference_on_card, card};
#[cfg(feature = "cube")]
use crate::check::untracked_on;
use crate::check::{
    Noise, assert_close, assert_deterministic, assert_equals_finite_differences,
    assert_equals_reference, untracked,
};

const TOLERANCE: f64 = 5e-7;
const LENGTHS: [usize; 7] = [1, 5, 8, 31, 64, 1001, 40_007];

fn fused(inputs: &[Tensor<1>]) -> Tensor<1> {
    swiglu(inputs[0].clone(), inputs[1].clone())
}

fn composed(inputs: &[Tensor<1>]) -> Tensor<1> {
    reference::swiglu(inputs[0].clone(), inputs[1].clone())
}

/// The composed body in f64 is the expected value.
#[test]
fn swiglu_equals_its_reference_on_odd_lengths() {
    let mut noise = Noise::new(11);
    for length in LENGTHS {
        let inputs = [noise.values(length), noise.values(length)];
        assert_equals_reference(&fused, &composed, &inputs, TOLERANCE, &format!("{length}"));
    }
}

/// The composed body in f64 on the CPU is the expected value.
#[cfg(feature = "cube")]
#[test]
fn swiglu_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(15);
    for length in LENGTHS {
        let inputs = [noise.values(length), noise.values(length)];
        let what = format!("{length}");
        assert_equals_reference_on_card(&fused, &composed, &inputs, TOLERANCE, &what);
    }
}

/// By hand, as on the CPU: the exponential of 1000 is infinite, and its inverse zero.
#[cfg(feature = "cube")]
#[test]
fn swiglu_saturates_without_overflow_on_a_graphics_card() {
    let Some(device) = card() else { return };
    let inputs = [vec![-1000.0, -100.0, 100.0, 1000.0], vec![2.0; 4]];
    let out = untracked_on(&fused, &inputs, burn::tensor::DType::F32, &device);
    assert_close(&out, &[0.0, 0.0, 200.0, 2000.0], 1e-30, "saturated");
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn swiglu_gradients_equal_finite_differences() {
    let mut noise = Noise::new(12);
    let inputs = [noise.values(37), noise.values(37)];
    assert_equals_finite_differences(&fused, &composed, &inputs, 1e-6, "37");
}

/// By hand: the sigmoid is 0 or 1 there, so the output is 0 or the product.
#[test]
fn swiglu_saturates_without_overflow() {
    let inputs = [vec![-1000.0, -100.0, 100.0, 1000.0], vec![2.0; 4]];
    let out = untracked(&fused, &inputs, burn::tensor::DType::F32);
    assert_close(&out, &[0.0, 0.0, 200.0, 2000.0], 1e-30, "saturated");
}

/// One tensor as both operands: memory must not be reused under the other's feet.
#[test]
fn swiglu_of_a_tensor_with_itself_has_both_gradients() {
    let fused = |inputs: &[Tensor<1>]| swiglu(inputs[0].clone(), inputs[0].clone());
    let composed = |inputs: &[Tensor<1>]| reference::swiglu(inputs[0].clone(), inputs[0].clone());
    let inputs = [Noise::new(13).values(100)];
    assert_equals_reference(&fused, &composed, &inputs, 2.0 * TOLERANCE, "itself");
}

/// The work is cut into chunks of fixed size.
#[test]
fn swiglu_gives_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(14);
    assert_deterministic(&fused, &[noise.values(70_001), noise.values(70_001)]);
}
