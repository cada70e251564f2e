//! A model's parameters as the tensors of a GGUF file.
//!
//! llama.cpp rotates neighbouring features of the heads of some classes and features half a head
//! apart of others', so the former get MiniMind v1's row order. It keeps the experts of a layer in
//! one tensor.

use super::block::GgufType;
use crate::causal_lm::CausalLm;
use crate::config::{ModelConfig, ModelType};
use crate::hf::WeightLayout;
use crate::params::{NamedParam, named_params};

/// Our field and GGUF's.
const NAMES: [(&str, &str); 22] = [
    ("embed_tokens", "token_embd"),
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
];

/// A tensor on its way into the file.
pub(super) struct GgufTensor {
    pub(super) name: String,
    /// Sizes, the one that runs fastest first: `[inputs, outputs]`, then experts.
    pub(super) dims: Vec<usize>,
    pub(super) gguf_type: GgufType,
    /// One parameter, or that of every expert.
    params: Vec<NamedParam>,
}

/// All tensors of a model, in the order of its fields.
pub(super) fn tensors_of(model: &CausalLm, gguf_type: GgufType) -> Vec<GgufTensor> {
    let model_type = model.config().model_type;
    let mut tensors: Vec<GgufTensor> = Vec::new();
    for param in named_params(model) {
        let name = tensor_name(&param.path, model_type);
        if let Some(tensor) = tensors.iter_mut().find(|tensor| tensor.name == name) {
            tensor.params.push(param);
            continue;
        }
        let file_shape = WeightLayout::HuggingFace.tensor_shape(&param.path, &param.shape);
        let dims: Vec<usize> = file_shape.into_iter().rev().collect();
        tensors.push(GgufTensor {
            gguf_type: type_of(&param.path, &dims, gguf_type),
            name,
            dims,
            params: vec![param],
        });
    }
    for tensor in &mut tensors {
        if tensor.name.contains("_exps.") {
            tensor.dims.push(tensor.params.len());
        }
    }
    tensors
}

impl GgufTensor {
    pub(super) fn num_bytes(&self) -> usize {
        self.gguf_type.num_bytes(self.dims.iter().product())
    }

    /// The tensor's bytes, those of its experts one after another.
    pub(super) fn encode(self, config: &ModelConfig) -> Vec<u8> {
        let layout = match config.model_type {
            ModelType::Llama | ModelType::Ernie45Moe => WeightLayout::Ernie45,
            ModelType::Qwen3 | ModelType::Qwen3Moe | ModelType::Glm4Moe => {
                WeightLayout::HuggingFace
            }
        };
        let params = self.params.into_iter();
        params
            .flat_map(|param| {
                let values = layout.to_file(&param.path, &param.shape, param.values, config);
                self.gguf_type.encode(&values)
            })
            .collect()
    }
}

/// `layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight`, `layers.3.mlp.experts.0.up_proj.weight` a
/// part of `blk.3.ffn_up_exps.weight`.
fn tensor_name(path: &str, model_type: ModelType) -> String {
    let path = path.strip_suffix(".weight").unwrap_or(path);
    let (block, field) = match path
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
    {
        Some((index, field)) => (format!("blk.{index}."), field),
        None => (String::new(), path),
    };
    if (model_type, field) == (ModelType::Glm4Moe, "post_attention_layernorm") {
        return format!("{block}post_attention_norm.weight");
    }
    let is_number = |part: &&str| part.parse::<usize>().is_ok();
    let parts = field.split('.').filter(|part| !is_number(part));
    let field = parts.collect::<Vec<&str>>().join(".");
    let name = NAMES.into_iter().find(|(ours, _)| *ours == field);
    let (_, name) = name.expect("every parameter of a decoder is in the table");
    let kind = if name == "exp_probs_b" {
        "bias"
    } else {
        "weight"
    };
    format!("{block}{name}.{kind}")
}

fn type_of(path: &str, dims: &[usize], gguf_type: GgufType) -> GgufType {
    // llama.cpp's own converter keeps routers whole too: they are small and decide much.
    if dims.len() == 1 || path.ends_with("mlp.gate.weight") {
        return GgufType::F32;
    }
    // Every token reads a row of the embedding, and a tied head all of it: four bits would show.
    let wanted = match (gguf_type, path) {
        (GgufType::Q4_0, "embed_tokens.weight" | "lm_head.weight") => GgufType::Q8_0,
        (wanted, _) => wanted,
    };
    if dims[0].is_multiple_of(wanted.block_len()) {
        wanted
    } else {
        GgufType::F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names written by hand from llama.cpp's `llama-arch.cpp`.
    #[test]
    fn every_part_has_its_name_in_llama_cpp() {
        let qwen = |path| tensor_name(path, ModelType::Qwen3Moe);
        assert_eq!(qwen("embed_tokens.weight"), "token_embd.weight");
        assert_eq!(
            qwen("layers.3.mlp.experts.12.up_proj.weight"),
            "blk.3.ffn_up_exps.weight"
        );
        assert_eq!(
            qwen("layers.3.mlp.gate.weight"),
            "blk.3.ffn_gate_inp.weight"
        );
        let glm = |path| tensor_name(path, ModelType::Glm4Moe);
        assert_eq!(
            glm("layers.0.post_attention_layernorm.weight"),
            "blk.0.post_attention_norm.weight"
        );
        assert_eq!(
            glm("layers.1.mlp.gate.e_score_correction_bias"),
            "blk.1.exp_probs_b.bias"
        );
        assert_eq!(
            glm("layers.1.mlp.shared_experts.down_proj.weight"),
            "blk.1.ffn_down_shexp.weight"
        );
    }
}
