//! Products with a row-major matrix: each of its rows is a run of outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::strips::by_strips;
use super::{MAX_ROWS, Stored, add_product};
use crate::kernels::simd::vectorized;

/// Parts of the inputs that are summed by themselves: so many threads can each read a run of memory.
/// One number for all, since sums must not depend on how many rows or threads there are.
pub(super) const PARTS: usize = 8;
/// Outputs whose sums stay in the nearest cache while matrix rows go by.
const COLUMNS: usize = 2048;
/// Matrix rows taken together, so that sums are loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Sums of parts that are added up together.
const CHUNK_SUMS: usize = 8192;

/// A row-major `[inputs, outputs]`.
#[derive(Clone, Copy)]
pub(super) struct RowMajor<'a, T> {
    values: &'a [T],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl<'a, T> RowMajor<'a, T> {
    /// The inputs of a part; the last ones may have none.
    pub(super) fn part(&self, part: usize) -> Range<usize> {
        let len = self.inputs.div_ceil(PARTS);
        (part * len).min(self.inputs)..((part + 1) * len).min(self.inputs)
    }

    #[inline(always)]
    pub(super) fn run(&self, input: usize, columns: &Range<usize>) -> &'a [T] {
        let row = input * self.outputs;
        &self.values[row + columns.start..row + columns.end]
    }
}

/// `x [rows, inputs]` times a row-major `[inputs, outputs]` into `out [rows, outputs]`.
pub(crate) fn times_row_major<T: Stored>(out: &mut [f32], x: &[f32], matrix: &[T], inputs: usize) {
    let matrix = RowMajor {
        values: matrix,
        inputs,
        outputs: matrix.len() / inputs,
    };
    if x.len() > MAX_ROWS * inputs {
        return by_strips(out, x, matrix);
    }
    // Zeroed, since parts without inputs are left alone.
    let mut sums = vec![0.0; PARTS * out.len()];
    sums.par_chunks_mut(out.len())
        .enumerate()
        .for_each(|(part, sums)| {
            vectorized(Part {
                sums,
                x,
                matrix,
                inputs: matrix.part(part),
            });
        });
    let len = out.len();
    let chunks = out.par_chunks_mut(CHUNK_SUMS).enumerate();
    chunks.for_each(|(chunk, out)| {
        out.fill(0.0);
        for part in 0..PARTS {
            let sums = &sums[part * len + chunk * CHUNK_SUMS..][..out.len()];
            for index in 0..out.len() {
                out[index] += sums[index];
            }
        }
    });
}

/// Sums of a part's inputs: the part of the matrix goes by once, as it lies.
struct Part<'a, T> {
    sums: &'a mut [f32], // [rows, outputs]
    x: &'a [f32],
    matrix: RowMajor<'a, T>,
    inputs: Range<usize>,
}

impl<T: Stored> WithSimd for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let outputs = self.matrix.outputs;
        for start in (0..outputs).step_by(COLUMNS) {
            let columns = start..(start + COLUMNS).min(outputs);
            self.stream::<S>(&columns);
        }
    }
}

impl<T: Stored> Part<'_, T> {
    /// Every row takes what it needs of the matrix where it is.
    #[inline(always)]
    fn stream<S: Simd>(&mut self, columns: &Range<usize>) {
        let (matrix, inputs) = (self.matrix, self.inputs.clone());
        let whole = inputs.start + inputs.len() / TOGETHER * TOGETHER;
        for (sums, x) in self
            .sums
            .chunks_exact_mut(matrix.outputs)
            .zip(self.x.chunks_exact(matrix.inputs))
        {
            let sums = &mut sums[columns.clone()];
            for input in (inputs.start..whole).step_by(TOGETHER) {
                let run = |next: usize| &matrix.run(input + next, columns)[..sums.len()];
                let (a, b, c, d) = (run(0), run(1), run(2), run(3));
                let x = [x[input], x[input + 1], x[input + 2], x[input + 3]];
                for column in 0..sums.len() {
                    let first = add_product::<S>(sums[column], x[0], a[column].widen());
                    let second = add_product::<S>(first, x[1], b[column].widen());
                    let third = add_product::<S>(second, x[2], c[column].widen());
                    sums[column] = add_product::<S>(third, x[3], d[column].widen());
                }
            }
            let rest = x.iter().enumerate().take(inputs.end).skip(whole);
            for (input, &x) in rest {
                let run = &matrix.run(input, columns)[..sums.len()];
                for column in 0..sums.len() {
                    sums[column] = add_product::<S>(sums[column], x, run[column].widen());
                }
            }
        }
    }
}
