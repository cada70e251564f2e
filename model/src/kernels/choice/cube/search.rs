//! The search for the token at which a running number reaches a bound, digit by digit.

use cubecl::prelude::*;

use crate::kernels::cube::CUBE_UNITS;

/// Bits of a digit.
pub(super) const DIGIT_BITS: u32 = 2;

/// Beginnings of a digit's values but the first: sums are taken up to each of them at once.
pub(super) const PIVOTS: usize = (1 << DIGIT_BITS) - 1;

/// Digits of a gap.
const GAP_DIGITS: u32 = u32::BITS / DIGIT_BITS;

/// Bits of the largest gap of a token that is not ruled out.
pub(super) const LARGEST_GAP: u32 = f32::MAX.to_bits();

/// Exponents that are smaller weigh nothing in f32; an infinite one never reaches the exponential.
const LARGEST_EXPONENT: f32 = 150.0;

/// The logits of one row.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Row {
    pub(super) first: usize,
    pub(super) vocab_size: usize,
    pub(super) id_digits: u32,
    pub(super) largest: f32,
    pub(super) temperature: f32,
}

/// The last token of those that are left, in their order.
#[derive(CubeType)]
pub(super) struct Cutoff {
    pub(super) gap: u32,
    pub(super) id: u32,
}

/// What runs up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    /// So many tokens.
    Tokens,
    /// This share of the weight, reached.
    Share,
    /// This share of the weight, exceeded.
    Beyond,
}

/// Whichever comes first.
#[cube]
pub(super) fn earlier(a: &Cutoff, b: &Cutoff) -> Cutoff {
    let is_first = a.gap < b.gap || (a.gap == b.gap && a.id < b.id);
    Cutoff {
        gap: select(is_first, a.gap, b.gap),
        id: select(is_first, a.id, b.id),
    }
}

/// Where the running number reaches its bound among the tokens up to `last`; behind every token where
/// it does not, or where nothing is looked for.
#[cube]
pub(super) fn reach(
    logits: &[f32],
    row: &Row,
    last: &Cutoff,
    bound: f32,
    is_wanted: bool,
    scratch: &mut [f32],
    #[comptime] kind: Bound,
) -> Cutoff {
    let mut bound = bound;
    let mut gap = 0u32;
    let mut before = 0.0_f32;
    for digit in 0..GAP_DIGITS {
        let shift = (GAP_DIGITS - 1u32 - digit) * DIGIT_BITS;
        let mut sums = no_sums();
        if is_wanted {
            for id in range_stepped(UNIT_POS as usize, row.vocab_size, CUBE_UNITS) {
                let place = gap_bits(logits, row, id);
                if is_left(place, id as u32, last) {
                    let mut amount = 1.0_f32;
                    if comptime!(kind != Bound::Tokens) {
                        amount = weight(place, row.temperature);
                    }
                    #[unroll]
                    for pivot in 0..PIVOTS {
                        if place < gap + (1u32 << shift) * comptime!(pivot as u32 + 1) {
                            sums[pivot] += amount;
                        }
                    }
                }
            }
        }
        sum_over_cube(&mut sums, scratch);
        if digit == 0 {
            // No gap has its highest bit: the middle pivot is beyond all of them.
            bound = bound_within(sums[PIVOTS / 2], bound, kind);
        }
        let start = gap;
        #[unroll]
        for pivot in 0..PIVOTS {
            if !is_wanted || falls_short(sums[pivot], bound, kind) {
                gap = start + (1u32 << shift) * comptime!(pivot as u32 + 1);
                before = sums[pivot];
            }
        }
    }
    let mut rank = bound - before;
    if comptime!(kind == Bound::Share) {
        rank = (rank / weight(gap, row.temperature)).ceil();
    }
    if comptime!(kind == Bound::Beyond) {
        rank = (rank / weight(gap, row.temperature)).floor() + 1.0_f32;
    }
    let id = id_of_rank(logits, row, last, gap, rank, scratch);
    Cutoff { gap, id }
}

/// A share of the whole weight as a sum; a number of tokens stays as it is.
#[cube]
pub(super) fn bound_within(whole: f32, bound: f32, #[comptime] kind: Bound) -> f32 {
    let mut within = bound;
    if comptime!(kind != Bound::Tokens) {
        within *= whole;
    }
    if comptime!(kind == Bound::Beyond) {
        // A product that is rounded up to the whole would be exceeded by no token.
        within = min(within, below(whole));
    }
    within
}

/// The id of the `rank`-th token, from 1, of those with this gap, up to `last`; the last of them where
/// there are fewer.
#[cube]
pub(super) fn id_of_rank(
    logits: &[f32],
    row: &Row,
    last: &Cutoff,
    gap: u32,
    rank: f32,
    scratch: &mut [f32],
) -> u32 {
    let mut rank = max(rank, 1.0_f32);
    let mut chosen = 0u32;
    for digit in 0..=row.id_digits {
        let mut sums = no_sums();
        // The first round counts them all.
        let shift = (row.id_digits - digit) * DIGIT_BITS;
        if gap <= last.gap {
            for id in range_stepped(UNIT_POS as usize, row.vocab_size, CUBE_UNITS) {
                let place = gap_bits(logits, row, id);
                if place == gap && is_left(place, id as u32, last) {
                    #[unroll]
                    for pivot in 0..PIVOTS {
                        if (id as u32) < chosen + (1u32 << shift) * comptime!(pivot as u32 + 1) {
                            sums[pivot] += 1.0_f32;
                        }
                    }
                }
            }
        }
        sum_over_cube(&mut sums, scratch);
        if digit == 0 {
            rank = min(rank, sums[0]);
        } else {
            let start = chosen;
            #[unroll]
            for pivot in 0..PIVOTS {
                if sums[pivot] < rank {
                    chosen = start + (1u32 << shift) * comptime!(pivot as u32 + 1);
                }
            }
        }
    }
    chosen
}

/// Whether the number is still before the bound.
#[cube]
pub(super) fn falls_short(sum: f32, bound: f32, #[comptime] kind: Bound) -> bool {
    if comptime!(kind == Bound::Beyond) {
        sum <= bound
    } else {
        sum < bound
    }
}

/// How far a token's logit lies below the largest, as an integer that rises with it.
#[cube]
pub(super) fn gap_bits(logits: &[f32], row: &Row, id: usize) -> u32 {
    // Without its sign: of two zeros the difference may be the negative one.
    (row.largest - logits[row.first + id]).to_bits() & 0x7fff_ffffu32
}

/// Whether a token comes no later than the last one.
#[cube]
pub(super) fn is_left(gap: u32, id: u32, last: &Cutoff) -> bool {
    gap < last.gap || (gap == last.gap && id <= last.id)
}

/// A token's probability over that of the likeliest.
#[cube]
pub(super) fn weight(gap: u32, temperature: f32) -> f32 {
    (-exponent(gap, temperature)).exp()
}

#[cube]
pub(super) fn exponent(gap: u32, temperature: f32) -> f32 {
    min(f32::from_bits(gap) / temperature, LARGEST_EXPONENT)
}

/// The float before a positive one.
#[cube]
pub(super) fn below(value: f32) -> f32 {
    f32::from_bits(value.to_bits() - 1u32)
}

#[cube]
pub(super) fn no_sums() -> Array<f32> {
    let mut sums = Array::<f32>::new(PIVOTS);
    #[unroll]
    for pivot in 0..PIVOTS {
        sums[pivot] = 0.0_f32;
    }
    sums
}

/// Each sum over all units of the cube, the same in each; every unit must call it.
#[cube]
pub(super) fn sum_over_cube(sums: &mut Array<f32>, scratch: &mut [f32]) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for pivot in 0..PIVOTS {
        scratch[pivot * CUBE_UNITS + unit] = sums[pivot];
    }
    sync_cube();
    #[unroll]
    for step in 0..comptime!(CUBE_UNITS.ilog2()) {
        let other = comptime!(CUBE_UNITS >> (step + 1));
        if unit < other {
            #[unroll]
            for pivot in 0..PIVOTS {
                let place = pivot * CUBE_UNITS + unit;
                scratch[place] += scratch[place + other];
            }
        }
        sync_cube();
    }
    #[unroll]
    for pivot in 0..PIVOTS {
        sums[pivot] = scratch[pivot * CUBE_UNITS];
    }
    // The memory is written again by the next call.
    sync_cube();
}
