//! Adapters in PEFT's folder layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT stands them beside the weights of `transformers`: the rows of `lora_B`, one per output,
//! have the order that the weight's rows have there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LoraAdapter, LoraConfig};
use crate::causal_lm::CausalLm;
use crate::hf::safetensors::{FileTensor, FloatType, render};
use crate::hf::{WeightLayout, write_atomically};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.model.";

/// Why adapters cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The config is not PEFT's.
    #[error("{}: not a valid adapter config", path.display())]
    Config {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
    /// The config is PEFT's, of a kind that is not known here.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    Unsupported {
        /// File that was being read.
        path: PathBuf,
        /// Field of the config.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is known here.
        expected: &'static str,
    },
    /// The weights are no safetensors file.
    #[error("{}: not a safetensors file", path.display())]
    Format {
        /// File that was being read.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// A tensor fits no projection of the model.
    #[error("{}: {name}: found {found}, expected {expected}", path.display())]
    Tensor {
        /// File that was being read.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What was found.
        found: String,
        /// What the model has there.
        expected: String,
    },
}

#[derive(Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    alpha_pattern: Option<Map<String, Value>>,
}

/// Writes a model's last attached adapters as PEFT writes them; `base` is where their model lies.
///
/// # Errors
///
/// A folder or file that cannot be written.
pub fn save_adapter(
    model: &CausalLm,
    config: &LoraConfig,
    base: &Path,
    dir: &Path,
) -> Result<(), AdapterError> {
    let mut tensors = BTreeMap::new();
    let mut modules = Vec::new();
    let layout = WeightLayout::of_hugging_face(model.config());
    let mut model = model.clone();
    let shape_of_model = model.config().clone();
    for (path, linear) in model.projections_mut() {
        let Some(adapter) = linear.adapters.last() else {
            continue;
        };
        for (matrix, tensor) in [("lora_A", &adapter.lora_a), ("lora_B", &adapter.lora_b)] {
            let tensor = tensor.val().detach().transpose(); // PyTorch's [outputs, inputs]
            let shape = tensor.dims().to_vec();
            let mut values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
            if matrix == "lora_B" {
                let weight = format!("{path}.weight");
                values = layout.rows_to_file(&weight, shape[1], values, &shape_of_model);
            }
            let name = format!("{PREFIX}{path}.{matrix}.weight");
            tensors.insert(name, FileTensor { shape, values });
        }
        modules.push(path);
    }
    // Names that are no patterns mean the same to PEFT; patterns are written out.
    let is_name = |target: &String| !target.contains(['*', '?', '[']);
    let targets = if config.target_modules.iter().all(is_name) {
        config.target_modules.clone()
    } else {
        modules
    };
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_dora": false,
        "use_rslora": false,
    });
    fs::create_dir_all(dir).map_err(|source| AdapterError::Write {
        path: dir.to_owned(),
        source,
    })?;
    let config = format!("{config:#}\n");
    for (name, bytes) in [
        (CONFIG_FILE, config.as_bytes()),
        (WEIGHTS_FILE, &render(&tensors, FloatType::F32)),
    ] {
        let path = dir.join(name);
        write_atomically(&path, bytes).map_err(|source| AdapterError::Write { path, source })?;
    }
    Ok(())
}

/// The model with the adapters of a PEFT folder beside those that it has already.
///
/// # Errors
///
/// A file that cannot be read, adapters of another kind than LoRA, or tensors that do not fit.
pub fn load_adapter(model: CausalLm, dir: &Path) -> Result<CausalLm, AdapterError> {
    let config = read_config(dir.join(CONFIG_FILE))?;
    let path = dir.join(WEIGHTS_FILE);
    let bytes = fs::read(&path).map_err(|source| AdapterError::Read {
        path: path.clone(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| AdapterError::Format {
        path: path.clone(),
        source,
    })?;
    let device = model.embed_tokens.weight.device();
    let layout = WeightLayout::of_hugging_face(model.config());
    let shape_of_model = model.config().clone();
    let mut names: Vec<&str> = file.names();
    let mut model = model;
    for (module, linear) in model.projections_mut() {
        let [inputs, outputs] = linear.weight.dims();
        let name = |matrix: &str| format!("{PREFIX}{module}.{matrix}.weight");
        let (a, b) = (name("lora_A"), name("lora_B"));
        if file.tensor(&a).is_err() && file.tensor(&b).is_err() {
            continue;
        }
        let read = |name: &str, shape: [usize; 2]| {
            let found = file.tensor(name);
            let fits = |view: &safetensors::tensor::TensorView<'_>| {
                view.dtype() == Dtype::F32 && view.shape() == shape
            };
            match found {
                Ok(view) if fits(&view) => {
                    let words = view.data().chunks_exact(4);
                    let mut values: Vec<f32> = words
                        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                        .collect();
                    if name == b {
                        let weight = format!("{module}.weight");
                        values = layout.rows_from_file(&weight, shape[1], values, &shape_of_model);
                    }
                    let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), &device);
                    Ok(Param::from_tensor(tensor.transpose()))
                }
                found => Err(AdapterError::Tensor {
                    path: path.clone(),
                    name: name.to_owned(),
                    found: match found {
                        Ok(view) => format!("{:?} {:?}", view.dtype(), view.shape()),
                        Err(_) => "nothing".to_owned(),
                    },
                    expected: format!("F32 {shape:?}"),
                }),
            }
        };
        linear.adapters.push(LoraAdapter {
            lora_a: read(&a, [config.r, inputs])?,
            lora_b: read(&b, [outputs, config.r])?,
            scale: config.scale(),
            dropout: None,
        });
        names.retain(|name| *name != a && *name != b);
    }
    match names.first() {
        None => Ok(model),
        Some(name) => Err(AdapterError::Tensor {
            path,
            name: (*name).to_owned(),
            found: "a tensor".to_owned(),
            expected: "only adapters of the model's projections".to_owned(),
        }),
    }
}

impl PeftConfig {
    fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

fn read_config(path: PathBuf) -> Result<PeftConfig, AdapterError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(AdapterError::Read { path, source }),
    };
    let config: PeftConfig = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(source) => return Err(AdapterError::Config { path, source }),
    };
    let unsupported = |field, found: String, expected| AdapterError::Unsupported {
        path: path.clone(),
        field,
        found,
        expected,
    };
    if config.peft_type != "LORA" {
        return Err(unsupported("peft_type", config.peft_type, "LORA"));
    }
    if config.use_dora || config.fan_in_fan_out {
        let field = if config.use_dora {
            "use_dora"
        } else {
            "fan_in_fan_out"
        };
        return Err(unsupported(field, "true".to_owned(), "false"));
    }
    if let Some(pattern) = config.alpha_pattern.as_ref().filter(|map| !map.is_empty()) {
        let found = Value::Object(pattern.clone()).to_string();
        let expected = "no entry: all adapters have one lora_alpha";
        return Err(unsupported("alpha_pattern", found, expected));
    }
    Ok(config)
}
