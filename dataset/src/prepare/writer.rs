//! A file of JSON lines that is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cache::hex;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Rows in it.
    pub num_rows: usize,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// Writes rows beside the file's place and moves them there at the end; an earlier file of the name
/// stays until then.
#[derive(Debug)]
pub struct RowsWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    num_rows: usize,
}

impl RowsWriter {
    /// Begins a file, with the folders above it.
    ///
    /// # Errors
    ///
    /// What the operating system refuses.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fault(folder))?;
        }
        let file = File::create(&partial).map_err(fault(&partial))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            file: BufWriter::new(file),
            hash: Sha256::new(),
            num_rows: 0,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// What the operating system refuses.
    ///
    /// # Panics
    ///
    /// For a map whose keys are no texts.
    pub fn push(&mut self, row: &impl Serialize) -> Result<(), WriteError> {
        let line = serde_json::to_string(row).expect("records have texts for keys");
        self.push_line(&line)
    }

    /// Adds a row that is JSON already.
    ///
    /// # Errors
    ///
    /// What the operating system refuses.
    pub fn push_line(&mut self, line: &str) -> Result<(), WriteError> {
        for bytes in [line.as_bytes(), b"\n"] {
            self.hash.update(bytes);
            self.file.write_all(bytes).map_err(fault(&self.partial))?;
        }
        self.num_rows += 1;
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    ///
    /// What the operating system refuses.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.file.flush().map_err(fault(&self.partial))?;
        let synced = self.file.get_ref().sync_all();
        synced.map_err(fault(&self.partial))?;
        fs::rename(&self.partial, &self.path).map_err(fault(&self.path))?;
        Ok(Written {
            path: self.path.clone(),
            num_rows: self.num_rows,
            sha256: hex(&std::mem::take(&mut self.hash).finalize()),
        })
    }
}

impl Drop for RowsWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = fs::remove_file(&self.partial);
    }
}

pub(super) fn fault(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is `printf '{"a":1}\n[2]\n' | sha256sum`.
    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.jsonl");
        let names = || -> Vec<_> {
            let entries = fs::read_dir(folder.path().join("new")).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        let mut writer = RowsWriter::create(&path).unwrap();
        writer.push(&serde_json::json!({"a": 1})).unwrap();
        assert!(!path.exists());
        drop(writer);
        assert!(names().is_empty());

        let mut writer = RowsWriter::create(&path).unwrap();
        writer.push(&serde_json::json!({"a": 1})).unwrap();
        writer.push_line("[2]").unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n[2]\n");
        assert_eq!(names(), ["a.jsonl"]);
        assert_eq!(written.num_rows, 2);
        assert_eq!(
            written.sha256,
            "1dc7685242afcdc2aa6522253d593c8011c6e8f94c1e47f7d049cca5aaa72d58"
        );
    }
}
