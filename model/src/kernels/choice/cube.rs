//! Choices on graphics cards: a cube per row, nothing sorted.
//!
//! Tokens have an order: likeliest first, the lowest id first among equals. Top-k, top-p and the draw
//! itself each look for the first token of that order at which a running number (of tokens, or of
//! weight) reaches a bound. A token's place in the order is how far its logit lies below the largest:
//! the bits of that gap, as an integer, rise with it, so the gap at the bound is found digit by digit,
//! and so is the id among those with that very gap. Counts are exact, and a sum over more tokens is
//! never smaller than one over fewer: all are summed in one order.
//!
//! Axis letters: `B` rows, `V` vocabulary.

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{ChosenToken, RowChoice};
use crate::generate_config::GenerateConfig;
use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, is_cube_f32, team_max, unwritten};
use crate::logprobs::TokenScore;
use crate::sample::LogitsNotFinite;

/// Numbers that say how a row's token is chosen.
const NUM_SETTINGS: usize = 6;

/// Numbers that come back of a row: the token or -1, its log-probability, and its score.
const NUM_RESULTS: usize = 4;

/// Bits of a digit.
const DIGIT_BITS: u32 = 2;

/// Beginnings of a digit's values but the first: sums are taken up to each of them at once.
const PIVOTS: usize = (1 << DIGIT_BITS) - 1;

/// Digits of a gap.
const GAP_DIGITS: u32 = u32::BITS / DIGIT_BITS;

/// Largest number of tokens whose ids a float holds exactly.
const MAX_VOCAB: usize = 1 << f32::MANTISSA_DIGITS;

/// Bits of the largest gap of a token that is not ruled out.
const LARGEST_GAP: u32 = f32::MAX.to_bits();

/// Exponents that are smaller weigh nothing in f32; an infinite one never reaches the exponential.
const LARGEST_EXPONENT: f32 = 150.0;

/// Gaps are divided by no less: every token but the likeliest weighs nothing then.
const LEAST_TEMPERATURE: f32 = 1e-30;

/// Whether the kernel takes these logits; nobody learns from a choice.
pub(super) fn takes(logits: &Tensor<2>) -> bool {
    let [num_rows, vocab_size] = logits.dims();
    // Graphics cards launch nothing over nothing.
    let has_work = num_rows > 0 && vocab_size > 0;
    has_work && vocab_size <= MAX_VOCAB && is_cube_f32(logits) && !logits.device().is_autodiff()
}

/// What [`super::choose_tokens`] chooses: four numbers of each row are read back.
pub(super) fn choose_tokens(
    logits: Tensor<2>,
    rows: &[RowChoice<'_>],
) -> Vec<Result<ChosenToken, LogitsNotFinite>> {
    let settings: Vec<f32> = rows.iter().flat_map(settings).collect();
    let settings = TensorData::new(settings, [rows.len(), NUM_SETTINGS]);
    let settings = Tensor::<2>::from_data(settings, &logits.device()); // [B, 6]
    let results = Dispatch::choose_tokens(
        logits.into_dispatch(),
        settings.into_dispatch(),
        Work::of(rows),
    );
    let results = Tensor::<2>::from_dispatch(results).into_data(); // [B, 4]
    let results: Vec<f32> = results.try_into_vec().expect("the kernel writes f32");
    rows.iter()
        .zip(results.chunks_exact(NUM_RESULTS))
        .map(|(row, results)| chosen(row, results))
        .collect()
}

fn chosen(row: &RowChoice<'_>, results: &[f32]) -> Result<ChosenToken, LogitsNotFinite> {
    let [token_id, logprob, logp, entropy] = *results else {
        unreachable!("a row has {NUM_RESULTS} results");
    };
    if token_id < 0.0 {
        return Err(LogitsNotFinite);
    }
    Ok(ChosenToken {
        token_id: token_id as u32,
        logprob: row.with_logprob.then_some(logprob),
        score: row.score_temperature.map(|_| TokenScore {
            logp,
            entropy: f64::from(entropy),
        }),
    })
}

/// The numbers that the kernel reads of a row; a filter that is off cannot be reached.
fn settings(row: &RowChoice<'_>) -> [f32; NUM_SETTINGS] {
    let config = row.choice.config;
    let score_temperature = row.score_temperature.unwrap_or(1.0) as f32;
    if config.is_greedy() {
        return [0.0, 1.0, 0.0, 2.0, f32::MAX, score_temperature];
    }
    let below_one = 1.0 - f32::EPSILON / 2.0;
    [
        (row.choice.uniform as f32).min(below_one),
        (config.temperature as f32).max(LEAST_TEMPERATURE),
        config.top_k.min(MAX_VOCAB) as f32,
        if config.top_p < 1.0 {
            config.top_p as f32
        } else {
            2.0
        },
        largest_gap(config),
        score_temperature,
    ]
}

/// The largest gap whose token passes min-p, decided in f64 as on the host.
fn largest_gap(config: &GenerateConfig) -> f32 {
    let passes = |bits: u32| {
        let gap = f64::from(f32::from_bits(bits));
        (-gap / config.temperature).exp() >= config.min_p
    };
    let (mut passed, mut failed) = (0, f32::INFINITY.to_bits());
    while failed - passed > 1 {
        let middle = passed + (failed - passed) / 2;
        if passes(middle) {
            passed = middle;
        } else {
            failed = middle;
        }
    }
    f32::from_bits(passed)
}

/// What a batch asks for; a row is given the same whatever the others ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    /// Whether any row is drawn.
    is_drawn: bool,
    /// Whether any row has a filter.
    is_filtered: bool,
    /// Whether any row wants more than its token.
    is_scored: bool,
}

impl Work {
    fn of(rows: &[RowChoice<'_>]) -> Self {
        let any = |asks: fn(&RowChoice<'_>) -> bool| rows.iter().any(asks);
        Self {
            is_drawn: any(|row| !row.choice.config.is_greedy()),
            is_filtered: any(|row| {
                let config = row.choice.config;
                config.top_k > 0 || config.top_p < 1.0 || config.min_p > 0.0
            }),
            is_scored: any(|row| row.with_logprob || row.score_temperature.is_some()),
        }
    }
}

/// Choices; nothing tracks them.
#[backend_extension(Cube, Fusion)]
pub(crate) trait ChoiceOps: Backend {
    /// Results `[B, 4]` of logits `[B, V]` and settings `[B, 6]`.
    #[fusion(meta = |logits, _settings, _work| {
        TensorSpec::new(Shape::new([logits.shape[0], NUM_RESULTS]), logits.dtype)
    })]
    fn choose_tokens(
        logits: FloatTensor<Self>,
        settings: FloatTensor<Self>,
        work: Work,
    ) -> FloatTensor<Self>;
}

impl ChoiceOps for CubeBackend {
    fn choose_tokens(logits: CubeTensor, settings: CubeTensor, work: Work) -> CubeTensor {
        let (logits, settings) = (contiguous(logits), contiguous(settings));
        let [num_rows, vocab_size] = logits.shape().dims();
        let results = unwritten(&logits, Shape::new([num_rows, NUM_RESULTS]));
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        choose_rows::launch(
            &results.client,
            cubes_for(&results, num_rows * CUBE_UNITS, cube_dim),
            cube_dim,
            logits.into_buffer_arg(),
            settings.into_buffer_arg(),
            results.clone().into_buffer_arg(),
            vocab_size,
            id_digits(vocab_size),
            work,
        );
        results
    }
}

/// Digits that every id has at most.
fn id_digits(vocab_size: usize) -> u32 {
    (usize::BITS - vocab_size.leading_zeros()).div_ceil(DIGIT_BITS)
}

/// The logits of one row.
#[derive(CubeType, Clone, Copy)]
struct Row {
    first: usize,
    vocab_size: usize,
    id_digits: u32,
    largest: f32,
    temperature: f32,
}

/// The last token of those that are left, in their order.
#[derive(CubeType)]
struct Cutoff {
    gap: u32,
    id: u32,
}

/// What runs up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bound {
    /// So many tokens.
    Tokens,
    /// This share of the weight, reached.
    Share,
    /// This share of the weight, exceeded.
    Beyond,
}

/// A cube per row.
#[cube(launch)]
fn choose_rows(
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

/// Whichever comes first.
#[cube]
fn earlier(a: &Cutoff, b: &Cutoff) -> Cutoff {
    let is_first = a.gap < b.gap || (a.gap == b.gap && a.id < b.id);
    Cutoff {
        gap: select(is_first, a.gap, b.gap),
        id: select(is_first, a.id, b.id),
    }
}

/// Where the running number reaches its bound among the tokens up to `last`; behind every token where
/// it does not, or where nothing is looked for.
#[cube]
fn reach(
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
fn bound_within(whole: f32, bound: f32, #[comptime] kind: Bound) -> f32 {
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
fn id_of_rank(
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
fn falls_short(sum: f32, bound: f32, #[comptime] kind: Bound) -> bool {
    if comptime!(kind == Bound::Beyond) {
        sum <= bound
    } else {
        sum < bound
    }
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

/// How far a token's logit lies below the largest, as an integer that rises with it.
#[cube]
fn gap_bits(logits: &[f32], row: &Row, id: usize) -> u32 {
    // Without its sign: of two zeros the difference may be the negative one.
    (row.largest - logits[row.first + id]).to_bits() & 0x7fff_ffffu32
}

/// Whether a token comes no later than the last one.
#[cube]
fn is_left(gap: u32, id: u32, last: &Cutoff) -> bool {
    gap < last.gap || (gap == last.gap && id <= last.id)
}

/// A token's probability over that of the likeliest.
#[cube]
fn weight(gap: u32, temperature: f32) -> f32 {
    (-exponent(gap, temperature)).exp()
}

#[cube]
fn exponent(gap: u32, temperature: f32) -> f32 {
    min(f32::from_bits(gap) / temperature, LARGEST_EXPONENT)
}

/// The float before a positive one.
#[cube]
fn below(value: f32) -> f32 {
    f32::from_bits(value.to_bits() - 1u32)
}

#[cube]
fn no_sums() -> Array<f32> {
    let mut sums = Array::<f32>::new(PIVOTS);
    #[unroll]
    for pivot in 0..PIVOTS {
        sums[pivot] = 0.0_f32;
    }
    sums
}

/// Each sum over all units of the cube, the same in each; every unit must call it.
#[cube]
fn sum_over_cube(sums: &mut Array<f32>, scratch: &mut [f32]) {
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
