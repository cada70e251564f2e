//! Products of bf16 numbers, summed in f32: on the processor's own instructions for it where it has
//! them, otherwise as a product of f32.
//!
//! Source: Kalamkar et al. 2019, arXiv:1905.12322 (bf16 operands, f32 sums).

#[cfg(target_arch = "x86_64")]
mod avx512;
mod pairs;

use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::flex::CHUNK_ELEMENTS;
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::kernels::simd::vectorized;

/// Writes `a * b` into the row-major `out`, on all threads of the current pool.
///
/// # Panics
///
/// When the shapes disagree.
pub(crate) fn bf16_matmul(out: &mut [f32], a: Matrix<'_, bf16>, b: Matrix<'_, bf16>, into: Into) {
    #[cfg(target_arch = "x86_64")]
    if let Some(tiles) = avx512::Avx512Bf16::try_new() {
        return pairs::matmul(tiles, out, a, b, into);
    }
    let (wide_a, wide_b) = (widened(a.span()), widened(b.span()));
    matmul(out, a.in_memory(&wide_a), b.in_memory(&wide_b), into);
}

/// A matrix of f32 as products take it: as it is, or rounded to bf16.
pub(crate) struct Operand<'a> {
    matrix: Matrix<'a>,
    narrow: Option<Vec<bf16>>,
}

/// An operand, read one way or the other.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    matrix: Matrix<'a>,
    narrow: Option<&'a [bf16]>,
}

impl<'a> Operand<'a> {
    pub(crate) fn new(matrix: Matrix<'a>, is_bf16: bool) -> Self {
        let narrow = is_bf16.then(|| narrowed(matrix.span()));
        Self { matrix, narrow }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            matrix: self.matrix,
            narrow: self.narrow.as_deref(),
        }
    }

    pub(crate) fn transposed(&self) -> View<'_> {
        View {
            matrix: self.matrix.transposed(),
            ..self.view()
        }
    }
}

/// Writes `a * b` into the row-major `out`, rounded operands as bf16.
///
/// # Panics
///
/// When the shapes disagree.
pub(crate) fn product(out: &mut [f32], a: View<'_>, b: View<'_>, into: Into) {
    match (a.narrow, b.narrow) {
        (Some(x), Some(y)) => bf16_matmul(out, a.matrix.in_memory(x), b.matrix.in_memory(y), into),
        _ => matmul(out, a.matrix, b.matrix, into),
    }
}

/// The nearest bf16 numbers, ties to even.
pub(crate) fn narrowed(values: &[f32]) -> Vec<bf16> {
    let mut narrow = vec![bf16::ZERO; values.len()];
    narrow
        .par_chunks_mut(CHUNK_ELEMENTS)
        .zip(values.par_chunks(CHUNK_ELEMENTS))
        .for_each(|(narrow, wide)| vectorized(Narrow { narrow, wide }));
    narrow
}

/// The same numbers as f32.
pub(crate) fn widened(values: &[bf16]) -> Vec<f32> {
    let mut wide = vec![0.0; values.len()];
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
            let bits = wide.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // Rounding could carry a NaN into infinity: it is cut and kept quiet.
            let upper = if wide.is_nan() {
                bits >> 16 | 0x40
            } else {
                rounded
            };
            *narrow = bf16::from_bits(upper as u16);
        }
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
        let wide: Vec<u32> = widened(&found).iter().map(|x| x.to_bits()).collect();
        let expected: Vec<u32> = expected.iter().map(|x| x.to_f32().to_bits()).collect();
        assert_eq!(wide, expected);
    }
}
