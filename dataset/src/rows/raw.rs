//! Rows of a file as they stand there: JSON values with their lines.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use serde_json::{Map, Value};

use super::chat_formats::unwrapped;
use super::parquet::ParquetRows;
use super::{RowFault, RowsError};
use crate::json_values::JsonValues;
use crate::lines::{Lines, ReadError, TextFile, open_buffered};
use crate::source::csv::{GuardedFile, is_open_quote};

/// A row as the file has it, or why it cannot be read.
#[derive(Debug)]
pub(crate) struct RawRow {
    /// Line on which the row begins, from 1; rows in one object share its line.
    pub(crate) line: usize,
    pub(crate) value: Result<Value, RowFault>,
}

/// Iterator over the rows of a `.jsonl`, `.json`, `.csv` or `.parquet` file, those of APT's wrapped
/// files one by one; it ends after an error.
#[derive(Debug)]
pub(crate) struct RawRows {
    layout: Layout,
    /// Rows of the last object around several.
    unwrapped: VecDeque<RawRow>,
    done: bool,
}

#[derive(Debug)]
enum Layout {
    Lines(Lines),
    Values(JsonValues),
    Table(Table),
    Parquet(Box<ParquetRows>),
}

impl RawRows {
    pub(crate) fn open(path: &Path) -> Result<Self, RowsError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let layout = match ending {
            "jsonl" | "ndjson" => Layout::Lines(Lines::open(path)?),
            "json" => Layout::Values(JsonValues::open(path)?),
            "csv" => Layout::Table(Table::open(path)?),
            "parquet" => Layout::Parquet(Box::new(ParquetRows::open(path)?)),
            _ => {
                return Err(RowsError::UnknownKind {
                    path: path.to_owned(),
                });
            }
        };
        Ok(Self {
            layout,
            unwrapped: VecDeque::new(),
            done: false,
        })
    }

    /// A row, or the first of an object around several.
    fn read_unwrapped(&mut self) -> Result<Option<RawRow>, RowsError> {
        loop {
            if let Some(row) = self.unwrapped.pop_front() {
                return Ok(Some(row));
            }
            let Some(RawRow { line, value }) = self.read()? else {
                return Ok(None);
            };
            let value = match value.map(unwrapped) {
                Ok(Ok(rows)) => {
                    let rows = rows.into_iter().map(Ok);
                    self.unwrapped
                        .extend(rows.map(|value| RawRow { line, value }));
                    continue;
                }
                Ok(Err(row)) => Ok(row),
                Err(fault) => Err(fault),
            };
            return Ok(Some(RawRow { line, value }));
        }
    }

    fn read(&mut self) -> Result<Option<RawRow>, RowsError> {
        match &mut self.layout {
            Layout::Lines(lines) => read_line(lines),
            Layout::Values(values) => read_value(values),
            Layout::Table(table) => table.read_row(),
            Layout::Parquet(rows) => rows.read_row(),
        }
    }
}

impl Iterator for RawRows {
    type Item = Result<RawRow, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.read_unwrapped().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

fn read_line(lines: &mut Lines) -> Result<Option<RawRow>, RowsError> {
    for line in lines {
        let (line, value) = match line {
            Ok(line) if line.text.trim().is_empty() => continue,
            Ok(line) => (
                line.number,
                serde_json::from_str(&line.text).map_err(RowFault::Json),
            ),
            Err(error) => bad_row(error)?,
        };
        return Ok(Some(RawRow { line, value }));
    }
    Ok(None)
}

fn read_value(values: &mut JsonValues) -> Result<Option<RawRow>, RowsError> {
    let (line, value) = match values.next_value() {
        Ok(None) => return Ok(None),
        Ok(Some((line, bytes))) => (line, serde_json::from_slice(&bytes).map_err(RowFault::Json)),
        Err(error @ (ReadError::NotUtf8 { .. } | ReadError::TooLong { .. })) => bad_row(error)?,
        // Where an array is broken, nothing says where its next item begins.
        Err(error) => return Err(error.into()),
    };
    Ok(Some(RawRow { line, value }))
}

/// The line and fault of an error that concerns one row; other errors pass through.
fn bad_row(error: ReadError) -> Result<(usize, Result<Value, RowFault>), RowsError> {
    match error {
        ReadError::NotUtf8 { line, .. } => Ok((line, Err(RowFault::NotUtf8))),
        ReadError::TooLong { line, .. } => Ok((line, Err(RowFault::TooLong))),
        error => Err(error.into()),
    }
}

/// A table with a line of names at its head: each row is an object of texts.
#[derive(Debug)]
struct Table {
    reader: csv::Reader<GuardedFile<BufReader<TextFile>>>,
    path: PathBuf,
    row_start: Arc<AtomicU64>,
    names: Vec<String>,
    record: ByteRecord,
}

impl Table {
    fn open(path: &Path) -> Result<Self, RowsError> {
        let (guarded, row_start) = GuardedFile::new(open_buffered(path)?);
        let mut reader = ReaderBuilder::new().from_reader(guarded);
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(io_error(path, error).into()),
        };
        let name = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            name.trim_start_matches('\u{feff}').to_owned()
        };
        Ok(Self {
            names: header.iter().map(name).collect(),
            path: path.to_owned(),
            reader,
            row_start,
            record: ByteRecord::new(),
        })
    }

    fn read_row(&mut self) -> Result<Option<RawRow>, RowsError> {
        let start = self.reader.position().clone();
        self.row_start.store(start.byte(), Ordering::Relaxed);
        let line = |position: Option<&csv::Position>| {
            position.map_or(start.line(), csv::Position::line) as usize
        };
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(RawRow {
                line: line(self.record.position()),
                value: self.value(),
            })),
            Err(error) => match error.kind() {
                ErrorKind::Io(io) if io.kind() == io::ErrorKind::FileTooLarge => {
                    // Without its closing quote the row has no end after which to go on.
                    let path = self.path.clone();
                    let line = line(None);
                    Err(ReadError::TooLong { path, line }.into())
                }
                ErrorKind::Io(io) if is_open_quote(io) => {
                    let path = self.path.clone();
                    let line = line(None);
                    Err(ReadError::OpenQuote { path, line }.into())
                }
                ErrorKind::Io(_) => Err(io_error(&self.path, error).into()),
                _ => Ok(Some(RawRow {
                    line: line(error.position()),
                    value: Err(RowFault::Csv(error)),
                })),
            },
        }
    }

    fn value(&self) -> Result<Value, RowFault> {
        let mut fields = Map::new();
        for (name, cell) in self.names.iter().zip(&self.record) {
            let text = std::str::from_utf8(cell).map_err(|_| RowFault::NotUtf8)?;
            fields.insert(name.clone(), Value::String(text.to_owned()));
        }
        Ok(Value::Object(fields))
    }
}

fn io_error(path: &Path, error: csv::Error) -> ReadError {
    ReadError::Io {
        path: path.to_owned(),
        source: error.into(),
    }
}
