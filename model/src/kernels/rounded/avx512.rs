//! Tiles on AVX512-BF16 (Zen 4, Sapphire Rapids and later): 32 products and 16 sums an instruction.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use super::pairs::{COLS, Pair, Tiles};
use super::panels::{Layout, SIDE, Square};

/// Rows of a tile: with two vectors of columns, 24 of 32 registers are sums.
const ROWS: usize = 12;
const LANES: usize = 16;
const VECTORS: usize = COLS / LANES;
/// Quarters 0 and 2 of two vectors.
const EVEN: i32 = 0b10_00_10_00;
/// Quarters 1 and 3 of two vectors.
const ODD: i32 = 0b11_01_11_01;

/// Proof that this processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Bf16(());

impl Avx512Bf16 {
    pub(super) fn try_new() -> Option<Self> {
        let is_there =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        is_there.then_some(Self(()))
    }
}

impl Tiles for Avx512Bf16 {
    const ROWS: usize = ROWS;
    const LAYOUT: Layout = Layout::Lanes;
    /// A panel of rows is 24 KiB then.
    const MAX_INNER: usize = 1024;

    fn scope(self, work: impl FnOnce()) {
        work();
    }

    fn multiply(self, rows: &[Pair], cols: &[Pair], sums: &mut [f32]) {
        let (rows, cols) = (rows.as_chunks().0, cols.as_chunks().0);
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where they are there.
        unsafe {
            multiply(rows, cols, sums.as_chunks_mut().0);
        }
    }

    fn turn(self, square: &mut Square) {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where they are there.
        unsafe {
            turn(square);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "vectors are read from arrays, and vectors of integers seen as vectors of bf16"
)]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply(rows: &[[Pair; ROWS]], cols: &[[Pair; COLS]], sums: &mut [[f32; COLS]]) {
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (rows, cols) in rows.iter().zip(cols) {
        let (first, second) = cols.split_at(LANES);
        // SAFETY: both halves of the array are one vector long, and every bit pattern is a vector
        // of bf16.
        let cols: [__m512bh; VECTORS] = unsafe {
            [
                transmute::<__m512i, __m512bh>(_mm512_loadu_si512(first.as_ptr().cast())),
                transmute::<__m512i, __m512bh>(_mm512_loadu_si512(second.as_ptr().cast())),
            ]
        };
        for (totals, row) in totals.iter_mut().zip(rows) {
            // SAFETY: every bit pattern is a vector of bf16.
            let row =
                unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(row.cast_signed())) };
            for (total, cols) in totals.iter_mut().zip(cols) {
                *total = _mm512_dpbf16_ps(*total, row, cols);
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals) {
        for (sums, total) in sums.chunks_exact_mut(LANES).zip(totals) {
            // SAFETY: the chunk is one vector long.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), total) };
        }
    }
}

/// Makes rows of columns.
#[expect(
    unsafe_code,
    reason = "vectors are read from arrays and written to them"
)]
#[target_feature(enable = "avx512f")]
pub(super) fn turn(square: &mut Square) {
    let rows = square.map(|row| {
        // SAFETY: the array is one vector long.
        unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
    });
    // A quarter of a vector is four columns of one row, then two of two rows, then one of four.
    let mut twos = [_mm512_setzero_si512(); SIDE];
    for n in (0..SIDE).step_by(2) {
        twos[n] = _mm512_unpacklo_epi32(rows[n], rows[n + 1]);
        twos[n + 1] = _mm512_unpackhi_epi32(rows[n], rows[n + 1]);
    }
    let mut fours = [_mm512_setzero_si512(); SIDE];
    for n in (0..SIDE).step_by(4) {
        for half in 0..2 {
            let (upper, lower) = (twos[n + half], twos[n + 2 + half]);
            fours[n + 2 * half] = _mm512_unpacklo_epi64(upper, lower);
            fours[n + 2 * half + 1] = _mm512_unpackhi_epi64(upper, lower);
        }
    }
    // Of column `4 q + n`, four rows each are quarter `q` of the vectors `n`, `n + 4`, ...
    for n in 0..4 {
        let [upper, lower] = [0, 8].map(|row| {
            let (first, second) = (fours[row + n], fours[row + 4 + n]);
            [
                _mm512_shuffle_i32x4::<EVEN>(first, second),
                _mm512_shuffle_i32x4::<ODD>(first, second),
            ]
        });
        let columns = [
            _mm512_shuffle_i32x4::<EVEN>(upper[0], lower[0]),
            _mm512_shuffle_i32x4::<EVEN>(upper[1], lower[1]),
            _mm512_shuffle_i32x4::<ODD>(upper[0], lower[0]),
            _mm512_shuffle_i32x4::<ODD>(upper[1], lower[1]),
        ];
        for (quarter, column) in columns.into_iter().enumerate() {
            // SAFETY: the array is one vector long.
            unsafe { _mm512_storeu_si512(square[4 * quarter + n].as_mut_ptr().cast(), column) };
        }
    }
}
