//! Hugging Face model folders in and out: `config.json`, `generation_config.json`, safetensors.
//!
//! Reading is strict: a missing, unused or misshapen tensor is an error that names it.

pub(crate) mod config_json;
mod error;
mod experts_json;
mod minimind_json;
mod minimind_v1;
mod names;
mod rope_json;
pub(crate) mod safetensors;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::Path;

use burn::prelude::*;
use serde_json::{Map, Value, json};

pub use self::error::HfError;
pub(crate) use self::experts_json::SparseRun;
pub use self::names::WeightLayout;
pub use self::safetensors::FloatType;
use self::safetensors::{FileTensor, StoredTensor};
use crate::causal_lm::CausalLm;
use crate::config::{ConfigError, ModelConfig, ModelType};
use crate::params::{fill_params, named_params};

const CONFIG_FILE: &str = "config.json";
const GENERATION_FILE: &str = "generation_config.json";
/// The tensor that only a model that judges has.
const SCORE: &str = "score.weight";

/// Reads a model folder, with Hugging Face's or MiniMind v1's names.
///
/// # Errors
///
/// Names the file and the field or tensor at fault.
pub fn load_model(dir: &Path, device: &Device) -> Result<CausalLm, HfError> {
    let mut config = ModelConfig::load(&dir.join(CONFIG_FILE))?;
    // Generation's own list of stop tokens goes before the model's, as in `transformers`.
    let stop_ids = read_stop_ids(&dir.join(GENERATION_FILE))?;
    if !stop_ids.is_empty() {
        config.eos_token_id = stop_ids;
        config.validate().map_err(|source| ConfigError::Field {
            path: dir.join(GENERATION_FILE),
            source,
        })?;
    }
    let stored = safetensors::read_folder(dir)?;
    let layout = WeightLayout::detect(stored.keys().map(String::as_str), &config);
    model_of_tensors(&config, layout, stored, dir, device)
}

/// A model filled with tensors that were read from `path`, each of which it must have a place for.
pub(crate) fn model_of_tensors(
    config: &ModelConfig,
    layout: WeightLayout,
    mut stored: BTreeMap<String, StoredTensor>,
    path: &Path,
    device: &Device,
) -> Result<CausalLm, HfError> {
    if config.tie_word_embeddings {
        drop_tied_head(layout, &mut stored)?;
    }
    drop_zero_biases(config, &mut stored);

    let mut model = CausalLm::empty(config, device);
    if layout != WeightLayout::MiniMindV1 && stored.contains_key(SCORE) {
        model = model.with_score_head();
    }
    let model = fill_params(model, |param, shape| {
        let name = layout.tensor_name(param);
        let Some(tensor) = stored.remove(&name) else {
            return Err(HfError::Missing {
                path: path.to_path_buf(),
                name,
            });
        };
        let expected = layout.tensor_shape(param, shape);
        if tensor.shape != expected {
            let (path, found) = (tensor.path, tensor.shape);
            return Err(HfError::Shape {
                path,
                name,
                found,
                expected,
            });
        }
        Ok(layout.from_file(param, shape, tensor.values, config))
    })?;
    match stored.pop_first() {
        Some((name, tensor)) => Err(HfError::Unused {
            path: tensor.path,
            name,
        }),
        None => Ok(model),
    }
}

/// Writes a folder that `transformers` loads as it is: config, generation config, f32 weights.
///
/// Each file appears whole or not at all, the weights last.
///
/// # Errors
///
/// Names the file that cannot be written; packed weights cannot be saved at all.
pub fn save_model(model: &CausalLm, dir: &Path) -> Result<(), HfError> {
    save_model_as(model, dir, FloatType::F32)
}

/// [`save_model`] with weights of another type.
///
/// # Errors
///
/// As [`save_model`].
pub fn save_model_as(model: &CausalLm, dir: &Path, float_type: FloatType) -> Result<(), HfError> {
    let config = model.config();
    let mut config_text = config_json::render_as(config, float_type);
    if model.score.is_some() {
        config_text = as_classifier(&config_text);
    }
    let layout = WeightLayout::of_hugging_face(config);
    save_folder(model, dir, &config_text, layout, float_type)
}

/// Writes the same folder with MiniMind v1's field names, tensor names and row order.
///
/// # Errors
///
/// Names the file that cannot be written, or the part of the model that v1 has not.
pub fn save_minimind_v1(model: &CausalLm, dir: &Path) -> Result<(), HfError> {
    let config = model.config();
    for (part, is_there) in [
        ("query and key norms", config.model_type.has_qk_norm()),
        (
            "another scoring function than softmax",
            config.model_type == ModelType::Glm4Moe,
        ),
        (
            "experts of another width, several shared ones, a bias or dense layers among them",
            config.experts.as_ref().is_some_and(|experts| {
                experts.moe_intermediate_size != config.intermediate_size
                    || experts.num_shared_experts > 1
                    || experts.has_score_correction_bias
                    || !experts.dense_layers.is_empty()
            }),
        ),
        (
            "a single expert per token with the weight 1",
            config
                .experts
                .as_ref()
                .is_some_and(|experts| experts.num_experts_per_tok == 1),
        ),
        ("a separate output head", !config.tie_word_embeddings),
        ("a score head", model.score.is_some()),
        ("a context extension", config.rope_scaling.is_some()),
        (
            "another rope_theta than 10000",
            config.rope_theta.to_bits() != minimind_v1::ROPE_THETA.to_bits(),
        ),
        (
            "a head size of its own",
            config.query_width() != config.hidden_size,
        ),
    ] {
        if is_there {
            return Err(HfError::NotMiniMindV1 { part });
        }
    }
    let config_text = minimind_v1::render(config);
    let layout = WeightLayout::MiniMindV1;
    save_folder(model, dir, &config_text, layout, FloatType::F32)
}

/// Writes a file beside its place, then moves it there, so that it is never seen half-written.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_with(path, |out| out.write_all(bytes))
}

/// [`write_atomically`] for bytes that need not be in memory at once.
pub(crate) fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = File::create(&partial).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        let file = out.into_inner().map_err(IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // The first error is the one worth reporting.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn save_folder(
    model: &CausalLm,
    dir: &Path,
    config_text: &str,
    layout: WeightLayout,
    float_type: FloatType,
) -> Result<(), HfError> {
    if model.is_packed() {
        return Err(HfError::Packed);
    }
    let config = model.config();
    let mut tensors: BTreeMap<_, _> = named_params(model)
        .into_iter()
        .map(|param| {
            let shape = layout.tensor_shape(&param.path, &param.shape);
            let values = layout.to_file(&param.path, &param.shape, param.values, config);
            (
                layout.tensor_name(&param.path),
                FileTensor { shape, values },
            )
        })
        .collect();
    if layout == WeightLayout::Ernie45 {
        tensors.extend(zero_biases(config));
    }

    fs::create_dir_all(dir).map_err(|source| HfError::Write {
        path: dir.to_path_buf(),
        source,
    })?;
    for (name, bytes) in [
        (CONFIG_FILE, config_text.as_bytes()),
        (
            GENERATION_FILE,
            config_json::render_generation(config).as_bytes(),
        ),
        (
            safetensors::SINGLE_FILE,
            &safetensors::render(&tensors, float_type),
        ),
    ] {
        let path = dir.join(name);
        write_atomically(&path, bytes).map_err(|source| HfError::Write { path, source })?;
    }
    Ok(())
}

/// The config of a model that judges, as `transformers` reads it: a classifier of one label.
fn as_classifier(config_text: &str) -> String {
    let mut config: Map<String, Value> =
        serde_json::from_str(config_text).expect("the text was rendered from fields");
    for class in config["architectures"].as_array_mut().into_iter().flatten() {
        let classifier = class.as_str().unwrap_or_default();
        *class = classifier
            .replace("ForCausalLM", "ForSequenceClassification")
            .into();
    }
    config.insert("id2label".to_owned(), json!({"0": "LABEL_0"}));
    config.insert("label2id".to_owned(), json!({"LABEL_0": 0}));
    serde_json::to_string_pretty(&config).expect("a map of JSON is JSON") + "\n"
}

fn read_stop_ids(path: &Path) -> Result<Vec<u32>, HfError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let path = path.to_path_buf();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(HfError::Read { path, source }),
    };
    config_json::parse_generation(&text).map_err(|source| HfError::Json { path, source })
}

/// Files of tied models may repeat the embedding as the head.
fn drop_tied_head(
    layout: WeightLayout,
    stored: &mut BTreeMap<String, StoredTensor>,
) -> Result<(), HfError> {
    let name = layout.tensor_name("lm_head.weight");
    let Some(head) = stored.remove(&name) else {
        return Ok(());
    };
    let embedding = stored.get(&layout.tensor_name("embed_tokens.weight"));
    match embedding {
        Some(embedding) if embedding.values != head.values => Err(HfError::TiedHead {
            path: head.path,
            name,
        }),
        _ => Ok(()),
    }
}

/// The biases that an Ernie 4.5 always has, where ours has none: zeros change nothing.
fn zero_biases(config: &ModelConfig) -> Vec<(String, FileTensor)> {
    let missing = |layer: &usize| {
        let experts = config.experts_of(*layer);
        experts.is_some_and(|experts| !experts.has_score_correction_bias)
    };
    let num_experts = config
        .experts
        .as_ref()
        .map_or(0, |experts| experts.num_experts);
    (0..config.num_hidden_layers)
        .filter(missing)
        .map(|layer| {
            let bias = FileTensor {
                shape: vec![1, num_experts],
                values: vec![0.0; num_experts],
            };
            (WeightLayout::Ernie45.tensor_name(&bias_path(layer)), bias)
        })
        .collect()
}

/// Forgets the biases of a file that the model has no place for, where they change nothing.
fn drop_zero_biases(config: &ModelConfig, stored: &mut BTreeMap<String, StoredTensor>) {
    for (name, zeros) in zero_biases(config) {
        if stored
            .get(&name)
            .is_some_and(|bias| bias.values == zeros.values)
        {
            stored.remove(&name);
        }
    }
}

fn bias_path(layer: usize) -> String {
    format!("layers.{layer}.mlp.gate.e_score_correction_bias")
}
