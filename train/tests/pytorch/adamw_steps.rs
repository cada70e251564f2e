//! Five clipped AdamW steps of MiniMind v1 and v3 models, weights and all, against PyTorch.
//!
//! Expected numbers and tolerances: `model/tests/golden/README.md`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use model::hf::{load_model, save_minimind_v1, save_model};
use safetensors::SafeTensors;
use serde_json::Value;
use train::config::TrainSection;
use train::optimizer::{Optimizer, OptimizerConfig, OptimizerKind};
use train::step::SummedStep;

use crate::recorded::{RecordedBatches, floats, integers};

const STEP_LOSS: f64 = 1e-4;
const NORM_OF_NORM: f64 = 1e-4;
const STEP_WEIGHT: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden")
        .join(name)
}

/// The one batch, rows of one document each, that every step is taken on.
fn batch(name: &str) -> TokenBatch {
    let bytes = std::fs::read(golden(name).join("tensors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (shape, input_ids) = integers(&file, "input_ids");
    let [batch_size, seq_len] = shape[..] else {
        panic!("{shape:?}")
    };
    let (_, targets) = integers(&file, "target_ids");
    let mask = floats(&file, "loss_mask");
    let label = |(target, mask): (i64, f32)| {
        if mask > 0.0 {
            target as i32
        } else {
            IGNORE_INDEX
        }
    };
    TokenBatch {
        batch_size,
        seq_len,
        input_ids: input_ids.into_iter().map(|id| id as u32).collect(),
        labels: targets.into_iter().zip(mask).map(label).collect(),
        positions: (0..batch_size).flat_map(|_| 0..seq_len as u32).collect(),
        gaps: Vec::new(),
        document_ids: (0..batch_size)
            .flat_map(|row| vec![row as u32; seq_len])
            .collect(),
    }
}

/// The recipe's optimizer, its clipping norm and its learning rate.
fn optimizer(recipe: &Value) -> (Optimizer, f64, f64) {
    let number = |field: &str| recipe[field].as_f64().unwrap();
    assert_eq!(recipe["decay_on"], "every parameter");
    let config = OptimizerConfig {
        kind: OptimizerKind::AdamW,
        betas: [number("beta1"), number("beta2")],
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        decay_everything: true,
        ..OptimizerConfig::default()
    };
    let optimizer = Optimizer::new(config);
    (optimizer, number("clip_global_norm"), number("lr"))
}

/// Losses, gradient norms and, where they were recorded, every weight after the steps.
fn assert_steps_are_pytorchs(name: &str) {
    let text = std::fs::read_to_string(golden(name).join("golden.json")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let recipe = &recorded["adamw"];
    let (mut optimizer, max_norm, lr) = optimizer(recipe);
    let losses = recipe["losses"].as_array().unwrap();
    let norms = recipe["grad_norms_before_clip"].as_array().unwrap();
    assert_eq!((losses.len(), norms.len()), (5, 5));

    let mut stage = RecordedBatches {
        batches: VecDeque::from(vec![batch(name); losses.len()]),
        recomputes: false,
    };
    let mut model = load_model(&golden(name), &Device::flex().autodiff()).unwrap();
    let stop = AtomicBool::new(false);
    for (index, (loss, norm)) in losses.iter().zip(norms).enumerate() {
        let step = SummedStep::new(
            &mut stage,
            &[&model],
            &TrainSection::default(),
            &stop,
            |_, _| {},
        )
        .unwrap()
        .unwrap();
        let (loss, norm) = (loss.as_f64().unwrap(), norm.as_f64().unwrap());
        let (found, found_norm) = (step.loss(), step.grad_norm());
        assert!(
            (found - loss).abs() <= STEP_LOSS,
            "{name}: step {index}: loss {found}, expected {loss}"
        );
        assert!(
            (found_norm - norm).abs() <= NORM_OF_NORM * norm,
            "{name}: step {index}: gradient norm {found_norm}, expected {norm}"
        );
        model = step.apply(model, &mut optimizer, lr, max_norm);
    }

    let after = golden(name).join("weights_after_5_steps.safetensors");
    if after.exists() {
        let folder = tempfile::tempdir().unwrap();
        let save = if name.starts_with("v1") {
            save_minimind_v1
        } else {
            save_model
        };
        save(&model, folder.path()).unwrap();
        let found = std::fs::read(folder.path().join("model.safetensors")).unwrap();
        assert_same_weights(name, &found, &std::fs::read(after).unwrap());
    }
}

fn assert_same_weights(name: &str, found: &[u8], expected: &[u8]) {
    let found = SafeTensors::deserialize(found).unwrap();
    let expected = SafeTensors::deserialize(expected).unwrap();
    assert!(!expected.is_empty());
    for tensor in expected.names() {
        let [found, expected] = [&found, &expected].map(|file| floats(file, tensor));
        assert_eq!(found.len(), expected.len(), "{name}: {tensor}");
        for (found, expected) in found.into_iter().zip(expected) {
            assert!(
                (found - expected).abs() <= STEP_WEIGHT,
                "{name}: {tensor}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn five_steps_of_a_minimind_v1_are_pytorchs() {
    assert_steps_are_pytorchs("v1_dense");
}

#[test]
fn five_steps_of_a_minimind_v3_are_pytorchs() {
    assert_steps_are_pytorchs("v3_dense");
}

#[test]
fn five_steps_with_yarn_are_pytorchs() {
    assert_steps_are_pytorchs("v3_yarn");
}
