//! Answers to many requests at once, as text: requests join and leave between two tokens.

use std::collections::BTreeMap;

use model::batch::{Adjust, Batch, BatchLimits, Event, Request, RequestId};
use model::generate::{FinishReason, GenerateError, Prompt};
use model::logprobs::TokenLogprobs;

use crate::engine::{AnswerConfig, Engine};
use crate::json_object::JsonObject;
use crate::text_stream::AnswerText;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct AnswerRequest {
    /// Tokens to continue, and the seed.
    pub prompt: Prompt,
    /// Lengths, sampling and stop strings.
    pub config: AnswerConfig,
    /// Added to the logits of some ids before everything else, in nats.
    pub logit_bias: BTreeMap<u32, f32>,
    /// What is changed about the choice of the first token.
    pub first_token: FirstTokenChange,
    /// The answer is to be one JSON object: tokens that cannot come next are ruled out.
    pub as_json_object: bool,
    /// Report every token's log-probability, and those of this many likeliest ones beside it.
    pub num_top_logprobs: Option<usize>,
    /// Report those of the prompt's tokens too.
    pub with_prompt_logprobs: bool,
}

/// A change of the first token's distribution, before penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstTokenChange {
    /// Divides the logits; above 1 it makes the first token more various.
    pub divisor: f32,
    /// Ids that cannot come first.
    pub suppressed: Vec<u32>,
}

impl Default for FirstTokenChange {
    /// No change.
    fn default() -> Self {
        Self {
            divisor: 1.0,
            suppressed: Vec::new(),
        }
    }
}

/// What happens to an answer.
#[derive(Debug)]
pub enum AnswerEvent {
    /// Log-probabilities of the prompt's second token and on, if they were asked for.
    Prompt(Vec<TokenLogprobs>),
    /// A token was written.
    Token {
        /// The token, a stop id included.
        token_id: u32,
        /// The text that is certain now; often empty.
        text: String,
        /// The token's log-probabilities, if they were asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The answer has ended.
    Finished {
        /// Text that was held back.
        text: String,
        /// Why it ended.
        finish_reason: FinishReason,
    },
    /// Nothing more can be said.
    Failed(GenerateError),
}

/// Requests to one engine that are answered together.
#[derive(Debug)]
pub struct Answers<'a> {
    engine: &'a Engine,
    batch: Batch<'a>,
    rows: BTreeMap<RequestId, Row<'a>>,
    /// Bytes of every token; made when the first JSON object is asked for.
    token_bytes: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Row<'a> {
    text: AnswerText<'a>,
    eos_token_id: Vec<u32>,
    logit_bias: BTreeMap<u32, f32>,
    /// Absent where nothing is changed; gone with the first token.
    first_token: Option<FirstTokenChange>,
    object: Option<JsonObject>,
}

impl<'a> Answers<'a> {
    /// No requests yet.
    pub fn new(engine: &'a Engine, limits: BatchLimits) -> Self {
        Self {
            engine,
            batch: Batch::new(&engine.model, limits),
            rows: BTreeMap::new(),
            token_bytes: Vec::new(),
        }
    }

    /// Takes a request; it is answered from the next step on, or when a row is free.
    ///
    /// # Errors
    ///
    /// A setting or a prompt that cannot be used.
    pub fn submit(&mut self, request: AnswerRequest) -> Result<RequestId, GenerateError> {
        let AnswerRequest {
            prompt,
            config,
            logit_bias,
            first_token,
            as_json_object,
            num_top_logprobs,
            with_prompt_logprobs,
        } = request;
        if as_json_object && self.token_bytes.is_empty() {
            self.token_bytes = self.engine.tokenizer.token_bytes();
        }
        let row = Row {
            text: AnswerText::new(&self.engine.tokenizer, &config),
            eos_token_id: config.generate.eos_token_id.clone(),
            logit_bias,
            first_token: (first_token != FirstTokenChange::default()).then_some(first_token),
            object: as_json_object.then(JsonObject::default),
        };
        let id = self.batch.submit(Request {
            prompt,
            config: config.generate,
            num_top_logprobs,
            with_prompt_logprobs,
            score_temperature: None,
        })?;
        self.rows.insert(id, row);
        Ok(id)
    }

    /// Forgets a request.
    pub fn cancel(&mut self, id: RequestId) {
        self.batch.cancel(id);
        self.rows.remove(&id);
    }

    /// Requests that are neither finished nor forgotten.
    pub fn num_requests(&self) -> usize {
        self.batch.num_requests()
    }

    /// Tokens of prompts that were taken from the prefix cache rather than read.
    pub fn num_reused_tokens(&self) -> u64 {
        self.batch.num_reused_tokens()
    }

    /// One token for every request that is being answered; what happened, in order.
    pub fn step(&mut self) -> Vec<(RequestId, AnswerEvent)> {
        let (rows, token_bytes) = (&self.rows, &self.token_bytes);
        let happened = self.batch.step_with(&mut Adjust {
            concerns: &|id| rows.get(&id).is_some_and(Row::adjusts),
            change: &mut |id, logits| rows[&id].adjust(logits, token_bytes),
        });
        let mut events = Vec::with_capacity(happened.len());
        for (id, event) in happened {
            // A stop string has ended the answer; what the model says of it does not count.
            let Some(row) = self.rows.get_mut(&id) else {
                continue;
            };
            let (event, reason) = match event {
                Event::Prompt(logprobs) => (AnswerEvent::Prompt(logprobs), None),
                Event::Failed(error) => {
                    self.rows.remove(&id);
                    (AnswerEvent::Failed(error), None)
                }
                Event::Finished(reason) => {
                    events.push((id, row.finished(reason)));
                    self.rows.remove(&id);
                    continue;
                }
                Event::Token {
                    token_id, logprobs, ..
                } => {
                    let text = row.push(token_id, &self.token_bytes);
                    let event = AnswerEvent::Token {
                        token_id,
                        text,
                        logprobs,
                    };
                    (event, row.has_stopped().then_some(FinishReason::Stop))
                }
            };
            events.push((id, event));
            if let (Some(reason), Some(mut row)) = (reason, self.take_stopped(id)) {
                events.push((id, row.finished(reason)));
            }
        }
        events
    }

    fn take_stopped(&mut self, id: RequestId) -> Option<Row<'a>> {
        let has_stopped = self.rows.get(&id).is_some_and(Row::has_stopped);
        if !has_stopped {
            return None;
        }
        self.batch.cancel(id);
        self.rows.remove(&id)
    }
}

impl Row<'_> {
    /// Whether the next choice is changed.
    fn adjusts(&self) -> bool {
        self.first_token.is_some() || !self.logit_bias.is_empty() || self.object.is_some()
    }

    fn adjust(&self, logits: &mut [f32], token_bytes: &[Vec<u8>]) {
        if let Some(FirstTokenChange {
            divisor,
            suppressed,
        }) = &self.first_token
        {
            for logit in logits.iter_mut() {
                *logit /= divisor;
            }
            for &id in suppressed {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        for (&id, bias) in &self.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        let Some(object) = self.object else {
            return;
        };
        for (id, logit) in logits.iter_mut().enumerate() {
            let bytes = token_bytes.get(id).map_or(&[][..], Vec::as_slice);
            if bytes.is_empty() || object.after(bytes).is_none() {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn push(&mut self, token_id: u32, token_bytes: &[Vec<u8>]) -> String {
        self.first_token = None;
        if let Some(object) = self.object
            && let Some(bytes) = token_bytes.get(token_id as usize)
            && !self.eos_token_id.contains(&token_id)
        {
            self.object = object.after(bytes);
        }
        self.text.push(token_id)
    }

    /// Whether the text has ended, whatever the model would go on to say.
    fn has_stopped(&self) -> bool {
        self.text.has_stopped() || self.object.is_some_and(JsonObject::is_done)
    }

    fn finished(&mut self, finish_reason: FinishReason) -> AnswerEvent {
        let text = self.text.finish();
        // A stop string may end in the very token that was the last one allowed.
        let finish_reason = if self.text.has_stopped() {
            FinishReason::Stop
        } else {
            finish_reason
        };
        AnswerEvent::Finished {
            text,
            finish_reason,
        }
    }
}
