//! The rotary embedding on graphics cards; its gradient is the rotation the other way.
//!
//! Axis letters: `B` batch, `T` positions, `N` heads, `H` head size, `P` rows of the tables.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{RotaryBackwardOps, RotaryOps};
use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, i32s, unwritten};

impl RotaryOps for CubeBackend {
    fn rotary(
        x: CubeTensor,
        positions: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
    ) -> CubeTensor {
        turn(x, positions, cos, sin, 1.0)
    }
}

impl RotaryBackwardOps for CubeBackend {
    fn rotary_backward(
        grad: CubeTensor,
        positions: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
    ) -> CubeTensor {
        turn(grad, positions, cos, sin, -1.0)
    }
}

/// Turns every head of `x` by its position's angles, times `direction`.
fn turn(
    x: CubeTensor,
    positions: CubeTensor,
    cos: CubeTensor,
    sin: CubeTensor,
    direction: f32,
) -> CubeTensor {
    let [x, cos, sin] = [x, cos, sin].map(contiguous);
    let [_, _, num_heads, head_dim] = x.shape().dims();
    let out = unwritten(&x, x.shape());
    let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
    rotate::launch(
        &out.client,
        cubes_for(&out, out.shape().num_elements() / 2, cube_dim),
        cube_dim,
        x.into_buffer_arg(),
        i32s(positions).into_buffer_arg(),
        cos.into_buffer_arg(),
        sin.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        direction,
        num_heads,
        head_dim / 2,
    );
    out
}

/// A unit per pair: with `a` and `b` its halves, `[a * cos - b * sin, b * cos + a * sin]`.
#[cube(launch)]
fn rotate(
    x: &[f32],
    positions: &[i32],
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
    direction: f32,
    #[comptime] num_heads: usize,
    #[comptime] half: usize,
) {
    let head = ABSOLUTE_POS / half;
    let pair = ABSOLUTE_POS % half;
    let a = head * 2 * half + pair;
    let b = a + half;
    if b >= out.len() {
        terminate!();
    }
    let angle = positions[head / num_heads] as usize * half + pair;
    let along = cos[angle];
    let across = sin[angle] * direction;
    out[a] = x[a] * along - x[b] * across;
    out[b] = x[b] * along + x[a] * across;
}
