//! What strict reading and writing of model folders refuse, and in which words.

use std::fs;

use burn::prelude::*;
use model::hf::save_model;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::golden_model;
use crate::folder_copy::{FolderCopy, read_json};

/// Exporters repeat the tied embedding as the head; both spellings of the names.
#[test]
fn an_equal_copy_of_a_tied_head_is_accepted() {
    for (name, embedding, head) in [
        ("hf_llama", "model.embed_tokens.weight", "lm_head.weight"),
        ("v1_dense", "tok_embeddings.weight", "output.weight"),
    ] {
        let folder = FolderCopy::of(name);
        let mut tensors = folder.tensors();
        let mut copy = tensors[embedding].clone();
        tensors.insert(head.to_owned(), copy.clone());
        folder.write(&tensors);
        folder.load().unwrap();

        copy.values[0] += 1.0;
        tensors.insert(head.to_owned(), copy);
        folder.write(&tensors);
        let expected = format!(
            "model.safetensors: tensor `{head}` differs from the embedding, expected the same \
             values, since tie_word_embeddings is true"
        );
        assert_eq!(folder.error(), expected);
    }
}

/// Texts written by hand.
#[test]
fn a_missing_unused_or_misshapen_tensor_is_named() {
    let folder = FolderCopy::of("hf_qwen3");
    let whole = folder.tensors();
    let norm = "model.layers.1.self_attn.k_norm.weight";

    let mut tensors = whole.clone();
    tensors.remove(norm);
    folder.write(&tensors);
    assert_eq!(folder.error(), format!(": tensor `{norm}` is missing"));

    let mut tensors = whole.clone();
    tensors.insert(
        "model.layers.2.mlp.up_proj.bias".to_owned(),
        whole[norm].clone(),
    );
    folder.write(&tensors);
    assert_eq!(
        folder.error(),
        "model.safetensors: tensor `model.layers.2.mlp.up_proj.bias` belongs to no part of the \
         model in config.json"
    );

    let mut tensors = whole.clone();
    let up_proj = "model.layers.0.mlp.up_proj.weight";
    tensors.get_mut(up_proj).unwrap().shape.reverse();
    folder.write(&tensors);
    assert_eq!(
        folder.error(),
        format!("model.safetensors: tensor `{up_proj}` is [64, 128], expected [128, 64]")
    );
}

/// Texts written by hand.
#[test]
fn a_damaged_folder_is_refused_with_the_file_at_fault() {
    let folder = FolderCopy::of("hf_llama");
    let weights = folder.path("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 4]).unwrap();
    assert_eq!(
        folder.error(),
        "model.safetensors: not a safetensors file: incomplete metadata, file not fully covered"
    );

    fs::write(&weights, b"").unwrap();
    assert_eq!(
        folder.error(),
        "model.safetensors: not a safetensors file: header too small"
    );

    let integers = [7; 8];
    let view = TensorView::new(Dtype::I32, vec![2], &integers).unwrap();
    fs::write(
        &weights,
        safetensors::serialize([("ids", view)], None).unwrap(),
    )
    .unwrap();
    assert_eq!(
        folder.error(),
        "model.safetensors: tensor `ids` holds I32, expected F32, F16 or BF16"
    );

    fs::remove_file(&weights).unwrap();
    assert_eq!(
        folder.error(),
        ": expected model.safetensors or model.safetensors.index.json, found neither"
    );

    fs::remove_file(folder.path("config.json")).unwrap();
    assert!(
        folder.error().starts_with("config.json: cannot be read: "),
        "{}",
        folder.error()
    );
}

/// Texts written by hand.
#[test]
fn a_broken_shard_index_is_refused_with_the_shard_at_fault() {
    let folder = FolderCopy::of("hf_llama");
    folder.split_in_two();
    let index = "model.safetensors.index.json";
    let good = read_json(&folder.path(index));

    let mut outside = good.clone();
    outside["weight_map"]["model.norm.weight"] = json!("../model.safetensors");
    folder.write_json(index, &outside);
    assert_eq!(
        folder.error(),
        "model.safetensors.index.json: shard `../model.safetensors`, expected the name of a file \
         in the same folder"
    );

    let mut promised = good.clone();
    promised["weight_map"]["model.extra.weight"] = json!("second.safetensors");
    folder.write_json(index, &promised);
    assert_eq!(
        folder.error(),
        "second.safetensors: tensor `model.extra.weight` is missing"
    );

    folder.write_json(index, &good);
    fs::copy(
        folder.path("first.safetensors"),
        folder.path("second.safetensors"),
    )
    .unwrap();
    assert!(
        folder.error().ends_with("is in another shard too"),
        "{}",
        folder.error()
    );

    fs::remove_file(folder.path("second.safetensors")).unwrap();
    assert!(
        folder
            .error()
            .starts_with("second.safetensors: cannot be read: ")
    );
}

/// Field, value and expectation, written by hand.
#[test]
fn experts_that_do_not_fit_are_refused() {
    for (golden, field, value, message) in [
        (
            "hf_qwen3_moe",
            "num_experts_per_tok",
            json!(5),
            "`num_experts_per_tok` is 5, expected 1 to num_experts 4",
        ),
        (
            "hf_qwen3_moe",
            "mlp_only_layers",
            json!([7]),
            "`mlp_only_layers` is 7, expected layers below num_hidden_layers 2",
        ),
        (
            "hf_qwen3_moe",
            "mlp_only_layers",
            json!([0, 1]),
            "`mlp_only_layers` is every layer, expected at least one layer with experts",
        ),
        (
            "hf_qwen3_moe",
            "moe_intermediate_size",
            json!(null),
            "`moe_intermediate_size` is missing, expected a number",
        ),
        (
            "hf_ernie_moe",
            "norm_topk_prob",
            json!(false),
            "`norm_topk_prob` is false, expected true with model_type ernie4_5_moe",
        ),
        (
            "hf_ernie_moe",
            "use_bias",
            json!(true),
            "`use_bias` is true, expected false",
        ),
        (
            "hf_glm4_moe",
            "n_group",
            json!(2),
            "`n_group` is 2, expected 1",
        ),
        (
            "hf_glm4_moe",
            "routed_scaling_factor",
            json!(2.5),
            "`routed_scaling_factor` is 2.5, expected 1",
        ),
        (
            "v1_moe",
            "scoring_func",
            json!("sigmoid"),
            "`scoring_func` is \"sigmoid\", expected softmax",
        ),
    ] {
        assert_refused(golden, field, value, message);
    }
}

/// Each class of transformers, and MiniMind v1, spells the fields of its experts otherwise.
#[test]
fn experts_are_refused_under_the_fields_of_their_file() {
    for (golden, field, value, message) in [
        (
            "hf_ernie_moe",
            "moe_k",
            json!(5),
            "`moe_k` is 5, expected 1 to moe_num_experts 4",
        ),
        (
            "hf_ernie_moe",
            "moe_layer_start_index",
            json!(2),
            "`moe_layer_start_index` is every layer, expected at least one layer with experts",
        ),
        (
            "hf_glm4_moe",
            "n_routed_experts",
            json!(0),
            "`n_routed_experts` is 0, expected 1 to 2147483647",
        ),
        (
            "hf_glm4_moe",
            "first_k_dense_replace",
            json!(1_u64 << 60),
            "`first_k_dense_replace` is every layer, expected at least one layer with experts",
        ),
        (
            "v1_moe",
            "num_experts_per_tok",
            json!(1),
            "`num_experts_per_tok` is 1, expected at least 2: MiniMind v1 leaves a single weight \
             as it is, ernie4_5_moe does not",
        ),
        (
            "v1_moe",
            "num_experts_per_tok",
            json!(5),
            "`num_experts_per_tok` is 5, expected at most n_routed_experts 4",
        ),
    ] {
        assert_refused(golden, field, value, message);
    }
}

/// Where a class of transformers has another default than is read here, nothing is guessed.
#[test]
fn a_field_with_a_default_of_its_class_must_be_there() {
    for (golden, field, value, message) in [
        (
            "hf_ernie_moe",
            "rope_parameters",
            json!({"rope_type": "default"}),
            "`rope_theta` is missing, expected a number",
        ),
        (
            "hf_ernie_moe",
            "tie_word_embeddings",
            json!(null),
            "`tie_word_embeddings` is missing, expected true or false",
        ),
        (
            "hf_glm4_moe",
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 10000.0}),
            "`partial_rotary_factor` is missing, expected 1.0",
        ),
    ] {
        assert_refused(golden, field, value, message);
    }
}

/// A golden with one field of its config replaced is refused in these words.
fn assert_refused(golden: &str, field: &str, value: Value, message: &str) {
    let folder = FolderCopy::of(golden);
    let mut config = read_json(&folder.path("config.json"));
    config[field] = value;
    folder.write_json("config.json", &config);
    assert_eq!(
        folder.error(),
        format!("config.json: {message}"),
        "{golden}"
    );
}

/// A file in the place of the folder, so that it fails for every user.
#[test]
fn an_unwritable_folder_is_named() {
    let model = golden_model("hf_llama", &Device::flex());
    let dir = TempDir::new().unwrap();
    let taken = dir.path().join("taken");
    fs::write(&taken, "").unwrap();
    let error = save_model(&model, &taken).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: cannot be written", taken.display())
    );
}
