//! Products of rounded numbers, summed in f32: of bf16 on the processor's own instructions for it
//! where it has them, otherwise, and of f16 everywhere, as a product of f32.
//!
//! Sources: Micikevicius et al. 2018, arXiv:1710.03740, section 3.3 (f16 operands, f32 sums);
//! Kalamkar et al. 2019, arXiv:1905.12322 (the same of bf16).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod f16;
#[cfg(any(target_arch = "x86_64", test))]
mod pairs;
#[cfg(any(target_arch = "x86_64", test))]
mod panels;

use std::borrow::Cow;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::kernels::flex::CHUNK_ELEMENTS;
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::precision::Precision;

/// A matrix as products take it: as it is, or rounded once for all of them.
pub(crate) enum Operand<'a> {
    AsItIs(Matrix<'a>),
    /// Where f32 products do the work: rounded numbers in the places of the matrix.
    Rounded(Matrix<'a>, Vec<f32>),
    /// The same of rows that are rounded already, and their length.
    Widened(usize, Vec<f32>),
    /// Where the processor multiplies bf16.
    Narrowed(Matrix<'a>, Vec<half::bf16>),
    Narrow(Matrix<'a, half::bf16>),
}

/// An operand, read one way or the other.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Wide(Matrix<'a>),
    Narrow(Matrix<'a, half::bf16>),
}

impl<'a> Operand<'a> {
    pub(crate) fn new(matrix: Matrix<'a>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::AsItIs(matrix),
            Precision::Bf16 if multiplies_bf16() => {
                Self::Narrowed(matrix, bf16::narrowed(matrix.span()))
            }
            Precision::Bf16 => Self::Rounded(matrix, bf16::rounded(matrix.span())),
            Precision::F16 => Self::Rounded(matrix, f16::rounded(matrix.span())),
        }
    }

    /// A contiguous tensor's elements as one row per element of the axes before the last; they are
    /// rounded already where their type says so.
    pub(crate) fn of_rows(tensor: &'a FlexTensor) -> Self {
        if tensor.dtype() == DType::BF16 && multiplies_bf16() {
            return Self::Narrow(rows_of(tensor.storage(), tensor));
        }
        match widened(tensor) {
            Cow::Borrowed(values) => Self::AsItIs(rows_of(values, tensor)),
            Cow::Owned(values) => Self::Widened(last_axis(tensor), values),
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::AsItIs(matrix) => View::Wide(*matrix),
            Self::Rounded(matrix, values) => View::Wide(matrix.in_memory(values)),
            Self::Widened(cols, values) => {
                View::Wide(Matrix::new(values, values.len() / cols, *cols))
            }
            Self::Narrowed(matrix, values) => View::Narrow(matrix.in_memory(values)),
            Self::Narrow(matrix) => View::Narrow(*matrix),
        }
    }

    pub(crate) fn transposed(&self) -> View<'_> {
        match self.view() {
            View::Wide(matrix) => View::Wide(matrix.transposed()),
            View::Narrow(matrix) => View::Narrow(matrix.transposed()),
        }
    }
}

impl View<'_> {
    /// Length of the first and of the second axis.
    pub(crate) fn dims(self) -> [usize; 2] {
        match self {
            Self::Wide(matrix) => matrix.dims(),
            Self::Narrow(matrix) => matrix.dims(),
        }
    }
}

/// Writes `a * b` into the row-major `out`, on all threads of the current pool.
///
/// # Panics
///
/// When the shapes disagree, or one operand was made to be rounded and the other was not.
pub(crate) fn product(out: &mut [f32], a: View<'_>, b: View<'_>, into: Into) {
    match (a, b) {
        (View::Wide(a), View::Wide(b)) => matmul(out, a, b, into),
        #[cfg(target_arch = "x86_64")]
        (View::Narrow(a), View::Narrow(b)) => {
            if let Some(tiles) = amx::Amx::try_new() {
                return pairs::matmul(tiles, out, a, b, into);
            }
            let tiles = avx512::Avx512Bf16::try_new().expect("operands are narrow where it is");
            pairs::matmul(tiles, out, a, b, into);
        }
        _ => panic!("one operand in bf16, the other in f32"),
    }
}

/// Whether the processor has instructions for products of bf16.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_there = amx::Amx::try_new().is_some() || avx512::Avx512Bf16::try_new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    let is_there = false;
    is_there
}

/// Fills `to` with what `work` makes of `from`, piece by piece on all threads of the current pool.
fn in_chunks<F: Sync, T: Send>(to: &mut [T], from: &[F], work: impl Fn(&mut [T], &[F]) + Sync) {
    to.par_chunks_mut(CHUNK_ELEMENTS)
        .zip(from.par_chunks(CHUNK_ELEMENTS))
        .for_each(|(to, from)| work(to, from));
}

/// The elements of a contiguous tensor of operands as f32.
///
/// # Panics
///
/// When they are none of f32, bf16 and f16.
pub(crate) fn widened(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.dtype() {
        DType::BF16 => bf16::widened(tensor.storage()).into(),
        DType::F16 => f16::widened(tensor.storage()).into(),
        _ => tensor.storage::<f32>().into(),
    }
}

/// A contiguous tensor's elements as one row per element of the axes before the last.
pub(crate) fn rows_of<'a, T: Copy>(values: &'a [T], tensor: &FlexTensor) -> Matrix<'a, T> {
    let width = last_axis(tensor);
    Matrix::new(values, values.len() / width, width)
}

/// Length of a tensor's last axis.
pub(crate) fn last_axis(tensor: &FlexTensor) -> usize {
    let shape = tensor.shape();
    shape[shape.num_dims() - 1]
}
