//! Why a step cannot be done.

use std::path::PathBuf;

use super::completer::CompleterError;
use super::domains::UnknownDomain;
use super::manifest::ManifestError;
use super::record::RecordsError;
use crate::journal::{Difference, JournalError};
use crate::source::SourceError;

/// Why a step cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum MagpieError {
    /// A file of records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The manifest or a file's hash.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The rows so far.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step was done with something else.
    #[error(
        "{}: {step} was done with {difference} (--overwrite does it again, --out names another \
         folder)",
        dir.display()
    )]
    Other {
        /// The folder.
        dir: PathBuf,
        /// The step.
        step: String,
        /// What is not the same.
        difference: Difference,
    },
    /// The folder cannot be made.
    #[error("{}: cannot be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is outside its range.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// Values that are accepted.
        expected: &'static str,
    },
    /// Nobody is there to judge.
    #[error("{what} need somebody who gives them, expected {field} to name one")]
    NoJudge {
        /// What was asked for.
        what: &'static str,
        /// Setting that names who gives it.
        field: &'static str,
    },
    /// Too few of something.
    #[error("{}: {what}", path.display())]
    Input {
        /// File that was read.
        path: PathBuf,
        /// What it lacks.
        what: &'static str,
    },
    /// A pattern names no file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name stands for no domain.
    #[error(transparent)]
    Domain(#[from] UnknownDomain),
    /// The model cannot be asked.
    #[error(transparent)]
    Completer(#[from] CompleterError),
}
