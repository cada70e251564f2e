//! Choices on the host, in f64.

use burn::prelude::*;

use super::{ChosenToken, RowChoice};
use crate::logprobs::{TokenLogprobs, TokenScore};
use crate::sample::LogitsNotFinite;

/// What [`super::choose_tokens`] chooses, from logits that are read back.
///
/// # Panics
///
/// If a row has no logits.
pub fn choose_tokens(
    logits: Tensor<2>,
    rows: &[RowChoice<'_>],
) -> Vec<Result<ChosenToken, LogitsNotFinite>> {
    let [_, vocab_size] = logits.dims();
    let values = logits.into_data().convert::<f32>().try_into_vec::<f32>();
    let values = values.expect("the data was converted to f32");
    let choose = |(row, logits): (&RowChoice<'_>, &[f32])| {
        let token_id = row.choice.of(logits)?;
        let score = |temperature| TokenScore::of(logits, token_id, temperature);
        Ok(ChosenToken {
            token_id,
            logprob: row
                .with_logprob
                .then(|| TokenLogprobs::of(logits, token_id, 0).logprob),
            score: row.score_temperature.map(score),
        })
    };
    rows.iter()
        .zip(values.chunks_exact(vocab_size))
        .map(choose)
        .collect()
}
