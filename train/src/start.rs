//! What a run starts from: weights and tokenizer, checked against each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::prelude::*;
use dataset::{Tokenizer, TokenizerError};
use model::CausalLm;
use model::config::{FieldError, ModelConfig};
use model::hf::{self, HfError};
use model::lora::{LoraConfig, LoraError};
use model::training_record::{TrainingRecord, TrainingRecordError};

use crate::config::{ModelSection, TokenizerSection};

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model cannot be read.
    #[error("{}: the model cannot be read", path.display())]
    Model {
        /// File or folder of the model.
        path: PathBuf,
        /// What went wrong.
        source: Box<HfError>,
    },
    /// The tokenizer cannot be read.
    #[error("{}: the tokenizer cannot be read", path.display())]
    Tokenizer {
        /// File or folder of the tokenizer.
        path: PathBuf,
        /// What went wrong.
        source: TokenizerError,
    },
    /// The chat template that takes the tokenizer's place cannot be read.
    #[error("{}: the chat template cannot be read", path.display())]
    ChatTemplate {
        /// File of the template.
        path: PathBuf,
        /// What went wrong.
        source: TokenizerError,
    },
    /// The experts cannot start as the networks of the dense model.
    #[error("{}: no start for the experts of model.config", path.display())]
    Upcycle {
        /// Folder of the dense model.
        path: PathBuf,
        /// The field in which the two differ.
        source: FieldError,
    },
    /// What the model was trained to do cannot be read.
    #[error(transparent)]
    Record(#[from] TrainingRecordError),
    /// The adapters cannot be attached.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The tokenizer has ids that the model has no embedding for.
    #[error(
        "{}: the tokenizer has {found} tokens, expected at most the model's vocab_size = \
         {vocab_size}",
        path.display()
    )]
    Vocabulary {
        /// File or folder of the tokenizer.
        path: PathBuf,
        /// Tokens of the tokenizer.
        found: usize,
        /// Tokens of the model.
        vocab_size: usize,
    },
}

/// Shape, weights and tokenizer of a run that has not begun.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) model_config: ModelConfig,
    pub(crate) tokenizer: Arc<Tokenizer>,
    // Empty: the weights are drawn at random.
    pub(crate) from: PathBuf,
    // Empty: no dense model is made a mixture.
    upcycle: PathBuf,
    /// Adapters that are trained in the place of the weights.
    pub(crate) lora: Option<LoraConfig>,
    /// Whether a head that judges texts is put on the model.
    pub(crate) judges: bool,
    /// Whether prompts begin with a token that says who asks.
    pub(crate) knows_identities: bool,
}

impl Start {
    /// Reads the model's shape and the tokenizer.
    ///
    /// A model that starts from random weights takes its special tokens' ids from the tokenizer.
    pub(crate) fn read(
        model: &ModelSection,
        tokenizer: &TokenizerSection,
    ) -> Result<Self, StartError> {
        let is_fresh = model.from.as_os_str().is_empty();
        let path = if is_fresh { &model.config } else { &model.from };
        let mut model_config = ModelConfig::load(path).map_err(|error| StartError::Model {
            path: path.clone(),
            source: Box::new(error.into()),
        })?;
        let path = &tokenizer.path;
        let tokenizer = Tokenizer::load(path).map_err(|source| StartError::Tokenizer {
            path: path.clone(),
            source,
        })?;
        check_vocabulary(path, tokenizer.vocab_size(), model_config.vocab_size)?;
        if is_fresh {
            model_config.bos_token_id = tokenizer.bos_id();
            model_config.eos_token_id = tokenizer.eos_id().into_iter().collect();
            model_config.pad_token_id = Some(tokenizer.pad_id());
        }
        Ok(Self {
            model_config,
            tokenizer: Arc::new(tokenizer),
            from: model.from.clone(),
            upcycle: model.upcycle.clone(),
            lora: None,
            judges: false,
            knows_identities: !is_fresh && knows_identities(&model.from)?,
        })
    }

    /// Puts the chat template of a file in the place of the tokenizer's own; an empty path leaves
    /// it as it is.
    pub(crate) fn use_chat_template(&mut self, path: &Path) -> Result<(), StartError> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let tokenizer = Tokenizer::clone(&self.tokenizer);
        let tokenizer = tokenizer.with_chat_template(path);
        self.tokenizer = Arc::new(tokenizer.map_err(|source| StartError::ChatTemplate {
            path: path.to_owned(),
            source,
        })?);
        Ok(())
    }

    /// Lets prompts begin with a token that says who asks: gives the tokenizer two reserved ones, and
    /// the model embeddings for them, where they have none.
    pub(crate) fn reserve_tokens(&mut self) -> Result<(), StartError> {
        let tokenizer = Tokenizer::clone(&self.tokenizer).with_reserved_tokens();
        let tokenizer = tokenizer.map_err(|source| StartError::Tokenizer {
            path: self.from.clone(),
            source,
        })?;
        let vocab_size = self.model_config.vocab_size.max(tokenizer.vocab_size());
        self.model_config.vocab_size = vocab_size;
        self.tokenizer = Arc::new(tokenizer);
        self.knows_identities = true;
        Ok(())
    }

    /// The same with the weights alone.
    pub(crate) fn without_adapters(&self) -> Self {
        Self {
            lora: None,
            ..self.clone()
        }
    }

    /// The weights: those of the folder, those of a dense model in every expert, or random ones that
    /// follow from the seed.
    pub(crate) fn model(&self, seed: u64, device: &Device) -> Result<CausalLm, StartError> {
        let read = |path: &Path| {
            hf::load_model(path, device).map_err(|error| StartError::Model {
                path: path.to_owned(),
                source: Box::new(error),
            })
        };
        let is_given = |path: &Path| !path.as_os_str().is_empty();
        let model = if is_given(&self.from) {
            read(&self.from)?
        } else if is_given(&self.upcycle) {
            let dense = read(&self.upcycle)?;
            CausalLm::upcycled(&dense, &self.model_config, seed, device).map_err(|source| {
                StartError::Upcycle {
                    path: self.upcycle.clone(),
                    source,
                }
            })?
        } else {
            CausalLm::new(&self.model_config, seed, device)
        };
        let model = model.with_vocab_size(self.model_config.vocab_size, seed);
        let model = if self.judges {
            model.with_score_head()
        } else {
            model
        };
        match &self.lora {
            Some(config) => Ok(model.with_adapters(config, seed)?),
            None => Ok(model),
        }
    }
}

/// Whether the model of a folder is told who asks.
fn knows_identities(path: &Path) -> Result<bool, StartError> {
    let record = TrainingRecord::load(path)?;
    Ok(record.is_some_and(|record| record.knows_identities))
}

fn check_vocabulary(path: &Path, found: usize, vocab_size: usize) -> Result<(), StartError> {
    if found <= vocab_size {
        return Ok(());
    }
    Err(StartError::Vocabulary {
        path: path.to_owned(),
        found,
        vocab_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id without an embedding row would be read out of bounds; both numbers are named.
    #[test]
    fn a_tokenizer_larger_than_the_model_is_refused() {
        let path = Path::new("out/0-tokenizer");
        assert!(check_vocabulary(path, 6400, 6400).is_ok());
        assert_eq!(
            check_vocabulary(path, 6401, 6400).unwrap_err().to_string(),
            "out/0-tokenizer: the tokenizer has 6401 tokens, expected at most the model's \
             vocab_size = 6400"
        );
    }
}
