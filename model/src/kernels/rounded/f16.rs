//! f32 to f16 and back.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};

use super::in_chunks;
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::vectorized;

/// From here on neighbours are as far apart as 11 bits allow; below, they are 2^-24 apart.
const SMALLEST_NORMAL: f32 = 1.0 / 16_384.0;
const LARGEST: f32 = 65_504.0;
/// Bits of an f32 behind the last one of an f16.
const LOST_BITS: u32 = 13;

/// The nearest f16 numbers as f32; infinite, where they would be beyond 65504.
pub(super) fn rounded(values: &[f32]) -> Vec<f32> {
    let mut near = unzeroed(values.len());
    in_chunks(&mut near, values, |near, values| {
        vectorized(Round { near, values });
    });
    near
}

/// The same numbers as f32.
pub(super) fn widened(values: &[f16]) -> Vec<f32> {
    let mut wide = unzeroed(values.len());
    in_chunks(&mut wide, values, |wide, narrow| {
        narrow.convert_to_f32_slice(wide);
    });
    wide
}

struct Round<'a> {
    near: &'a mut [f32],
    values: &'a [f32],
}

impl WithSimd for Round<'_> {
    type Output = ();

    /// A plain loop, which the compiler makes vectors of the features at hand.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (near, value) in self.near.iter_mut().zip(self.values) {
            *near = nearest(*value);
        }
    }
}

/// The nearest f16, ties to even.
#[inline(always)]
fn nearest(value: f32) -> f32 {
    let size = value.abs();
    // From 1/2 to 1 an f32's neighbours are 2^-24 apart, so this sum is rounded as it must be.
    let small = (size + 0.5) - 0.5;
    let bits = size.to_bits();
    let half = (1 << (LOST_BITS - 1)) - 1 + (bits >> LOST_BITS & 1);
    let normal = f32::from_bits(bits.wrapping_add(half) >> LOST_BITS << LOST_BITS);
    let bounded = if normal > LARGEST {
        f32::INFINITY
    } else {
        normal
    };
    let near = if size < SMALLEST_NORMAL {
        small
    } else {
        bounded
    };
    if value.is_nan() {
        value
    } else {
        near.copysign(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every f16 with its neighbourhood: itself, halfway to the next, and a little to either side.
    fn values() -> Vec<f32> {
        let half_crates = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32());
        let around = half_crates.flat_map(|value| {
            let next = f16::from_bits(f16::from_f32(value).to_bits().wrapping_add(1)).to_f32();
            let halfway = f32::midpoint(value, next);
            let bits = halfway.to_bits();
            let beside = [bits.wrapping_sub(1), bits, bits.wrapping_add(1)];
            [value].into_iter().chain(beside.map(f32::from_bits))
        });
        let ends = [65_519.996, 65_520.0, 1e9, f32::MAX, 1e-8, f32::MIN_POSITIVE];
        around.chain(ends).chain(ends.map(|value| -value)).collect()
    }

    /// Against the `half` crate's conversion of one number.
    #[test]
    fn numbers_are_rounded_as_the_half_crate_rounds_them() {
        let values = values();
        for (value, found) in values.iter().zip(rounded(&values)) {
            let expected = f16::from_f32(*value).to_f32();
            let is_same = found.to_bits() == expected.to_bits();
            assert!(
                is_same || found.is_nan() && expected.is_nan(),
                "{value} is rounded to {found}, expected {expected}"
            );
        }
    }

    /// Against the same.
    #[test]
    fn every_number_is_widened_to_itself() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for (narrow, wide) in all.iter().zip(widened(&all)) {
            assert!(narrow.to_f32().to_bits() == wide.to_bits() || wide.is_nan());
        }
    }
}
