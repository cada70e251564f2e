//! Weight files: one `model.safetensors`, or shards listed in `model.safetensors.index.json`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use serde::Deserialize;

use super::HfError;

/// Name of a whole model in one file.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// A tensor of a weight file, widened to f32.
pub(crate) struct StoredTensor {
    /// The file it came from.
    pub(crate) path: PathBuf,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Every tensor of a folder by its name in the files.
pub(crate) fn read_folder(dir: &Path) -> Result<BTreeMap<String, StoredTensor>, HfError> {
    let (single, index) = (dir.join(SINGLE_FILE), dir.join(INDEX_FILE));
    let mut tensors = BTreeMap::new();
    if single.exists() {
        read_file(&single, &mut tensors)?;
    } else if index.exists() {
        read_shards(dir, index, &mut tensors)?;
    } else {
        return Err(HfError::NoWeights {
            dir: dir.to_path_buf(),
        });
    }
    Ok(tensors)
}

/// A tensor on its way into a weight file.
pub(crate) struct FileTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl View for &FileTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}

/// The bytes of a weight file.
pub(crate) fn render(tensors: &BTreeMap<String, FileTensor>) -> Vec<u8> {
    // `transformers` refuses a file that does not say which framework's row order it has.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(tensors, Some(metadata)).expect("the header is far below its size limit")
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

fn read_shards(
    dir: &Path,
    path: PathBuf,
    tensors: &mut BTreeMap<String, StoredTensor>,
) -> Result<(), HfError> {
    let text = fs::read_to_string(&path).map_err(|source| HfError::Read {
        path: path.clone(),
        source,
    })?;
    let index: ShardIndex = serde_json::from_str(&text).map_err(|source| HfError::Json {
        path: path.clone(),
        source,
    })?;

    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    for shard in shards {
        // An index is data from elsewhere: it must not make us read outside its folder.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(HfError::ShardName {
                path,
                shard: shard.clone(),
            });
        }
        read_file(&dir.join(shard), tensors)?;
    }
    for (name, shard) in &index.weight_map {
        if !tensors.contains_key(name) {
            return Err(HfError::Missing {
                path: dir.join(shard),
                name: name.clone(),
            });
        }
    }
    Ok(())
}

fn read_file(path: &Path, tensors: &mut BTreeMap<String, StoredTensor>) -> Result<(), HfError> {
    let bytes = fs::read(path).map_err(|source| HfError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| HfError::Malformed {
        path: path.to_path_buf(),
        source,
    })?;
    for (name, view) in file.tensors() {
        let values = widened(&view).ok_or_else(|| HfError::Dtype {
            path: path.to_path_buf(),
            name: name.clone(),
            found: view.dtype(),
        })?;
        let stored = StoredTensor {
            path: path.to_path_buf(),
            shape: view.shape().to_vec(),
            values,
        };
        if tensors.insert(name.clone(), stored).is_some() {
            return Err(HfError::Duplicate {
                path: path.to_path_buf(),
                name,
            });
        }
    }
    Ok(())
}

fn widened(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = view.data().chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match view.dtype() {
        Dtype::F32 => {
            let words = view
                .data()
                .chunks_exact(4)
                .map(|word| [word[0], word[1], word[2], word[3]]);
            Some(words.map(f32::from_le_bytes).collect())
        }
        Dtype::F16 => Some(
            halves
                .map(|half| f16::from_le_bytes(half).to_f32())
                .collect(),
        ),
        Dtype::BF16 => Some(
            halves
                .map(|half| bf16::from_le_bytes(half).to_f32())
                .collect(),
        ),
        _ => None,
    }
}
