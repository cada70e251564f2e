//! Training in f16: what scaling losses changes, what it must not change, and what is skipped.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::prelude::*;
use model::CausalLm;
use model::precision::Precision;
use train::checkpoint;
use train::guard::SkipReason;
use train::loss_scale::LossScale;
use train::optimizer::{Optimizer, OptimizerConfig};
use train::step::SummedStep;
use train::trainer::{End, LoopEnd, Trainer};

use crate::synthetic::{Mishap, SyntheticStage, experts_config, model_config};
use crate::{NUM_STEPS, TrainSection, device, loop_config, parts, step, weights, weights_of};

fn f16_trainer(run: &Path, stage: SyntheticStage, num_steps: usize) -> Trainer<SyntheticStage> {
    let mut config = loop_config(2);
    config.train.precision = Precision::F16;
    let end = End::Step(num_steps);
    Trainer::new(parts(config, &model_config(), run, stage, end))
}

fn step_of(model: &CausalLm, stage: &mut SyntheticStage, precision: Precision) -> SummedStep {
    let train = TrainSection {
        precision,
        ..TrainSection::default()
    };
    let stop = AtomicBool::new(false);
    SummedStep::new(stage, &[model], &train, &stop, |_, _| {})
        .unwrap()
        .unwrap()
}

/// Multiplying by a power of two is exact: where nothing is rounded to f16, no bit of a step
/// depends on the scale, recomputed layers and what routers add included.
#[test]
fn a_power_of_two_as_scale_changes_no_bit_in_f32() {
    let after = |scale: f32, recomputes: bool| {
        let model = CausalLm::new(&experts_config(), 1, &device());
        model.training_pass().set_loss_scale(scale);
        let mut stage = SyntheticStage::new(4);
        stage.recomputes = recomputes;
        stage.router.balance_coef = 1.0;
        stage.router.z_loss_coef = 1.0;
        let step = step_of(&model, &mut stage, Precision::F32);
        let numbers = [step.loss(), step.grad_norm()].map(f64::to_bits);
        let gradients: Vec<u32> = bits(&step.gradients_of(&model));
        let mut optimizer = Optimizer::new(OptimizerConfig::default());
        let updated = step.apply(model, &mut optimizer, 1e-3, 1.0);
        let embedding = updated.embed_tokens.weight.val().into_data();
        (numbers, gradients, embedding)
    };
    for recomputes in [false, true] {
        assert_eq!(after(1.0, recomputes), after(4096.0, recomputes));
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Gradients of a loss of 2^-24 its size are smaller than what f16 holds: without a scale hardly
/// anything of them is left in the layers, with one they are f32's within f16's rounding.
#[test]
fn small_gradients_survive_with_a_scale_only() {
    let gradients = |precision: Precision, scale: f32| {
        let model = CausalLm::new(&model_config(), 1, &device());
        model.training_pass().set_loss_scale(scale);
        let mut stage = SyntheticStage::new(4);
        stage.loss_factor = 2.0_f64.powi(-24);
        let step = step_of(&model, &mut stage, precision);
        assert_eq!(step.skip_reason(), None);
        let of_embedding = model.config().vocab_size * model.config().hidden_size;
        step.gradients_of(&model).split_off(of_embedding)
    };
    let length = |values: &[f32]| -> f64 {
        let squares = values
            .iter()
            .map(|value| f64::from(*value) * f64::from(*value));
        squares.sum::<f64>().sqrt()
    };
    let expected = gradients(Precision::F32, 1.0);
    let error = |scale: f32| {
        let found = gradients(Precision::F16, scale);
        let differences: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        length(&differences) / length(&expected)
    };
    let (unscaled, scaled) = (error(1.0), error(65_536.0));
    assert!(unscaled > 0.5, "without a scale, off by {unscaled}");
    assert!(scaled < 2e-3, "with a scale, off by {scaled}");
}

/// A loss of 2^10 its size overflows while it is scaled: these steps change no weight and do not
/// count as bad, though two in a row would end the run, and the first scale that fits is kept.
#[test]
fn the_scale_falls_until_gradients_fit() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.loss_factor = 2.0_f64.powi(10);
    let mut trainer = f16_trainer(run.path(), stage, 40);
    let before = weights(trainer.model());
    let mut scale = 65_536.0_f32;
    loop {
        let report = step(&mut trainer);
        let metrics = [("labels", 1.0), ("loss_scale", f64::from(scale))];
        assert_eq!(report.metrics, metrics);
        assert!(report.loss.is_finite());
        if report.grad_norm.is_finite() {
            break;
        }
        assert_eq!(weights(trainer.model()), before);
        scale /= 2.0;
        assert!(scale > 1.0, "gradients of a finite loss fit at last");
    }
    let num_skipped = (65_536.0 / scale).log2() as usize;
    assert!(num_skipped > 2, "{num_skipped}");
    let counts = trainer.state().skipped;
    assert_eq!((counts.total, counts.in_a_row), (num_skipped, 0));
    let expected = LossScale {
        scale,
        steps_since_change: 1,
    };
    assert_eq!(trainer.state().loss_scale, Some(expected));
    let after = weights(trainer.model());
    assert_ne!(after, before);
    assert!(after.iter().all(|weight| weight.is_finite()));
}

/// By hand: the scale is 1 in step 17. From there on gradients that overflow are bad steps, of
/// which the config allows one in a row.
#[test]
fn gradients_that_overflow_without_a_scale_end_the_run() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.loss_factor = 2.0_f64.powi(60);
    let error = f16_trainer(run.path(), stage, 40).run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 18: 2 steps in a row were skipped, the last one for a gradient that is not finite; \
         guard.max_skipped_steps allows 1"
    );
}

/// No scale mends a loss that is not finite: in f16 it is as bad as in f32.
#[test]
fn losses_that_are_not_finite_end_the_run_at_any_scale() {
    let run = tempfile::tempdir().unwrap();
    let mut stage = SyntheticStage::new(2);
    stage.mishap = Mishap::NanInBatches(0..100);
    let error = f16_trainer(run.path(), stage, NUM_STEPS).run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 2: 2 steps in a row were skipped, the last one for a loss that is not finite; \
         guard.max_skipped_steps allows 1"
    );
}

/// Weights beyond 65504 are infinite as operands: the loss says so, and nothing is updated.
#[test]
fn an_overflow_in_the_forward_pass_is_a_bad_loss() {
    for config in [model_config(), experts_config()] {
        let mut model = CausalLm::new(&config, 1, &device());
        let o_proj = &mut model.layers[0].self_attn.o_proj.weight;
        *o_proj = o_proj.clone().map(|weight| {
            let large = weight.inner().mul_scalar(1e9);
            Tensor::from_inner(large).require_grad()
        });
        let step = step_of(&model, &mut SyntheticStage::new(2), Precision::F32);
        assert_eq!(step.skip_reason(), None);
        let step = step_of(&model, &mut SyntheticStage::new(2), Precision::F16);
        assert_eq!(step.skip_reason(), Some(SkipReason::LossNotFinite));
    }
}

/// Two steps overflow, and the run ends after the third: the one that goes on from there has the
/// same scale, counts on, and comes to the same bits as one that was never stopped.
#[test]
fn a_resumed_run_goes_on_with_its_scale() {
    let stage = || {
        let mut stage = SyntheticStage::new(2);
        stage.mishap = Mishap::InfiniteGradientInBatches(0..4);
        stage
    };
    let trained = |run: &Path, num_steps: usize| {
        let mut trainer = f16_trainer(run, stage(), num_steps);
        assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
        let expected = LossScale {
            scale: 16_384.0,
            steps_since_change: num_steps - 2,
        };
        assert_eq!(trainer.state().loss_scale, Some(expected));
        weights_of(trainer)
    };
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let expected = trained(whole.path(), NUM_STEPS);
    trained(parts.path(), 3);
    assert_eq!(checkpoint::steps(parts.path()).unwrap(), [2, 3]);
    assert_eq!(trained(parts.path(), NUM_STEPS), expected);
}
