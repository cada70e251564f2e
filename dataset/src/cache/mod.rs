//! Tokenised text: built once into memory-mapped shards, keyed by content, or held in memory.
//!
//! One shard per source file. Its key is a hash of the file's bytes, the tokenizer and how the file
//! is read, so moving or renaming a file, changing a weight or adding another source costs nothing,
//! and a changed byte is never missed. To spare the reading of gigabytes at every start, the hash of
//! a file is remembered beside the shards together with its path, size and times of modification.

mod build;
mod hashes;
mod progress;
mod shard;
mod write;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::source::SourceError;
pub use build::{CacheRequest, open_or_build};
pub use progress::{BuildPhase, BuildProgress, StderrProgress};
use shard::Shard;

/// Why tokenised text could not be opened or built.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The text cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file or folder of the cache cannot be read or written.
    #[error("{}: cannot be {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was to be done to it: read, written, locked.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file of a shard is not what was written.
    #[error(
        "{}: damaged token shard: found {found}, expected {expected}; delete the folder {} and it is \
         built anew",
        path.display(),
        folder_of(path).display()
    )]
    Damaged {
        /// File of the shard.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The text changed under the reader.
    #[error("{}: changed while it was being read, expected it to stay the same", path.display())]
    Changed {
        /// File of the text.
        path: PathBuf,
    },
    /// No document of a file has a token.
    #[error("{}: found no token, expected at least one", path.display())]
    NoTokens {
        /// File of the text.
        path: PathBuf,
    },
    /// There are more documents than indices.
    #[error("found {found} documents, expected at most {}", u32::MAX)]
    TooManyDocuments {
        /// Number of documents of all sources.
        found: u64,
    },
}

impl CacheError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Tokens of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentTokens {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Which tokens are to be learnt; `None`: all.
    pub trained: Option<Vec<bool>>,
    /// Size of the document's text in UTF-8 bytes, special tokens not counted.
    pub num_bytes: u64,
}

/// All documents of a corpus as token ids, in the order of sources, files and lines.
#[derive(Debug)]
pub struct TokenShards {
    shards: Vec<Shard>,
    /// Documents before each shard, and the number of all at the end.
    starts: Vec<u32>,
    weights: Vec<f64>,
}

impl TokenShards {
    /// Holds documents in memory; those without tokens are dropped and counted.
    ///
    /// # Panics
    ///
    /// If `trained` has not one mark per token, or there are more documents than 32 bits count.
    pub fn from_documents(documents: Vec<DocumentTokens>) -> Self {
        Self::new(vec![(Shard::in_memory(documents), 1.0)]).expect("documents fit in 32 bits")
    }

    fn new(weighted: Vec<(Shard, f64)>) -> Result<Self, CacheError> {
        let (shards, weights): (Vec<Shard>, Vec<f64>) = weighted.into_iter().unzip();
        let mut found = 0;
        let mut starts = vec![0];
        for shard in &shards {
            found += shard.num_documents() as u64;
            starts.push(u32::try_from(found).map_err(|_| CacheError::TooManyDocuments { found })?);
        }
        Ok(Self {
            shards,
            starts,
            weights,
        })
    }

    /// Number of documents.
    pub fn num_documents(&self) -> usize {
        self.starts[self.shards.len()] as usize
    }

    /// Number of tokens of all documents, each counted once.
    pub fn num_tokens(&self) -> u64 {
        self.shards.iter().map(Shard::num_tokens).sum()
    }

    /// Size of all documents' texts in UTF-8 bytes: what bits per byte are counted against.
    pub fn num_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::num_bytes).sum()
    }

    /// Number of documents that were left out because they have no token.
    pub fn num_dropped(&self) -> u64 {
        self.shards.iter().map(Shard::num_dropped).sum()
    }

    /// Size of some documents' texts in UTF-8 bytes.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn num_bytes_of(&self, documents: &[u32]) -> u64 {
        documents
            .iter()
            .map(|&document| {
                let (shard, local) = self.locate(document);
                shard.document_bytes(local)
            })
            .sum()
    }

    /// Hash of the documents and their weights; shards of equal content have equal ones.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for (shard, weight) in self.shards.iter().zip(&self.weights) {
            hasher.update(shard.key());
            hasher.update(weight.to_le_bytes());
        }
        hex(&hasher.finalize())
    }

    /// How often an epoch sees the document on average: its source's weight.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn weight(&self, document: u32) -> f64 {
        self.weights[self.shard_of(document)]
    }

    /// Number of tokens of a document.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn document_len(&self, document: u32) -> u64 {
        let (shard, local) = self.locate(document);
        let tokens = shard.token_range(local);
        tokens.end - tokens.start
    }

    /// Tokens of a whole document.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn document(&self, document: u32) -> DocumentTokens {
        let (ids, trained) = self.read(document, 0..self.document_len(document));
        let (shard, local) = self.locate(document);
        DocumentTokens {
            ids,
            trained,
            num_bytes: shard.document_bytes(local),
        }
    }

    /// Some tokens of a document, and which of them are to be learnt (`None`: all).
    ///
    /// # Panics
    ///
    /// If there is no such document or it has fewer tokens.
    pub fn read(&self, document: u32, tokens: Range<u64>) -> (Vec<u32>, Option<Vec<bool>>) {
        let (shard, local) = self.locate(document);
        let whole = shard.token_range(local);
        assert!(
            tokens.start <= tokens.end && tokens.end <= whole.end - whole.start,
            "tokens {tokens:?} of a document of {}",
            whole.end - whole.start
        );
        let range = whole.start + tokens.start..whole.start + tokens.end;
        (shard.ids(range.clone()), shard.trained(range))
    }

    /// Whether only some of the document's tokens are to be learnt.
    pub(crate) fn has_marks(&self, document: u32) -> bool {
        self.shards[self.shard_of(document)].has_marks()
    }

    fn shard_of(&self, document: u32) -> usize {
        assert!(
            (document as usize) < self.num_documents(),
            "document {document} of {}",
            self.num_documents()
        );
        self.starts.partition_point(|&start| start <= document) - 1
    }

    fn locate(&self, document: u32) -> (&Shard, usize) {
        let shard = self.shard_of(document);
        let local = document - self.starts[shard];
        (&self.shards[shard], local as usize)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests;
