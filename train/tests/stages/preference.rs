//! Preferences: what is learned of pairs, against what, and that a stopped run goes on exactly.

use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use model::hf::load_model;
use model::params::named_params;
use train::config::{DpoConfig, DpoLoss, Length, PretrainConfig, Trained};
use train::dpo;
use train::run::{Outcome, TrainError};
use train::run_folder::IfExists;

use crate::world::{World, final_weights, metrics, summary};

/// A base model and pairs whose better answers differ from the worse ones by one word.
fn world() -> (World, PathBuf) {
    let world = World::new();
    let base = world.base();
    let rows: Vec<String> = (0..40)
        .map(|n| {
            let row = serde_json::json!({
                "prompt": format!("how many birds, {n}?"),
                "chosen": format!("{n} birds sang."),
                "rejected": format!("{n} flew away."),
            });
            row.to_string()
        })
        .collect();
    fs::write(world.path("pairs.jsonl"), rows.join("\n")).unwrap();
    (world, base)
}

fn config(world: &World, base: &Path) -> DpoConfig {
    let PretrainConfig {
        train,
        report,
        samples,
        ..
    } = world.pretrain_config();
    let mut config = DpoConfig {
        train,
        report,
        samples,
        ..DpoConfig::default()
    };
    base.clone_into(&mut config.model.from);
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("pairs.jsonl").display().to_string()];
    config.data.seq_len = 64;
    config.data.validation_fraction = 0.2;
    config.dpo.cache_dir = world.path("cache");
    config.optimizer.lr = 5e-3;
    config.optimizer.weight_decay = 0.0;
    config.validation.every_steps = 0;
    config.checkpoint.every_steps = 3;
    config.checkpoint.keep_last = 9;
    config
}

fn steps(world: &World, run: &str, field: &str) -> Vec<f64> {
    let rows = metrics(&world.path(run)).into_iter();
    rows.filter(|row| row["kind"] == "step")
        .map(|row| row[field].as_f64().unwrap())
        .collect()
}

/// The first step's policy is its reference: ln 2, no reward, no divergence. Then held-out pairs are
/// told apart; the start's folder stays what it was, the reference is asked once, and a run that
/// lost its end is trained to the same bytes.
#[test]
fn pairs_are_told_apart_and_the_reference_stays() {
    let (world, base) = world();
    let mut config = config(&world, &base);
    config.train.length = Length::Steps(24);
    let before = fs::read(base.join("model.safetensors")).unwrap();
    let options = |run: &str| world.options(run, IfExists::Resume, false);
    let stopped = dpo::run(&config, world.options("run", IfExists::Refuse, true));
    assert_eq!(stopped.unwrap(), Outcome::NotBegun);
    assert!(!world.path("run").exists());
    let done = summary(dpo::run(&config, options("run")).unwrap());

    let loss = steps(&world, "run", "loss");
    assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-6, "{loss:?}");
    assert!(steps(&world, "run", "kl")[0].abs() < 1e-9);
    assert!(steps(&world, "run", "rewards/margins")[0].abs() < 1e-5);
    let held_out = done.held_out.unwrap();
    assert!(held_out.loss < 0.5, "{held_out:?}");
    let accuracy = held_out.metrics[0];
    assert_eq!(accuracy, ("rewards/accuracies", 1.0));
    assert_eq!(held_out.bits_per_byte, None);
    assert_eq!(fs::read(base.join("model.safetensors")).unwrap(), before);

    let cached = || -> Vec<PathBuf> {
        let entries = fs::read_dir(world.path("cache")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.to_string_lossy().contains("reference-"))
            .collect()
    };
    let [reference] = cached().try_into().unwrap();
    let answered = fs::read(&reference).unwrap();
    let whole = final_weights(&world.path("run"));
    for name in ["final", "step_000024", "step_000021", "step_000018"] {
        fs::remove_dir_all(world.path("run").join(name)).unwrap();
    }
    fs::remove_file(&reference).unwrap();
    summary(dpo::run(&config, options("run")).unwrap());
    assert_eq!(final_weights(&world.path("run")), whole);
    assert_eq!(fs::read(&reference).unwrap(), answered);

    let plan = dpo::plan(&config).unwrap();
    // By hand: 2 x 2 pairs of 2 answers of 64 slots.
    assert_eq!(plan.slots_per_step, 512);
    assert_eq!(plan.data.num_documents + plan.data.num_held_out, 40);
    let text = plan.to_string();
    assert!(text.contains("pairs held out"), "{text}");

    // Other weights where the run started are another reference.
    let mut other = before;
    let last = other.len() - 4;
    other[last] ^= 1;
    fs::write(base.join("model.safetensors"), other).unwrap();
    fs::remove_dir_all(world.path("run/final")).unwrap();
    let error = dpo::run(&config, options("run")).unwrap_err();
    assert!(matches!(error, TrainError::OtherData), "{error}");
}

/// Adapters learn beside weights that stay what they are, from the same ln 2, whose reference is the
/// very same file; recomputed layers give the same weights within rounding.
#[test]
fn adapters_learn_preferences_of_a_frozen_model() {
    let (world, base) = world();
    let mut config = config(&world, &base);
    config.dpo.trains = Trained::Adapters;
    config.lora.rank = 4;
    config.lora.alpha = 4.0;
    let mut run = |name: &str, recomputes: bool| {
        config.train.activation_checkpointing = recomputes;
        let options = world.options(name, IfExists::Refuse, false);
        let done = summary(dpo::run(&config, options).unwrap());
        load_model(&done.final_dir, &Device::flex()).unwrap()
    };
    let (merged, recomputed) = (run("a", false), run("b", true));
    let loss = steps(&world, "a", "loss");
    assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-6, "{loss:?}");
    assert!(loss[7] < loss[0] - 1e-3, "{loss:?}");
    assert!(world.path("a/adapter/adapter_config.json").exists());
    let plain = load_model(&base, &Device::flex()).unwrap();
    let params = named_params(&merged)
        .into_iter()
        .zip(named_params(&recomputed))
        .zip(named_params(&plain));
    for ((merged, recomputed), plain) in params {
        let is_adapted = plain.path.contains("q_proj") || plain.path.contains("k_proj");
        assert_eq!(merged.values != plain.values, is_adapted, "{}", plain.path);
        let values = merged.values.iter().zip(&recomputed.values);
        let difference = values.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "{}", plain.path);
    }
    let caches = fs::read_dir(world.path("cache")).unwrap();
    let is_reference = |name: &str| name.starts_with("reference-");
    let names = caches.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| is_reference(name)).count(), 1);
}

/// Without a reference nothing is asked, and no divergence is measured.
#[test]
fn losses_without_a_reference_ask_none() {
    let (world, base) = world();
    let mut config = config(&world, &base);
    config.dpo.loss = DpoLoss::Orpo;
    config.dpo.sft_coef = 1.0;
    summary(dpo::run(&config, world.options("run", IfExists::Refuse, false)).unwrap());
    let rows = metrics(&world.path("run"));
    let step = rows.iter().find(|row| row["kind"] == "step").unwrap();
    assert!(step.get("kl").is_none(), "{step}");
    assert!(step["logps/chosen"].as_f64().unwrap() < 0.0);
    let mut names = fs::read_dir(world.path("cache")).unwrap();
    let is_reference = |name: String| name.starts_with("reference-");
    assert!(!names.any(|entry| is_reference(entry.unwrap().file_name().into_string().unwrap())));

    config.model.config = world.path("model.json");
    config.model.from = PathBuf::new();
    let error = dpo::plan(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        "model.from: found nothing, expected the folder of a model that answers already"
    );
}

/// Experts stay in balance while pairs are learned: their work is reported, their loss is theirs.
#[test]
fn a_mixture_of_experts_learns_pairs() {
    let (world, _) = world();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shape = fs::read_to_string(root.join("configs/model/debug-moe.json")).unwrap();
    let mut shape: serde_json::Value = serde_json::from_str(&shape).unwrap();
    shape["vocab_size"] = 300.into();
    fs::write(world.path("model.json"), shape.to_string()).unwrap();
    let mut pretrain = world.pretrain_config();
    pretrain.train.length = Length::Steps(1);
    let base = summary(world.pretrain(&pretrain, "experts").unwrap()).final_dir;
    let mut config = config(&world, &base);
    config.train.length = Length::Steps(2);
    summary(dpo::run(&config, world.options("run", IfExists::Refuse, false)).unwrap());
    let rows = metrics(&world.path("run"));
    assert!(rows.iter().any(|row| row["kind"] == "experts"));
    let loss = steps(&world, "run", "loss");
    assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-5, "{loss:?}");
}
