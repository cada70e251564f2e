//! `config.json` and `generation_config.json` as `transformers` 4 and 5 write them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::experts_json::{ExpertsJson, require_class_defaults};
use super::minimind_json;
use super::minimind_v1::MiniMindV1Json;
use super::rope_json::RopeJson;
use super::safetensors::FloatType;
use crate::config::{ConfigError, FieldError, ModelConfig, ModelType, RopeScaling};

/// The fields of `config.json` that fix the decoder, in the order they are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConfigJson {
    #[serde(default)]
    architectures: Vec<String>,
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    /// Where `transformers` 4 reads the rotary base.
    rope_theta: Option<f64>,
    /// Where `transformers` 4 reads the context extension.
    rope_scaling: Option<RopeJson>,
    /// Where `transformers` 5 reads both.
    rope_parameters: Option<RopeJson>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_initializer_range")]
    initializer_range: f64,
    bos_token_id: Option<u32>,
    #[serde(default)]
    eos_token_id: TokenIds,
    pad_token_id: Option<u32>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    dtype: Option<String>,
    #[serde(flatten)]
    experts: ExpertsJson,
}

/// `eos_token_id`: nothing, one id or several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenIds {
    /// `null`, or the field is absent.
    #[default]
    None,
    /// A single number.
    One(u32),
    /// A list.
    Many(Vec<u32>),
}

impl TokenIds {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }

    pub(crate) fn from_slice(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            [id] => Self::One(*id),
            _ => Self::Many(ids.to_vec()),
        }
    }
}

/// Reads Hugging Face's or MiniMind v1's fields and validates the result.
pub(crate) fn parse(text: &str, path: &Path) -> Result<ModelConfig, ConfigError> {
    let json = |source| ConfigError::Json {
        path: path.to_path_buf(),
        source,
    };
    let field = |source| ConfigError::Field {
        path: path.to_path_buf(),
        source,
    };

    let mut value: Value = serde_json::from_str(text).map_err(json)?;
    if let Value::Object(fields) = &mut value
        && fields
            .get("model_type")
            .is_some_and(|found| found == minimind_json::MODEL_TYPE)
    {
        minimind_json::in_transformers_words(fields).map_err(field)?;
        refuse_other_features(&value).map_err(field)?;
        let config: ConfigJson = serde_json::from_value(value).map_err(json)?;
        return ModelConfig::try_from(config).map_err(field);
    }
    refuse_other_features(&value).map_err(field)?;
    require_class_defaults(&value).map_err(field)?;
    // From the text, so that what is wrong is named with its line.
    if value.get("dim").is_some() {
        let config: MiniMindV1Json = serde_json::from_str(text).map_err(json)?;
        ModelConfig::try_from(config).map_err(field)
    } else {
        let config: ConfigJson = serde_json::from_str(text).map_err(json)?;
        ModelConfig::try_from(config).map_err(field)
    }
}

/// What `config.json` says of a model with f32 weights, readable by `transformers` 4 and 5.
pub(crate) fn render(config: &ModelConfig) -> String {
    render_as(config, FloatType::F32)
}

/// [`render`] for weights of another type.
pub(crate) fn render_as(config: &ModelConfig, float_type: FloatType) -> String {
    let mut json = ConfigJson::from(config.clone());
    json.dtype = Some(float_type.dtype_name().to_owned());
    pretty(&json)
}

/// What `generation_config.json` says: where a document begins and ends.
pub(crate) fn render_generation(config: &ModelConfig) -> String {
    pretty(&json!({
        "_from_model_config": true,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": TokenIds::from_slice(&config.eos_token_id),
        "pad_token_id": config.pad_token_id,
    }))
}

/// The stop ids of a `generation_config.json`, if it has any.
pub(crate) fn parse_generation(text: &str) -> Result<Vec<u32>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Generation {
        #[serde(default)]
        eos_token_id: TokenIds,
    }
    serde_json::from_str(text).map(|json: Generation| json.eos_token_id.into_vec())
}

impl TryFrom<ConfigJson> for ModelConfig {
    type Error = FieldError;

    fn try_from(json: ConfigJson) -> Result<Self, FieldError> {
        let model_type = match json.model_type.as_str() {
            "llama" => ModelType::Llama,
            "qwen3" => ModelType::Qwen3,
            "qwen3_moe" => ModelType::Qwen3Moe,
            "ernie4_5_moe" => ModelType::Ernie45Moe,
            "glm4_moe" => ModelType::Glm4Moe,
            other => {
                return Err(FieldError::new(
                    "model_type",
                    quoted(other),
                    "llama, qwen3, qwen3_moe, ernie4_5_moe or glm4_moe",
                ));
            }
        };
        if json.hidden_act != "silu" {
            return Err(FieldError::new(
                "hidden_act",
                quoted(&json.hidden_act),
                "silu",
            ));
        }
        let head_dim = match (json.head_dim, model_type) {
            (Some(head_dim), _) => head_dim,
            // Qwen3's default in `transformers`, whatever the hidden size.
            (None, ModelType::Qwen3) => 128,
            (None, _) => json.hidden_size / json.num_attention_heads.max(1),
        };
        let config = Self {
            model_type,
            vocab_size: json.vocab_size,
            hidden_size: json.hidden_size,
            intermediate_size: json.intermediate_size,
            num_hidden_layers: json.num_hidden_layers,
            num_attention_heads: json.num_attention_heads,
            num_key_value_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
            head_dim,
            max_position_embeddings: json.max_position_embeddings,
            rms_norm_eps: json.rms_norm_eps,
            rope_theta: json.rope_theta()?,
            experts: json.experts.experts(model_type, json.num_hidden_layers)?,
            rope_scaling: json.rope_scaling()?,
            tie_word_embeddings: json.tie_word_embeddings,
            initializer_range: json.initializer_range,
            bos_token_id: json.bos_token_id,
            eos_token_id: json.eos_token_id.into_vec(),
            pad_token_id: json.pad_token_id,
        };
        config.validate()?;
        Ok(config)
    }
}

impl From<ModelConfig> for ConfigJson {
    fn from(config: ModelConfig) -> Self {
        let rope = RopeJson::from_config(&config);
        let experts = ExpertsJson::of(&config);
        Self {
            architectures: vec![config.model_type.architecture().to_owned()],
            model_type: config.model_type.as_str().to_owned(),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: Some(config.num_key_value_heads),
            head_dim: Some(config.head_dim),
            hidden_act: silu(),
            max_position_embeddings: config.max_position_embeddings,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: Some(config.rope_theta),
            rope_scaling: config.rope_scaling.is_some().then(|| rope.clone()),
            rope_parameters: Some(rope),
            tie_word_embeddings: config.tie_word_embeddings,
            initializer_range: config.initializer_range,
            bos_token_id: config.bos_token_id,
            eos_token_id: TokenIds::from_slice(&config.eos_token_id),
            pad_token_id: config.pad_token_id,
            attention_bias: false,
            mlp_bias: false,
            dtype: Some("float32".to_owned()),
            experts,
        }
    }
}

impl ConfigJson {
    fn rope_theta(&self) -> Result<f64, FieldError> {
        let nested = self.ropes().find_map(|rope| rope.rope_theta);
        match (self.rope_theta, nested) {
            (Some(outer), Some(inner)) if outer.to_bits() != inner.to_bits() => {
                let expected = format!("{inner} as in rope_parameters");
                Err(FieldError::new("rope_theta", outer, expected))
            }
            (Some(theta), _) | (None, Some(theta)) => Ok(theta),
            // The default of `transformers`, but of Ernie 4.5, which has to say its own.
            (None, None) => Ok(10_000.0),
        }
    }

    fn rope_scaling(&self) -> Result<Option<RopeScaling>, FieldError> {
        let mut scalings = Vec::new();
        for rope in self.ropes() {
            scalings.push(rope.scaling(self.max_position_embeddings)?);
        }
        match scalings.as_slice() {
            [first, second] if first != second => Err(FieldError::new(
                "rope_scaling",
                "another than rope_parameters",
                "the same in both",
            )),
            _ => Ok(scalings.into_iter().flatten().next()),
        }
    }

    fn ropes(&self) -> impl Iterator<Item = &RopeJson> {
        self.rope_parameters.iter().chain(&self.rope_scaling)
    }
}

/// Features that change what the weights compute and that this decoder does not have are accepted
/// only at the value that turns them off.
fn refuse_other_features(value: &Value) -> Result<(), FieldError> {
    // MiniMind v1 says with it that there are experts.
    let is_minimind_v1 = value.get("dim").is_some();
    let use_moe = value.get("use_moe").cloned().unwrap_or_default();
    if !is_minimind_v1 && use_moe == json!(true) {
        return Err(FieldError::new("use_moe", true, "false"));
    }
    for (field, accepted) in [
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("use_sliding_window", json!(false)),
        ("use_bias", json!(false)),
        ("partial_rotary_factor", json!(1.0)),
        ("quantization_config", json!(null)),
    ] {
        match value.get(field) {
            None | Some(Value::Null) => {}
            Some(found) if *found == accepted => {}
            Some(found) => return Err(FieldError::new(field, found, accepted.to_string())),
        }
    }
    let layer_types = value.get("layer_types").and_then(Value::as_array);
    for found in layer_types.into_iter().flatten() {
        if found != "full_attention" {
            return Err(FieldError::new(
                "layer_types",
                found,
                "full_attention in every layer",
            ));
        }
    }
    Ok(())
}

pub(super) fn pretty(json: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(json).expect("the fields are plain JSON values");
    text.push('\n');
    text
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn silu() -> String {
    "silu".to_owned()
}

pub(super) fn default_initializer_range() -> f64 {
    0.02
}
