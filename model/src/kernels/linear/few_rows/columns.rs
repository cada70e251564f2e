//! Products with a row-major matrix: each of its rows is a run of outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{MAX_ROWS, Stored, add_product};
use crate::kernels::simd::vectorized;

/// Parts of the inputs that are summed by themselves: so many threads can each read a run of memory.
/// One number for all, since sums must not depend on how many rows or threads there are.
const PARTS: usize = 8;
/// Outputs whose sums stay in the nearest cache while matrix rows go by.
const COLUMNS: usize = 2048;
/// Matrix rows taken together, so that sums are loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Sums of parts that are added up together.
const CHUNK_SUMS: usize = 8192;
/// Rows and vectors of columns of a tile.
const TILE_ROWS: usize = 4;
const TILE_VECTORS: usize = 2;
/// Matrix rows that all tiles of a task work through before the next: they stay in the cache.
const BLOCK_INPUTS: usize = 64;

/// A row-major `[inputs, outputs]`.
#[derive(Clone, Copy)]
struct RowMajor<'a, T> {
    values: &'a [T],
    inputs: usize,
    outputs: usize,
}

impl<'a, T> RowMajor<'a, T> {
    /// The inputs of a part; the last ones may have none.
    fn part(&self, part: usize) -> Range<usize> {
        let len = self.inputs.div_ceil(PARTS);
        (part * len).min(self.inputs)..((part + 1) * len).min(self.inputs)
    }

    #[inline(always)]
    fn run(&self, input: usize, columns: &Range<usize>) -> &'a [T] {
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
    fn with_simd<S: Simd>(mut self, simd: S) {
        let outputs = self.matrix.outputs;
        for start in (0..outputs).step_by(COLUMNS) {
            let columns = start..(start + COLUMNS).min(outputs);
            if self.sums.len() <= MAX_ROWS * outputs {
                self.stream::<S>(&columns);
            } else {
                self.tile(simd, &columns);
            }
        }
    }
}

impl<T: Stored> Part<'_, T> {
    /// Few rows: every row takes what it needs of the matrix where it is.
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

    /// More rows: a block of the matrix, laid out tile by tile, stays in the cache while tiles of
    /// sums take their products from it.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, columns: &Range<usize>) {
        let matrix = self.matrix;
        let tile_columns = TILE_VECTORS * S::F32_LANES;
        let tile_size = BLOCK_INPUTS * tile_columns;
        let num_tiles = columns.len().div_ceil(tile_columns);
        // Columns past the last are zero.
        let mut block = vec![0.0_f32; num_tiles * tile_size];
        let rows = self.sums.chunks_exact_mut(matrix.outputs);
        let mut rows: Vec<&mut [f32]> = rows.map(|row| &mut row[columns.clone()]).collect();
        for start in self.inputs.clone().step_by(BLOCK_INPUTS) {
            let inputs = start..(start + BLOCK_INPUTS).min(self.inputs.end);
            for input in inputs.clone() {
                let run = matrix.run(input, columns);
                let offset = (input - start) * tile_columns;
                for tile in 0..num_tiles {
                    let run = &run[tile * tile_columns..((tile + 1) * tile_columns).min(run.len())];
                    let wide = &mut block[tile * tile_size + offset..][..run.len()];
                    for column in 0..run.len() {
                        wide[column] = run[column].widen();
                    }
                }
            }
            let size = inputs.len() * tile_columns;
            for (group, sums) in rows.chunks_mut(TILE_ROWS).enumerate() {
                let x = &self.x[group * TILE_ROWS * matrix.inputs..];
                let row = |row: usize| &x[row * matrix.inputs..][inputs.clone()];
                for (tile, block) in block.chunks(tile_size).enumerate() {
                    let (block, column) = (&block[..size], tile * tile_columns);
                    if let [a, b, c, d] = &mut *sums {
                        let x = [row(0), row(1), row(2), row(3)];
                        add_to_tile(simd, &mut [a, b, c, d], x, block, column);
                    } else {
                        for (index, sums) in sums.iter_mut().enumerate() {
                            add_to_tile(simd, &mut [sums], [row(index)], block, column);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of a block `[inputs, tile's columns]` with the rows' inputs to the tile of sums
/// that begins in a column.
#[inline(always)]
fn add_to_tile<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [&mut [f32]; ROWS],
    x: [&[f32]; ROWS],
    block: &[f32],
    column: usize,
) {
    // Plain indices: adapters of iterators would be calls, with the tile in memory.
    let (block, _) = pulp::as_arrays::<TILE_VECTORS, _>(S::as_simd_f32s(block).0);
    let mut tile = [[simd.splat_f32s(0.0); TILE_VECTORS]; ROWS];
    for row in 0..ROWS {
        for vector in 0..TILE_VECTORS {
            let sums = &sums[row][vector_of::<S>(sums[row].len(), column, vector)];
            tile[row][vector] = match S::as_simd_f32s(sums).0 {
                [whole] => *whole,
                _ => simd.partial_load_f32s(sums),
            };
        }
    }
    for input in 0..block.len() {
        let values = block[input];
        for row in 0..ROWS {
            let x = simd.splat_f32s(x[row][input]);
            for vector in 0..TILE_VECTORS {
                tile[row][vector] = simd.mul_add_e_f32s(x, values[vector], tile[row][vector]);
            }
        }
    }
    for row in 0..ROWS {
        for (vector, sum) in tile[row].into_iter().enumerate() {
            let range = vector_of::<S>(sums[row].len(), column, vector);
            let sums = &mut sums[row][range];
            match S::as_mut_simd_f32s(sums).0 {
                [whole] => *whole = sum,
                _ => simd.partial_store_f32s(sums, sum),
            }
        }
    }
}

/// Columns of a tile's vector, as far as there are any.
#[inline(always)]
fn vector_of<S: Simd>(width: usize, column: usize, vector: usize) -> Range<usize> {
    let start = (column + vector * S::F32_LANES).min(width);
    start..(start + S::F32_LANES).min(width)
}
