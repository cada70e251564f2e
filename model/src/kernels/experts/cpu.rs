//! Routed experts on the CPU: rows copied once each way, products on one run of rows per expert.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::dispatch::{DispatchBackwardOps, DispatchOps};
use super::segment::{Saved, SegmentBackwardOps, SegmentOps};
use crate::experts::Routes;
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous, dims, tensor_of, unzeroed};
use crate::kernels::linear::rows_product;
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::kernels::simd::{dot, vectorized};
use crate::kernels::swiglu::{swiglu_backward_in_place, swiglu_into};

impl DispatchOps for Flex {
    fn gather_rows(x: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let x = contiguous(x);
        let [_, width] = dims(&x);
        let values = x.storage::<f32>();
        let tokens: Vec<usize> = routes.tokens().collect();
        let mut out = unzeroed(routes.num_rows() * width);
        by_rows(&mut out, width, |row, out| {
            out.copy_from_slice(&values[tokens[row] * width..][..width]);
        });
        tensor_of(out, Shape::new([routes.num_rows(), width]))
    }

    fn combine_rows(rows: FlexTensor, weights: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let (rows, weights) = (contiguous(rows), contiguous(weights));
        let [_, width] = dims(&rows);
        sum_rows(&rows, Some(weights.storage::<f32>()), width, &routes)
    }
}

impl DispatchBackwardOps for Flex {
    fn gather_backward(grad: FlexTensor, routes: &Routes) -> FlexTensor {
        let grad = contiguous(grad);
        let [_, width] = dims(&grad);
        sum_rows(&grad, None, width, routes)
    }

    fn combine_backward(
        rows: FlexTensor,
        weights: FlexTensor,
        grad: FlexTensor,
        routes: &Routes,
    ) -> (FlexTensor, FlexTensor) {
        let (rows, weights, grad) = (contiguous(rows), contiguous(weights), contiguous(grad));
        let [num_rows, width] = dims(&rows);
        let (values, grads) = (rows.storage::<f32>(), grad.storage::<f32>());
        let factors = weights.storage::<f32>();
        let (places, per_token) = (routes.places(), routes.num_experts_per_tok());

        let mut rows_grad = unzeroed(num_rows * width);
        by_rows(&mut rows_grad, width, |row, out| {
            let place = places[row] as usize;
            let grad = &grads[place / per_token * width..][..width];
            for (out, grad) in out.iter_mut().zip(grad) {
                *out = factors[place] * grad;
            }
        });
        let mut weights_grad = unzeroed(num_rows);
        let cost = per_token * width;
        by_rows_of(&mut weights_grad, per_token, cost, |token, out| {
            let grad = &grads[token * width..][..width];
            let rows = &routes.rows()[token * per_token..][..per_token];
            vectorized(Dots {
                out,
                grad,
                rows,
                values,
            });
        });
        let shape = weights.shape();
        (
            tensor_of(rows_grad, Shape::new([num_rows, width])),
            tensor_of(weights_grad, shape),
        )
    }
}

impl SegmentOps for Flex {
    fn segment_feed_forward(
        rows: FlexTensor,
        gate: FlexTensor,
        up: FlexTensor,
        down: FlexTensor,
        segment: Range<usize>,
    ) -> FlexTensor {
        if segment.is_empty() {
            return rows;
        }
        let mut rows = contiguous(rows);
        let [_, width] = dims(&rows);
        let place = segment.start * width..segment.end * width;
        let projected = project(&rows.storage::<f32>()[place.clone()], width, [&gate, &up]);
        let [gated, raised] = projected;
        let mut product = unzeroed(gated.len());
        swiglu_into(&mut product, &gated, &raised);
        let [inner, _] = dims(&down);
        let out = &mut rows.storage_mut::<f32>()[place];
        rows_product(out, &product, inner, Matrix::of(&down));
        rows
    }
}

impl SegmentBackwardOps for Flex {
    fn segment_saving(
        rows: FlexTensor,
        weights: [FlexTensor; 3],
        segment: Range<usize>,
    ) -> (FlexTensor, Saved<Self>) {
        let mut rows = contiguous(rows);
        let [gate, _, down] = &weights;
        let [[_, width], [_, inner]] = [dims(&rows), dims(gate)];
        let place = segment.start * width..segment.end * width;
        let x = rows.storage::<f32>()[place.clone()].to_vec();
        let [gated, raised] = project(&x, width, [&weights[0], &weights[1]]);
        if !segment.is_empty() {
            let mut product = unzeroed(gated.len());
            swiglu_into(&mut product, &gated, &raised);
            let out = &mut rows.storage_mut::<f32>()[place];
            rows_product(out, &product, inner, Matrix::of(down));
        }
        let wide = Shape::new([segment.len(), inner]);
        let saved = Saved {
            x: tensor_of(x, Shape::new([segment.len(), width])),
            gated: tensor_of(gated, wide.clone()),
            raised: tensor_of(raised, wide),
            weights,
            segment,
        };
        (rows, saved)
    }

    fn segment_backward(
        saved: Saved<Self>,
        grad: FlexTensor,
        asked: [bool; 3],
    ) -> (FlexTensor, [Option<FlexTensor>; 3]) {
        let Saved {
            x,
            mut gated,
            mut raised,
            weights: [gate, up, down],
            segment,
        } = saved;
        let [inputs, inner] = dims(&gate);
        let zeros =
            |rows: usize, cols: usize| tensor_of(vec![0.0; rows * cols], Shape::new([rows, cols]));
        if segment.is_empty() {
            let [gate_grad, up_grad, down_grad] = asked;
            let grads = [
                gate_grad.then(|| zeros(inputs, inner)),
                up_grad.then(|| zeros(inputs, inner)),
                down_grad.then(|| zeros(inner, inputs)),
            ];
            return (grad, grads);
        }
        let mut grad = contiguous(grad);
        let count = segment.len();
        let place = segment.start * inputs..segment.end * inputs;
        let out_grad = &grad.storage::<f32>()[place.clone()];
        let product_of = |a: Matrix<'_>, b: Matrix<'_>| {
            let [rows, cols] = [a.dims()[0], b.dims()[1]];
            let mut out = unzeroed(rows * cols);
            matmul(&mut out, a, b, Into::Place);
            tensor_of(out, Shape::new([rows, cols]))
        };

        let down_grad = asked[2].then(|| {
            let mut product = unzeroed(count * inner);
            swiglu_into(
                &mut product,
                gated.storage::<f32>(),
                raised.storage::<f32>(),
            );
            let product = Matrix::new(&product, count, inner);
            product_of(product.transposed(), Matrix::new(out_grad, count, inputs))
        });
        let mut product_grad = unzeroed(count * inner);
        rows_product(
            &mut product_grad,
            out_grad,
            inputs,
            Matrix::of(&down).transposed(),
        );
        swiglu_backward_in_place(
            gated.storage_mut::<f32>(),
            raised.storage_mut::<f32>(),
            &product_grad,
        );
        let x = Matrix::of(&x).transposed();
        let [gate_grad, up_grad] = [(asked[0], &gated), (asked[1], &raised)]
            .map(|(asked, grad)| asked.then(|| product_of(x, Matrix::of(grad))));
        let x_grad = &mut grad.storage_mut::<f32>()[place];
        let (gated, raised) = (Matrix::of(&gated), Matrix::of(&raised));
        matmul(x_grad, gated, Matrix::of(&gate).transposed(), Into::Place);
        matmul(x_grad, raised, Matrix::of(&up).transposed(), Into::Sum);
        (grad, [gate_grad, up_grad, down_grad])
    }
}

/// Rows of `width` times each of two matrices.
fn project(x: &[f32], width: usize, matrices: [&FlexTensor; 2]) -> [Vec<f32>; 2] {
    matrices.map(|matrix| {
        let [_, outputs] = dims(matrix);
        let mut out = unzeroed(x.len() / width * outputs);
        if !out.is_empty() {
            rows_product(&mut out, x, width, Matrix::of(matrix));
        }
        out
    })
}

/// For each token the sum of its rows, times their weights where there are any.
fn sum_rows(
    rows: &FlexTensor,
    weights: Option<&[f32]>,
    width: usize,
    routes: &Routes,
) -> FlexTensor {
    let values = rows.storage::<f32>();
    let per_token = routes.num_experts_per_tok();
    let mut out = unzeroed(routes.num_tokens() * width);
    by_rows(&mut out, width, |token, out| {
        for slot in 0..per_token {
            let place = token * per_token + slot;
            let row = &values[routes.rows()[place] as usize * width..][..width];
            let weight = weights.map_or(1.0, |weights| weights[place]);
            if slot == 0 {
                for (out, value) in out.iter_mut().zip(row) {
                    *out = weight * value;
                }
            } else {
                for (out, value) in out.iter_mut().zip(row) {
                    *out += weight * value;
                }
            }
        }
    });
    tensor_of(out, Shape::new([routes.num_tokens(), width]))
}

/// Calls `write` with every row's number and memory, on all threads.
fn by_rows(out: &mut [f32], width: usize, write: impl Fn(usize, &mut [f32]) + Sync) {
    by_rows_of(out, width, width, write);
}

/// The same where `cost` elements are read for every row: tasks are sized by them.
fn by_rows_of(
    out: &mut [f32],
    width: usize,
    cost: usize,
    write: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows_per_task = (CHUNK_ELEMENTS / cost).max(1);
    out.par_chunks_mut(rows_per_task * width)
        .enumerate()
        .for_each(|(task, rows)| {
            for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                write(task * rows_per_task + row, out);
            }
        });
}

/// Products of one gradient with a token's rows.
struct Dots<'a> {
    out: &'a mut [f32],
    grad: &'a [f32],
    rows: &'a [u32],
    values: &'a [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.grad.len();
        for (out, row) in self.out.iter_mut().zip(self.rows) {
            let row = &self.values[*row as usize * width..][..width];
            *out = dot(simd, self.grad, row);
        }
    }
}
