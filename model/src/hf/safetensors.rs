//! Weight files: one `model.safetensors`, or shards listed in `model.safetensors.index.json`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use serde::Deserialize;

use super::HfError;
use crate::listing::ListedTensor;

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

/// How a weight file holds numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FloatType {
    /// 32 bits, as they are trained.
    #[default]
    F32,
    /// 16 bits, 5 of them the exponent: numbers above 65504 become infinite.
    F16,
    /// 16 bits, the upper half of an f32.
    Bf16,
}

impl FloatType {
    /// What `config.json` calls it.
    pub(crate) fn dtype_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// A tensor on its way into a weight file.
pub(crate) struct FileTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// A tensor with the type that its file holds.
struct TypedTensor<'a>(&'a FileTensor, FloatType);

impl View for TypedTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.1 {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.0.values.iter();
        match self.1 {
            FloatType::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            FloatType::F16 => values
                .flat_map(|value| f16::from_f32(*value).to_le_bytes())
                .collect(),
            FloatType::Bf16 => values
                .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
                .collect(),
        }
    }

    fn data_len(&self) -> usize {
        let num_bytes = match self.1 {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::Bf16 => 2,
        };
        num_bytes * self.0.values.len()
    }
}

/// The bytes of a weight file.
pub(crate) fn render(tensors: &BTreeMap<String, FileTensor>, float_type: FloatType) -> Vec<u8> {
    // `transformers` refuses a file that does not say which framework's row order it has.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let typed = tensors
        .iter()
        .map(|(name, tensor)| (name, TypedTensor(tensor, float_type)));
    safetensors::serialize(typed, Some(metadata)).expect("the header is far below its size limit")
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

/// Shows every tensor of a file as it is.
pub(crate) fn list_file(path: &Path, show: &mut impl FnMut(ListedTensor)) -> Result<(), HfError> {
    visit_file(path, |name, view| {
        show(ListedTensor {
            name,
            dtype: format!("{:?}", view.dtype()),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        });
        Ok(())
    })
}

fn read_file(path: &Path, tensors: &mut BTreeMap<String, StoredTensor>) -> Result<(), HfError> {
    visit_file(path, |name, view| {
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
        match tensors.insert(name.clone(), stored) {
            None => Ok(()),
            Some(_) => Err(HfError::Duplicate {
                path: path.to_path_buf(),
                name,
            }),
        }
    })
}

fn visit_file(
    path: &Path,
    mut visit: impl FnMut(String, TensorView<'_>) -> Result<(), HfError>,
) -> Result<(), HfError> {
    let bytes = fs::read(path).map_err(|source| HfError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| HfError::Malformed {
        path: path.to_path_buf(),
        source,
    })?;
    let mut views = file.tensors();
    // In the order of the file: the reader's own differs from run to run.
    views.sort_by_key(|(_, view)| view.data().as_ptr());
    let mut views = views.into_iter();
    views.try_for_each(|(name, view)| visit(name, view))
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
