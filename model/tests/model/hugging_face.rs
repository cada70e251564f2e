//! Folders written by transformers: logits and greedy ids.
//!
//! Expected numbers and tolerances: `tests/golden/README.md`.

use burn::prelude::*;

use crate::fixture::{golden, golden_json, golden_model, greedy, logits, max_difference, recorded};

const FOLDERS: [&str; 8] = [
    "hf_llama",
    "hf_llama_untied",
    "hf_qwen3",
    "hf_qwen3_head_dim",
    "hf_llama_yarn",
    "hf_qwen3_moe",
    "hf_ernie_moe",
    "hf_glm4_moe",
];
const LOGITS: f32 = 2e-5;
/// The recorded continuations begin with the first tokens of the first row.
const NUM_PROMPT_TOKENS: usize = 8;

/// Recorded logits of two rows, up to 100 tokens long.
#[test]
fn logits_are_those_of_transformers() {
    let device = Device::flex();
    for name in FOLDERS {
        let model = golden_model(name, &device);
        let expected = recorded(&golden(name).join("expected.safetensors"));
        let found = logits(&model, &expected["input_ids"].token_ids(), &device);
        let difference = max_difference(&found, &expected["logits"].values);
        assert!(
            difference <= LOGITS,
            "{name}: logits differ by {difference:e}"
        );
    }
}

/// Recorded greedy continuation.
#[test]
fn greedy_ids_are_those_of_transformers() {
    let device = Device::flex();
    for name in FOLDERS {
        let list = &golden_json(name, "expected.json")["greedy"];
        let expected: Vec<i64> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_i64().unwrap())
            .collect();
        let model = golden_model(name, &device);
        let found = greedy(
            &model,
            &expected[..NUM_PROMPT_TOKENS],
            expected.len(),
            &device,
        );
        assert_eq!(found, expected, "{name}");
    }
}
