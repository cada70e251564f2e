//! Token ids in, token ids out: prefill and decoding of a batch of prompts with a cache of its own.
//!
//! Axis letters: `B` rows, `T` slots fed in this step, `D` hidden size, `V` vocabulary.
//!
//! Prompts of different lengths are padded on the left. A padding slot has position 0 and sees
//! itself only; a real slot's position is its slot minus the row's padding, so it sees its own
//! row's tokens and no padding.

use std::fmt;
use std::ops::ControlFlow;

use burn::prelude::*;

use crate::causal_lm::CausalLm;
pub use crate::generate_config::{GenerateConfig, GenerateConfigError};
use crate::kv_cache::KvCache;
use crate::sample::{LogitsNotFinite, Sampler};

/// Slots reserved for an answer at first: most answers are far shorter than the longest that is
/// allowed.
const RESERVED_ANSWER_SLOTS: usize = 256;

/// One row's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens to continue, `bos` included where the model expects it.
    pub input_ids: Vec<u32>,
    /// Seed of this row's random numbers: same prompt, seed and settings give the same answer in
    /// any batch.
    pub seed: u64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model wrote a stop id, or the text reached a stop string.
    Stop,
    /// The answer has all tokens it may have, or the model's context is full.
    Length,
    /// The caller ended it.
    Interrupted,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Interrupted => "interrupted",
        })
    }
}

/// One row's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Tokens after the prompt, with the stop id that ended them if one did.
    pub token_ids: Vec<u32>,
    /// Why there are no more.
    pub finish_reason: FinishReason,
}

/// Why nothing, or nothing more, can be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A setting is outside its range.
    #[error(transparent)]
    Config(#[from] GenerateConfigError),
    /// A model continues tokens; it cannot begin.
    #[error("prompt {row} is empty, expected at least one token such as bos")]
    EmptyPrompt {
        /// Which prompt of the batch, from 0.
        row: usize,
    },
    /// A prompt leaves no room for an answer.
    #[error(
        "prompt {row} has {num_tokens} tokens, expected fewer than \
         max_position_embeddings = {max_position_embeddings}"
    )]
    PromptTooLong {
        /// Which prompt of the batch, from 0.
        row: usize,
        /// Length of the prompt.
        num_tokens: usize,
        /// Tokens that the model can read.
        max_position_embeddings: usize,
    },
    /// A prompt comes from a tokenizer with more tokens than the model.
    #[error("prompt {row} holds token id {id}, expected ids below vocab_size = {vocab_size}")]
    UnknownToken {
        /// Which prompt of the batch, from 0.
        row: usize,
        /// The id.
        id: u32,
        /// Number of ids that the model knows.
        vocab_size: usize,
    },
    /// The weights, not the caller, are broken.
    #[error("prompt {row}, token {num_new_tokens} of the answer: no token can be chosen")]
    NotFinite {
        /// Which prompt of the batch, from 0.
        row: usize,
        /// Tokens that were written before.
        num_new_tokens: usize,
        /// What the logits hold.
        source: LogitsNotFinite,
    },
}

/// Answers to a batch of prompts, decoded together.
///
/// `on_token` hears of every token of every row as it is chosen, and may end that row, with this
/// reason unless the token has ended it already. A model
/// that is being trained is passed as `model.valid()`, so that decoding records no gradients.
///
/// # Errors
///
/// A setting or a prompt that cannot be used, or logits that are not finite.
pub fn generate(
    model: &CausalLm,
    prompts: &[Prompt],
    config: &GenerateConfig,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<FinishReason>,
) -> Result<Vec<Completion>, GenerateError> {
    let mut decoder = Decoder::new(model, prompts, config)?;
    while !decoder.is_finished() {
        for (row, token_id) in decoder.step()? {
            if let ControlFlow::Break(reason) = on_token(row, token_id) {
                decoder.rows[row].finish_reason.get_or_insert(reason);
            }
        }
    }
    Ok(decoder.into_completions())
}

/// The tokens of one answer as they are chosen, the stop id included; dropping it stops the work.
#[derive(Debug)]
pub struct TokenStream<'a> {
    decoder: Decoder<'a>,
}

impl<'a> TokenStream<'a> {
    /// Prepares an answer; the prompt is read when the first token is asked for.
    ///
    /// # Errors
    ///
    /// A setting or a prompt that cannot be used.
    pub fn new(
        model: &'a CausalLm,
        prompt: Prompt,
        config: &GenerateConfig,
    ) -> Result<Self, GenerateError> {
        Ok(Self {
            decoder: Decoder::new(model, &[prompt], config)?,
        })
    }

    /// Why the stream ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.decoder.rows[0].finish_reason
    }

    /// Ends the stream with this reason, unless it has ended.
    pub fn finish(&mut self, reason: FinishReason) {
        self.decoder.rows[0].finish_reason.get_or_insert(reason);
    }
}

impl Iterator for TokenStream<'_> {
    type Item = Result<u32, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_finished() {
            return None;
        }
        match self.decoder.step() {
            Ok(chosen) => chosen.first().map(|&(_, token_id)| Ok(token_id)),
            Err(error) => {
                self.finish(FinishReason::Interrupted);
                Some(Err(error))
            }
        }
    }
}

/// A batch in the middle of being decoded.
#[derive(Debug)]
struct Decoder<'a> {
    model: &'a CausalLm,
    eos_token_id: Vec<u32>,
    cache: KvCache,
    rows: Vec<Row>,
    /// Slots that the longest prompt fills; shorter ones are padded to it.
    num_prompt_slots: usize,
}

/// One row of the batch.
#[derive(Debug)]
struct Row {
    prompt_ids: Vec<u32>,
    answer_ids: Vec<u32>,
    /// Tokens the answer may have: the caller's limit or what is left of the context.
    max_new_tokens: usize,
    sampler: Sampler,
    finish_reason: Option<FinishReason>,
}

impl<'a> Decoder<'a> {
    fn new(
        model: &'a CausalLm,
        prompts: &[Prompt],
        config: &GenerateConfig,
    ) -> Result<Self, GenerateError> {
        config.validate()?;
        let rows = prompts
            .iter()
            .enumerate()
            .map(|(row, prompt)| Row::new(model, row, prompt, config))
            .collect::<Result<Vec<Row>, GenerateError>>()?;
        let num_prompt_slots = rows
            .iter()
            .map(|row| row.prompt_ids.len())
            .max()
            .unwrap_or(0);
        let longest_answer = rows.iter().map(|row| row.max_new_tokens).max().unwrap_or(0);
        let capacity = num_prompt_slots + longest_answer.min(RESERVED_ANSWER_SLOTS);
        let device = model.embed_tokens.weight.device();
        Ok(Self {
            model,
            eos_token_id: config.eos_token_id.clone(),
            cache: KvCache::new(model.config(), rows.len(), capacity, &device),
            rows,
            num_prompt_slots,
        })
    }

    fn is_finished(&self) -> bool {
        self.rows.iter().all(|row| row.finish_reason.is_some())
    }

    /// Chooses the next token of every row that is not finished: `(row, token id)`.
    fn step(&mut self) -> Result<Vec<(usize, u32)>, GenerateError> {
        let mut logits = self.next_logits();
        let vocab_size = self.model.config().vocab_size;
        let mut chosen = Vec::with_capacity(self.rows.len());
        for (number, (row, logits)) in self
            .rows
            .iter_mut()
            .zip(logits.chunks_exact_mut(vocab_size))
            .enumerate()
        {
            if row.finish_reason.is_some() {
                continue;
            }
            let num_new_tokens = row.answer_ids.len();
            let token_id =
                row.sampler
                    .sample(logits)
                    .map_err(|source| GenerateError::NotFinite {
                        row: number,
                        num_new_tokens,
                        source,
                    })?;
            row.push(token_id, &self.eos_token_id);
            chosen.push((number, token_id));
        }
        Ok(chosen)
    }

    /// Feeds the prompts at first and the last tokens after that; returns `V` logits per row.
    fn next_logits(&mut self) -> Vec<f32> {
        let first_slot = self.cache.num_slots();
        let num_slots = if first_slot == 0 {
            self.num_prompt_slots
        } else {
            1
        };
        let slots = first_slot..first_slot + num_slots;
        let mut input_ids = Vec::with_capacity(self.rows.len() * num_slots);
        let mut positions = Vec::with_capacity(self.rows.len() * num_slots);
        for row in &self.rows {
            let num_padding = self.num_prompt_slots - row.prompt_ids.len();
            input_ids.extend(slots.clone().map(|slot| row.token_at(slot, num_padding)));
            positions.extend(slots.clone().map(|slot| row.position_at(slot, num_padding)));
        }

        let device = self.model.embed_tokens.weight.device();
        let shape = [self.rows.len(), num_slots];
        let input_ids = Tensor::<2, Int>::from_data(TensorData::new(input_ids, shape), &device);
        let positions = Tensor::<2, Int>::from_data(TensorData::new(positions, shape), &device);
        let hidden = self
            .model
            .forward_cached(input_ids, positions, &mut self.cache); // [B, T, D]
        let [batch, len, hidden_size] = hidden.dims();
        let last = hidden.slice([0..batch, len - 1..len, 0..hidden_size]); // [B, 1, D]
        self.model
            .logits(last) // [B, 1, V]
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .expect("the data was converted to f32")
    }

    fn into_completions(self) -> Vec<Completion> {
        self.rows
            .into_iter()
            .map(|row| Completion {
                token_ids: row.answer_ids,
                finish_reason: row.finish_reason.expect("decoding ends when every row has"),
            })
            .collect()
    }
}

impl Row {
    fn new(
        model: &CausalLm,
        row: usize,
        prompt: &Prompt,
        config: &GenerateConfig,
    ) -> Result<Self, GenerateError> {
        let vocab_size = model.config().vocab_size;
        let max_position_embeddings = model.config().max_position_embeddings;
        let num_tokens = prompt.input_ids.len();
        if num_tokens == 0 {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if num_tokens >= max_position_embeddings {
            return Err(GenerateError::PromptTooLong {
                row,
                num_tokens,
                max_position_embeddings,
            });
        }
        if let Some(&id) = prompt
            .input_ids
            .iter()
            .find(|&&id| id as usize >= vocab_size)
        {
            return Err(GenerateError::UnknownToken {
                row,
                id,
                vocab_size,
            });
        }
        Ok(Self {
            prompt_ids: prompt.input_ids.clone(),
            answer_ids: Vec::new(),
            max_new_tokens: config
                .max_new_tokens
                .min(max_position_embeddings - num_tokens),
            sampler: Sampler::new(config, &prompt.input_ids, prompt.seed),
            finish_reason: None,
        })
    }

    fn push(&mut self, token_id: u32, eos_token_id: &[u32]) {
        self.answer_ids.push(token_id);
        if eos_token_id.contains(&token_id) {
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.answer_ids.len() >= self.max_new_tokens {
            self.finish_reason = Some(FinishReason::Length);
        }
    }

    /// The id in a slot. Padding and the slots behind a finished answer hold an id that nothing
    /// reads.
    fn token_at(&self, slot: usize, num_padding: usize) -> i32 {
        let Some(index) = slot.checked_sub(num_padding) else {
            return 0;
        };
        let id = match index.checked_sub(self.prompt_ids.len()) {
            None => self.prompt_ids.get(index),
            Some(index) => self.answer_ids.get(index),
        };
        id.map_or(0, |&id| id as i32)
    }

    fn position_at(&self, slot: usize, num_padding: usize) -> i32 {
        if self.finish_reason.is_some() {
            // The row's own positions would run past the model's tables while other rows go on.
            return 0;
        }
        slot.saturating_sub(num_padding) as i32
    }
}
