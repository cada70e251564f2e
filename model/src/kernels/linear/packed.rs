//! Products with weights in fewer bits.

use super::few_rows::{Stored, has_few_rows, times_transposed};
use crate::kernels::flex::unzeroed;
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::packed::PackedValues;

/// `x`, of the shape `[.., I]`, times the transpose of the packed `[O, I]`: `[.., O]`.
///
/// # Panics
///
/// When `x` or the matrix is not whole rows of `I`.
pub(crate) fn packed_product(x: &[f32], shape: &[usize], values: &PackedValues) -> Vec<f32> {
    match values {
        PackedValues::Bf16(values) => product(x, shape, values),
        PackedValues::Int8 { values, scales } => {
            let mut out = product(x, shape, values);
            for row in out.chunks_exact_mut(scales.len()) {
                for (value, scale) in row.iter_mut().zip(scales) {
                    *value *= scale;
                }
            }
            out
        }
    }
}

fn product<T: Stored>(x: &[f32], shape: &[usize], values: &[T]) -> Vec<f32> {
    let inputs = shape[shape.len() - 1];
    let (rows, outputs) = (x.len() / inputs, values.len() / inputs);
    let mut out = unzeroed(rows * outputs);
    if has_few_rows(shape) {
        times_transposed(&mut out, x, values, inputs);
    } else {
        // Many rows pay for widening the matrix once.
        let wide: Vec<f32> = values.iter().map(|value| value.widen()).collect();
        let weight = Matrix::new(&wide, outputs, inputs).transposed();
        matmul(&mut out, Matrix::new(x, rows, inputs), weight, Into::Place);
    }
    out
}
