//! Results as they come, so that work that was stopped goes on where it was.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why the results so far cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("{}: {doing}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// File concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file belongs to other work.
    #[error(
        "{}: holds results with {difference} \
         (--overwrite begins again, --out names another folder)",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What is not the same.
        difference: Difference,
    },
    /// A line is no result.
    #[error("{}:{line}: not a result of this work", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What was expected.
        source: serde_json::Error,
    },
}

/// Results on the disk: a line with what they depend on, then one line each.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    records: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens the results of some work, or begins them.
    ///
    /// `settings` is a JSON object of everything the results depend on. A last line that was being
    /// written when the process ended is dropped, and so are results after the last whole group:
    /// `num_kept` is asked how many of those found are to be kept.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written, holds the results of other settings, or is broken.
    pub fn open(
        path: &Path,
        settings: &Value,
        num_kept: impl FnOnce(usize) -> usize,
    ) -> Result<Self, JournalError> {
        let error = |doing| {
            move |source| JournalError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let text = match read_whole_lines(path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(error("cannot be read")(source)),
        };
        let mut lines = text.lines().enumerate();
        let line_error = |line: usize| {
            move |source| JournalError::Line {
                path: path.to_owned(),
                line: line + 1,
                source,
            }
        };
        let mut records: Vec<T> = Vec::new();
        if let Some((line, header)) = lines.next() {
            let found: Value = serde_json::from_str(header).map_err(line_error(line))?;
            if let Some(difference) = difference(&found, settings) {
                return Err(JournalError::Other {
                    path: path.to_owned(),
                    difference,
                });
            }
            for (line, text) in lines {
                records.push(serde_json::from_str(text).map_err(line_error(line))?);
            }
        }
        records.truncate(num_kept(records.len()));

        // What is kept is written anew, in one move: a torn line would spoil the next one.
        let mut kept = format!("{settings}\n");
        for record in &records {
            kept += &line_of(record);
        }
        let temporary = path.with_extension("jsonl.tmp");
        fs::write(&temporary, kept)
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(error("cannot be written"))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(error("cannot be written"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            records,
        })
    }

    /// Results so far, in the order they came.
    pub fn records(&self) -> &[T] {
        &self.records
    }

    /// Adds results that belong together.
    ///
    /// # Errors
    ///
    /// A disk that is full or gone.
    pub fn append(&mut self, records: Vec<T>) -> Result<(), JournalError> {
        let text: String = records.iter().map(line_of).collect();
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.flush())
            .map_err(|source| JournalError::Io {
                doing: "cannot be written",
                path: self.path.clone(),
                source,
            })?;
        self.records.extend(records);
        Ok(())
    }
}

/// The lines of a file that have ended. One that is being written, or was when its process ended,
/// may stop within a character, and so is cut off before the bytes are read as text.
///
/// # Errors
///
/// A file that cannot be read, or whose lines are not UTF-8.
pub fn read_whole_lines(path: &Path) -> io::Result<String> {
    let mut bytes = fs::read(path)?;
    let end = bytes.iter().rposition(|&byte| byte == b'\n');
    bytes.truncate(end.map_or(0, |end| end + 1));
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn line_of<T: Serialize>(record: &T) -> String {
    let json = serde_json::to_string(record).expect("results are numbers and texts");
    json + "\n"
}

/// The first setting in which two objects of settings differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Setting that differs.
    pub field: String,
    /// Its value among those found.
    pub found: String,
    /// Its value among those expected.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            found,
            expected,
        } = self;
        write!(formatter, "{field} = {found}, expected {expected}")
    }
}

/// What keeps results of the settings `found` from being results of those `expected`.
pub fn difference(found: &Value, expected: &Value) -> Option<Difference> {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (found, expected) = (fields(found), fields(expected));
    let shown =
        |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let mut names = expected.keys().chain(found.keys());
    let field = names.find(|name| found.get(*name) != expected.get(*name))?;
    Some(Difference {
        found: shown(found.get(field)),
        expected: shown(expected.get(field)),
        field: field.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Found = Result<Vec<u32>, String>;

    fn reopen(path: &Path, settings: &Value, group: usize) -> Found {
        let journal = Journal::<u32>::open(path, settings, |count| count - count % group);
        let dir = path.parent().unwrap().display().to_string();
        journal
            .map(|journal| journal.records().to_vec())
            .map_err(|error| error.to_string().replace(&dir, "DIR"))
    }

    /// Three results in groups of two, the fourth torn off: the first group is left.
    #[test]
    fn a_torn_line_and_half_a_group_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let settings = json!({"shots": 0});
        let mut journal = Journal::open(&path, &settings, |count| count).unwrap();
        journal.append(vec![1_u32, 2]).unwrap();
        journal.append(vec![3]).unwrap();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"shots\":0}\n1\n2\n3\n");
        // The second is torn within a character.
        for torn in [&b"4"[..], b"4\xe4\xbd"] {
            fs::write(&path, [text.as_bytes(), torn].concat()).unwrap();
            assert_eq!(reopen(&path, &settings, 2), Ok(vec![1, 2]));
            assert_eq!(fs::read_to_string(&path).unwrap(), "{\"shots\":0}\n1\n2\n");
        }
    }

    #[test]
    fn results_of_other_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        assert_eq!(reopen(&path, &json!({"style": "harness"}), 1), Ok(vec![]));
        assert_eq!(
            reopen(&path, &json!({"style": "minimind"}), 1).unwrap_err(),
            "DIR/answers.jsonl: holds results with style = \"harness\", expected \"minimind\" \
             (--overwrite begins again, --out names another folder)"
        );
        fs::write(&path, "{}\nx\n").unwrap();
        assert_eq!(
            reopen(&path, &json!({}), 1).unwrap_err(),
            "DIR/answers.jsonl:2: not a result of this work"
        );
    }
}
