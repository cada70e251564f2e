//! Matrix products on slices through the `gemm` crate, with their bounds checked.

use gemm::Parallelism;

/// A matrix in a slice, of any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after another.
    ///
    /// # Panics
    ///
    /// When the slice is not `rows * cols` long.
    pub(crate) fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            values.len(),
            rows * cols,
            "elements of a {rows} x {cols} matrix"
        );
        Self {
            values,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The same memory read the other way.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// What happens to the elements a product is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Into {
    /// They are replaced, unread.
    Place,
    /// The product is added to them.
    Sum,
}

/// Writes `a * b` into the row-major `out`, on all threads of the current pool.
///
/// # Panics
///
/// When the shapes disagree.
pub(crate) fn matmul(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, into: Into) {
    assert_eq!(a.cols, b.rows, "inner axes of a product");
    assert_eq!(out.len(), a.rows * b.cols, "elements of a product");
    // The largest offset of each operand is inside its slice by `Matrix::new`, because both layouts
    // it knows (row-major and its transpose) cover exactly `rows * cols` elements.
    #[expect(unsafe_code, reason = "gemm takes pointers and strides")]
    // SAFETY: the pointers come from live slices, `out` is borrowed alone, and every index
    // `row * row_stride + col * col_stride` lies inside them as asserted.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            b.cols as isize,
            into == Into::Sum,
            a.values.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0_f32,
            1.0_f32,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
