//! Texts of one column of a CSV file with a header line (MiniMind's pretraining layout).

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::SourceError;
use crate::lines::{BUFFER_BYTES, MAX_LINE_BYTES, ReadError, TextFile, open_buffered};
use crate::names::listed;

/// Iterator over one column's values.
pub(super) struct CsvTexts {
    path: PathBuf,
    reader: csv::Reader<GuardedFile<BufReader<TextFile>>>,
    row_start: Arc<AtomicU64>,
    column: usize,
    record: ByteRecord,
}

impl CsvTexts {
    pub(super) fn open(path: &Path, field: &str) -> Result<Self, SourceError> {
        let (guarded, row_start) = GuardedFile::new(open_buffered(path)?);
        let mut reader = ReaderBuilder::new().from_reader(guarded);
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
        let Ok(text) = std::str::from_utf8(&self.record[self.column]) else {
            let row = self.record.position().unwrap_or(&start);
            return Err(not_utf8_error(&self.path, row).into());
        };
        Ok(Some(text.to_owned()))
    }
}

impl Iterator for CsvTexts {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_text().transpose()
    }
}

/// A file that refuses to be read on when one row has grown over the limit, and to end within quotes:
/// a quote that is never closed would otherwise make one row of the rest of the file.
#[derive(Debug)]
pub(crate) struct GuardedFile<R> {
    file: R,
    position: u64,
    row_start: Arc<AtomicU64>,
    place: Place,
}

/// A table that ends within quotes.
#[derive(Debug, thiserror::Error)]
#[error("a quote is never closed")]
struct OpenQuote;

/// Whether a table could not be read on because it ends within quotes.
pub(crate) fn is_open_quote(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(source) if source.is::<OpenQuote>())
}

/// Where in a table's text a byte stands, as RFC 4180 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Bare,
    Quoted,
    /// After a quote within quotes: it was the last, or the first of two that mean one.
    AfterQuote,
}

impl Place {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::AfterQuote,
            (Self::Quoted, _) | (Self::FieldStart | Self::AfterQuote, b'"') => Self::Quoted,
            (_, b',' | b'\n' | b'\r') => Self::FieldStart,
            _ => Self::Bare,
        }
    }
}

impl<R> GuardedFile<R> {
    /// The guarded file, and where its reader notes the byte at which a row begins.
    pub(crate) fn new(file: R) -> (Self, Arc<AtomicU64>) {
        let row_start = Arc::new(AtomicU64::new(0));
        let guarded = Self {
            file,
            position: 0,
            row_start: Arc::clone(&row_start),
            place: Place::FieldStart,
        };
        (guarded, row_start)
    }
}

impl<R: Read> Read for GuardedFile<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let row_bytes = self
            .position
            .saturating_sub(self.row_start.load(Ordering::Relaxed));
        if row_bytes > (MAX_LINE_BYTES + BUFFER_BYTES) as u64 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = self.file.read(buffer)?;
        if len == 0 && self.place == Place::Quoted {
            return Err(io::Error::other(OpenQuote));
        }
        let bytes = buffer[..len].iter();
        self.place = bytes.fold(self.place, |place, &byte| place.after(byte));
        self.position += len as u64;
        Ok(len)
    }
}

/// Names the first byte of a row that is not text. Quotes make a value's place in the record differ
/// from its place in the file, so the row is read again as it stands there.
fn not_utf8_error(path: &Path, row: &csv::Position) -> ReadError {
    let mut bytes = Vec::new();
    let mut file = match open_buffered(path) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut read_row = || {
        io::copy(&mut file.by_ref().take(row.byte()), &mut io::sink())?;
        let most = 2 * MAX_LINE_BYTES as u64;
        file.by_ref().take(most).read_to_end(&mut bytes)
    };
    let path = path.to_owned();
    if let Err(source) = read_row() {
        return ReadError::Io { path, source };
    }
    let end = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
    ReadError::NotUtf8 {
        path,
        line: row.line() as usize + bytes[..end].split(|&byte| byte == b'\n').count() - 1,
        offset: row.byte() + end as u64,
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
        ErrorKind::Io(io) if is_open_quote(io) => ReadError::OpenQuote {
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
