//! Where text comes from: a path or glob, how to read it, and how often its documents are seen.

use std::path::{Path, PathBuf};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::SourceError;

/// One source of pretraining text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// File or glob of the text, such as data/*.jsonl; matches are read in the order of their names.
    pub path: String,
    /// How often each document is seen per epoch: 2 is twice, 0.5 is once in every other epoch.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Kind of the files: auto (by the ending of the name), jsonl, json, csv or text.
    #[serde(default)]
    pub format: TextFormat,
    /// Field (JSON) or column (CSV) of the text; a list of strings in it is joined by line ends.
    #[serde(default = "default_field")]
    pub field: String,
    /// Plain text only: line that ends a document, such as <|endoftext|>; empty: paragraphs (parted
    /// by blank lines) are gathered to documents of about 4,000 characters.
    #[serde(default)]
    pub document_separator: String,
}

/// How a file of text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// By the ending of the file's name.
    #[default]
    Auto,
    /// One JSON object or string per line.
    Jsonl,
    /// A JSON array of objects or strings, or JSON objects one after the other.
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// Plain text.
    Text,
}

fn default_weight() -> f64 {
    1.0
}

fn default_field() -> String {
    "text".to_owned()
}

impl SourceConfig {
    /// A source with every option at its default.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            weight: default_weight(),
            format: TextFormat::Auto,
            field: default_field(),
            document_separator: String::new(),
        }
    }

    /// Checks what can be checked without looking at the files.
    ///
    /// # Errors
    ///
    /// [`SourceError::Weight`] for a weight that is not a number above 0.
    pub fn validate(&self) -> Result<(), SourceError> {
        if self.weight.is_finite() && self.weight > 0.0 {
            Ok(())
        } else {
            Err(SourceError::Weight {
                path: self.path.clone(),
                weight: self.weight,
            })
        }
    }

    /// How often an epoch sees a document, so that the mean over documents is the weight.
    pub fn copies(&self, document: u64, seed: u64) -> usize {
        let extra = hashed_fraction(seed, document) < self.weight.fract();
        self.weight.trunc() as usize + usize::from(extra)
    }

    pub(super) fn format_of(&self, path: &Path) -> Result<TextFormat, SourceError> {
        if self.format != TextFormat::Auto {
            return Ok(self.format);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_ascii_lowercase();
        let unpacked = name.strip_suffix(".gz").unwrap_or(&name);
        match unpacked.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "jsonl" | "ndjson" => Ok(TextFormat::Jsonl),
            "json" => Ok(TextFormat::Json),
            "csv" => Ok(TextFormat::Csv),
            "txt" | "text" | "md" => Ok(TextFormat::Text),
            _ => Err(SourceError::UnknownFormat {
                path: path.to_owned(),
            }),
        }
    }
}

/// The files that a path or pattern names, sorted by name.
///
/// # Errors
///
/// A pattern that is none, or that matches nothing.
pub fn matching_files(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    // A name with brackets in it is a file first, a pattern only if there is no such file.
    let literal = PathBuf::from(pattern);
    if literal.is_file() {
        return Ok(vec![literal]);
    }
    let matches = glob::glob(pattern).map_err(|source| SourceError::Pattern {
        pattern: pattern.to_owned(),
        source,
    })?;
    let mut files: Vec<PathBuf> = matches
        .filter_map(Result::ok)
        .filter(|path| path.is_file())
        .collect();
    if files.is_empty() {
        return Err(SourceError::NoMatch {
            pattern: pattern.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

/// A number in `0..1` that depends on the seed and the index alone: the same draw on every machine
/// and in every order of asking.
///
/// SplitMix64's finalizer. Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
pub fn hashed_fraction(seed: u64, index: u64) -> f64 {
    let mut z = mix(seed)
        .wrapping_add(index)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = mix(z);
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2.25 copies on average: two each, and a third for about a quarter (4 sigma is 55 of 1,000).
    #[test]
    fn copies_average_to_the_weight() {
        let source = SourceConfig {
            weight: 2.25,
            ..SourceConfig::new("a.txt")
        };
        let copies: Vec<usize> = (0..1000)
            .map(|document| source.copies(document, 7))
            .collect();
        assert!(copies.iter().all(|&copies| copies == 2 || copies == 3));
        let total: usize = copies.iter().sum();
        assert!((2195..=2305).contains(&total), "{total}");
        let again: Vec<usize> = (0..1000)
            .map(|document| source.copies(document, 7))
            .collect();
        assert_eq!(copies, again);
        assert_ne!(
            copies,
            (0..1000)
                .map(|document| source.copies(document, 8))
                .collect::<Vec<_>>()
        );
    }

    /// A typo in a source is refused by name.
    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<SourceConfig>(r#"{"path": "a", "wieght": 1}"#);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("unknown field `wieght`")
        );
    }
}
