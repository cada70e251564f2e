//! The shape of a model, read off its tensors, as fields of `config.json`.
//!
//! What tensors do not say is taken from the program that writes such names: MiniMind v1 with its
//! own, MiniMind-3 with query and key norms, MiniMind2 without.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ImportError;
use crate::hf::WeightLayout;
use crate::hf::safetensors::StoredTensor;

/// Widths that become numbers of heads once one of them is known.
const QUERY_WIDTH: &str = "query_width";
const KEY_VALUE_WIDTH: &str = "key_value_width";

/// MiniMind v1 has as many in every size it was published in.
const MINIMIND_V1_HEADS: u64 = 16;

/// Everything that the tensors say, and what their names say beyond it.
pub(super) fn fields_of(
    tensors: &BTreeMap<String, StoredTensor>,
    layout: WeightLayout,
    path: &Path,
) -> Result<Map<String, Value>, ImportError> {
    let matrix = |param: &str| {
        let name = layout.tensor_name(param);
        match tensors.get(&name).map(|tensor| tensor.shape.as_slice()) {
            Some(&[rows, columns]) => Ok((rows, columns)),
            _ => Err(ImportError::NoMatrix {
                path: path.to_owned(),
                name,
            }),
        }
    };
    let (vocab_size, hidden_size) = matrix("embed_tokens.weight")?;
    let count = |param: &dyn Fn(usize) -> String| {
        let is_there = |index: &usize| tensors.contains_key(&layout.tensor_name(&param(*index)));
        (0..tensors.len()).take_while(is_there).count()
    };
    let num_layers = count(&|layer| format!("layers.{layer}.input_layernorm.weight"));
    let expert = |expert| format!("layers.0.mlp.experts.{expert}.gate_proj.weight");
    let num_experts = count(&expert);
    let (query_width, _) = matrix("layers.0.self_attn.q_proj.weight")?;
    let (key_value_width, _) = matrix("layers.0.self_attn.k_proj.weight")?;
    let network = match num_experts {
        0 => "layers.0.mlp.gate_proj.weight".to_owned(),
        _ => expert(0),
    };
    let (intermediate_size, _) = matrix(&network)?;
    let has_shared = matrix("layers.0.mlp.shared_experts.gate_proj.weight").is_ok();
    let q_norm = (layout == WeightLayout::HuggingFace)
        .then(|| tensors.get("model.layers.0.self_attn.q_norm.weight"))
        .flatten();

    let model_type = match (q_norm.is_some(), num_experts > 0, has_shared) {
        (false, false, _) => "llama",
        (true, false, _) => "qwen3",
        (true, true, false) => "qwen3_moe",
        (false, true, _) => "ernie4_5_moe",
        (true, true, true) => {
            return Err(ImportError::NoSuchModel {
                path: path.to_owned(),
            });
        }
    };
    let head = tensors.get(&layout.tensor_name("lm_head.weight"));
    let embedding = tensors.get(&layout.tensor_name("embed_tokens.weight"));
    let is_tied =
        head.is_none_or(|head| embedding.is_some_and(|embedding| embedding.values == head.values));
    let mut fields = object(json!({
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_layers,
        "tie_word_embeddings": is_tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        QUERY_WIDTH: query_width,
        KEY_VALUE_WIDTH: key_value_width,
    }));
    let habits = match (layout, q_norm) {
        (WeightLayout::MiniMindV1, _) => json!({
            "num_attention_heads": MINIMIND_V1_HEADS,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e4,
        }),
        (_, Some(norm)) => json!({
            "head_dim": norm.shape.iter().product::<usize>(),
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
        }),
        (_, None) => json!({
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
        }),
    };
    let experts = match model_type {
        "qwen3_moe" => json!({
            "num_experts": num_experts,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": intermediate_size,
            "norm_topk_prob": true,
            "router_aux_loss_coef": 5e-4,
        }),
        "ernie4_5_moe" => json!({
            "moe_num_experts": num_experts,
            "moe_k": 2,
            "moe_intermediate_size": intermediate_size,
            "moe_num_shared_experts": u8::from(has_shared),
            "moe_layer_start_index": 0,
            "moe_use_aux_free": false,
        }),
        _ => json!({}),
    };
    fields.extend(object(habits));
    fields.extend(object(experts));
    Ok(fields)
}

/// The fields of an object that is written as one.
pub(super) fn object(json: Value) -> Map<String, Value> {
    match json {
        Value::Object(fields) => fields,
        _ => unreachable!("every caller writes an object"),
    }
}

/// Puts numbers of heads in the place of widths.
pub(super) fn derive_heads(
    fields: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), ImportError> {
    let widths = [QUERY_WIDTH, KEY_VALUE_WIDTH].map(|name| fields.remove(name));
    let [Some(query_width), Some(key_value_width)] =
        widths.map(|width| width.and_then(|width| width.as_u64()))
    else {
        return Ok(());
    };
    let number = |field: &str| fields.get(field).and_then(Value::as_u64).filter(|n| *n > 0);
    let (heads, head_dim) = match (number("num_attention_heads"), number("head_dim")) {
        (Some(heads), Some(head_dim)) => (heads, head_dim),
        (Some(heads), None) => (heads, query_width / heads),
        (None, Some(head_dim)) => (query_width / head_dim, head_dim),
        (None, None) => {
            return Err(ImportError::Unknown {
                path: path.to_owned(),
                field: "num_attention_heads",
                width: query_width,
            });
        }
    };
    let derived = [
        ("num_attention_heads", heads),
        ("head_dim", head_dim),
        ("num_key_value_heads", key_value_width / head_dim.max(1)),
    ];
    for (field, value) in derived {
        fields.entry(field).or_insert_with(|| value.into());
    }
    Ok(())
}
