//! Fused feed-forward gate on the CPU: one pass forward, one pass backward.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{SwigluBackwardOps, SwigluOps};
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous, tensor_of, unzeroed};
use crate::kernels::simd::{sigmoid, vectorized};

impl SwigluOps for Flex {
    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (mut gate, up) = (contiguous(gate), contiguous(up));
        let up_values = up.storage::<f32>();
        if let Some(values) = gate.try_storage_mut::<f32>() {
            // Nothing needs the gate again: its memory becomes the output's.
            values
                .par_chunks_mut(CHUNK_ELEMENTS)
                .zip(up_values.par_chunks(CHUNK_ELEMENTS))
                .for_each(|(gate, up)| vectorized(ForwardInPlace { gate, up }));
            return gate;
        }
        let gate_values = gate.storage::<f32>();
        let mut out = unzeroed(gate_values.len());
        swiglu_into(&mut out, gate_values, up_values);
        tensor_of(out, gate.shape())
    }
}

impl SwigluBackwardOps for Flex {
    fn swiglu_backward(
        gate: FlexTensor,
        up: FlexTensor,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        // In training the graph was the last owner of gate and up: their memory takes the
        // gradients. Should somebody still hold them, `storage_mut` copies first.
        let (mut gate, mut up, grad) = (contiguous(gate), contiguous(up), contiguous(grad));
        let grad_values = grad.storage::<f32>();
        swiglu_backward_in_place(
            gate.storage_mut::<f32>(),
            up.storage_mut::<f32>(),
            grad_values,
        );
        (gate, up)
    }
}

/// Writes `gate * sigmoid(gate) * up`, on all threads.
pub(crate) fn swiglu_into(out: &mut [f32], gate: &[f32], up: &[f32]) {
    out.par_chunks_mut(CHUNK_ELEMENTS)
        .zip(gate.par_chunks(CHUNK_ELEMENTS))
        .zip(up.par_chunks(CHUNK_ELEMENTS))
        .for_each(|((out, gate), up)| vectorized(Forward { gate, up, out }));
}

/// Replaces gate and up by their gradients, on all threads.
pub(crate) fn swiglu_backward_in_place(gate: &mut [f32], up: &mut [f32], grad: &[f32]) {
    gate.par_chunks_mut(CHUNK_ELEMENTS)
        .zip(up.par_chunks_mut(CHUNK_ELEMENTS))
        .zip(grad.par_chunks(CHUNK_ELEMENTS))
        .for_each(|((gate, up), grad)| vectorized(BackwardInPlace { gate, up, grad }));
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_tail) = S::as_simd_f32s(self.gate);
        let (up, up_tail) = S::as_simd_f32s(self.up);
        let (out, out_tail) = S::as_mut_simd_f32s(self.out);
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            *out = value(simd, *gate, *up);
        }
        let gate = simd.partial_load_f32s(gate_tail);
        let up = simd.partial_load_f32s(up_tail);
        simd.partial_store_f32s(out_tail, value(simd, gate, up));
    }
}

struct ForwardInPlace<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl WithSimd for ForwardInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_tail) = S::as_mut_simd_f32s(self.gate);
        let (up, up_tail) = S::as_simd_f32s(self.up);
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = value(simd, *gate, *up);
        }
        let last = value(
            simd,
            simd.partial_load_f32s(gate_tail),
            simd.partial_load_f32s(up_tail),
        );
        simd.partial_store_f32s(gate_tail, last);
    }
}

struct BackwardInPlace<'a> {
    gate: &'a mut [f32],
    up: &'a mut [f32],
    grad: &'a [f32],
}

impl WithSimd for BackwardInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_tail) = S::as_mut_simd_f32s(self.gate);
        let (up, up_tail) = S::as_mut_simd_f32s(self.up);
        let (grad, grad_tail) = S::as_simd_f32s(self.grad);
        for ((gate, up), grad) in gate.iter_mut().zip(up).zip(grad) {
            (*gate, *up) = gradients(simd, *gate, *up, *grad);
        }
        let (gate_grad, up_grad) = gradients(
            simd,
            simd.partial_load_f32s(gate_tail),
            simd.partial_load_f32s(up_tail),
            simd.partial_load_f32s(grad_tail),
        );
        simd.partial_store_f32s(gate_tail, gate_grad);
        simd.partial_store_f32s(up_tail, up_grad);
    }
}

#[inline(always)]
fn value<S: Simd>(simd: S, gate: S::f32s, up: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.mul_f32s(gate, sigmoid(simd, gate)), up)
}

/// With `s` the sigmoid of the gate: `grad * up * s * (1 + gate * (1 - s))` and `grad * gate * s`.
#[inline(always)]
fn gradients<S: Simd>(simd: S, gate: S::f32s, up: S::f32s, grad: S::f32s) -> (S::f32s, S::f32s) {
    let one = simd.splat_f32s(1.0);
    let s = sigmoid(simd, gate);
    let grad_s = simd.mul_f32s(grad, s);
    let slope = simd.mul_add_e_f32s(gate, simd.sub_f32s(one, s), one);
    let gate_grad = simd.mul_f32s(simd.mul_f32s(grad_s, up), slope);
    (gate_grad, simd.mul_f32s(grad_s, gate))
}
