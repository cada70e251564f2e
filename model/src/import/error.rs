//! What can be wrong with a weight file of another program.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::hf::HfError;

/// Why a weight file of another program could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file's name does not say what it is.
    #[error("{}: expected a name that ends in .pth, .pt or .bin", path.display())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A PyTorch file is damaged or something else.
    #[error("{}: not a PyTorch file of tensors: {message}", path.display())]
    Pth {
        /// File that was being read.
        path: PathBuf,
        /// What the reader found, and where.
        message: String,
    },
    /// The tensors of a PyTorch file claim to be larger than the file.
    #[error("{}: the tensors take {claimed} bytes, expected no more than the file's", path.display())]
    Bloated {
        /// File that was being read.
        path: PathBuf,
        /// Bytes of all tensors together.
        claimed: u128,
    },
    /// A tensor has a type that weights do not have.
    #[error("{}: tensor `{name}` holds {found}, expected F32, F16 or BF16", path.display())]
    Dtype {
        /// File that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor that shows the shape is not there.
    #[error("{}: found no matrix `{name}`, which every model has", path.display())]
    NoMatrix {
        /// File that was being read.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The model has parts that no known decoder has together.
    #[error("{}: has query and key norms and shared experts, which no known model has", path.display())]
    NoSuchModel {
        /// File that was being read.
        path: PathBuf,
    },
    /// The file does not say how many heads there are, and nothing else does.
    #[error(
        "{}: {field} is not known, say it with --set {field}=N (the width of all heads together is {width})",
        path.display()
    )]
    Unknown {
        /// File that was being read.
        path: PathBuf,
        /// The field of `config.json`.
        field: &'static str,
        /// Width of all query heads.
        width: u64,
    },
    /// A setting would contradict the tensors.
    #[error("--set {field}: the tensors say it")]
    SaidByTensors {
        /// The setting's name.
        field: String,
    },
    /// A setting is none of the model's.
    #[error("--set {field}: a {model_type} model has no such field")]
    UnknownField {
        /// The setting's name.
        field: String,
        /// Value of `model_type`.
        model_type: &'static str,
    },
    /// A number of a llama2.c header cannot be one of a model.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    Header {
        /// File that was being read.
        path: PathBuf,
        /// The header's field.
        field: &'static str,
        /// Its value.
        found: i64,
        /// What would have been accepted.
        expected: String,
    },
    /// A llama2.c file is not as long as its header says.
    #[error("{}: {found} bytes, expected {expected} by its header", path.display())]
    Length {
        /// File that was being read.
        path: PathBuf,
        /// Length of the file.
        found: u64,
        /// Length that follows from the header.
        expected: u128,
    },
    /// The shape does not hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors do not fit the shape.
    #[error(transparent)]
    Tensors(#[from] HfError),
}
