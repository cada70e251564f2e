//! A head that judges whole texts: one number, read at the last token.
//!
//! Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.5. In a folder it is what `transformers`
//! calls a model for sequence classification with one label (`score.weight`).
//!
//! Axis letters: `B` rows, `T` positions, `D` hidden size, `N` texts.

use burn::module::{Param, ParamId};
use burn::prelude::*;

use crate::causal_lm::CausalLm;
use crate::linear::Linear;
use crate::params::path_hash;

/// Tokens of a forward pass at most, padding included, unless one text has more.
const BATCH_TOKENS: usize = 2048;

/// Why texts cannot be judged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewardError {
    /// The model was not trained to judge.
    #[error("the model has no score head, expected one that kindling reward_model trained")]
    NoScoreHead,
    /// There is nothing to judge.
    #[error("text {text} has no token, expected at least one")]
    Empty {
        /// Which text, from 0.
        text: usize,
    },
    /// The text does not fit.
    #[error(
        "text {text} has {num_tokens} tokens, expected at most max_position_embeddings = \
         {max_position_embeddings}"
    )]
    TooLong {
        /// Which text, from 0.
        text: usize,
        /// Its tokens.
        num_tokens: usize,
        /// Tokens that the model reads.
        max_position_embeddings: usize,
    },
    /// The text comes from another tokenizer than the model.
    #[error("text {text} holds token id {id}, expected ids below vocab_size = {vocab_size}")]
    UnknownToken {
        /// Which text, from 0.
        text: usize,
        /// The id.
        id: u32,
        /// Number of ids that the model knows.
        vocab_size: usize,
    },
}

impl CausalLm {
    /// The model with a head that finds every text equally good until it is trained; one that is
    /// there stays.
    #[must_use]
    pub fn with_score_head(mut self) -> Self {
        if self.score.is_none() {
            let device = self.embed_tokens.weight.device();
            let hidden_size = self.config().hidden_size;
            let mut score = Linear::empty(hidden_size, 1, &device);
            let zeros = Tensor::<2>::zeros([hidden_size, 1], &device);
            // The id by its path, as those of all other parameters.
            let id = ParamId::from(path_hash("score.weight"));
            score.weight = Param::initialized(id, zeros).set_require_grad(true);
            self.score = Some(score);
        }
        self
    }

    /// Rewards of texts, from the hidden states at their last tokens.
    ///
    /// # Shapes
    ///
    /// - `last`: `[N, D]`
    /// - returns: `[N]`
    ///
    /// # Panics
    ///
    /// If the model has no score head, or the last axis is not `D` long.
    pub fn scores(&self, last: Tensor<2>) -> Tensor<1> {
        let hidden_size = self.config().hidden_size;
        assert_shape!(last, [_, hidden_size]);
        let [num_texts, _] = last.dims();
        let score = self.score.as_ref().expect("a model that judges");
        score.forward(last).reshape([num_texts]) // [N]
    }
}

/// How good the model finds each text, whatever stands beside it in a batch.
///
/// # Errors
///
/// A model without a score head, or a text that it cannot read.
pub fn rewards(model: &CausalLm, texts: &[Vec<u32>]) -> Result<Vec<f32>, RewardError> {
    if model.score.is_none() {
        return Err(RewardError::NoScoreHead);
    }
    for (text, ids) in texts.iter().enumerate() {
        check(model, text, ids)?;
    }
    // Texts of about one length need little padding.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(texts[text].len()));
    let mut rewards = vec![0.0; texts.len()];
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let num_rows = (BATCH_TOKENS / texts[longest].len()).clamp(1, rest.len());
        let (batch, later) = rest.split_at(num_rows);
        let rows: Vec<&[u32]> = batch.iter().map(|&text| texts[text].as_slice()).collect();
        for (&text, reward) in batch.iter().zip(rewards_of(model, &rows)) {
            rewards[text] = reward;
        }
        rest = later;
    }
    Ok(rewards)
}

fn check(model: &CausalLm, text: usize, ids: &[u32]) -> Result<(), RewardError> {
    let config = model.config();
    let (max_position_embeddings, vocab_size) = (config.max_position_embeddings, config.vocab_size);
    if ids.is_empty() {
        return Err(RewardError::Empty { text });
    }
    if ids.len() > max_position_embeddings {
        return Err(RewardError::TooLong {
            text,
            num_tokens: ids.len(),
            max_position_embeddings,
        });
    }
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(RewardError::UnknownToken {
            text,
            id,
            vocab_size,
        }),
        None => Ok(()),
    }
}

/// Rewards of texts, the longest first.
fn rewards_of(model: &CausalLm, texts: &[&[u32]]) -> Vec<f32> {
    let device = model.embed_tokens.weight.device();
    let len = texts[0].len();
    let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for (row, text) in texts.iter().enumerate() {
        ids.extend(text.iter().map(|&id| id as i32));
        positions.extend(0..text.len() as i32);
        // Padding sees nothing but itself.
        ids.resize((row + 1) * len, 0);
        positions.resize((row + 1) * len, 0);
        last.push((row * len + text.len() - 1) as i32);
    }
    let shape = [texts.len(), len];
    let rows = |values: Vec<i32>| {
        Tensor::<2, Int>::from_data(TensorData::new(values, shape), &device) // [B, T]
    };
    let hidden = model.forward(rows(ids), rows(positions)); // [B, T, D]
    let hidden_size = hidden.dims()[2];
    let last = TensorData::new(last, [texts.len()]);
    let last = hidden
        .reshape([texts.len() * len, hidden_size]) // [B * T, D]
        .select(0, Tensor::<1, Int>::from_data(last, &device)); // [N, D]
    model.scores(last).into_data().iter().collect()
}
