//! Pretraining text: files named by globs, read as a stream of documents, never whole in memory.

mod config;
pub(crate) mod csv;
mod json;
mod text;

use std::path::{Path, PathBuf};
use std::vec;

use serde_json::Value;

use crate::lines::{Lines, ReadError};
use crate::names::{json_type, listed};
pub use config::{SourceConfig, TextFormat, hashed_fraction, matching_files};

/// Why pretraining text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read, or a line of it is broken.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No source is named at all.
    #[error("no source of text is given, expected at least one path")]
    NoSources,
    /// The path is not a glob.
    #[error("{pattern}: not a valid glob pattern")]
    Pattern {
        /// Path as configured.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// Nothing lies at the path.
    #[error("{pattern}: no file matches, expected a file or a glob such as data/*.jsonl")]
    NoMatch {
        /// Path as configured.
        pattern: String,
    },
    /// The file's name does not say how to read it.
    #[error("{}: unknown kind of file, expected .jsonl, .json, .csv or .txt, each also with .gz, or set `format`", path.display())]
    UnknownFormat {
        /// File that was found.
        path: PathBuf,
    },
    /// The weight is no share.
    #[error("{path}: weight is {weight}, expected a number above 0")]
    Weight {
        /// Path as configured.
        path: String,
        /// Weight as configured.
        weight: f64,
    },
    /// The field with the text is not there.
    #[error("{}:{line}: no field `{field}`, found {found}", path.display())]
    MissingField {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Field as configured.
        field: String,
        /// The fields that are there.
        found: String,
    },
    /// The field with the text holds something else.
    #[error("{}:{line}: {field} is {found}, expected a string or a list of strings", path.display())]
    WrongType {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Field as configured, or what stands in its place.
        field: String,
        /// JSON type that was found.
        found: &'static str,
    },
    /// A CSV row is broken.
    #[error("{}:{line}: not a valid CSV row", path.display())]
    Csv {
        /// File that was being read.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What the CSV reader expected.
        source: ::csv::Error,
    },
    /// The file was read to its end and holds no text.
    #[error("{}: found no text, expected at least one document", path.display())]
    NoDocuments {
        /// File that was being read.
        path: PathBuf,
    },
}

/// One text of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text as the file has it.
    pub text: String,
    /// Position in the list of sources of the one it came from.
    pub source: usize,
}

type Texts = Box<dyn Iterator<Item = Result<String, SourceError>> + Send>;

struct SourceFile {
    path: PathBuf,
    source: usize,
    format: TextFormat,
}

/// Iterator over all documents of all sources, each once, in the order of sources and file names.
///
/// Texts of white space only are left out. The iterator ends after an error.
pub struct Documents {
    sources: Vec<SourceConfig>,
    paths: Vec<PathBuf>,
    total_bytes: u64,
    files: vec::IntoIter<SourceFile>,
    current: Option<OpenFile>,
}

struct OpenFile {
    path: PathBuf,
    source: usize,
    texts: Texts,
    has_text: bool,
}

impl Documents {
    /// Finds the files of all sources; reading starts with the first document asked for.
    ///
    /// # Errors
    ///
    /// A pattern that matches nothing, a file of unknown kind, a weight that is no share.
    pub fn open(sources: &[SourceConfig]) -> Result<Self, SourceError> {
        if sources.is_empty() {
            return Err(SourceError::NoSources);
        }
        let mut files = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            source.validate()?;
            for path in matching_files(&source.path)? {
                let format = source.format_of(&path)?;
                files.push(SourceFile {
                    path,
                    source: index,
                    format,
                });
            }
        }
        let mut total_bytes = 0;
        for file in &files {
            let metadata = std::fs::metadata(&file.path).map_err(|source| ReadError::Io {
                path: file.path.clone(),
                source,
            })?;
            total_bytes += metadata.len();
        }
        Ok(Self {
            sources: sources.to_vec(),
            paths: files.iter().map(|file| file.path.clone()).collect(),
            total_bytes,
            files: files.into_iter(),
            current: None,
        })
    }

    /// All files, in reading order.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Size of all files together, in bytes: what a progress bar counts against.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn open_file(&self, file: SourceFile) -> Result<OpenFile, SourceError> {
        let SourceFile {
            path,
            source,
            format,
        } = file;
        let config = &self.sources[source];
        let texts = read_texts(&path, format, config)?;
        Ok(OpenFile {
            path,
            source,
            texts,
            has_text: false,
        })
    }

    fn next_document(&mut self) -> Result<Option<Document>, SourceError> {
        loop {
            let Some(file) = &mut self.current else {
                let Some(file) = self.files.next() else {
                    return Ok(None);
                };
                self.current = Some(self.open_file(file)?);
                continue;
            };
            match file.texts.next().transpose()? {
                Some(text) if text.trim().is_empty() => {}
                Some(text) => {
                    file.has_text = true;
                    return Ok(Some(Document {
                        text,
                        source: file.source,
                    }));
                }
                None if file.has_text => self.current = None,
                None => {
                    return Err(SourceError::NoDocuments {
                        path: file.path.clone(),
                    });
                }
            }
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.next_document().transpose();
        if matches!(document, Some(Err(_))) {
            self.current = None;
            self.files = Vec::new().into_iter();
        }
        document
    }
}

fn read_texts(
    path: &Path,
    format: TextFormat,
    config: &SourceConfig,
) -> Result<Texts, SourceError> {
    let texts: Texts = match format {
        TextFormat::Jsonl => Box::new(JsonlTexts::open(path, &config.field)?),
        TextFormat::Json => Box::new(json::JsonTexts::open(path, &config.field)?),
        TextFormat::Csv => Box::new(csv::CsvTexts::open(path, &config.field)?),
        TextFormat::Text => Box::new(text::TextDocuments::open(path, &config.document_separator)?),
        TextFormat::Auto => unreachable!("the format of a file is resolved when it is found"),
    };
    Ok(texts)
}

/// One text per line of JSON; blank lines are passed over.
struct JsonlTexts {
    path: PathBuf,
    field: String,
    lines: Lines,
}

impl JsonlTexts {
    fn open(path: &Path, field: &str) -> Result<Self, SourceError> {
        let lines = Lines::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            field: field.to_owned(),
            lines,
        })
    }
}

impl Iterator for JsonlTexts {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) if line.text.trim().is_empty() => continue,
                Ok(line) => line,
                Err(error) => return Some(Err(error.into())),
            };
            return Some(text_of_json(
                line.text.as_bytes(),
                &self.path,
                line.number,
                &self.field,
            ));
        }
    }
}

/// The text of one JSON value: a bare string, or an object whose field is a string or a list of
/// strings, which become lines.
fn text_of_json(
    bytes: &[u8],
    path: &Path,
    line: usize,
    field: &str,
) -> Result<String, SourceError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|source| ReadError::Row {
        path: path.to_owned(),
        line,
        source,
    })?;
    let wrong_type = |name: &str, found: &Value| SourceError::WrongType {
        path: path.to_owned(),
        line,
        field: name.to_owned(),
        found: json_type(found),
    };
    let mut object = match value {
        Value::String(text) => return Ok(text),
        Value::Object(object) => object,
        other => return Err(wrong_type("the row", &other)),
    };
    match object.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(&format!("an item of field `{field}`"), &other)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|texts| texts.join("\n")),
        Some(other) => Err(wrong_type(&format!("field `{field}`"), &other)),
        None => Err(SourceError::MissingField {
            path: path.to_owned(),
            line,
            field: field.to_owned(),
            found: listed(object.keys().map(String::as_str)),
        }),
    }
}

#[cfg(test)]
mod tests;
