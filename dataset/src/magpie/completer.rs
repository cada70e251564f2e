//! What a model is asked for and what it gives, whoever runs it.

use std::error::Error;

use serde::{Deserialize, Serialize};

use super::families::TemplateError;
use crate::chat::{ChatError, Message};

/// Whose turn a model is to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// The user's, after these turns: with none, the model asks whatever comes to it.
    UserTurn(Vec<Message>),
    /// The assistant's, after these turns.
    AssistantTurn(Vec<Message>),
}

/// One thing that a model is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// Whose turn, after what.
    pub ask: Ask,
    /// Seed of this request's own stream of draws.
    pub seed: u64,
}

/// How texts are drawn and where they end.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from the smallest set of likeliest tokens with at least this probability; 1 is off.
    pub top_p: f64,
    /// Makes tokens that came already less likely when above 1; 1 is off.
    pub repetition_penalty: f64,
    /// Tokens of a text at most.
    pub max_tokens: usize,
    /// Texts that end what is written and are no part of it.
    pub stop: Vec<String>,
    /// What is changed about the first token.
    pub first_token: FirstToken,
    /// The text is to be one JSON object.
    pub as_json_object: bool,
}

/// What is changed about the choice of the first token of an instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstToken {
    /// Nothing.
    #[default]
    Plain,
    /// It is no Markdown heading: `#` to `####` are ruled out.
    NoMarkdown,
    /// Its logits are divided by 1.2 before everything else.
    Flaming,
}

impl FirstToken {
    /// What the logits of the first token are divided by, besides the temperature.
    pub fn divisor(self) -> f32 {
        if self == Self::Flaming { 1.2 } else { 1.0 }
    }

    /// Texts of the tokens that may not come first.
    pub fn suppressed(self) -> &'static [&'static str] {
        if self == Self::NoMarkdown {
            &["#", "##", "###", "####"]
        } else {
            &[]
        }
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// By itself, or at a stop text.
    Stop,
    /// At the limit of its length.
    Length,
}

/// A text and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The text, without stop texts and special tokens.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens that were read and written.
    pub usage: Usage,
}

/// Tokens that requests cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// Why one request has no text; others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {num_tokens} tokens, expected fewer than {limit}")]
    TooLong {
        /// Tokens of the prompt.
        num_tokens: usize,
        /// Tokens that the model can read.
        limit: usize,
    },
    /// The endpoint does not accept the request.
    #[error("the endpoint refused with status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

/// Why a model cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum CompleterError {
    /// The model cannot do what is asked for.
    #[error("{engine} cannot {what}, expected {expected}")]
    Unsupported {
        /// Which engine.
        engine: &'static str,
        /// What was asked for.
        what: &'static str,
        /// What to ask for instead.
        expected: &'static str,
    },
    /// The turns cannot be written down in the model's own form.
    #[error(transparent)]
    Family(#[from] TemplateError),
    /// The model's own template refuses them.
    #[error(transparent)]
    Template(#[from] ChatError),
    /// The engine broke off.
    #[error("{engine} broke off")]
    Engine {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A model that can be asked.
pub trait Completer {
    /// The model's name, for records.
    fn name(&self) -> &str;

    /// What its texts depend on, its weights above all: a step goes on only with the same.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// What runs it, for records: `kindling`, `completions` or `chat`.
    fn engine(&self) -> &'static str;

    /// The text that the model reads for this ask; `None` where somebody else renders it.
    ///
    /// # Errors
    ///
    /// Turns that the model's form has no place for.
    fn prompt_text(&self, ask: &Ask) -> Result<Option<String>, CompleterError>;

    /// Special tokens that end a turn, as texts.
    fn stop_tokens(&self) -> Vec<String>;

    /// One text or fault per request, in their order. A request's text does not depend on which
    /// others are asked with it.
    ///
    /// # Errors
    ///
    /// A model that cannot be asked at all.
    fn complete(
        &self,
        requests: &[CompletionRequest],
        sampling: &Sampling,
    ) -> Result<Vec<Result<Completion, Fault>>, CompleterError>;
}
