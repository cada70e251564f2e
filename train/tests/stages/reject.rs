//! Rejection sampling: which answers are kept, and that the rows are conversations.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regex::Regex;
use serde_json::Value;
use train::config::{Length, RejectConfig};
use train::full_sft;
use train::reject::{self, Kept, RejectError};
use train::reward::{RewardConfig, RewardKind};
use train::run_folder::IfExists;

use crate::world::{World, summary};

fn pattern(pattern: &str) -> Vec<RewardConfig> {
    vec![RewardConfig {
        pattern: pattern.to_owned(),
        ..RewardConfig::new(RewardKind::Regex)
    }]
}

fn rows(world: &World, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(run).join(reject::ROWS)).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

/// Of eight answers to each of 40 prompts, the kept ones match, end, differ and are at most two;
/// other prompts have none. The same seed keeps the same rows, whatever is written together.
#[test]
fn the_best_answers_are_kept_as_conversations() {
    let world = World::new();
    let base = world
        .pretrain(&world.pretrain_config(), "1-pretrain")
        .unwrap();
    let mut chat = world.chat_config(&summary(base).final_dir);
    chat.train.length = Length::Steps(60);
    let options = world.options("3-full_sft", IfExists::Refuse, false);
    let chat = summary(full_sft::run(&chat, options).unwrap()).final_dir;

    let mut config = RejectConfig::default();
    config.model.from.clone_from(&chat);
    config.tokenizer.path = chat;
    config.data.files = vec![world.path("chat.jsonl").display().to_string()];
    config.data.validation_fraction = 0.0;
    config.rollout.max_new_tokens = 12;
    config.rewards.functions = pattern("birds");
    config.reject.max_kept = 2;
    let run = |config: &RejectConfig, name: &str| {
        let options = world.options(name, IfExists::Refuse, false);
        let mut seen = Vec::new();
        let kept = reject::run(config, &options, |done, all| seen.push((done, all)));
        assert!(kept.is_err() || seen.last() == Some(&(40, 40)), "{seen:?}");
        kept
    };
    let kept: Kept = run(&config, "first").unwrap().unwrap();
    assert_eq!((kept.num_prompts, kept.num_answers), (40, 320));
    assert!(
        kept.mean_reward > 0.0 && kept.mean_reward <= 1.0,
        "{kept:?}"
    );
    let found = rows(&world, "first");
    assert_eq!(found.len(), kept.num_rows);
    assert!(found.len() > kept.num_covered && found.len() <= 2 * kept.num_covered);
    let matches = Regex::new("birds").unwrap();
    let mut texts: Vec<(String, String)> = Vec::new();
    for row in &found {
        let turns = row["conversations"].as_array().unwrap();
        let [user, assistant] = turns.as_slice() else {
            panic!("{row}");
        };
        assert_eq!(
            (&user["role"], &assistant["role"]),
            (&"user".into(), &"assistant".into())
        );
        let text = assistant["content"].as_str().unwrap();
        assert!(matches.is_match(text) && !text.contains("</s>"), "{row}");
        texts.push((user["content"].to_string(), text.to_owned()));
    }
    let num_rows = texts.len();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), num_rows, "a conversation was kept twice");

    config.rollout.max_rows = 5;
    run(&config, "second").unwrap();
    assert_eq!(found, rows(&world, "second"));

    config.rewards.functions = pattern("no such answer");
    let error = run(&config, "third").unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of 320 answers earned as much as reject.min_reward = 1; the mean is 0.000"
    );
    assert!(matches!(error, RejectError::NothingKept { .. }));
    assert!(!world.path("third").join(reject::ROWS).exists());

    let mut options = world.options("stopped", IfExists::Refuse, false);
    options.stop = Arc::new(AtomicBool::new(true));
    assert_eq!(reject::run(&config, &options, |_, _| {}).unwrap(), None);
    assert!(!world.path("stopped").join(reject::ROWS).exists());
}
