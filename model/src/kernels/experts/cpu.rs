//! Routed experts on the CPU: rows copied once each way, products on one run of rows per expert.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::dispatch::{DispatchBackwardOps, DispatchOps};
use super::segment::{Saved, Segment, SegmentBackwardOps, SegmentOps};
use crate::experts::Routes;
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous, dims, tensor_of, unzeroed};
use crate::kernels::linear::rows_product;
use crate::kernels::matmul::{Into, Matrix};
use crate::kernels::rounded::{Operand, View, product};
use crate::kernels::simd::{dot, vectorized};
use crate::kernels::swiglu::{swiglu_backward_in_place, swiglu_into};
use crate::precision::Precision;

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
        segment: Segment,
    ) -> FlexTensor {
        if segment.rows.is_empty() {
            return rows;
        }
        let mut rows = contiguous(rows);
        let [_, width] = dims(&rows);
        let place = segment.place(width);
        let x = &rows.storage::<f32>()[place.clone()];
        let [gated, raised] = segment.project(x, width, [&gate, &up]);
        let out = &mut rows.storage_mut::<f32>()[place];
        segment.project_down(out, &gated, &raised, &down);
        rows
    }
}

impl SegmentBackwardOps for Flex {
    fn segment_saving(
        rows: FlexTensor,
        weights: [FlexTensor; 3],
        segment: Segment,
    ) -> (FlexTensor, Saved<Self>) {
        let mut rows = contiguous(rows);
        let [gate, up, down] = &weights;
        let [[_, width], [_, inner]] = [dims(&rows), dims(gate)];
        let place = segment.place(width);
        let x = rows.storage::<f32>()[place.clone()].to_vec();
        let [gated, raised] = segment.project(&x, width, [gate, up]);
        if !segment.rows.is_empty() {
            let out = &mut rows.storage_mut::<f32>()[place];
            segment.project_down(out, &gated, &raised, down);
        }
        let count = segment.rows.len();
        let wide = Shape::new([count, inner]);
        let saved = Saved {
            x: tensor_of(x, Shape::new([count, width])),
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
        if segment.rows.is_empty() {
            let [gate_grad, up_grad, down_grad] = asked;
            let grads = [
                gate_grad.then(|| zeros(inputs, inner)),
                up_grad.then(|| zeros(inputs, inner)),
                down_grad.then(|| zeros(inner, inputs)),
            ];
            return (grad, grads);
        }
        let mut grad = contiguous(grad);
        let count = segment.rows.len();
        let place = segment.place(inputs);
        let weight_grad = |x: View<'_>, grad: View<'_>, shape: [usize; 2]| {
            let mut out = unzeroed(shape[0] * shape[1]);
            product(&mut out, x, grad, Into::Place);
            tensor_of(out, Shape::new(shape))
        };

        let out_grad = &grad.storage::<f32>()[place.clone()];
        let out_grad = segment.operand(Matrix::new(out_grad, count, inputs));
        let down_grad = asked[2].then(|| {
            let mut mixed = unzeroed(count * inner);
            let (gated, raised) = (gated.storage::<f32>(), raised.storage::<f32>());
            swiglu_into(&mut mixed, gated, raised);
            let mixed = segment.operand(Matrix::new(&mixed, count, inner));
            weight_grad(mixed.transposed(), out_grad.view(), [inner, inputs])
        });
        let mut mixed_grad = unzeroed(count * inner);
        let down = segment.operand(Matrix::of(&down));
        product(
            &mut mixed_grad,
            out_grad.view(),
            down.transposed(),
            Into::Place,
        );
        drop(out_grad);
        swiglu_backward_in_place(
            gated.storage_mut::<f32>(),
            raised.storage_mut::<f32>(),
            &mixed_grad,
        );
        let x = segment.operand(Matrix::of(&x));
        let [gated, raised] = [&gated, &raised].map(|grad| segment.operand(Matrix::of(grad)));
        let [gate_grad, up_grad] =
            [(asked[0], &gated), (asked[1], &raised)].map(|(asked, grad)| {
                asked.then(|| weight_grad(x.transposed(), grad.view(), [inputs, inner]))
            });
        let x_grad = &mut grad.storage_mut::<f32>()[place];
        let [gate, up] = [&gate, &up].map(|weight| segment.operand(Matrix::of(weight)));
        product(x_grad, gated.view(), gate.transposed(), Into::Place);
        product(x_grad, raised.view(), up.transposed(), Into::Sum);
        (grad, [gate_grad, up_grad, down_grad])
    }
}

impl Segment {
    /// Where its rows lie among rows of this width.
    fn place(&self, width: usize) -> Range<usize> {
        self.rows.start * width..self.rows.end * width
    }

    /// A matrix as the segment's products take it.
    fn operand<'a>(&self, matrix: Matrix<'a>) -> Operand<'a> {
        Operand::new(matrix, self.precision)
    }

    /// Rows of `width` times each of two matrices.
    fn project(&self, x: &[f32], width: usize, matrices: [&FlexTensor; 2]) -> [Vec<f32>; 2] {
        let rows = self.operand(Matrix::new(x, x.len() / width, width));
        matrices.map(|matrix| {
            let [_, outputs] = dims(matrix);
            let mut out = unzeroed(x.len() / width * outputs);
            if !out.is_empty() {
                self.times(&mut out, &rows, x, matrix);
            }
            out
        })
    }

    /// The gated rows times the last matrix.
    fn project_down(&self, out: &mut [f32], gated: &[f32], raised: &[f32], down: &FlexTensor) {
        let [inner, _] = dims(down);
        let mut mixed = unzeroed(gated.len());
        swiglu_into(&mut mixed, gated, raised);
        let rows = self.operand(Matrix::new(&mixed, mixed.len() / inner, inner));
        self.times(out, &rows, &mixed, down);
    }

    /// Rows, which are `x`, times a matrix; a few of them read it as it lies.
    fn times(&self, out: &mut [f32], rows: &Operand<'_>, x: &[f32], matrix: &FlexTensor) {
        let [inputs, _] = dims(matrix);
        let matrix = Matrix::of(matrix);
        if self.precision == Precision::F32 {
            rows_product(out, x, inputs, matrix);
        } else {
            let matrix = self.operand(matrix);
            product(out, rows.view(), matrix.view(), Into::Place);
        }
    }
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
