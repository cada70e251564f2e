//! The fields of `config.json` that fix the experts, as three classes of `transformers` spell them.
//!
//! No class has them all: Qwen3-MoE knows no shared experts, Ernie 4.5 knows no raw weights and no
//! sigmoid, GLM-4 knows no softmax.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{FieldError, ModelConfig, ModelType};
use crate::experts::ExpertsConfig;

/// The coefficient that `transformers` has where a config names none.
const ROUTER_AUX_LOSS_COEF: f64 = 0.001;

/// Fields of all three classes, each absent where its class has none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ExpertsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_experts: Option<usize>,
    /// Where `transformers` 5 writes it.
    #[serde(skip_serializing)]
    num_local_experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_experts_per_tok: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_intermediate_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm_topk_prob: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoder_sparse_step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mlp_only_layers: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_num_experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_num_shared_experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_layer_start_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_layer_end_index: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_layer_interval: Option<usize>,
    /// Not read by `transformers`, which always has the bias; Baidu's own config has the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    moe_use_aux_free: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_routed_experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_shared_experts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_k_dense_replace: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_group: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topk_group: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_rotary_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routed_scaling_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_qk_norm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    router_aux_loss_coef: Option<f64>,
}

impl ExpertsJson {
    /// What the fields of a model's class say; `None` where the class has no experts.
    pub(super) fn experts(
        &self,
        model_type: ModelType,
        num_layers: usize,
    ) -> Result<Option<ExpertsConfig>, FieldError> {
        let experts = match model_type {
            ModelType::Llama | ModelType::Qwen3 => return Ok(None),
            ModelType::Qwen3Moe => self.qwen3(num_layers)?,
            ModelType::Ernie45Moe => self.ernie(num_layers)?,
            ModelType::Glm4Moe => self.glm4(num_layers)?,
        };
        Ok(Some(experts))
    }

    /// The fields that a model's class reads.
    pub(super) fn of(config: &ModelConfig) -> Self {
        let Some(experts) = &config.experts else {
            return Self::default();
        };
        let common = Self {
            num_experts_per_tok: Some(experts.num_experts_per_tok),
            moe_intermediate_size: Some(experts.moe_intermediate_size),
            norm_topk_prob: Some(experts.norm_topk_prob),
            router_aux_loss_coef: Some(experts.router_aux_loss_coef),
            ..Self::default()
        };
        match config.model_type {
            ModelType::Llama | ModelType::Qwen3 => Self::default(),
            ModelType::Qwen3Moe => Self {
                num_experts: Some(experts.num_experts),
                decoder_sparse_step: Some(1),
                mlp_only_layers: Some(experts.dense_layers.clone()),
                ..common
            },
            ModelType::Ernie45Moe => {
                let layers = SparseRun::of(config).expect("validated with the config");
                Self {
                    moe_num_experts: Some(experts.num_experts),
                    moe_k: Some(experts.num_experts_per_tok),
                    num_experts_per_tok: None,
                    moe_num_shared_experts: Some(experts.num_shared_experts),
                    moe_layer_start_index: Some(layers.start),
                    moe_layer_end_index: Some(layers.end as i64),
                    moe_layer_interval: Some(layers.interval),
                    moe_use_aux_free: Some(experts.has_score_correction_bias),
                    norm_topk_prob: None,
                    ..common
                }
            }
            ModelType::Glm4Moe => Self {
                n_routed_experts: Some(experts.num_experts),
                n_shared_experts: Some(experts.num_shared_experts),
                first_k_dense_replace: Some(experts.dense_layers.len()),
                n_group: Some(1),
                topk_group: Some(1),
                partial_rotary_factor: Some(1.0),
                routed_scaling_factor: Some(1.0),
                use_qk_norm: Some(false),
                ..common
            },
        }
    }

    fn qwen3(&self, num_layers: usize) -> Result<ExpertsConfig, FieldError> {
        let step = self.decoder_sparse_step.unwrap_or(1);
        if step == 0 {
            return Err(FieldError::new("decoder_sparse_step", 0, "at least 1"));
        }
        let dense = self.mlp_only_layers.as_deref().unwrap_or_default();
        let mut dense_layers: Vec<usize> = (0..num_layers)
            .filter(|layer| (layer + 1) % step != 0)
            .chain(dense.iter().copied())
            .collect();
        dense_layers.sort_unstable();
        dense_layers.dedup();
        Ok(ExpertsConfig {
            num_experts: required("num_experts", self.num_experts.or(self.num_local_experts))?,
            num_experts_per_tok: required("num_experts_per_tok", self.num_experts_per_tok)?,
            num_shared_experts: 0,
            norm_topk_prob: self.norm_topk_prob.unwrap_or(false),
            has_score_correction_bias: false,
            dense_layers,
            ..self.common()?
        })
    }

    fn ernie(&self, num_layers: usize) -> Result<ExpertsConfig, FieldError> {
        let end = self.moe_layer_end_index.unwrap_or(-1);
        let run = SparseRun {
            start: self.moe_layer_start_index.unwrap_or(1),
            end: usize::try_from(end).unwrap_or(num_layers.saturating_sub(1)),
            interval: self.moe_layer_interval.unwrap_or(1),
        };
        if run.interval == 0 {
            return Err(FieldError::new("moe_layer_interval", 0, "at least 1"));
        }
        Ok(ExpertsConfig {
            num_experts: required("moe_num_experts", self.moe_num_experts)?,
            num_experts_per_tok: required("moe_k", self.moe_k)?,
            num_shared_experts: self.moe_num_shared_experts.unwrap_or(2),
            norm_topk_prob: self.norm_topk_prob.unwrap_or(true),
            has_score_correction_bias: self.moe_use_aux_free.unwrap_or(true),
            dense_layers: (0..num_layers).filter(|layer| !run.holds(*layer)).collect(),
            ..self.common()?
        })
    }

    fn glm4(&self, num_layers: usize) -> Result<ExpertsConfig, FieldError> {
        for (field, found, accepted) in [
            ("n_group", self.n_group, 1),
            ("topk_group", self.topk_group, 1),
        ] {
            if found.is_some_and(|found| found != accepted) {
                let found = found.unwrap_or_default();
                return Err(FieldError::new(field, found, accepted.to_string()));
            }
        }
        let scale = self.routed_scaling_factor.unwrap_or(1.0);
        if (scale - 1.0).abs() > 0.0 {
            return Err(FieldError::new("routed_scaling_factor", scale, "1"));
        }
        if self.use_qk_norm == Some(true) {
            return Err(FieldError::new("use_qk_norm", true, "false"));
        }
        Ok(ExpertsConfig {
            num_experts: required("n_routed_experts", self.n_routed_experts)?,
            num_experts_per_tok: required("num_experts_per_tok", self.num_experts_per_tok)?,
            num_shared_experts: self.n_shared_experts.unwrap_or(1),
            norm_topk_prob: self.norm_topk_prob.unwrap_or(true),
            has_score_correction_bias: true,
            dense_layers: (0..self.first_k_dense_replace.unwrap_or(1).min(num_layers)).collect(),
            ..self.common()?
        })
    }

    /// What the three classes spell alike.
    fn common(&self) -> Result<ExpertsConfig, FieldError> {
        Ok(ExpertsConfig {
            num_experts: 0,
            num_experts_per_tok: 0,
            moe_intermediate_size: required("moe_intermediate_size", self.moe_intermediate_size)?,
            num_shared_experts: 0,
            norm_topk_prob: false,
            has_score_correction_bias: false,
            dense_layers: Vec::new(),
            router_aux_loss_coef: self.router_aux_loss_coef.unwrap_or(ROUTER_AUX_LOSS_COEF),
        })
    }
}

/// Which layers are sparse, as Ernie 4.5 says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SparseRun {
    start: usize,
    end: usize,
    interval: usize,
}

impl SparseRun {
    /// The run that gives exactly the sparse layers of a config; `None` where none does.
    pub(crate) fn of(config: &ModelConfig) -> Option<Self> {
        let num_layers = config.num_hidden_layers;
        let is_sparse = |layer: usize| config.experts_of(layer).is_some();
        let start = (0..num_layers).find(|layer| is_sparse(*layer))?;
        let end = (0..num_layers).rev().find(|layer| is_sparse(*layer))?;
        (1..=num_layers)
            .map(|interval| Self {
                start,
                end,
                interval,
            })
            .find(|run| (0..num_layers).all(|layer| run.holds(layer) == is_sparse(layer)))
    }

    fn holds(self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.interval) && (self.start..=self.end).contains(&layer)
    }
}

/// Refuses a config that leaves out a field whose default in its class is not what is read here:
/// Ernie 4.5 has a rotary base of its own and a tied head, GLM-4 rotates half of each head.
pub(super) fn require_class_defaults(config: &Value) -> Result<(), FieldError> {
    let ropes = ["rope_parameters", "rope_scaling"].map(|field| config.get(field));
    let is_said = |field: &str| {
        let mut places = ropes.into_iter().flatten().chain([config]);
        places.any(|place| place.get(field).is_some_and(|value| !value.is_null()))
    };
    let fields: &[(&str, &str)] = match config.get("model_type").and_then(Value::as_str) {
        Some("ernie4_5_moe") => &[
            ("rope_theta", "a number"),
            ("tie_word_embeddings", "true or false"),
        ],
        Some("glm4_moe") => &[("partial_rotary_factor", "1.0")],
        _ => &[],
    };
    match fields.iter().find(|(field, _)| !is_said(field)) {
        Some((field, expected)) => Err(FieldError::new(field, "missing", *expected)),
        None => Ok(()),
    }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "missing", "a number"))
}
