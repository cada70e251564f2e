//! Linear projection on the CPU: one product over all rows, into memory that is not zeroed first.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_flex::FlexTensor;
use half::bf16;

use super::{LinearBackwardOps, LinearOps, few_rows};
use crate::kernels::bf16::{bf16_matmul, narrowed};
use crate::kernels::flex::{contiguous, tensor_of, unzeroed};
use crate::kernels::matmul::{Into, Matrix, matmul};

impl LinearOps for Flex {
    fn linear_rows(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let weight = Matrix::of(&weight);
        if x.dtype() != DType::BF16 {
            return rows_times(x, weight);
        }
        let x = contiguous(x);
        let (rows, narrow) = (rows_of(x.storage::<bf16>(), &x), narrowed(weight.span()));
        bf16_rows_times(rows, weight.in_memory(&narrow), &x)
    }
}

impl LinearBackwardOps for Flex {
    fn linear_x_grad(weight: FlexTensor, grad: FlexTensor, dtype: DType) -> FlexTensor {
        let weight = Matrix::of(&weight).transposed();
        if dtype != DType::BF16 {
            return rows_times(grad, weight);
        }
        let grad = contiguous(grad);
        let [values, narrow] = [grad.storage::<f32>(), weight.span()].map(narrowed);
        bf16_rows_times(rows_of(&values, &grad), weight.in_memory(&narrow), &grad)
    }

    fn linear_weight_grad(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let (x, grad) = (contiguous(x), contiguous(grad));
        let grad = rows_of(grad.storage::<f32>(), &grad);
        let [_, outputs] = grad.dims();
        let inputs = last_axis(&x);
        let mut out = unzeroed(inputs * outputs);
        if x.dtype() == DType::BF16 {
            let x = rows_of(x.storage::<bf16>(), &x).transposed();
            let narrow = narrowed(grad.span());
            bf16_matmul(&mut out, x, grad.in_memory(&narrow), Into::Place);
        } else {
            let x = rows_of(x.storage::<f32>(), &x).transposed();
            matmul(&mut out, x, grad, Into::Place);
        }
        tensor_of(out, Shape::new([inputs, outputs]))
    }
}

/// The last axis of `x` times a matrix.
fn rows_times(x: FlexTensor, matrix: Matrix<'_>) -> FlexTensor {
    let x = contiguous(x);
    let [[num_rows, inputs], [_, outputs]] =
        [rows_of(x.storage::<f32>(), &x).dims(), matrix.dims()];
    let mut out = unzeroed(num_rows * outputs);
    let few = few_rows::has_few_rows(&x.shape());
    product(&mut out, x.storage::<f32>(), inputs, matrix, few);
    like_rows(out, &x, outputs)
}

/// The same of rows in bf16, in the place of those of `x`.
fn bf16_rows_times(rows: Matrix<'_, bf16>, matrix: Matrix<'_, bf16>, x: &FlexTensor) -> FlexTensor {
    let [[num_rows, _], [_, outputs]] = [rows.dims(), matrix.dims()];
    let mut out = unzeroed(num_rows * outputs);
    bf16_matmul(&mut out, rows, matrix, Into::Place);
    like_rows(out, x, outputs)
}

/// A tensor of rows in the place of those of `x`.
fn like_rows(out: Vec<f32>, x: &FlexTensor, width: usize) -> FlexTensor {
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    shape[last] = width;
    tensor_of(out, shape)
}

/// Rows of `inputs` numbers times a matrix, as few or many of them as there are.
///
/// # Panics
///
/// When the shapes disagree.
pub(crate) fn rows_product(out: &mut [f32], x: &[f32], inputs: usize, matrix: Matrix<'_>) {
    let few = few_rows::has_few_rows(&[x.len() / inputs, inputs]);
    product(out, x, inputs, matrix, few);
}

fn product(out: &mut [f32], x: &[f32], inputs: usize, matrix: Matrix<'_>, few: bool) {
    let few = few && !out.is_empty();
    if let (true, Some(values)) = (few, matrix.row_major()) {
        few_rows::times_row_major(out, x, values, inputs);
    } else if let (true, Some(values)) = (few, matrix.transposed().row_major()) {
        few_rows::times_transposed(out, x, values, inputs);
    } else {
        matmul(
            out,
            Matrix::new(x, x.len() / inputs, inputs),
            matrix,
            Into::Place,
        );
    }
}

/// A contiguous tensor's elements as one row per element of the axes before the last.
fn rows_of<'a, T: Copy>(values: &'a [T], tensor: &FlexTensor) -> Matrix<'a, T> {
    let width = last_axis(tensor);
    Matrix::new(values, values.len() / width, width)
}

fn last_axis(tensor: &FlexTensor) -> usize {
    let shape = tensor.shape();
    shape[shape.num_dims() - 1]
}
