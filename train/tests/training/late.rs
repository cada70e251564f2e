//! Losses that are read some steps later, as on graphics cards. The CPU stands for one.

use std::fs;
use std::path::Path;

use serde_json::Value;
use train::trainer::{End, LoopEnd, Trainer, TrainerParts};

use crate::synthetic::{Mishap, SyntheticStage, model_config};
use crate::{NUM_STEPS, loop_config, parts, weights_of};

/// The norm is summed in f32, and the gradients' scale follows from it.
const TOLERANCE: f64 = 1e-5;

/// The reported steps of a run from its start, or its newest checkpoint, to the end, and its weights.
fn run_to_end(run: &Path, mishap: Mishap, reads_late: bool) -> (Vec<Value>, Vec<f32>) {
    let mut stage = SyntheticStage::new(2);
    stage.mishap = mishap;
    let mut config = loop_config(2);
    // Read after the first step, before the checkpoint of step 4, and at the end.
    config.report.log_every = 4;
    config.checkpoint.every_steps = 4;
    config.validation.every_steps = 0;
    let parts = parts(config, &model_config(), run, stage, End::Step(NUM_STEPS));
    let mut trainer = Trainer::new(TrainerParts {
        reads_late,
        ..parts
    });
    assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
    let weights = weights_of(trainer);
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let steps = rows.filter(|row: &Value| row["kind"] == "step");
    (steps.collect(), weights)
}

fn assert_same(late: &(Vec<Value>, Vec<f32>), at_once: &(Vec<Value>, Vec<f32>)) {
    assert_eq!(late.0.len(), NUM_STEPS);
    for (late, at_once) in late.0.iter().zip(&at_once.0) {
        for field in [
            "step",
            "tokens",
            "supervised",
            "total_tokens",
            "skipped",
            "lr",
            "labels",
        ] {
            assert_eq!(late[field], at_once[field], "{field}");
        }
        for field in ["loss", "grad_norm"] {
            let gap = late[field].as_f64().zip(at_once[field].as_f64());
            assert_eq!(late[field].is_null(), at_once[field].is_null(), "{field}");
            let gap = gap.map_or(0.0, |(late, at_once)| (late - at_once).abs());
            assert!(gap < TOLERANCE, "{field} of step {}: {gap}", late["step"]);
        }
        assert!(late["secs"].as_f64().unwrap() > 0.0);
    }
    for (late, at_once) in late.1.iter().zip(&at_once.1) {
        assert!(
            f64::from((late - at_once).abs()) < TOLERANCE,
            "{late} {at_once}"
        );
    }
}

#[test]
fn steps_that_are_read_late_are_the_same_steps() {
    let [late, at_once] = [true, false].map(|reads_late| {
        let run = tempfile::tempdir().unwrap();
        run_to_end(run.path(), Mishap::None, reads_late)
    });
    assert_same(&late, &at_once);
}

/// Step 4 has a loss that is no number, and then a gradient that is infinite: the model does not move. It
/// is read right after for the checkpoint, so that updates are counted as if it had been known at once.
#[test]
fn a_step_that_is_found_bad_later_has_changed_nothing() {
    for mishap in [
        || Mishap::NanInBatches(7..8),
        || Mishap::InfiniteGradientInBatches(7..8),
    ] {
        let [late, at_once] = [true, false].map(|reads_late| {
            let run = tempfile::tempdir().unwrap();
            run_to_end(run.path(), mishap(), reads_late)
        });
        assert_eq!(late.0[3]["skipped"], 1);
        assert_same(&late, &at_once);
    }
}

/// Answers that are all worth the same teach nothing: such a step is one all the same.
#[test]
fn a_step_without_gradients_is_a_step() {
    let [late, at_once] = [true, false].map(|reads_late| {
        let run = tempfile::tempdir().unwrap();
        run_to_end(run.path(), Mishap::NoGradientsInBatches(6..8), reads_late)
    });
    assert_eq!(late.0[3]["grad_norm"], 0.0);
    assert_same(&late, &at_once);
}

/// Reading falls on the same steps again, so that the bits are the same.
#[test]
fn a_resumed_run_that_reads_late_is_the_same_bit_for_bit() {
    let whole = tempfile::tempdir().unwrap();
    let expected = run_to_end(whole.path(), Mishap::None, true).1;
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::StopAtBatch(8);
    let end = End::Step(NUM_STEPS);
    let parts = parts(loop_config(2), &model_config(), run.path(), stage, end);
    let mut first = Trainer::new(TrainerParts {
        reads_late: true,
        ..parts
    });
    assert_eq!(first.run().unwrap(), LoopEnd::Stopped);
    drop(first);
    assert_eq!(run_to_end(run.path(), Mishap::None, true).1, expected);
}
