//! What can be wrong with a file of conversations, and with a row of it.

use std::path::PathBuf;

use parquet::errors::ParquetError;

use super::HistoryError;
use super::format::FormatError;
use crate::lines::{MAX_LINE_BYTES, ReadError};

/// Why a row cannot be used. The file's other rows can be.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// The line is not JSON.
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
    /// The line is not text.
    #[error("found a byte that is not UTF-8")]
    NotUtf8,
    /// The line is larger than any real row.
    #[error("longer than the limit of {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// The line is not of the table that the file's head promises.
    #[error("not a row of the table: {0}")]
    Csv(csv::Error),
    /// The row is a list or a bare value.
    #[error("the row is {found}, expected an object")]
    NotAnObject {
        /// JSON type that was found.
        found: &'static str,
    },
    /// A field is not there.
    #[error("no field `{field}`, found {found}")]
    MissingField {
        /// Field of the format.
        field: &'static str,
        /// The fields that are there.
        found: String,
    },
    /// A field holds something else.
    #[error("field `{field}` is {found}, expected {expected}")]
    WrongType {
        /// Field of the row.
        field: String,
        /// JSON type that was found.
        found: &'static str,
        /// What the format has there.
        expected: &'static str,
    },
    /// A field's JSON text cannot be read.
    #[error("field `{field}` is not JSON text: {source}")]
    FieldJson {
        /// Field of the row.
        field: String,
        /// Where in the text, and what was expected.
        source: serde_json::Error,
    },
    /// A turn is broken.
    #[error("turn {turn}: {fault}")]
    Turn {
        /// Turn of the conversation, from 1.
        turn: usize,
        /// What is wrong with it.
        fault: Box<RowFault>,
    },
    /// The speaker of a turn is none that templates know.
    #[error("turn {turn} has the role `{found}`, expected one of system, user, assistant, tool")]
    UnknownRole {
        /// Turn of the conversation, from 1.
        turn: usize,
        /// The role.
        found: String,
    },
    /// No turn is an assistant's.
    #[error("found {turns} turns and none of an assistant, expected at least one to learn from")]
    NothingToLearn {
        /// Turns of the conversation.
        turns: usize,
    },
    /// The row is a question without an answer.
    #[error("field `{field}` holds no answer, expected one to learn from")]
    Unanswered {
        /// Field where the answer would be.
        field: &'static str,
    },
    /// The two answers are not answers to the same question.
    #[error("`chosen` and `rejected` differ before their last turn, expected one question")]
    OtherQuestion,
    /// A text with speakers' marks lacks them.
    #[error("`{field}` has no \"Human:\" followed by \"Assistant:\", expected a dialogue")]
    NoDialogue {
        /// Field of the row.
        field: &'static str,
    },
    /// Earlier questions and answers cannot be read.
    #[error("field `history`: {0}")]
    History(#[from] HistoryError),
}

/// Why a file of conversations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file cannot be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file's name does not say how to read it.
    #[error("{}: unknown kind of file, expected .jsonl, .json or .csv, each also with .gz, or .parquet", path.display())]
    UnknownKind {
        /// File that was found.
        path: PathBuf,
    },
    /// The file is none of Parquet's, or is packed in a way that is not built in.
    #[error("{}: not a Parquet file that can be read", path.display())]
    Parquet {
        /// File that was being read.
        path: PathBuf,
        /// What was expected.
        source: ParquetError,
    },
    /// No row looks like a format.
    #[error(transparent)]
    Format(#[from] FormatError),
}
