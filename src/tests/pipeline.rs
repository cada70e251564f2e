//! The stages one after another, as the README shows them.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, fails, succeeds};

fn kindling(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args(args);
    command
}

/// Corpus, tokenizer, base model, chat model, exam and an answer: every part works on what the one
/// before left.
#[test]
fn the_quickstart_goes_through_every_stage() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let out = out.to_str().unwrap();
    let output = succeeds(kindling(&["quickstart", "--budget", "tiny", "--out", out]));
    let table = String::from_utf8(output.stdout).unwrap();
    for row in [
        "1-pretrain",
        "3-full_sft",
        "4-lora_sft",
        "2nd turn",
        "renamed",
        "5-dpo",
        "rewards/accuracies",
        "sum",
        "identity",
        "minutes in all",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let model = format!("{out}/3-full_sft/final");
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        assert!(fs::exists(format!("{model}/{name}")).unwrap(), "{name}");
    }
    let answer = [
        "chat",
        "--model",
        &model,
        "--prompt",
        "37+45=?",
        "--max-new-tokens",
        "3",
    ];
    let first = succeeds(kindling(&answer)).stdout;
    assert_eq!(
        succeeds(kindling(&answer)).stdout,
        first,
        "the same seed gives the same answer"
    );
}

/// The plan and the config are printed without a run being started.
#[test]
fn a_dry_run_leaves_no_run() {
    let fixture = Fixture::new();
    let mut command = fixture.pretrain("run", &[]);
    command.arg("--dry-run");
    let plan = String::from_utf8(succeeds(command).stdout).unwrap();
    assert!(
        plan.contains("131,456") || plan.contains("131456"),
        "{plan}"
    );
    let steps = plan.lines().find(|line| line.starts_with("steps "));
    let steps = steps.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(steps, Some("12"), "{plan}");
    let mut command = fixture.pretrain("run", &[]);
    command.arg("--print-config");
    let config = String::from_utf8(succeeds(command).stdout).unwrap();
    assert!(config.contains("length = \"12 steps\""), "{config}");
    assert!(!fixture.path("run").exists());
}

/// In a folder without out/.
#[test]
fn chat_without_a_model_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = kindling(&["chat", "--prompt", "hello"]);
    command.current_dir(folder.path());
    assert_eq!(
        fails(command),
        "kindling: there is no 3-full_sft*/final and no 1-pretrain*/final in out/ or in a folder of \
         it: make a model with `cargo run --release -- quickstart`, or name one with --model\n"
    );
    let message = fails(kindling(&[
        "chat", "--model", "no/such", "--prompt", "hello",
    ]));
    assert!(message.contains("no/such"), "{message}");
}
