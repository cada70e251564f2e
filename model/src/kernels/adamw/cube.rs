//! AdamW's update on graphics cards: one pass.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{AdamWOps, AdamWStep};
use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, in_place};

impl AdamWOps for CubeBackend {
    fn adamw(
        param: CubeTensor,
        moment_1: CubeTensor,
        moment_2: CubeTensor,
        grad: CubeTensor,
        scale: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [param, moment_1, moment_2] = [param, moment_1, moment_2].map(in_place);
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        update::launch(
            &param.client,
            cubes_for(&param, param.shape().num_elements(), cube_dim),
            cube_dim,
            param.clone().into_buffer_arg(),
            moment_1.clone().into_buffer_arg(),
            moment_2.clone().into_buffer_arg(),
            contiguous(grad).into_buffer_arg(),
            contiguous(scale).into_buffer_arg(),
            step.beta_1 as f32,
            (1.0 - step.beta_1) as f32,
            step.beta_2 as f32,
            (1.0 - step.beta_2) as f32,
            step.keep as f32,
            step.step_size as f32,
            step.root_correction as f32,
            step.eps as f32,
        );
        (param, moment_1, moment_2)
    }
}

/// A unit per element; `rest_1` and `rest_2` are what the decay rates leave of one.
#[cube(launch)]
fn update(
    params: &mut [f32],
    firsts: &mut [f32],
    seconds: &mut [f32],
    grads: &[f32],
    scale: &[f32],
    beta_1: f32,
    rest_1: f32,
    beta_2: f32,
    rest_2: f32,
    keep: f32,
    step_size: f32,
    root_correction: f32,
    eps: f32,
) {
    if ABSOLUTE_POS >= params.len() || scale[0] < 0.0 {
        terminate!();
    }
    let grad = grads[ABSOLUTE_POS] * scale[0];
    let first = firsts[ABSOLUTE_POS] * beta_1 + grad * rest_1;
    let second = seconds[ABSOLUTE_POS] * beta_2 + grad * grad * rest_2;
    firsts[ABSOLUTE_POS] = first;
    seconds[ABSOLUTE_POS] = second;
    let root = second.sqrt() / root_correction;
    params[ABSOLUTE_POS] = params[ABSOLUTE_POS] * keep - first / (root + eps) * step_size;
}
