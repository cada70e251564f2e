//! Products with weights in fewer bits.

use super::few_rows::{MAX_ROWS, Stored, times_transposed};
use crate::kernels::flex::unzeroed;
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::packed::PackedValues;

/// `x [rows, I]` times the transpose of the packed `[O, I]`: `[rows, O]`.
///
/// # Panics
///
/// When `x` or the matrix is not whole rows of `inputs`.
pub(crate) fn packed_product(x: &[f32], values: &PackedValues, inputs: usize) -> Vec<f32> {
    match values {
        PackedValues::Bf16(values) => product(x, values, inputs),
        PackedValues::Int8 { values, scales } => {
            let mut out = product(x, values, inputs);
            for row in out.chunks_exact_mut(scales.len()) {
                for (value, scale) in row.iter_mut().zip(scales) {
                    *value *= scale;
                }
            }
            out
        }
    }
}

fn product<T: Stored>(x: &[f32], values: &[T], inputs: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, values.len() / inputs);
    let mut out = unzeroed(rows * outputs);
    if rows <= MAX_ROWS {
        times_transposed(&mut out, x, values, inputs);
    } else {
        // Many rows pay for widening the matrix once.
        let wide: Vec<f32> = values.iter().map(|value| value.widen()).collect();
        let weight = Matrix::new(&wide, outputs, inputs).transposed();
        matmul(&mut out, Matrix::new(x, rows, inputs), weight, Into::Place);
    }
    out
}
