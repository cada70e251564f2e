//! `[rewards]`: which functions judge an answer, and how much each counts.

use std::path::{Path, PathBuf};

use documented::DocumentedFields;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// `[rewards]` of reinforcement learning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RewardsSection {
    /// Functions of an answer, one table each; its reward is the sum of theirs times their weights.
    pub functions: Vec<RewardConfig>,
}

/// One function of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// What earns 1: "answer" (the row's answer: as a number or a text, boxed, behind #### or
    /// last), "exact_match" (the row's answer and nothing else), "choice" (the row's letter),
    /// "regex", "think_format" (one think block, then the answer), "length" (within bounds),
    /// "language" (the share of its letters). What costs up to 1: "overlong" (too long),
    /// "repetition" (the share of repeated n-grams). What earns up to 1: "identity" (likeness to
    /// the answer for who asks rather than for the other). What others decide: a trained "model", a
    /// "command" or an endpoint ("http").
    pub kind: RewardKind,
    /// Factor of the function in the sum; negative for what is unwanted.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Pattern that "regex" looks for in what is said, thoughts left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pattern: String,
    /// Fewest tokens of "length"; where the cost of "overlong" begins.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_tokens: usize,
    /// Most tokens of "length"; where the cost of "overlong" is whole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_tokens: usize,
    /// Language of "language": "chinese", "english" or "prompt" (that of the prompt).
    #[serde(default, skip_serializing_if = "RewardLanguage::is_prompt")]
    pub language: RewardLanguage,
    /// Tokens per n-gram of "repetition", at least 1.
    #[serde(default = "default_ngram", skip_serializing_if = "is_default_ngram")]
    pub ngram_size: usize,
    /// Program of "command" and its arguments: it reads a JSON object {"prompt", "completion",
    /// "answer"} per line and writes a number per line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Folder of "model", as kindling reward_model left it.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub model: PathBuf,
    /// Address of "http": it is sent {"prompts", "completions", "answers"}, a list each, and
    /// replies with {"rewards": [..]}, a number for each answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Seconds that "command" and "http" may take for the answers of a rollout.
    #[serde(
        default = "default_timeout",
        skip_serializing_if = "is_default_timeout"
    )]
    pub timeout_secs: f64,
}

/// Kind of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// The row's answer, wherever it is said.
    Answer,
    /// The row's answer and nothing else.
    ExactMatch,
    /// The row's letter.
    Choice,
    /// A pattern.
    Regex,
    /// One block of thoughts, then the answer.
    ThinkFormat,
    /// A length within bounds.
    Length,
    /// Too many tokens. Source: Yu et al. 2025, arXiv:2503.14476, eq. 13.
    Overlong,
    /// Letters of one language.
    Language,
    /// Repeated n-grams. Source: Yeo et al. 2025, arXiv:2502.03373, appendix C.2.
    Repetition,
    /// The answer for who asks.
    Identity,
    /// A program.
    Command,
    /// An endpoint.
    Http,
    /// A trained head.
    Model,
}

/// Language that an answer is to be in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardLanguage {
    /// That of the prompt's last turn.
    #[default]
    Prompt,
    /// Han characters.
    Chinese,
    /// Latin letters.
    English,
}

impl RewardLanguage {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands out references"
    )]
    fn is_prompt(&self) -> bool {
        *self == Self::Prompt
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn default_weight() -> f64 {
    1.0
}

fn default_ngram() -> usize {
    3
}

fn default_timeout() -> f64 {
    60.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_default_ngram(size: &usize) -> bool {
    *size == default_ngram()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_default_timeout(secs: &f64) -> bool {
    secs.to_bits() == default_timeout().to_bits()
}

fn is_address(url: &str) -> bool {
    let hosts = ["http://", "https://"].map(|scheme| url.strip_prefix(scheme));
    hosts.into_iter().flatten().any(|host| !host.is_empty())
}

impl RewardConfig {
    /// A function with every option at its default.
    pub fn new(kind: RewardKind) -> Self {
        Self {
            kind,
            weight: default_weight(),
            pattern: String::new(),
            min_tokens: 0,
            max_tokens: 0,
            language: RewardLanguage::default(),
            ngram_size: default_ngram(),
            command: Vec::new(),
            model: PathBuf::new(),
            url: String::new(),
            timeout_secs: default_timeout(),
        }
    }

    /// What the function is called in reports and errors.
    pub fn name(&self) -> String {
        let name = match self.kind {
            RewardKind::Answer => "answer",
            RewardKind::ExactMatch => "exact_match",
            RewardKind::Choice => "choice",
            RewardKind::Regex => "regex",
            RewardKind::ThinkFormat => "think_format",
            RewardKind::Length => "length",
            RewardKind::Overlong => "overlong",
            RewardKind::Language => "language",
            RewardKind::Repetition => "repetition",
            RewardKind::Identity => "identity",
            RewardKind::Command => "command",
            RewardKind::Http => "http",
            RewardKind::Model => "model",
        };
        name.to_owned()
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, found: String, expected: String| {
            Err(ConfigError::field(field, found, expected))
        };
        let name = self.name();
        if !self.weight.is_finite() || self.weight == 0.0 {
            let expected = "a number that is not 0".to_owned();
            return refuse(
                "rewards.functions.weight",
                self.weight.to_string(),
                expected,
            );
        }
        match self.kind {
            RewardKind::Regex => {
                if let Err(error) = Regex::new(&self.pattern) {
                    let expected = format!("a pattern for {name:?}: {error}");
                    let found = format!("{:?}", self.pattern);
                    return refuse("rewards.functions.pattern", found, expected);
                }
                if self.pattern.is_empty() {
                    let expected = format!("a pattern for {name:?}");
                    return refuse("rewards.functions.pattern", "nothing".to_owned(), expected);
                }
            }
            RewardKind::Length | RewardKind::Overlong => {
                let least = self.min_tokens + usize::from(self.kind == RewardKind::Overlong);
                if self.max_tokens < least.max(1) {
                    let expected = format!("at least {} for {name:?}", least.max(1));
                    let found = self.max_tokens.to_string();
                    return refuse("rewards.functions.max_tokens", found, expected);
                }
            }
            RewardKind::Command if self.command.is_empty() => {
                let expected = format!("a program for {name:?}");
                return refuse("rewards.functions.command", "nothing".to_owned(), expected);
            }
            RewardKind::Model if is_empty(&self.model) => {
                let expected = format!("a folder for {name:?}");
                return refuse("rewards.functions.model", "nothing".to_owned(), expected);
            }
            RewardKind::Http if !is_address(&self.url) => {
                let expected = format!("http:// or https:// and a host for {name:?}");
                return refuse("rewards.functions.url", format!("{:?}", self.url), expected);
            }
            _ => {}
        }
        ConfigError::check_at_least("rewards.functions.ngram_size", self.ngram_size, 1)?;
        ConfigError::check_positive("rewards.functions.timeout_secs", self.timeout_secs)
    }
}

impl RewardsSection {
    /// Checks that there is something to judge by, and every function.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.functions.is_empty() {
            let expected = "at least one function: without a reward there is nothing to learn";
            return Err(ConfigError::field("rewards.functions", "none", expected));
        }
        self.functions.iter().try_for_each(RewardConfig::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let section: RewardsSection = toml::from_str(text).unwrap();
        section.validate().unwrap_err().to_string()
    }

    /// Each text names the field, what was found and what was expected.
    #[test]
    fn functions_that_cannot_judge_are_refused() {
        assert_eq!(
            refusal(""),
            "rewards.functions: found none, expected at least one function: without a reward there \
             is nothing to learn"
        );
        assert_eq!(
            refusal("[[functions]]\nkind = \"answer\"\nweight = 0.0"),
            "rewards.functions.weight: found 0, expected a number that is not 0"
        );
        assert_eq!(
            refusal("[[functions]]\nkind = \"length\"\nmin_tokens = 3\nmax_tokens = 2"),
            "rewards.functions.max_tokens: found 2, expected at least 3 for \"length\""
        );
        assert_eq!(
            refusal("[[functions]]\nkind = \"http\"\nurl = \"localhost\""),
            "rewards.functions.url: found \"localhost\", expected http:// or https:// and a host \
             for \"http\""
        );
        assert_eq!(
            refusal("[[functions]]\nkind = \"model\""),
            "rewards.functions.model: found nothing, expected a folder for \"model\""
        );
        let text = refusal("[[functions]]\nkind = \"regex\"\npattern = \"(\"");
        assert!(
            text.starts_with(
                "rewards.functions.pattern: found \"(\", expected a pattern for \"regex\": regex \
                 parse error"
            ),
            "{text}"
        );
    }

    /// What is not set is not written, and what is written reads back.
    #[test]
    fn only_what_is_set_is_written() {
        let config = RewardConfig::new(RewardKind::ThinkFormat);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(text, "kind = \"think_format\"\nweight = 1.0\n");
        assert_eq!(toml::from_str::<RewardConfig>(&text).unwrap(), config);
    }
}
