//! Vector arithmetic shared by the CPU kernels, chosen at run time: AVX-512, AVX2, NEON or scalar.

use std::f32::consts::{LN_2, LOG2_E};

use pulp::{Simd, WithSimd};

/// Runs `op` with the widest vectors this processor has.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn vectorized<Op: WithSimd>(op: Op) -> Op::Output {
    // `pulp::Arch` would do this, but leaves AVX2 out unless a feature is on that nothing else in
    // the build asks for, and that would build Burn's matrix products a second time.
    if let Some(avx512) = pulp::x86::V4::try_new() {
        Simd::vectorize(avx512, op)
    } else if let Some(avx2) = pulp::x86::V3::try_new() {
        Simd::vectorize(avx2, op)
    } else {
        Simd::vectorize(pulp::Scalar, op)
    }
}

/// Runs `op` with the widest vectors this processor has.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn vectorized<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

// Beyond these the result is zero, or its exponent no longer fits.
const EXP_MIN: f32 = -87.336_54;
const EXP_MAX: f32 = 88.376_26;
// Adding 1.5 * 2^23 rounds to an integer that stays in the low bits.
const ROUND_TO_INTEGER: f32 = 12_582_912.0;
// ln 2 in two parts, the first exact in few bits so that n * LN_2_HIGH is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
// Coefficients of Cephes' expf (Moshier 1992), for r in [-ln 2 / 2, ln 2 / 2].
const EXP_POLYNOMIAL: [f32; 6] = [
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_6e-1,
    0.5,
];

/// `e^x`, relative error below 2e-7; exactly zero for `x` below -87.3, infinity kept finite above.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value: f32| simd.splat_f32s(value);
    let too_small = simd.less_than_f32s(x, splat(EXP_MIN));
    // Of a pair with no number in it x86 takes the second: a NaN stays one.
    let x = simd.max_f32s(splat(EXP_MIN), simd.min_f32s(splat(EXP_MAX), x));

    let magic = splat(ROUND_TO_INTEGER);
    let shifted = simd.mul_add_e_f32s(x, splat(LOG2_E), magic);
    let n = simd.sub_f32s(shifted, magic);
    let r = simd.mul_add_e_f32s(n, splat(-LN_2_HIGH), x);
    let r = simd.mul_add_e_f32s(n, splat(-LN_2_LOW), r);

    let mut p = splat(EXP_POLYNOMIAL[0]);
    for coefficient in &EXP_POLYNOMIAL[1..] {
        p = simd.mul_add_e_f32s(p, r, splat(*coefficient));
    }
    let r_squared = simd.mul_f32s(r, r);
    let p = simd.add_f32s(simd.mul_add_e_f32s(p, r_squared, r), splat(1.0));

    let scaled = simd.mul_f32s(p, two_to_the(simd, shifted));
    simd.select_f32s(too_small, splat(0.0), scaled)
}

// Minimax coefficients of 2^r for r in [-1/2, 1/2] with constant term 1, relative error 2e-9.
const EXP2_POLYNOMIAL: [f32; 6] = [
    1.535_336_2e-4,
    1.339_887_5e-3,
    9.618_437e-3,
    5.550_332_4e-2,
    0.240_226_48,
    LN_2,
];

/// `2^x` for `x` up to 0, relative error below 2e-7; some 1e-38 where it is smaller than that.
#[inline(always)]
pub(crate) fn exp2_nonpositive<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value: f32| simd.splat_f32s(value);
    let x = simd.max_f32s(splat(-126.0), x);
    let magic = splat(ROUND_TO_INTEGER);
    let shifted = simd.add_f32s(x, magic);
    let r = simd.sub_f32s(x, simd.sub_f32s(shifted, magic));

    let mut p = splat(EXP2_POLYNOMIAL[0]);
    for coefficient in &EXP2_POLYNOMIAL[1..] {
        p = simd.mul_add_e_f32s(p, r, splat(*coefficient));
    }
    let p = simd.mul_add_e_f32s(p, r, splat(1.0));
    simd.mul_f32s(p, two_to_the(simd, shifted))
}

/// `2^n` of the integer in the low bits of a number that had [`ROUND_TO_INTEGER`] added.
#[inline(always)]
fn two_to_the<S: Simd>(simd: S, shifted: S::f32s) -> S::f32s {
    let bits = simd.transmute_u32s_f32s(shifted);
    let exponent = simd.add_u32s(bits, simd.splat_u32s(127));
    let scale = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.transmute_f32s_u32s(scale)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let denominator = simd.add_f32s(one, exp(simd, simd.neg_f32s(x)));
    simd.div_f32s(one, denominator)
}

/// Sum of the products of two slices of one length.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let (x, x_tail) = S::as_simd_f32s(x);
    let (y, y_tail) = S::as_simd_f32s(y);
    let (x_fours, x_rest) = pulp::as_arrays::<4, _>(x);
    let (y_fours, y_rest) = pulp::as_arrays::<4, _>(y);
    // Four running totals hide the latency of the additions.
    let mut totals = [simd.splat_f32s(0.0); 4];
    for (x, y) in x_fours.iter().zip(y_fours) {
        for lane in 0..4 {
            totals[lane] = simd.mul_add_e_f32s(x[lane], y[lane], totals[lane]);
        }
    }
    for (x, y) in x_rest.iter().zip(y_rest) {
        totals[0] = simd.mul_add_e_f32s(*x, *y, totals[0]);
    }
    let x_tail = simd.partial_load_f32s(x_tail);
    let y_tail = simd.partial_load_f32s(y_tail);
    totals[1] = simd.mul_add_e_f32s(x_tail, y_tail, totals[1]);
    let low = simd.add_f32s(totals[0], totals[1]);
    let high = simd.add_f32s(totals[2], totals[3]);
    simd.reduce_sum_f32s(simd.add_f32s(low, high))
}

/// Largest element, negative infinity for an empty slice.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (x, x_tail) = S::as_simd_f32s(x);
    let (fours, rest) = pulp::as_arrays::<4, _>(x);
    let mut largest = [simd.splat_f32s(f32::NEG_INFINITY); 4];
    for x in fours {
        for lane in 0..4 {
            largest[lane] = simd.max_f32s(x[lane], largest[lane]);
        }
    }
    for x in rest {
        largest[0] = simd.max_f32s(*x, largest[0]);
    }
    let low = simd.max_f32s(largest[0], largest[1]);
    let high = simd.max_f32s(largest[2], largest[3]);
    let vector = simd.reduce_max_f32s(simd.max_f32s(low, high));
    x_tail.iter().copied().fold(vector, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp2Of<'a>(&'a mut [f32]);

    impl WithSimd for Exp2Of<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for x in self.0 {
                let y = exp2_nonpositive(simd, simd.splat_f32s(*x));
                *x = simd.reduce_max_f32s(y);
            }
        }
    }

    /// Against the f64 power of the standard library.
    #[test]
    fn exp2_is_within_two_parts_in_ten_million() {
        let points: Vec<f32> = (0..300_001).map(|i| i as f32 * (-125.9 / 3e5)).collect();
        let mut results = points.clone();
        vectorized(Exp2Of(&mut results));
        let worst = points
            .iter()
            .zip(&results)
            .map(|(x, y)| (f64::from(*y) / f64::from(*x).exp2() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-7, "worst relative error {worst:e}");
        assert_eq!(results[0].to_bits(), 1.0_f32.to_bits());
    }

    struct ExpOf<'a>(&'a mut [f32]);

    impl WithSimd for ExpOf<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (body, tail) = S::as_mut_simd_f32s(self.0);
            for x in body {
                *x = exp(simd, *x);
            }
            let last = exp(simd, simd.partial_load_f32s(tail));
            simd.partial_store_f32s(tail, last);
        }
    }

    /// Against the f64 exponential of the standard library, over the whole range of f32 results.
    #[test]
    fn exp_is_within_two_parts_in_ten_million() {
        let points: Vec<f32> = (0..400_003)
            .map(|i| -87.3 + i as f32 * (175.6 / 4e5))
            .collect();
        let mut results = points.clone();
        vectorized(ExpOf(&mut results));
        let worst = points
            .iter()
            .zip(&results)
            .map(|(x, y)| (f64::from(*y) / f64::from(*x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-7, "worst relative error {worst:e}");
    }

    /// A masked score is negative infinity and must weigh nothing.
    #[test]
    fn exp_of_very_small_numbers_is_exactly_zero() {
        let mut values = [f32::NEG_INFINITY, -1e30, -88.0, 0.0, 1e30];
        vectorized(ExpOf(&mut values));
        assert_eq!(values[..4], [0.0, 0.0, 0.0, 1.0]);
        assert!(values[4] > 2e38);
    }

    /// What is no number must show, not become a probability.
    #[test]
    fn what_is_no_number_stays_none() {
        let mut values = [f32::NAN; 40];
        vectorized(ExpOf(&mut values));
        assert!(values.iter().all(|value| value.is_nan()), "{values:?}");
        let mut values = [f32::NAN];
        vectorized(Exp2Of(&mut values));
        assert!(values[0].is_nan(), "{values:?}");
    }

    struct Reductions<'a>(&'a [f32]);

    impl WithSimd for Reductions<'_> {
        type Output = [f32; 2];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
            [dot(simd, self.0, self.0), max(simd, self.0)]
        }
    }

    /// Sums of small whole numbers are exact in any order, so every length has one right answer.
    #[test]
    fn reductions_cover_every_tail() {
        for length in 1..150_i32 {
            let values: Vec<f32> = (0..length).map(|i| (i % 7 - 3) as f32).collect();
            let expected = [
                values.iter().map(|x| x * x).sum::<f32>(),
                values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            ];
            let found = vectorized(Reductions(&values));
            assert_eq!(
                found.map(f32::to_bits),
                expected.map(f32::to_bits),
                "length {length}"
            );
        }
    }
}
