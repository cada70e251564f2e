//! Matrices of bf16 laid out for the processor's products: panels of some rows each, two neighbours
//! of a row in one number.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::pairs::Pair;
use crate::kernels::matmul::Matrix;

/// Side of a square of pairs: one side is a cache line.
pub(super) const SIDE: usize = 16;

/// Pairs on their way from a matrix into a panel.
pub(super) type Square = [[Pair; SIDE]; SIDE];

/// How the pairs of a panel lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The first pair of every row, then the second of every row, and so on.
    Lanes,
    /// The first `SIDE` pairs of the first row, those of the second row, ... then the next `SIDE` of
    /// the first row, and so on.
    Runs,
}

/// Pairs that begin with a cache line: a vector that crosses two costs two reads.
pub(super) struct Aligned {
    values: Vec<Pair>,
    start: usize,
}

impl Aligned {
    fn zeros(length: usize) -> Self {
        let mut values = vec![0; length + SIDE - 1];
        let start = values.as_ptr().align_offset(SIDE * size_of::<Pair>());
        values.truncate(start + length);
        Self { values, start }
    }

    pub(super) fn pairs(&self) -> &[Pair] {
        &self.values[self.start..]
    }

    /// Some columns of a matrix as panels of `height` rows, whole squares of pairs long; rows and
    /// columns that are not there are zeros. `turn` makes rows of a square's columns.
    pub(super) fn panels(
        matrix: Matrix<'_, bf16>,
        cols: Range<usize>,
        height: usize,
        layout: Layout,
        turn: impl Fn(&mut Square) + Sync,
    ) -> Self {
        let [num_rows, _] = matrix.dims();
        let num_pairs = cols.len().div_ceil(2).next_multiple_of(SIDE);
        let are_runs = matrix.strides()[1] == 1;
        let mut panels = Self::zeros(num_rows.next_multiple_of(height) * num_pairs);
        panels.values[panels.start..]
            .par_chunks_mut(height * num_pairs)
            .zip((0..num_rows).into_par_iter().step_by(height))
            .for_each(|(panel, first_row)| {
                let num_rows = height.min(num_rows - first_row);
                let squares = panel.chunks_exact_mut(SIDE * height);
                for (squares, first_col) in squares.zip(cols.clone().step_by(2 * SIDE)) {
                    let cols = first_col..cols.end.min(first_col + 2 * SIDE);
                    for lane in (0..num_rows).step_by(SIDE) {
                        let rows = first_row + lane..first_row + num_rows.min(lane + SIDE);
                        let mut square = [[0; SIDE]; SIDE];
                        if are_runs {
                            read_runs(&mut square, matrix, rows, cols.clone());
                        } else {
                            read_lanes(&mut square, matrix, rows, cols.clone());
                        }
                        if are_runs != (layout == Layout::Runs) {
                            turn(&mut square);
                        }
                        match layout {
                            Layout::Runs => write_runs(squares, &square, lane),
                            Layout::Lanes => write_lanes(squares, &square, lane, height),
                        }
                    }
                }
            });
        panels
    }
}

/// Rows below each other, each a run of memory.
fn read_runs(
    square: &mut Square,
    matrix: Matrix<'_, bf16>,
    rows: Range<usize>,
    cols: Range<usize>,
) {
    let [row_stride, _] = matrix.strides();
    for (row, pairs) in rows.zip(square) {
        let (twos, rest) = matrix.span()[row * row_stride..][cols.clone()].as_chunks::<2>();
        for (pair, [low, high]) in pairs.iter_mut().zip(twos) {
            *pair = pair_of(*low, *high);
        }
        if let [last] = rest {
            pairs[twos.len()] = pair_of(*last, bf16::ZERO);
        }
    }
}

/// Rows beside each other: two columns make a line of the square.
fn read_lanes(
    square: &mut Square,
    matrix: Matrix<'_, bf16>,
    rows: Range<usize>,
    cols: Range<usize>,
) {
    let [row_stride, col_stride] = matrix.strides();
    for (low, pairs) in cols.clone().step_by(2).zip(square) {
        let high = low + 1;
        let column = |col: usize| &matrix.span()[rows.start * row_stride + col * col_stride..];
        let lanes = &mut pairs[..rows.len()];
        if row_stride == 1 && high < cols.end {
            let both = column(low).iter().zip(column(high));
            for (pair, (low, high)) in lanes.iter_mut().zip(both) {
                *pair = pair_of(*low, *high);
            }
        } else {
            for (row, pair) in lanes.iter_mut().enumerate() {
                let value = |col: usize| column(col)[row * row_stride];
                let second = if high < cols.end {
                    value(high)
                } else {
                    bf16::ZERO
                };
                *pair = pair_of(value(low), second);
            }
        }
    }
}

/// Rows of a square below each other.
fn write_runs(squares: &mut [Pair], square: &Square, lane: usize) {
    let (runs, _) = squares[lane * SIDE..].as_chunks_mut::<SIDE>();
    for (run, pairs) in runs.iter_mut().zip(square) {
        *run = *pairs;
    }
}

/// Rows of a square into as many lanes of a panel.
fn write_lanes(squares: &mut [Pair], square: &Square, first_lane: usize, height: usize) {
    for (lanes, pairs) in squares.chunks_exact_mut(height).zip(square) {
        for (lane, pair) in lanes[first_lane..].iter_mut().zip(pairs) {
            *lane = *pair;
        }
    }
}

fn pair_of(low: bf16, high: bf16) -> Pair {
    Pair::from(high.to_bits()) << 16 | Pair::from(low.to_bits())
}
