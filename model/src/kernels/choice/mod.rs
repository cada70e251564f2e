//! The next token of every row of a batch, chosen where the logits are.
//!
//! What a choice is says [`Choice`]: temperature, top-k, top-p and min-p of
//! `generation_config.json`, then the token at a share of the distribution, likeliest tokens first.
//! Only what was chosen comes back from a graphics card.
//!
//! Axis letters: `B` rows, `V` vocabulary.

#[cfg(feature = "cube")]
mod cube;
pub mod reference;

use burn::prelude::*;

use crate::logprobs::TokenScore;
use crate::sample::{Choice, LogitsNotFinite};

/// What is asked of one row.
#[derive(Debug, Clone, Copy)]
pub struct RowChoice<'a> {
    /// How its token is chosen.
    pub choice: Choice<'a>,
    /// Whether the token's log-probability is wanted.
    pub with_logprob: bool,
    /// Temperature, above 0, at which the choice is scored.
    pub score_temperature: Option<f64>,
}

/// The token of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChosenToken {
    /// The token.
    pub token_id: u32,
    /// Its log-probability under the softmax of the logits, in nats; if it was asked for.
    pub logprob: Option<f32>,
    /// If it was asked for.
    pub score: Option<TokenScore>,
}

/// The token of each row, or the row's error.
///
/// Among equally likely tokens the lowest id comes first. On graphics cards sums are f32 and not
/// f64: another token than on the host comes out only where the share lies within their rounding of
/// the border between two. A row's token does not depend on the other rows.
///
/// # Shapes
///
/// - `logits`: `[B, V]`
/// - `rows`: `B`
/// - returns: `B`
///
/// # Panics
///
/// If there is not one choice per row.
pub fn choose_tokens(
    logits: Tensor<2>,
    rows: &[RowChoice<'_>],
) -> Vec<Result<ChosenToken, LogitsNotFinite>> {
    let [num_rows, _] = logits.dims();
    assert_eq!(rows.len(), num_rows, "choose_tokens: a choice per row");
    #[cfg(feature = "cube")]
    if cube::takes(&logits) {
        return cube::choose_tokens(logits, rows);
    }
    reference::choose_tokens(logits, rows)
}
