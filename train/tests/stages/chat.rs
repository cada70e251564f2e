//! Tuning on conversations: adapters, noise, and what is written.

use std::fs;

use burn::prelude::*;
use model::CausalLm;
use model::hf::{load_model, save_model};
use model::lora::load_adapter;
use model::params::named_params;
use train::config::{LoraSftConfig, SftConfig};
use train::run_folder::IfExists;
use train::{full_sft, lora_sft};

use crate::world::{World, final_weights, metrics, summary};

fn lora_config(config: SftConfig) -> LoraSftConfig {
    let mut lora = LoraSftConfig {
        model: config.model,
        tokenizer: config.tokenizer,
        data: config.data,
        train: config.train,
        report: config.report,
        samples: config.samples,
        ..LoraSftConfig::default()
    };
    lora.lora.rank = 4;
    lora.lora.dropout = 0.1;
    lora.lora.target_modules = vec!["q_proj".to_owned(), "mlp.down_proj".to_owned()];
    lora.optimizer.lr = 5e-2;
    lora.optimizer.weight_decay = 0.0;
    lora
}

/// The weights that adapters stand beside are the same bits after training, checkpoints hold the
/// adapters alone, and a run that was stopped ends like one that was not, dropout included.
#[test]
fn adapters_learn_and_weights_do_not_change() {
    let world = World::new();
    let base = world.base();
    let mut config = lora_config(world.chat_config(&base));
    config.checkpoint.every_steps = 3;
    config.checkpoint.keep_last = 9;
    let run = world.path("4-lora_sft");
    let options = || world.options("4-lora_sft", IfExists::Resume, false);
    let result = summary(lora_sft::run(&config, options()).unwrap());

    let device = Device::flex();
    let plain = load_model(&base, &device).unwrap();
    let adapted = load_adapter(plain.clone(), &run.join("adapter")).unwrap();
    let weights: Vec<_> = named_params(&adapted)
        .into_iter()
        .filter(|param| !param.path.contains(".adapters."))
        .collect();
    assert_eq!(weights, named_params(&plain));
    let merged = load_model(&result.final_dir, &device).unwrap();
    for (merged, plain) in named_params(&merged).iter().zip(named_params(&plain)) {
        let is_adapted = plain.path.contains("q_proj") || plain.path.contains("down_proj");
        assert_eq!(merged.values != plain.values, is_adapted, "{}", plain.path);
    }

    let plan = lora_sft::plan(&config).unwrap();
    // By hand: 2 layers of 4 * (16 + 16) for queries and 4 * (32 + 16) behind the gates.
    let adapters = plan.adapters.unwrap();
    assert_eq!(adapters.num_params, 2 * 4 * (32 + 48));
    assert!(plan.memory.total() < adapters.full_memory);
    let without_slack = plan.memory.total() - plan.memory.slack;
    assert_eq!(plan.memory.slack, without_slack / 10);
    let saved = fs::metadata(run.join("step_000006/model.safetensors")).unwrap();
    assert!(
        saved.len() < 4 * adapters.num_params + 2048,
        "{}",
        saved.len()
    );
    let losses: Vec<f64> = metrics(&run)
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[7] < losses[0] - 0.1, "{losses:?}");

    let whole = final_weights(&run);
    for name in ["final", "adapter", "step_000008", "step_000006"] {
        fs::remove_dir_all(run.join(name)).unwrap();
    }
    summary(lora_sft::run(&config, options()).unwrap());
    assert_eq!(final_weights(&run), whole);

    // Recomputing layers gives the same gradients, and so the same weights within rounding.
    config.train.activation_checkpointing = true;
    let options = world.options("recomputed", IfExists::Refuse, false);
    let result = summary(lora_sft::run(&config, options).unwrap());
    let recomputed = load_model(&result.final_dir, &device).unwrap();
    for (a, b) in named_params(&recomputed).iter().zip(named_params(&merged)) {
        let difference = a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-4, "{}", a.path);
    }
}

/// Noise changes what is learned, by the same bits every time; without it nothing changes.
#[test]
fn noise_on_embeddings_follows_the_seed() {
    let world = World::new();
    let base = world.base();
    let mut config = world.chat_config(&base);
    let mut tuned = |run: &str, alpha: f64| {
        config.neftune.alpha = alpha;
        let options = world.options(run, IfExists::Refuse, false);
        summary(full_sft::run(&config, options).unwrap());
        final_weights(&world.path(run))
    };
    let (plain, noisy) = (tuned("a", 0.0), tuned("b", 5.0));
    assert_ne!(plain, noisy);
    assert_eq!(tuned("c", 5.0), noisy);
}

/// A checkpoint holds the adapters alone; beside other weights they would be another model.
#[test]
fn adapters_are_not_resumed_beside_other_weights() {
    let world = World::new();
    let base = world.base();
    let config = lora_config(world.chat_config(&base));
    let options = |stops| world.options("run", IfExists::Resume, stops);
    lora_sft::run(&config, options(true)).unwrap();
    let device = Device::flex();
    let shape = load_model(&base, &device).unwrap().config().clone();
    save_model(&CausalLm::new(&shape, 9, &device), &base).unwrap();
    assert_eq!(
        lora_sft::run(&config, options(false))
            .unwrap_err()
            .to_string(),
        "cannot resume: the training data, the tokenizer or frozen weights changed since the \
         checkpoint was saved"
    );
}

/// A start that cannot be made is found out before the run in its place is deleted.
#[test]
fn an_earlier_run_outlives_a_start_that_fails() {
    let world = World::new();
    let base = summary(world.pretrain(&world.pretrain_config(), "run").unwrap()).final_dir;
    let options = || world.options("run", IfExists::Overwrite, false);
    let mut config = lora_config(world.chat_config(&base));
    config.lora.target_modules = vec!["q_prj".to_owned()];
    let plan_error = lora_sft::plan(&config).unwrap_err().to_string();
    assert!(plan_error.contains("`q_prj`"), "{plan_error}");
    lora_sft::run(&config, options()).unwrap_err();
    assert!(world.path("run/final/model.safetensors").exists());

    // A model without weights has a plan, and nothing to start from.
    let hollow = world.path("hollow");
    fs::create_dir(&hollow).unwrap();
    fs::copy(base.join("config.json"), hollow.join("config.json")).unwrap();
    let config = world.chat_config(&hollow);
    full_sft::plan(&config).unwrap();
    full_sft::run(&config, options()).unwrap_err();
    assert!(world.path("run/final/model.safetensors").exists());
}

/// The comparison with PyTorch trains all weights by cross entropy.
#[test]
fn adapters_have_no_curve_inputs() {
    let world = World::new();
    let mut config = lora_config(world.chat_config(&world.path("none")));
    config.train.dump_curve_inputs = 3;
    assert_eq!(
        lora_sft::plan(&config).unwrap_err().to_string(),
        "train.dump_curve_inputs: found 3, expected 0: only plain training of all weights is \
         compared with PyTorch"
    );
}
