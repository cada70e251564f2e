//! Rows of a JSONL file, each of a type of its own, with the line in every error.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::lines::{Lines, ReadError};

/// Iterator over the rows of a JSONL file that holds one row in memory; it ends after an error.
#[derive(Debug)]
pub struct JsonlRows<T> {
    path: PathBuf,
    lines: Lines,
    has_row: bool,
    done: bool,
    row: PhantomData<fn() -> T>,
}

/// Opens a JSONL file; blank lines are passed over.
///
/// # Errors
///
/// [`ReadError::Io`] if the file cannot be opened. The iterator's own errors name file and line;
/// a file without any row is [`ReadError::Empty`].
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<JsonlRows<T>, ReadError> {
    Ok(JsonlRows {
        path: path.to_owned(),
        lines: Lines::open(path)?,
        has_row: false,
        done: false,
        row: PhantomData,
    })
}

impl<T: DeserializeOwned> JsonlRows<T> {
    fn read_row(&mut self) -> Result<Option<T>, ReadError> {
        for line in self.lines.by_ref() {
            let line = line?;
            if line.text.trim().is_empty() {
                continue;
            }
            self.has_row = true;
            return serde_json::from_str(&line.text)
                .map(Some)
                .map_err(|source| ReadError::Row {
                    path: self.path.clone(),
                    line: line.number,
                    source,
                });
        }
        if self.has_row {
            Ok(None)
        } else {
            Err(ReadError::Empty {
                path: self.path.clone(),
            })
        }
    }
}

impl<T: DeserializeOwned> Iterator for JsonlRows<T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.read_row().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}
