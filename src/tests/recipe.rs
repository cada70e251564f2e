//! A recipe from text to an adapted chat model, run twice and changed once.

use std::fmt::Write as _;
use std::process::Command;

use crate::fixture::{Fixture, fails, succeeds};

const SMALL: [&str; 7] = [
    "train.length=6 steps",
    // Chosen when a stage begins, not in the rehearsal, which has no model to plan with.
    "train.micro_batch_size=auto",
    "train.grad_accumulation_steps=2",
    "data.seq_len=64",
    "checkpoint.every_steps=3",
    "samples.prompts=[]",
    "report.tensorboard=false",
];

fn pipeline(fixture: &Fixture, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.arg("pipeline").arg(fixture.path("recipe.toml"));
    command.arg("--out").arg(fixture.path("out"));
    command.args(["--device", "cpu"]).args(flags);
    for setting in SMALL {
        command.args(["--set", setting]);
    }
    command
}

/// Conversations, and a recipe of three stages on them and an evaluation.
fn recipe() -> Fixture {
    let fixture = Fixture::new();
    let mut rows = String::from("history,q,a\n");
    for n in 0..30 {
        let _ = writeln!(rows, "[],{n}+1=,{}", n + 1);
    }
    fixture.write("chat.csv", rows);
    let path = |name: &str| format!("{}", fixture.path(name).display());
    let files = format!("data.files=['{}']", path("chat.csv"));
    let stages = [
        (
            "1-pretrain",
            "configs/1-pretrain.debug.toml",
            vec![
                "model.config=configs/model/debug.json".to_owned(),
                format!("tokenizer.path='{}'", path("tokenizer")),
                format!("data.sources=[{{ path = '{}' }}]", path("text.jsonl")),
                format!("data.cache_dir='{}'", path("cache")),
            ],
        ),
        ("3-full_sft", "configs/3-full_sft.toml", vec![files.clone()]),
        ("4-lora_sft", "configs/4-lora_sft.toml", vec![files]),
    ];
    let mut text = String::new();
    for (stage, config, set) in stages {
        let _ = writeln!(
            text,
            "[[stages]]\nname = \"{stage}\"\nstage = \"{stage}\"\nconfig = \"{config}\"\n\
             set = {set:?}"
        );
    }
    let args = [
        "perplexity",
        "--data",
        &path("text.jsonl"),
        "--max-documents",
        "3",
        "--window",
        "64",
    ];
    let _ = writeln!(
        text,
        "[[stages]]\nname = \"score\"\nstage = \"eval\"\nfrom = \"3-full_sft\"\nargs = {args:?}"
    );
    fixture.write("recipe.toml", text);
    fixture
}

/// Each stage starts from the one before; what is done is not done again, and a recipe that has
/// changed is not mixed with what another one left.
#[test]
fn a_recipe_goes_on_where_it_was() {
    let fixture = recipe();
    let first = succeeds(pipeline(&fixture, &[]));
    let table = String::from_utf8(first.stdout).unwrap();
    for stage in ["1-pretrain", "3-full_sft", "4-lora_sft"] {
        let line = table.lines().find(|line| line.starts_with(stage));
        assert_eq!(
            line.and_then(|line| line.split_whitespace().nth(1)),
            Some("6"),
            "{table}"
        );
        assert!(
            fixture
                .path("out")
                .join(stage)
                .join("final/model.safetensors")
                .exists()
        );
    }
    let config = std::fs::read_to_string(fixture.path("out/3-full_sft/config.toml")).unwrap();
    assert!(config.contains("\nmicro_batch_size = 2\n"), "{config}");
    let scores = std::fs::read_to_string(fixture.path("out/score/perplexity.json")).unwrap();
    assert!(scores.contains("bits_per_byte"), "{scores}");
    let adapter = fixture.path("out/4-lora_sft/adapter/adapter_config.json");
    let adapter = std::fs::read_to_string(adapter).unwrap();
    assert!(adapter.contains("out/3-full_sft/final"), "{adapter}");

    // The middle one is lost, as if the process had been killed before its end.
    std::fs::remove_dir_all(fixture.path("out/3-full_sft/final")).unwrap();
    let expected = fixture.weights_hash("out/4-lora_sft");
    let second = succeeds(pipeline(&fixture, &[]));
    let log = String::from_utf8(second.stderr).unwrap();
    let state = |stage: &str| {
        let line = log
            .lines()
            .find(|line| line.starts_with(&format!("pipeline: {stage} ")));
        line.and_then(|line| line.rsplit_once(": "))
            .map(|(_, state)| state.to_owned())
    };
    assert_eq!(state("1-pretrain").as_deref(), Some("done"), "{log}");
    assert_eq!(state("3-full_sft").as_deref(), Some("to do"), "{log}");
    assert_eq!(state("4-lora_sft").as_deref(), Some("done"), "{log}");
    assert_eq!(fixture.weights_hash("out/4-lora_sft"), expected);

    let message = fails(pipeline(&fixture, &["--set", "optimizer.lr=0.5"]));
    assert!(
        message.contains("1-pretrain was made with another config"),
        "{message}"
    );
    assert!(message.contains("optimizer.lr: it has "), "{message}");

    // The first one is not what the second one was begun with.
    let path = fixture.path("out/1-pretrain/final/generation_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n").unwrap();
    let message = fails(pipeline(&fixture, &[]));
    let folder = |name: &str| fixture.path("out").join(name).display().to_string();
    let expected = format!(
        "{} was begun with another {} than is there now",
        folder("3-full_sft"),
        folder("1-pretrain/final")
    );
    assert!(message.contains(&expected), "{message}");
}

/// The adapters' start is the base model, whatever becomes of the chat model before them.
#[test]
fn a_stage_may_name_its_own_start() {
    let fixture = recipe();
    let recipe = std::fs::read_to_string(fixture.path("recipe.toml")).unwrap();
    // Without the exam, which belongs to one chat model.
    let (recipe, _) = recipe.rsplit_once("[[stages]]").unwrap();
    let (first, last) = recipe.rsplit_once("set = [").unwrap();
    let own = "\"model.from={out}/1-pretrain/final\"";
    fixture.write("recipe.toml", format!("{first}set = [{own}, {last}"));
    let change = |stage: &str| {
        let path = fixture.path("out").join(stage);
        let path = path.join("final/generation_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    };
    succeeds(pipeline(&fixture, &[]));
    change("3-full_sft");
    succeeds(pipeline(&fixture, &[]));
    std::fs::remove_dir_all(fixture.path("out/3-full_sft")).unwrap();
    change("1-pretrain");
    let message = fails(pipeline(&fixture, &[]));
    assert!(
        message.contains("4-lora_sft was begun with another"),
        "{message}"
    );
}

/// The last stage's mistake is found before the first one begins.
#[test]
fn a_recipe_is_checked_to_its_end_before_it_begins() {
    let fixture = recipe();
    let recipe = std::fs::read_to_string(fixture.path("recipe.toml")).unwrap();
    let (first, last) = recipe.rsplit_once("set = [").unwrap();
    fixture.write(
        "recipe.toml",
        format!("{first}set = [\"lora.rank=0\", {last}"),
    );
    let message = fails(pipeline(&fixture, &[]));
    assert!(message.contains("stage 4-lora_sft"), "{message}");
    assert!(message.contains("lora.rank: found 0"), "{message}");
    assert!(!fixture.path("out/1-pretrain").exists());
}

/// A tokenizer of other settings would be taken for the one that is asked for.
#[test]
fn a_tokenizer_that_was_made_otherwise_is_refused() {
    let fixture = Fixture::new();
    let sources = format!(
        "sources=[{{ path = '{}' }}]",
        fixture.path("text.jsonl").display()
    );
    let run = |vocab_size: usize| {
        let set = [sources.clone(), format!("vocab_size={vocab_size}")];
        fixture.write(
            "recipe.toml",
            format!(
                "[[stages]]\nname = \"words\"\nstage = \"0-tokenizer\"\n\
                 config = \"configs/0-tokenizer.toml\"\nset = {set:?}\n"
            ),
        );
        pipeline(&fixture, &[])
    };
    succeeds(run(300));
    let log = String::from_utf8(succeeds(run(300)).stderr).unwrap();
    assert!(log.contains("from the text): done"), "{log}");
    let message = fails(run(310));
    assert!(
        message.contains(
            "out/words was made with another config (vocab_size: it has 300, asked is 310)"
        ),
        "{message}"
    );
}
