//! The data sets that can be prepared: where each one's files lie and what its rows become.

use serde_json::Value;

use super::record::{DropReason, Record};
use super::{coig_cqia, preferences, s1k};

/// Endings of files that hold rows.
const ENDINGS: [&str; 6] = [
    ".jsonl",
    ".jsonl.gz",
    ".json",
    ".json.gz",
    ".csv",
    ".parquet",
];

/// Words by which a file's name says its split, and the split.
const SPLITS: [(&str, &str); 5] = [
    ("train", "train"),
    ("test", "test"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("dev", "validation"),
];

/// Every data set that is known.
pub const SOURCES: [Source; 6] = [
    coig_cqia::COIG_CQIA,
    coig_cqia::RIDDLES,
    s1k::S1K,
    s1k::S1K_GEMINI,
    preferences::HH_RLHF,
    preferences::ULTRAFEEDBACK,
];

/// A data set of the hub.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Its name, which its prepared files begin with.
    pub name: &'static str,
    /// Its repository.
    pub repo: &'static str,
    /// The stage that its records are for.
    pub stage: Stage,
    /// Which rows a file of the repository holds; none if it is not one of the data set's.
    pub(super) part_of: fn(&str) -> Option<Part>,
    pub(super) convert: fn(Value, &Part) -> Result<Record, DropReason>,
}

/// What records are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Instruction tuning.
    Sft,
    /// Preference training.
    Dpo,
    /// The internalisation of thoughts.
    Storm,
}

/// Which rows of a data set a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Split: train, test or validation.
    pub(super) split: String,
    /// Folder or configuration; empty where there is but one.
    pub(super) subset: String,
}

impl Part {
    /// Rows to train on.
    pub(super) fn train(subset: &str) -> Self {
        Self {
            split: "train".to_owned(),
            subset: subset.to_owned(),
        }
    }

    /// Rows of the split that a file's name begins with; of a file without one, to train on.
    pub(super) fn named_by_file(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let split = SPLITS.iter().find(|(word, _)| name.starts_with(word));
        let mut part = Self::train("");
        if let Some((_, split)) = split {
            (*split).clone_into(&mut part.split);
        }
        part
    }
}

/// Whether a file holds rows, by its name; what describes a data set does not.
pub(super) fn is_row_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let describes = name.starts_with("dataset_info") || name.starts_with('.');
    !describes && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as they are in use on the hub.
    #[test]
    fn a_file_s_name_says_its_split() {
        let split = |path| Part::named_by_file(path).split;
        assert_eq!(split("data/train-00000-of-00001.parquet"), "train");
        assert_eq!(split("data/test_sft-00000-of-00001.parquet"), "test");
        assert_eq!(split("valid.jsonl"), "validation");
        assert_eq!(split("s1K.json"), "train");
        assert!(is_row_file("data/train-00000-of-00001.parquet"));
        assert!(!is_row_file("dataset_infos.json") && !is_row_file("README.md"));
    }
}
