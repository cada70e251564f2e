//! The gate on graphics cards: one pass forward, one backward.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{SwigluBackwardOps, SwigluOps};
use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, unwritten};

impl SwigluOps for CubeBackend {
    fn swiglu(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
        let (gate, up) = (contiguous(gate), contiguous(up));
        let out = unwritten(&gate, gate.shape());
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        forward::launch(
            &out.client,
            cubes_for(&out, out.shape().num_elements(), cube_dim),
            cube_dim,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            out.clone().into_buffer_arg(),
        );
        out
    }
}

impl SwigluBackwardOps for CubeBackend {
    fn swiglu_backward(
        gate: CubeTensor,
        up: CubeTensor,
        grad: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let (gate, up, grad) = (contiguous(gate), contiguous(up), contiguous(grad));
        let gate_grad = unwritten(&gate, gate.shape());
        let up_grad = unwritten(&up, up.shape());
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        backward::launch(
            &gate_grad.client,
            cubes_for(&gate_grad, gate_grad.shape().num_elements(), cube_dim),
            cube_dim,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            grad.into_buffer_arg(),
            gate_grad.clone().into_buffer_arg(),
            up_grad.clone().into_buffer_arg(),
        );
        (gate_grad, up_grad)
    }
}

/// A unit per element: `out = gate * sigmoid(gate) * up`.
#[cube(launch)]
fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let value = gate[ABSOLUTE_POS];
    out[ABSOLUTE_POS] = value * sigmoid(value) * up[ABSOLUTE_POS];
}

/// A unit per element, with `s` the sigmoid of the gate: `up_grad = grad * gate * s` and
/// `gate_grad = grad * up * s * (1 + gate * (1 - s))`.
#[cube(launch)]
fn backward(gate: &[f32], up: &[f32], grad: &[f32], gate_grad: &mut [f32], up_grad: &mut [f32]) {
    if ABSOLUTE_POS >= gate_grad.len() {
        terminate!();
    }
    let value = gate[ABSOLUTE_POS];
    let open = sigmoid(value);
    let slope = grad[ABSOLUTE_POS] * open;
    up_grad[ABSOLUTE_POS] = slope * value;
    gate_grad[ABSOLUTE_POS] = slope * up[ABSOLUTE_POS] * (1.0_f32 + value * (1.0_f32 - open));
}

/// `1 / (1 + exp(-x))`; the exponential of a large `-x` is infinite and its inverse zero.
#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0_f32 / (1.0_f32 + (-x).exp())
}
