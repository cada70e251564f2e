//! Tiles on AVX512-BF16 (Zen 4, Sapphire Rapids and later): 32 products and 16 sums an instruction.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::mem::transmute;

use super::pairs::{COLS, Pair, ROWS, Tile, Tiles};

const LANES: usize = 16;
const VECTORS: usize = COLS / LANES;

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
    fn multiply(self, rows: &[[Pair; ROWS]], cols: &[[Pair; COLS]], sums: &mut Tile) {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: a value of this type is made only where they are there.
        unsafe {
            multiply(rows, cols, sums);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "vectors are read from arrays, and vectors of integers seen as vectors of bf16"
)]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply(rows: &[[Pair; ROWS]], cols: &[[Pair; COLS]], sums: &mut Tile) {
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
