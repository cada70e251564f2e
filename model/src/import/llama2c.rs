//! llama2.c's `.bin`: a header of numbers, then f32 tensors in a fixed order.
//!
//! Source: `legacy_export` and `version1_export` of <https://github.com/karpathy/llama2.c>,
//! `export.py`. The names and the order of rows are those that MiniMind v1 took over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::shape::object;
use super::{ForeignModel, ImportError};
use crate::hf::WeightLayout;
use crate::hf::safetensors::StoredTensor;

/// First number of files that say their version: `ak42`.
const MAGIC: u32 = 0x616b_3432;
/// Where the tensors of version 1 begin.
const V1_HEADER_BYTES: usize = 256;
/// Sizes of a model in a header, in their order.
const FIELDS: [&str; 7] = [
    "dim",
    "hidden_dim",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "vocab_size",
    "max_seq_len",
];
/// Larger than any model that this format was made for, small enough that products fit.
const MAX_SIZE: i64 = 1 << 24;

/// A header's sizes.
struct Sizes {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    max_seq_len: usize,
    has_shared_head: bool,
}

impl ForeignModel {
    pub(super) fn read_llama2c(path: &Path) -> Result<Self, ImportError> {
        let bytes = fs::read(path).map_err(|source| ImportError::Read {
            path: path.to_owned(),
            source,
        })?;
        let is_versioned = bytes.get(..4) == Some(&MAGIC.to_le_bytes());
        let (sizes, start, layers) = if is_versioned {
            let sizes = Sizes::of_version_1(&bytes, path)?;
            let layers = sizes.in_order_of_version_1();
            (sizes, V1_HEADER_BYTES, layers)
        } else {
            let sizes = Sizes::of_version_0(&bytes, path)?;
            let layers = sizes.in_order_of_version_0();
            (sizes, 4 * FIELDS.len(), layers)
        };
        let num_floats = layers.iter().map(|tensor| tensor.len() as u128);
        let expected = start as u128 + 4 * num_floats.sum::<u128>();
        if expected != bytes.len() as u128 {
            return Err(ImportError::Length {
                path: path.to_owned(),
                found: bytes.len() as u64,
                expected,
            });
        }
        let mut floats = bytes[start..]
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut tensors = BTreeMap::new();
        for Listed { name, shape } in layers {
            let len = shape.iter().product();
            let values: Vec<f32> = floats.by_ref().take(len).collect();
            let path = path.to_owned();
            if !name.is_empty() {
                tensors.insert(
                    name,
                    StoredTensor {
                        path,
                        shape,
                        values,
                    },
                );
            }
        }
        Ok(Self {
            path: path.to_owned(),
            layout: WeightLayout::MiniMindV1,
            tensors,
            fields: sizes.fields(),
        })
    }
}

/// A tensor's place in the order; without a name it is skipped.
struct Listed {
    name: String,
    shape: Vec<usize>,
}

impl Listed {
    fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
        }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Sizes {
    fn of_version_0(bytes: &[u8], path: &Path) -> Result<Self, ImportError> {
        let mut numbers = numbers_at(bytes, 0, path)?;
        // A negative size says that the head is a tensor of its own.
        let has_shared_head = numbers[5] > 0;
        numbers[5] = numbers[5].abs();
        Self::checked(numbers, has_shared_head, path)
    }

    fn of_version_1(bytes: &[u8], path: &Path) -> Result<Self, ImportError> {
        if bytes.len() < V1_HEADER_BYTES {
            return Err(too_short(bytes, V1_HEADER_BYTES, path));
        }
        let version = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if version != 1 {
            return Err(ImportError::Header {
                path: path.to_owned(),
                field: "version",
                found: version.into(),
                expected: "0 or 1, which hold f32".to_owned(),
            });
        }
        let numbers = numbers_at(bytes, 8, path)?;
        Self::checked(numbers, bytes[8 + 4 * FIELDS.len()] != 0, path)
    }

    fn checked(
        numbers: [i64; FIELDS.len()],
        has_shared_head: bool,
        path: &Path,
    ) -> Result<Self, ImportError> {
        let error = |field, found, expected| ImportError::Header {
            path: path.to_owned(),
            field,
            found,
            expected,
        };
        for (field, found) in FIELDS.into_iter().zip(numbers) {
            if !(1..=MAX_SIZE).contains(&found) {
                return Err(error(field, found, format!("1 to {MAX_SIZE}")));
            }
        }
        let [dim, _, n_layers, n_heads, n_kv_heads, ..] = numbers;
        if dim % n_heads != 0 || dim / n_heads % 2 != 0 {
            let expected = format!("a divisor of dim {dim} into even heads");
            return Err(error("n_heads", n_heads, expected));
        }
        if n_heads % n_kv_heads != 0 {
            let expected = format!("a divisor of n_heads {n_heads}");
            return Err(error("n_kv_heads", n_kv_heads, expected));
        }
        // Every layer takes some bytes, so a file of any length bounds them.
        if n_layers > 1 << 12 {
            return Err(error("n_layers", n_layers, "1 to 4096".to_owned()));
        }
        let [
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            vocab_size,
            max_seq_len,
        ] = numbers.map(|number| number as usize);
        Ok(Self {
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            n_kv_heads,
            vocab_size,
            max_seq_len,
            has_shared_head,
        })
    }

    /// A tensor of every layer.
    fn layers(&self, name: &str, shape: &[usize]) -> Vec<Listed> {
        (0..self.n_layers)
            .map(|layer| Listed::new(format!("layers.{layer}.{name}.weight"), shape))
            .collect()
    }

    fn attention(&self) -> Vec<Listed> {
        let key_value_width = self.dim / self.n_heads * self.n_kv_heads;
        [
            self.layers("attention.wq", &[self.dim, self.dim]),
            self.layers("attention.wk", &[key_value_width, self.dim]),
            self.layers("attention.wv", &[key_value_width, self.dim]),
            self.layers("attention.wo", &[self.dim, self.dim]),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn feed_forward(&self) -> Vec<Listed> {
        [
            self.layers("feed_forward.w1", &[self.hidden_dim, self.dim]),
            self.layers("feed_forward.w2", &[self.dim, self.hidden_dim]),
            self.layers("feed_forward.w3", &[self.hidden_dim, self.dim]),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn embedding(&self) -> Listed {
        Listed::new("tok_embeddings.weight", &[self.vocab_size, self.dim])
    }

    fn head(&self) -> Option<Listed> {
        let head = Listed::new("output.weight", &[self.vocab_size, self.dim]);
        (!self.has_shared_head).then_some(head)
    }

    fn in_order_of_version_0(&self) -> Vec<Listed> {
        let mut order = vec![self.embedding()];
        order.extend(self.layers("attention_norm", &[self.dim]));
        order.extend(self.attention());
        order.extend(self.layers("ffn_norm", &[self.dim]));
        order.extend(self.feed_forward());
        order.push(Listed::new("norm.weight", &[self.dim]));
        // Cosines and sines, which are computed anew.
        let half_head = self.dim / self.n_heads / 2;
        order.push(Listed::new("", &[2, self.max_seq_len, half_head]));
        order.extend(self.head());
        order
    }

    fn in_order_of_version_1(&self) -> Vec<Listed> {
        let mut order = self.layers("attention_norm", &[self.dim]);
        order.extend(self.layers("ffn_norm", &[self.dim]));
        order.push(Listed::new("norm.weight", &[self.dim]));
        order.push(self.embedding());
        order.extend(self.attention());
        order.extend(self.feed_forward());
        order.extend(self.head());
        order
    }

    /// The shape as fields of `config.json`.
    fn fields(&self) -> Map<String, Value> {
        object(json!({
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.dim,
            "intermediate_size": self.hidden_dim,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.dim / self.n_heads,
            "max_position_embeddings": self.max_seq_len,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e4,
            "tie_word_embeddings": self.has_shared_head,
            "bos_token_id": 1,
            // llama2.c begins documents with the one and never writes the other.
            "eos_token_id": [1, 2],
        }))
    }
}

fn numbers_at(bytes: &[u8], start: usize, path: &Path) -> Result<[i64; FIELDS.len()], ImportError> {
    let end = start + 4 * FIELDS.len();
    let words = bytes
        .get(start..end)
        .ok_or_else(|| too_short(bytes, end, path))?;
    let number = |index: usize| {
        let word = &words[4 * index..4 * index + 4];
        i32::from_le_bytes([word[0], word[1], word[2], word[3]]).into()
    };
    Ok(std::array::from_fn(number))
}

fn too_short(bytes: &[u8], expected: usize, path: &Path) -> ImportError {
    ImportError::Length {
        path: path.to_owned(),
        found: bytes.len() as u64,
        expected: expected as u128,
    }
}
