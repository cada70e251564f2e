//! Rows of files that were prepared or written by others, as lines, for merging and splitting.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::reasons::Reasons;
use super::writer::WriteError;
use crate::rows::{RawRow, RawRows, Row, RowFormat, RowReader, RowsError};

/// Why files could not be merged, split or counted.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read on.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No row can be used.
    #[error("{}: found no row that can be used{}", path.display(), because(reasons))]
    NoRows {
        /// File that was being read.
        path: PathBuf,
        /// Why rows were dropped.
        reasons: Reasons,
    },
    /// One file would hold rows for two stages.
    #[error(
        "{} holds preferences and {} does not, expected files for one stage",
        preferences.display(),
        others.display()
    )]
    TwoKinds {
        /// A file of preferences.
        preferences: PathBuf,
        /// A file of something else.
        others: PathBuf,
    },
    /// There is not one number for each file.
    #[error("found {found} {name} for {num_files} files, expected one for each")]
    Numbers {
        /// What the numbers are.
        name: &'static str,
        /// How many there are.
        found: usize,
        /// Files.
        num_files: usize,
    },
    /// A number is not one of its kind.
    #[error("{name} {found} is not a number above 0")]
    Number {
        /// What the number is.
        name: &'static str,
        /// As it was given.
        found: f64,
    },
    /// A file cannot be parted.
    #[error("{}: found {num_rows} different rows, expected at least two to split", path.display())]
    TooFew {
        /// File that was being read.
        path: PathBuf,
        /// Different rows of it.
        num_rows: usize,
    },
}

fn because(reasons: &Reasons) -> String {
    match reasons.total() {
        0 => String::new(),
        _ => format!(": {reasons}"),
    }
}

/// How a file's rows are laid out; none if they are no conversations or preferences.
pub(super) fn format_of(path: &Path) -> Result<Option<RowFormat>, RowsError> {
    match RowReader::open(path, RowFormat::Auto) {
        Ok(reader) => Ok(Some(reader.format())),
        Err(RowsError::Format(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rows of a file as lines of JSON, just as they are.
pub(super) fn lines_of(path: &Path, dropped: &mut Reasons) -> Result<Vec<String>, FilesError> {
    let mut lines = Vec::new();
    for row in RawRows::open(path)? {
        let RawRow { line, value } = row?;
        match value {
            Ok(value) => lines.push(value.to_string()),
            Err(fault) => dropped.note(fault.to_string(), || place(path, line)),
        }
    }
    some(path, lines, dropped)
}

/// The rows of a file as lines with `conversations`.
pub(super) fn chats_of(
    path: &Path,
    format: RowFormat,
    dropped: &mut Reasons,
) -> Result<Vec<String>, FilesError> {
    let mut lines = Vec::new();
    for row in RowReader::open(path, format)? {
        let row = row?;
        match row.row.and_then(Row::into_chat) {
            Ok(chat) => {
                let chat: Value = serde_json::to_value(chat).expect("turns have texts for keys");
                lines.push(chat.to_string());
            }
            Err(fault) => dropped.note(fault.to_string(), || place(path, row.line)),
        }
    }
    some(path, lines, dropped)
}

fn some(path: &Path, lines: Vec<String>, dropped: &Reasons) -> Result<Vec<String>, FilesError> {
    if lines.is_empty() {
        return Err(FilesError::NoRows {
            path: path.to_owned(),
            reasons: dropped.clone(),
        });
    }
    Ok(lines)
}

fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}
