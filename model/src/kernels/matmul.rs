//! Matrix products on slices through the `gemm` crate, with their bounds checked.

use std::ops::Range;

use burn_flex::FlexTensor;
use gemm::Parallelism;

use crate::kernels::flex::dims;

/// A matrix in a slice, of any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, T = f32> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
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
        let length = if rows * cols == 0 { 0 } else { last + 1 };
        assert!(
            length <= values.len(),
            "a {rows} x {cols} matrix inside its memory"
        );
        Self {
            values: &values[..length],
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }
}

impl<'a, T: Copy> Matrix<'a, T> {
    /// Rows one after another.
    ///
    /// # Panics
    ///
    /// When the slice is not `rows * cols` long.
    pub(crate) fn new(values: &'a [T], rows: usize, cols: usize) -> Self {
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

    /// Whether the columns rather than the rows are runs of memory.
    pub(crate) fn is_column_major(self) -> bool {
        self.row_stride == 1 && self.col_stride != 1
    }

    /// The elements, where the rows lie one after another.
    pub(crate) fn row_major(self) -> Option<&'a [T]> {
        (self.col_stride == 1 && self.row_stride == self.cols).then_some(self.values)
    }

    /// All the memory from the first element to the last.
    pub(crate) fn span(self) -> &'a [T] {
        self.values
    }

    /// Elements of memory from a row to the next, and from a column to the next.
    pub(crate) fn strides(self) -> [usize; 2] {
        [self.row_stride, self.col_stride]
    }

    /// The same places in other memory.
    ///
    /// # Panics
    ///
    /// When it is not as long.
    pub(crate) fn in_memory<U: Copy>(self, values: &[U]) -> Matrix<'_, U> {
        assert_eq!(values.len(), self.values.len(), "memory of a matrix");
        Matrix {
            values,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }

    /// Length of the first and of the second axis.
    pub(crate) fn dims(self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Some columns, at least one.
    fn columns(self, range: Range<usize>) -> Self {
        let (start, cols) = (range.start * self.col_stride, range.len());
        let last = self.rows.saturating_sub(1) * self.row_stride + (cols - 1) * self.col_stride;
        let length = if self.rows == 0 { 0 } else { last + 1 };
        Self {
            values: &self.values[start..start + length],
            cols,
            ..self
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

/// Inner length up to which a product is one block of sums, whatever its other lengths.
const ONE_BLOCK: usize = 512;
/// Columns up to which the number of rows would have a say in how the inner axis is cut into blocks.
const FEW_COLUMNS: usize = 64;

/// Writes `a * b` into the row-major `out`, on all threads of the current pool.
///
/// Of five rows or more, the sums of a row do not depend on how many others there are: the inner axis
/// is cut into blocks by its own length alone.
///
/// # Panics
///
/// When the shapes disagree.
pub(crate) fn matmul(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, mut into: Into) {
    assert_eq!(a.cols, b.rows, "inner axes of a product");
    assert_eq!(out.len(), a.rows * b.cols, "elements of a product");
    if b.cols > FEW_COLUMNS || a.cols <= ONE_BLOCK {
        return blocks_matmul(out, a, b, into);
    }
    for start in (0..a.cols).step_by(ONE_BLOCK) {
        let inner = start..(start + ONE_BLOCK).min(a.cols);
        let (a, b) = (a.columns(inner.clone()), b.transposed().columns(inner));
        blocks_matmul(out, a, b.transposed(), into);
        into = Into::Sum;
    }
}

/// A product whose blocks of the inner axis are those that `gemm` makes.
fn blocks_matmul(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, into: Into) {
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
