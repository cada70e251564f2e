//! Products of a few rows with a matrix, as decoding needs them: the matrix is read once, as it
//! lies, and for one row memory's speed is the limit. Packing it first, as a product of many rows
//! does, would read and write it all once more.
//!
//! Every sum goes over the inputs in one order, whatever the number of rows. The loops of a few rows
//! are plain: inside [`vectorized`] the compiler makes them vectors, widening of bf16 and int8
//! included. Those of more rows hold a tile of sums in registers.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::simd::vectorized;

/// Up to this many rows of a sequence, reading the matrix once per product beats packing it.
const MAX_ROWS: usize = 4;
/// Outputs of one task: enough that a row's piece is a long run of memory.
const TASK_COLUMNS: usize = 256;
/// Outputs of one task where each is a run of memory of its own.
const TASK_OUTPUTS: usize = 64;
/// Matrix rows taken together, so that sums are loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Vectors of running totals of a sum of products.
const TOTALS: usize = 4;
/// Rows and vectors of columns of a tile.
const TILE_ROWS: usize = 4;
const TILE_VECTORS: usize = 2;
/// Rows whose sums of products with one vector are a tile.
const DOT_ROWS: usize = 3;
/// Matrix rows that all tiles of a task work through before the next: they stay in the cache.
const BLOCK_INPUTS: usize = 64;

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
    fn with_simd<S: Simd>(mut self, simd: S) {
        for out in &mut self.out {
            out.fill(0.0);
        }
        if self.out.len() <= MAX_ROWS {
            self.stream::<S>();
        } else {
            self.tile(simd);
        }
    }
}

impl<T: Stored> Columns<'_, T> {
    fn width(&self) -> usize {
        self.out.first().map_or(0, |out| out.len())
    }

    /// A run of the matrix row of an input, from a column of the task's on.
    #[inline(always)]
    fn run(&self, input: usize, column: usize, width: usize) -> &[T] {
        &self.matrix[input * self.outputs + self.first + column..][..width]
    }

    /// Few rows: the matrix goes by once, in long runs, and every row takes what it needs.
    #[inline(always)]
    fn stream<S: Simd>(&mut self) {
        let (width, mut sums) = (self.width(), std::mem::take(&mut self.out));
        let whole = self.inputs / TOGETHER * TOGETHER;
        for input in (0..whole).step_by(TOGETHER) {
            let [a, b, c, d] = std::array::from_fn(|next| self.run(input + next, 0, width));
            for (sums, x) in sums.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                let x: [f32; TOGETHER] = std::array::from_fn(|next| x[input + next]);
                for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    let first = add_product::<S>(*sum, x[0], a.widen());
                    let second = add_product::<S>(first, x[1], b.widen());
                    let third = add_product::<S>(second, x[2], c.widen());
                    *sum = add_product::<S>(third, x[3], d.widen());
                }
            }
        }
        for input in whole..self.inputs {
            let run = self.run(input, 0, width);
            for (sums, x) in sums.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                for (sum, value) in sums.iter_mut().zip(run) {
                    *sum = add_product::<S>(*sum, x[input], value.widen());
                }
            }
        }
    }

    /// More rows: a block of the matrix, laid out tile by tile, stays in the cache while tiles of
    /// sums take their products from it.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S) {
        let (width, mut sums) = (self.width(), std::mem::take(&mut self.out));
        let tile_columns = TILE_VECTORS * S::F32_LANES;
        let tile_size = BLOCK_INPUTS * tile_columns;
        // Columns past the last are zero.
        let mut block = vec![0.0_f32; width.div_ceil(tile_columns) * tile_size];
        for start in (0..self.inputs).step_by(BLOCK_INPUTS) {
            let inputs = start..(start + BLOCK_INPUTS).min(self.inputs);
            for input in inputs.clone() {
                let run = self.run(input, 0, width);
                let offset = (input - start) * tile_columns;
                for tile in 0..width.div_ceil(tile_columns) {
                    let columns = tile * tile_columns..((tile + 1) * tile_columns).min(width);
                    let run = &run[columns];
                    let wide = &mut block[tile * tile_size + offset..][..run.len()];
                    for column in 0..run.len() {
                        wide[column] = run[column].widen();
                    }
                }
            }
            let size = inputs.len() * tile_columns;
            for (group, sums) in sums.chunks_mut(TILE_ROWS).enumerate() {
                let x = &self.x[group * TILE_ROWS * self.inputs..];
                let row = |row: usize| &x[row * self.inputs..][inputs.clone()];
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

/// `sum + x · value`, rounded once where the processor can: elsewhere that would be a function call.
#[inline(always)]
fn add_product<S: Simd>(sum: f32, x: f32, value: f32) -> f32 {
    if S::IS_SCALAR {
        sum + x * value
    } else {
        x.mul_add(value, sum)
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
    fn with_simd<S: Simd>(self, simd: S) {
        if self.out.len() > MAX_ROWS {
            return self.tile(simd);
        }
        // As many totals as the tile of more rows has.
        match S::F32_LANES {
            16 => self.stream::<S, { TOTALS * 16 }>(),
            8 => self.stream::<S, { TOTALS * 8 }>(),
            4 => self.stream::<S, { TOTALS * 4 }>(),
            _ => self.stream::<S, TOTALS>(),
        }
    }
}

impl<T: Stored> Dots<'_, T> {
    /// Few rows: each vector is read once and stays in the cache for all of them.
    #[inline(always)]
    fn stream<S: Simd, const LANES: usize>(mut self) {
        let num_outputs = self.out.first().map_or(0, |out| out.len());
        let vectors = self.vectors.chunks_exact(self.inputs).take(num_outputs);
        for (place, vector) in vectors.enumerate() {
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                out[place] = sum_of_products::<S, T, LANES>(x, vector);
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

#[inline(always)]
fn sum_of_products<S: Simd, T: Stored, const LANES: usize>(x: &[f32], vector: &[T]) -> f32 {
    let mut totals = [0.0_f32; LANES];
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    let (lanes, rest) = vector.as_chunks::<LANES>();
    for (x, values) in x_lanes.iter().zip(lanes) {
        for lane in 0..LANES {
            totals[lane] = add_product::<S>(totals[lane], x[lane], values[lane].widen());
        }
    }
    let rest = x_rest.iter().zip(rest).map(|(x, value)| x * value.widen());
    totals.iter().sum::<f32>() + rest.sum::<f32>()
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
        let mut lanes = [0.0_f32; TOTALS * 16];
        let lanes = &mut lanes[..TOTALS * S::F32_LANES];
        S::as_mut_simd_f32s(lanes).0.copy_from_slice(&totals[row]);
        let rest = rows[row][whole..].iter().zip(&vector[whole..]);
        let rest = rest.map(|(x, value)| x * value);
        sums[row] = lanes.iter().sum::<f32>() + rest.sum::<f32>();
    }
    sums
}
