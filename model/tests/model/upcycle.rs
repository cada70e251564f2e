//! A mixture of experts that starts as a dense model.

use burn::module::Module;
use burn::prelude::*;
use model::{CausalLm, ModelConfig};

use crate::fixture::{golden_model, logits, max_difference};

const ROWS: [[i64; 9]; 1] = [[36, 123, 100, 40, 5, 112, 70, 39, 8]];

/// Equal experts whose weights sum to one say what the network they were copied from says.
#[test]
fn an_upcycled_model_computes_what_the_dense_one_does() {
    let device = Device::flex();
    for (dense, sparse) in [("v1_dense", "v1_moe"), ("v3_dense", "v3_moe_top2")] {
        let dense = golden_model(dense, &device);
        let config = golden_model(sparse, &device).config().clone();
        let upcycled = CausalLm::upcycled(&dense, &config, 3, &device).unwrap();
        assert_eq!(upcycled.num_params(), config.num_params());
        let rows = ROWS.map(|row| row.to_vec());
        let difference = max_difference(
            &logits(&upcycled, &rows, &device),
            &logits(&dense, &rows, &device),
        );
        assert!(difference < 1e-5, "{sparse}: {difference:e}");
    }
    let dense = golden_model("v3_dense", &device);
    let other = golden_model("hf_qwen3_moe", &device).config().clone();
    let error = CausalLm::upcycled(&dense, &other, 3, &device).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`rope_theta` is 10000, expected 1000000 as in the dense model"
    );

    let config = golden_model("v3_moe_top2", &device).config().clone();
    let other = ModelConfig {
        rms_norm_eps: 1e-5,
        ..config.clone()
    };
    let error = CausalLm::upcycled(&dense, &other, 3, &device).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`rms_norm_eps` is 0.00001, expected 0.000001 as in the dense model"
    );
    let other = ModelConfig {
        rope_scaling: golden_model("v3_yarn", &device)
            .config()
            .rope_scaling
            .clone(),
        ..config
    };
    let error = CausalLm::upcycled(&dense, &other, 3, &device).unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.expected.as_str()),
        ("rope_scaling", "none as in the dense model")
    );
}
