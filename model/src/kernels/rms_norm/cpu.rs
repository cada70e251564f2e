//! Fused root-mean-square normalisation on the CPU: one pass forward, one pass backward.
//!
//! Axis letters: `D` the normalised axis; everything before it is rows.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{RmsNormBackwardOps, RmsNormOps};
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous, tensor_of, unzeroed};
use crate::kernels::simd::{dot, vectorized};

impl RmsNormOps for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let weight = weight.storage::<f32>();
        let values = x.storage::<f32>();
        let chunk = chunk_rows(weight.len()) * weight.len();
        let mut out = unzeroed(values.len());
        out.par_chunks_mut(chunk)
            .zip(values.par_chunks(chunk))
            .for_each(|(out, x)| {
                vectorized(Forward {
                    x,
                    weight,
                    eps,
                    out,
                });
            });
        tensor_of(out, x.shape())
    }
}

impl RmsNormBackwardOps for Flex {
    fn rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        eps: f64,
    ) -> (FlexTensor, FlexTensor) {
        let (x, weight, mut grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let shape = weight.shape();
        let weight = weight.storage::<f32>();
        let values = x.storage::<f32>();
        let width = weight.len();
        let chunk = chunk_rows(width) * width;

        // Each chunk sums its own rows; the chunks are then added in order, so the sum does not
        // depend on which thread was first. The gradient of x takes the memory of `grad`.
        let num_chunks = values.len().div_ceil(chunk);
        let mut partial = vec![0.0_f32; num_chunks * width]; // [chunks, D]
        grad.storage_mut::<f32>()
            .par_chunks_mut(chunk)
            .zip(values.par_chunks(chunk))
            .zip(partial.par_chunks_mut(width))
            .for_each(|((grad, x), weight_grad)| {
                vectorized(BackwardInPlace {
                    x,
                    weight,
                    eps,
                    grad,
                    weight_grad,
                });
            });
        let mut weight_grad = vec![0.0_f32; width];
        for chunk in partial.chunks_exact(width) {
            for (total, part) in weight_grad.iter_mut().zip(chunk) {
                *total += part;
            }
        }
        (grad, tensor_of(weight_grad, shape))
    }
}

/// Rows one task handles.
fn chunk_rows(width: usize) -> usize {
    (CHUNK_ELEMENTS / width).max(1)
}

/// `1 / sqrt(mean(x^2) + eps)` of one row.
#[inline(always)]
fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f64) -> f32 {
    let mean_square = dot(simd, x, x) / x.len() as f32;
    1.0 / (mean_square + eps as f32).sqrt()
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f64,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.weight.len();
        let (weight, weight_tail) = S::as_simd_f32s(self.weight);
        for (x, out) in self
            .x
            .chunks_exact(width)
            .zip(self.out.chunks_exact_mut(width))
        {
            let scale = simd.splat_f32s(inverse_rms(simd, x, self.eps));
            let (x, x_tail) = S::as_simd_f32s(x);
            let (out, out_tail) = S::as_mut_simd_f32s(out);
            for ((x, weight), out) in x.iter().zip(weight).zip(out) {
                *out = simd.mul_f32s(simd.mul_f32s(*x, scale), *weight);
            }
            let last = simd.mul_f32s(
                simd.mul_f32s(simd.partial_load_f32s(x_tail), scale),
                simd.partial_load_f32s(weight_tail),
            );
            simd.partial_store_f32s(out_tail, last);
        }
    }
}

struct BackwardInPlace<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f64,
    grad: &'a mut [f32],
    weight_grad: &'a mut [f32],
}

impl WithSimd for BackwardInPlace<'_> {
    type Output = ();

    /// With `y` the scaled row before the weight, `r` its inverse rms and `g` the gradient times
    /// the weight: `x_grad = r * (g - y * mean(g * y))` and `weight_grad += grad * y`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.weight.len();
        let (weight, weight_tail) = S::as_simd_f32s(self.weight);
        let (total, total_tail) = S::as_mut_simd_f32s(self.weight_grad);
        for (x, grad) in self
            .x
            .chunks_exact(width)
            .zip(self.grad.chunks_exact_mut(width))
        {
            let inverse = inverse_rms(simd, x, self.eps);
            let scale = simd.splat_f32s(inverse);
            let (x, x_tail) = S::as_simd_f32s(x);
            let (grad, grad_tail) = S::as_mut_simd_f32s(grad);

            let mut products = simd.splat_f32s(0.0);
            for (((x, weight), grad), total) in x
                .iter()
                .zip(weight)
                .zip(grad.iter_mut())
                .zip(total.iter_mut())
            {
                let grad_x = simd.mul_f32s(*grad, *x);
                *total = simd.mul_add_e_f32s(grad_x, scale, *total);
                products = simd.mul_add_e_f32s(grad_x, *weight, products);
            }
            let x_last = simd.partial_load_f32s(x_tail);
            let weight_last = simd.partial_load_f32s(weight_tail);
            let grad_last = simd.partial_load_f32s(grad_tail);
            let grad_x = simd.mul_f32s(grad_last, x_last);
            let total_last = simd.mul_add_e_f32s(grad_x, scale, simd.partial_load_f32s(total_tail));
            simd.partial_store_f32s(total_tail, total_last);
            products = simd.mul_add_e_f32s(grad_x, weight_last, products);

            // mean(g * y) * r, still to be multiplied by y = x * r.
            let mean = simd.reduce_sum_f32s(products) / width as f32;
            let pull = simd.splat_f32s(-mean * inverse * inverse * inverse);
            let slope = |x, weight, grad| {
                let scaled = simd.mul_f32s(simd.mul_f32s(grad, weight), scale);
                simd.mul_add_e_f32s(x, pull, scaled)
            };
            for ((x, weight), grad) in x.iter().zip(weight).zip(grad) {
                *grad = slope(*x, *weight, *grad);
            }
            simd.partial_store_f32s(grad_tail, slope(x_last, weight_last, grad_last));
        }
    }
}
