//! Products with a row-major matrix: each of its rows is a run of outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{MAX_ROWS, Stored, add_product};

/// Matrix rows taken together, so that sums are loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// How many matrix rows ahead of use memory is asked for them.
const AHEAD: usize = 2 * TOGETHER;
/// Bytes that memory moves at once.
const CACHE_LINE: usize = 64;
/// Rows and vectors of columns of a tile.
const TILE_ROWS: usize = 4;
const TILE_VECTORS: usize = 2;
/// Matrix rows that all tiles of a task work through before the next: they stay in the cache.
const BLOCK_INPUTS: usize = 64;

/// Some columns of a product, for every row of `x`.
pub(super) struct Columns<'a, T> {
    pub(super) out: Vec<&'a mut [f32]>,
    pub(super) x: &'a [f32],
    pub(super) matrix: &'a [T],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) first: usize,
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
            let run = |next: usize| self.run(input + next, 0, width);
            let (a, b, c, d) = (run(0), run(1), run(2), run(3));
            // Runs are too short, and too far apart, for the processor to see the next ones coming.
            for next in AHEAD..AHEAD + TOGETHER {
                if input + next < self.inputs {
                    prefetch(run(next));
                }
            }
            for row in 0..sums.len() {
                let (sums, x) = (
                    &mut sums[row][..width],
                    &self.x[row * self.inputs + input..],
                );
                let x = [x[0], x[1], x[2], x[3]];
                for column in 0..width {
                    let first = add_product::<S>(sums[column], x[0], a[column].widen());
                    let second = add_product::<S>(first, x[1], b[column].widen());
                    let third = add_product::<S>(second, x[2], c[column].widen());
                    sums[column] = add_product::<S>(third, x[3], d[column].widen());
                }
            }
        }
        for input in whole..self.inputs {
            let run = self.run(input, 0, width);
            for row in 0..sums.len() {
                let (sums, x) = (&mut sums[row][..width], self.x[row * self.inputs + input]);
                for column in 0..width {
                    sums[column] = add_product::<S>(sums[column], x, run[column].widen());
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

/// Asks memory for what is read next.
#[inline(always)]
fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..values.len()).step_by(CACHE_LINE / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        #[expect(unsafe_code, reason = "a hint to the processor")]
        // SAFETY: a prefetch reads nothing into the program and never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>((&raw const values[line]).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
