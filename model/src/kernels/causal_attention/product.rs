//! Small matrix products of attention tiles: a few rows at a time in registers.
//!
//! A general product packs both operands; tiles are packed already, and too small to pay for more.

use pulp::{Simd, WithSimd};

/// `out (+)= a * b` on tiles; the rows of `b` and `out` are padded to whole vectors.
pub(super) struct Product<'a, const A_TRANSPOSED: bool> {
    /// Where the first of `rows` rows of `cols` elements goes.
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
    pub(super) rows: usize,
    /// A multiple of every vector length, so of 16.
    pub(super) cols: usize,
    /// `[rows, depth]`, or `[depth, rows]` when transposed.
    pub(super) a: &'a [f32],
    pub(super) a_stride: usize,
    /// `[depth, cols]`.
    pub(super) b: &'a [f32],
    pub(super) b_stride: usize,
    pub(super) depth: usize,
    /// Whether to add to `out` rather than to replace it.
    pub(super) add: bool,
}

impl<const A_TRANSPOSED: bool> Product<'_, A_TRANSPOSED> {
    /// Every element the kernels touch lies inside the slices.
    fn assert_in_bounds(&self, lanes: usize) {
        let span = |count: usize, stride: usize, width: usize| match count {
            0 => 0,
            count => (count - 1) * stride + width,
        };
        let (a_outer, a_inner) = if A_TRANSPOSED {
            (self.depth, self.rows)
        } else {
            (self.rows, self.depth)
        };
        assert!(
            self.cols.is_multiple_of(lanes),
            "columns of a tile are whole vectors"
        );
        assert!(
            span(self.rows, self.out_stride, self.cols) <= self.out.len(),
            "out of a tile"
        );
        assert!(
            span(a_outer, self.a_stride, a_inner) <= self.a.len(),
            "a of a tile"
        );
        assert!(
            span(self.depth, self.b_stride, self.cols) <= self.b.len(),
            "b of a tile"
        );
    }

    /// `ROWS` rows by `VECTORS` vectors of the result, held in registers over the whole depth.
    ///
    /// # Safety
    ///
    /// `row + ROWS <= rows`, `col + VECTORS * lanes <= cols`, and the bounds are asserted.
    #[expect(
        unsafe_code,
        reason = "bounds checks in the innermost loop cost half its speed"
    )]
    #[inline(always)]
    unsafe fn block<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        row: usize,
        col: usize,
    ) {
        let (a_row, a_depth) = if A_TRANSPOSED {
            (1, self.a_stride)
        } else {
            (self.a_stride, 1)
        };
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: by the caller's promise each offset below is inside the slice it is added to, and
        // unaligned reads and writes of vectors of f32 are always valid there.
        unsafe {
            let a = self.a.as_ptr().add(row * a_row);
            let b = self.b.as_ptr().add(col);
            let out = self.out.as_mut_ptr().add(row * self.out_stride + col);
            for d in 0..self.depth {
                let mut b_vectors = [simd.splat_f32s(0.0); VECTORS];
                for (vector, b_vector) in b_vectors.iter_mut().enumerate() {
                    let place = b.add(d * self.b_stride + vector * lanes);
                    *b_vector = place.cast::<S::f32s>().read_unaligned();
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = simd.splat_f32s(*a.add(row * a_row + d * a_depth));
                    for (sum, b) in sums.iter_mut().zip(b_vectors) {
                        *sum = simd.mul_add_e_f32s(a, b, *sum);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    let place = out
                        .add(row * self.out_stride + vector * lanes)
                        .cast::<S::f32s>();
                    let before = if self.add {
                        Some(place.read_unaligned())
                    } else {
                        None
                    };
                    let sum = before.map_or(*sum, |before| simd.add_f32s(before, *sum));
                    place.write_unaligned(sum);
                }
            }
        }
    }

    /// All columns of `ROWS` rows.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize>(&mut self, simd: S, row: usize) {
        let lanes = S::F32_LANES;
        let mut col = 0;
        #[expect(unsafe_code, reason = "the register kernel")]
        // SAFETY: the loop bounds keep `col` inside, the caller keeps `row` inside, and
        // `with_simd` asserted the slices.
        unsafe {
            while col + 2 * lanes <= self.cols {
                self.block::<S, ROWS, 2>(simd, row, col);
                col += 2 * lanes;
            }
            if col < self.cols {
                self.block::<S, ROWS, 1>(simd, row, col);
            }
        }
    }
}

impl<const A_TRANSPOSED: bool> WithSimd for Product<'_, A_TRANSPOSED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.assert_in_bounds(S::F32_LANES);
        let mut row = 0;
        // Six rows of two vectors leave registers for two vectors of b and one element of a.
        while row + 6 <= self.rows {
            self.rows::<S, 6>(simd, row);
            row += 6;
        }
        match self.rows - row {
            1 => self.rows::<S, 1>(simd, row),
            2 => self.rows::<S, 2>(simd, row),
            3 => self.rows::<S, 3>(simd, row),
            4 => self.rows::<S, 4>(simd, row),
            5 => self.rows::<S, 5>(simd, row),
            _ => {}
        }
    }
}

/// Rows the kernel handles at once.
pub(super) const BLOCK_ROWS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::vectorized;

    /// Against a plain triple loop on whole numbers, which are exact in any order.
    #[test]
    fn tile_products_equal_the_triple_loop() {
        for (rows, cols, depth) in [
            (1, 16, 1),
            (6, 32, 5),
            (13, 48, 7),
            (64, 96, 64),
            (5, 64, 0),
        ] {
            let a: Vec<f32> = (0..rows * depth).map(|i| (i % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..depth * cols).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut expected = vec![1.0; rows * cols];
            let mut a_transposed = vec![0.0; rows * depth];
            for row in 0..rows {
                for d in 0..depth {
                    a_transposed[d * rows + row] = a[row * depth + d];
                    for col in 0..cols {
                        expected[row * cols + col] += a[row * depth + d] * b[d * cols + col];
                    }
                }
            }
            let mut straight = vec![1.0; rows * cols];
            vectorized(Product::<false> {
                out: &mut straight,
                out_stride: cols,
                rows,
                cols,
                a: &a,
                a_stride: depth,
                b: &b,
                b_stride: cols,
                depth,
                add: true,
            });
            assert_eq!(straight, expected);
            let mut turned = vec![1.0; rows * cols];
            vectorized(Product::<true> {
                out: &mut turned,
                out_stride: cols,
                rows,
                cols,
                a: &a_transposed,
                a_stride: rows,
                b: &b,
                b_stride: cols,
                depth,
                add: true,
            });
            assert_eq!(turned, expected);
        }
    }
}
