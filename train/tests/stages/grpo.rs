//! Reinforcement learning from prompts to an exported model, on a tiny decoder.

use std::fs;

use serde_json::Value;
use train::config::{GrpoConfig, Length};
use train::grpo;
use train::grpo::loss::LossKind;
use train::reward::{RewardConfig, RewardKind};
use train::run::{Outcome, TrainError};
use train::run_folder::IfExists;

use crate::world::{World, final_weights, metrics, summary};

/// Four prompts, four answers to each, in two steps of two micro-batches, each rollout used twice.
fn config(world: &World) -> GrpoConfig {
    let mut config = GrpoConfig::default();
    config.model.config = world.path("model.json");
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("chat.jsonl").to_str().unwrap().to_owned()];
    config.data.validation_fraction = 0.1;
    config.train.length = Length::Steps(6);
    config.train.micro_batch_size = 4;
    config.train.grad_accumulation_steps = 2;
    config.optimizer.lr = 1e-2;
    config.optimizer.weight_decay = 0.0;
    config.rollout.num_prompts = 4;
    config.rollout.num_generations = 4;
    config.rollout.max_new_tokens = 4;
    config.rollout.max_rows = 5;
    config.grpo.num_iterations = 2;
    config.rewards.functions = vec![pattern("[a-m]")];
    config.validation.every_steps = 3;
    config.checkpoint.every_steps = 1;
    config.checkpoint.keep_last = 9;
    config.report.quiet = true;
    config.report.tensorboard = false;
    config.report.plot = false;
    config
}

/// Earns 1 for a letter of the alphabet's first half somewhere: a thing that a drawn model does now
/// and then.
fn pattern(pattern: &str) -> RewardConfig {
    RewardConfig {
        pattern: pattern.to_owned(),
        ..RewardConfig::new(RewardKind::Regex)
    }
}

fn run(world: &World, config: &GrpoConfig, name: &str) -> Result<Outcome, TrainError> {
    grpo::run(config, world.options(name, IfExists::Refuse, false))
}

fn steps(rows: &[Value]) -> Vec<&Value> {
    rows.iter().filter(|row| row["kind"] == "step").collect()
}

/// The mean reward of the last rollouts is higher than that of the first, for three seeds. Of 64
/// answers, one mean has a standard error of at most a sixteenth.
#[test]
fn rewards_rise() {
    let world = World::new();
    for seed in [1, 2, 3] {
        let mut config = config(&world);
        config.train.seed = seed;
        config.train.length = Length::Steps(24);
        config.train.micro_batch_size = 32;
        config.rollout.num_prompts = 8;
        config.rollout.num_generations = 8;
        config.rollout.max_rows = 64;
        config.grpo.num_iterations = 1;
        config.checkpoint.every_steps = 0;
        config.validation.every_steps = 0;
        config.optimizer.lr = 1e-2;
        let name = format!("seed {seed}");
        summary(run(&world, &config, &name).unwrap());
        let rows = metrics(&world.path(&name));
        let rewards: Vec<f64> = steps(&rows)
            .iter()
            .map(|row| row["reward"].as_f64().unwrap())
            .collect();
        let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
        let (first, last) = (mean(&rewards[..4]), mean(&rewards[20..]));
        assert!(
            last > first + 0.2,
            "seed {seed}: {first} {last} {rewards:?}"
        );
    }
}

/// Rows say what was earned, how sure the model was and how far it moved; a rollout that is used
/// for the first time is where it was written, so that no ratio is clipped and the reference is met.
#[test]
fn a_step_tells_what_was_measured() {
    let world = World::new();
    let mut config = config(&world);
    config.grpo.beta = 0.1;
    config.rewards.functions.push(RewardConfig {
        weight: 0.5,
        ..RewardConfig::new(RewardKind::Repetition)
    });
    summary(run(&world, &config, "run").unwrap());
    let rows = metrics(&world.path("run"));
    let steps = steps(&rows);
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{row}"));
    let first = steps[0];
    assert!(number(first, "kl").abs() < 1e-6, "{first}");
    assert!(number(first, "clip_ratio/low").abs() < 1e-12, "{first}");
    assert!(number(first, "clip_ratio/high").abs() < 1e-12, "{first}");
    // A drawn model of 300 tokens is nearly as unsure as one can be.
    assert!(
        (number(first, "entropy") - 300f64.ln()).abs() < 0.1,
        "{first}"
    );
    let sum = number(first, "rewards/regex") + 0.5 * number(first, "rewards/repetition");
    assert!((number(first, "reward") - sum).abs() < 1e-9, "{first}");
    assert!(number(steps[5], "kl") > 0.0, "{}", steps[5]);
    let validation = rows.iter().find(|row| row["kind"] == "validation").unwrap();
    assert!(
        (number(validation, "loss") + number(validation, "reward")).abs() < 1e-12,
        "{validation}"
    );
    assert!(validation["bits_per_byte"].is_null());
}

/// A stop between two steps of one rollout: the rollout is part of the checkpoint.
#[test]
fn a_lost_end_is_trained_again_to_the_same_bytes() {
    let world = World::new();
    let config = config(&world);
    summary(run(&world, &config, "run").unwrap());
    let folder = world.path("run");
    let whole = final_weights(&folder);
    for lost in [4, 5, 6] {
        fs::remove_dir_all(folder.join(format!("step_00000{lost}"))).unwrap();
    }
    fs::remove_dir_all(folder.join("final")).unwrap();
    let options = world.options("run", IfExists::Resume, false);
    assert_eq!(summary(grpo::run(&config, options).unwrap()).steps, 6);
    assert_eq!(final_weights(&folder), whole);
}

/// All answers earn the same: not one bit of any weight moves, and nothing is NaN.
#[test]
fn equal_rewards_change_nothing() {
    let world = World::new();
    let base = world.base();
    let before = fs::read(base.join("model.safetensors")).unwrap();
    for kind in [LossKind::Dapo, LossKind::Gspo] {
        let mut config = config(&world);
        config.model.config = std::path::PathBuf::new();
        config.model.from.clone_from(&base);
        config.grpo.loss = kind;
        config.train.length = Length::Steps(2);
        config.rewards.functions = vec![pattern("^")];
        let name = format!("{kind:?}");
        let summary = summary(run(&world, &config, &name).unwrap());
        assert_eq!(summary.skipped_steps, 0);
        assert_eq!(final_weights(&world.path(&name)), before, "{kind:?}");
    }
}

/// A row without a letter cannot be judged by one: the run ends and says so.
#[test]
fn a_missing_reward_ends_the_run() {
    let world = World::new();
    let mut config = config(&world);
    config.rewards.functions = vec![RewardConfig::new(RewardKind::Choice)];
    let error = run(&world, &config, "run").unwrap_err().to_string();
    assert!(
        error.starts_with("reward choice: the answer of the row is \""),
        "{error}"
    );
    assert!(!world.path("run").join("final").exists());
}

/// What does not fit is named before the run begins.
#[test]
fn rollouts_that_do_not_fit_are_refused() {
    let world = World::new();
    let refusal = |change: fn(&mut GrpoConfig)| {
        let mut config = config(&world);
        change(&mut config);
        grpo::plan(&config).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|config| config.train.micro_batch_size = 3),
        "train.micro_batch_size: found 6 answers per step (times train.grad_accumulation_steps), \
         expected a divisor of the rollout's 16 answers"
    );
    let text = refusal(|config| config.rollout.max_new_tokens = 64);
    assert!(
        text.starts_with("rollout.max_new_tokens: found 64, expected at most "),
        "{text}"
    );
    let plan = grpo::plan(&config(&world)).unwrap().to_string();
    assert!(plan.contains(" answers to learn from; "), "{plan}");
    assert!(plan.contains("\n  rollouts"), "{plan}");
}
