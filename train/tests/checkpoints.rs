//! Checkpoints on the disk: complete or not there, verified when read, pruned with care.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::precision::Precision;
use serde_json::{Value, json};
use train::checkpoint::{self, TrainState};
use train::loss_scale::LossScale;
use train::optimizer::{Optimizer, OptimizerConfig, OptimizerKind};

fn device() -> Device {
    Device::flex().autodiff()
}

fn state(step: usize) -> TrainState {
    let mut state = TrainState::new(Value::from(step), "data".to_owned(), json!({"train": {}}));
    state.step = step;
    state.num_updates = step as u64;
    state
}

/// A layer and an optimizer after one update.
fn updated(config: OptimizerConfig) -> (Linear, Optimizer) {
    let layer = LinearConfig::new(3, 2).init(&device());
    let mut optimizer = Optimizer::new(config);
    let grads = layer
        .forward(Tensor::<2>::ones([4, 3], &device()))
        .square()
        .sum()
        .backward();
    let grads = GradientsParams::from_grads(grads, &layer);
    let layer = optimizer.step(layer, grads, 0.1, 1.0);
    (layer, optimizer)
}

fn save(run: &Path, step: usize) {
    let (layer, optimizer) = updated(OptimizerConfig::default());
    checkpoint::save(run, &layer, &optimizer, &state(step)).unwrap();
}

fn names(run: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn weights(layer: &Linear) -> Vec<f32> {
    layer.weight.val().into_data().iter::<f32>().collect()
}

/// What comes back is what was saved, bit for bit, and the next update is the same too.
#[test]
fn a_checkpoint_continues_bit_for_bit() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Muon] {
        let run = tempfile::tempdir().unwrap();
        let config = OptimizerConfig {
            kind,
            ..OptimizerConfig::default()
        };
        let (layer, mut optimizer) = updated(config.clone());
        checkpoint::save(run.path(), &layer, &optimizer, &state(1)).unwrap();

        let folder = checkpoint::newest(run.path()).unwrap().unwrap();
        let loaded_state = checkpoint::load_state(&folder).unwrap();
        assert_eq!(loaded_state, state(1));
        let fresh = LinearConfig::new(3, 2).init(&device());
        let mut loaded_optimizer = Optimizer::new(config);
        let loaded = checkpoint::load_weights(
            &folder,
            &loaded_state,
            fresh,
            &mut loaded_optimizer,
            &device(),
        )
        .unwrap();
        assert_eq!(weights(&loaded), weights(&layer));

        let next = |layer: Linear, optimizer: &mut Optimizer| {
            let grads = layer
                .forward(Tensor::<2>::ones([4, 3], &device()))
                .square()
                .sum()
                .backward();
            let grads = GradientsParams::from_grads(grads, &layer);
            weights(&optimizer.step(layer, grads, 0.1, 1.0))
        };
        assert_eq!(
            next(loaded, &mut loaded_optimizer),
            next(layer, &mut optimizer)
        );
    }
}

/// Checkpoints from before there was a loss scale lack the field, as those do that need none.
#[test]
fn a_state_without_a_loss_scale_loads() {
    let json = serde_json::to_value(state(1)).unwrap();
    assert_eq!(json.get("loss_scale"), None);
    let loaded: TrainState = serde_json::from_value(json).unwrap();
    assert_eq!(loaded, state(1));

    let mut scaled = state(1);
    scaled.loss_scale = LossScale::of(Precision::F16);
    let json = serde_json::to_value(scaled.clone()).unwrap();
    let expected = json!({"scale": 65536.0, "steps_since_change": 0});
    assert_eq!(json["loss_scale"], expected);
    let loaded: TrainState = serde_json::from_value(json).unwrap();
    assert_eq!(loaded, scaled);
}

/// One flipped bit in any file is found before anything is used, and the file is named.
#[test]
fn a_flipped_byte_is_found_and_its_file_named() {
    for name in ["model.safetensors", "optimizer.safetensors", "trainer.json"] {
        let run = tempfile::tempdir().unwrap();
        save(run.path(), 1);
        let folder = run.path().join("step_000001");
        let path = folder.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = checkpoint::load_state(&folder).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}: the file is damaged (its SHA-256 is not the one in checksums); \
                 delete this checkpoint's folder to go on from an earlier one",
                path.display()
            )
        );
    }
}

/// A process killed while saving leaves a folder under another name, which is nothing to resume
/// from.
#[test]
fn a_half_written_checkpoint_is_not_seen_and_is_cleared_away() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), 3);
    fs::create_dir(run.path().join(".writing-step_000004")).unwrap();
    fs::write(run.path().join("latest.tmp"), "step_0").unwrap();
    let newest = checkpoint::newest(run.path()).unwrap().unwrap();
    assert_eq!(newest, run.path().join("step_000003"));
    checkpoint::prune(run.path(), 1).unwrap();
    assert_eq!(names(run.path()), ["latest", "step_000003"]);
}

/// A checkpoint that cannot be written names its path, leaves nothing half-written, and the one
/// before it still loads. A file in the way stands for a folder that cannot be made.
#[test]
fn a_failed_save_leaves_the_previous_checkpoint_good() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), 1);
    let in_the_way = run.path().join(".writing-step_000002");
    fs::write(&in_the_way, "x").unwrap();
    let (layer, optimizer) = updated(OptimizerConfig::default());
    let error = checkpoint::save(run.path(), &layer, &optimizer, &state(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: the checkpoint cannot be written, earlier ones are untouched",
            in_the_way.display()
        )
    );
    let newest = checkpoint::newest(run.path()).unwrap().unwrap();
    checkpoint::load_state(&newest).unwrap();
    assert_eq!(newest, run.path().join("step_000001"));
}

/// The newest stay, and the best one however old it is.
#[test]
fn pruning_keeps_the_newest_and_the_best() {
    let run = tempfile::tempdir().unwrap();
    for step in 1..=5 {
        save(run.path(), step);
        if step == 2 {
            checkpoint::mark_best(run.path(), 2).unwrap();
        }
    }
    checkpoint::prune(run.path(), 2).unwrap();
    let left = names(run.path());
    assert_eq!(
        left,
        [
            "best",
            "latest",
            "step_000002",
            "step_000004",
            "step_000005"
        ]
    );
    assert_eq!(
        fs::read_to_string(run.path().join("latest")).unwrap(),
        "step_000005\n"
    );
    assert_eq!(
        fs::read_to_string(run.path().join("best")).unwrap(),
        "step_000002\n"
    );
}

/// Keeping none would delete the only good one; one is always kept.
#[test]
fn the_only_checkpoint_is_never_pruned() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), 7);
    checkpoint::prune(run.path(), 0).unwrap();
    assert_eq!(checkpoint::steps(run.path()).unwrap(), [7]);
}

/// Beyond 999,999 steps the number grows longer; other names are no checkpoints.
#[test]
fn a_checkpoint_is_known_by_its_name() {
    assert_eq!(checkpoint::folder_name(500), "step_000500");
    assert_eq!(checkpoint::step_of("step_000500"), Some(500));
    assert_eq!(checkpoint::step_of("step_1234567"), Some(1_234_567));
    for name in [
        "step_5",
        "step_",
        "step_00050x",
        ".writing-step_000500",
        "final",
    ] {
        assert_eq!(checkpoint::step_of(name), None, "{name}");
    }
}

/// Weights of another shape are refused with the tensor's name and both shapes.
#[test]
fn weights_of_another_model_are_refused() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), 1);
    let folder = run.path().join("step_000001");
    let other = LinearConfig::new(3, 4).init(&device());
    let mut optimizer = Optimizer::new(OptimizerConfig::default());
    let error =
        checkpoint::load_weights(&folder, &state(1), other.clone(), &mut optimizer, &device())
            .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "weight: found F32 [3, 2], expected F32 [3, 4]");
    assert_eq!(other.num_params(), 16);
}
