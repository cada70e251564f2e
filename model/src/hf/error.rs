//! What can be wrong with a model folder.

use std::io;
use std::path::PathBuf;

use safetensors::SafeTensorError;
use safetensors::tensor::Dtype;

use crate::config::ConfigError;

/// Why a model folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HfError {
    /// The folder's `config.json` cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or its folder cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A JSON file beside the config is not what it should be.
    #[error("{}: not the JSON this file should hold", path.display())]
    Json {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
    /// The folder holds no weights.
    #[error(
        "{}: expected model.safetensors or model.safetensors.index.json, found neither",
        dir.display()
    )]
    NoWeights {
        /// Folder that was being read.
        dir: PathBuf,
    },
    /// A weight file is damaged or something else.
    #[error("{}: not a safetensors file", path.display())]
    Malformed {
        /// File that was being read.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// The index names a shard outside its folder.
    #[error("{}: shard `{shard}`, expected the name of a file in the same folder", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// A tensor is in two shards.
    #[error("{}: tensor `{name}` is in another shard too", path.display())]
    Duplicate {
        /// The later shard.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has a type that weights do not have.
    #[error("{}: tensor `{name}` holds {found:?}, expected F32, F16 or BF16", path.display())]
    Dtype {
        /// File that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
    /// A tensor that the config asks for is not there.
    #[error("{}: tensor `{name}` is missing", path.display())]
    Missing {
        /// Folder or shard that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor is there that the config has no place for.
    #[error("{}: tensor `{name}` belongs to no part of the model in config.json", path.display())]
    Unused {
        /// File that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor is not of the shape that the config gives it.
    #[error("{}: tensor `{name}` is {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// File that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the config.
        expected: Vec<usize>,
    },
    /// The output head differs from the embedding, though the config ties them.
    #[error(
        "{}: tensor `{name}` differs from the embedding, expected the same values, \
         since tie_word_embeddings is true",
        path.display()
    )]
    TiedHead {
        /// File that was being read.
        path: PathBuf,
        /// The head's tensor.
        name: String,
    },
    /// The model's weights were packed to decode with.
    #[error("a model with packed weights cannot be saved: its f32 weights are gone")]
    Packed,
    /// The model has parts that MiniMind v1 has not.
    #[error("a MiniMind v1 file cannot hold {part}")]
    NotMiniMindV1 {
        /// What it cannot hold.
        part: &'static str,
    },
}
