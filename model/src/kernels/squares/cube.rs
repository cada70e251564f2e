//! Sums of squares on graphics cards: a cube per run of elements, in one pass.

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, team_sum, unwritten};

/// Elements that one unit of a cube adds up.
const PER_UNIT: usize = 64;

/// Elements of a run.
const RUN: usize = CUBE_UNITS * PER_UNIT;

/// A number per run of elements.
pub(super) fn squares(x: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::squares(x.into_dispatch()))
}

/// Sums of squares; nothing tracks them.
#[backend_extension(Cube, Fusion)]
pub(crate) trait SquaresOps: Backend {
    #[fusion(meta = |x| TensorSpec::new(num_runs(&x.shape), x.dtype))]
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

fn num_runs(elements: &Shape) -> Shape {
    Shape::new([elements.num_elements().div_ceil(RUN)])
}

impl SquaresOps for CubeBackend {
    fn squares(x: CubeTensor) -> CubeTensor {
        let x = contiguous(x);
        let sums = unwritten(&x, num_runs(&x.shape()));
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        sum_runs::launch(
            &sums.client,
            cubes_for(&sums, sums.shape().num_elements() * CUBE_UNITS, cube_dim),
            cube_dim,
            x.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
        );
        sums
    }
}

/// A cube per run; neighbouring units read neighbouring elements.
#[cube(launch)]
fn sum_runs(x: &[f32], sums: &mut [f32]) {
    let first = CUBE_POS * RUN + UNIT_POS as usize;
    let mut sum = 0.0_f32;
    for step in 0..PER_UNIT {
        let place = first + step * CUBE_UNITS;
        if place < x.len() {
            sum += x[place] * x[place];
        }
    }
    let sum = team_sum(sum, CUBE_UNITS);
    if UNIT_POS == 0 && CUBE_POS < sums.len() {
        sums[CUBE_POS] = sum;
    }
}
