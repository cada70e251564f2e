//! Fused rotary embedding on the CPU: one pass, in place where nobody else holds the input.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Angles, RotaryBackwardOps, RotaryOps};
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous, dims, indices, tensor_of, unzeroed};
use crate::kernels::simd::vectorized;

impl RotaryOps for Flex {
    fn rotary(
        x: FlexTensor,
        positions: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
    ) -> FlexTensor {
        let angles = Angles {
            positions,
            cos,
            sin,
        };
        rotate(x, &angles, 1.0)
    }
}

impl RotaryBackwardOps for Flex {
    fn rotary_backward(
        grad: FlexTensor,
        positions: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
    ) -> FlexTensor {
        let angles = Angles {
            positions,
            cos,
            sin,
        };
        rotate(grad, &angles, -1.0)
    }
}

/// Rotates by the angles, or back when `direction` is -1.
fn rotate(x: FlexTensor, angles: &Angles<Flex>, direction: f32) -> FlexTensor {
    let mut x = contiguous(x);
    let [_, _, num_heads, head_dim] = dims(&x);
    let [rows, half] = dims(&angles.cos);
    let (cos, sin) = (angles.cos.to_contiguous(), angles.sin.to_contiguous());
    let (cos, sin) = (cos.storage::<f32>(), sin.storage::<f32>());
    let positions = indices(&angles.positions, rows, "rotary: position");

    let width = num_heads * head_dim;
    let tokens = (CHUNK_ELEMENTS / width).max(1);
    let token = |position: usize| {
        let row = position * half..(position + 1) * half;
        (&cos[row.clone()], &sin[row])
    };
    if let Some(values) = x.try_storage_mut::<f32>() {
        values
            .par_chunks_mut(tokens * width)
            .zip(positions.par_chunks(tokens))
            .for_each(|(chunk, positions)| {
                for (heads, position) in chunk.chunks_exact_mut(width).zip(positions) {
                    let (cos, sin) = token(*position);
                    vectorized(RotateInPlace {
                        heads,
                        cos,
                        sin,
                        direction,
                    });
                }
            });
        return x;
    }
    let values = x.storage::<f32>();
    let mut out = unzeroed(values.len());
    out.par_chunks_mut(tokens * width)
        .zip(values.par_chunks(tokens * width))
        .zip(positions.par_chunks(tokens))
        .for_each(|((out, chunk), positions)| {
            let pairs = out.chunks_exact_mut(width).zip(chunk.chunks_exact(width));
            for ((out, heads), position) in pairs.zip(positions) {
                let (cos, sin) = token(*position);
                vectorized(Rotate {
                    heads,
                    out,
                    cos,
                    sin,
                    direction,
                });
            }
        });
    tensor_of(out, x.shape())
}

/// The heads of one token into another place.
struct Rotate<'a> {
    heads: &'a [f32],
    out: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    direction: f32,
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = self.cos.len();
        let direction = simd.splat_f32s(self.direction);
        let (cos, cos_tail) = S::as_simd_f32s(self.cos);
        let (sin, sin_tail) = S::as_simd_f32s(self.sin);
        let heads = self.heads.chunks_exact(2 * half);
        for (head, out) in heads.zip(self.out.chunks_exact_mut(2 * half)) {
            let (a, b) = head.split_at(half);
            let (a_out, b_out) = out.split_at_mut(half);
            let (a, a_tail) = S::as_simd_f32s(a);
            let (b, b_tail) = S::as_simd_f32s(b);
            let (a_out, a_out_tail) = S::as_mut_simd_f32s(a_out);
            let (b_out, b_out_tail) = S::as_mut_simd_f32s(b_out);
            for i in 0..cos.len() {
                let sin = simd.mul_f32s(sin[i], direction);
                (a_out[i], b_out[i]) = turn(simd, a[i], b[i], cos[i], sin);
            }
            let (a_last, b_last) = turn(
                simd,
                simd.partial_load_f32s(a_tail),
                simd.partial_load_f32s(b_tail),
                simd.partial_load_f32s(cos_tail),
                simd.mul_f32s(simd.partial_load_f32s(sin_tail), direction),
            );
            simd.partial_store_f32s(a_out_tail, a_last);
            simd.partial_store_f32s(b_out_tail, b_last);
        }
    }
}

/// The heads of one token where they stand.
struct RotateInPlace<'a> {
    heads: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    direction: f32,
}

impl WithSimd for RotateInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = self.cos.len();
        let direction = simd.splat_f32s(self.direction);
        let (cos, cos_tail) = S::as_simd_f32s(self.cos);
        let (sin, sin_tail) = S::as_simd_f32s(self.sin);
        for head in self.heads.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            let (a, a_tail) = S::as_mut_simd_f32s(a);
            let (b, b_tail) = S::as_mut_simd_f32s(b);
            for i in 0..cos.len() {
                let sin = simd.mul_f32s(sin[i], direction);
                (a[i], b[i]) = turn(simd, a[i], b[i], cos[i], sin);
            }
            let (a_last, b_last) = turn(
                simd,
                simd.partial_load_f32s(a_tail),
                simd.partial_load_f32s(b_tail),
                simd.partial_load_f32s(cos_tail),
                simd.mul_f32s(simd.partial_load_f32s(sin_tail), direction),
            );
            simd.partial_store_f32s(a_tail, a_last);
            simd.partial_store_f32s(b_tail, b_last);
        }
    }
}

#[inline(always)]
fn turn<S: Simd>(
    simd: S,
    a: S::f32s,
    b: S::f32s,
    cos: S::f32s,
    sin: S::f32s,
) -> (S::f32s, S::f32s) {
    let first = simd.mul_add_e_f32s(simd.neg_f32s(b), sin, simd.mul_f32s(a, cos));
    let second = simd.mul_add_e_f32s(a, sin, simd.mul_f32s(b, cos));
    (first, second)
}
