//! Products of a few rows with a matrix, as decoding needs them: the matrix is read once, as it
//! lies, and for one row memory's speed is the limit. Packing it first, as a product of many rows
//! does, would read and write it all once more.
//!
//! Every sum goes over the inputs in one order, whatever the number of rows. The loops of a few rows
//! are plain: inside [`vectorized`] the compiler makes them vectors, widening of bf16 and int8
//! included. Those of more rows hold a tile of sums in registers.

mod columns;
mod dots;

use pulp::Simd;
use rayon::prelude::*;

use self::columns::Columns;
use self::dots::Dots;
use crate::kernels::simd::vectorized;

/// Up to this many rows of a sequence, reading the matrix once per product beats packing it.
const MAX_ROWS: usize = 4;
/// Outputs of one task: enough that a row's piece is a long run of memory.
const TASK_COLUMNS: usize = 256;
/// Outputs of one task where each is a run of memory of its own.
const TASK_OUTPUTS: usize = 64;
/// Whether a product of `[.., rows, inputs]` is one of few rows.
///
/// The axes before do not count, though they are rows of the product too: sums come in another order
/// here than in a product of many rows, and a sequence's numbers must not depend on how many others
/// are decoded beside it.
pub(crate) fn has_few_rows(shape: &[usize]) -> bool {
    let rows = shape.len().checked_sub(2).map_or(1, |axis| shape[axis]);
    (1..=MAX_ROWS).contains(&rows)
}

/// A number as a matrix stores it.
pub(crate) trait Stored: Copy + Send + Sync {
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
}

/// `x [rows, inputs]` times a row-major `[inputs, outputs]` into `out [rows, outputs]`.
pub(crate) fn times_row_major<T: Stored>(out: &mut [f32], x: &[f32], matrix: &[T], inputs: usize) {
    let outputs = matrix.len() / inputs;
    let tasks = by_columns(out, outputs, TASK_COLUMNS);
    tasks.into_par_iter().enumerate().for_each(|(task, out)| {
        vectorized(Columns {
            out,
            x,
            matrix,
            inputs,
            outputs,
            first: task * TASK_COLUMNS,
        });
    });
}

/// `x [rows, inputs]` times the transpose of a row-major `[outputs, inputs]` into
/// `out [rows, outputs]`.
pub(crate) fn times_transposed<T: Stored>(out: &mut [f32], x: &[f32], matrix: &[T], inputs: usize) {
    let outputs = matrix.len() / inputs;
    let tasks = by_columns(out, outputs, TASK_OUTPUTS);
    tasks.into_par_iter().enumerate().for_each(|(task, out)| {
        vectorized(Dots {
            out,
            x,
            vectors: &matrix[task * TASK_OUTPUTS * inputs..],
            inputs,
        });
    });
}

/// The pieces of every row that each task writes.
fn by_columns(out: &mut [f32], outputs: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let mut tasks = Vec::new();
    tasks.resize_with(outputs.div_ceil(width), Vec::new);
    for row in out.chunks_exact_mut(outputs) {
        for (task, piece) in tasks.iter_mut().zip(row.chunks_mut(width)) {
            task.push(piece);
        }
    }
    tasks
}

/// `sum + x · value`, rounded once where the processor can: elsewhere that would be a function call.
#[inline(always)]
fn add_product<S: Simd>(sum: f32, x: f32, value: f32) -> f32 {
    if S::IS_SCALAR {
        sum + x * value
    } else {
        x.mul_add(value, sum)
    }
}
