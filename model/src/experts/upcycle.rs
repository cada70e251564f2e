//! A mixture of experts from a dense model: every expert starts as its feed-forward network.
//!
//! Source: Komatsuzaki et al. 2022, arXiv:2212.05055, section 3. Routers are drawn. A token's
//! experts are equal and their weights sum to one, and shared experts start out silent, so that the
//! mixture says what the dense model says.

use std::collections::BTreeMap;

use burn::prelude::*;

use crate::causal_lm::CausalLm;
use crate::config::{FieldError, ModelConfig};
use crate::params::{fill_params, named_params};

/// Fields in which a mixture must equal the dense model it starts from.
fn fields(config: &ModelConfig) -> [(&'static str, String); 11] {
    let scaling = config
        .rope_scaling
        .as_ref()
        .map_or_else(|| "none".to_owned(), |scaling| format!("{scaling:?}"));
    [
        ("vocab_size", config.vocab_size.to_string()),
        ("hidden_size", config.hidden_size.to_string()),
        ("num_hidden_layers", config.num_hidden_layers.to_string()),
        (
            "num_attention_heads",
            config.num_attention_heads.to_string(),
        ),
        (
            "num_key_value_heads",
            config.num_key_value_heads.to_string(),
        ),
        ("head_dim", config.head_dim.to_string()),
        ("rope_theta", config.rope_theta.to_string()),
        ("rope_scaling", scaling),
        ("rms_norm_eps", config.rms_norm_eps.to_string()),
        (
            "tie_word_embeddings",
            config.tie_word_embeddings.to_string(),
        ),
        (
            "query and key norms",
            config.model_type.has_qk_norm().to_string(),
        ),
    ]
}

impl CausalLm {
    /// A mixture of the shape of `config` that computes what `dense` computes.
    ///
    /// # Errors
    ///
    /// Names the field of `config` in which the two cannot be the same model.
    ///
    /// # Panics
    ///
    /// If the config is not valid.
    pub fn upcycled(
        dense: &Self,
        config: &ModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, FieldError> {
        let from = dense.config();
        for ((field, wanted), (_, found)) in fields(config).into_iter().zip(fields(from)) {
            if wanted != found {
                let expected = format!("{found} as in the dense model");
                return Err(FieldError::new(field, wanted, expected));
            }
        }
        let Some(experts) = &config.experts else {
            return Err(FieldError::new(
                "num_experts",
                "missing",
                "experts to start",
            ));
        };
        if from.experts.is_some() {
            let found = from.model_type.as_str();
            return Err(FieldError::new(
                "the dense model's model_type",
                found,
                "a dense model",
            ));
        }
        if !experts.norm_topk_prob {
            return Err(FieldError::new(
                "norm_topk_prob",
                false,
                "true to start from a dense model",
            ));
        }
        let is_mixed = !experts.dense_layers.is_empty();
        for (field, width) in [
            ("moe_intermediate_size", experts.moe_intermediate_size),
            ("intermediate_size", config.intermediate_size),
        ] {
            if width != from.intermediate_size && (is_mixed || field != "intermediate_size") {
                let expected = format!("{} as in the dense model", from.intermediate_size);
                return Err(FieldError::new(field, width, expected));
            }
        }

        let weights: BTreeMap<String, Vec<f32>> = named_params(dense)
            .into_iter()
            .map(|param| (param.path, param.values))
            .collect();
        let drawn: BTreeMap<String, Vec<f32>> = named_params(&Self::new(config, seed, device))
            .into_iter()
            .filter(|param| !weights.contains_key(&param.path))
            .map(|param| (param.path, param.values))
            .collect();
        fill_params(Self::empty(config, device), |path, shape| {
            if path.contains(".shared_experts.down_proj.") {
                return Ok(vec![0.0; shape.iter().product()]);
            }
            let source = source_of(path);
            let values = weights.get(&source).or_else(|| drawn.get(path));
            Ok(values
                .expect("a path is the dense model's or drawn")
                .clone())
        })
    }
}

/// The dense model's path for that of an expert: `layers.2.mlp.experts.3.up_proj.weight` is
/// `layers.2.mlp.up_proj.weight`.
fn source_of(path: &str) -> String {
    let Some((layer, expert)) = path.split_once(".mlp.experts.") else {
        return path.to_owned();
    };
    let (_, projection) = expert.split_once('.').expect("an expert has a number");
    format!("{layer}.mlp.{projection}")
}
