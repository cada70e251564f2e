//! What a weight file holds, tensor by tensor, in any format that is read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::gguf::{GgufFile, GgufReadError};
use crate::hf::{HfError, safetensors};
use crate::import::{ForeignModel, ImportError};

/// A tensor as its file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its type, such as `BF16`.
    pub dtype: String,
    /// Its sizes, the one that runs fastest last.
    pub shape: Vec<usize>,
    /// Its bytes, little-endian, as they lie in the file.
    pub bytes: Vec<u8>,
}

/// Why a weight file could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// A folder of Hugging Face.
    #[error(transparent)]
    Hf(#[from] HfError),
    /// A file of PyTorch or llama2.c.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufReadError),
}

/// Shows every tensor of a model folder or weight file: safetensors, GGUF, `.pth`, llama2.c's
/// `.bin`.
///
/// # Errors
///
/// A file that is not there, broken, or of another format.
pub fn list_tensors(path: &Path, mut show: impl FnMut(ListedTensor)) -> Result<(), ListingError> {
    if path.is_dir() {
        for file in weight_files(path)? {
            safetensors::list_file(&file, &mut show)?;
        }
        return Ok(());
    }
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => safetensors::list_file(path, &mut show)?,
        Some("gguf") => {
            let file = GgufFile::read(path)?;
            for tensor in &file.tensors {
                show(ListedTensor {
                    name: tensor.name.clone(),
                    dtype: tensor.type_name.to_owned(),
                    shape: tensor.shape.clone(),
                    bytes: file.bytes_of(tensor).to_vec(),
                });
            }
        }
        Some("pth" | "pt") => ForeignModel::list_pth(path, &mut show)?,
        _ => ForeignModel::read(path)?.list(&mut show),
    }
    Ok(())
}

/// The safetensors of a folder, by name.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, HfError> {
    let entries = fs::read_dir(dir).map_err(|source| HfError::Read {
        path: dir.to_owned(),
        source,
    })?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending == "safetensors")
        })
        .collect();
    if files.is_empty() {
        return Err(HfError::NoWeights {
            dir: dir.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}
