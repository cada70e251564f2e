//! Rows of Magpie's files: read, written and asked by name, whatever other fields they have.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json_values::JsonValues;
use crate::lines::ReadError;
use crate::names::json_type;

/// One row of a Magpie file: its fields in their order, known or not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record(pub Map<String, Value>);

/// Why a file of records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file cannot be read, or is no JSON.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row is no JSON object.
    #[error("{}:{line}: the row is {found}, expected an object", path.display())]
    NotAnObject {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// JSON type that was found.
        found: &'static str,
    },
    /// A row is neither Magpie's nor a conversation.
    #[error("{}:{line}: no field `instruction`, expected Magpie's rows or ShareGPT's", path.display())]
    NoInstruction {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// A row of an exam asks nothing.
    #[error(
        "{}:{line}: no text in `instruction`, `question`, `problem` or `prompt`, expected a question",
        path.display()
    )]
    NoQuestion {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Record {
    /// A field's text; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// A field's number, if it is one.
    pub fn number(&self, field: &str) -> Option<f64> {
        self.0.get(field).and_then(Value::as_f64)
    }

    /// Whether the field is there and not null.
    pub fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(|value| !value.is_null())
    }

    /// Sets a field, in its place if it is there already.
    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0.insert(field.to_owned(), value.into());
    }

    /// What is asked first.
    pub fn instruction(&self) -> &str {
        self.text("instruction")
    }

    /// What is answered first.
    pub fn response(&self) -> &str {
        self.text("response")
    }

    /// The turns of a conversation with their questions and answers, up to the first gap.
    pub fn turns(&self) -> Vec<(&str, &str)> {
        let later = (2..).map(|turn| {
            (
                self.text(&format!("instruction_{turn}")),
                self.text(&format!("response_{turn}")),
            )
        });
        let first = (self.instruction(), self.response());
        let whole = |turn: &(&str, &str)| !turn.0.is_empty() && !turn.1.is_empty();
        let later = later.take_while(whole);
        std::iter::once(first).chain(later).collect()
    }

    /// Several answers to the first question, if they were asked for.
    pub fn responses(&self) -> Vec<&str> {
        let responses = self.0.get("responses").and_then(Value::as_array);
        let texts = responses.into_iter().flatten();
        texts.map(|text| text.as_str().unwrap_or("")).collect()
    }
}

/// Reads a file of records: a JSON array as Magpie writes it, or one object per line.
///
/// A ShareGPT row without `instruction` is given one from its turns.
///
/// # Errors
///
/// A file that cannot be read, and the line of a row that is none.
pub fn read_records(path: &Path) -> Result<Vec<Record>, RecordsError> {
    let mut records = Vec::new();
    for (line, value) in read_values(path)? {
        let Value::Object(fields) = value else {
            return Err(RecordsError::NotAnObject {
                path: path.to_owned(),
                line,
                found: json_type(&value),
            });
        };
        let mut record = Record(fields);
        if !record.0.contains_key("instruction") {
            super::sharegpt::take_turns(&mut record);
        }
        if !record.0.contains_key("instruction") {
            return Err(RecordsError::NoInstruction {
                path: path.to_owned(),
                line,
            });
        }
        records.push(record);
    }
    Ok(records)
}

/// Rows of any kind with their lines.
pub(super) fn read_values(path: &Path) -> Result<Vec<(usize, Value)>, RecordsError> {
    let mut values = JsonValues::open(path)?;
    let mut rows = Vec::new();
    while let Some((line, bytes)) = values.next_value()? {
        let row_error = |source| ReadError::Row {
            path: path.to_owned(),
            line,
            source,
        };
        rows.push((line, serde_json::from_slice(&bytes).map_err(row_error)?));
    }
    Ok(rows)
}

/// Writes records at once: Magpie's array into a `.json`, one object per line into any other file.
///
/// # Errors
///
/// [`RecordsError::Write`]; the file is either whole or as it was before.
pub fn write_records(path: &Path, records: &[Record]) -> Result<(), RecordsError> {
    let is_array = path.extension().is_some_and(|ending| ending == "json");
    let text = if is_array {
        array_text(records)
    } else {
        let lines = records.iter().map(|record| line_text(record) + "\n");
        lines.collect()
    };
    write_whole(path, text.as_bytes()).map_err(|source| RecordsError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file under another name, brings it to the disk and moves it to its place.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn line_text(record: &Record) -> String {
    serde_json::to_string(record).expect("a record is JSON")
}

/// The array as Python's `json.dump(.., indent=2)` writes it: what is not printable ASCII is
/// escaped, which in pretty-printed JSON is found in strings only.
fn array_text(records: &[Record]) -> String {
    let text = serde_json::to_string_pretty(records).expect("a record is JSON");
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, ' '..='~' | '\n') {
            ascii.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Record>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, text).unwrap();
        let dir = format!("{}/", folder.path().display());
        read_records(&path).map_err(|error| error.to_string().replace(&dir, ""))
    }

    /// What `json.dumps([..], indent=2)` of Python 3 writes for the same row.
    const PYTHON: &str = "[\n  {\n    \"id\": 0,\n    \"instruction\": \"\\u4f60\\ud83d\\ude00 \\u007f\\\"\\n\",\n    \
        \"a\": [],\n    \"b\": {\n      \"t\": 1.0,\n      \"n\": null\n    }\n  }\n]";

    #[test]
    fn an_array_is_written_as_python_writes_it() {
        let records = read(PYTHON).unwrap();
        assert_eq!(records[0].instruction(), "你😀 \u{7f}\"\n");
        assert_eq!(array_text(&records), PYTHON);
    }

    #[test]
    fn lines_and_arrays_hold_the_same_rows() {
        let rows = read("[{\"instruction\": \"a\", \"x\": 1}, {\"instruction\": \"b\"}]").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.json"] {
            let path = folder.path().join(name);
            write_records(&path, &rows).unwrap();
            assert_eq!(read_records(&path).unwrap(), rows);
        }
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("[]").unwrap(), []);
    }

    #[test]
    fn a_broken_row_is_named() {
        assert_eq!(
            read("{\"instruction\": \"a\"}\n7").unwrap_err(),
            "a.json:2: the row is a number, expected an object"
        );
        assert_eq!(
            read("{\"prompt\": \"a\"}").unwrap_err(),
            "a.json:1: no field `instruction`, expected Magpie's rows or ShareGPT's"
        );
        let error = read("[{\"instruction\": \"a\"},\n{\"instruction\" 3}]").unwrap_err();
        assert!(error.starts_with("a.json:2: not a valid row"), "{error}");
    }

    /// A later turn counts only with both of its halves.
    #[test]
    fn turns_end_at_the_first_gap() {
        let row = r#"[{"instruction": "a", "response": "b", "instruction_2": "c", "response_2": "d",
            "instruction_3": "e", "response_3": null, "responses": ["b", "x"]}]"#;
        let records = read(row).unwrap();
        assert_eq!(records[0].turns(), [("a", "b"), ("c", "d")]);
        assert_eq!(records[0].responses(), ["b", "x"]);
    }
}
