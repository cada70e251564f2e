//! Products with the transpose of a row-major matrix: each output is a sum over a run of memory.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{MAX_LANES, MAX_ROWS, Stored, by_columns};
use crate::kernels::simd::vectorized;

/// Outputs of one task where each is a run of memory of its own.
const TASK_OUTPUTS: usize = 64;
/// Vectors of running totals of a sum of products.
const TOTALS: usize = 4;
/// Rows whose sums of products with one vector are a tile.
const DOT_ROWS: usize = 3;

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
    fn with_simd<S: Simd>(self, simd: S) {
        if self.out.len() <= MAX_ROWS {
            self.stream(simd);
        } else {
            self.tile(simd);
        }
    }
}

impl<T: Stored> Dots<'_, T> {
    /// Few rows: each vector is read once and stays in the cache for all of them.
    #[inline(always)]
    fn stream<S: Simd>(mut self, simd: S) {
        let num_outputs = self.out.first().map_or(0, |out| out.len());
        let vectors = self.vectors.chunks_exact(self.inputs).take(num_outputs);
        for (place, vector) in vectors.enumerate() {
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                out[place] = sum_of_products(simd, x, vector);
            }
        }
    }

    /// More rows: the vectors are widened once, and a few rows share each vector that is loaded.
    #[inline(always)]
    fn tile<S: Simd>(mut self, simd: S) {
        let num_outputs = self.out.first().map_or(0, |out| out.len());
        let vectors = &self.vectors[..num_outputs * self.inputs];
        let wide: Vec<f32> = vectors.iter().map(|value| value.widen()).collect();
        let x_groups = self.x.chunks(DOT_ROWS * self.inputs);
        for (outs, x) in self.out.chunks_mut(DOT_ROWS).zip(x_groups) {
            let row = |row: usize| &x[row * self.inputs..][..self.inputs];
            for (place, vector) in wide.chunks_exact(self.inputs).enumerate() {
                if let [a, b, c] = &mut *outs {
                    [a[place], b[place], c[place]] =
                        sums_of_products(simd, [row(0), row(1), row(2)], vector);
                } else {
                    for (index, out) in outs.iter_mut().enumerate() {
                        [out[place]] = sums_of_products(simd, [row(index)], vector);
                    }
                }
            }
        }
    }
}

/// Sum of the products of a row with a stored vector.
#[inline(always)]
fn sum_of_products<S: Simd, T: Stored>(simd: S, x: &[f32], vector: &[T]) -> f32 {
    let (groups, _) = pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(x).0);
    let width = TOTALS * S::F32_LANES;
    let mut buffer = [0.0_f32; TOTALS * MAX_LANES];
    let mut totals = [simd.splat_f32s(0.0); TOTALS];
    for index in 0..groups.len() {
        let values = T::widened(&vector[index * width..][..width], &mut buffer);
        let (values, _) = S::as_simd_f32s(values);
        for place in 0..TOTALS {
            totals[place] = simd.mul_add_e_f32s(groups[index][place], values[place], totals[place]);
        }
    }
    let mut sum = total(simd, totals);
    for index in groups.len() * width..vector.len() {
        sum += x[index] * vector[index].widen();
    }
    sum
}

/// [`sum_of_products`] of several rows with one vector, in the same order.
#[inline(always)]
fn sums_of_products<S: Simd, const ROWS: usize>(
    simd: S,
    rows: [&[f32]; ROWS],
    vector: &[f32],
) -> [f32; ROWS] {
    // Plain indices: adapters of iterators would be calls, with the totals in memory.
    let (values, _) = pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(vector).0);
    let mut totals = [[simd.splat_f32s(0.0); TOTALS]; ROWS];
    let mut x = [values; ROWS];
    for row in 0..ROWS {
        x[row] = pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(rows[row]).0).0;
    }
    for index in 0..values.len() {
        for row in 0..ROWS {
            for place in 0..TOTALS {
                totals[row][place] = simd.mul_add_e_f32s(
                    x[row][index][place],
                    values[index][place],
                    totals[row][place],
                );
            }
        }
    }
    let whole = values.len() * TOTALS * S::F32_LANES;
    let mut sums = [0.0; ROWS];
    for row in 0..ROWS {
        sums[row] = total(simd, totals[row]);
        for index in whole..vector.len() {
            sums[row] += rows[row][index] * vector[index];
        }
    }
    sums
}

#[inline(always)]
fn total<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TOTALS]) -> f32 {
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}
