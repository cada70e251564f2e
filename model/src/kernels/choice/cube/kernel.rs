//! The kernel: one row of logits, its filters, its draw and what is told of the token.

use cubecl::prelude::*;

use super::search::{
    Bound, Cutoff, LARGEST_GAP, PIVOTS, Row, earlier, exponent, gap_bits, id_of_rank, no_sums,
    reach, sum_over_cube, weight,
};
use super::{NUM_RESULTS, NUM_SETTINGS, Work};
use crate::kernels::cube::{CUBE_UNITS, team_max};

/// A cube per row.
#[cube(launch)]
pub(super) fn choose_rows(
    logits: &[f32],
    asks: &[f32],
    results: &mut [f32],
    vocab_size: usize,
    id_digits: u32,
    #[comptime] work: Work,
) {
    let index = CUBE_POS;
    if index >= results.len() / NUM_RESULTS {
        terminate!();
    }
    let asked = index * NUM_SETTINGS;
    let first = index * vocab_size;
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(PIVOTS * CUBE_UNITS));
    let (largest, is_finite) = largest_logit(logits, first, vocab_size, &mut scratch);
    let row = Row {
        first,
        vocab_size,
        id_digits,
        largest,
        temperature: asks[asked + 1],
    };

    let whole = Cutoff {
        gap: LARGEST_GAP,
        id: u32::MAX,
    };
    let id = if comptime!(work.is_drawn) {
        let last = if comptime!(work.is_filtered) {
            filtered(logits, &row, asks, asked, &whole, &mut scratch)
        } else {
            whole
        };
        let share = asks[asked];
        let chosen = reach(
            logits,
            &row,
            &last,
            share,
            true,
            &mut scratch,
            Bound::Beyond,
        );
        chosen.id
    } else {
        id_of_rank(logits, &row, &whole, 0u32, 1.0_f32, &mut scratch)
    };

    let place = index * NUM_RESULTS;
    if comptime!(work.is_scored) {
        write_scores(
            logits,
            &row,
            id,
            asks[asked + 5],
            results,
            place,
            &mut scratch,
        );
    }
    if UNIT_POS == 0 {
        let mut token = id as f32;
        if !is_finite {
            token = -1.0_f32;
        }
        results[place] = token;
    }
}

/// The largest logit of a row, and whether a token can be chosen, the same in each unit.
#[cube]
fn largest_logit(
    logits: &[f32],
    first: usize,
    vocab_size: usize,
    scratch: &mut [f32],
) -> (f32, bool) {
    let mut largest = f32::min_value();
    let mut sums = no_sums();
    for id in range_stepped(UNIT_POS as usize, vocab_size, CUBE_UNITS) {
        let logit = logits[first + id];
        // The bits are asked, since some cards compute as if nothing were infinite.
        let bits = logit.to_bits();
        let magnitude = bits & 0x7fff_ffffu32;
        if magnitude < 0x7f80_0000u32 {
            largest = max(largest, logit);
            sums[0] += 1.0_f32;
        } else if bits != 0xff80_0000u32 {
            sums[1] += 1.0_f32;
        }
    }
    sum_over_cube(&mut sums, scratch);
    let is_finite = sums[0] > 0.0_f32 && sums[1] == 0.0_f32;
    (team_max(largest, CUBE_UNITS), is_finite)
}

/// The last token that top-k, top-p and min-p leave.
#[cube]
fn filtered(
    logits: &[f32],
    row: &Row,
    asks: &[f32],
    asked: usize,
    last: &Cutoff,
    scratch: &mut [f32],
) -> Cutoff {
    let top_k = asks[asked + 2];
    let top_p = asks[asked + 3];
    let by_rank = reach(
        logits,
        row,
        last,
        top_k,
        top_k > 0.0_f32,
        scratch,
        Bound::Tokens,
    );
    let last = earlier(last, &by_rank);
    let by_share = reach(
        logits,
        row,
        &last,
        top_p,
        top_p < 1.0_f32,
        scratch,
        Bound::Share,
    );
    let last = earlier(&last, &by_share);
    let by_gap = Cutoff {
        gap: asks[asked + 4].to_bits(),
        id: u32::MAX,
    };
    earlier(&last, &by_gap)
}

/// Log-probability, score and entropy of a token.
#[cube]
fn write_scores(
    logits: &[f32],
    row: &Row,
    token: u32,
    temperature: f32,
    results: &mut [f32],
    place: usize,
    scratch: &mut [f32],
) {
    let mut sums = no_sums();
    for id in range_stepped(UNIT_POS as usize, row.vocab_size, CUBE_UNITS) {
        let gap = gap_bits(logits, row, id);
        let share = weight(gap, temperature);
        sums[0] += weight(gap, 1.0_f32);
        sums[1] += share;
        sums[2] += share * exponent(gap, temperature);
    }
    sum_over_cube(&mut sums, scratch);
    if UNIT_POS == 0 {
        let gap = f32::from_bits(gap_bits(logits, row, token as usize));
        results[place + 1] = -gap - sums[0].ln();
        results[place + 2] = -gap / temperature - sums[1].ln();
        results[place + 3] = sums[1].ln() + sums[2] / sums[1];
    }
}
