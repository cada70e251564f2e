//! Routers and experts: balance by hand, biases, adapters, packed weights, foreign folders.

use std::sync::Arc;

use burn::module::Module;
use burn::prelude::*;
use model::experts::{
    Balance, ExpertsConfig, RoutedTokens, Routes, Routing, ScoringFunc, max_violation,
};
use model::hf::save_model;
use model::lora::{LoraConfig, num_adapter_params};
use model::packed::WeightType;
use model::params::{fill_params, named_params};
use model::{CausalLm, ModelConfig};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{golden_model, logits, max_difference, recorded};
use crate::folder_copy::read_json;

/// Four tokens over four experts, from the reference's recipe.
const SCORES: [[f32; 4]; 4] = [
    [0.7, 0.15, 0.1, 0.05],
    [0.6, 0.2, 0.12, 0.08],
    [0.1, 0.2, 0.3, 0.4],
    [0.27, 0.23, 0.3, 0.2],
];
const TOP_2: [u32; 8] = [0, 1, 0, 1, 3, 2, 2, 0];
const TOP_1: [u32; 4] = [0, 0, 3, 2];
const ROWS: [[i64; 9]; 1] = [[36, 123, 100, 40, 5, 112, 70, 39, 8]];

fn routing(chosen: &[u32], per_token: usize) -> Routing {
    let scores = Tensor::<2>::from_floats(SCORES, &Device::flex());
    Routing {
        logits: scores.clone().log(),
        scores,
        host_scores: SCORES.concat(),
        routes: Arc::new(Routes::new(chosen.to_vec(), per_token, 4)),
    }
}

fn tokens(is_text: [bool; 4], row_weights: &[f32]) -> RoutedTokens {
    RoutedTokens {
        is_text: is_text.to_vec(),
        row_weights: row_weights.to_vec(),
    }
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

/// What training adds to its loss; reports say the same.
fn loss(balance: &Balance<'_>) -> f64 {
    let loss = scalar(balance.loss());
    assert_close(balance.value(), loss);
    loss
}

fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

/// The reference's numbers: 0.011175 at a coefficient of 0.01 for v1, 0.00061125 at 5e-4 for v3,
/// and 2.235 in transformers, which counts every expert of a token.
#[test]
fn the_auxiliary_losses_are_those_of_the_reference() {
    let one_row = tokens([true; 4], &[1.0]);
    let softmax = ScoringFunc::Softmax;
    let top_2 = routing(&TOP_2, 2);
    assert_close(loss(&top_2.sequence_balance(&one_row, softmax)), 1.1175);
    assert_close(loss(&top_2.batch_balance(&one_row, softmax)) * 2.0, 2.235);
    let top_1 = routing(&TOP_1, 1);
    assert_close(loss(&top_1.batch_balance(&one_row, softmax)), 1.2225);
}

/// By hand: rows of two tokens; the first row's loads are (2, 2, 0, 0), each against 1, and its
/// mean scores (0.65, 0.175, ..), the second's (1, 0, 2, 1) and (0.185, 0.215, 0.3, 0.3).
#[test]
fn rows_are_balanced_on_their_own_and_weighted() {
    let rows = tokens([true; 4], &[1.0, 3.0]);
    let first = 2.0 * 0.65 + 2.0 * 0.175;
    let second = 0.185 + 2.0 * 0.3 + 0.3;
    let routing = routing(&TOP_2, 2);
    let found = loss(&routing.sequence_balance(&rows, ScoringFunc::Softmax));
    assert_close(found, first + 3.0 * second);
}

/// Sigmoids are shares once they are divided by their sum, however large that is.
#[test]
fn sigmoids_are_balanced_by_their_shares() {
    let one_row = tokens([true; 4], &[1.0]);
    let mut routing = routing(&TOP_2, 2);
    routing.scores = routing.scores * 2.0;
    routing
        .host_scores
        .iter_mut()
        .for_each(|score| *score *= 2.0);
    let balance = routing.sequence_balance(&one_row, ScoringFunc::Sigmoid);
    assert_close(loss(&balance), 1.1175);
}

/// Padding counts nowhere: with the last two tokens out, what is left is the first row above.
#[test]
fn padding_does_not_count() {
    let text = tokens([true, true, false, false], &[1.0]);
    let routing = routing(&TOP_2, 2);
    let balance = routing.sequence_balance(&text, ScoringFunc::Softmax);
    assert_close(loss(&balance), 2.0 * 0.65 + 2.0 * 0.175);
    assert_eq!(routing.loads(&text), [2, 2, 0, 0]);
    let entropy: f64 = SCORES[..2]
        .iter()
        .flatten()
        .map(|p| -f64::from(*p) * f64::from(*p).ln() / 2.0)
        .sum();
    assert_close(routing.entropy(&text), entropy);
}

/// The logits are logarithms of probabilities, so their log-sum is 0; raised by 2 it is 2, and the
/// loss 4 per row of weight 1.
#[test]
fn the_z_loss_is_the_squared_log_sum() {
    let mut routing = routing(&TOP_2, 2);
    let rows = tokens([true, true, true, false], &[1.0, 0.5]);
    assert_close(scalar(routing.z_loss(&rows)), 0.0);
    routing.logits = routing.logits + 2.0;
    assert_close(scalar(routing.z_loss(&rows)), 4.0 * 1.5);
}

/// By hand: one expert of four with half of the load is once too busy, one with all thrice.
#[test]
fn the_violation_is_the_busiest_experts_excess() {
    assert_close(max_violation(&[5, 5, 5, 5]), 0.0);
    assert_close(max_violation(&[4, 2, 1, 1]), 1.0);
    assert_close(max_violation(&[0, 8, 0, 0]), 3.0);
    assert_close(max_violation(&[0, 0]), 0.0);
}

fn biases(model: &CausalLm) -> Vec<f32> {
    let bias = |layer: usize| {
        let experts = model.layers[layer].mlp.sparse().unwrap();
        let bias = experts.gate.e_score_correction_bias.as_ref().unwrap().val();
        bias.into_data().try_into_vec::<f32>().unwrap()
    };
    bias(1)
}

/// Above the mean load of 2.5 down, below it up, by the rate; on it, not at all.
#[test]
fn biases_move_against_the_load() {
    let model = golden_model("hf_ernie_moe", &Device::flex());
    let before = biases(&model);
    let model = model.with_moved_biases(&[(1, vec![4, 3, 2, 1])], 0.125);
    let moves: Vec<f32> = biases(&model)
        .iter()
        .zip(&before)
        .map(|(a, b)| a - b)
        .collect();
    for (moved, expected) in moves.iter().zip([-0.125, -0.125, 0.125, 0.125]) {
        assert!((moved - expected).abs() < 1e-6, "{moves:?}");
    }
    let before = biases(&model);
    let model = model.with_moved_biases(&[(1, vec![2, 2, 2, 2])], 0.125);
    assert_eq!(biases(&model), before);
}

/// A bias so large that its expert is always chosen changes who answers, not how much each counts.
#[test]
fn a_bias_chooses_without_weighing() {
    let device = Device::flex();
    let model = golden_model("hf_ernie_moe", &device);
    let gate = &model.layers[1].mlp.sparse().unwrap().gate;
    let x = Tensor::<2>::from_data(
        TensorData::new(
            (0..5 * 64)
                .map(|i| ((i * 37 % 19) as f32 - 9.0) / 9.0)
                .collect(),
            [5, 64],
        ),
        &device,
    );
    let raised = model
        .clone()
        .with_moved_biases(&[(1, vec![1, 1, 1, 0])], 50.0);
    let raised = &raised.layers[1].mlp.sparse().unwrap().gate;
    let (weights, routing) = raised.route(x.clone());
    assert_eq!(routing.loads(&tokens_of(5))[3], 5);
    let sums = weights.clone().sum_dim(1).into_data();
    sums.assert_approx_eq::<f32>(
        &TensorData::from([[1.0_f32]; 5]),
        burn::tensor::Tolerance::absolute(1e-6),
    );
    let (_, before) = gate.route(x);
    before
        .scores
        .into_data()
        .assert_eq(&routing.scores.into_data(), true);
    assert!(weights.min().into_scalar::<f32>() < 0.5);
}

fn tokens_of(count: usize) -> RoutedTokens {
    RoutedTokens {
        is_text: vec![true; count],
        row_weights: vec![1.0],
    }
}

/// Adapters on every expert, fresh ones silent, trained ones the same once merged.
#[test]
fn experts_take_adapters() {
    let device = Device::flex();
    let plain = golden_model("hf_qwen3_moe", &device);
    let config = LoraConfig {
        rank: 3,
        alpha: 6.0,
        dropout: 0.0,
        target_modules: vec![
            "up_proj".to_owned(),
            "layers.1.mlp.experts.*.down_proj".to_owned(),
        ],
    };
    let adapted = plain.clone().with_adapters(&config, 5).unwrap();
    // By hand: 64 + 96 per matrix, one of each expert in the first layer and two in the second.
    assert_eq!(
        num_adapter_params(plain.config(), &config).unwrap(),
        3 * (64 + 96) * 12
    );
    assert_eq!(
        adapted.num_params() - plain.num_params(),
        3 * (64 + 96) * 12
    );
    let rows = ROWS.map(|row| row.to_vec());
    let before = logits(&plain, &rows, &device);
    assert!(max_difference(&logits(&adapted, &rows, &device), &before) < 1e-5);

    let Ok(trained) = fill_params(adapted, |path, shape| {
        let count = shape.iter().product();
        Ok::<_, std::convert::Infallible>(if path.contains(".adapters.") {
            (0..count)
                .map(|i: usize| ((i * 7919 % 101) as f32 - 50.0) / 200.0)
                .collect()
        } else {
            let params = named_params(&plain);
            params
                .into_iter()
                .find(|param| param.path == path)
                .unwrap()
                .values
        })
    });
    let expected = logits(&trained, &rows, &device);
    assert!(max_difference(&expected, &before) > 1e-2);
    assert!(max_difference(&logits(&trained.merged(), &rows, &device), &expected) < 1e-4);
}

/// Packed experts run as the networks they are; bf16 keeps about three digits.
#[test]
fn packed_experts_answer_alike() {
    let device = Device::flex();
    for name in ["hf_qwen3_moe", "hf_ernie_moe", "v1_moe"] {
        let model = golden_model(name, &device);
        let rows = ROWS.map(|row| row.to_vec());
        let expected = logits(&model, &rows, &device);
        let packed = model.packed(WeightType::Bf16);
        let difference = max_difference(&logits(&packed, &rows, &device), &expected);
        assert!(difference > 0.0 && difference < 0.1, "{name}: {difference}");
    }
}

/// The v1 layout is an Ernie 4.5 of Hugging Face, with biases of zero that ours has no need of.
#[test]
fn a_minimind_v1_mixture_is_exported_as_an_ernie_folder() {
    let device = Device::flex();
    let model = golden_model("v1_moe", &device);
    let dir = TempDir::new().unwrap();
    save_model(&model, dir.path()).unwrap();
    let config = read_json(&dir.path().join("config.json"));
    assert_eq!(config["architectures"], json!(["Ernie4_5_MoeForCausalLM"]));
    assert_eq!(config["moe_num_shared_experts"], 1);
    let written = recorded(&dir.path().join("model.safetensors"));
    let bias = &written["model.layers.1.mlp.moe_statics.e_score_correction_bias"];
    assert_eq!(
        (bias.shape.as_slice(), bias.values.as_slice()),
        ([1, 4].as_slice(), [0.0; 4].as_slice())
    );

    let loaded = model::hf::load_model(dir.path(), &device).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(named_params(&loaded), named_params(&model));
}

/// A weight divided by itself is one, so the router learns from the auxiliary loss alone.
#[test]
fn a_single_renormalised_weight_leaves_the_router_without_gradient() {
    let experts = |name| -> ExpertsConfig {
        let model = golden_model(name, &Device::flex());
        let config: &ModelConfig = model.config();
        config.experts.clone().unwrap()
    };
    assert!(experts("v3_moe_top1").leaves_router_without_gradient());
    assert!(!experts("v3_moe_top2").leaves_router_without_gradient());
    let raw = ExpertsConfig {
        norm_topk_prob: false,
        ..experts("v3_moe_top1")
    };
    assert!(!raw.leaves_router_without_gradient());
}

/// Noise is drawn within a pass only, the same for the same pass.
#[test]
fn router_noise_follows_the_pass() {
    let device = Device::flex();
    let rows = ROWS.map(|row| row.to_vec());
    let model = golden_model("hf_qwen3_moe", &device).with_router_noise(1.0, 7);
    let quiet = logits(&model, &rows, &device);
    let in_pass = |pass: u64| {
        model.training_pass().begin(pass);
        let noisy = logits(&model, &rows, &device);
        model.training_pass().end();
        noisy
    };
    let (first, second) = (in_pass(1), in_pass(2));
    assert!(max_difference(&first, &quiet) > 1e-3);
    assert!(max_difference(&first, &second) > 1e-3);
    assert_eq!(in_pass(1), first);
    assert_eq!(logits(&model, &rows, &device), quiet);
}
