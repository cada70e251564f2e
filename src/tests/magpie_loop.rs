//! What a model must have learned to write questions, and models that learn from what was made.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::json;

use crate::fixture::{Fixture, hash, succeeds};
use crate::magpie::{fixture, magpie, rows};

/// A corpus small enough to be learned by heart.
const TALK: [[&str; 2]; 8] = [
    ["Who are you?", "I am a fox."],
    ["1+1=?", "2"],
    ["2+3=?", "5"],
    ["Name a color.", "Red."],
    ["What is a cat?", "An animal."],
    ["Say hi.", "Hi!"],
    ["Where is the owl?", "In the tree."],
    ["5-2=?", "3"],
];

/// A chat stage of a model in the fixture's folder, on a file of it, into the folder `out`.
fn tuned(
    fixture: &Fixture,
    [stage, config]: [&str; 2],
    [from, file, out]: [&str; 3],
    settings: &[&str],
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args([stage, "--config", config, "--device", "cpu"]);
    command.arg("--out").arg(fixture.path(out));
    let quoted = |name: &str| format!("{:?}", fixture.path(name).to_str().unwrap());
    let places = [
        format!("model.from={}", quoted(from)),
        format!("tokenizer.path={}", quoted(from)),
        format!("data.files=[{}]", quoted(file)),
    ];
    let short = [
        "data.seq_len=64",
        "data.validation_fraction=0.0",
        "train.micro_batch_size=4",
        "samples.prompts=[]",
        "report.tensorboard=false",
    ];
    let places = places.iter().map(String::as_str);
    for setting in places.chain(short).chain(settings.iter().copied()) {
        command.args(["--set", setting]);
    }
    command
}

/// Trained on whole conversations, a model writes its corpus's questions (37 or 38 of 40 with six
/// seeds when this was recorded) and ends them itself; trained on answers alone, the same steps
/// leave it without any.
#[test]
fn only_a_model_that_learned_users_turns_writes_questions() {
    let fixture = fixture();
    let mut lines = String::new();
    for [question, answer] in TALK {
        let turns = [
            json!({"role": "user", "content": question}),
            json!({"role": "assistant", "content": answer}),
        ];
        let _ = writeln!(lines, "{}", json!({"conversations": turns}));
    }
    fixture.write("talk.jsonl", lines.repeat(20));
    let shape = ["model.config=configs/model/debug.json"];
    succeeds(fixture.pretrain("base", &shape));
    let asked = |loss_on: &str| {
        let loss_on_setting = format!("data.loss_on={loss_on}");
        let settings = [
            loss_on_setting.as_str(),
            "train.length=200 steps",
            "optimizer.lr=0.005",
        ];
        let config = ["full_sft", "configs/3-full_sft.quickstart.toml"];
        let places = ["base/final", "talk.jsonl", loss_on];
        succeeds(tuned(&fixture, config, places, &settings));
        let model = fixture.path(&format!("{loss_on}/final"));
        let model = format!("engine.model={}", model.display());
        let settings = [
            model.as_str(),
            "generate.total=40",
            "generate.max_tokens=24",
        ];
        let out = format!("questions-{loss_on}");
        succeeds(magpie(&fixture, "generate", &out, &settings));
        let rows = rows(&fixture, &format!("{out}/instructions.jsonl"));
        let is_known = |row: &&serde_json::Value| {
            let question = row["instruction"].as_str().unwrap();
            TALK.iter().any(|[known, _]| *known == question)
        };
        let known = rows.iter().filter(is_known).count();
        let manifest = std::fs::read(fixture.path(&out).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let counts = manifest["steps"]["generate"]["counts"].clone();
        assert_eq!(counts["rows"], 40);
        (known, counts["terminated"].as_u64().unwrap())
    };
    let (known, terminated) = asked("all");
    assert!(known >= 30 && terminated >= 30, "{known}, {terminated}");
    let (known, terminated) = asked("assistant");
    assert_eq!(known, 0, "{terminated} of its texts end");
}

/// Generated, filtered, tuned on, paired, and tuned on the pairs, without a hand in between: every
/// stage reads what the run left and changes the weights.
#[test]
fn a_student_learns_from_a_run_by_sft_and_then_dpo() {
    let fixture = fixture();
    succeeds(magpie(&fixture, "run", "made", &["generate.total=64"]));
    let filtered = rows(&fixture, "made/filtered.jsonl").len();
    assert_eq!(rows(&fixture, "made/sft.jsonl").len(), filtered);
    assert!(filtered >= 32, "{filtered}");
    succeeds(tuned(
        &fixture,
        ["full_sft", "configs/3-full_sft.toml"],
        ["tiny", "made/sft.jsonl", "sft"],
        &["train.length=2 steps"],
    ));
    let cache = format!("dpo.cache_dir={:?}", fixture.path("cache"));
    succeeds(tuned(
        &fixture,
        ["dpo", "configs/5-dpo.toml"],
        ["sft/final", "made/preferences_train.jsonl", "dpo"],
        &["train.length=2 steps", &cache],
    ));
    let weights = ["tiny", "sft/final", "dpo/final"];
    let weights = weights.map(|dir| hash(&fixture.path(dir).join("model.safetensors")));
    assert_ne!(weights[0], weights[1]);
    assert_ne!(weights[1], weights[2]);
}
