//! The one table between our parameters and the tensors of weight files, used in both directions.
//!
//! A linear weight is `[inputs, outputs]` here and `[outputs, inputs]` in every file. MiniMind v1
//! rotates neighbouring features of a head, Hugging Face and this house rotate features half a head
//! apart: with the rows of its query and key weights reordered, a v1 model is a Llama model.

use crate::config::{ModelConfig, ModelType};

/// Whose names and row order a weight file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightLayout {
    /// `model.layers.0.self_attn.q_proj.weight`, features of a pair half a head apart.
    HuggingFace,
    /// `layers.0.attention.wq.weight`, features of a pair next to each other.
    MiniMindV1,
    /// Hugging Face's names for an Ernie 4.5, features of a pair next to each other.
    Ernie45,
}

/// Our field and MiniMind v1's. Hugging Face's names are ours, behind `model.`.
const MINIMIND_V1_NAMES: [(&str, &str); 13] = [
    ("embed_tokens", "tok_embeddings"),
    ("input_layernorm", "attention_norm"),
    ("self_attn.q_proj", "attention.wq"),
    ("self_attn.k_proj", "attention.wk"),
    ("self_attn.v_proj", "attention.wv"),
    ("self_attn.o_proj", "attention.wo"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate", "feed_forward.gate"),
    ("mlp.gate_proj", "feed_forward.w1"),
    ("mlp.down_proj", "feed_forward.w2"),
    ("mlp.up_proj", "feed_forward.w3"),
    ("norm", "norm"),
    ("lm_head", "output"),
];

/// The end of the bias's path, which is its name in most classes, and Ernie 4.5's.
const BIAS: &str = "gate.e_score_correction_bias";
const ERNIE_BIAS: &str = "moe_statics.e_score_correction_bias";

impl WeightLayout {
    /// The layout of a file with these tensors, of a model of this shape.
    pub fn detect<'a>(mut names: impl Iterator<Item = &'a str>, config: &ModelConfig) -> Self {
        let minimind = Self::MiniMindV1.tensor_name("embed_tokens.weight");
        if names.any(|name| name == minimind) {
            Self::MiniMindV1
        } else {
            Self::of_hugging_face(config)
        }
    }

    /// The layout that `transformers` reads a model of this shape in.
    pub fn of_hugging_face(config: &ModelConfig) -> Self {
        match config.model_type {
            ModelType::Ernie45Moe => Self::Ernie45,
            _ => Self::HuggingFace,
        }
    }

    /// The file's name for the parameter at `path`; one that the layout does not know keeps ours,
    /// which no file has.
    pub fn tensor_name(self, path: &str) -> String {
        match self {
            Self::HuggingFace | Self::Ernie45 if is_head(path) => path.to_owned(),
            Self::Ernie45 => format!("model.{}", path.replace(BIAS, ERNIE_BIAS)),
            Self::HuggingFace => format!("model.{path}"),
            Self::MiniMindV1 => {
                let (layer, field) = split_layer(path);
                let field = field.strip_suffix(".weight").unwrap_or(field);
                if let Some((expert, projection)) = split_expert(field) {
                    let projection = format!("mlp.{projection}");
                    let name = minimind_v1_name(&projection).trim_start_matches("feed_forward.");
                    return format!("{layer}feed_forward.{expert}.{name}.weight");
                }
                format!("{layer}{}.weight", minimind_v1_name(field))
            }
        }
    }

    /// The file's shape of the parameter at `path`, given ours.
    pub fn tensor_shape(self, path: &str, shape: &[usize]) -> Vec<usize> {
        match shape {
            [inputs, outputs] if is_linear(path) => vec![*outputs, *inputs],
            [experts] if self == Self::Ernie45 && path.ends_with(BIAS) => vec![1, *experts],
            _ => shape.to_vec(),
        }
    }

    /// Our values, `shape` being ours, in the file's order.
    pub fn to_file(
        self,
        path: &str,
        shape: &[usize],
        values: Vec<f32>,
        config: &ModelConfig,
    ) -> Vec<f32> {
        let rows = match shape {
            [inputs, outputs] if is_linear(path) => transposed(&values, *inputs, *outputs),
            _ => return values,
        };
        self.rows_to_file(path, shape[0], rows, config)
    }

    /// Rows of `width` values, one for each output of the weight at `path`, in the file's order.
    pub(crate) fn rows_to_file(
        self,
        path: &str,
        width: usize,
        rows: Vec<f32>,
        config: &ModelConfig,
    ) -> Vec<f32> {
        if self.reorders(path) {
            reorder_rows(&rows, width, config.head_dim, neighbour_of_half)
        } else {
            rows
        }
    }

    /// The file's values, `shape` being ours, in our order.
    pub fn from_file(
        self,
        path: &str,
        shape: &[usize],
        values: Vec<f32>,
        config: &ModelConfig,
    ) -> Vec<f32> {
        match shape {
            [inputs, outputs] if is_linear(path) => {
                let rows = self.rows_from_file(path, *inputs, values, config);
                transposed(&rows, *outputs, *inputs)
            }
            _ => values,
        }
    }

    /// The file's rows of `width` values, one for each output of the weight at `path`, in ours.
    pub(crate) fn rows_from_file(
        self,
        path: &str,
        width: usize,
        rows: Vec<f32>,
        config: &ModelConfig,
    ) -> Vec<f32> {
        if self.reorders(path) {
            reorder_rows(&rows, width, config.head_dim, half_of_neighbour)
        } else {
            rows
        }
    }

    fn reorders(self, path: &str) -> bool {
        self != Self::HuggingFace
            && (path.ends_with("q_proj.weight") || path.ends_with("k_proj.weight"))
    }
}

fn is_linear(path: &str) -> bool {
    path.ends_with("_proj.weight") || path.ends_with("mlp.gate.weight") || is_head(path)
}

/// Whether a parameter stands beside the decoder, not in it.
fn is_head(path: &str) -> bool {
    path.starts_with("lm_head.") || path.starts_with("score.")
}

/// `mlp.experts.3.up_proj` into `experts.3` and `up_proj`.
fn split_expert(field: &str) -> Option<(&str, &str)> {
    let field = field.strip_prefix("mlp.")?;
    let (expert, projection) = field.rsplit_once('.')?;
    expert.contains("experts").then_some((expert, projection))
}

fn minimind_v1_name(field: &str) -> &str {
    let name = MINIMIND_V1_NAMES
        .into_iter()
        .find(|(ours, _)| *ours == field);
    name.map_or(field, |(_, name)| name)
}

/// `layers.3.mlp.up_proj.weight` into `layers.3.` and `mlp.up_proj.weight`.
fn split_layer(path: &str) -> (&str, &str) {
    let field = path
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'));
    match field {
        Some((_, field)) => path.split_at(path.len() - field.len()),
        None => ("", path),
    }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |column| values.iter().skip(column).step_by(columns).copied();
    let transposed: Vec<f32> = (0..columns).flat_map(column).collect();
    debug_assert_eq!(transposed.len(), rows * columns);
    transposed
}

/// Where the row of a half-a-head-apart head lies among neighbouring pairs.
fn half_of_neighbour(row: usize, head_dim: usize) -> usize {
    let half = head_dim / 2;
    2 * (row % half) + row / half
}

/// Where the row of a neighbouring-pairs head lies half a head apart.
fn neighbour_of_half(row: usize, head_dim: usize) -> usize {
    row / 2 + row % 2 * (head_dim / 2)
}

/// Within every head, puts at each row what lies at `source(row)`.
fn reorder_rows(
    values: &[f32],
    width: usize,
    head_dim: usize,
    source: fn(usize, usize) -> usize,
) -> Vec<f32> {
    let mut reordered = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for row in 0..head_dim {
            let from = source(row, head_dim) * width;
            reordered.extend_from_slice(&head[from..from + width]);
        }
    }
    reordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names written by hand from the two projects' state dictionaries.
    #[test]
    fn a_layer_weight_has_its_name_in_either_layout() {
        let path = "layers.11.mlp.down_proj.weight";
        let hugging_face = WeightLayout::HuggingFace.tensor_name(path);
        let minimind = WeightLayout::MiniMindV1.tensor_name(path);
        assert_eq!(hugging_face, "model.layers.11.mlp.down_proj.weight");
        assert_eq!(minimind, "layers.11.feed_forward.w2.weight");
    }

    /// Names written by hand from the three projects' state dictionaries.
    #[test]
    fn an_expert_has_its_name_in_every_layout() {
        let name = |path| {
            use WeightLayout::{Ernie45, HuggingFace, MiniMindV1};
            [HuggingFace, Ernie45, MiniMindV1].map(|layout| layout.tensor_name(path))
        };
        assert_eq!(
            name("layers.1.mlp.experts.3.up_proj.weight"),
            [
                "model.layers.1.mlp.experts.3.up_proj.weight",
                "model.layers.1.mlp.experts.3.up_proj.weight",
                "layers.1.feed_forward.experts.3.w3.weight",
            ]
        );
        assert_eq!(
            name("layers.1.mlp.shared_experts.gate_proj.weight")[2],
            "layers.1.feed_forward.shared_experts.w1.weight"
        );
        assert_eq!(
            name("layers.1.mlp.gate.weight")[2],
            "layers.1.feed_forward.gate.weight"
        );
        assert_eq!(
            WeightLayout::Ernie45.tensor_name("layers.1.mlp.gate.e_score_correction_bias"),
            "model.layers.1.mlp.moe_statics.e_score_correction_bias"
        );
    }

    /// Heads stand beside `model.`, in `[outputs, inputs]` as every linear weight of a file.
    #[test]
    fn a_score_head_has_transformers_name() {
        let name = WeightLayout::HuggingFace.tensor_name("score.weight");
        assert_eq!(name, "score.weight");
        let shape = WeightLayout::HuggingFace.tensor_shape("score.weight", &[16, 1]);
        assert_eq!(shape, [1, 16]);
    }

    /// Pairs (0, 1), (2, 3), (4, 5) of one head of six become (0, 3), (1, 4), (2, 5).
    #[test]
    fn neighbouring_pairs_move_half_a_head_apart_and_back() {
        let neighbours = [0.0, 0.1, 1.0, 1.1, 2.0, 2.1];
        let halves = reorder_rows(&neighbours, 1, 6, half_of_neighbour);
        assert_eq!(halves, [0.0, 1.0, 2.0, 0.1, 1.1, 2.1]);
        assert_eq!(reorder_rows(&halves, 1, 6, neighbour_of_half), neighbours);
    }

    /// A 2 by 3 matrix written out by hand.
    #[test]
    fn linear_weights_are_transposed() {
        assert_eq!(
            transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }
}
