//! Adapters: how many parameters they have, that they change nothing at first, and PEFT's layout.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use burn::prelude::*;
use model::CausalLm;
use model::config::ModelConfig;
use model::hf::{load_model, save_model};
use model::lora::{LoraConfig, load_adapter, num_adapter_params, save_adapter};
use model::params::{fill_params, named_params};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{golden_model, logits, max_difference, recorded};
use crate::folder_copy::read_json;

const IDS: [i64; 6] = [3, 9, 4, 11, 2, 7];
/// The issue's own tolerance: products of the rank and of the whole width round differently.
const MERGED_TOLERANCE: f32 = 1e-5;

fn adapters(rank: usize, targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank,
        alpha: 2.0 * rank as f64,
        dropout: 0.0,
        target_modules: targets.iter().map(|&target| target.to_owned()).collect(),
    }
}

/// The model as if its adapters had been trained: `B` is not zero any more.
fn trained(model: CausalLm) -> CausalLm {
    let old: BTreeMap<String, Vec<f32>> = named_params(&model)
        .into_iter()
        .map(|param| (param.path, param.values))
        .collect();
    let filled = fill_params(model, |path, shape| -> Result<_, Infallible> {
        if !path.contains(".adapters.") {
            return Ok(old[path].clone());
        }
        let num_values: usize = shape.iter().product();
        let value = |index: usize| ((index * 7 % 13) as f32 - 6.0) * 0.02;
        Ok((0..num_values).map(value).collect())
    });
    filled.unwrap()
}

fn shape(name: &str) -> ModelConfig {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    ModelConfig::load(&root.join("configs/model").join(name)).unwrap()
}

/// MiniMind v1's recipe on its 26M model and MiniMind-3's on its 64M model, as published: 8 layers
/// of 8 * (512 + 512) + 8 * (512 + 256), and of 2 * 16 * (768 + 768).
#[test]
fn published_recipes_have_their_number_of_parameters() {
    let v1 = adapters(8, &["q_proj", "k_proj"]);
    assert_eq!(num_adapter_params(&shape("v1-26m.json"), &v1), Ok(114_688));
    let v3 = adapters(16, &["q_proj", "o_proj"]);
    assert_eq!(num_adapter_params(&shape("v3-64m.json"), &v3), Ok(393_216));

    let model = golden_model("hf_llama", &Device::flex());
    let all = adapters(3, &["*_proj"]);
    let expected = num_adapter_params(model.config(), &all).unwrap();
    let model = model.with_adapters(&all, 1).unwrap();
    let params = named_params(&model);
    let adapter_params = params
        .iter()
        .filter(|param| param.path.contains(".adapters."));
    let found: usize = adapter_params.map(|param| param.values.len()).sum();
    assert_eq!(found, expected);
}

/// `B` is zero, so the answers are the same bits; the draws follow from the seed.
#[test]
fn fresh_adapters_change_nothing() {
    let device = Device::flex();
    let plain = golden_model("hf_qwen3", &device);
    let config = adapters(4, &["q_proj", "layers.1.mlp.*"]);
    let adapted = plain.clone().with_adapters(&config, 5).unwrap();
    let rows = [IDS.to_vec()];
    assert_eq!(
        logits(&adapted, &rows, &device),
        logits(&plain, &rows, &device)
    );
    assert!(adapted.has_adapters() && !plain.has_adapters());

    let paths: Vec<String> = named_params(&adapted)
        .into_iter()
        .filter(|param| param.path.contains("lora_a"))
        .map(|param| param.path)
        .collect();
    let expected = [
        "layers.0.self_attn.q_proj.adapters.0.lora_a",
        "layers.1.self_attn.q_proj.adapters.0.lora_a",
        "layers.1.mlp.gate_proj.adapters.0.lora_a",
        "layers.1.mlp.up_proj.adapters.0.lora_a",
        "layers.1.mlp.down_proj.adapters.0.lora_a",
    ];
    assert_eq!(paths, expected);
    let again = plain.clone().with_adapters(&config, 5).unwrap();
    assert_eq!(named_params(&again), named_params(&adapted));
    let other = plain.with_adapters(&config, 6).unwrap();
    assert_ne!(named_params(&other), named_params(&adapted));
}

/// Only adapters have gradients: of the weights not even one is computed.
#[test]
fn weights_are_frozen() {
    let device = Device::flex().autodiff();
    let config = adapters(2, &["v_proj"]);
    let model = golden_model("hf_llama", &device);
    let model = model.with_adapters(&config, 1).unwrap();
    let frozen = [
        model.embed_tokens.weight.is_require_grad(),
        model.norm.weight.is_require_grad(),
        model.layers[0].self_attn.v_proj.weight.is_require_grad(),
    ];
    assert_eq!(frozen, [false; 3]);
    let adapter = &model.layers[0].self_attn.v_proj.adapters[0];
    assert!(adapter.lora_a.is_require_grad() && adapter.lora_b.is_require_grad());
}

/// The biases that balance experts are frozen too: a checkpoint of adapters would not hold them.
#[test]
fn biases_of_a_frozen_router_do_not_move() {
    let model = golden_model("hf_ernie_moe", &Device::flex());
    let adapted = model.with_adapters(&adapters(2, &["q_proj"]), 1).unwrap();
    let before = named_params(&adapted);
    let moved = adapted.with_moved_biases(&[(1, vec![4, 3, 2, 1])], 0.125);
    assert_eq!(named_params(&moved), before);
}

/// Merging adds `scale * A * B` to each weight, of several adapters one after the other.
#[test]
fn merged_models_answer_as_adapted_ones() {
    let device = Device::flex();
    let plain = golden_model("hf_llama", &device);
    let rows = [IDS.to_vec()];
    let first = adapters(4, &["q_proj", "down_proj"]);
    let second = adapters(2, &["*.v_proj"]);
    let dir = TempDir::new().unwrap();
    let other = trained(plain.clone().with_adapters(&second, 2).unwrap());
    save_adapter(&other, &second, Path::new("base"), dir.path()).unwrap();

    let adapted = trained(plain.clone().with_adapters(&first, 1).unwrap());
    let adapted = load_adapter(adapted, dir.path()).unwrap();
    let expected = logits(&adapted, &rows, &device);
    assert!(max_difference(&expected, &logits(&plain, &rows, &device)) > 1e-2);

    let merged = adapted.merged();
    assert!(!merged.has_adapters());
    let difference = max_difference(&logits(&merged, &rows, &device), &expected);
    assert!(difference < MERGED_TOLERANCE, "{difference}");
    let folder = TempDir::new().unwrap();
    save_model(&merged, folder.path()).unwrap();
    let loaded = load_model(folder.path(), &device).unwrap();
    assert_eq!(named_params(&loaded), named_params(&merged));
}

/// Names, shapes and fields as PEFT 0.17 writes them: `lora_A` is `[rank, inputs]`, `lora_B`
/// `[outputs, rank]`.
#[test]
fn adapters_have_pefts_layout() {
    let device = Device::flex();
    let plain = golden_model("hf_llama", &device);
    let (hidden, query) = (plain.config().hidden_size, plain.config().query_width());
    let config = adapters(4, &["q_proj"]);
    let adapted = trained(plain.clone().with_adapters(&config, 1).unwrap());
    let dir = TempDir::new().unwrap();
    save_adapter(&adapted, &config, Path::new("out/base"), dir.path()).unwrap();

    let tensors = recorded(&dir.path().join("adapter_model.safetensors"));
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    assert_eq!(tensors.len(), 2 * plain.config().num_hidden_layers);
    assert_eq!(tensors[&format!("{name}.lora_A.weight")].shape, [4, hidden]);
    assert_eq!(tensors[&format!("{name}.lora_B.weight")].shape, [query, 4]);
    let json = read_json(&dir.path().join("adapter_config.json"));
    assert_eq!(json["peft_type"], "LORA");
    assert_eq!((&json["r"], &json["lora_alpha"]), (&json!(4), &json!(8.0)));
    assert_eq!(json["target_modules"], json!(["q_proj"]));

    let loaded = load_adapter(plain, dir.path()).unwrap();
    assert_eq!(named_params(&loaded), named_params(&adapted));
}

/// An Ernie 4.5 of `transformers` has the features of a pair next to each other, its adapters too:
/// file by file, the merged weight is the plain one plus `scale * lora_B * lora_A`.
#[test]
fn adapters_have_the_row_order_of_the_weight_they_stand_beside() {
    let device = Device::flex();
    let plain = golden_model("hf_ernie_moe", &device);
    let config = adapters(3, &["q_proj"]);
    let adapted = trained(plain.clone().with_adapters(&config, 1).unwrap());
    let dir = TempDir::new().unwrap();
    save_adapter(&adapted, &config, Path::new("base"), dir.path()).unwrap();
    let adapter = recorded(&dir.path().join("adapter_model.safetensors"));
    let loaded = load_adapter(plain.clone(), dir.path()).unwrap();
    assert_eq!(named_params(&loaded), named_params(&adapted));

    let weights = |model: &CausalLm| {
        let folder = TempDir::new().unwrap();
        save_model(model, folder.path()).unwrap();
        recorded(&folder.path().join("model.safetensors"))
    };
    let (before, after) = (weights(&plain), weights(&adapted.merged()));
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.self_attn.q_proj");
        let a = &adapter[&format!("base_model.model.{name}.lora_A.weight")];
        let b = &adapter[&format!("base_model.model.{name}.lora_B.weight")];
        let (rank, inputs) = (a.shape[0], a.shape[1]);
        let name = format!("{name}.weight");
        let pairs = after[&name].values.iter().zip(&before[&name].values);
        for (index, (after, before)) in pairs.enumerate() {
            let (row, column) = (index / inputs, index % inputs);
            let product: f32 = (0..rank)
                .map(|r| b.values[row * rank + r] * a.values[r * inputs + column])
                .sum();
            let difference = (after - before - 2.0 * product).abs();
            assert!(difference < MERGED_TOLERANCE, "{row}: {difference:e}");
        }
    }
}

/// The texts name the file and the tensor or field.
#[test]
fn adapters_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let plain = golden_model("hf_llama", &device);
    let refusal = |targets: &[&str], rank| {
        let config = adapters(rank, targets);
        plain
            .clone()
            .with_adapters(&config, 1)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal(&["q_prj"], 4),
        "no projection is called `q_prj`, expected one of self_attn.q_proj, self_attn.k_proj, \
         self_attn.v_proj, self_attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj"
    );
    assert_eq!(
        num_adapter_params(plain.config(), &adapters(4, &["q_prj"]))
            .unwrap_err()
            .to_string(),
        refusal(&["q_prj"], 4)
    );
    assert_eq!(
        refusal(&["layers.[*"], 4),
        "`layers.[*` is not a valid pattern"
    );
    assert_eq!(
        refusal(&["q_proj"], 0),
        "the rank of the adapters is 0, expected at least 1"
    );

    let config = adapters(4, &["q_proj"]);
    let adapted = plain.clone().with_adapters(&config, 1).unwrap();
    let dir = TempDir::new().unwrap();
    save_adapter(&adapted, &config, Path::new("base"), dir.path()).unwrap();
    let message = |model: &CausalLm| {
        let message = load_adapter(model.clone(), dir.path())
            .unwrap_err()
            .to_string();
        message.replace(&format!("{}/", dir.path().display()), "")
    };
    let other = golden_model("hf_qwen3_head_dim", &device);
    assert!(
        message(&other).starts_with("adapter_model.safetensors: base_model.model.model.layers.")
    );
    std::fs::write(
        dir.path().join("adapter_config.json"),
        r#"{"peft_type": "IA3", "r": 4, "lora_alpha": 1}"#,
    )
    .unwrap();
    assert_eq!(
        message(&plain),
        "adapter_config.json: peft_type is IA3, expected LORA"
    );
    std::fs::write(
        dir.path().join("adapter_config.json"),
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 1, "alpha_pattern": {"q_proj": 8}}"#,
    )
    .unwrap();
    assert_eq!(
        message(&plain),
        "adapter_config.json: alpha_pattern is {\"q_proj\":8}, expected no entry: all adapters \
         have one lora_alpha"
    );
    std::fs::remove_file(dir.path().join("adapter_config.json")).unwrap();
    assert_eq!(message(&plain), "adapter_config.json: cannot be read");
}
