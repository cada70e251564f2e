//! What the model in training writes after a prompt.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;
use dataset::{Message, RenderOptions, Tokenizer};
use model::CausalLm;
use model::generate::{GenerateConfig, Prompt, generate};

use crate::config::SamplesSection;
use crate::stage::StageError;

/// What a sample's prompt is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptKind {
    /// The beginning of a document.
    Text,
    /// A user's turn.
    Chat,
}

/// Continues prompts in the way that a stage's config asks for.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) prompt_kind: PromptKind,
    pub(crate) samples: SamplesSection,
    pub(crate) seed: u64,
}

impl Sampler {
    /// Of a model that answers.
    pub(crate) fn of_chat(tokenizer: &Arc<Tokenizer>, samples: &SamplesSection, seed: u64) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            prompt_kind: PromptKind::Chat,
            samples: samples.clone(),
            seed,
        }
    }

    /// Text that the model adds to a prompt.
    pub(crate) fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        let config = GenerateConfig {
            do_sample: self.samples.temperature > 0.0,
            temperature: self.samples.temperature,
            eos_token_id: self.tokenizer.eos_id().into_iter().collect(),
            ..GenerateConfig::greedy(self.samples.max_new_tokens)
        };
        let prompt = Prompt {
            input_ids: self.prompt_ids(prompt)?,
            seed: self.seed,
        };
        let completions = generate(&model.valid(), &[prompt], &config, |_, _| {
            ControlFlow::Continue(())
        })?;
        Ok(completions
            .iter()
            .map(|completion| self.tokenizer.decode(&completion.token_ids, true))
            .collect())
    }

    fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, StageError> {
        let text_ids = || {
            let ids = self.tokenizer.encode_ordinary(prompt);
            self.tokenizer.bos_id().into_iter().chain(ids).collect()
        };
        match (self.prompt_kind, self.tokenizer.chat_template()) {
            (PromptKind::Chat, Some(template)) => {
                let options = RenderOptions {
                    add_generation_prompt: true,
                    ..RenderOptions::default()
                };
                let spans = template
                    .render_spans(&[Message::new("user", prompt)], &options)
                    .map_err(StageError::Prompt)?;
                Ok(self.tokenizer.encode_spans(&spans).ids)
            }
            _ => Ok(text_ids()),
        }
    }
}
