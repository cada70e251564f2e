//! Training a byte-level BPE tokenizer. Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes
//! as in GPT-2 (Radford et al. 2019).

mod compression;
mod sample;
mod special_tokens;

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::source::SourceError;
use crate::tokenizer::{Tokenizer, TokenizerConfig, TokenizerError};
pub use compression::{Compression, Language, measure_compression};
pub use sample::{SampleConfig, TrainedTokenizer, train_on_sources};
pub use special_tokens::SpecialTokens;

/// Most text that merges are counted on, in bytes: the `tokenizers` crate counts pairs in an `i32`.
pub const MAX_TRAIN_BYTES: u64 = i32::MAX as u64;

/// Why no tokenizer came out.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerTrainError {
    /// The text cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The vocabulary has no room for what every text needs.
    #[error(
        "vocab_size is {found}, expected at least {least}: the 256 bytes and {special} special tokens"
    )]
    VocabSize {
        /// Size as configured.
        found: usize,
        /// Smallest possible size.
        least: usize,
        /// Number of special tokens in the set.
        special: usize,
    },
    /// Pairs could no longer be counted.
    #[error(
        "found more than {MAX_TRAIN_BYTES} bytes of text, expected at most that many to train on"
    )]
    TooMuchText,
    /// There was nothing to count pairs on.
    #[error("found no text to train on, expected at least one document")]
    NoText,
    /// The `tokenizers` crate refused.
    #[error("the vocabulary cannot be trained")]
    Train(#[source] tokenizers::Error),
    /// The finished tokenizer does not hold together.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A recipe for a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerTrainer {
    /// Number of ids, special tokens and the 256 bytes included.
    pub vocab_size: usize,
    /// The first ids and the chat template.
    pub special_tokens: SpecialTokens,
    /// Whether each digit is a token of its own.
    pub split_digits: bool,
    /// How often a pair must be seen to be merged.
    pub min_frequency: u64,
    /// Longest text that a model is meant for, in tokens; recorded in `tokenizer_config.json`.
    pub model_max_length: usize,
}

impl Default for TokenizerTrainer {
    fn default() -> Self {
        Self {
            vocab_size: 6400,
            special_tokens: SpecialTokens::V1,
            split_digits: false,
            min_frequency: 2,
            model_max_length: 32_768,
        }
    }
}

impl TokenizerTrainer {
    /// Checks that the vocabulary has room for bytes and special tokens.
    ///
    /// # Errors
    ///
    /// [`TokenizerTrainError::VocabSize`].
    pub fn validate(&self) -> Result<(), TokenizerTrainError> {
        let special = self.special_tokens.tokens().len();
        let least = 256 + special;
        if self.vocab_size < least {
            return Err(TokenizerTrainError::VocabSize {
                found: self.vocab_size,
                least,
                special,
            });
        }
        Ok(())
    }

    /// Learns merges from texts; the same texts give the same tokenizer.
    ///
    /// The vocabulary is smaller than asked for if the texts have no more pairs to merge.
    ///
    /// # Errors
    ///
    /// A vocabulary without room, no text, or too much of it.
    pub fn train<I, S>(&self, texts: I) -> Result<Tokenizer, TokenizerTrainError>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
    {
        self.validate()?;
        let mut num_bytes = 0;
        // Stop at the limit rather than count on for an hour.
        let counted = texts.take_while(|text| {
            num_bytes += text.as_ref().len() as u64;
            num_bytes <= MAX_TRAIN_BYTES
        });
        let tokenizer = self.learn(counted)?;
        match num_bytes {
            0 => Err(TokenizerTrainError::NoText),
            1..=MAX_TRAIN_BYTES => Ok(tokenizer),
            _ => Err(TokenizerTrainError::TooMuchText),
        }
    }

    fn learn<I, S>(&self, texts: I) -> Result<Tokenizer, TokenizerTrainError>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
    {
        let byte_level = ByteLevel::new(false, true, true);
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        if self.split_digits {
            let parts = vec![
                Digits::new(true).into(),
                PreTokenizerWrapper::ByteLevel(byte_level),
            ];
            tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        } else {
            tokenizer.with_pre_tokenizer(Some(byte_level));
        }
        tokenizer.with_decoder(Some(byte_level));
        let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
            .vocab_size(self.vocab_size)
            .min_frequency(self.min_frequency)
            .special_tokens(self.special_tokens.tokens())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
            .into();
        tokenizer
            .train(&mut trainer, texts)
            .map_err(TokenizerTrainError::Train)?;
        let fields = self.special_tokens.config_fields(self.model_max_length);
        let config = TokenizerConfig::from_fields(fields);
        Ok(Tokenizer::new(
            tokenizer,
            config,
            Path::new("the trained tokenizer"),
        )?)
    }
}

#[cfg(test)]
mod tests;
