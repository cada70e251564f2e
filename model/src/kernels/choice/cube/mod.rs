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

mod kernel;
mod search;

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{ChosenToken, RowChoice};
use crate::generate_config::GenerateConfig;
use crate::kernels::cube::{CUBE_UNITS, contiguous, cubes_for, is_cube_f32, unwritten};
use crate::logprobs::TokenScore;
use crate::sample::LogitsNotFinite;
use kernel::choose_rows;
use search::DIGIT_BITS;

/// Numbers that say how a row's token is chosen.
const NUM_SETTINGS: usize = 6;

/// Numbers that come back of a row: the token or -1, its log-probability, and its score.
const NUM_RESULTS: usize = 4;

/// Largest number of tokens whose ids a float holds exactly.
const MAX_VOCAB: usize = 1 << f32::MANTISSA_DIGITS;

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
    pub(super) is_drawn: bool,
    /// Whether any row has a filter.
    pub(super) is_filtered: bool,
    /// Whether any row wants more than its token.
    pub(super) is_scored: bool,
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
