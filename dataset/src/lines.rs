//! Lines of a UTF-8 text file, one at a time, with the position that an error message needs.
//!
//! A file whose name ends in `.gz` is unpacked on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// Longest line, row or JSON value that a reader accepts, in bytes.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Size of a reader's buffer, in bytes.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// Why a text file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused to open or read the file.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// File that was being read.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes are not text.
    #[error("{}:{line}: found a byte that is not UTF-8 at offset {offset} of the file", path.display())]
    NotUtf8 {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Offset of the first bad byte from the start of the file.
        offset: u64,
    },
    /// One line or value is larger than any real document.
    #[error(
        "{}:{line}: longer than the limit of {MAX_LINE_BYTES} bytes, expected one document per line",
        path.display()
    )]
    TooLong {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// A field of a table begins with a quote, and the file ends within it.
    #[error("{}:{line}: the row has a quote that is never closed", path.display())]
    OpenQuote {
        /// File that was being read.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: usize,
    },
    /// A line is not the JSON value that the reader expects.
    #[error("{}:{line}: not a valid row", path.display())]
    Row {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Where in the line, and what was expected.
        source: serde_json::Error,
    },
    /// The file holds nothing.
    #[error("{}: the file is empty, expected at least one row", path.display())]
    Empty {
        /// File that was being read.
        path: PathBuf,
    },
}

/// One line without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line number, from 1.
    pub number: usize,
    /// The line's text; a byte order mark and `\r` before `\n` are dropped.
    pub text: String,
}

/// Iterator over the lines of a file that holds one line in memory.
///
/// It goes on after a line that is no text or too long, and ends when the file cannot be read.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<TextFile>,
    number: usize,
    offset: u64,
    done: bool,
}

impl Lines {
    /// Opens a file at its first line.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            path: path.to_owned(),
            reader: open_buffered(path)?,
            number: 0,
            offset: 0,
            done: false,
        })
    }

    fn read_line(&mut self) -> Result<Option<Line>, ReadError> {
        let mut bytes = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let len = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|source| ReadError::Io {
                path: self.path.clone(),
                source,
            })?;
        if len == 0 {
            return Ok(None);
        }
        self.number += 1;
        let start = self.offset;
        self.offset += len as u64;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.len() > MAX_LINE_BYTES {
            self.skip_line()?;
            return Err(ReadError::TooLong {
                path: self.path.clone(),
                line: self.number,
            });
        }
        let mut text = String::from_utf8(bytes).map_err(|error| ReadError::NotUtf8 {
            path: self.path.clone(),
            line: self.number,
            offset: start + error.utf8_error().valid_up_to() as u64,
        })?;
        if self.number == 1 && text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Ok(Some(Line {
            number: self.number,
            text,
        }))
    }

    /// Passes over the rest of a line without keeping it.
    fn skip_line(&mut self) -> Result<(), ReadError> {
        let len = self.reader.skip_until(b'\n');
        let len = len.map_err(|source| ReadError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.offset += len as u64;
        Ok(())
    }
}

impl Iterator for Lines {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let line = self.read_line().transpose();
        self.done = matches!(line, None | Some(Err(ReadError::Io { .. })));
        line
    }
}

/// A file's text, unpacked if it is packed.
#[derive(Debug)]
pub(crate) enum TextFile {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
}

impl Read for TextFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Gzip(file) => file.read(buffer),
        }
    }
}

/// Opens a file for buffered reading, with the path in the error.
pub(crate) fn open_buffered(path: &Path) -> Result<BufReader<TextFile>, ReadError> {
    let file = File::open(path).map_err(|source| ReadError::Io {
        path: path.to_owned(),
        source,
    })?;
    let file = if path.extension().is_some_and(|ending| ending == "gz") {
        TextFile::Gzip(Box::new(MultiGzDecoder::new(file)))
    } else {
        TextFile::Plain(file)
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(bytes: &[u8]) -> Vec<Result<String, String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        let prefix = format!("{}/", folder.path().display());
        Lines::open(&path)
            .unwrap()
            .map(|line| {
                line.map(|line| format!("{}:{}", line.number, line.text))
                    .map_err(|error| error.to_string().replace(&prefix, ""))
            })
            .collect()
    }

    /// A byte order mark, CRLF and a missing last line end are how editors save, not content.
    #[test]
    fn line_ends_and_byte_order_mark_are_dropped() {
        let lines = lines_of("\u{feff}一\r\n\n two".as_bytes());
        assert_eq!(
            lines,
            [Ok("1:一".into()), Ok("2:".into()), Ok("3: two".into())]
        );
    }

    /// Byte 6 is the first of the two that are not text: `ab\n` is 0..3, `cde` is 3..6.
    #[test]
    fn a_byte_that_is_not_utf8_is_named_by_line_and_offset() {
        let lines = lines_of(b"ab\ncde\xff\xfe\nfg\n");
        let message = "a.txt:2: found a byte that is not UTF-8 at offset 6 of the file";
        assert_eq!(
            lines,
            [Ok("1:ab".into()), Err(message.into()), Ok("3:fg".into())]
        );
    }

    /// A file without line ends must not fill the memory.
    #[test]
    fn a_line_over_the_limit_is_refused() {
        let mut bytes = b"short\n".to_vec();
        bytes.resize(6 + 2 * MAX_LINE_BYTES, b'x');
        bytes.extend(b"\nnext");
        let message = format!(
            "a.txt:2: longer than the limit of {MAX_LINE_BYTES} bytes, expected one document per line"
        );
        assert_eq!(
            lines_of(&bytes),
            [Ok("1:short".into()), Err(message), Ok("3:next".into())]
        );
    }

    /// Packed with Python's `gzip.compress(b"one\\ntwo\\n", mtime=0)`, and cut short once.
    #[test]
    fn packed_files_are_unpacked() {
        let packed = [
            31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 207, 75, 229, 42, 41, 207, 231, 2, 0, 230, 11,
            186, 18, 8, 0, 0, 0,
        ];
        let lines = |bytes: &[u8]| -> Vec<Result<String, ReadError>> {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.txt.gz");
            std::fs::write(&path, bytes).unwrap();
            let lines = Lines::open(&path).unwrap();
            lines.map(|line| line.map(|line| line.text)).collect()
        };
        let whole: Vec<String> = lines(&packed).into_iter().map(Result::unwrap).collect();
        assert_eq!(whole, ["one", "two"]);
        let cut = lines(&packed[..packed.len() - 6]);
        assert!(matches!(cut.last(), Some(Err(ReadError::Io { .. }))));
    }

    /// The path is what a user has to mend.
    #[test]
    fn a_missing_file_is_named() {
        let error = Lines::open(Path::new("no/such.txt")).unwrap_err();
        assert_eq!(error.to_string(), "no/such.txt: cannot be read");
    }
}
