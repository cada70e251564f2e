//! `[data]` of the chat stages: which conversations, what of them is trained, how they are cut.

use std::path::PathBuf;

use dataset::chat::LossOn;
use dataset::conversations::Thinking;
use dataset::rows::RowFormat;
use documented::DocumentedFields;
use model::lora::LoraConfig;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check_rows};

/// `[data]` of the chat stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ChatDataSection {
    /// Files of conversations (.jsonl, .json or .csv, each also with .gz, or .parquet), each a path or
    /// a pattern with * and **.
    pub files: Vec<String>,
    /// Format of their rows: "auto" (by the first rows of each file), "messages", "sharegpt",
    /// "alpaca", "prompt_response", "magpie", "minimind_csv" or "preference".
    pub format: RowFormat,
    /// Share of a file's rows that may be broken and are left out, from 0 to 1; more of them are an
    /// error.
    pub max_bad_ratio: f64,
    /// What is trained: "assistant" (every assistant turn), "last" (the last one) or "all" (users'
    /// turns too).
    pub loss_on: LossOn,
    /// Jinja file that turns conversations into text; empty: the tokenizer's own template.
    pub chat_template: PathBuf,
    /// What becomes of the thoughts that assistants wrote down: "keep" or "strip".
    pub thinking: Thinking,
    /// Share of the conversations that keep the template's empty think blocks, from 0 to 1; the
    /// seed decides which.
    pub empty_think_ratio: f64,
    /// Share of the conversations without system prompt and tools that are given one of
    /// system_prompts, from 0 to 1; the seed decides which.
    pub system_prompt_ratio: f64,
    /// System prompts to give.
    pub system_prompts: Vec<String>,
    /// Tokens per packed row, at least 2 and at most the model's max_position_embeddings; longer
    /// conversations are cut.
    pub seq_len: usize,
    /// Share of the conversations that is held out for validation, from 0 to below 1.
    pub validation_fraction: f64,
}

impl Default for ChatDataSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            format: RowFormat::Auto,
            max_bad_ratio: 0.01,
            loss_on: LossOn::Assistant,
            chat_template: PathBuf::new(),
            thinking: Thinking::Keep,
            empty_think_ratio: 1.0,
            system_prompt_ratio: 0.0,
            system_prompts: Vec::new(),
            seq_len: 512,
            validation_fraction: 0.01,
        }
    }
}

impl ChatDataSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_rows(self.seq_len, self.validation_fraction)?;
        if self.files.is_empty() {
            return Err(ConfigError::field(
                "data.files",
                "none",
                "at least one file",
            ));
        }
        ConfigError::check_share("data.max_bad_ratio", self.max_bad_ratio)?;
        ConfigError::check_share("data.empty_think_ratio", self.empty_think_ratio)?;
        ConfigError::check_share("data.system_prompt_ratio", self.system_prompt_ratio)?;
        if self.system_prompt_ratio > 0.0 && self.system_prompts.is_empty() {
            let expected = "at least one while data.system_prompt_ratio is above 0";
            return Err(ConfigError::field("data.system_prompts", "none", expected));
        }
        Ok(())
    }
}

/// `[neftune]`: noise on the embeddings of full tuning. Source: Jain et al. 2023, arXiv:2310.05914.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct NeftuneSection {
    /// Strength of the uniform noise, which is alpha / sqrt(row length x hidden size); 0 is off,
    /// papers use 5 to 15.
    pub alpha: f64,
}

impl NeftuneSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_not_negative("neftune.alpha", self.alpha)
    }
}

/// `[lora]`: which adapters are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Width of the adapters, at least 1.
    pub rank: usize,
    /// The adapters' output is scaled by alpha / rank; above 0.
    pub alpha: f64,
    /// Share of the adapters' inputs that is left out in training, from 0 to below 1.
    pub dropout: f64,
    /// Projections that get an adapter: names (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
    /// down_proj) or patterns over paths such as layers.*.mlp.*
    pub target_modules: Vec<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            target_modules: vec!["q_proj".to_owned(), "k_proj".to_owned()],
        }
    }
}

impl LoraSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_at_least("lora.rank", self.rank, 1)?;
        ConfigError::check_positive("lora.alpha", self.alpha)?;
        ConfigError::check_below_one("lora.dropout", self.dropout)?;
        if self.target_modules.is_empty() {
            let expected = "at least one projection";
            return Err(ConfigError::field("lora.target_modules", "none", expected));
        }
        Ok(())
    }

    /// The same, as the model room asks for it.
    pub fn adapters(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            target_modules: self.target_modules.clone(),
        }
    }
}

/// `[distill]`: whose distribution is learned, and how much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct DistillSection {
    /// Folder of the teacher, a finished model with the student's vocabulary.
    pub teacher: PathBuf,
    /// Weight of the labels' cross entropy, from 0 (the teacher alone) to 1 (the labels alone).
    pub alpha: f64,
    /// Temperature of both distributions, above 0.
    pub temperature: f64,
    /// Likeliest tokens per position that the teacher is asked for once, before training; 0 asks
    /// for the whole distribution of every batch.
    pub top_k: usize,
    /// Folder that keeps what the teacher answered between runs.
    pub cache_dir: PathBuf,
}

impl Default for DistillSection {
    fn default() -> Self {
        Self {
            teacher: PathBuf::new(),
            alpha: 0.5,
            temperature: 1.5,
            top_k: 32,
            cache_dir: PathBuf::from("out/cache"),
        }
    }
}

impl DistillSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.teacher.as_os_str().is_empty() {
            let expected = "the folder of a finished model";
            return Err(ConfigError::field("distill.teacher", "nothing", expected));
        }
        ConfigError::check_share("distill.alpha", self.alpha)?;
        ConfigError::check_positive("distill.temperature", self.temperature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields are compared with each other: a share of nothing cannot be given.
    #[test]
    fn prompts_are_wanted_where_prompts_are_given() {
        let data = ChatDataSection {
            files: vec!["a.jsonl".to_owned()],
            ..ChatDataSection::default()
        };
        assert_eq!(data.validate(), Ok(()));
        let data = ChatDataSection {
            system_prompt_ratio: 0.2,
            ..data
        };
        assert_eq!(
            data.validate().unwrap_err().to_string(),
            "data.system_prompts: found none, expected at least one while \
             data.system_prompt_ratio is above 0"
        );
    }
}
