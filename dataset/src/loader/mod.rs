//! Endless, deterministic batches of packed rows, with a cursor from which they go on exactly.

mod prefetch;
mod rows;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::TokenBatch;
use crate::cache::TokenShards;
use crate::pack::{PackIndex, PackMode};
use crate::source::hashed_fraction;
pub use prefetch::{Prefetched, Prefetcher};
use rows::Rows;

/// Why a loader cannot be made or moved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoaderError {
    /// Rows or batches have no size.
    #[error("{field} is {found}, expected at least {expected}")]
    Size {
        /// Field of the configuration.
        field: &'static str,
        /// Its value.
        found: usize,
        /// The least that makes sense.
        expected: usize,
    },
    /// Nothing is left to learn from.
    #[error(
        "found no document with a token to learn among {num_documents} documents, expected at least \
         one"
    )]
    NothingToLearn {
        /// Number of documents that were offered.
        num_documents: usize,
    },
    /// The cursor was taken from another loader.
    #[error(
        "the place in the data belongs to other text, another tokenizer, seed or seq_len: found \
         {found:013x}, expected {expected:013x}"
    )]
    OtherData {
        /// Fingerprint in the cursor.
        found: u64,
        /// Fingerprint of the loader.
        expected: u64,
    },
    /// The cursor points past the end of its epoch.
    #[error("the place in the data is row {row} of epoch {epoch}, which has {num_rows} rows")]
    NoSuchRow {
        /// Row of the cursor.
        row: u64,
        /// Epoch of the cursor.
        epoch: u64,
        /// Rows of that epoch.
        num_rows: usize,
    },
}

/// How documents become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Slots per row.
    pub seq_len: usize,
    /// Rows per batch.
    pub batch_size: usize,
    /// What decides the order of every epoch.
    pub seed: u64,
    /// What happens to documents longer than a row.
    pub mode: PackMode,
    /// Token that fills up rows; any will do, since it is never seen nor trained.
    pub pad_id: u32,
}

impl LoaderConfig {
    fn validate(&self) -> Result<(), LoaderError> {
        for (field, found, expected) in [
            ("seq_len", self.seq_len, 2),
            ("batch_size", self.batch_size, 1),
        ] {
            if found < expected {
                return Err(LoaderError::Size {
                    field,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// Place in the data: the row that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderCursor {
    /// Epoch of the row, from 0.
    pub epoch: u64,
    /// The row within its epoch, from 0.
    pub row: u64,
    /// Hash of what decides the rows: documents, weights, seed, row length, mode.
    pub fingerprint: u64,
}

/// Endless batches: epoch after epoch, each in an order of its own.
///
/// Every batch is full: the last rows of an epoch share a batch with the first of the next.
#[derive(Debug)]
pub struct Loader {
    rows: Rows,
    documents: Vec<u32>,
    config: LoaderConfig,
    fingerprint: u64,
    rows_per_epoch: usize,
    tokens_per_epoch: u64,
    num_unsupervised: usize,
    epoch: u64,
    row: usize,
}

impl Loader {
    /// Makes a loader of some documents of the shards, at the start of epoch 0.
    ///
    /// Documents without a token to learn are left out and counted.
    ///
    /// # Errors
    ///
    /// A row length or batch size of 0, or no document with a token to learn.
    ///
    /// # Panics
    ///
    /// If the shards lack one of the documents.
    pub fn new(
        shards: Arc<TokenShards>,
        documents: Vec<u32>,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        config.validate()?;
        let num_documents = documents.len();
        let fingerprint = rows::fingerprint(&shards, &documents, &config);
        let documents = rows::supervised(&shards, documents, &config);
        let num_unsupervised = num_documents - documents.len();
        let mut loader = Self {
            rows: Rows::new(shards, config),
            documents,
            config,
            fingerprint,
            rows_per_epoch: 0,
            tokens_per_epoch: 0,
            num_unsupervised,
            epoch: 0,
            row: 0,
        };
        if loader.documents.is_empty() {
            return Err(LoaderError::NothingToLearn { num_documents });
        }
        loader.enter_epoch(0);
        // Small weights can leave single epochs empty.
        while loader.num_rows() == 0 {
            loader.enter_epoch(loader.epoch + 1);
        }
        loader.rows_per_epoch = loader.num_rows();
        loader.tokens_per_epoch = loader.packing().num_tokens();
        Ok(loader)
    }

    /// The next batch, `[batch_size, seq_len]`.
    pub fn next_batch(&mut self) -> TokenBatch {
        let LoaderConfig {
            batch_size,
            seq_len,
            ..
        } = self.config;
        let mut batch = TokenBatch::with_capacity(batch_size, seq_len);
        while batch.batch_size < batch_size {
            if self.row == self.num_rows() {
                self.enter_epoch(self.epoch + 1);
            } else {
                self.rows.push_row(self.row, &mut batch);
                self.row += 1;
            }
        }
        batch
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> LoaderCursor {
        LoaderCursor {
            epoch: self.epoch,
            row: self.row as u64,
            fingerprint: self.fingerprint,
        }
    }

    /// Goes to a place from which batches come exactly as they came from there before.
    ///
    /// # Errors
    ///
    /// A cursor of other data, or one that points to no row; the loader then stays where it is.
    pub fn seek(&mut self, cursor: LoaderCursor) -> Result<(), LoaderError> {
        if cursor.fingerprint != self.fingerprint {
            return Err(LoaderError::OtherData {
                found: cursor.fingerprint,
                expected: self.fingerprint,
            });
        }
        let (before, row) = (self.epoch, self.row);
        if cursor.epoch != before {
            self.enter_epoch(cursor.epoch);
        }
        // Just past the last row is where an epoch's last batch ends.
        let num_rows = self.num_rows();
        if cursor.row > num_rows as u64 {
            if cursor.epoch != before {
                self.enter_epoch(before);
            }
            self.row = row;
            return Err(LoaderError::NoSuchRow {
                row: cursor.row,
                epoch: cursor.epoch,
                num_rows,
            });
        }
        self.row = cursor.row as usize;
        Ok(())
    }

    /// Epoch of the next row, from 0.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of rows of the first epoch; another order can need a few rows more or less.
    pub fn rows_per_epoch(&self) -> usize {
        self.rows_per_epoch
    }

    /// Number of tokens of the first epoch, without padding; equal in all epochs if weights are whole.
    pub fn tokens_per_epoch(&self) -> u64 {
        self.tokens_per_epoch
    }

    /// Number of documents that are left out because they have no token to learn.
    pub fn num_unsupervised(&self) -> usize {
        self.num_unsupervised
    }

    /// How the current epoch is packed: efficiency, documents that were cut.
    pub fn packing(&self) -> &PackIndex {
        self.rows.index()
    }

    fn num_rows(&self) -> usize {
        self.packing().num_rows()
    }

    fn enter_epoch(&mut self, epoch: u64) {
        let seed = self.config.seed;
        let shards = self.rows.shards();
        let documents = self
            .documents
            .iter()
            .flat_map(|&document| {
                let copies = copies_in_epoch(shards.weight(document), document, seed, epoch);
                std::iter::repeat_n(document, copies)
            })
            .collect();
        self.rows.pack(documents, Some((seed, epoch)));
        self.epoch = epoch;
        self.row = 0;
    }
}

/// How often an epoch sees a document of a source with this weight.
///
/// Whole weights are copies. A fraction of 0.25 shows each document in every fourth epoch, a
/// different quarter of the documents each time, so that after four epochs all were seen once.
fn copies_in_epoch(weight: f64, document: u32, seed: u64, epoch: u64) -> usize {
    // Twenty bits, so that adding them to an epoch's number is exact.
    let offset = (hashed_fraction(seed, u64::from(document)) * 1_048_576.0).floor() / 1_048_576.0;
    let seen_before = |epoch: u64| (epoch as f64 * weight + offset).floor();
    (seen_before(epoch + 1) - seen_before(epoch)) as usize
}

/// Each document once, in a fixed order, as batches of which the last can be smaller: validation.
#[derive(Debug)]
pub struct FiniteBatches {
    rows: Rows,
    batch_size: usize,
}

impl FiniteBatches {
    /// Packs some documents of the shards; weights and the seed play no part.
    ///
    /// # Errors
    ///
    /// A row length or batch size of 0, or no document with a token to learn.
    ///
    /// # Panics
    ///
    /// If the shards lack one of the documents.
    pub fn new(
        shards: Arc<TokenShards>,
        documents: Vec<u32>,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        config.validate()?;
        let num_documents = documents.len();
        let documents = rows::supervised(&shards, documents, &config);
        if documents.is_empty() {
            return Err(LoaderError::NothingToLearn { num_documents });
        }
        let mut rows = Rows::new(shards, config);
        rows.pack(documents, None);
        Ok(Self {
            rows,
            batch_size: config.batch_size,
        })
    }

    /// The batches, from the first; each call gives the same ones.
    pub fn iter(&self) -> impl Iterator<Item = TokenBatch> + '_ {
        let num_rows = self.num_rows();
        (0..num_rows).step_by(self.batch_size).map(move |first| {
            let last = (first + self.batch_size).min(num_rows);
            self.rows.batch(first..last)
        })
    }

    /// Number of rows of all batches.
    pub fn num_rows(&self) -> usize {
        self.rows.index().num_rows()
    }

    /// Number of batches.
    pub fn num_batches(&self) -> usize {
        self.num_rows().div_ceil(self.batch_size)
    }
}

#[cfg(test)]
mod tests;
