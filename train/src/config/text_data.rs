//! `[data]` of pretraining: which text, cut how.

use std::path::PathBuf;

use dataset::source::SourceConfig;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check_rows};

/// `[data]` of pretraining: which text, cut how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TextDataSection {
    /// Tokens per packed row, at least 2 and at most the model's max_position_embeddings.
    pub seq_len: usize,
    /// Share of the documents that is held out for validation, from 0 to below 1.
    pub validation_fraction: f64,
    /// Folder that keeps the tokenised text between runs, keyed by its content.
    pub cache_dir: PathBuf,
    /// Where the text comes from, one table per source.
    pub sources: Vec<SourceConfig>,
}

impl Default for TextDataSection {
    fn default() -> Self {
        Self {
            seq_len: 512,
            validation_fraction: 0.01,
            cache_dir: PathBuf::from("out/cache"),
            sources: Vec::new(),
        }
    }
}

impl TextDataSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_rows(self.seq_len, self.validation_fraction)?;
        if self.sources.is_empty() {
            return Err(ConfigError::field(
                "data.sources",
                "none",
                "at least one source",
            ));
        }
        Ok(())
    }
}
