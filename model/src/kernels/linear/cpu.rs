//! Linear projection on the CPU: one product over all rows, into memory that is not zeroed first.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::{LinearBackwardOps, LinearOps, few_rows};
use crate::kernels::flex::{contiguous, tensor_of, unzeroed};
use crate::kernels::matmul::{Into, Matrix, matmul};

impl LinearOps for Flex {
    fn linear_rows(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        rows_times(x, Matrix::of(&weight))
    }
}

impl LinearBackwardOps for Flex {
    fn linear_x_grad(weight: FlexTensor, grad: FlexTensor) -> FlexTensor {
        rows_times(grad, Matrix::of(&weight).transposed())
    }

    fn linear_weight_grad(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let (x, grad) = (contiguous(x), contiguous(grad));
        let (x, grad) = (rows_of(&x), rows_of(&grad));
        let [[_, inputs], [_, outputs]] = [x.dims(), grad.dims()];
        let mut out = unzeroed(inputs * outputs);
        matmul(&mut out, x.transposed(), grad, Into::Place);
        tensor_of(out, Shape::new([inputs, outputs]))
    }
}

/// The last axis of `x` times a matrix.
fn rows_times(x: FlexTensor, matrix: Matrix<'_>) -> FlexTensor {
    let x = contiguous(x);
    let mut shape = x.shape();
    let [[num_rows, inputs], [_, outputs]] = [rows_of(&x).dims(), matrix.dims()];
    let mut out = unzeroed(num_rows * outputs);
    let few = few_rows::has_few_rows(&shape);
    product(&mut out, x.storage::<f32>(), inputs, matrix, few);
    let last = shape.num_dims() - 1;
    shape[last] = outputs;
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

/// A contiguous tensor as one row per element of the axes before the last.
fn rows_of(tensor: &FlexTensor) -> Matrix<'_> {
    let values = tensor.storage::<f32>();
    let shape = tensor.shape();
    let width = shape[shape.num_dims() - 1];
    Matrix::new(values, values.len() / width, width)
}
