//! What a batch is asked, and what it tells.

use std::fmt;

use crate::generate::{FinishReason, GenerateConfig, GenerateError, Prompt};
use crate::logprobs::{TokenLogprobs, TokenScore};

/// Names a request of one batch; numbers count up from 0 in the order of submission.
pub type RequestId = usize;

/// What is asked of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Tokens to continue, and the seed.
    pub prompt: Prompt,
    /// Lengths, stop ids and sampling.
    pub config: GenerateConfig,
    /// Report every token's log-probability, and those of this many likeliest ones beside it.
    pub num_top_logprobs: Option<usize>,
    /// Report those of the prompt's tokens too.
    pub with_prompt_logprobs: bool,
    /// Report every token's score at this temperature, which is above 0.
    pub score_temperature: Option<f64>,
}

impl Request {
    /// A request for the tokens alone.
    pub fn new(prompt: Prompt, config: &GenerateConfig) -> Self {
        Self {
            prompt,
            config: config.clone(),
            num_top_logprobs: None,
            with_prompt_logprobs: false,
            score_temperature: None,
        }
    }
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// The prompt was read: log-probabilities of its second token and on, if they were asked for.
    Prompt(Vec<TokenLogprobs>),
    /// A token was chosen, a stop id included.
    Token {
        /// The token.
        token_id: u32,
        /// Under the model's own distribution, before penalties and temperature; if asked for.
        logprobs: Option<TokenLogprobs>,
        /// Before penalties and filters; if asked for.
        score: Option<TokenScore>,
    },
    /// There are no more tokens.
    Finished(FinishReason),
    /// Nothing more can be said; other requests go on.
    Failed(GenerateError),
}

/// A caller's say in the choice of tokens.
pub struct Adjust<'f> {
    /// Whether a request's logits are to be changed. On a graphics card the others' stay there.
    pub concerns: &'f dyn Fn(RequestId) -> bool,
    /// What is done to them.
    pub change: &'f mut dyn FnMut(RequestId, &mut [f32]),
}

impl fmt::Debug for Adjust<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Adjust").finish_non_exhaustive()
    }
}

/// How much a batch may hold and do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows decoded together; further requests wait.
    pub max_rows: usize,
    /// Prompt pieces read between two tokens of the rows that are being decoded.
    pub pieces_per_step: usize,
    /// Tokens of prompts whose keys and values are kept for prompts that begin alike; 0 is off.
    pub max_cached_tokens: usize,
}

impl Default for BatchLimits {
    /// No limits and nothing kept.
    fn default() -> Self {
        Self {
            max_rows: usize::MAX,
            pieces_per_step: usize::MAX,
            max_cached_tokens: 0,
        }
    }
}
