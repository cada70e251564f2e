//! Several devices share a step. The CPU stands for all of them: it is what runs everywhere.

use std::path::Path;

use burn::prelude::*;
use model::ModelConfig;
use train::replicas::Replicas;
use train::trainer::{End, LoopEnd, Trainer, TrainerParts};

use crate::synthetic::{Mishap, SyntheticStage, experts_config, model_config};
use crate::{NUM_STEPS, loop_config, parts, step};

/// Sums of the same terms in another order.
const TOLERANCE: f64 = 1e-5;

/// A trainer whose steps so many devices share.
fn shared_by(
    num_devices: usize,
    model_config: &ModelConfig,
    run: &Path,
    stage: SyntheticStage,
) -> Trainer<SyntheticStage> {
    let parts = parts(
        loop_config(2),
        model_config,
        run,
        stage,
        End::Step(NUM_STEPS),
    );
    let others = vec![Device::flex(); num_devices - 1];
    Trainer::new(TrainerParts {
        replicas: Replicas::new(&parts.model, &others),
        ..parts
    })
}

/// Losses of the steps from here to the end.
fn losses(mut trainer: Trainer<SyntheticStage>) -> Vec<f64> {
    let mut losses = Vec::new();
    while trainer.state().step < NUM_STEPS {
        losses.push(step(&mut trainer).loss);
    }
    losses
}

fn assert_close(left: &[f64], right: &[f64]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert!((left - right).abs() < TOLERANCE, "{left} {right}");
    }
}

/// The second device works with what the first has learned: every step after the first depends on it.
#[test]
fn two_devices_learn_what_one_does() {
    for config in [model_config(), experts_config()] {
        let [one, two] = [1, 2].map(|num_devices| {
            let run = tempfile::tempdir().unwrap();
            let stage = SyntheticStage::new(2);
            losses(shared_by(num_devices, &config, run.path(), stage))
        });
        assert_close(&one, &two);
        assert!((one[0] - one[1]).abs() > 100.0 * TOLERANCE, "steps differ");
    }
}

/// A checkpoint knows nothing of devices.
#[test]
fn a_run_goes_on_with_another_number_of_devices() {
    let config = experts_config();
    let run = tempfile::tempdir().unwrap();
    let whole = losses(shared_by(1, &config, run.path(), SyntheticStage::new(2)));
    for (before, after) in [(1, 2), (2, 1)] {
        let run = tempfile::tempdir().unwrap();
        let mut stage = SyntheticStage::new(2);
        stage.mishap = Mishap::StopAtBatch(6);
        let mut first = shared_by(before, &config, run.path(), stage);
        assert_eq!(first.run().unwrap(), LoopEnd::Stopped);
        drop(first);
        let rest = shared_by(after, &config, run.path(), SyntheticStage::new(2));
        assert_close(&whole[3..], &losses(rest));
    }
}
