//! AdamW's update, and the squared length of a gradient.

use burn::prelude::*;
use burn::tensor::DType;
use model::kernels::adamw::{AdamWStep, AdamWTensors, adamw, reference};
use model::kernels::squares;

#[cfg(feature = "cube")]
use crate::card::card;
use crate::check::{Noise, assert_close};

/// One rounding or two of numbers up to 2.
const TOLERANCE: f64 = 5e-7;

const STEP: AdamWStep = AdamWStep {
    beta_1: 0.9,
    beta_2: 0.95,
    keep: 0.99,
    step_size: 0.01,
    root_correction: 0.3,
    eps: 1e-8,
};

/// Numbers of a parameter, its moments and its gradient, the last of them all zeros.
fn numbers(count: usize, noise: &mut Noise) -> [Vec<f64>; 4] {
    let mut numbers = [(); 4].map(|()| noise.values(count));
    for square in &mut numbers[2] {
        *square = square.abs();
    }
    for numbers in &mut numbers {
        numbers[count - 1] = 0.0;
    }
    numbers
}

type Update = fn(AdamWTensors, Tensor<1>, Tensor<1>, AdamWStep) -> AdamWTensors;

fn updated(
    numbers: &[Vec<f64>; 4],
    scale: f64,
    update: Update,
    (dtype, device): (DType, &Device),
) -> Vec<f64> {
    let [param, moment_1, moment_2, grad] = numbers.each_ref().map(|values| {
        let data = TensorData::new(values.clone(), [values.len()]);
        Tensor::<1>::from_data(data, (device, dtype))
    });
    // A second handle on one of them: its owner must not see the update.
    let held = moment_1.clone();
    let tensors = AdamWTensors {
        param,
        moment_1,
        moment_2,
    };
    let scale = Tensor::<1>::from_data([scale], (device, dtype));
    let tensors = update(tensors, grad, scale, STEP);
    let read = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    assert_close(&read(held), &numbers[1], 0.0, "a moment that is held");
    [tensors.param, tensors.moment_1, tensors.moment_2]
        .map(read)
        .concat()
}

fn assert_adamw_equals_its_reference_on(device: &Device) {
    let mut noise = Noise::new(91);
    for count in [1, 5, 1000, 40_000] {
        let numbers = numbers(count, &mut noise);
        let exactly = (DType::F64, &Device::flex());
        let expected = updated(&numbers, 0.25, reference::adamw, exactly);
        let found = updated(&numbers, 0.25, adamw, (DType::F32, device));
        assert_close(&found, &expected, TOLERANCE, &format!("{count} elements"));

        // A gradient that is no number must leave no trace either.
        let mut numbers = numbers;
        numbers[3][0] = f64::NAN;
        let unchanged = numbers[..3].concat();
        let found = updated(&numbers, -1.0, adamw, (DType::F32, device));
        assert_close(&found, &unchanged, 1e-7, "a skipped update");
        let found = updated(&numbers, -1.0, reference::adamw, exactly);
        assert_close(&found, &unchanged, 0.0, "a skipped update, composed");
    }
}

/// The composed body in f64 is the expected value; 40,000 elements are three chunks.
#[test]
fn adamw_equals_its_reference() {
    assert_adamw_equals_its_reference_on(&Device::flex());
}

/// The composed body in f64 on the CPU is the expected value.
#[cfg(feature = "cube")]
#[test]
fn adamw_equals_its_reference_on_a_graphics_card() {
    let Some(device) = card() else { return };
    assert_adamw_equals_its_reference_on(&device);
}

fn assert_squares_add_up_on(device: &Device) {
    let mut noise = Noise::new(92);
    for count in [1, 255, 16_384, 16_385, 100_000] {
        let values = noise.values(count);
        let expected: f64 = values.iter().map(|value| value * value).sum();
        let data = TensorData::new(values, [count]);
        let x = Tensor::<1>::from_data(data, (device, DType::F32));
        let read = || -> Vec<f64> { squares(x.clone()).into_data().iter().collect() };
        let sums = read();
        let found: f64 = sums.iter().sum();
        let error = (found - expected).abs() / expected;
        assert!(
            error < 1e-6,
            "{count} elements: {found}, expected {expected}"
        );
        assert_eq!(read(), sums, "the same bits each time");
    }
}

/// A sum in f64 is the expected value.
#[test]
fn squares_add_up() {
    assert_squares_add_up_on(&Device::flex());
}

/// A sum in f64 is the expected value; runs end within, at and behind the elements.
#[cfg(feature = "cube")]
#[test]
fn squares_add_up_on_a_graphics_card() {
    let Some(device) = card() else { return };
    assert_squares_add_up_on(&device);
}
