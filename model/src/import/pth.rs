//! PyTorch's `.pth`: a state dictionary, pickled. The reader interprets the few opcodes that build
//! one and executes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader, Tensor};

use super::{ForeignModel, ImportError, shape};
use crate::hf::WeightLayout;
use crate::hf::safetensors::StoredTensor;
use crate::listing::ListedTensor;

/// Where the names of one layout begin, behind whatever wrapped the model.
const FIRST_TENSORS: [&str; 2] = ["model.embed_tokens.weight", "tok_embeddings.weight"];
/// Tables that some versions of MiniMind keep beside the weights.
const TABLES: [&str; 5] = ["freqs_cos", "freqs_sin", "pos_cis", "mask", "inv_freq"];

impl ForeignModel {
    pub(super) fn read_pth(path: &Path) -> Result<Self, ImportError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in weights_of(open(path)?) {
            let bytes = bytes_of(&tensor, path)?;
            let values = widened(&bytes, tensor.dtype()).ok_or_else(|| ImportError::Dtype {
                path: path.to_owned(),
                name: name.clone(),
                found: format!("{:?}", tensor.dtype()),
            })?;
            let stored = StoredTensor {
                path: path.to_owned(),
                shape: tensor.shape().to_vec(),
                values,
            };
            tensors.insert(name, stored);
        }
        let layout = if tensors.contains_key(FIRST_TENSORS[1]) {
            WeightLayout::MiniMindV1
        } else {
            WeightLayout::HuggingFace
        };
        let fields = shape::fields_of(&tensors, layout, path)?;
        Ok(Self {
            path: path.to_owned(),
            layout,
            tensors,
            fields,
        })
    }

    /// Shows every tensor of a file as it is, whatever it is part of.
    pub(crate) fn list_pth(
        path: &Path,
        show: &mut impl FnMut(ListedTensor),
    ) -> Result<(), ImportError> {
        let mut tensors = open(path)?;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in tensors {
            show(ListedTensor {
                dtype: format!("{:?}", tensor.dtype()),
                shape: tensor.shape().to_vec(),
                bytes: bytes_of(&tensor, path)?,
                name: tensor.name,
            });
        }
        Ok(())
    }
}

/// The tensors of a file, none of which has been read yet.
fn open(path: &Path) -> Result<Vec<Tensor>, ImportError> {
    let file = fs::metadata(path).map_err(|source| ImportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let reader = PytorchReader::new(path).map_err(|error| broken(path, &error))?;
    let tensors: Vec<Tensor> = reader.into_tensors().into_values().collect();
    // A view may claim any size; a tied head may be there twice.
    let sizes = tensors.iter().map(|tensor| {
        let elements = tensor.shape().iter().map(|size| *size as u128);
        elements.product::<u128>() * tensor.dtype().size() as u128
    });
    let claimed = sizes.sum();
    if claimed > 2 * u128::from(file.len()) {
        let path = path.to_owned();
        return Err(ImportError::Bloated { path, claimed });
    }
    Ok(tensors)
}

fn bytes_of(tensor: &Tensor, path: &Path) -> Result<Vec<u8>, ImportError> {
    tensor.read().map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &impl ToString) -> ImportError {
    ImportError::Pth {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// The weights under the names of their layout: without `_orig_mod.` or `module.` before them, and
/// without the tables and optimizers beside them.
fn weights_of(tensors: Vec<Tensor>) -> BTreeMap<String, Tensor> {
    let prefix = tensors.iter().find_map(|tensor| {
        let mut first = FIRST_TENSORS.iter();
        first.find_map(|first| tensor.name.strip_suffix(first))
    });
    let prefix = prefix.unwrap_or_default().to_owned();
    let is_table = |name: &str| name.split('.').any(|part| TABLES.contains(&part));
    tensors
        .into_iter()
        .filter_map(|tensor| {
            let name = tensor.name.strip_prefix(&prefix)?;
            let name = name.replace(".self_attention.", ".self_attn.");
            // MiniMind2 has a list of one.
            let name = name.replace(".shared_experts.0.", ".shared_experts.");
            (!is_table(&name)).then_some((name, tensor))
        })
        .collect()
}

fn widened(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    let pairs = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match dtype {
        DType::F32 => {
            let words = bytes
                .chunks_exact(4)
                .map(|word| [word[0], word[1], word[2], word[3]]);
            Some(words.map(f32::from_ne_bytes).collect())
        }
        DType::F16 => Some(
            pairs
                .map(|pair| f16::from_ne_bytes(pair).to_f32())
                .collect(),
        ),
        DType::BF16 => Some(
            pairs
                .map(|pair| bf16::from_ne_bytes(pair).to_f32())
                .collect(),
        ),
        _ => None,
    }
}
