//! Routed experts on graphics cards: rows moved by kernels of our own, products of one run of rows per
//! expert by Burn's.
//!
//! Axis letters as in the parent, `S` rows of an expert.

mod rows;

use std::sync::Arc;

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{FloatDType, Shape, TensorData};

use super::dispatch::{DispatchBackwardOps, DispatchOps};
use super::segment::{Saved, Segment, SegmentBackwardOps, SegmentOps};
use crate::experts::Routes;
use crate::kernels::swiglu::{SwigluBackwardOps, SwigluOps};
use rows::RowOps;

impl DispatchOps for Cube {
    fn gather_rows(x: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self> {
        let tokens = routes.tokens().map(|token| token as i32).collect();
        let tokens = upload(tokens, Shape::new([routes.num_rows()]), &x); // [R]
        Self::copy_rows(x, tokens)
    }

    fn combine_rows(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> FloatTensor<Self> {
        let rows_of = rows_of(&routes, &rows);
        Self::sum_weighted_rows(rows, rows_of, weights)
    }
}

impl DispatchBackwardOps for Cube {
    fn gather_backward(grad: FloatTensor<Self>, routes: &Routes) -> FloatTensor<Self> {
        let rows_of = rows_of(routes, &grad);
        Self::sum_rows(grad, rows_of)
    }

    fn combine_backward(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        routes: &Routes,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let rows_of = rows_of(routes, &rows);
        Self::sum_weighted_rows_backward(rows, rows_of, weights, grad)
    }
}

impl SegmentOps for Cube {
    fn segment_feed_forward(
        rows: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        segment: Segment,
    ) -> FloatTensor<Self> {
        if segment.rows.is_empty() {
            return rows;
        }
        let x = Self::read_run(rows.clone(), segment.rows.start, segment.rows.len()); // [S, D]
        let gated = Self::float_matmul(x.clone(), gate); // [S, I]
        let raised = Self::float_matmul(x, up); // [S, I]
        let out = Self::float_matmul(Self::swiglu(gated, raised), down); // [S, D]
        Self::write_run(rows, out, segment.rows.start)
    }
}

impl SegmentBackwardOps for Cube {
    fn segment_saving(
        rows: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 3],
        segment: Segment,
    ) -> (FloatTensor<Self>, Saved<Self>) {
        if segment.rows.is_empty() {
            // Nothing is launched over nothing: what stands for the activations is never read.
            let nothing = Self::float_zeros(Shape::new([1, 1]), &rows.device(), FloatDType::F32);
            let saved = Saved {
                x: nothing.clone(),
                gated: nothing.clone(),
                raised: nothing,
                weights,
                segment,
            };
            return (rows, saved);
        }
        let x = Self::read_run(rows.clone(), segment.rows.start, segment.rows.len()); // [S, D]
        let [gate, up, down] = weights.clone();
        let gated = Self::float_matmul(x.clone(), gate); // [S, I]
        let raised = Self::float_matmul(x.clone(), up); // [S, I]
        let product = Self::swiglu(gated.clone(), raised.clone()); // [S, I]
        let out = Self::float_matmul(product, down); // [S, D]
        let out = Self::write_run(rows, out, segment.rows.start); // [R, D]
        let saved = Saved {
            x,
            gated,
            raised,
            weights,
            segment,
        };
        (out, saved)
    }

    fn segment_backward(
        saved: Saved<Self>,
        grad: FloatTensor<Self>,
        asked: [bool; 3],
    ) -> (FloatTensor<Self>, [Option<FloatTensor<Self>>; 3]) {
        let Saved {
            x,
            gated,
            raised,
            weights,
            segment,
        } = saved;
        if segment.rows.is_empty() {
            let mut asked = asked.into_iter();
            let grads = weights.map(|matrix| {
                let is_asked = asked.next().expect("one answer per matrix");
                is_asked
                    .then(|| Self::float_zeros(matrix.shape(), &matrix.device(), FloatDType::F32))
            });
            return (grad, grads);
        }
        let [gate, up, down] = weights;
        let out_grad = Self::read_run(grad.clone(), segment.rows.start, segment.rows.len()); // [S, D]
        let down_grad = asked[2].then(|| {
            let product = Self::swiglu(gated.clone(), raised.clone()); // [S, I]
            Self::float_matmul(Self::float_transpose(product), out_grad.clone()) // [I, D]
        });
        let product_grad = Self::float_matmul(out_grad, Self::float_transpose(down)); // [S, I]
        let (gated_grad, raised_grad) = Self::swiglu_backward(gated, raised, product_grad);
        let x_turned = Self::float_transpose(x); // [D, S]
        let [gate_grad, up_grad] = [(asked[0], &gated_grad), (asked[1], &raised_grad)]
            .map(|(asked, grad)| asked.then(|| Self::float_matmul(x_turned.clone(), grad.clone())));
        let x_grad = Self::float_add(
            Self::float_matmul(gated_grad, Self::float_transpose(gate)),
            Self::float_matmul(raised_grad, Self::float_transpose(up)),
        ); // [S, D]
        let rows_grad = Self::write_run(grad, x_grad, segment.rows.start); // [R, D]
        (rows_grad, [gate_grad, up_grad, down_grad])
    }
}

/// The row of every place, `[N, K]`.
fn rows_of(routes: &Routes, like: &FloatTensor<Cube>) -> IntTensor<Cube> {
    let rows = routes.rows().iter().map(|&row| row as i32).collect();
    let shape = Shape::new([routes.num_tokens(), routes.num_experts_per_tok()]);
    upload(rows, shape, like)
}

/// Indices on the device of `like`.
fn upload(indices: Vec<i32>, shape: Shape, like: &FloatTensor<Cube>) -> IntTensor<Cube> {
    Cube::int_from_data(TensorData::new(indices, shape), &like.device())
}
