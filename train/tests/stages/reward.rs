//! Reward models: what they learn of pairs, what they leave, and that a stopped run goes on exactly.

use std::fs;
use std::path::Path;

use burn::prelude::*;
use dataset::{Message, Tokenizer};
use model::hf::load_model;
use model::reward::rewards;
use train::config::{GrpoConfig, Length, PretrainConfig, RewardModelConfig};
use train::reward::{RewardConfig, RewardJudge, RewardKind};
use train::run_folder::IfExists;
use train::{grpo, reward_model};

use crate::world::{World, final_weights, metrics, summary};

/// Answers that sing are better than those that fly away. Held-out pairs are ranked, a folder is
/// left that judges texts, and a run that lost its end is trained to the same bytes.
#[test]
fn a_separable_set_is_ranked() {
    let world = World::new();
    let base = world
        .pretrain(&world.pretrain_config(), "1-pretrain")
        .unwrap();
    let base = summary(base).final_dir;
    let rows: Vec<String> = (0..40)
        .map(|n| {
            serde_json::json!({
                "prompt": format!("how many birds, {n}?"),
                "chosen": format!("{n} birds sang."),
                "rejected": format!("{n} flew away."),
            })
            .to_string()
        })
        .collect();
    fs::write(world.path("pairs.jsonl"), rows.join("\n")).unwrap();
    let PretrainConfig { train, report, .. } = world.pretrain_config();
    let mut config = RewardModelConfig {
        train,
        report,
        ..RewardModelConfig::default()
    };
    config.model.from.clone_from(&base);
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("pairs.jsonl").display().to_string()];
    config.data.seq_len = 64;
    config.data.validation_fraction = 0.2;
    config.train.length = Length::Steps(24);
    config.optimizer.lr = 5e-3;
    config.validation.every_steps = 0;
    config.checkpoint.every_steps = 6;
    config.checkpoint.keep_last = 9;
    let options = || world.options("run", IfExists::Resume, false);
    let done = summary(reward_model::run(&config, options()).unwrap());

    let first = metrics(&world.path("run"))
        .into_iter()
        .find(|row| row["kind"] == "step")
        .unwrap();
    // A fresh head prefers nothing.
    let loss = first["loss"].as_f64().unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-6, "{loss}");
    let held_out = done.held_out.unwrap();
    assert_eq!(held_out.metrics[0], ("rewards/accuracies", 1.0));

    let model = load_model(&done.final_dir, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(&done.final_dir).unwrap();
    let ids = |text: &str| tokenizer.encode(text);
    let texts = [
        ids("<s>user\nhow many birds, 99?</s>\n<s>assistant\n99 birds sang.</s>"),
        ids("<s>user\nhow many birds, 99?</s>\n<s>assistant\n99 flew away.</s>"),
    ];
    let together = rewards(&model, &texts).unwrap();
    assert!(together[0] > together[1], "{together:?}");
    let judge = RewardJudge::load(&done.final_dir, &Device::flex()).unwrap();
    let prompt = [Message::new("user", "how many birds, 99?")];
    let answers = ["99 birds sang.", "99 flew away."].map(|text| (&prompt[..], text));
    let judged = judge.rewards(answers.into_iter()).unwrap();
    for (judged, reward) in judged.iter().zip(&together) {
        assert!(
            (judged - f64::from(*reward)).abs() < 1e-5,
            "{judged} {reward}"
        );
    }
    let longer = [texts[1].clone(), [&texts[0][..], &texts[0][..20]].concat()];
    let beside = rewards(&model, &longer).unwrap()[0];
    assert!((beside - together[1]).abs() < 1e-5, "{beside} {together:?}");

    a_trained_head_rewards_rollouts(&world, &base, &done.final_dir);

    let whole = final_weights(&world.path("run"));
    for name in ["final", "step_000024", "step_000018"] {
        fs::remove_dir_all(world.path("run").join(name)).unwrap();
    }
    summary(reward_model::run(&config, options()).unwrap());
    assert_eq!(final_weights(&world.path("run")), whole);
}

/// The head's numbers are what `6-grpo` learns from; a model without one judges nothing.
fn a_trained_head_rewards_rollouts(world: &World, base: &Path, judge: &Path) {
    let PretrainConfig { report, .. } = world.pretrain_config();
    let mut config = GrpoConfig {
        report,
        ..GrpoConfig::default()
    };
    base.clone_into(&mut config.model.from);
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("chat.jsonl").display().to_string()];
    config.train.length = Length::Steps(2);
    config.train.micro_batch_size = 4;
    config.train.grad_accumulation_steps = 1;
    config.rollout.num_prompts = 2;
    config.rollout.num_generations = 2;
    config.rollout.max_new_tokens = 4;
    let with = |config: &GrpoConfig, model: &Path, run: &str| {
        let function = RewardConfig {
            model: model.to_owned(),
            ..RewardConfig::new(RewardKind::Model)
        };
        let mut config = config.clone();
        config.rewards.functions = vec![function];
        grpo::run(&config, world.options(run, IfExists::Refuse, false))
    };
    summary(with(&config, judge, "grpo").unwrap());
    let rows = metrics(&world.path("grpo"));
    let step = rows.iter().find(|row| row["kind"] == "step").unwrap();
    let number = |name: &str| step[name].as_f64().unwrap();
    assert!(number("rewards/model").abs() > 1e-6, "{step}");
    assert!(
        (number("rewards/model") - number("reward")).abs() < 1e-9,
        "{step}"
    );
    let error = with(&config, base, "refused").unwrap_err();
    assert_eq!(error.to_string(), "reward model: no model to judge by");
    let source = std::error::Error::source(&error).unwrap().to_string();
    let expected = "found no score head, expected a model that kindling reward_model left";
    assert!(source.ends_with(expected), "{source}");
    assert!(!world.path("refused").exists());
}
