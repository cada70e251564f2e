//! What an exported model was trained to do, kept beside its weights because `config.json` cannot
//! say it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the record in a model folder.
const FILE_NAME: &str = "training.json";

/// The part of a model's history that decides how one talks to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Stage that wrote the folder, such as `full_sft`.
    pub stage: String,
    /// Whether the model has learned to answer in its tokenizer's chat template; a pretrained one
    /// only continues text.
    pub is_chat_tuned: bool,
    /// Whether the model's prompts begin with a token that says who asks.
    #[serde(default)]
    pub knows_identities: bool,
}

/// Why a training record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrainingRecordError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no training record.
    #[error("{}: not a valid training record", path.display())]
    Parse {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
}

impl TrainingRecord {
    /// The record of a model folder; `None` where another program wrote the folder.
    ///
    /// # Errors
    ///
    /// A record that cannot be read or parsed.
    pub fn load(dir: &Path) -> Result<Option<Self>, TrainingRecordError> {
        let path = dir.join(FILE_NAME);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|source| TrainingRecordError::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TrainingRecordError::Read { path, source }),
        }
    }

    /// Writes the record into a model folder.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written to.
    pub fn save(&self, dir: &Path) -> Result<(), TrainingRecordError> {
        let path = dir.join(FILE_NAME);
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text + "\n"))
            .map_err(|source| TrainingRecordError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is what is read.
    #[test]
    fn a_record_survives_the_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(TrainingRecord::load(dir.path()).unwrap(), None);
        let record = TrainingRecord {
            stage: "full_sft".to_owned(),
            is_chat_tuned: true,
            knows_identities: true,
        };
        record.save(dir.path()).unwrap();
        assert_eq!(TrainingRecord::load(dir.path()).unwrap(), Some(record));
    }

    /// A record of before there were identities reads as one of a model without.
    #[test]
    fn an_older_record_knows_no_identities() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"stage": "full_sft", "is_chat_tuned": true}"#;
        fs::write(dir.path().join(FILE_NAME), text).unwrap();
        let record = TrainingRecord::load(dir.path()).unwrap().unwrap();
        assert!(record.is_chat_tuned && !record.knows_identities);
    }

    /// The message names the file; a folder that is not there is named too.
    #[test]
    fn what_cannot_be_read_or_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), r#"{"stage": 3}"#).unwrap();
        let message = TrainingRecord::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("training.json: not a valid training record"),
            "{message}"
        );

        let record = TrainingRecord {
            stage: "pretrain".to_owned(),
            is_chat_tuned: false,
            knows_identities: false,
        };
        let message = record
            .save(&dir.path().join("absent"))
            .unwrap_err()
            .to_string();
        assert!(
            message.ends_with("training.json: cannot be written"),
            "{message}"
        );
    }
}
