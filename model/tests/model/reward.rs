//! The head that judges texts: transformers' values, its folder, what it refuses.

use std::convert::Infallible;

use burn::prelude::*;
use model::CausalLm;
use model::hf::{load_model, save_minimind_v1, save_model};
use model::params::{fill_params, named_params};
use model::reward::rewards;
use tempfile::TempDir;

use crate::fixture::golden_model;
use crate::folder_copy::read_json;

/// The golden Llama with the head `sin(1), sin(2), ..`.
fn judge(device: &Device) -> CausalLm {
    let model = golden_model("hf_llama", device).with_score_head();
    let params = named_params(&model);
    let Ok(model) = fill_params(model, |path, _| {
        let known = params.iter().find(|param| param.path == path).unwrap();
        let values = known.values.iter().enumerate();
        Ok::<_, Infallible>(if path == "score.weight" {
            values
                .map(|(place, _)| (place as f32 + 1.0).sin())
                .collect()
        } else {
            known.values.clone()
        })
    });
    model
}

/// Recorded with transformers 5.23 and torch 2.15 in f32: `LlamaForSequenceClassification` of one
/// label on the golden folder, `score.weight[i] = sin(i + 1)`, each text alone. Here they share a
/// batch, the short ones padded, and come out of a folder that was written and read.
#[test]
fn rewards_are_those_of_transformers_whatever_shares_the_batch() {
    let device = Device::flex();
    let dir = TempDir::new().unwrap();
    save_model(&judge(&device), dir.path()).unwrap();
    let config = read_json(&dir.path().join("config.json"));
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    let model = load_model(dir.path(), &device).unwrap();
    let texts = [
        vec![3, 9, 27, 5],
        vec![8, 2],
        vec![40, 41, 42, 43, 44, 45, 46],
        vec![5],
    ];
    let expected = [-3.043_558_6, 0.160_239_93, 1.609_713_3, -2.913_279_3];
    for (found, expected) in rewards(&model, &texts).unwrap().iter().zip(expected) {
        let expected: f32 = expected;
        assert!((found - expected).abs() < 2e-5, "{found} {expected}");
    }
}

/// A head that was never trained finds all texts equally good.
#[test]
fn a_fresh_head_prefers_nothing() {
    let model = golden_model("hf_llama", &Device::flex()).with_score_head();
    let found = rewards(&model, &[vec![1, 2], vec![3]]).unwrap();
    assert!(found.iter().all(|reward| reward.abs() < f32::EPSILON));
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let plain = golden_model("hf_llama", &Device::flex());
    let refusal = |model: &CausalLm, texts: &[Vec<u32>]| rewards(model, texts).unwrap_err();
    assert_eq!(
        refusal(&plain, &[vec![1]]).to_string(),
        "the model has no score head, expected one that kindling reward_model trained"
    );
    let judge = plain.with_score_head();
    let (most, vocab_size) = {
        let config = judge.config();
        (config.max_position_embeddings, config.vocab_size)
    };
    assert_eq!(
        refusal(&judge, &[vec![1], Vec::new()]).to_string(),
        "text 1 has no token, expected at least one"
    );
    assert_eq!(
        refusal(&judge, &[vec![1; most + 1]]).to_string(),
        format!(
            "text 0 has {} tokens, expected at most max_position_embeddings = {most}",
            most + 1
        )
    );
    assert_eq!(
        refusal(&judge, &[vec![vocab_size as u32]]).to_string(),
        format!("text 0 holds token id {vocab_size}, expected ids below vocab_size = {vocab_size}")
    );
    let dir = TempDir::new().unwrap();
    let v1 = golden_model("v1_dense", &Device::flex()).with_score_head();
    let error = save_minimind_v1(&v1, dir.path()).unwrap_err().to_string();
    assert!(error.contains("a score head"), "{error}");
}
