//! What a GGUF file says before its tensors: pairs of keys and values.

use super::ALIGNMENT;
use super::block::GgufType;
use super::error::GgufError;
use crate::causal_lm::CausalLm;
use crate::config::{ModelConfig, ModelType, RopeScaling};

/// A value of the file's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Metadata {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A statement.
    Bool(bool),
    /// A text.
    Text(String),
    /// Texts, such as tokens.
    Texts(Vec<String>),
    /// Whole numbers, such as the kinds of tokens.
    I32s(Vec<i32>),
    /// Numbers, such as the scores of tokens.
    F32s(Vec<f32>),
}

/// llama.cpp's name for the class that computes what the model computes.
fn architecture(config: &ModelConfig) -> &'static str {
    match config.model_type {
        ModelType::Llama => "llama",
        ModelType::Qwen3 => "qwen3",
        ModelType::Qwen3Moe => "qwen3moe",
        ModelType::Ernie45Moe => "ernie4_5-moe",
        ModelType::Glm4Moe => "glm4moe",
    }
}

/// llama.cpp computes less than `transformers`: what it would silently compute otherwise is refused.
pub(super) fn refuse_what_it_cannot_hold(model: &CausalLm) -> Result<(), GgufError> {
    let config = model.config();
    let experts = config.experts.as_ref();
    let is_qwen = config.model_type == ModelType::Qwen3Moe;
    let not_leading = experts.is_some_and(|experts| {
        let dense = experts.dense_layers.iter().copied();
        !dense.eq(0..experts.dense_layers.len())
    });
    let has_dense = experts.is_some_and(|experts| !experts.dense_layers.is_empty());
    // Every class but GLM-4 divides the weights of a token's experts by their sum; a single one
    // that is not divided would be scaled.
    let keeps_weights = config.model_type != ModelType::Glm4Moe
        && experts.is_some_and(|experts| !experts.norm_topk_prob);
    let scaling = config.rope_scaling.as_ref();
    let has_other_yarn = scaling.is_some_and(|yarn: &RopeScaling| {
        let betas = [yarn.beta_fast.to_bits(), yarn.beta_slow.to_bits()];
        betas != [32.0_f64.to_bits(), 1.0_f64.to_bits()] || !yarn.truncate
    });
    for (part, is_there) in [
        ("a dense layer among its sparse ones", not_leading),
        ("dense layers", is_qwen && has_dense),
        ("expert weights that do not sum to one", keeps_weights),
        ("YaRN other than beta 32 to 1, truncated", has_other_yarn),
        ("the score head of a reward model", model.score.is_some()),
    ] {
        if is_there {
            let architecture = architecture(config);
            return Err(GgufError::NotHeld { architecture, part });
        }
    }
    Ok(())
}

/// What the file says of the model's shape.
pub(super) fn shape_of(config: &ModelConfig, gguf_type: GgufType) -> Vec<(String, Metadata)> {
    let architecture = architecture(config);
    let count = |value: usize| Metadata::U32(value as u32);
    let mut pairs = vec![
        (
            "general.architecture".to_owned(),
            Metadata::Text(architecture.to_owned()),
        ),
        ("general.alignment".to_owned(), count(ALIGNMENT)),
        (
            "general.file_type".to_owned(),
            Metadata::U32(gguf_type.file_type()),
        ),
    ];
    let mut shape = vec![
        ("block_count", count(config.num_hidden_layers)),
        ("context_length", count(config.max_position_embeddings)),
        ("embedding_length", count(config.hidden_size)),
        ("feed_forward_length", count(config.intermediate_size)),
        ("vocab_size", count(config.vocab_size)),
        ("attention.head_count", count(config.num_attention_heads)),
        ("attention.head_count_kv", count(config.num_key_value_heads)),
        ("attention.key_length", count(config.head_dim)),
        ("attention.value_length", count(config.head_dim)),
        (
            "attention.layer_norm_rms_epsilon",
            Metadata::F32(config.rms_norm_eps as f32),
        ),
        ("rope.dimension_count", count(config.head_dim)),
        ("rope.freq_base", Metadata::F32(config.rope_theta as f32)),
    ];
    if let Some(yarn) = &config.rope_scaling {
        // llama.cpp multiplies this one with the default factor.
        let default_factor = RopeScaling::default_attention_factor(yarn.factor);
        shape.extend([
            ("rope.scaling.type", Metadata::Text("yarn".to_owned())),
            ("rope.scaling.factor", Metadata::F32(yarn.factor as f32)),
            (
                "rope.scaling.original_context_length",
                count(yarn.original_max_position_embeddings),
            ),
            (
                "rope.scaling.attn_factor",
                Metadata::F32((yarn.attention_factor / default_factor) as f32),
            ),
        ]);
    }
    shape.extend(experts_of(config));
    pairs.extend(
        shape
            .into_iter()
            .map(|(key, value)| (format!("{architecture}.{key}"), value)),
    );
    pairs
}

/// What the file says of routed and shared experts.
fn experts_of(config: &ModelConfig) -> Vec<(&'static str, Metadata)> {
    let count = |value: usize| Metadata::U32(value as u32);
    let Some(experts) = &config.experts else {
        return Vec::new();
    };
    let mut pairs = vec![
        ("expert_count", count(experts.num_experts)),
        ("expert_used_count", count(experts.num_experts_per_tok)),
        (
            "expert_feed_forward_length",
            count(experts.moe_intermediate_size),
        ),
    ];
    if config.model_type == ModelType::Qwen3Moe {
        return pairs;
    }
    pairs.push((
        "leading_dense_block_count",
        count(experts.dense_layers.len()),
    ));
    pairs.push(("expert_shared_count", count(experts.num_shared_experts)));
    if config.model_type == ModelType::Ernie45Moe {
        pairs.extend([
            (
                "expert_shared_feed_forward_length",
                count(experts.shared_intermediate_size()),
            ),
            ("interleave_moe_layer_step", Metadata::U32(1)),
        ]);
    } else {
        pairs.extend([
            (
                "expert_weights_norm",
                Metadata::Bool(experts.norm_topk_prob),
            ),
            ("expert_weights_scale", Metadata::F32(1.0)),
            // llama.cpp's number of the sigmoid.
            ("expert_gating_func", Metadata::U32(2)),
        ]);
    }
    pairs
}

/// The beginning of a file, as bytes.
pub(super) struct Header(Vec<u8>);

impl Header {
    pub(super) fn new(num_tensors: usize, pairs: &[(String, Metadata)]) -> Self {
        let mut header = Self(b"GGUF".to_vec());
        header.code(3);
        header.len(num_tensors);
        header.len(pairs.len());
        for (key, value) in pairs {
            header.text(key);
            header.value(value);
        }
        header
    }

    /// A tensor's name, sizes, type and place behind the header.
    pub(super) fn tensor(&mut self, name: &str, dims: &[usize], type_code: u32, offset: usize) {
        self.text(name);
        self.code(dims.len() as u32);
        for dim in dims {
            self.len(*dim);
        }
        self.code(type_code);
        self.len(offset);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn code(&mut self, code: u32) {
        self.0.extend(code.to_le_bytes());
    }

    fn len(&mut self, len: usize) {
        self.0.extend((len as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.len(text.len());
        self.0.extend(text.as_bytes());
    }

    fn value(&mut self, value: &Metadata) {
        match value {
            Metadata::U32(value) => {
                self.code(4);
                self.code(*value);
            }
            Metadata::F32(value) => {
                self.code(6);
                self.0.extend(value.to_le_bytes());
            }
            Metadata::Bool(value) => {
                self.code(7);
                self.0.push(u8::from(*value));
            }
            Metadata::Text(text) => {
                self.code(8);
                self.text(text);
            }
            Metadata::Texts(texts) => {
                self.list(8, texts.len());
                for text in texts {
                    self.text(text);
                }
            }
            Metadata::I32s(values) => {
                self.list(5, values.len());
                self.0
                    .extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Metadata::F32s(values) => {
                self.list(6, values.len());
                self.0
                    .extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }

    fn list(&mut self, element_code: u32, len: usize) {
        self.code(9);
        self.code(element_code);
        self.len(len);
    }
}
