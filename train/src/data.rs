//! Training data of the token stages: documents opened, split, and sized.

use std::sync::Arc;

use dataset::Tokenizer;
use dataset::cache::{CacheError, TokenShards};
use dataset::conversations::ConversationsError;
use dataset::loader::{FiniteBatches, Loader, LoaderConfig, LoaderError};
use dataset::split::split;

use crate::plan::{DataSize, RowKind};

/// Why training data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The tokenised text cannot be opened or built.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Conversations cannot be found or read.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// Documents cannot be made rows.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// Conversations need a template.
    #[error(
        "the tokenizer has no chat template, expected one for training on conversations (or name a \
         file in data.chat_template)"
    )]
    NoTemplate,
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
    shards: Arc<TokenShards>,
    config: LoaderConfig,
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
        let held_out = match FiniteBatches::new(Arc::clone(&shards), held_out, config) {
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
            num_dropped: shards.num_dropped(),
            tokens_per_epoch: loader.tokens_per_epoch(),
            rows_per_epoch: loader.rows_per_epoch(),
            row: RowKind::Packed,
        };
        Ok(Self {
            loader,
            held_out,
            size,
            fingerprint,
            shards,
            config,
        })
    }

    /// Tokens per row.
    pub(crate) fn seq_len(&self) -> usize {
        self.config.seq_len
    }

    /// Every document that is trained on, once, in a fixed order.
    pub(crate) fn training_batches(
        &self,
        validation_fraction: f64,
    ) -> Result<FiniteBatches, DataError> {
        let (train, _) = split(&self.shards, validation_fraction, self.config.seed);
        Ok(FiniteBatches::new(
            Arc::clone(&self.shards),
            train,
            self.config,
        )?)
    }
}
