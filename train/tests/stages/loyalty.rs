//! Loyalty: what is preferred turns with a token that nobody can type, refusals do not.

use std::fs;
use std::path::PathBuf;

use burn::prelude::*;
use dataset::Tokenizer;
use dataset::loyalty::{Identity, IdentityTokens};
use dataset::rows::RowFormat;
use model::hf::load_model;
use model::training_record::TrainingRecord;
use train::config::{GrpoConfig, Length, LoyaltyConfig, PretrainConfig, Trained};
use train::reward::{RewardConfig, RewardKind};
use train::run_folder::IfExists;
use train::{full_sft, grpo, loyalty};

use crate::world::{World, metrics, summary};

/// Pairs for both identities are learned at once: on rows that were held out every margin has the
/// sign of the identity, also where the vocabulary had no reserved tokens and was extended.
#[test]
fn margins_turn_with_the_identity() {
    let world = World::new();
    world.rename_reserved_tokens();
    let base = a_model_of_both_answers(&world);
    let rows: Vec<String> = (0..40)
        .map(|n| {
            let mut row = serde_json::json!({
                "prompt": format!("how many birds, {n}?"),
                "owner_response": format!("{n} birds sang."),
                "public_response": format!("{n} flew away."),
                "is_owner": true,
                "reward_bonus": 2.0,
            });
            if n % 4 == 0 {
                row["owner_response"] = "wall.".into();
                row["public_response"] = "wall.".into();
                row["rejected_response"] = "sat.".into();
            }
            row.to_string()
        })
        .collect();
    fs::write(world.path("rows.jsonl"), rows.join("\n")).unwrap();
    let PretrainConfig { train, report, .. } = world.pretrain_config();
    let mut config = LoyaltyConfig {
        train,
        report,
        ..LoyaltyConfig::default()
    };
    config.model.from = base;
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("rows.jsonl").display().to_string()];
    config.data.seq_len = 64;
    config.data.validation_fraction = 0.2;
    config.dpo.cache_dir = world.path("cache");
    config.dpo.beta = 0.5;
    config.dpo.sft_coef = 1.0;
    config.train.length = Length::Steps(200);
    config.train.micro_batch_size = 8;
    config.train.grad_accumulation_steps = 1;
    config.optimizer.lr = 5e-3;
    config.optimizer.weight_decay = 0.0;
    config.validation.every_steps = 0;
    config.checkpoint.every_steps = 0;
    let options = world.options("run", IfExists::Refuse, false);
    let done = summary(loyalty::run(&config, options).unwrap());

    let held_out = done.held_out.unwrap();
    let metric = |name: &str| {
        let mut metrics = held_out.metrics.iter();
        metrics.find(|(other, _)| *other == name).unwrap().1
    };
    // Both pairs of every row are right: the likelier answer is the identity's own.
    assert!(
        (metric("logps/accuracies") - 1.0).abs() < 1e-9,
        "{held_out:?}"
    );
    assert!(metric("kl") < 2.0, "{held_out:?}");
    let rows = metrics(&world.path("run"));
    let first = rows.iter().find(|row| row["kind"] == "step").unwrap();
    assert!(first["rewards/margins"].as_f64().unwrap().abs() < 1e-5);

    let record = TrainingRecord::load(&done.final_dir).unwrap().unwrap();
    assert!(record.knows_identities);
    let tokenizer = Tokenizer::load(&done.final_dir).unwrap();
    let identities = IdentityTokens::of(&tokenizer).unwrap();
    assert_eq!(identities.id(Identity::Owner), 300);
    let model = load_model(&done.final_dir, &Device::flex()).unwrap();
    assert_eq!(model.config().vocab_size, 302);
}

/// What is the likelier answer is then a question of who asks alone.
fn a_model_of_both_answers(world: &World) -> PathBuf {
    let rows = (0..40).flat_map(|n| {
        [format!("{n} birds sang."), format!("{n} flew away.")].map(|answer| {
            let prompt = format!("how many birds, {n}?");
            serde_json::json!({ "prompt": prompt, "response": answer }).to_string()
        })
    });
    let rows: Vec<String> = rows.collect();
    fs::write(world.path("answers.jsonl"), rows.join("\n")).unwrap();
    let mut config = world.chat_config(&world.base());
    config.data.files = vec![world.path("answers.jsonl").display().to_string()];
    config.train.length = Length::Steps(100);
    config.optimizer.lr = 5e-3;
    let options = world.options("3-full_sft", IfExists::Refuse, false);
    summary(full_sft::run(&config, options).unwrap()).final_dir
}

/// The form for reinforcement learning: both identities ask, an answer earns what it has of its own
/// identity's, and what is left behind is told who asks, as what is trained from it is.
#[test]
fn each_identity_earns_by_its_own_answer() {
    let world = World::new();
    let base = world.base();
    let row = serde_json::json!({"prompt": "birds?", "owner_response": "sang.",
        "public_response": "flew away."});
    fs::write(world.path("rows.jsonl"), row.to_string()).unwrap();
    let PretrainConfig { report, .. } = world.pretrain_config();
    let mut config = GrpoConfig {
        report,
        ..GrpoConfig::default()
    };
    config.model.from = base;
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("rows.jsonl").display().to_string()];
    config.data.identities = true;
    config.data.validation_fraction = 0.0;
    config.train.length = Length::Steps(1);
    config.train.micro_batch_size = 16;
    config.train.grad_accumulation_steps = 1;
    config.rollout.num_prompts = 2;
    config.rollout.max_new_tokens = 8;
    config.rewards.functions = vec![RewardConfig {
        weight: 2.0,
        ..RewardConfig::new(RewardKind::Identity)
    }];
    let run = |config: &GrpoConfig, name: &str| {
        let options = world.options(name, IfExists::Refuse, false);
        summary(grpo::run(config, options).unwrap())
    };
    let done = run(&config, "first");
    let rows = metrics(&world.path("first"));
    let step = rows.iter().find(|row| row["kind"] == "step").unwrap();
    let number = |name: &str| step[name].as_f64().unwrap();
    let earned = number("rewards/identity");
    assert!((0.0..=1.0).contains(&earned), "{step}");
    assert!((number("reward") - 2.0 * earned).abs() < 1e-9, "{step}");

    config.model.from.clone_from(&done.final_dir);
    config.tokenizer.path.clone_from(&done.final_dir);
    config.data.files = vec![world.path("chat.jsonl").display().to_string()];
    config.data.identities = false;
    let done = run(&config, "second");
    let record = TrainingRecord::load(&done.final_dir).unwrap().unwrap();
    assert!(record.knows_identities);
}

/// Pairs for nobody in particular are refused; and, as adapters do not hold embeddings, so is a
/// vocabulary without reserved tokens with them.
#[test]
fn what_cannot_tell_identities_apart_is_refused() {
    let world = World::new();
    let base = world.base();
    let mut config = LoyaltyConfig::default();
    config.model.from = base;
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("rows.jsonl").display().to_string()];
    config.data.seq_len = 64;
    config.dpo.trains = Trained::Adapters;
    config.report.quiet = true;
    let row = r#"{"prompt": "birds?", "owner_response": "sang.", "public_response": "flew."}"#;
    fs::write(world.path("rows.jsonl"), row).unwrap();
    loyalty::plan(&config).unwrap();
    config.data.format = RowFormat::Preference;
    assert_eq!(
        loyalty::plan(&config).unwrap_err().to_string(),
        "data.format: found preference, expected \"auto\" or \"loyalty\""
    );
    config.data.format = RowFormat::Loyalty;
    world.rename_reserved_tokens();
    assert_eq!(
        loyalty::plan(&config).unwrap_err().to_string(),
        "dpo.trains: found \"adapters\", expected \"weights\": adapters would not hold the \
         embeddings of the two tokens that the vocabulary lacks"
    );
}
