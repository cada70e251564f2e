//! Training data of the token stages: documents opened, split, and sized.

use std::path::PathBuf;
use std::sync::Arc;

use dataset::Tokenizer;
use dataset::cache::{CacheError, TokenShards};
use dataset::chat::ChatError;
use dataset::lines::ReadError;
use dataset::loader::{FiniteBatches, Loader, LoaderConfig, LoaderError};
use dataset::source::SourceError;
use dataset::split::split;

use crate::plan::DataSize;

/// Why training data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The tokenised text cannot be opened or built.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Files cannot be found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A line cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Documents cannot be made rows.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A conversation does not fit the chat template.
    #[error("{}: conversation {row} cannot be used", path.display())]
    Chat {
        /// File of the conversation.
        path: PathBuf,
        /// Which conversation of the file, from 1.
        row: usize,
        /// What the template found.
        source: ChatError,
    },
    /// Conversations need a template.
    #[error(
        "{}: the tokenizer has no chat template, expected one for training on conversations",
        path.display()
    )]
    NoTemplate {
        /// File or folder of the tokenizer.
        path: PathBuf,
    },
}

/// Documents held out for validation, and how much text they are.
#[derive(Debug)]
pub(crate) struct HeldOut {
    pub(crate) batches: FiniteBatches,
    pub(crate) num_supervised: usize,
    pub(crate) num_bytes: u64,
}

/// Documents as rows for training and for validation.
#[derive(Debug)]
pub(crate) struct TokenData {
    pub(crate) loader: Loader,
    pub(crate) held_out: Option<HeldOut>,
    pub(crate) size: DataSize,
    pub(crate) fingerprint: String,
}

impl TokenData {
    /// Splits documents into those to train on and those held out, and packs both.
    pub(crate) fn new(
        shards: TokenShards,
        tokenizer: &Tokenizer,
        validation_fraction: f64,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let shards = Arc::new(shards);
        let (train, held_out) = split(&shards, validation_fraction, config.seed);
        let num_bytes = shards.num_bytes_of(&held_out);
        let fingerprint = format!("{} {}", shards.fingerprint(), tokenizer.fingerprint());
        let (num_documents, num_held_out) = (train.len(), held_out.len());
        let loader = Loader::new(Arc::clone(&shards), train, config)?;
        let held_out = match FiniteBatches::new(shards, held_out, config) {
            Ok(batches) => {
                let num_supervised = batches.iter().map(|batch| batch.num_supervised()).sum();
                Some(HeldOut {
                    batches,
                    num_supervised,
                    num_bytes,
                })
            }
            // Nothing held out, or nothing in it to learn, and so nothing to score.
            Err(LoaderError::NothingToLearn { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let size = DataSize {
            num_documents,
            num_held_out,
            tokens_per_epoch: loader.tokens_per_epoch(),
            rows_per_epoch: loader.rows_per_epoch(),
        };
        Ok(Self {
            loader,
            held_out,
            size,
            fingerprint,
        })
    }
}
