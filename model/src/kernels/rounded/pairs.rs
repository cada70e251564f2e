//! A blocked product whose innermost step multiplies two neighbours of the inner axis at once, as
//! processors do for bf16: `sum += a[k] * b[k] + a[k + 1] * b[k + 1]` in every lane.
//!
//! Both operands are first laid out as panels: of `ROWS` rows of one and of `COLS` columns of the
//! other, pair after pair. A row's pair meets all columns' pairs of a panel in registers.

use half::bf16;
use rayon::prelude::*;

use crate::kernels::matmul::{Into, Matrix};

/// Rows of a tile: with two vectors of columns, 24 of 32 registers are sums.
pub(super) const ROWS: usize = 12;
/// Columns of a tile, two vectors of 16.
pub(super) const COLS: usize = 32;
/// Inner lengths are cut to this: a panel of rows is 24 KiB then.
const MAX_INNER: usize = 1024;
/// Rows of a task at most: their panels, 192 KiB, stay in the second cache while columns pass by.
const MAX_TASK_ROWS: usize = 8 * ROWS;
/// Tasks per thread at least, where there are rows enough, so that none waits long for another.
const TASKS_PER_THREAD: usize = 4;

/// Sums of a tile.
pub(super) type Tile = [[f32; COLS]; ROWS];

/// Two neighbours of the inner axis, the first in the lower half.
pub(super) type Pair = u32;

/// What multiplies panels.
pub(super) trait Tiles: Copy + Sync {
    /// Replaces `sums` by the products of a panel of rows and a panel of columns, pair by pair.
    fn multiply(self, rows: &[[Pair; ROWS]], cols: &[[Pair; COLS]], sums: &mut Tile);
}

/// Writes `a * b` into the row-major `out`.
///
/// # Panics
///
/// When the shapes disagree.
pub(super) fn matmul(
    tiles: impl Tiles,
    out: &mut [f32],
    a: Matrix<'_, bf16>,
    b: Matrix<'_, bf16>,
    mut into: Into,
) {
    let [[num_rows, inner], [_, num_cols]] = [a.dims(), b.dims()];
    assert_eq!(inner, b.dims()[0], "inner axes of a product");
    assert_eq!(out.len(), num_rows * num_cols, "elements of a product");
    if inner == 0 && into == Into::Place {
        out.fill(0.0);
    }
    if out.is_empty() {
        return;
    }
    let task_rows = task_rows(num_rows);
    for start in (0..inner).step_by(MAX_INNER) {
        let length = (inner - start).min(MAX_INNER);
        let num_pairs = length.div_ceil(2);
        let rows = panels::<ROWS>(a, start, length);
        let cols = panels::<COLS>(b.transposed(), start, length);
        out.par_chunks_mut(task_rows * num_cols)
            .zip(rows.par_chunks(task_rows / ROWS * num_pairs))
            .for_each(|(out, rows)| {
                for (panel, cols) in cols.chunks_exact(num_pairs).enumerate() {
                    let first_col = panel * COLS;
                    for (rows, out) in rows
                        .chunks_exact(num_pairs)
                        .zip(out.chunks_mut(ROWS * num_cols))
                    {
                        let mut sums = [[0.0; COLS]; ROWS];
                        tiles.multiply(rows, cols, &mut sums);
                        for (out, sums) in out.chunks_exact_mut(num_cols).zip(&sums) {
                            store(&mut out[first_col..], sums, into);
                        }
                    }
                }
            });
        into = Into::Sum;
    }
}

/// Rows of a task, whole panels of them.
fn task_rows(num_rows: usize) -> usize {
    let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
    num_rows
        .div_ceil(tasks)
        .next_multiple_of(ROWS)
        .min(MAX_TASK_ROWS)
}

fn store(out: &mut [f32], sums: &[f32; COLS], into: Into) {
    match into {
        Into::Place => {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = *sum;
            }
        }
        Into::Sum => {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out += *sum;
            }
        }
    }
}

/// Some columns of a matrix as panels of `LANES` rows each, pair by pair; rows and columns that are
/// not there are zeros.
fn panels<const LANES: usize>(
    matrix: Matrix<'_, bf16>,
    start: usize,
    length: usize,
) -> Vec<[Pair; LANES]> {
    let [num_rows, _] = matrix.dims();
    let num_pairs = length.div_ceil(2);
    let mut panels = vec![[0; LANES]; num_rows.div_ceil(LANES) * num_pairs];
    let values = matrix.span();
    let [row_stride, col_stride] = matrix.strides();
    panels
        .par_chunks_mut(num_pairs)
        .enumerate()
        .for_each(|(panel, pairs)| {
            let first = panel * LANES;
            let lanes = LANES.min(num_rows - first);
            if row_stride == 1 {
                for (pair, lanes_of) in pairs.iter_mut().enumerate() {
                    let col = |col: usize| &values[first + (start + col) * col_stride..][..lanes];
                    let low = col(2 * pair);
                    if 2 * pair + 1 < length {
                        for ((out, low), high) in
                            lanes_of.iter_mut().zip(low).zip(col(2 * pair + 1))
                        {
                            *out = pair_of(*low, *high);
                        }
                    } else {
                        for (out, low) in lanes_of.iter_mut().zip(low) {
                            *out = pair_of(*low, bf16::ZERO);
                        }
                    }
                }
            } else {
                for lane in 0..lanes {
                    let row = &values[(first + lane) * row_stride + start * col_stride..];
                    for (pair, out) in pairs.iter_mut().enumerate() {
                        let low = row[2 * pair * col_stride];
                        let high = if 2 * pair + 1 < length {
                            row[(2 * pair + 1) * col_stride]
                        } else {
                            bf16::ZERO
                        };
                        out[lane] = pair_of(low, high);
                    }
                }
            }
        });
    panels
}

fn pair_of(low: bf16, high: bf16) -> Pair {
    Pair::from(high.to_bits()) << 16 | Pair::from(low.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::rounded::bf16::narrowed;

    /// The processor's step in plain words. Source: Intel 64 and IA-32 Architectures Software
    /// Developer's Manual, VDPBF16PS.
    #[derive(Clone, Copy)]
    struct Plain;

    impl Tiles for Plain {
        fn multiply(self, rows: &[[Pair; ROWS]], cols: &[[Pair; COLS]], sums: &mut Tile) {
            let high = |pair: Pair| f32::from_bits(pair & 0xffff_0000);
            let low = |pair: Pair| f32::from_bits(pair << 16);
            *sums = [[0.0; COLS]; ROWS];
            for (rows, cols) in rows.iter().zip(cols) {
                for (row, sums) in rows.iter().zip(&mut *sums) {
                    for (col, sum) in cols.iter().zip(sums) {
                        *sum += high(*row) * high(*col);
                        *sum += low(*row) * low(*col);
                    }
                }
            }
        }
    }

    /// Sums of small whole numbers are exact in f32, so every element has one right value.
    fn check(tiles: impl Tiles, [num_rows, inner, num_cols]: [usize; 3], turned: [bool; 2]) {
        let value = |index: usize, factor: usize| (index * factor % 23) as f32 - 11.0;
        let a: Vec<f32> = (0..num_rows * inner).map(|i| value(i, 7)).collect();
        let b: Vec<f32> = (0..inner * num_cols).map(|i| value(i, 5)).collect();
        let (a16, b16) = (narrowed(&a), narrowed(&b));
        let a_of = |row: usize, k: usize| {
            a[if turned[0] {
                k * num_rows + row
            } else {
                row * inner + k
            }]
        };
        let b_of = |k: usize, col: usize| {
            b[if turned[1] {
                col * inner + k
            } else {
                k * num_cols + col
            }]
        };
        let left = if turned[0] {
            Matrix::new(&a16, inner, num_rows).transposed()
        } else {
            Matrix::new(&a16, num_rows, inner)
        };
        let right = if turned[1] {
            Matrix::new(&b16, num_cols, inner).transposed()
        } else {
            Matrix::new(&b16, inner, num_cols)
        };
        for (into, before) in [(Into::Place, f32::NAN), (Into::Sum, 3.0)] {
            let mut out = vec![before; num_rows * num_cols];
            matmul(tiles, &mut out, left, right, into);
            for (index, found) in out.into_iter().enumerate() {
                let (row, col) = (index / num_cols, index % num_cols);
                let products = (0..inner).map(|k| a_of(row, k) * b_of(k, col));
                let product = products.fold(0.0, |sum, product| sum + product);
                let expected = if into == Into::Sum {
                    product + 3.0
                } else {
                    product
                };
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{num_rows} x {inner} x {num_cols}, turned {turned:?}, {into:?}: row {row}, \
                     column {col} is {found}, expected {expected}"
                );
            }
        }
    }

    fn check_all(tiles: impl Tiles) {
        let shapes = [
            [1, 1, 1],
            [1, 2, 33],
            [13, 7, 31],
            [12, 64, 32],
            [25, 129, 65],
            [200, 40, 70],
            [14, 2 * MAX_INNER + 3, 40],
        ];
        for shape in shapes {
            for turned in [[false, false], [true, false], [false, true], [true, true]] {
                check(tiles, shape, turned);
            }
        }
    }

    /// Odd sizes, both layouts of both operands, inner axes of more than one block.
    #[test]
    fn every_tile_reaches_its_place() {
        check_all(Plain);
    }

    /// Nothing to sum is zero, or nothing added.
    #[test]
    fn an_empty_inner_axis_sums_to_nothing() {
        check(Plain, [3, 0, 5], [false, false]);
    }

    /// On processors that have the instruction, it does what its manual says.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_processors_own_tiles_reach_their_places() {
        match crate::kernels::rounded::avx512::Avx512Bf16::try_new() {
            Some(tiles) => check_all(tiles),
            None => println!("skipped: this processor has no AVX512-BF16"),
        }
    }
}
