//! MiniMind v1's own `config.json`: the fields of its `LMConfig`.

use serde::{Deserialize, Serialize};

use super::config_json::{default_initializer_range, pretty};
use crate::config::{FieldError, ModelConfig, ModelType};

/// MiniMind v1 has no field for it.
pub(super) const ROPE_THETA: f64 = 10_000.0;

/// MiniMind v1's own field names; defaults are those of its `LMConfig`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MiniMindV1Json {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: Option<usize>,
    vocab_size: usize,
    hidden_dim: Option<usize>,
    #[serde(default = "default_multiple_of")]
    multiple_of: usize,
    norm_eps: f64,
    max_seq_len: usize,
}

/// What MiniMind v1's `LMConfig` says of the same model.
pub(crate) fn render(config: &ModelConfig) -> String {
    pretty(&MiniMindV1Json {
        dim: config.hidden_size,
        n_layers: config.num_hidden_layers,
        n_heads: config.num_attention_heads,
        n_kv_heads: Some(config.num_key_value_heads),
        vocab_size: config.vocab_size,
        hidden_dim: Some(config.intermediate_size),
        multiple_of: default_multiple_of(),
        norm_eps: config.rms_norm_eps,
        max_seq_len: config.max_position_embeddings,
    })
}

impl TryFrom<MiniMindV1Json> for ModelConfig {
    type Error = FieldError;

    fn try_from(json: MiniMindV1Json) -> Result<Self, FieldError> {
        let hidden_dim = json
            .hidden_dim
            .unwrap_or_else(|| (8 * json.dim / 3).next_multiple_of(json.multiple_of.max(1)));
        let config = Self {
            model_type: ModelType::Llama,
            vocab_size: json.vocab_size,
            hidden_size: json.dim,
            intermediate_size: hidden_dim,
            num_hidden_layers: json.n_layers,
            num_attention_heads: json.n_heads,
            num_key_value_heads: json.n_kv_heads.unwrap_or(json.n_heads),
            head_dim: json.dim / json.n_heads.max(1),
            max_position_embeddings: json.max_seq_len,
            rms_norm_eps: json.norm_eps,
            rope_theta: ROPE_THETA,
            rope_scaling: None,
            tie_word_embeddings: true,
            initializer_range: default_initializer_range(),
            // Its tokenizer's `<s>`, `</s>`, and the id it pads with.
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: Some(0),
        };
        config.validate()?;
        Ok(config)
    }
}

fn default_multiple_of() -> usize {
    64
}
