//! The small layers against numbers of the numpy recipe behind the goldens, to f32's rounding.

use burn::prelude::*;
use burn::tensor::Tolerance;
use model::ModelConfig;
use model::norm::RmsNorm;
use model::rope::RotaryTables;

use crate::fixture::{golden_model, int_tensor};

const LAYER: f32 = 1e-6;

/// One head `1..=8` at position 3, theta 1e6 and 1e4.
#[test]
fn rotation_turns_halves_by_the_angles_of_the_position() {
    let device = Device::flex();
    for (rope_theta, expected) in [
        (
            1e6,
            [
                -1.695_592_5_f32,
                1.422_650_2,
                2.978_986_5,
                3.999_241,
                -4.808_842_5,
                6.162_472_4,
                7.008_968_5,
                8.000_38,
            ],
        ),
        (
            1e4,
            [
                -1.695_592_5,
                0.137_551_74,
                2.788_681_6,
                3.975_982,
                -4.808_842_5,
                6.323_059,
                7.086_837,
                8.011_964,
            ],
        ),
    ] {
        let tables = tables(rope_theta, &device);
        let head = Tensor::<1>::from_data([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &device);
        let rotated = tables.rotate(head.reshape([1, 1, 1, 8]), int_tensor(&[vec![3]], &device));
        let expected = TensorData::new(expected.to_vec(), [1, 1, 1, 8]);
        rotated
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(LAYER));
    }
}

/// The second document of a row starts at position 0 again, whatever slot it begins in.
#[test]
fn rotation_follows_the_positions_and_not_the_slots() {
    let device = Device::flex();
    let x = Tensor::<1, Int>::arange(0..32, &device)
        .float()
        .reshape([1, 4, 1, 8]);
    let halves = Tensor::cat(vec![x.clone(), x.clone()], 1); // [1, 8, 1, 8]
    let positions = int_tensor(&[vec![0, 1, 2, 3, 0, 1, 2, 3]], &device);
    let rotated = tables(1e4, &device).rotate(halves, positions);
    let second = rotated.clone().slice([0..1, 4..8]).into_data();
    rotated
        .clone()
        .slice([0..1, 0..4])
        .into_data()
        .assert_eq(&second, true);
    // Position 0 turns nothing.
    let first = x.slice([0..1, 0..1]).into_data();
    rotated
        .slice([0..1, 0..1])
        .into_data()
        .assert_eq(&first, true);
}

/// `[1, 2, 3, 4]` with either eps.
#[test]
fn rms_norm_divides_by_the_root_mean_square() {
    let device = Device::flex();
    for (eps, expected) in [
        (
            1e-5,
            [0.365_148_13_f32, 0.730_296_26, 1.095_444_4, 1.460_592_5],
        ),
        (1e-6, [0.365_148_35, 0.730_296_7, 1.095_445, 1.460_593_3]),
    ] {
        let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0, 4.0]], &device);
        let found = RmsNorm::new(4, eps, &device).forward(x).into_data();
        found.assert_approx_eq::<f32>(&TensorData::from([expected]), Tolerance::absolute(LAYER));
    }
}

fn tables(rope_theta: f64, device: &Device) -> RotaryTables {
    let config = golden_model("hf_qwen3", device).config().clone();
    RotaryTables::new(
        &ModelConfig {
            head_dim: 8,
            rope_theta,
            ..config
        },
        device,
    )
}
