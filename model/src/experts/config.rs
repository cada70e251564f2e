//! The shape of a mixture of experts, under Hugging Face's names where its classes agree on one.

use serde::{Deserialize, Serialize};

use crate::config::{FieldError, ModelConfig, ModelType};
use crate::hf::SparseRun;

/// How a router's logits become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoringFunc {
    /// Scores of a token sum to one (Shazeer et al. 2017, arXiv:1701.06538).
    Softmax,
    /// Each expert is scored on its own (DeepSeek-V3, arXiv:2412.19437, eq. 15).
    Sigmoid,
}

/// Everything that fixes the sparse layers of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsConfig {
    /// Experts that a token may be sent to.
    pub num_experts: usize,
    /// Experts that a token is sent to.
    pub num_experts_per_tok: usize,
    /// Width inside an expert.
    pub moe_intermediate_size: usize,
    /// Experts that see every token, kept as one of so many times the width.
    pub num_shared_experts: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Whether experts are chosen by their scores plus a bias that balances their load.
    pub has_score_correction_bias: bool,
    /// Layers that have one feed-forward network of `intermediate_size` instead, ascending.
    pub dense_layers: Vec<usize>,
    /// What the folder says of the auxiliary loss; training takes its own from the stage's config.
    pub router_aux_loss_coef: f64,
}

impl ExpertsConfig {
    /// Width of all shared experts together.
    pub fn shared_intermediate_size(&self) -> usize {
        self.num_shared_experts * self.moe_intermediate_size
    }

    /// Whether the language-model loss says nothing about which expert to choose: a single weight
    /// divided by itself is one, whatever the router says.
    pub fn leaves_router_without_gradient(&self) -> bool {
        self.num_experts_per_tok == 1 && self.norm_topk_prob && self.num_experts > 1
    }

    /// Parameters of a sparse layer's feed-forward part, of which a token meets so many routed
    /// experts.
    pub(crate) fn num_params(&self, hidden_size: usize, num_routed: usize) -> usize {
        let expert = 3 * hidden_size * self.moe_intermediate_size;
        let bias = if self.has_score_correction_bias {
            self.num_experts
        } else {
            0
        };
        self.num_experts * hidden_size + bias + (num_routed + self.num_shared_experts) * expert
    }

    pub(crate) fn validate(&self, model: &ModelConfig) -> Result<(), FieldError> {
        let [num_experts, num_experts_per_tok, dense_layers] = field_names(model.model_type);
        for (field, count) in [
            (num_experts, self.num_experts),
            ("moe_intermediate_size", self.moe_intermediate_size),
        ] {
            if count == 0 || count > i32::MAX as usize {
                return Err(FieldError::new(field, count, "1 to 2147483647"));
            }
        }
        let per_token = self.num_experts_per_tok;
        if !(1..=self.num_experts).contains(&per_token) {
            let expected = format!("1 to {num_experts} {}", self.num_experts);
            return Err(FieldError::new(num_experts_per_tok, per_token, expected));
        }
        let layers = model.num_hidden_layers;
        if let Some(layer) = self.dense_layers.iter().find(|layer| **layer >= layers) {
            let expected = format!("layers below num_hidden_layers {layers}");
            return Err(FieldError::new(dense_layers, layer, expected));
        }
        if self.dense_layers.len() >= layers {
            let expected = "at least one layer with experts";
            return Err(FieldError::new(dense_layers, "every layer", expected));
        }
        if !model.model_type.has_experts() {
            let expected = "qwen3_moe, ernie4_5_moe or glm4_moe, since there are experts";
            let found = model.model_type.as_str();
            return Err(FieldError::new("model_type", found, expected));
        }
        let is_prefix = self
            .dense_layers
            .iter()
            .copied()
            .eq(0..self.dense_layers.len());
        let can_say_layers = match model.model_type {
            ModelType::Ernie45Moe => SparseRun::of(model).is_some(),
            ModelType::Glm4Moe => is_prefix,
            _ => true,
        };
        if !can_say_layers {
            let found = format!("{:?}", self.dense_layers);
            let expected = format!(
                "layers that a {} can leave dense",
                model.model_type.as_str()
            );
            return Err(FieldError::new(dense_layers, found, expected));
        }
        self.validate_class(model.model_type)
    }

    /// Refuses what the class of `transformers` that the folder names would compute otherwise.
    fn validate_class(&self, model_type: ModelType) -> Result<(), FieldError> {
        match model_type {
            ModelType::Qwen3Moe if self.num_shared_experts > 0 => Err(FieldError::new(
                "num_shared_experts",
                self.num_shared_experts,
                "0 with model_type qwen3_moe",
            )),
            ModelType::Qwen3Moe if self.has_score_correction_bias => Err(FieldError::new(
                "moe_use_aux_free",
                true,
                "false with model_type qwen3_moe",
            )),
            ModelType::Glm4Moe if !self.has_score_correction_bias => Err(FieldError::new(
                "moe_use_aux_free",
                false,
                "true with model_type glm4_moe",
            )),
            ModelType::Ernie45Moe if !self.norm_topk_prob => Err(FieldError::new(
                "norm_topk_prob",
                false,
                "true with model_type ernie4_5_moe",
            )),
            _ => Ok(()),
        }
    }
}

/// What a class of `transformers` calls the number of experts, that of a token, and what leaves
/// layers dense.
fn field_names(model_type: ModelType) -> [&'static str; 3] {
    match model_type {
        ModelType::Ernie45Moe => ["moe_num_experts", "moe_k", "moe_layer_start_index"],
        ModelType::Glm4Moe => [
            "n_routed_experts",
            "num_experts_per_tok",
            "first_k_dense_replace",
        ],
        _ => ["num_experts", "num_experts_per_tok", "mlp_only_layers"],
    }
}

impl ModelConfig {
    /// The experts of a layer; `None` where it has one feed-forward network.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsConfig> {
        self.experts
            .as_ref()
            .filter(|experts| !experts.dense_layers.contains(&layer))
    }

    /// Layers that have experts.
    pub fn num_sparse_layers(&self) -> usize {
        (0..self.num_hidden_layers)
            .filter(|layer| self.experts_of(*layer).is_some())
            .count()
    }
}
