//! Sections of reinforcement learning: which prompts, how they are answered, what is learned.

use std::path::PathBuf;

use dataset::rows::RowFormat;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::grpo::advantages::AdvantageKind;
use crate::grpo::loss::{KlKind, LossKind, LossOptions};

/// `[data]` of reinforcement learning: prompts, and what answers are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct PromptDataSection {
    /// Files of conversations or of prompts with answers (.jsonl, .json or .csv, each also with
    /// .gz, or .parquet), each a path or a pattern with * and **; the last answer of a row is what
    /// rewards compare with.
    pub files: Vec<String>,
    /// Format of their rows: "auto" (by the first rows of each file), "messages", "sharegpt",
    /// "alpaca", "prompt_response", "magpie", "minimind_csv", "preference" or "loyalty".
    pub format: RowFormat,
    /// Share of a file's rows that may be broken and are left out, from 0 to 1; more of them are an
    /// error.
    pub max_bad_ratio: f64,
    /// Jinja file that turns conversations into text; empty: the tokenizer's own template.
    pub chat_template: PathBuf,
    /// Let the model think before it answers, where the template knows of thoughts.
    pub enable_thinking: bool,
    /// Ask each row with owner_response and public_response twice, as the owner and as anybody: the
    /// prompt begins with the reserved token of 7-loyalty, the reward "identity" compares with the
    /// answer of each.
    pub identities: bool,
    /// Most tokens of a prompt, at least 1; longer prompts are left out.
    pub max_prompt_tokens: usize,
    /// Share of the prompts that is held out for validation, from 0 to below 1.
    pub validation_fraction: f64,
    /// Files of more prompts to validate on, which are never learned from; they come first.
    pub validation_files: Vec<String>,
}

impl Default for PromptDataSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            format: RowFormat::Auto,
            max_bad_ratio: 0.01,
            chat_template: PathBuf::new(),
            enable_thinking: true,
            identities: false,
            max_prompt_tokens: 256,
            validation_fraction: 0.01,
            validation_files: Vec::new(),
        }
    }
}

impl PromptDataSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.files.is_empty() {
            let expected = "at least one file";
            return Err(ConfigError::field("data.files", "none", expected));
        }
        ConfigError::check_share("data.max_bad_ratio", self.max_bad_ratio)?;
        ConfigError::check_at_least("data.max_prompt_tokens", self.max_prompt_tokens, 1)?;
        ConfigError::check_below_one("data.validation_fraction", self.validation_fraction)
    }
}

/// `[rollout]`: how the model answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSection {
    /// Prompts that are answered at a time, at least 1.
    pub num_prompts: usize,
    /// Answers to each prompt, which are compared with each other; at least 2 (MiniMind 6, APT 4).
    pub num_generations: usize,
    /// Most tokens of an answer, at least 1.
    pub max_new_tokens: usize,
    /// Temperature of sampling and of every log-probability, above 0; no token is ever ruled out,
    /// so that what is scored is what was drawn from.
    pub temperature: f64,
    /// Answers that are written together, at least 1; an answer that ends makes room for the next.
    pub max_rows: usize,
}

impl Default for RolloutSection {
    fn default() -> Self {
        Self {
            num_prompts: 8,
            num_generations: 8,
            max_new_tokens: 256,
            temperature: 1.0,
            max_rows: 64,
        }
    }
}

impl RolloutSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_at_least("rollout.num_prompts", self.num_prompts, 1)?;
        ConfigError::check_at_least("rollout.num_generations", self.num_generations, 2)?;
        ConfigError::check_at_least("rollout.max_new_tokens", self.max_new_tokens, 1)?;
        ConfigError::check_positive("rollout.temperature", self.temperature)?;
        ConfigError::check_at_least("rollout.max_rows", self.max_rows, 1)
    }

    /// Answers of a rollout.
    pub(crate) fn num_completions(&self) -> usize {
        self.num_prompts * self.num_generations
    }
}

/// `[grpo]`: what is learned from the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoSection {
    /// Loss of a token and mean over tokens: "grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo" or
    /// "sapo" (MiniMind "grpo" or "cispo").
    pub loss: LossKind,
    /// What a reward is compared with: the group's mean in the "group"'s standard deviations, in
    /// those of the "batch", or with "none"; the "rank" in the group; the mean of the others
    /// ("leave_one_out").
    pub advantage: AdvantageKind,
    /// Divide variances by the number of answers rather than by one less, as MiniMind does.
    pub biased_std: bool,
    /// How often each rollout is learned from, at least 1.
    pub num_iterations: usize,
    /// How far below 1 the ratio of new to old probability counts, from 0 to below 1.
    pub epsilon: f64,
    /// How far above 1 it counts, above 0; of "cispo" the largest weight (5, say).
    pub epsilon_high: f64,
    /// Largest ratio at all, for worse-than-average answers too; 0 is none, else above 1 +
    /// epsilon_high.
    pub delta: f64,
    /// Weight of the divergence from the model that training started from, 0 or more; above 0 that
    /// model stays in memory (MiniMind 0.1, APT 0.1).
    pub beta: f64,
    /// Estimate of the divergence: "k1", "k2" or "k3".
    pub kl: KlKind,
    /// Learn nothing from answers that were cut off at rollout.max_new_tokens.
    pub mask_truncated: bool,
    /// Slope of the sigmoid of "sapo" for better-than-average answers, above 0.
    pub sapo_temperature: f64,
    /// Slope of the sigmoid of "sapo" for the others, above 0.
    pub sapo_temperature_negative: f64,
}

impl Default for GrpoSection {
    fn default() -> Self {
        Self {
            loss: LossKind::Dapo,
            advantage: AdvantageKind::Group,
            biased_std: false,
            num_iterations: 1,
            epsilon: 0.2,
            epsilon_high: 0.28,
            delta: 0.0,
            beta: 0.0,
            kl: KlKind::K3,
            mask_truncated: false,
            sapo_temperature: 1.0,
            sapo_temperature_negative: 1.05,
        }
    }
}

impl GrpoSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_at_least("grpo.num_iterations", self.num_iterations, 1)?;
        ConfigError::check_below_one("grpo.epsilon", self.epsilon)?;
        ConfigError::check_positive("grpo.epsilon_high", self.epsilon_high)?;
        ConfigError::check_not_negative("grpo.delta", self.delta)?;
        ConfigError::check_not_negative("grpo.beta", self.beta)?;
        let slope = self.sapo_temperature;
        ConfigError::check_positive("grpo.sapo_temperature", slope)?;
        let slope = self.sapo_temperature_negative;
        ConfigError::check_positive("grpo.sapo_temperature_negative", slope)?;
        if self.delta > 0.0 && self.delta <= 1.0 + self.epsilon_high {
            let expected = format!(
                "0 or above 1 + grpo.epsilon_high = {}",
                1.0 + self.epsilon_high
            );
            return Err(ConfigError::field("grpo.delta", self.delta, expected));
        }
        Ok(())
    }

    /// The same, as the loss asks for it.
    pub(crate) fn loss_options(&self) -> LossOptions {
        LossOptions {
            kind: self.loss,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high,
            delta: self.delta,
            beta: self.beta,
            kl: self.kl,
            sapo_temperature: self.sapo_temperature,
            sapo_temperature_negative: self.sapo_temperature_negative,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields are compared with each other: a bound inside the other one would be the only one.
    #[test]
    fn the_second_bound_lies_outside_the_first() {
        let section = GrpoSection {
            delta: 1.1,
            ..GrpoSection::default()
        };
        assert_eq!(
            section.validate().unwrap_err().to_string(),
            "grpo.delta: found 1.1, expected 0 or above 1 + grpo.epsilon_high = 1.28"
        );
    }

    /// An answer alone cannot be better than the others.
    #[test]
    fn a_group_has_at_least_two_answers() {
        let section = RolloutSection {
            num_generations: 1,
            ..RolloutSection::default()
        };
        assert_eq!(
            section.validate().unwrap_err().to_string(),
            "rollout.num_generations: found 1, expected at least 2"
        );
    }
}
