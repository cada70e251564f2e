//! f32 to bf16 and back.

use half::bf16;
use pulp::{Simd, WithSimd};

use super::in_chunks;
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::vectorized;

/// The nearest bf16 numbers, ties to even.
pub(super) fn narrowed(values: &[f32]) -> Vec<bf16> {
    let mut narrow = vec![bf16::ZERO; values.len()];
    in_chunks(&mut narrow, values, |narrow, wide| {
        vectorized(Narrow { narrow, wide });
    });
    narrow
}

/// The nearest bf16 numbers as f32.
pub(super) fn rounded(values: &[f32]) -> Vec<f32> {
    let mut near = unzeroed(values.len());
    in_chunks(&mut near, values, |near, values| {
        vectorized(Round { near, values });
    });
    near
}

/// The same numbers as f32.
pub(super) fn widened(values: &[bf16]) -> Vec<f32> {
    let mut wide = unzeroed(values.len());
    in_chunks(&mut wide, values, |wide, narrow| {
        vectorized(Widen { wide, narrow });
    });
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
