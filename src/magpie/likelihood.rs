//! Mean log-probability of an answer as its reward: how sure a model is of it, per token.

use std::path::Path;

use anyhow::{Context, Result};
use burn::prelude::Device;
use dataset::chat::{ChatTemplate, Message, RenderOptions};
use dataset::magpie::completer::{CompleterError, Usage};
use dataset::magpie::reward::{Answered, Reward};
use eval::engine::Engine;
use eval::fingerprint::model_fingerprint;
use eval::score::{ScoreRequest, score};

use crate::engine::load_folder;

/// What runs it, for messages.
const ENGINE: &str = "kindling";

/// A chat model that weighs answers by their likelihood.
#[derive(Debug)]
pub struct Likelihood {
    engine: Engine,
    template: ChatTemplate,
    name: String,
    fingerprint: String,
}

impl Likelihood {
    /// Loads the folder of a chat model.
    ///
    /// # Errors
    ///
    /// A folder that cannot be loaded, or whose tokenizer has no chat template.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let engine = load_folder(dir, device)?;
        let template = engine.tokenizer.chat_template().cloned();
        let template = template
            .with_context(|| format!("{}: the tokenizer has no chat template", dir.display()))?;
        Ok(Self {
            engine,
            template,
            name: format!("likelihood of {}", dir.display()),
            fingerprint: format!("likelihood of {}", model_fingerprint(dir)?),
        })
    }

    /// The prompt, and the answer with what ends it: a model is sure of an answer when it is sure
    /// that it is all.
    fn request(&self, answer: &Answered<'_>) -> Result<ScoreRequest, CompleterError> {
        let question = Message::new("user", answer.instruction);
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let tokenizer = &self.engine.tokenizer;
        let prompt = self.template.render_prompt(&[question], &options)?;
        let mut ids = tokenizer.encode_ordinary(answer.response);
        ids.extend(tokenizer.eos_id());
        Ok(ScoreRequest {
            prompt: tokenizer.encode_spans(&[prompt]).ids,
            continuations: vec![ids],
        })
    }
}

impl Reward for Likelihood {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn score(&self, answers: &[Answered<'_>]) -> Result<(Vec<Option<f64>>, Usage), CompleterError> {
        let mut usage = Usage::default();
        let context = self.engine.model.config().max_position_embeddings;
        let mut rewards = Vec::with_capacity(answers.len());
        for answer in answers {
            let request = self.request(answer)?;
            let len = request.continuations[0].len();
            // What the model cannot read as a whole it cannot weigh.
            if len == 0 || request.prompt.len() + len > context {
                rewards.push(None);
                continue;
            }
            usage.prompt_tokens += (request.prompt.len() + len) as u64;
            // One at a time: an answer's number must not depend on the padding beside others.
            let scores = score(&self.engine.model, &[request]);
            let scores = scores.map_err(|source| CompleterError::Engine {
                engine: ENGINE,
                source: Box::new(source),
            })?;
            rewards.push(Some(scores[0].logps[0] / len as f64));
        }
        Ok((rewards, usage))
    }
}
