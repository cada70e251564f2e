//! Model folders: exact round trips, shards, half precision.

use burn::prelude::*;
use half::{bf16, f16};
use model::CausalLm;
use model::hf::{load_model, save_minimind_v1, save_model};
use model::params::named_params;
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{golden, golden_model, recorded};
use crate::folder_copy::{FolderCopy, read_json};

/// What is written is what was read, to the last bit, and reading it back gives the same model.
#[test]
fn a_saved_folder_holds_the_tensors_it_was_loaded_from() {
    let device = Device::flex();
    for name in [
        "hf_llama",
        "hf_llama_untied",
        "hf_qwen3_head_dim",
        "hf_llama_yarn",
        "v3_yarn",
        "hf_qwen3_moe",
        "hf_ernie_moe",
        "hf_glm4_moe",
    ] {
        let model = golden_model(name, &device);
        let dir = TempDir::new().unwrap();
        save_model(&model, dir.path()).unwrap();

        let file = "model.safetensors";
        assert_eq!(
            recorded(&dir.path().join(file)),
            recorded(&golden(name).join(file)),
            "{name}"
        );
        let loaded = load_model(dir.path(), &device).unwrap();
        assert_eq!(loaded.config(), model.config(), "{name}");
        assert_eq!(named_params(&loaded), named_params(&model), "{name}");
    }
}

/// The reordering of query and key rows undoes itself exactly.
#[test]
fn a_minimind_v1_folder_survives_the_way_in_and_out() {
    let device = Device::flex();
    for name in ["v1_dense", "v1_moe"] {
        let model = golden_model(name, &device);
        let dir = TempDir::new().unwrap();
        save_minimind_v1(&model, dir.path()).unwrap();

        let original = recorded(&golden(name).join("model.safetensors"));
        assert_eq!(recorded(&dir.path().join("model.safetensors")), original);
        assert_eq!(
            load_model(dir.path(), &device).unwrap().config(),
            model.config(),
            "{name}"
        );
    }
}

/// The Llama folder of a v1 model has other rows in wq and wk, and is the same model.
#[test]
fn a_minimind_v1_model_is_exported_as_a_llama_folder() {
    let device = Device::flex();
    let model = golden_model("v1_dense", &device);
    let dir = TempDir::new().unwrap();
    save_model(&model, dir.path()).unwrap();

    let config = read_json(&dir.path().join("config.json"));
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    let exported = recorded(&dir.path().join("model.safetensors"));
    let original = recorded(&golden("v1_dense").join("model.safetensors"));
    let q_proj = &exported["model.layers.0.self_attn.q_proj.weight"];
    let wq = &original["layers.0.attention.wq.weight"];
    assert_ne!(q_proj, wq);
    assert_eq!(
        q_proj.values[64..128],
        wq.values[128..192],
        "row 1 is row 2 of the pairs"
    );
    let loaded = load_model(dir.path(), &device).unwrap();
    assert_eq!(named_params(&loaded), named_params(&model));
}

/// Qwen3's head norms have no name in a v1 file.
#[test]
fn a_model_with_head_norms_is_not_written_as_minimind_v1() {
    let model = golden_model("v3_dense", &Device::flex());
    let error = save_minimind_v1(&model, TempDir::new().unwrap().path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a MiniMind v1 file cannot hold query and key norms"
    );
}

/// A v1 model leaves a single weight as it is, where an Ernie 4.5 divides it by itself.
#[test]
fn a_mixture_with_a_single_expert_per_token_is_not_written_as_minimind_v1() {
    let device = Device::flex();
    let mut config = golden_model("v1_moe", &device).config().clone();
    config.experts.as_mut().unwrap().num_experts_per_tok = 1;
    let model = CausalLm::new(&config, 0, &device);
    let error = save_minimind_v1(&model, TempDir::new().unwrap().path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a MiniMind v1 file cannot hold a single expert per token with the weight 1"
    );
}

/// Generation stops where the exported folder says.
#[test]
fn the_generation_config_names_the_stop_tokens() {
    let device = Device::flex();
    let folder = FolderCopy::of("hf_llama");
    folder.write_json("generation_config.json", &json!({ "eos_token_id": [2, 5] }));
    let model = folder.load().unwrap();
    assert_eq!(model.config().eos_token_id, [2, 5]);
    let other = FolderCopy::of("hf_llama");
    other.write_json(
        "generation_config.json",
        &json!({ "eos_token_id": 151_645 }),
    );
    let error = other.load().unwrap_err().to_string();
    assert!(error.ends_with("generation_config.json"), "{error}");

    let dir = TempDir::new().unwrap();
    save_model(&model, dir.path()).unwrap();
    let written = read_json(&dir.path().join("generation_config.json"));
    assert_eq!(written["eos_token_id"], json!([2, 5]));
    assert_eq!(
        load_model(dir.path(), &device)
            .unwrap()
            .config()
            .eos_token_id,
        [2, 5]
    );
}

/// The same tensors in two files and an index.
#[test]
fn a_sharded_folder_is_the_model_of_the_single_file() {
    let folder = FolderCopy::of("hf_qwen3");
    let whole = named_params(&folder.load().unwrap());
    folder.split_in_two();
    assert_eq!(named_params(&folder.load().unwrap()), whole);
}

/// Every weight is the f32 nearest to its half, which widening keeps exactly.
#[test]
fn half_precision_weights_are_widened() {
    let folder = FolderCopy::of("hf_llama");
    let tensors = folder.tensors();
    let embedding = |folder: &FolderCopy| named_params(&folder.load().unwrap())[0].values.clone();
    let original = tensors["model.embed_tokens.weight"].values.clone();

    folder.write_halves(&tensors, Dtype::F16, |value| {
        f16::from_f32(value).to_le_bytes()
    });
    let expected: Vec<f32> = original
        .iter()
        .map(|x| f16::from_f32(*x).to_f32())
        .collect();
    assert_eq!(embedding(&folder), expected);

    folder.write_halves(&tensors, Dtype::BF16, |value| {
        bf16::from_f32(value).to_le_bytes()
    });
    let expected: Vec<f32> = original
        .iter()
        .map(|x| bf16::from_f32(*x).to_f32())
        .collect();
    assert_eq!(embedding(&folder), expected);
}
