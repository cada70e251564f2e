//! Our own model as the one that is asked: many requests in one batch, each with a seed of its own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use burn::prelude::Device;
use dataset::chat::{ChatTemplate, RenderOptions, Span};
use dataset::magpie::completer::{
    Ask, Completer, CompleterError, Completion, CompletionRequest, Fault, Finish, FirstToken,
    Sampling, Usage,
};
use eval::answers::{AnswerEvent, AnswerRequest, Answers, FirstTokenChange};
use eval::engine::{AnswerConfig, Engine};
use eval::fingerprint::model_fingerprint;
use model::batch::{BatchLimits, RequestId};
use model::generate::{FinishReason, GenerateConfig, GenerateError, Prompt};

use crate::engine::load_folder;

/// What runs it, for records and messages.
const ENGINE: &str = "kindling";

/// Tokens of prompts whose keys and values are kept: pre-query templates are the same every time.
const MAX_CACHED_TOKENS: usize = 4096;

/// A model folder that can be asked for users' turns and answers.
#[derive(Debug)]
pub struct OwnModel {
    engine: Engine,
    template: ChatTemplate,
    name: String,
    fingerprint: String,
    limits: BatchLimits,
}

impl OwnModel {
    /// Loads a folder; up to `batch_size` texts are written at once.
    ///
    /// # Errors
    ///
    /// A folder that cannot be loaded, or whose tokenizer has no chat template.
    pub fn load(dir: &Path, batch_size: usize, device: &Device) -> Result<Self> {
        let engine = load_folder(dir, device)?;
        let template = engine.tokenizer.chat_template().cloned();
        let template = template.with_context(|| {
            let dir = dir.display();
            format!(
                "{dir}: the tokenizer has no chat template, expected one that opens a user's turn"
            )
        })?;
        Ok(Self {
            engine,
            template,
            name: dir.display().to_string(),
            fingerprint: model_fingerprint(dir)?,
            limits: BatchLimits {
                max_rows: batch_size,
                max_cached_tokens: MAX_CACHED_TOKENS,
                ..BatchLimits::default()
            },
        })
    }

    fn span(&self, ask: &Ask) -> Result<Span, CompleterError> {
        Ok(match ask {
            Ask::UserTurn(messages) => self.template.render_user_turn(messages)?,
            Ask::AssistantTurn(messages) => {
                let options = RenderOptions {
                    add_generation_prompt: true,
                    ..RenderOptions::default()
                };
                self.template.render_prompt(messages, &options)?
            }
        })
    }

    fn answer_config(&self, sampling: &Sampling) -> AnswerConfig {
        let tokenizer = &self.engine.tokenizer;
        let special = tokenizer.control_tokens().iter();
        let special = special
            .filter(|token| token.is_special)
            .map(|token| token.id);
        let mut eos_token_id = self.engine.defaults.generate.eos_token_id.clone();
        eos_token_id.extend(special);
        AnswerConfig {
            generate: GenerateConfig {
                do_sample: sampling.temperature > 0.0,
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                repetition_penalty: sampling.repetition_penalty,
                eos_token_id,
                ..GenerateConfig::greedy(sampling.max_tokens)
            },
            stop_strings: sampling.stop.clone(),
        }
    }

    fn first_token_change(&self, first_token: FirstToken) -> FirstTokenChange {
        let texts = first_token.suppressed();
        let bytes = if texts.is_empty() {
            Vec::new()
        } else {
            self.engine.tokenizer.token_bytes()
        };
        let is_suppressed = |bytes: &Vec<u8>| texts.iter().any(|text| text.as_bytes() == bytes);
        let ids = (0..).zip(&bytes).filter(|(_, bytes)| is_suppressed(bytes));
        FirstTokenChange {
            divisor: first_token.divisor(),
            suppressed: ids.map(|(id, _)| id).collect(),
        }
    }
}

/// What is being written for one request.
struct Writing {
    place: usize,
    text: String,
    usage: Usage,
}

impl Completer for OwnModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn engine(&self) -> &'static str {
        ENGINE
    }

    fn prompt_text(&self, ask: &Ask) -> Result<Option<String>, CompleterError> {
        Ok(Some(self.span(ask)?.text))
    }

    fn stop_tokens(&self) -> Vec<String> {
        let tokens = self.engine.tokenizer.control_tokens().iter();
        let special = tokens.filter(|token| token.is_special);
        special.map(|token| token.text.clone()).collect()
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        sampling: &Sampling,
    ) -> Result<Vec<Result<Completion, Fault>>, CompleterError> {
        let config = self.answer_config(sampling);
        let first_token = self.first_token_change(sampling.first_token);
        let mut answers = Answers::new(&self.engine, self.limits);
        let mut writing: BTreeMap<RequestId, Writing> = BTreeMap::new();
        let mut completions: Vec<Option<Result<Completion, Fault>>> = vec![None; requests.len()];
        for (place, request) in requests.iter().enumerate() {
            let span = self.span(&request.ask)?;
            let input_ids = self.engine.tokenizer.encode_spans(&[span]).ids;
            let prompt_tokens = input_ids.len() as u64;
            let submitted = answers.submit(AnswerRequest {
                prompt: Prompt {
                    input_ids,
                    seed: request.seed,
                },
                config: config.clone(),
                logit_bias: BTreeMap::new(),
                first_token: first_token.clone(),
                as_json_object: sampling.as_json_object,
                num_top_logprobs: None,
                with_prompt_logprobs: false,
            });
            match submitted {
                Ok(id) => {
                    let usage = Usage {
                        prompt_tokens,
                        completion_tokens: 0,
                    };
                    let text = String::new();
                    writing.insert(id, Writing { place, text, usage });
                }
                Err(error) => completions[place] = Some(Err(fault_of(error)?)),
            }
        }
        while answers.num_requests() > 0 {
            for (id, event) in answers.step() {
                let Some(row) = writing.get_mut(&id) else {
                    continue;
                };
                match event {
                    AnswerEvent::Prompt(_) => {}
                    AnswerEvent::Token { text, .. } => {
                        row.text += &text;
                        row.usage.completion_tokens += 1;
                    }
                    AnswerEvent::Failed(error) => {
                        completions[row.place] = Some(Err(fault_of(error)?));
                    }
                    AnswerEvent::Finished {
                        text,
                        finish_reason,
                    } => {
                        completions[row.place] = Some(Ok(Completion {
                            text: std::mem::take(&mut row.text) + &text,
                            finish: match finish_reason {
                                FinishReason::Stop => Finish::Stop,
                                FinishReason::Length | FinishReason::Interrupted => Finish::Length,
                            },
                            usage: row.usage,
                        }));
                    }
                }
            }
        }
        let completions = completions.into_iter();
        Ok(completions
            .map(|completion| completion.expect("every request ends"))
            .collect())
    }
}

/// What concerns one request only; anything else ends the step.
fn fault_of(error: GenerateError) -> Result<Fault, CompleterError> {
    match error {
        GenerateError::PromptTooLong {
            num_tokens,
            max_position_embeddings,
            ..
        } => Ok(Fault::TooLong {
            num_tokens,
            limit: max_position_embeddings,
        }),
        error => Err(CompleterError::Engine {
            engine: ENGINE,
            source: Box::new(error),
        }),
    }
}
