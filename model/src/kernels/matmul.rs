//! Matrix products on slices through the `gemm` crate, with their bounds checked.

use burn_flex::FlexTensor;
use gemm::Parallelism;

use crate::kernels::flex::dims;

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

    /// A tensor of two axes where it lies: a transposed weight is not copied.
    ///
    /// # Panics
    ///
    /// When the tensor is flipped, or not inside its own memory.
    pub(crate) fn of(tensor: &'a FlexTensor) -> Self {
        let [rows, cols] = dims(tensor);
        let layout = tensor.layout();
        let [row_stride, col_stride] = [0, 1].map(|axis| {
            usize::try_from(layout.strides()[axis]).expect("matrices are never flipped")
        });
        let values = &tensor.storage::<f32>()[layout.start_offset()..];
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        assert!(
            rows * cols == 0 || last < values.len(),
            "a {rows} x {cols} matrix inside its memory"
        );
        Self {
            values,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// Whether the columns rather than the rows are runs of memory.
    pub(crate) fn is_column_major(self) -> bool {
        self.row_stride == 1 && self.col_stride != 1
    }

    /// The elements, where the rows lie one after another.
    pub(crate) fn row_major(self) -> Option<&'a [f32]> {
        (self.col_stride == 1 && self.row_stride == self.cols)
            .then(|| &self.values[..self.rows * self.cols])
    }

    /// Length of the first and of the second axis.
    pub(crate) fn dims(self) -> [usize; 2] {
        [self.rows, self.cols]
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
    // The largest offset of each operand is inside its slice: `Matrix` checks it when it is made, and
    // reading it transposed swaps lengths and strides together.
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
