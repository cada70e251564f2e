//! Products with the transpose of a row-major matrix: each output is a sum over a run of memory.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{MAX_LANES, MAX_ROWS, Stored, by_columns};
use crate::kernels::simd::vectorized;

/// Outputs of one task where each is a run of memory of its own.
const TASK_OUTPUTS: usize = 64;
/// Vectors of running totals of a sum of products.
const TOTALS: usize = 4;
/// Rows and vectors whose sums of products are a tile, and how many of a sum's running totals are
/// made at a time: 12 of 16 registers are totals.
const DOT_ROWS: usize = 3;
const DOT_VECTORS: usize = 2;
const DOT_TOTALS: usize = 2;

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
        for (rows, x) in self.out.chunks_mut(DOT_ROWS).zip(x_groups) {
            let tiles = wide.chunks(DOT_VECTORS * self.inputs);
            for (tile, vectors) in tiles.enumerate() {
                let place = tile * DOT_VECTORS;
                match (rows.len(), vectors.len() / self.inputs) {
                    (DOT_ROWS, DOT_VECTORS) => {
                        add_tile::<S, DOT_ROWS, DOT_VECTORS>(simd, rows, x, vectors, place);
                    }
                    (DOT_ROWS, _) => add_tile::<S, DOT_ROWS, 1>(simd, rows, x, vectors, place),
                    (2, DOT_VECTORS) => {
                        add_tile::<S, 2, DOT_VECTORS>(simd, rows, x, vectors, place);
                    }
                    (2, _) => add_tile::<S, 2, 1>(simd, rows, x, vectors, place),
                    (_, DOT_VECTORS) => {
                        add_tile::<S, 1, DOT_VECTORS>(simd, rows, x, vectors, place);
                    }
                    _ => add_tile::<S, 1, 1>(simd, rows, x, vectors, place),
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

/// [`sum_of_products`] of each of some rows with each of some vectors, in the same order, to where
/// the rows have their first.
#[expect(
    clippy::needless_range_loop,
    reason = "adapters of iterators would be calls, with the totals in memory: forty times slower"
)]
#[inline(always)]
fn add_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    out: &mut [&mut [f32]],
    x: &[f32],
    vectors: &[f32],
    place: usize,
) {
    let inputs = vectors.len() / VECTORS;
    let mut rows = [x; ROWS];
    for row in 0..ROWS {
        rows[row] = &x[row * inputs..][..inputs];
    }
    let mut columns = [vectors; VECTORS];
    for vector in 0..VECTORS {
        columns[vector] = &vectors[vector * inputs..][..inputs];
    }
    let x = rows.map(|row| pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(row).0).0);
    let values = columns.map(|vector| pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(vector).0).0);
    let num_groups = inputs / (TOTALS * S::F32_LANES);

    // Sums of two totals each.
    let mut halves = [[[simd.splat_f32s(0.0); VECTORS]; ROWS]; TOTALS / DOT_TOTALS];
    for half in 0..TOTALS / DOT_TOTALS {
        let mut totals = [[[simd.splat_f32s(0.0); DOT_TOTALS]; VECTORS]; ROWS];
        for group in 0..num_groups {
            for total in 0..DOT_TOTALS {
                let index = half * DOT_TOTALS + total;
                for row in 0..ROWS {
                    let x = x[row][group][index];
                    for vector in 0..VECTORS {
                        totals[row][vector][total] = simd.mul_add_e_f32s(
                            x,
                            values[vector][group][index],
                            totals[row][vector][total],
                        );
                    }
                }
            }
        }
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                let [first, second] = totals[row][vector];
                halves[half][row][vector] = simd.add_f32s(first, second);
            }
        }
    }
    let whole = num_groups * TOTALS * S::F32_LANES;
    for row in 0..ROWS {
        for vector in 0..VECTORS {
            let all = simd.add_f32s(halves[0][row][vector], halves[1][row][vector]);
            let mut sum = simd.reduce_sum_f32s(all);
            for index in whole..inputs {
                sum += rows[row][index] * columns[vector][index];
            }
            out[row][place + vector] = sum;
        }
    }
}

#[inline(always)]
fn total<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TOTALS]) -> f32 {
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}
