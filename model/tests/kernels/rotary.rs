//! Rotary position embedding.

use burn::prelude::*;
use burn::tensor::DType;
use model::kernels::{rotary, rotary::reference};

#[cfg(feature = "cube")]
use crate::card::assert_equals_reference_on_card;
use crate::check::{
    Noise, Operation, assert_deterministic, assert_equals_finite_differences,
    assert_equals_reference, untracked,
};

const TOLERANCE: f64 = 5e-7;
const ROWS: usize = 50;
const SHAPES: [[usize; 4]; 5] = [
    [1, 1, 1, 2],
    [2, 3, 1, 16],
    [1, 5, 3, 24],
    [3, 7, 2, 34],
    [2, 40, 8, 96],
];

/// Sizes of one case and its positions.
struct Case {
    shape: [usize; 4],
    positions: Vec<i32>,
}

impl Case {
    fn new(shape: [usize; 4], noise: &mut Noise) -> Self {
        let count = shape[0] * shape[1];
        Self {
            shape,
            positions: (0..count).map(|_| noise.below(ROWS) as i32).collect(),
        }
    }

    fn values(&self, noise: &mut Noise) -> Vec<f64> {
        noise.values(self.shape.iter().product())
    }

    fn run(
        &self,
        x: &Tensor<1>,
        body: impl Fn(Tensor<4>, Tensor<2, Int>, Tensor<2>, Tensor<2>) -> Tensor<4>,
    ) -> Tensor<1> {
        let device = x.device();
        let [batch, len, _, head_dim] = self.shape;
        let positions = TensorData::new(self.positions.clone(), [batch, len]);
        let half = head_dim / 2;
        let angle = |index: usize| (index / half) as f64 / 1.7_f64.powi((index % half) as i32);
        let table = |function: fn(f64) -> f64| -> Tensor<2> {
            let values: Vec<f64> = (0..ROWS * half)
                .map(|index| function(angle(index)))
                .collect();
            Tensor::from_data(TensorData::new(values, [ROWS, half]), (&device, x.dtype()))
        };
        let positions = Tensor::from_data(positions, &device);
        body(
            x.clone().reshape(self.shape),
            positions,
            table(f64::cos),
            table(f64::sin),
        )
        .reshape([-1])
    }
}

fn with_case(case: &Case, check: impl Fn(Operation<'_>, Operation<'_>)) {
    let fused = |inputs: &[Tensor<1>]| case.run(&inputs[0], rotary);
    let composed = |inputs: &[Tensor<1>]| case.run(&inputs[0], reference::rotary);
    check(&fused, &composed);
}

/// The composed body in f64 is the expected value.
#[test]
fn rotary_equals_its_reference_on_odd_shapes() {
    let mut noise = Noise::new(21);
    for shape in SHAPES {
        let case = Case::new(shape, &mut noise);
        let inputs = [case.values(&mut noise)];
        with_case(&case, |fused, composed| {
            assert_equals_reference(fused, composed, &inputs, TOLERANCE, &format!("{shape:?}"));
        });
    }
}

/// The composed body in f64 on the CPU is the expected value.
#[cfg(feature = "cube")]
#[test]
fn rotary_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(24);
    for shape in SHAPES {
        let case = Case::new(shape, &mut noise);
        let inputs = [case.values(&mut noise)];
        with_case(&case, |fused, composed| {
            let what = format!("{shape:?}");
            assert_equals_reference_on_card(fused, composed, &inputs, TOLERANCE, &what);
        });
    }
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn rotary_gradients_equal_finite_differences() {
    let mut noise = Noise::new(22);
    let case = Case::new([2, 3, 2, 10], &mut noise);
    let inputs = [case.values(&mut noise)];
    with_case(&case, |fused, composed| {
        assert_equals_finite_differences(fused, composed, &inputs, 1e-6, "10");
    });
}

/// A rotation by the angle zero changes nothing.
#[test]
fn position_zero_is_left_as_it_is() {
    let mut noise = Noise::new(23);
    let mut case = Case::new([1, 4, 2, 8], &mut noise);
    case.positions.fill(0);
    let inputs = [case.values(&mut noise)];
    with_case(&case, |fused, _| {
        assert_eq!(untracked(fused, &inputs, DType::F32), inputs[0]);
    });
}

/// A position past the tables must not read other memory.
#[test]
#[should_panic(expected = "rotary: position: found 50, expected 0 to 49")]
fn a_position_past_the_tables_is_refused() {
    let mut noise = Noise::new(24);
    let mut case = Case::new([1, 2, 1, 4], &mut noise);
    case.positions[1] = 50;
    let inputs = [case.values(&mut noise)];
    with_case(&case, |fused, _| {
        untracked(fused, &inputs, DType::F32);
    });
}

/// The work is cut into chunks of fixed size.
#[test]
fn rotary_gives_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(25);
    let case = Case::new([2, 60, 8, 32], &mut noise);
    let inputs = [case.values(&mut noise)];
    with_case(&case, |fused, _| assert_deterministic(fused, &inputs));
}
