//! Products of bf16 numbers, summed in f32: on the processor's own instructions for it where it has
//! them, otherwise as a product of f32.
//!
//! Source: Kalamkar et al. 2019, arXiv:1905.12322 (bf16 operands, f32 sums).

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", test))]
mod pairs;

use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::flex::{CHUNK_ELEMENTS, unzeroed};
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::kernels::simd::vectorized;

/// A matrix as products take it: as it is, or rounded to bf16 once for all of them.
pub(crate) enum Operand<'a> {
    AsItIs(Matrix<'a>),
    /// Where f32 products do the work: rounded numbers in the places of the matrix.
    Rounded(Matrix<'a>, Vec<f32>),
    /// The same of a matrix that is bf16 already.
    Widened(Matrix<'a, bf16>, Vec<f32>),
    /// Where the processor multiplies bf16.
    Narrowed(Matrix<'a>, Vec<bf16>),
    Narrow(Matrix<'a, bf16>),
}

/// An operand, read one way or the other.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Wide(Matrix<'a>),
    Narrow(Matrix<'a, bf16>),
}

impl<'a> Operand<'a> {
    pub(crate) fn new(matrix: Matrix<'a>, is_bf16: bool) -> Self {
        if !is_bf16 {
            Self::AsItIs(matrix)
        } else if multiplies_bf16() {
            Self::Narrowed(matrix, narrowed(matrix.span()))
        } else {
            Self::Rounded(matrix, rounded(matrix.span()))
        }
    }

    pub(crate) fn of_bf16(matrix: Matrix<'a, bf16>) -> Self {
        if multiplies_bf16() {
            Self::Narrow(matrix)
        } else {
            Self::Widened(matrix, widened(matrix.span()))
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::AsItIs(matrix) => View::Wide(*matrix),
            Self::Rounded(matrix, values) => View::Wide(matrix.in_memory(values)),
            Self::Widened(matrix, values) => View::Wide(matrix.in_memory(values)),
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
            let tiles = avx512::Avx512Bf16::try_new().expect("operands are narrow where it is");
            pairs::matmul(tiles, out, a, b, into);
        }
        _ => panic!("one operand in bf16, the other in f32"),
    }
}

/// Whether the processor has instructions for products of bf16.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_there = avx512::Avx512Bf16::try_new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    let is_there = false;
    is_there
}

/// The nearest bf16 numbers, ties to even.
fn narrowed(values: &[f32]) -> Vec<bf16> {
    let mut narrow = vec![bf16::ZERO; values.len()];
    narrow
        .par_chunks_mut(CHUNK_ELEMENTS)
        .zip(values.par_chunks(CHUNK_ELEMENTS))
        .for_each(|(narrow, wide)| vectorized(Narrow { narrow, wide }));
    narrow
}

/// The nearest bf16 numbers as f32.
fn rounded(values: &[f32]) -> Vec<f32> {
    let mut near = unzeroed(values.len());
    near.par_chunks_mut(CHUNK_ELEMENTS)
        .zip(values.par_chunks(CHUNK_ELEMENTS))
        .for_each(|(near, values)| vectorized(Round { near, values }));
    near
}

/// The same numbers as f32.
pub(crate) fn widened(values: &[bf16]) -> Vec<f32> {
    let mut wide = unzeroed(values.len());
    wide.par_chunks_mut(CHUNK_ELEMENTS)
        .zip(values.par_chunks(CHUNK_ELEMENTS))
        .for_each(|(wide, narrow)| vectorized(Widen { wide, narrow }));
    wide
}

struct Narrow<'a> {
    narrow: &'a mut [bf16],
    wide: &'a [f32],
}

impl WithSimd for Narrow<'_> {
    type Output = ();

    /// A plain loop, which the compiler makes vectors of the features at hand.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (narrow, wide) in self.narrow.iter_mut().zip(self.wide) {
            *narrow = bf16::from_bits(upper_half(*wide) as u16);
        }
    }
}

struct Round<'a> {
    near: &'a mut [f32],
    values: &'a [f32],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (near, value) in self.near.iter_mut().zip(self.values) {
            *near = f32::from_bits(upper_half(*value) << 16);
        }
    }
}

/// Bits of the nearest bf16, ties to even.
#[inline(always)]
fn upper_half(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding could carry a NaN into infinity: it is cut and kept quiet.
    if value.is_nan() {
        bits >> 16 | 0x40
    } else {
        nearest
    }
}

struct Widen<'a> {
    wide: &'a mut [f32],
    narrow: &'a [bf16],
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (wide, narrow) in self.wide.iter_mut().zip(self.narrow) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the `half` crate: numbers of every exponent, ties both ways, what is not finite.
    #[test]
    fn numbers_are_rounded_as_the_half_crate_rounds_them() {
        let spread = (0..1_u32 << 16)
            .map(|upper| f32::from_bits(upper << 16 | upper.rotate_left(7) & 0xffff));
        let ties = (0..512_u32).map(|upper| f32::from_bits((0x3f00 + upper) << 16 | 0x8000));
        let values: Vec<f32> = spread
            .chain(ties)
            .chain([f32::MAX, f32::INFINITY])
            .collect();
        let bits = |values: &[bf16]| -> Vec<u16> { values.iter().map(|x| x.to_bits()).collect() };
        let expected: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
        let found = narrowed(&values);
        assert_eq!(bits(&found), bits(&expected));
        let expected: Vec<u32> = expected.iter().map(|x| x.to_f32().to_bits()).collect();
        for wide in [widened(&found), rounded(&values)] {
            let wide: Vec<u32> = wide.iter().map(|x| x.to_bits()).collect();
            assert_eq!(wide, expected);
        }
    }
}
