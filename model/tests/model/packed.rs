//! Weights in fewer bits: what they compute, and what they cost in likelihood.

use burn::prelude::*;
use model::CausalLm;
use model::hf::{HfError, save_model};
use model::kernels::linear_cross_entropy;
use model::packed::WeightType;

use crate::fixture::{golden, golden_model, hidden, int_tensor, logits, max_difference, recorded};

const PACKED: [WeightType; 2] = [WeightType::Bf16, WeightType::Int8];

/// Mean negative log-likelihood of a golden's own targets.
fn loss(model: &CausalLm, name: &str) -> f64 {
    let device = Device::flex();
    let tensors = recorded(&golden(name).join("tensors.safetensors"));
    let targets = tensors["target_ids"].token_ids().concat();
    let hidden = hidden(model, &tensors["input_ids"].token_ids(), &device);
    // Through the model's own head, which is packed too: its logits are the loss's hidden states
    // under an identity head.
    let logits = model.logits(hidden);
    let [batch, len, vocab_size] = logits.dims();
    let labels = int_tensor(&[targets], &device).squeeze_dim::<1>(0);
    let sum = linear_cross_entropy(
        logits.reshape([batch * len, vocab_size]),
        Tensor::eye(vocab_size, &device),
        labels,
    );
    f64::from(sum.into_scalar::<f32>()) / (batch * len) as f64
}

/// Perplexity may move by 1 % in bf16 and by 2 % in int8.
#[test]
fn perplexity_stays() {
    for name in ["v1_dense", "v3_dense"] {
        let device = Device::flex();
        let before = loss(&golden_model(name, &device), name);
        for (weight_type, most) in PACKED.into_iter().zip([0.01, 0.02]) {
            let packed = golden_model(name, &device).packed(weight_type);
            let growth = (loss(&packed, name) - before).exp() - 1.0;
            assert!(growth.abs() < most, "{name}: {weight_type}: {growth:+.4}");
            assert!(growth.abs() > 0.0, "{name}: {weight_type} changes nothing");
        }
    }
}

/// One row takes the kernel that reads the weight once, many rows the one that widens it.
#[test]
fn few_rows_and_many_rows_agree() {
    let device = Device::flex();
    let row: Vec<i64> = (0..12).map(|i| (i * 7 + 3) % 160).collect();
    for weight_type in PACKED {
        for name in ["v1_dense", "hf_llama_untied"] {
            let model = golden_model(name, &device).packed(weight_type);
            let many = logits(&model, std::slice::from_ref(&row), &device);
            let few = logits(&model, &[row[..3].to_vec()], &device);
            let difference = max_difference(&few, &many[..few.len()]);
            assert!(difference < 2e-5, "{name}: {weight_type}: {difference:e}");
        }
    }
}

/// f32 is left as it is, to the bit.
#[test]
fn f32_packs_nothing() {
    let device = Device::flex();
    let rows = [vec![1, 5, 9]];
    let model = golden_model("v1_dense", &device);
    let before = logits(&model, &rows, &device);
    let model = model.packed(WeightType::F32);
    assert!(!model.is_packed());
    assert_eq!(logits(&model, &rows, &device), before);
}

#[test]
fn a_packed_model_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden_model("v1_dense", &Device::flex()).packed(WeightType::Int8);
    let error = save_model(&model, folder.path()).unwrap_err();
    assert!(matches!(error, HfError::Packed), "{error}");
    assert!(!folder.path().join("model.safetensors").exists());
}

/// The text that follows what was written, which the command line names itself.
#[test]
fn a_text_that_names_no_type_is_refused() {
    let error = "f16".parse::<WeightType>().unwrap_err();
    assert_eq!(error.to_string(), "expected f32, bf16 or int8");
}
