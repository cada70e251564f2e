//! Texts of one column of a CSV file with a header line (MiniMind's pretraining layout).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::{SourceError, listed};
use crate::lines::{BUFFER_BYTES, MAX_LINE_BYTES, ReadError};

/// Iterator over one column's values.
pub(super) struct CsvTexts {
    path: PathBuf,
    reader: csv::Reader<GuardedFile>,
    row_start: Arc<AtomicU64>,
    column: usize,
    record: ByteRecord,
}

impl CsvTexts {
    pub(super) fn open(path: &Path, field: &str) -> Result<Self, SourceError> {
        let io_error = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io_error)?;
        let row_start = Arc::new(AtomicU64::new(0));
        let guarded = GuardedFile {
            file,
            position: 0,
            row_start: Arc::clone(&row_start),
        };
        let mut reader = ReaderBuilder::new()
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(guarded);
        let header = reader
            .byte_headers()
            .map_err(|error| csv_error(path, 1, error))?;
        let names: Vec<String> = header
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let Some(column) = names.iter().position(|name| name == field) else {
            if names.is_empty() {
                return Err(ReadError::Empty {
                    path: path.to_owned(),
                }
                .into());
            }
            return Err(SourceError::MissingField {
                path: path.to_owned(),
                line: 1,
                field: field.to_owned(),
                found: listed(names.iter().map(String::as_str)),
            });
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            row_start,
            column,
            record: ByteRecord::new(),
        })
    }

    fn read_text(&mut self) -> Result<Option<String>, SourceError> {
        let start = self.reader.position().clone();
        self.row_start.store(start.byte(), Ordering::Relaxed);
        let found = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|error| csv_error(&self.path, start.line(), error))?;
        if !found {
            return Ok(None);
        }
        let position = self.record.position().unwrap_or(&start);
        let text = std::str::from_utf8(&self.record[self.column]).map_err(|_| {
            // Quotes make a value's place in the file differ from its place in the record, so the
            // row's start is as near as the offset can be told.
            ReadError::NotUtf8 {
                path: self.path.clone(),
                line: position.line() as usize,
                offset: position.byte(),
            }
        })?;
        Ok(Some(text.to_owned()))
    }
}

impl Iterator for CsvTexts {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_text().transpose()
    }
}

/// A file that refuses to be read on when one row has grown over the limit: a quote that is never
/// closed would otherwise take the whole file into memory.
struct GuardedFile {
    file: File,
    position: u64,
    row_start: Arc<AtomicU64>,
}

impl Read for GuardedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let row_bytes = self
            .position
            .saturating_sub(self.row_start.load(Ordering::Relaxed));
        if row_bytes > (MAX_LINE_BYTES + BUFFER_BYTES) as u64 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = self.file.read(buffer)?;
        self.position += len as u64;
        Ok(len)
    }
}

fn csv_error(path: &Path, line: u64, error: csv::Error) -> SourceError {
    let path = path.to_owned();
    let line = error.position().map_or(line, csv::Position::line);
    match error.kind() {
        ErrorKind::Io(io) if io.kind() == io::ErrorKind::FileTooLarge => ReadError::TooLong {
            path,
            line: line as usize,
        }
        .into(),
        _ => SourceError::Csv {
            path,
            line,
            source: error,
        },
    }
}
