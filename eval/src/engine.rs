//! A finished model with its tokenizer: text in, text out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::prelude::Device;
use dataset::tokenizer::{Tokenizer, TokenizerError};
use model::causal_lm::CausalLm;
use model::generate::{
    Completion, FinishReason, GenerateConfig, GenerateConfigError, GenerateError, Prompt, generate,
};
use model::hf::{HfError, load_model};
use model::training_record::{TrainingRecord, TrainingRecordError};

use crate::text_stream::{AnswerText, TextStream};

/// Longest answer where neither the caller nor the folder says otherwise.
const DEFAULT_MAX_NEW_TOKENS: usize = 512;

/// A model, its tokenizer, and how it is asked where the caller does not say.
#[derive(Debug)]
pub struct Engine {
    /// Weights and shape.
    pub model: CausalLm,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Settings of an answer, for callers to start from.
    pub defaults: AnswerConfig,
    /// What the folder says of the model's training; absent in folders of other programs.
    pub record: Option<TrainingRecord>,
}

/// How an answer is written and where it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerConfig {
    /// Lengths, stop ids and sampling.
    pub generate: GenerateConfig,
    /// Texts that end the answer and are no part of it.
    pub stop_strings: Vec<String>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text, without stop strings and special tokens.
    pub text: String,
    /// Tokens the model wrote for it, the stop id included.
    pub num_tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Why a model folder cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The weights or their config.
    #[error(transparent)]
    Model(#[from] HfError),
    /// The tokenizer's files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The folder's `generation_config.json`.
    #[error(transparent)]
    Generation(#[from] GenerateConfigError),
    /// The folder's `training.json`.
    #[error(transparent)]
    Record(#[from] TrainingRecordError),
    /// The model has no embedding for some of the tokenizer's ids.
    #[error(
        "{}: the tokenizer has {num_tokens} tokens, expected at most the model's \
         vocab_size = {vocab_size}",
        dir.display()
    )]
    VocabularyTooLarge {
        /// The model folder.
        dir: PathBuf,
        /// Size of the tokenizer's vocabulary.
        num_tokens: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
}

impl Engine {
    /// The model of a folder with `config.json`, weights and tokenizer files.
    ///
    /// An answer's defaults are MiniMind's sampling with the folder's `generation_config.json` over
    /// it.
    ///
    /// # Errors
    ///
    /// A file that is missing or broken, or a tokenizer that the model is too small for.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, EngineError> {
        let tokenizer = Tokenizer::load(dir)?;
        let model = load_model(dir, device)?;
        let (num_tokens, vocab_size) = (tokenizer.vocab_size(), model.config().vocab_size);
        if num_tokens > vocab_size {
            let dir = dir.to_owned();
            return Err(EngineError::VocabularyTooLarge {
                dir,
                num_tokens,
                vocab_size,
            });
        }
        let mut engine = Self::new(model, tokenizer);
        engine.defaults.generate = engine.defaults.generate.overlaid_by(dir)?;
        engine.record = TrainingRecord::load(dir)?;
        Ok(engine)
    }

    /// A model that is in memory; its config says which ids end an answer, else its tokenizer does.
    pub fn new(model: CausalLm, tokenizer: Tokenizer) -> Self {
        let mut generate = GenerateConfig::minimind(DEFAULT_MAX_NEW_TOKENS);
        generate
            .eos_token_id
            .clone_from(&model.config().eos_token_id);
        if generate.eos_token_id.is_empty() {
            generate.eos_token_id.extend(tokenizer.eos_id());
        }
        let defaults = AnswerConfig {
            generate,
            stop_strings: Vec::new(),
        };
        Self {
            model,
            tokenizer,
            defaults,
            record: None,
        }
    }

    /// The text of one answer as it is written.
    ///
    /// # Errors
    ///
    /// A setting or a prompt that cannot be used.
    pub fn stream(
        &self,
        prompt: Prompt,
        config: &AnswerConfig,
    ) -> Result<TextStream<'_>, GenerateError> {
        TextStream::new(self, prompt, config)
    }

    /// Whole answers to several prompts, decoded together; each is what its prompt would get alone.
    ///
    /// # Errors
    ///
    /// A setting or a prompt that cannot be used, or a model whose logits are not finite.
    pub fn answer_all(
        &self,
        prompts: &[Prompt],
        config: &AnswerConfig,
    ) -> Result<Vec<Answer>, GenerateError> {
        let mut texts: Vec<(AnswerText<'_>, String)> = prompts
            .iter()
            .map(|_| (AnswerText::new(&self.tokenizer, config), String::new()))
            .collect();
        let completions = generate(&self.model, prompts, &config.generate, |row, token_id| {
            let (answer, text) = &mut texts[row];
            text.push_str(&answer.push(token_id));
            if answer.has_stopped() {
                ControlFlow::Break(FinishReason::Stop)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let answers = completions.into_iter().zip(texts);
        Ok(answers
            .map(|(completion, (answer, text))| whole_answer(&completion, answer, text))
            .collect())
    }
}

fn whole_answer(completion: &Completion, mut answer: AnswerText<'_>, mut text: String) -> Answer {
    text.push_str(&answer.finish());
    // A stop string may end in the very token that was the last one allowed.
    let finish_reason = if answer.has_stopped() {
        FinishReason::Stop
    } else {
        completion.finish_reason
    };
    Answer {
        text,
        num_tokens: completion.token_ids.len(),
        finish_reason,
    }
}
