//! A finished run's `final/` folder: what other stages, `transformers` and chat read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dataset::Tokenizer;
use model::CausalLm;
use model::hf::{self, HfError};
use model::lora::AdapterError;
use model::training_record::{TrainingRecord, TrainingRecordError};

/// Name of the folder inside the run's folder.
pub const FINAL: &str = "final";

/// Name of the folder with the adapters of a run that trained some, in PEFT's layout.
pub const ADAPTER: &str = "adapter";

/// Why a finished model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The weights or the config cannot be written.
    #[error("{}: the model cannot be written", path.display())]
    Model {
        /// Folder that was being written.
        path: PathBuf,
        /// What went wrong.
        source: Box<HfError>,
    },
    /// The tokenizer cannot be written.
    #[error("{}: the tokenizer cannot be written", path.display())]
    Tokenizer {
        /// Folder that was being written.
        path: PathBuf,
        /// What went wrong.
        source: dataset::TokenizerError,
    },
    /// The adapters cannot be written.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// What the model was trained for cannot be written down.
    #[error(transparent)]
    Record(#[from] TrainingRecordError),
    /// The folder cannot be put in its place.
    #[error("{}: cannot be written", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `final/` of a run as a whole: an earlier one stays until the new one is complete.
///
/// # Errors
///
/// When something cannot be written.
pub fn export(
    run: &Path,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    record: &TrainingRecord,
) -> Result<PathBuf, ExportError> {
    let folder = run.join(FINAL);
    let writing = run.join(format!(".writing-{FINAL}"));
    let io_error = |source| ExportError::Io {
        path: folder.clone(),
        source,
    };
    if writing.exists() {
        fs::remove_dir_all(&writing).map_err(io_error)?;
    }
    write_folder(&writing, model, tokenizer)
        .and_then(|()| record.save(&writing).map_err(ExportError::from))
        .inspect_err(|_| {
            let _ = fs::remove_dir_all(&writing);
        })?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(io_error)?;
    }
    fs::rename(&writing, &folder).map_err(io_error)?;
    Ok(folder)
}

/// Writes a Hugging Face folder with the model and its tokenizer.
///
/// # Errors
///
/// When something cannot be written.
pub fn write_folder(
    folder: &Path,
    model: &CausalLm,
    tokenizer: &Tokenizer,
) -> Result<(), ExportError> {
    let path = || folder.to_owned();
    fs::create_dir_all(folder).map_err(|source| ExportError::Io {
        path: path(),
        source,
    })?;
    hf::save_model(model, folder).map_err(|error| ExportError::Model {
        path: path(),
        source: Box::new(error),
    })?;
    tokenizer
        .save(folder)
        .map_err(|source| ExportError::Tokenizer {
            path: path(),
            source,
        })
}
