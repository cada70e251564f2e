//! Linear projection on the CPU: one product over all rows, into memory that is not zeroed first.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::{LinearBackwardOps, LinearOps, few_rows};
use crate::kernels::flex::{contiguous, tensor_of, unzeroed};
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::kernels::rounded::{Operand, View, product, rows_of};
use crate::precision::Precision;

impl LinearOps for Flex {
    fn linear_rows(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let weight = Matrix::of(&weight);
        let precision = Precision::of_operand(x.dtype());
        if precision == Precision::F32 {
            return rows_times(x, weight);
        }
        let x = contiguous(x);
        let rows = Operand::of_rows(&x);
        let weight = Operand::new(weight, precision);
        rounded_rows_times(rows.view(), weight.view(), &x)
    }
}

impl LinearBackwardOps for Flex {
    fn linear_x_grad(weight: FlexTensor, grad: FlexTensor, precision: Precision) -> FlexTensor {
        let weight = Matrix::of(&weight).transposed();
        if precision == Precision::F32 {
            return rows_times(grad, weight);
        }
        let grad = contiguous(grad);
        let rows = Operand::new(rows_of(grad.storage(), &grad), precision);
        let weight = Operand::new(weight, precision);
        rounded_rows_times(rows.view(), weight.view(), &grad)
    }

    fn linear_weight_grad(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let (x, grad) = (contiguous(x), contiguous(grad));
        let rows = Operand::of_rows(&x);
        let precision = Precision::of_operand(x.dtype());
        let grad = Operand::new(rows_of(grad.storage(), &grad), precision);
        let [[_, inputs], [_, outputs]] = [rows.view().dims(), grad.view().dims()];
        let mut out = unzeroed(inputs * outputs);
        product(&mut out, rows.transposed(), grad.view(), Into::Place);
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
    few_or_many(&mut out, x.storage::<f32>(), inputs, matrix, few);
    like_rows(out, &x, outputs)
}

/// Rounded rows, in the place of those of `x`, times a matrix that is rounded too.
fn rounded_rows_times(rows: View<'_>, matrix: View<'_>, x: &FlexTensor) -> FlexTensor {
    let [[num_rows, _], [_, outputs]] = [rows.dims(), matrix.dims()];
    let mut out = unzeroed(num_rows * outputs);
    product(&mut out, rows, matrix, Into::Place);
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
    few_or_many(out, x, inputs, matrix, few);
}

fn few_or_many(out: &mut [f32], x: &[f32], inputs: usize, matrix: Matrix<'_>, few: bool) {
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
