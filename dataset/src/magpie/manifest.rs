//! What made each file of a folder of generated data, and from what: links by hash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::completer::Usage;
use super::record::write_whole;
use crate::cache::hex;

/// Name of the file.
pub const FILE: &str = "manifest.json";

/// Every step that was begun in a folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Steps by name, in the order in which they were begun.
    pub steps: Map<String, Value>,
}

/// One step of a folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepEntry {
    /// Unix time at which the step was first begun.
    pub begun: u64,
    /// Everything that its result depends on, but for its inputs.
    pub settings: Value,
    /// Files it read.
    pub inputs: BTreeMap<String, FileEntry>,
    /// Files it wrote; empty while it is not done.
    pub outputs: BTreeMap<String, FileEntry>,
    /// What was counted on the way.
    pub counts: Map<String, Value>,
    /// Tokens that it took.
    pub usage: Usage,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Rows in it.
    pub rows: usize,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read or written.
    #[error("{}: cannot be {action}", path.display())]
    Io {
        /// File concerned.
        path: PathBuf,
        /// What was to be done to it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no manifest.
    #[error("{}: not a manifest", path.display())]
    Parse {
        /// File that was being read.
        path: PathBuf,
        /// What was expected.
        source: serde_json::Error,
    },
}

impl Manifest {
    /// The manifest of a folder; an empty one where there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no manifest.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ManifestError::io(&path, "read")(source)),
        };
        serde_json::from_str(&text).map_err(|source| ManifestError::Parse { path, source })
    }

    /// Writes the manifest in one move.
    ///
    /// # Errors
    ///
    /// A disk that is full or gone.
    pub fn save(&self, dir: &Path) -> Result<(), ManifestError> {
        let text = format!("{:#}\n", as_json(self));
        let path = dir.join(FILE);
        write_whole(&path, text.as_bytes()).map_err(ManifestError::io(&path, "written"))
    }

    /// What is known of a step.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Parse`] for an entry of another shape.
    pub fn step(&self, dir: &Path, name: &str) -> Result<Option<StepEntry>, ManifestError> {
        let entry = self.steps.get(name).cloned();
        let entry = entry.map(serde_json::from_value).transpose();
        entry.map_err(|source| ManifestError::Parse {
            path: dir.join(FILE),
            source,
        })
    }

    /// Puts a step in the place of what was known of it.
    pub fn set_step(&mut self, name: &str, entry: &StepEntry) {
        self.steps.insert(name.to_owned(), as_json(entry));
    }
}

/// Settings and entries as they are written down: all their keys are texts.
pub(super) fn as_json(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).expect("structs of texts and numbers are JSON")
}

/// Counts by their names.
pub(super) fn counted<const N: usize>(counts: [(&str, usize); N]) -> Map<String, Value> {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect()
}

impl ManifestError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

/// SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
///
/// A file that cannot be read.
pub fn sha256_of(path: &Path) -> Result<String, ManifestError> {
    let read_error = |source| ManifestError::io(path, "read")(source);
    let mut file = File::open(path).map_err(read_error)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let len = file.read(&mut block).map_err(read_error)?;
        if len == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&block[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of `abc` is FIPS 180-4's example.
    #[test]
    fn a_manifest_reads_back_and_hashes_are_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(folder.path()).unwrap(), Manifest::default());
        let path = folder.path().join("a.txt");
        fs::write(&path, "abc").unwrap();
        let sha256 = sha256_of(&path).unwrap();
        assert_eq!(
            sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let entry = StepEntry {
            begun: 7,
            inputs: BTreeMap::from([("a.txt".to_owned(), FileEntry { sha256, rows: 1 })]),
            ..StepEntry::default()
        };
        let mut manifest = Manifest::default();
        manifest.set_step("generate", &entry);
        manifest.save(folder.path()).unwrap();
        let manifest = Manifest::load(folder.path()).unwrap();
        assert_eq!(
            manifest.step(folder.path(), "generate").unwrap(),
            Some(entry)
        );
        assert_eq!(manifest.step(folder.path(), "respond").unwrap(), None);
    }

    #[test]
    fn a_broken_manifest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "[").unwrap();
        let error = Manifest::load(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("manifest.json: not a manifest"), "{error}");
    }
}
