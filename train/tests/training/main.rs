//! The training loop on a tiny model: accumulation, resume, guard, stop.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod devices;
mod experts;
mod f16;
mod late;
mod packing;
mod synthetic;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::prelude::*;
use model::precision::Precision;
use model::{CausalLm, ModelConfig};
use serde_json::json;
use synthetic::{Mishap, SyntheticStage, experts_config, model_config};
use train::checkpoint::{self, TrainState};
use train::config::{Length, LoopConfig, PretrainConfig, TrainSection};
use train::loss_scale::LossScale;
use train::optimizer::{Optimizer, OptimizerConfig};
use train::replicas::Replicas;
use train::report::{ReportConfig, Reporter, StepReport};
use train::run_folder::{IfExists, RunFolder};
use train::schedule::{Schedule, ScheduleConfig};
use train::stage::Stage;
use train::step::SummedStep;
use train::trainer::{End, LoopEnd, Trainer, TrainerParts};

const NUM_STEPS: usize = 6;

fn device() -> Device {
    Device::flex().autodiff()
}

fn loop_config(grad_accumulation_steps: usize) -> LoopConfig {
    let mut config = PretrainConfig::default();
    config.train.length = Length::Steps(NUM_STEPS);
    config.train.grad_accumulation_steps = grad_accumulation_steps;
    config.checkpoint.every_steps = 2;
    config.validation.every_steps = 1;
    config.validation.patience = 2;
    config.guard.max_skipped_steps = 1;
    config.report = ReportConfig {
        tensorboard: false,
        plot: false,
        quiet: true,
        ..ReportConfig::default()
    };
    config.loop_config()
}

/// A trainer in a folder, going on from the newest checkpoint in it.
fn trainer(run: &Path, stage: SyntheticStage, end: End) -> Trainer<SyntheticStage> {
    trainer_of(&model_config(), run, stage, end)
}

/// The same for a model of any shape.
fn trainer_of(
    model_config: &ModelConfig,
    run: &Path,
    stage: SyntheticStage,
    end: End,
) -> Trainer<SyntheticStage> {
    Trainer::new(parts(loop_config(2), model_config, run, stage, end))
}

/// What a trainer with a config of the loop is made of.
fn parts(
    config: LoopConfig,
    model_config: &ModelConfig,
    run: &Path,
    mut stage: SyntheticStage,
    end: End,
) -> TrainerParts<SyntheticStage> {
    let stop = stage.stop.clone();
    let run = RunFolder::open(run, IfExists::Resume).unwrap();
    let mut model = CausalLm::new(model_config, 1, &device());
    let mut optimizer = Optimizer::new(config.optimizer.clone());
    let mut state = TrainState::new(stage.cursor(), "data".to_owned(), json!({}));
    if let Some(folder) = checkpoint::newest(run.path()).unwrap() {
        state = checkpoint::load_state(&folder).unwrap();
        model =
            checkpoint::load_weights(&folder, &state, model, &mut optimizer, &device()).unwrap();
        stage.seek(&state.cursor).unwrap();
    }
    let reporter = Reporter::new(run.path(), &config.report, None).unwrap();
    let schedule = Schedule::over_steps(&ScheduleConfig::default(), 1e-2, NUM_STEPS);
    TrainerParts {
        stage,
        model,
        replicas: Replicas::default(),
        optimizer,
        schedule,
        end,
        config,
        state,
        run,
        reporter,
        examiner: None,
        stop,
        reads_late: false,
    }
}

/// What the next step came to.
fn step(trainer: &mut Trainer<SyntheticStage>) -> StepReport {
    assert!(trainer.train_step().unwrap());
    trainer.last_report().unwrap().clone()
}

fn weights_of(trainer: Trainer<SyntheticStage>) -> Vec<f32> {
    let (_, model) = trainer.finish();
    weights(&model)
}

fn weights(model: &CausalLm) -> Vec<f32> {
    let layer = &model.layers[0];
    let parts = [
        model.embed_tokens.weight.val().into_data(),
        layer.self_attn.q_proj.weight.val().into_data(),
        layer
            .mlp
            .dense()
            .unwrap()
            .down_proj
            .weight
            .val()
            .into_data(),
    ];
    parts
        .iter()
        .flat_map(|data| data.iter::<f32>().collect::<Vec<_>>())
        .collect()
}

/// The weights after `NUM_STEPS` steps without any interruption.
fn uninterrupted() -> Vec<f32> {
    let run = tempfile::tempdir().unwrap();
    let mut trainer = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
    weights_of(trainer)
}

/// Ragged rows weigh by their tokens: eight micro-batches of one row learn what one of eight does.
#[test]
fn eight_micro_batches_of_one_row_equal_one_of_eight() {
    let stop = AtomicBool::new(false);
    let step = |rows: usize, num_micro_batches: usize| {
        let model = CausalLm::new(&model_config(), 1, &device());
        let mut stage = SyntheticStage::new(rows);
        let train = TrainSection {
            grad_accumulation_steps: num_micro_batches,
            ..TrainSection::default()
        };
        let step = SummedStep::new(&mut stage, &[&model], &train, &stop, |_, _| {})
            .unwrap()
            .unwrap();
        let numbers = (step.loss(), step.grad_norm(), step.supervised);
        let mut optimizer = Optimizer::new(OptimizerConfig::default());
        (
            numbers,
            weights(&step.apply(model, &mut optimizer, 1e-3, 1.0)),
        )
    };
    let ((loss, norm, supervised), one_by_one) = step(1, 8);
    let ((loss_of_one, norm_of_one, supervised_of_one), at_once) = step(8, 1);
    assert_eq!(supervised, supervised_of_one);
    assert!((loss - loss_of_one).abs() < 1e-6, "{loss} {loss_of_one}");
    assert!((norm - norm_of_one).abs() < 1e-6, "{norm} {norm_of_one}");
    for (left, right) in one_by_one.iter().zip(&at_once) {
        assert!((left - right).abs() < 1e-6, "{left} {right}");
    }
}

/// A stop in the middle of step 4 and a resume give the same bits as no stop at all.
#[test]
fn a_resumed_run_is_the_same_run_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::StopAtBatch(6);
    let mut first = trainer(run.path(), stage, End::Step(NUM_STEPS));
    assert_eq!(first.run().unwrap(), LoopEnd::Stopped);
    assert_eq!(first.state().step, 3);
    drop(first);
    assert_eq!(checkpoint::steps(run.path()).unwrap(), [2, 3]);

    let mut second = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    assert_eq!(second.state().step, 3);
    assert_eq!(second.run().unwrap(), LoopEnd::Completed);
    assert_eq!(second.state().step, NUM_STEPS);
    assert_eq!(weights_of(second), uninterrupted());
}

/// A resume from any earlier checkpoint gives the same bits: what came after it leaves no trace.
#[test]
fn a_run_killed_after_its_checkpoint_repeats_the_lost_steps() {
    let run = tempfile::tempdir().unwrap();
    let mut first = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    for _ in 0..3 {
        assert!(first.train_step().unwrap());
    }
    drop(first);
    assert!(checkpoint::steps(run.path()).unwrap().is_empty());
    let mut second = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    second.run().unwrap();
    assert_eq!(weights_of(second), uninterrupted());
}

/// One step with a NaN loss changes no weight, is counted, and training goes on.
#[test]
fn a_step_with_a_nan_loss_is_skipped_and_counted() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::NanInBatches(3..4);
    let mut trainer = trainer(run.path(), stage, End::Step(NUM_STEPS));
    step(&mut trainer);
    let before = weights(trainer.model());
    let report = step(&mut trainer);
    assert!(report.loss.is_nan());
    assert_eq!(report.skipped, 1);
    assert_eq!(weights(trainer.model()), before);
    let report = step(&mut trainer);
    assert!(report.loss.is_finite());
    assert_ne!(weights(trainer.model()), before);
    assert_eq!(trainer.state().skipped.total, 1);
    assert_eq!(trainer.state().skipped.in_a_row, 0);
}

/// A loss that is finite over gradients that are not must not reach the weights either.
#[test]
fn a_step_with_an_infinite_gradient_is_skipped() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::InfiniteGradientInBatches(0..1);
    let mut trainer = trainer(run.path(), stage, End::Step(NUM_STEPS));
    let before = weights(trainer.model());
    let report = step(&mut trainer);
    assert!(report.loss.is_finite() && !report.grad_norm.is_finite());
    assert_eq!(weights(trainer.model()), before);
}

/// More skips in a row than allowed end the run; the last checkpoint is from before and loads.
#[test]
fn too_many_skipped_steps_end_the_run_and_leave_a_good_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::NanInBatches(4..100);
    let mut first = trainer(run.path(), stage, End::Step(NUM_STEPS));
    let error = first.run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 4: 2 steps in a row were skipped, the last one for a loss that is not finite; \
         guard.max_skipped_steps allows 1"
    );
    drop(first);
    assert_eq!(checkpoint::steps(run.path()).unwrap(), [2]);
    let mut second = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    second.run().unwrap();
    assert_eq!(weights_of(second), uninterrupted());
}

/// A step in which nothing is trained on has no mean loss; it is skipped, not divided by zero.
#[test]
fn a_step_without_a_trained_token_is_skipped() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::NoLabelsInBatches(0..2);
    let mut trainer = trainer(run.path(), stage, End::Step(NUM_STEPS));
    let before = weights(trainer.model());
    let report = step(&mut trainer);
    assert_eq!((report.supervised, report.skipped), (0, 1));
    assert!(report.tokens > 0);
    assert_eq!(weights(trainer.model()), before);
}

/// With patience 2 and a validation per step, the best loss at step 2 ends the run at step 4: not
/// before, though NaN comes first, and without a second validation of the last step.
#[test]
fn a_run_ends_after_patience_validations_without_progress() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.held_out = vec![1.0, 3.0, 3.5, 3.0, f64::NAN];
    let mut trainer = trainer(run.path(), stage, End::Step(NUM_STEPS));
    assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
    let state = trainer.state();
    assert_eq!((state.step, state.best_step), (4, Some(2)));
    assert_eq!(state.num_without_progress, 2);
    assert_eq!(
        checkpoint::newest(run.path()).unwrap(),
        Some(run.path().join("step_000004"))
    );
}

/// A length in minutes ends by the clock.
#[test]
fn a_run_in_minutes_ends_by_the_clock() {
    let run = tempfile::tempdir().unwrap();
    let mut trainer = trainer(run.path(), SyntheticStage::new(2), End::Secs(0.3));
    assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
    assert!(trainer.state().step > 0);
    assert!(trainer.state().elapsed_secs >= 0.3);
}

/// A stop before the first step saves a checkpoint of step 0, from which the run can go on.
#[test]
fn a_stop_before_the_first_step_saves_the_start() {
    let run = tempfile::tempdir().unwrap();
    let stage = SyntheticStage::new(2);
    let stop: Arc<AtomicBool> = stage.stop.clone();
    stop.store(true, Ordering::Relaxed);
    let mut first = trainer(run.path(), stage, End::Step(NUM_STEPS));
    assert_eq!(first.run().unwrap(), LoopEnd::Stopped);
    drop(first);
    let mut second = trainer(run.path(), SyntheticStage::new(2), End::Step(NUM_STEPS));
    second.run().unwrap();
    assert_eq!(weights_of(second), uninterrupted());
}

/// Mean losses of the last steps of a run in this precision.
fn last_losses(precision: Precision, seed: u64) -> f64 {
    const STEPS: usize = 120;
    const LAST: usize = 20;
    let stop = AtomicBool::new(false);
    let mut model = CausalLm::new(&experts_config(), seed, &device());
    let mut optimizer = Optimizer::new(OptimizerConfig::default());
    let mut stage = SyntheticStage::new(8);
    let train = TrainSection {
        precision,
        ..TrainSection::default()
    };
    let mut loss_scale = LossScale::of(precision);
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let scale = loss_scale.as_ref().map_or(1.0, |scaled| scaled.scale);
        model.training_pass().set_loss_scale(scale);
        let step = SummedStep::new(&mut stage, &[&model], &train, &stop, |_, _| {})
            .unwrap()
            .unwrap();
        losses.push(step.loss());
        if let Some(reason) = step.skip_reason() {
            loss_scale.as_mut().unwrap().skipped(reason);
        } else {
            model = step.apply(model, &mut optimizer, 3e-3, 1.0);
        }
    }
    losses[STEPS - LAST..].iter().sum::<f64>() / LAST as f64
}

/// Rounding operands moves the loss by less than another seed does; both learn.
#[test]
fn rounded_operands_learn_what_f32_learns() {
    let plain = last_losses(Precision::F32, 1);
    let other_seeds = [2, 3, 4].map(|seed| (last_losses(Precision::F32, seed) - plain).abs());
    let noise = other_seeds.iter().copied().fold(0.0, f64::max);
    assert!(plain < 1.5, "f32 learns: a mean loss of {plain}");
    for precision in [Precision::Bf16, Precision::F16] {
        let rounded = last_losses(precision, 1);
        assert!(
            (rounded - plain).abs() < noise,
            "{precision} ends at {rounded}, f32 at {plain}, other seeds up to {noise} away"
        );
        assert_ne!(
            plain.to_bits(),
            rounded.to_bits(),
            "{precision} must differ from f32"
        );
    }
}
