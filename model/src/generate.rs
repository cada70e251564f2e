//! Token ids in, token ids out: whole answers to some prompts, or one answer token by token, each
//! with a [batch](crate::batch) of its own.

use std::fmt;
use std::ops::ControlFlow;

use crate::batch::{Batch, BatchLimits, Event, Request, RequestId};
use crate::causal_lm::CausalLm;
pub use crate::generate_config::{GenerateConfig, GenerateConfigError};
use crate::sample::LogitsNotFinite;

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
    config.validate()?;
    let mut batch = Batch::new(model, BatchLimits::default());
    for prompt in prompts {
        batch.submit(Request::new(prompt.clone(), config))?;
    }
    let mut completions = vec![
        Completion {
            token_ids: Vec::new(),
            finish_reason: FinishReason::Interrupted,
        };
        prompts.len()
    ];
    while batch.num_requests() > 0 {
        // Requests of a fresh batch are numbered like the prompts.
        for (row, event) in batch.step() {
            match event {
                Event::Token { token_id, .. } => {
                    completions[row].token_ids.push(token_id);
                    if let ControlFlow::Break(reason) = on_token(row, token_id) {
                        batch.cancel(row);
                        completions[row].finish_reason = reason;
                    }
                }
                Event::Finished(reason) => completions[row].finish_reason = reason,
                Event::Failed(error) => return Err(error),
                Event::Prompt(_) => {}
            }
        }
    }
    Ok(completions)
}

/// The tokens of one answer as they are chosen, the stop id included; dropping it stops the work.
#[derive(Debug)]
pub struct TokenStream<'a> {
    batch: Batch<'a>,
    id: RequestId,
    finish_reason: Option<FinishReason>,
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
        let mut batch = Batch::new(model, BatchLimits::default());
        let id = batch.submit(Request::new(prompt, config))?;
        Ok(Self {
            batch,
            id,
            finish_reason: None,
        })
    }

    /// Why the stream ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Ends the stream with this reason, unless it has ended.
    pub fn finish(&mut self, reason: FinishReason) {
        self.batch.cancel(self.id);
        self.finish_reason.get_or_insert(reason);
    }
}

impl Iterator for TokenStream<'_> {
    type Item = Result<u32, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next = None;
        while next.is_none() && self.finish_reason.is_none() {
            for (_, event) in self.batch.step() {
                match event {
                    Event::Token { token_id, .. } => next = Some(Ok(token_id)),
                    Event::Finished(reason) => self.finish_reason = Some(reason),
                    Event::Failed(error) => {
                        self.finish_reason = Some(FinishReason::Interrupted);
                        next = Some(Err(error));
                    }
                    Event::Prompt(_) => {}
                }
            }
        }
        next
    }
}
