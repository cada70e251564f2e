//! MiniMind v1's own `config.json`: the fields of its `LMConfig`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config_json::{default_initializer_range, pretty};
use crate::config::{FieldError, ModelConfig, ModelType};
use crate::experts::ExpertsConfig;

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
    #[serde(flatten)]
    experts: MiniMindV1Experts,
}

/// The fields of a MiniMind v1 config that ask for experts.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct MiniMindV1Experts {
    #[serde(default)]
    use_moe: bool,
    #[serde(default = "two")]
    num_experts_per_tok: usize,
    #[serde(default = "four")]
    n_routed_experts: usize,
    /// True, a number or null; whatever it is but null, the model has one.
    #[serde(default = "some_shared")]
    n_shared_experts: Value,
    #[serde(default = "softmax")]
    scoring_func: String,
    #[serde(default = "default_aux_loss_alpha")]
    aux_loss_alpha: f64,
    #[serde(default = "yes")]
    norm_topk_prob: bool,
}

impl MiniMindV1Experts {
    fn of(config: &ModelConfig) -> Self {
        let experts = config.experts.as_ref();
        Self {
            use_moe: experts.is_some(),
            num_experts_per_tok: experts.map_or_else(two, |experts| experts.num_experts_per_tok),
            n_routed_experts: experts.map_or_else(four, |experts| experts.num_experts),
            n_shared_experts: match experts {
                Some(experts) if experts.num_shared_experts == 0 => Value::Null,
                _ => some_shared(),
            },
            scoring_func: softmax(),
            aux_loss_alpha: experts.map_or_else(default_aux_loss_alpha, |experts| {
                experts.router_aux_loss_coef
            }),
            norm_topk_prob: true,
        }
    }

    fn read(self, intermediate_size: usize) -> Result<Option<ExpertsConfig>, FieldError> {
        if !self.use_moe {
            return Ok(None);
        }
        if self.scoring_func != "softmax" {
            let found = format!("\"{}\"", self.scoring_func);
            return Err(FieldError::new("scoring_func", found, "softmax"));
        }
        let per_token = self.num_experts_per_tok;
        if per_token < 2 {
            let expected = "at least 2: MiniMind v1 leaves a single weight as it is, ernie4_5_moe \
                            does not";
            return Err(FieldError::new("num_experts_per_tok", per_token, expected));
        }
        if per_token > self.n_routed_experts {
            let expected = format!("at most n_routed_experts {}", self.n_routed_experts);
            return Err(FieldError::new("num_experts_per_tok", per_token, expected));
        }
        Ok(Some(ExpertsConfig {
            num_experts: self.n_routed_experts,
            num_experts_per_tok: per_token,
            moe_intermediate_size: intermediate_size,
            num_shared_experts: usize::from(!self.n_shared_experts.is_null()),
            norm_topk_prob: self.norm_topk_prob,
            has_score_correction_bias: false,
            dense_layers: Vec::new(),
            router_aux_loss_coef: self.aux_loss_alpha,
        }))
    }
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
        experts: MiniMindV1Experts::of(config),
    })
}

impl TryFrom<MiniMindV1Json> for ModelConfig {
    type Error = FieldError;

    fn try_from(json: MiniMindV1Json) -> Result<Self, FieldError> {
        let hidden_dim = json
            .hidden_dim
            .unwrap_or_else(|| (8 * json.dim / 3).next_multiple_of(json.multiple_of.max(1)));
        let experts = json.experts.read(hidden_dim)?;
        let config = Self {
            model_type: match &experts {
                Some(_) => ModelType::Ernie45Moe,
                None => ModelType::Llama,
            },
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
            experts,
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

fn default_aux_loss_alpha() -> f64 {
    0.01
}

fn some_shared() -> Value {
    Value::Bool(true)
}

fn softmax() -> String {
    "softmax".to_owned()
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn yes() -> bool {
    true
}
