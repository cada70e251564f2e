//! The learning curve is PyTorch's: twenty packed, accumulated steps against recorded losses.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::prelude::*;
use dataset::batch::TokenBatch;
use safetensors::SafeTensors;
use serde_json::Value;
use train::config::TrainSection;
use train::optimizer::{Optimizer, OptimizerConfig};
use train::step::SummedStep;

use crate::recorded::{RecordedBatches, integers};

/// Absolute tolerance of a step's mean loss, as the goldens give it.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Relative tolerance of a step's gradient norm, as the goldens give it.
const NORM_TOLERANCE: f64 = 1e-3;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Recorded batches in their order, micro-batches per step, and a learning rate per step.
fn recorded() -> (VecDeque<TokenBatch>, usize, Vec<f64>) {
    let bytes = std::fs::read(golden("packed_curve/batches.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (shape, input_ids) = integers(&file, "input_ids");
    let [num_steps, num_micro_batches, batch_size, seq_len] = shape[..] else {
        panic!("{shape:?}")
    };
    let (_, labels) = integers(&file, "labels");
    let (_, positions) = integers(&file, "positions");
    let (_, document_ids) = integers(&file, "document_ids");
    let slots = batch_size * seq_len;
    let batches = (0..num_steps * num_micro_batches).map(|batch| {
        let range = batch * slots..(batch + 1) * slots;
        let ids = |numbers: &[i64]| numbers[range.clone()].iter().map(|&n| n as u32).collect();
        TokenBatch {
            batch_size,
            seq_len,
            input_ids: ids(&input_ids),
            labels: labels[range.clone()].iter().map(|&n| n as i32).collect(),
            positions: ids(&positions),
            gaps: Vec::new(),
            document_ids: ids(&document_ids),
        }
    });
    let batches = batches.collect();
    let lrs = file.tensor("lrs").unwrap();
    let lrs = lrs
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into());
    (batches, num_micro_batches, lrs.collect())
}

/// Steps through the recorded batches and compares each step with PyTorch's.
fn assert_curve_is_pytorchs(name: &str, recomputes: bool) {
    let device = Device::flex().autodiff();
    let mut model = model::hf::load_model(&golden(name), &device).unwrap();
    let (batches, num_micro_batches, lrs) = recorded();
    let mut stage = RecordedBatches {
        batches,
        recomputes,
    };
    let mut optimizer = Optimizer::new(OptimizerConfig::default());
    let curve = std::fs::read_to_string(golden(&format!("packed_curve/{name}.jsonl"))).unwrap();
    let stop = AtomicBool::new(false);
    let train = TrainSection {
        grad_accumulation_steps: num_micro_batches,
        ..TrainSection::default()
    };
    for (line, lr) in curve.lines().zip(lrs) {
        let expected: Value = serde_json::from_str(line).unwrap();
        let step = SummedStep::new(&mut stage, &[&model], &train, &stop, |_, _| {})
            .unwrap()
            .unwrap();
        assert_eq!(expected["num_tokens"], step.supervised);
        let loss_gap = (step.loss() - expected["loss"].as_f64().unwrap()).abs();
        assert!(loss_gap < LOSS_TOLERANCE, "{line}: loss is {}", step.loss());
        let norm = expected["grad_norm"].as_f64().unwrap();
        let norm_gap = (step.grad_norm() / norm - 1.0).abs();
        assert!(
            norm_gap < NORM_TOLERANCE,
            "{line}: gradient norm is {}",
            step.grad_norm()
        );
        model = step.apply(model, &mut optimizer, lr, 1.0);
    }
    assert_eq!(curve.lines().count(), 20);
}

/// Expected losses and norms: PyTorch and transformers, see golden/README.md.
#[test]
fn the_learning_curve_of_a_llama_is_pytorchs() {
    assert_curve_is_pytorchs("hf_llama", false);
}

/// Expected losses and norms: PyTorch and transformers, see golden/README.md.
#[test]
fn the_learning_curve_of_a_qwen3_is_pytorchs() {
    assert_curve_is_pytorchs("hf_qwen3", false);
}

/// Recomputing layers changes memory, not numbers.
#[test]
fn activation_checkpointing_learns_the_same_curve() {
    assert_curve_is_pytorchs("hf_qwen3", true);
}
