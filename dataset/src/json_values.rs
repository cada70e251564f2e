//! Values of a JSON file: the items of an array, or values one after the other, cut out one at a
//! time so that a file of any size can be read.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::lines::{MAX_LINE_BYTES, ReadError, TextFile, open_buffered};

/// Where the reader stands between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Sequence,
    ArrayStart,
    ArrayValue,
    ArrayAfterValue,
    End,
}

/// Values of a JSON file with their lines, not yet parsed.
#[derive(Debug)]
pub(crate) struct JsonValues {
    path: PathBuf,
    reader: BufReader<TextFile>,
    line: usize,
    offset: u64,
    place: Place,
}

impl JsonValues {
    /// Opens a file at its first value.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let mut reader = open_buffered(path)?;
        let mut offset = 0;
        let start = reader.fill_buf().map_err(|source| io_error(path, source))?;
        if start.starts_with("\u{feff}".as_bytes()) {
            reader.consume(3);
            offset = 3;
        }
        Ok(Self {
            path: path.to_owned(),
            reader,
            line: 1,
            offset,
            place: Place::Start,
        })
    }

    /// The file that is read.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next value's line and bytes.
    pub(crate) fn next_value(&mut self) -> Result<Option<(usize, Vec<u8>)>, ReadError> {
        loop {
            let Some(byte) = self.peek()? else {
                return match self.place {
                    Place::Start | Place::Sequence | Place::End => Ok(None),
                    _ => Err(self.row_error("the file ends inside an array, expected `]`")),
                };
            };
            match (self.place, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') => self.advance(byte),
                (Place::Start, b'[') => {
                    self.advance(byte);
                    self.place = Place::ArrayStart;
                }
                (Place::ArrayStart | Place::ArrayAfterValue, b']') => {
                    self.advance(byte);
                    self.place = Place::End;
                }
                (Place::ArrayAfterValue, b',') => {
                    self.advance(byte);
                    self.place = Place::ArrayValue;
                }
                (Place::ArrayAfterValue, _) => {
                    return Err(self.row_error("expected `,` or `]` after an item of the array"));
                }
                (Place::End, _) => {
                    return Err(self.row_error("expected nothing after the array's `]`"));
                }
                (Place::Start | Place::Sequence, _) => {
                    self.place = Place::Sequence;
                    return self.cut_value().map(Some);
                }
                (Place::ArrayStart | Place::ArrayValue, _) => {
                    self.place = Place::ArrayAfterValue;
                    return self.cut_value().map(Some);
                }
            }
        }
    }

    /// Reads up to the end of one value by counting brackets outside of strings; whether it is
    /// JSON is for the parser to say.
    fn cut_value(&mut self) -> Result<(usize, Vec<u8>), ReadError> {
        let (line, start) = (self.line, self.offset);
        let mut bytes = Vec::new();
        let mut depth = 0_usize;
        let mut in_string = false;
        let mut escaped = false;
        while let Some(byte) = self.peek()? {
            let ends_scalar = matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
            if depth == 0 && !in_string && ends_scalar && !bytes.is_empty() {
                break;
            }
            self.advance(byte);
            // The rest of a huge value is passed over, so that the next one can be read.
            if bytes.len() <= MAX_LINE_BYTES {
                bytes.push(byte);
            }
            let mut closes = false;
            if escaped {
                escaped = false;
            } else if in_string {
                escaped = byte == b'\\';
                in_string = byte != b'"';
                closes = !in_string;
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth = depth.saturating_sub(1);
                        closes = true;
                    }
                    _ => {}
                }
            }
            if closes && depth == 0 {
                break;
            }
        }
        if bytes.len() > MAX_LINE_BYTES {
            return Err(ReadError::TooLong {
                path: self.path.clone(),
                line,
            });
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            let before = &bytes[..error.valid_up_to()];
            return Err(ReadError::NotUtf8 {
                path: self.path.clone(),
                line: line + before.split(|&byte| byte == b'\n').count() - 1,
                offset: start + before.len() as u64,
            });
        }
        Ok((line, bytes))
    }

    fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        let buffer = self
            .reader
            .fill_buf()
            .map_err(|source| io_error(&self.path, source))?;
        Ok(buffer.first().copied())
    }

    fn advance(&mut self, byte: u8) {
        self.reader.consume(1);
        self.offset += 1;
        self.line += usize::from(byte == b'\n');
    }

    fn row_error(&self, message: &str) -> ReadError {
        ReadError::Row {
            path: self.path.clone(),
            line: self.line,
            source: serde::de::Error::custom(message),
        }
    }
}

fn io_error(path: &Path, source: std::io::Error) -> ReadError {
    ReadError::Io {
        path: path.to_owned(),
        source,
    }
}
