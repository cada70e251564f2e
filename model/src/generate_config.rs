//! How an answer is written: lengths, stop ids and sampling, under Hugging Face's
//! `generation_config.json` names.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::hf::config_json::TokenIds;

/// Settings of one generation call; the seed belongs to the prompt, since every row has its own.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// Most tokens an answer may have; the prompt does not count. At least 1.
    pub max_new_tokens: usize,
    /// Draws from the distribution when true, takes the likeliest token when false.
    pub do_sample: bool,
    /// Divides the logits before sampling; below 1 sharpens, 0 means the likeliest token.
    pub temperature: f64,
    /// Samples from this many likeliest tokens only; 0 is off.
    pub top_k: usize,
    /// Samples from the smallest set of likeliest tokens with at least this probability, in (0, 1];
    /// 1 is off.
    pub top_p: f64,
    /// Drops tokens less likely than this share of the likeliest one, in [0, 1]; 0 is off.
    pub min_p: f64,
    /// Makes tokens of the prompt and the answer less likely when above 1; above 0, 1 is off.
    pub repetition_penalty: f64,
    /// Taken from the logit of every token that the answer already holds, in nats; 0 is off.
    pub presence_penalty: f64,
    /// Taken from a token's logit once per time the answer already holds it, in nats; 0 is off.
    pub frequency_penalty: f64,
    /// Ids that end an answer.
    pub eos_token_id: Vec<u32>,
}

/// Why settings of a generation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenerateConfigError {
    /// A value is outside the range that makes sense.
    #[error("{field} is {found}, expected {expected}")]
    Range {
        /// Name of the setting.
        field: &'static str,
        /// Value that was given.
        found: String,
        /// Values that are accepted.
        expected: &'static str,
    },
    /// The file is there and cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no generation config.
    #[error("{}: not a valid generation config", path.display())]
    Parse {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
}

impl GenerateConfig {
    /// The likeliest token each time, with nothing else switched on.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            max_new_tokens,
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            eos_token_id: Vec::new(),
        }
    }

    /// MiniMind's sampling: temperature 0.85, top-p 0.85, top-k 50.
    pub fn minimind(max_new_tokens: usize) -> Self {
        Self {
            do_sample: true,
            temperature: 0.85,
            top_k: 50,
            top_p: 0.85,
            ..Self::greedy(max_new_tokens)
        }
    }

    /// These settings with whatever a model folder's `generation_config.json` says put over them; a
    /// folder without that file changes nothing, and fields this house does not know are passed
    /// over.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or parsed, or a value outside its range.
    pub fn overlaid_by(self, dir: &Path) -> Result<Self, GenerateConfigError> {
        let path = dir.join("generation_config.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(source) => return Err(GenerateConfigError::Read { path, source }),
        };
        let file: GenerationFile = serde_json::from_str(&text)
            .map_err(|source| GenerateConfigError::Parse { path, source })?;
        let merged = file.over(self);
        merged.validate()?;
        Ok(merged)
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    ///
    /// The first value that is outside its range.
    pub fn validate(&self) -> Result<(), GenerateConfigError> {
        let at_least_one = self.max_new_tokens >= 1;
        check(
            at_least_one,
            "max_new_tokens",
            self.max_new_tokens,
            "at least 1",
        )?;
        let temperature = self.temperature;
        let is_warm = temperature.is_finite() && temperature >= 0.0;
        check(
            is_warm,
            "temperature",
            temperature,
            "0 (the likeliest token) or more",
        )?;
        let top_p = self.top_p;
        check(
            top_p > 0.0 && top_p <= 1.0,
            "top_p",
            top_p,
            "above 0 and at most 1 (off)",
        )?;
        let min_p = self.min_p;
        check(
            (0.0..=1.0).contains(&min_p),
            "min_p",
            min_p,
            "from 0 (off) to 1",
        )?;
        let repetition = self.repetition_penalty;
        let divides = repetition.is_finite() && repetition > 0.0;
        check(
            divides,
            "repetition_penalty",
            repetition,
            "above 0, where 1 is off",
        )?;
        let presence = self.presence_penalty;
        check(
            presence.is_finite(),
            "presence_penalty",
            presence,
            "a finite number",
        )?;
        let frequency = self.frequency_penalty;
        check(
            frequency.is_finite(),
            "frequency_penalty",
            frequency,
            "a finite number",
        )
    }

    /// Whether the likeliest token is taken rather than drawn.
    pub(crate) fn is_greedy(&self) -> bool {
        !self.do_sample || self.temperature == 0.0
    }
}

fn check(
    holds: bool,
    field: &'static str,
    found: impl Display + Copy,
    expected: &'static str,
) -> Result<(), GenerateConfigError> {
    if holds {
        return Ok(());
    }
    let found = found.to_string();
    Err(GenerateConfigError::Range {
        field,
        found,
        expected,
    })
}

/// What `generation_config.json` may hold; transformers writes `null` for a value that is not set.
#[derive(Deserialize)]
struct GenerationFile {
    max_new_tokens: Option<usize>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    #[serde(default)]
    eos_token_id: TokenIds,
}

impl GenerationFile {
    fn over(self, under: GenerateConfig) -> GenerateConfig {
        GenerateConfig {
            max_new_tokens: self.max_new_tokens.unwrap_or(under.max_new_tokens),
            do_sample: self.do_sample.unwrap_or(under.do_sample),
            temperature: self.temperature.unwrap_or(under.temperature),
            top_k: self.top_k.unwrap_or(under.top_k),
            top_p: self.top_p.unwrap_or(under.top_p),
            min_p: self.min_p.unwrap_or(under.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(under.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(under.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(under.frequency_penalty),
            eos_token_id: match self.eos_token_id.into_vec() {
                ids if ids.is_empty() => under.eos_token_id,
                ids => ids,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(json: &str) -> Result<GenerateConfig, GenerateConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("generation_config.json"), json).unwrap();
        GenerateConfig::minimind(512).overlaid_by(dir.path())
    }

    /// The fields are those that transformers 5 writes; what the file leaves out keeps its value.
    #[test]
    fn a_folder_says_what_it_knows_and_nothing_else_changes() {
        let found = overlaid(
            r#"{"_from_model_config": true, "temperature": 0.6, "top_k": null, "eos_token_id": 2}"#,
        )
        .unwrap();
        let expected = GenerateConfig {
            temperature: 0.6,
            eos_token_id: vec![2],
            ..GenerateConfig::minimind(512)
        };
        assert_eq!(found, expected);
    }

    /// Hugging Face writes one id or several.
    #[test]
    fn several_stop_ids_are_read() {
        assert_eq!(
            overlaid(r#"{"eos_token_id": [2, 0]}"#)
                .unwrap()
                .eos_token_id,
            [2, 0]
        );
    }

    /// An empty list says no more than none at all, as where a model's own ids are read.
    #[test]
    fn no_stop_ids_leave_those_that_are_known() {
        for json in [r#"{"eos_token_id": []}"#, r#"{"eos_token_id": null}"#, "{}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("generation_config.json"), json).unwrap();
            let config = GenerateConfig {
                eos_token_id: vec![2],
                ..GenerateConfig::greedy(7)
            };
            let found = config.clone().overlaid_by(dir.path()).unwrap();
            assert_eq!(found, config, "{json}");
        }
    }

    /// Folders of base models often come without the file.
    #[test]
    fn a_folder_without_the_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = GenerateConfig::greedy(7);
        assert_eq!(config.clone().overlaid_by(dir.path()).unwrap(), config);
    }

    /// The message names the file; serde's own message, its source, names the place.
    #[test]
    fn a_broken_file_is_named() {
        let message = overlaid("{").unwrap_err().to_string();
        assert!(
            message.ends_with("generation_config.json: not a valid generation config"),
            "{message}"
        );
    }

    /// Each row leaves one range by the least that shows.
    #[test]
    fn a_value_outside_its_range_is_refused_by_name() {
        let good = GenerateConfig::minimind(1);
        good.validate().unwrap();
        let cases = [
            (
                GenerateConfig {
                    max_new_tokens: 0,
                    ..good.clone()
                },
                "max_new_tokens is 0, expected at least 1",
            ),
            (
                GenerateConfig {
                    temperature: -0.1,
                    ..good.clone()
                },
                "temperature is -0.1, expected 0 (the likeliest token) or more",
            ),
            (
                GenerateConfig {
                    top_p: 0.0,
                    ..good.clone()
                },
                "top_p is 0, expected above 0 and at most 1 (off)",
            ),
            (
                GenerateConfig {
                    top_p: 1.01,
                    ..good.clone()
                },
                "top_p is 1.01, expected above 0 and at most 1 (off)",
            ),
            (
                GenerateConfig {
                    min_p: f64::NAN,
                    ..good.clone()
                },
                "min_p is NaN, expected from 0 (off) to 1",
            ),
            (
                GenerateConfig {
                    repetition_penalty: 0.0,
                    ..good.clone()
                },
                "repetition_penalty is 0, expected above 0, where 1 is off",
            ),
            (
                GenerateConfig {
                    presence_penalty: f64::INFINITY,
                    ..good.clone()
                },
                "presence_penalty is inf, expected a finite number",
            ),
            (
                GenerateConfig {
                    frequency_penalty: f64::NAN,
                    ..good
                },
                "frequency_penalty is NaN, expected a finite number",
            ),
        ];
        for (config, message) in cases {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
