//! The next token of every row: chosen where the logits are, or on the host where a row needs more of
//! them than that.
//!
//! Axis letters: `B` rows, `V` vocabulary.

use burn::prelude::*;

use super::request::{Adjust, Event};
use super::{RequestId, Row};
use crate::causal_lm::CausalLm;
use crate::generate::{FinishReason, GenerateError};
use crate::kernels::choice::{ChosenToken, RowChoice};
use crate::kernels::choose_tokens;
use crate::logprobs::{TokenLogprobs, TokenScore};
use crate::sample::LogitsNotFinite;

/// A row's token and what was asked about it.
#[derive(Debug)]
struct Next {
    token_id: u32,
    logprobs: Option<TokenLogprobs>,
    score: Option<TokenScore>,
}

/// What is wanted of a step's logits.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// For each row, whether its logits are read back.
    is_read: Vec<bool>,
    /// How the tokens of the other rows are chosen.
    choices: Vec<RowChoice<'a>>,
}

/// What came back of a step's logits.
#[derive(Debug)]
pub(super) struct Found {
    is_read: Vec<bool>,
    vocab_size: usize,
    /// Logits of the rows that are read, one after another.
    read: Vec<f32>,
    /// Tokens of the other rows.
    chosen: Vec<Result<ChosenToken, LogitsNotFinite>>,
}

impl<'a> Wanted<'a> {
    /// One token of each row.
    pub(super) fn of(rows: &'a mut [Row], adjust: &Adjust<'_>) -> Self {
        let is_read: Vec<bool> = rows.iter().map(|row| row.needs_logits(adjust)).collect();
        let choices = rows
            .iter_mut()
            .zip(&is_read)
            .filter(|(_, is_read)| !**is_read)
            .map(|(row, _)| row.next_choice())
            .collect();
        Self { is_read, choices }
    }

    /// Chooses and reads from logits `[B, V]`.
    pub(super) fn find(self, logits: &Tensor<2>) -> Found {
        let [_, vocab_size] = logits.dims();
        let chosen = rows_where(logits, &self.is_read, false)
            .map(|logits| choose_tokens(logits, &self.choices));
        let read = rows_where(logits, &self.is_read, true).map(to_host);
        Found {
            is_read: self.is_read,
            vocab_size,
            read: read.unwrap_or_default(),
            chosen: chosen.unwrap_or_default(),
        }
    }
}

impl Found {
    /// Gives each row its token, on the host where it is not chosen yet; which requests have ended.
    pub(super) fn tell(
        mut self,
        rows: &mut [Row],
        adjust: &mut Adjust<'_>,
        events: &mut Vec<(RequestId, Event)>,
    ) -> Vec<bool> {
        let mut read = self.read.chunks_exact_mut(self.vocab_size);
        let mut chosen = self.chosen.into_iter();
        rows.iter_mut()
            .zip(self.is_read)
            .map(|(row, is_read)| {
                let token = if is_read {
                    let logits = read.next().expect("these rows' logits were read");
                    row.choose(logits, adjust)
                } else {
                    let chosen = chosen.next().expect("the other rows' tokens were chosen");
                    chosen.map(|chosen| row.remember(chosen))
                };
                row.tell(token, events)
            })
            .collect()
    }
}

/// The logits of the rows of one kind; all of them are not copied.
fn rows_where(logits: &Tensor<2>, is_read: &[bool], wanted: bool) -> Option<Tensor<2>> {
    let indices: Vec<i32> = (0..)
        .zip(is_read)
        .filter(|(_, is_read)| **is_read == wanted)
        .map(|(index, _)| index)
        .collect();
    match indices.len() {
        0 => None,
        len if len == is_read.len() => Some(logits.clone()),
        len => {
            let indices = TensorData::new(indices, [len]);
            let indices = Tensor::<1, Int>::from_data(indices, &logits.device());
            Some(logits.clone().select(0, indices))
        }
    }
}

/// Logits of every position of one token or more per row, `[B, V]`.
pub(super) fn logits_of(model: &CausalLm, hidden: Tensor<3>) -> Tensor<2> {
    model.logits(hidden).flatten(0, 1)
}

/// Numbers of a tensor, row by row.
pub(super) fn to_host(logits: Tensor<2>) -> Vec<f32> {
    let values = logits.into_data().convert::<f32>().try_into_vec();
    values.expect("the data was converted to f32")
}

impl Row {
    /// Whether the token is chosen on the host: only there are penalties, log-probabilities of other
    /// tokens, and what a caller does to the logits.
    fn needs_logits(&self, adjust: &Adjust<'_>) -> bool {
        let wants_others = self.num_top_logprobs.is_some_and(|num_top| num_top > 0);
        wants_others || self.sampler.has_penalties() || (adjust.concerns)(self.id)
    }

    fn next_choice(&mut self) -> RowChoice<'_> {
        RowChoice {
            choice: self.sampler.next_choice(),
            with_logprob: self.num_top_logprobs.is_some(),
            score_temperature: self.score_temperature,
        }
    }

    fn remember(&mut self, chosen: ChosenToken) -> Next {
        let token_id = chosen.token_id;
        self.sampler.remember(token_id);
        let logprobs = |logprob| TokenLogprobs {
            token_id,
            logprob,
            top: Vec::new(),
        };
        Next {
            token_id,
            logprobs: chosen.logprob.map(logprobs),
            score: chosen.score,
        }
    }

    /// Chooses the next token on the host.
    fn choose(
        &mut self,
        logits: &mut [f32],
        adjust: &mut Adjust<'_>,
    ) -> Result<Next, LogitsNotFinite> {
        let is_reported = self.num_top_logprobs.is_some() || self.score_temperature.is_some();
        let original = if is_reported {
            logits.to_vec()
        } else {
            Vec::new()
        };
        if (adjust.concerns)(self.id) {
            (adjust.change)(self.id, logits);
        }
        let token_id = self.sampler.sample(logits)?;
        let logprobs = |num_top| TokenLogprobs::of(&original, token_id, num_top);
        let score = |temperature| TokenScore::of(&original, token_id, temperature);
        Ok(Next {
            token_id,
            logprobs: self.num_top_logprobs.map(logprobs),
            score: self.score_temperature.map(score),
        })
    }

    /// Reports the next token; whether the request has ended.
    fn tell(
        &mut self,
        token: Result<Next, LogitsNotFinite>,
        events: &mut Vec<(RequestId, Event)>,
    ) -> bool {
        let Next {
            token_id,
            logprobs,
            score,
        } = match token {
            Ok(token) => token,
            Err(source) => {
                let error = GenerateError::NotFinite {
                    row: self.id,
                    num_new_tokens: self.num_new_tokens,
                    source,
                };
                events.push((self.id, Event::Failed(error)));
                return true;
            }
        };
        let event = Event::Token {
            token_id,
            logprobs,
            score,
        };
        events.push((self.id, event));
        self.last_token = token_id;
        self.num_new_tokens += 1;
        let reason = if self.eos_token_id.contains(&token_id) {
            FinishReason::Stop
        } else if self.num_new_tokens >= self.max_new_tokens {
            FinishReason::Length
        } else {
            return false;
        };
        events.push((self.id, Event::Finished(reason)));
        true
    }
}
