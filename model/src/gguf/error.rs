//! What can keep a model from being written as GGUF.

use std::io;
use std::path::PathBuf;

/// Why a GGUF file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The weights are not whole.
    #[error("a model with packed weights or adapters cannot be written as GGUF, merge them first")]
    NotPlain,
    /// The model has parts that llama.cpp does not compute.
    #[error("llama.cpp has no {architecture} model with {part}")]
    NotHeld {
        /// llama.cpp's name for the model's class.
        architecture: &'static str,
        /// What it does not have.
        part: &'static str,
    },
}
