//! Weight files of other programs that come without a config: PyTorch's `.pth` and llama2.c's
//! `.bin`.
//!
//! The shape is read off the tensors; what no tensor says, such as the number of heads, is known
//! from the file's naming or has to be told.

mod error;
mod llama2c;
mod pth;
mod shape;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::prelude::Device;
use serde_json::{Map, Value};

pub use self::error::ImportError;
use crate::causal_lm::CausalLm;
use crate::hf::safetensors::StoredTensor;
use crate::hf::{WeightLayout, config_json, model_of_tensors};
use crate::listing::ListedTensor;

/// What the tensors say, so that no setting can say otherwise.
const SAID_BY_TENSORS: [&str; 9] = [
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_experts",
    "moe_num_experts",
    "tie_word_embeddings",
];

/// A weight file that has been read, its shape not yet settled.
pub struct ForeignModel {
    path: PathBuf,
    layout: WeightLayout,
    tensors: BTreeMap<String, StoredTensor>,
    /// What is known of the shape, as fields of `config.json`.
    fields: Map<String, Value>,
}

impl ForeignModel {
    /// Reads a file by its name's ending: `.pth`, `.pt` or `.bin`, which is llama2.c's unless it is
    /// an archive, as PyTorch's are.
    ///
    /// Nothing in a `.pth` is executed.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is broken, or holds another model.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("pth" | "pt") => Self::read_pth(path),
            Some("bin") if is_archive(path) => Self::read_pth(path),
            Some("bin") => Self::read_llama2c(path),
            _ => Err(ImportError::Ending {
                path: path.to_owned(),
            }),
        }
    }

    /// What is known of the shape, as fields of `config.json`.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The model, `settings` being fields of `config.json` that go over what the file says.
    ///
    /// # Errors
    ///
    /// A number of heads that is not known, a field that there is not or that does not fit the
    /// tensors.
    pub fn into_model(
        mut self,
        settings: &[(String, Value)],
        device: &Device,
    ) -> Result<CausalLm, ImportError> {
        for (field, value) in settings {
            if SAID_BY_TENSORS.contains(&field.as_str()) {
                let field = field.clone();
                return Err(ImportError::SaidByTensors { field });
            }
            self.fields.insert(field.clone(), value.clone());
        }
        shape::derive_heads(&mut self.fields, &self.path)?;
        let text = Value::Object(self.fields).to_string();
        let config = config_json::parse(&text, &self.path)?;
        let known: Map<String, Value> = serde_json::from_str(&config_json::render(&config))
            .expect("a rendered config is an object");
        if let Some((field, _)) = settings
            .iter()
            .find(|(field, _)| !known.contains_key(field))
        {
            return Err(ImportError::UnknownField {
                field: field.clone(),
                model_type: config.model_type.as_str(),
            });
        }
        let (layout, tensors) = (self.layout, self.tensors);
        Ok(model_of_tensors(
            &config, layout, tensors, &self.path, device,
        )?)
    }

    /// Shows every tensor, as f32.
    pub(crate) fn list(&self, show: &mut impl FnMut(ListedTensor)) {
        for (name, tensor) in &self.tensors {
            let values = tensor.values.iter();
            show(ListedTensor {
                name: name.clone(),
                dtype: "F32".to_owned(),
                shape: tensor.shape.clone(),
                bytes: values.flat_map(|value| value.to_le_bytes()).collect(),
            });
        }
    }
}

/// Whether a file begins as a ZIP archive does; one that cannot be read is told of by its reader.
fn is_archive(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"PK\x03\x04"
}
