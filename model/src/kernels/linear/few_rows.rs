//! Products of a few rows with a matrix, as decoding needs them: the matrix is read once, as it
//! lies, and memory's speed is the limit. Packing it first, as a product of many rows does, would
//! read and write it all once more.
//!
//! Loops are plain: inside [`vectorized`] the compiler makes them vectors, widening of bf16 and
//! int8 included.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::simd::vectorized;

/// Up to this many rows, reading the matrix once per product beats packing it.
const MAX_ROWS: usize = 4;
/// Outputs of one task: enough that a row's piece is a long run of memory.
const TASK_COLUMNS: usize = 256;
/// Outputs of one task where each is a run of memory of its own.
const TASK_OUTPUTS: usize = 64;
/// Matrix rows taken together, so that sums are loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Running totals of a sum of products, enough to fill two of the longest vectors.
const LANES: usize = 32;

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

/// Some columns of a product, for every row of `x`.
struct Columns<'a, T> {
    out: Vec<&'a mut [f32]>,
    x: &'a [f32],
    matrix: &'a [T],
    inputs: usize,
    outputs: usize,
    first: usize,
}

impl<T: Stored> WithSimd for Columns<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _simd: S) {
        let width = self.out.first().map_or(0, |out| out.len());
        let piece = |input: usize| &self.matrix[input * self.outputs + self.first..][..width];
        for out in &mut self.out {
            out.fill(0.0);
        }
        let whole = self.inputs / TOGETHER * TOGETHER;
        for input in (0..whole).step_by(TOGETHER) {
            let [a, b, c, d] = std::array::from_fn(|next| piece(input + next));
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                let x: [f32; TOGETHER] = std::array::from_fn(|next| x[input + next]);
                for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *out += (x[0] * a.widen() + x[1] * b.widen())
                        + (x[2] * c.widen() + x[3] * d.widen());
                }
            }
        }
        for input in whole..self.inputs {
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                for (out, value) in out.iter_mut().zip(piece(input)) {
                    *out += x[input] * value.widen();
                }
            }
        }
    }
}

/// Some outputs of a product whose columns are runs of memory, for every row of `x`.
struct Dots<'a, T> {
    out: Vec<&'a mut [f32]>,
    x: &'a [f32],
    vectors: &'a [T],
    inputs: usize,
}

impl<T: Stored> WithSimd for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _simd: S) {
        let width = self.out.first().map_or(0, |out| out.len());
        for (place, vector) in self
            .vectors
            .chunks_exact(self.inputs)
            .take(width)
            .enumerate()
        {
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                out[place] = sum_of_products(x, vector);
            }
        }
    }
}

#[inline(always)]
fn sum_of_products<T: Stored>(x: &[f32], vector: &[T]) -> f32 {
    let mut totals = [0.0_f32; LANES];
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    let (lanes, rest) = vector.as_chunks::<LANES>();
    for (x, values) in x_lanes.iter().zip(lanes) {
        for lane in 0..LANES {
            totals[lane] += x[lane] * values[lane].widen();
        }
    }
    let rest = x_rest.iter().zip(rest).map(|(x, value)| x * value.widen());
    totals.iter().sum::<f32>() + rest.sum::<f32>()
}
