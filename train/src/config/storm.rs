//! `[storm]` and `[data]` of internalising reasoning: how fast it goes away, and from what.

use std::path::PathBuf;

use dataset::rows::RowFormat;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::storm::curriculum::Fade;

/// `[data]` of internalising reasoning: conversations whose last answers were reasoned out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ReasonedDataSection {
    /// Files of conversations (.jsonl, .json or .csv, each also with .gz, or .parquet), each a path or
    /// a pattern with * and **; the reasoning is the last turn's reasoning_content or its think
    /// block.
    pub files: Vec<String>,
    /// Format of their rows: "auto" (by the first rows of each file), "messages", "sharegpt",
    /// "alpaca", "prompt_response", "magpie", "minimind_csv" or "preference".
    pub format: RowFormat,
    /// Share of a file's rows that may be broken and are left out, from 0 to 1; more of them are an
    /// error.
    pub max_bad_ratio: f64,
    /// Jinja file that turns conversations into text; empty: the tokenizer's own template.
    pub chat_template: PathBuf,
    /// Tokens per packed row, at least 2 and at most the model's max_position_embeddings; longer
    /// conversations are left out.
    pub seq_len: usize,
    /// Share of the conversations that is held out for validation, from 0 to below 1.
    pub validation_fraction: f64,
    /// Files of more conversations to validate on, which are never learned from; they come first.
    pub validation_files: Vec<String>,
}

impl Default for ReasonedDataSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            format: RowFormat::Auto,
            max_bad_ratio: 0.01,
            chat_template: PathBuf::new(),
            seq_len: 512,
            validation_fraction: 0.01,
            validation_files: Vec::new(),
        }
    }
}

impl ReasonedDataSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        super::check_rows(self.seq_len, self.validation_fraction)?;
        if self.files.is_empty() {
            let expected = "at least one file";
            return Err(ConfigError::field("data.files", "none", expected));
        }
        ConfigError::check_share("data.max_bad_ratio", self.max_bad_ratio)
    }
}

/// `[storm]`: how reasoning goes away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct StormSection {
    /// Share of the rows that show their reasoning at the start, from 0 to 1; 0 is plain tuning on
    /// answers.
    pub explicit: f64,
    /// How that share falls: "cosine", "linear" or "constant".
    pub explicit_fade: Fade,
    /// Share of a shown reasoning that is left at the start, its end, from 0 to 1.
    pub kept: f64,
    /// How that share falls: "cosine", "linear" or "constant".
    pub kept_fade: Fade,
    /// Probability at the start that a token of the reasoning is read as another one, from 0 to 1;
    /// what is to be said stays right, and answers are never touched (APT 0.3).
    pub noise: f64,
    /// How that probability falls: "cosine" (APT), "linear" or "constant".
    pub noise_fade: Fade,
    /// Share of the run after which nothing is left of what falls, above 0 and at most 1; the rest
    /// is tuning on answers.
    pub fade_ratio: f64,
    /// Weight of a token of an answer in the loss, above 0.
    pub answer_weight: f64,
    /// Weight of a token of a reasoning in the loss, 0 or more.
    pub reasoning_weight: f64,
    /// Most tokens of an answer when the model is asked in validation, at least 1.
    pub max_new_tokens: usize,
}

impl Default for StormSection {
    fn default() -> Self {
        Self {
            explicit: 1.0,
            explicit_fade: Fade::Linear,
            kept: 1.0,
            kept_fade: Fade::Linear,
            noise: 0.1,
            noise_fade: Fade::Cosine,
            fade_ratio: 0.7,
            answer_weight: 1.0,
            reasoning_weight: 1.0,
            max_new_tokens: 128,
        }
    }
}

impl StormSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_share("storm.explicit", self.explicit)?;
        ConfigError::check_share("storm.kept", self.kept)?;
        ConfigError::check_share("storm.noise", self.noise)?;
        ConfigError::check_positive("storm.fade_ratio", self.fade_ratio)?;
        ConfigError::check_share("storm.fade_ratio", self.fade_ratio)?;
        ConfigError::check_positive("storm.answer_weight", self.answer_weight)?;
        ConfigError::check_not_negative("storm.reasoning_weight", self.reasoning_weight)?;
        ConfigError::check_at_least("storm.max_new_tokens", self.max_new_tokens, 1)
    }
}
