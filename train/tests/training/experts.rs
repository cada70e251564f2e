//! Experts in the training loop: balance recovers, accumulation and recomputing change nothing,
//! a resumed run is the same run.

use std::sync::atomic::AtomicBool;

use model::CausalLm;
use model::experts::max_violation;
use model::params::{NamedParam, fill_params, named_params};
use train::config::{BalanceKind, RouterSection, TrainSection};
use train::optimizer::{Optimizer, OptimizerConfig};
use train::routing::LayerRouting;
use train::step::SummedStep;
use train::trainer::{End, LoopEnd};

use crate::synthetic::{Mishap, SyntheticStage, experts_config};
use crate::{NUM_STEPS, device, trainer_of};

/// Recovery is trained for so many steps of eight rows.
const NUM_RECOVERY_STEPS: usize = 60;
/// Violations run from 0, all equally busy, to 1, two of four do everything.
const COLLAPSED: f64 = 0.9;
const RECOVERED: f64 = 0.5;

fn nothing() -> RouterSection {
    RouterSection {
        balance: BalanceKind::None,
        z_loss_coef: 0.0,
        bias_rate: 0.0,
        ..RouterSection::default()
    }
}

/// A model whose router sends every token to the first two experts: a feature that all embeddings
/// share speaks for them.
fn collapsed() -> CausalLm {
    let model = CausalLm::new(&experts_config(), 1, &device());
    let params = named_params(&model);
    let Ok(model) = fill_params(model, |path, shape| {
        let param = params.iter().find(|param| param.path == path);
        let NamedParam { mut values, .. } = param.unwrap().clone();
        if path == "embed_tokens.weight" {
            values
                .iter_mut()
                .step_by(shape[1])
                .for_each(|value| *value = 0.1);
        }
        if path.ends_with("mlp.gate.weight") {
            values[..4].copy_from_slice(&[1.0, 1.0, -1.0, -1.0]);
        }
        Ok::<_, std::convert::Infallible>(values)
    });
    model
}

/// The violation of the second layer's experts, of the first and over the last steps.
fn violations(router: &RouterSection) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    let mut model = collapsed();
    let mut optimizer = Optimizer::new(OptimizerConfig::default());
    let mut stage = SyntheticStage::new(8);
    stage.router = router.clone();
    let mut found = Vec::new();
    for _ in 0..NUM_RECOVERY_STEPS {
        let step = SummedStep::new(
            &mut stage,
            &[&model],
            &TrainSection::default(),
            &stop,
            |_, _| {},
        )
        .unwrap()
        .unwrap();
        let [LayerRouting { layer, loads, .. }] = step.routing.as_slice() else {
            panic!("one layer has experts");
        };
        found.push(max_violation(loads));
        let loads = [(*layer, loads.clone())];
        model = step.apply(model, &mut optimizer, 1e-3, 1.0);
        model = model.with_moved_biases(&loads, router.bias_rate);
    }
    let last = &found[NUM_RECOVERY_STEPS - 10..];
    (found[0], last.iter().sum::<f64>() / last.len() as f64)
}

/// Without anything the collapse stays; each of the three remedies ends it on its own.
#[test]
fn collapsed_routing_recovers() {
    let (before, after) = violations(&nothing());
    assert!(before > COLLAPSED, "{before}");
    assert!(after > COLLAPSED, "recovers by itself: {after}");
    for remedy in [
        RouterSection {
            balance: BalanceKind::Sequence,
            balance_coef: 0.3,
            ..nothing()
        },
        RouterSection {
            balance: BalanceKind::Batch,
            balance_coef: 0.3,
            ..nothing()
        },
        RouterSection {
            bias_rate: 0.02,
            ..nothing()
        },
    ] {
        let (before, after) = violations(&remedy);
        assert!(before > COLLAPSED, "{before}");
        assert!(after < RECOVERED, "{remedy:?}: {after}");
    }
}

/// Every gradient of one step.
fn gradients(rows: usize, micro_batches: usize, recomputes: bool) -> (SummedStep, Vec<f32>) {
    let stop = AtomicBool::new(false);
    let model = CausalLm::new(&experts_config(), 1, &device());
    let mut stage = SyntheticStage::new(rows);
    stage.recomputes = recomputes;
    stage.router.balance_coef = 1.0;
    stage.router.z_loss_coef = 1.0;
    let train = TrainSection {
        grad_accumulation_steps: micro_batches,
        ..TrainSection::default()
    };
    let step = SummedStep::new(&mut stage, &[&model], &train, &stop, |_, _| {});
    let step = step.unwrap().unwrap();
    let gradients = step.gradients_of(&model);
    (step, gradients)
}

/// Rows weigh by their trained tokens, so that four micro-batches of one uneven row each give the
/// gradients of one of four, auxiliary losses included; and so does recomputing layers.
#[test]
fn auxiliary_losses_do_not_depend_on_how_a_batch_is_cut() {
    let (at_once, expected) = gradients(4, 1, false);
    for (rows, micro_batches, recomputes) in [(1, 4, false), (2, 2, false), (4, 1, true)] {
        let (step, found) = gradients(rows, micro_batches, recomputes);
        assert_eq!(step.supervised, at_once.supervised);
        let scale = at_once.supervised as f32;
        let pairs = found.iter().zip(&expected);
        let largest = pairs
            .map(|(a, b)| (a - b).abs() / scale)
            .fold(0.0, f32::max);
        assert!(largest < 1e-6, "{rows} rows: {largest:e}");
        let (work, whole) = (&step.routing[0], &at_once.routing[0]);
        assert_eq!((work.layer, &work.loads), (whole.layer, &whole.loads));
        assert_eq!(work.num_tokens, whole.num_tokens);
        assert!((work.balance_sum - whole.balance_sum).abs() < 1e-4);
    }
}

/// A stop in the middle of step 4 and a resume give the same bits, biases included.
#[test]
fn a_resumed_mixture_is_the_same_run_bit_for_bit() {
    let run = |mishap: Option<Mishap>, path: &std::path::Path| {
        let mut stage = SyntheticStage::new(2);
        if let Some(mishap) = mishap {
            stage.mishap = mishap;
        }
        trainer_of(&experts_config(), path, stage, End::Step(NUM_STEPS))
    };
    let whole = tempfile::tempdir().unwrap();
    let mut trainer = run(None, whole.path());
    assert_eq!(trainer.run().unwrap(), LoopEnd::Completed);
    let expected = named_params(trainer.model());
    let bias = expected
        .iter()
        .find(|param| param.path.ends_with("e_score_correction_bias"));
    assert!(bias.unwrap().values.iter().any(|value| *value != 0.0));

    let parts = tempfile::tempdir().unwrap();
    let mut first = run(Some(Mishap::StopAtBatch(6)), parts.path());
    assert_eq!(first.run().unwrap(), LoopEnd::Stopped);
    drop(first);
    let mut second = run(None, parts.path());
    assert_eq!(second.run().unwrap(), LoopEnd::Completed);
    assert_eq!(named_params(second.model()), expected);

    let metrics = std::fs::read_to_string(parts.path().join("metrics.jsonl")).unwrap();
    let line = metrics
        .lines()
        .find(|line| line.contains(r#""kind":"experts""#));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["dropped"], 0);
    assert_eq!(line["layers"][0]["layer"], 1);
    assert_eq!(line["layers"][0]["loads"].as_array().unwrap().len(), 4);
}
