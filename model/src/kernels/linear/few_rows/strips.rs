//! Products of more rows with a row-major matrix, as batches need them: a strip of its columns is
//! laid out tile by tile and meets all rows from the nearest caches.
//!
//! Sums are those of the kernel for few rows, bit for bit: of each part of the inputs in their order,
//! then of the parts in theirs.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::columns::{PARTS, RowMajor};
use super::{MAX_LANES, Stored, by_columns};
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::vectorized;

/// Rows and vectors of columns of a tile: 12 of 16 registers are sums.
const TILE_ROWS: usize = 6;
const TILE_VECTORS: usize = 2;
/// Numbers of a strip that are laid out at once: 256 KiB, which the second cache holds.
const STRIP_NUMBERS: usize = 1 << 16;

/// `x [rows, inputs]` times the matrix into `out [rows, outputs]`.
pub(super) fn by_strips<T: Stored>(out: &mut [f32], x: &[f32], matrix: RowMajor<'_, T>) {
    // Strips as wide as they may be: the longer their runs of memory, the faster they are read.
    let share = matrix.outputs.div_ceil(rayon::current_num_threads());
    let held = STRIP_NUMBERS / matrix.part(0).len().max(1);
    let tile = TILE_VECTORS * MAX_LANES;
    let width = share.min(held).next_multiple_of(tile);
    let groups: Vec<Vec<f32>> = x
        .par_chunks(TILE_ROWS * matrix.inputs)
        .map(|rows| side_by_side(rows, matrix.inputs))
        .collect();
    let strips = by_columns(out, matrix.outputs, width);
    strips
        .into_par_iter()
        .enumerate()
        .for_each(|(strip, rows)| {
            vectorized(Strip {
                rows,
                x: &groups,
                matrix,
                first: strip * width,
            });
        });
}

/// Some rows input by input, so that one pointer goes over all of them.
fn side_by_side(rows: &[f32], inputs: usize) -> Vec<f32> {
    let num_rows = rows.len() / inputs;
    let mut turned = vec![0.0; rows.len()];
    for (input, values) in turned.chunks_exact_mut(num_rows).enumerate() {
        for (row, value) in values.iter_mut().enumerate() {
            *value = rows[row * inputs + input];
        }
    }
    turned
}

/// Some columns of the result.
struct Strip<'a, T> {
    /// Of every row.
    rows: Vec<&'a mut [f32]>,
    /// Every row, in groups of `TILE_ROWS` side by side.
    x: &'a [Vec<f32>],
    matrix: RowMajor<'a, T>,
    /// The first of the columns.
    first: usize,
}

impl<T: Stored> WithSimd for Strip<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for row in &mut self.rows {
            row.fill(0.0);
        }
        let tile_columns = TILE_VECTORS * S::F32_LANES;
        let columns = self.first..self.first + self.rows[0].len();
        // One row more than there is: tiles a power of two apart would share a few lines of the
        // nearest cache.
        let tile_size = (self.matrix.part(0).len() + 1) * tile_columns;
        let mut tiles = unzeroed(columns.len().div_ceil(tile_columns) * tile_size);
        if let Some(last) = tiles.chunks_exact_mut(tile_size).next_back() {
            // Its columns past the last of the strip.
            last.fill(0.0);
        }
        for part in 0..PARTS {
            let inputs = self.matrix.part(part);
            lay_out::<S, T>(&mut tiles, tile_size, self.matrix, &inputs, &columns);
            for (tile, values) in tiles.chunks_exact(tile_size).enumerate() {
                let values = &values[..inputs.len() * tile_columns];
                let column = tile * tile_columns;
                for (rows, x) in self.rows.chunks_mut(TILE_ROWS).zip(self.x) {
                    let x = &x[inputs.start * rows.len()..inputs.end * rows.len()];
                    match rows.len() {
                        1 => add_to_tile::<S, 1>(simd, rows, x, values, column),
                        2 => add_to_tile::<S, 2>(simd, rows, x, values, column),
                        3 => add_to_tile::<S, 3>(simd, rows, x, values, column),
                        4 => add_to_tile::<S, 4>(simd, rows, x, values, column),
                        5 => add_to_tile::<S, 5>(simd, rows, x, values, column),
                        _ => add_to_tile::<S, TILE_ROWS>(simd, rows, x, values, column),
                    }
                }
            }
        }
    }
}

/// Copies some columns of some matrix rows, run by run as they lie, to where their tiles are.
#[inline(always)]
fn lay_out<S: Simd, T: Stored>(
    tiles: &mut [f32],
    tile_size: usize,
    matrix: RowMajor<'_, T>,
    inputs: &Range<usize>,
    columns: &Range<usize>,
) {
    let tile_columns = TILE_VECTORS * S::F32_LANES;
    let mut buffer = [0.0; TILE_VECTORS * MAX_LANES];
    for (row, input) in inputs.clone().enumerate() {
        let run = matrix.run(input, columns);
        let tiles = &mut tiles[row * tile_columns..];
        let whole = run.chunks_exact(tile_columns);
        let (rest, first_of_rest) = (whole.remainder(), whole.len() * tile_size);
        for (run, tile) in whole.zip(tiles.chunks_mut(tile_size)) {
            // Vectors by name: a loop over numbers becomes a call that copies memory.
            let run = T::widened(run, &mut buffer);
            let (run, _) = pulp::as_arrays::<TILE_VECTORS, _>(S::as_simd_f32s(run).0);
            let (tile, _) = pulp::as_arrays_mut::<TILE_VECTORS, _>(S::as_mut_simd_f32s(tile).0);
            tile[0] = run[0];
        }
        for (column, value) in rest.iter().enumerate() {
            tiles[first_of_rest + column] = value.widen();
        }
    }
}

/// Adds to the totals that begin in a column what a tile of the matrix `[inputs, columns]` makes of
/// as many inputs of the rows `[inputs, ROWS]`.
#[inline(always)]
fn add_to_tile<S: Simd, const ROWS: usize>(
    simd: S,
    rows: &mut [&mut [f32]],
    x: &[f32],
    values: &[f32],
    column: usize,
) {
    let (x, _) = pulp::as_arrays::<ROWS, _>(x);
    let (values, _) = pulp::as_arrays::<TILE_VECTORS, _>(S::as_simd_f32s(values).0);
    let mut sums = [[simd.splat_f32s(0.0); TILE_VECTORS]; ROWS];
    // Plain indices inside: adapters of iterators would be calls, with the sums in memory.
    for (values, x) in values.iter().zip(x) {
        for row in 0..ROWS {
            let x = simd.splat_f32s(x[row]);
            for vector in 0..TILE_VECTORS {
                sums[row][vector] = simd.mul_add_e_f32s(x, values[vector], sums[row][vector]);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (vector, sum) in sums.into_iter().enumerate() {
            let start = (column + vector * S::F32_LANES).min(row.len());
            let end = (start + S::F32_LANES).min(row.len());
            let totals = &mut row[start..end];
            if let [whole] = S::as_mut_simd_f32s(totals).0 {
                *whole = simd.add_f32s(*whole, sum);
            } else {
                let total = simd.partial_load_f32s(totals);
                simd.partial_store_f32s(totals, simd.add_f32s(total, sum));
            }
        }
    }
}
