//! A blocked product whose innermost step multiplies two neighbours of the inner axis at once, as
//! processors do for bf16: `sum += a[k] * b[k] + a[k + 1] * b[k + 1]`.
//!
//! Both operands are first laid out as panels: of some rows of one and of `COLS` columns of the
//! other. The pairs of a panel of rows meet those of a panel of columns in registers.

use half::bf16;
use rayon::prelude::*;

use super::panels::{Aligned, Layout, SIDE, Square};
use crate::kernels::matmul::{Into, Matrix};

/// Columns of a tile.
pub(super) const COLS: usize = 32;
/// Rows of a tile at most.
const MAX_ROWS: usize = 32;
/// Panels of columns that the panels of rows meet in turn: few enough for the second cache, and
/// enough that a row of the product is written in runs.
const GROUP: usize = 8;
/// Panels of rows of a task at most.
const MAX_TASK_PANELS: usize = 8;
/// Tasks per thread at least, where there are rows enough, so that none waits long for another.
const TASKS_PER_THREAD: usize = 4;

/// Two neighbours of the inner axis, the first in the lower half.
pub(super) type Pair = u32;

/// What multiplies panels.
pub(super) trait Tiles: Copy + Sync {
    /// Rows of a tile, `MAX_ROWS` at most.
    const ROWS: usize;
    /// How pairs lie in a panel of rows. In one of columns they are `Layout::Lanes`.
    const LAYOUT: Layout;
    /// Inner lengths are cut to this, whole squares of pairs.
    const MAX_INNER: usize;

    /// Does `work`, which multiplies on this thread alone.
    fn scope(self, work: impl FnOnce());

    /// Replaces `sums`, `ROWS` rows of `COLS`, by the products of a panel of rows and a panel of
    /// columns. All three begin with a cache line, and both panels have whole squares of pairs.
    fn multiply(self, rows: &[Pair], cols: &[Pair], sums: &mut [f32]);

    /// Makes rows of columns.
    fn turn(self, square: &mut Square);
}

/// Sums of a tile.
#[repr(align(64))]
struct Sums([f32; MAX_ROWS * COLS]);

/// Writes `a * b` into the row-major `out`.
///
/// # Panics
///
/// When the shapes disagree.
pub(super) fn matmul<T: Tiles>(
    tiles: T,
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
    let task_rows = task_rows::<T>(num_rows);
    for start in (0..inner).step_by(T::MAX_INNER) {
        let range = start..inner.min(start + T::MAX_INNER);
        let num_pairs = range.len().div_ceil(2).next_multiple_of(SIDE);
        let turn = |square: &mut Square| tiles.turn(square);
        let rows = Aligned::panels(a, range.clone(), T::ROWS, T::LAYOUT, turn);
        let cols = Aligned::panels(b.transposed(), range, COLS, Layout::Lanes, turn);
        let block = Block {
            cols: cols.pairs(),
            num_pairs,
            num_cols,
            into,
        };
        out.par_chunks_mut(task_rows * num_cols)
            .zip(rows.pairs().par_chunks(task_rows * num_pairs))
            .for_each(|(out, rows)| tiles.scope(|| block.multiply(tiles, out, rows)));
        into = Into::Sum;
    }
}

/// What a block of the inner axis gives to every row of the product.
struct Block<'a> {
    cols: &'a [Pair],
    num_pairs: usize,
    num_cols: usize,
    into: Into,
}

impl Block<'_> {
    fn multiply<T: Tiles>(&self, tiles: T, out: &mut [f32], rows: &[Pair]) {
        let Self {
            cols,
            num_pairs,
            num_cols,
            into,
        } = *self;
        let mut sums = Sums([0.0; MAX_ROWS * COLS]);
        let sums = &mut sums.0[..T::ROWS * COLS];
        for (group, cols) in cols.chunks(GROUP * COLS * num_pairs).enumerate() {
            for (rows, out) in rows
                .chunks_exact(T::ROWS * num_pairs)
                .zip(out.chunks_mut(T::ROWS * num_cols))
            {
                for (panel, cols) in cols.chunks_exact(COLS * num_pairs).enumerate() {
                    tiles.multiply(rows, cols, sums);
                    let first_col = (group * GROUP + panel) * COLS;
                    for (out, sums) in out.chunks_exact_mut(num_cols).zip(sums.chunks_exact(COLS)) {
                        store(&mut out[first_col..], sums, into);
                    }
                }
            }
        }
    }
}

/// Rows of a task, whole panels of them.
fn task_rows<T: Tiles>(num_rows: usize) -> usize {
    let tasks = TASKS_PER_THREAD * rayon::current_num_threads();
    num_rows
        .div_ceil(tasks)
        .next_multiple_of(T::ROWS)
        .min(MAX_TASK_PANELS * T::ROWS)
}

fn store(out: &mut [f32], sums: &[f32], into: Into) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::rounded::bf16::narrowed;

    /// The processor's steps in plain words. Source: Intel 64 and IA-32 Architectures Software
    /// Developer's Manual, VDPBF16PS and TDPBF16PS.
    #[derive(Clone, Copy)]
    struct Plain<const ROWS: usize, const IS_ROW_BY_ROW: bool>;

    impl<const ROWS: usize, const IS_ROW_BY_ROW: bool> Tiles for Plain<ROWS, IS_ROW_BY_ROW> {
        const ROWS: usize = ROWS;
        const LAYOUT: Layout = if IS_ROW_BY_ROW {
            Layout::Runs
        } else {
            Layout::Lanes
        };
        const MAX_INNER: usize = 64;

        fn scope(self, work: impl FnOnce()) {
            work();
        }

        fn multiply(self, rows: &[Pair], cols: &[Pair], sums: &mut [f32]) {
            let high = |pair: Pair| f32::from_bits(pair & 0xffff_0000);
            let low = |pair: Pair| f32::from_bits(pair << 16);
            assert_eq!(sums.len(), ROWS * COLS);
            sums.fill(0.0);
            for (pair, cols) in cols.chunks_exact(COLS).enumerate() {
                for (row, sums) in sums.chunks_exact_mut(COLS).enumerate() {
                    let row = rows[if IS_ROW_BY_ROW {
                        (pair / SIDE * ROWS + row) * SIDE + pair % SIDE
                    } else {
                        pair * ROWS + row
                    }];
                    for (col, sum) in cols.iter().zip(sums) {
                        *sum += high(row) * high(*col);
                        *sum += low(row) * low(*col);
                    }
                }
            }
        }

        fn turn(self, square: &mut Square) {
            let before = *square;
            for (row, pairs) in square.iter_mut().enumerate() {
                for (col, pair) in pairs.iter_mut().enumerate() {
                    *pair = before[col][row];
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

    fn check_all<T: Tiles>(tiles: T) {
        let shapes = [
            [1, 1, 1],
            [1, 2, 33],
            [13, 7, 31],
            [12, 64, 32],
            [25, 129, 65],
            [200, 40, 70],
            [70, 33, 3 * GROUP * COLS + 5],
            [14, 2 * T::MAX_INNER + 3, 40],
        ];
        for shape in shapes {
            for turned in [[false, false], [true, false], [false, true], [true, true]] {
                check(tiles, shape, turned);
            }
        }
    }

    /// Odd sizes, both layouts of both operands, inner axes of more than one block, tiles of any
    /// height.
    #[test]
    fn every_tile_reaches_its_place() {
        check_all(Plain::<12, false>);
        check_all(Plain::<32, true>);
    }

    /// Nothing to sum is zero, or nothing added.
    #[test]
    fn an_empty_inner_axis_sums_to_nothing() {
        check(Plain::<12, false>, [3, 0, 5], [false, false]);
    }

    /// On processors that have the instructions, they do what their manual says.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_processors_own_tiles_reach_their_places() {
        use crate::kernels::rounded::{amx::Amx, avx512::Avx512Bf16};
        match Avx512Bf16::try_new() {
            Some(tiles) => check_all(tiles),
            None => println!("skipped: this processor has no AVX512-BF16"),
        }
        match Amx::try_new() {
            Some(tiles) => check_all(tiles),
            None => println!("skipped: this processor has no AMX-BF16"),
        }
    }
}
