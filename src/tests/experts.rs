//! A mixture of experts from stage to stage.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, succeeds};

/// Pretraining, adapters on experts, and a talk with the result; the loads are recorded and drawn.
#[test]
fn experts_go_through_the_stages() {
    let fixture = Fixture::new();
    let shape = [
        "model.config=configs/model/debug-moe.json",
        "train.length=4 steps",
    ];
    succeeds(fixture.pretrain("base", &shape));
    let base = fixture.path("base");
    assert!(fs::exists(base.join("experts.png")).unwrap());
    let metrics = fs::read_to_string(base.join("metrics.jsonl")).unwrap();
    let loads = metrics
        .lines()
        .filter(|line| line.contains(r#""kind":"experts""#));
    assert_eq!(loads.count(), 4);
    let config = fs::read_to_string(base.join("final/config.json")).unwrap();
    assert!(config.contains("Ernie4_5_MoeForCausalLM"), "{config}");

    let turns = r#"{"conversations": [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2"}]}"#;
    fixture.write("chats.jsonl", format!("{turns}\n").repeat(20));
    let mut tune = Command::new(env!("CARGO_BIN_EXE_kindling"));
    tune.args([
        "lora_sft",
        "--config",
        "configs/4-lora_sft.quickstart.toml",
        "--out",
    ]);
    tune.arg(fixture.path("tuned"));
    let quoted = |name: &str| format!("{:?}", fixture.path(name).to_str().unwrap());
    for setting in [
        format!("model.from={}", quoted("base/final")),
        format!("tokenizer.path={}", quoted("tokenizer")),
        format!("data.files=[{}]", quoted("chats.jsonl")),
        "data.seq_len=64".to_owned(),
        "data.validation_fraction=0.0".to_owned(),
        "train.length=2 steps".to_owned(),
        "train.micro_batch_size=1".to_owned(),
        r#"lora.target_modules=["q_proj", "up_proj"]"#.to_owned(),
    ] {
        tune.args(["--set", &setting]);
    }
    succeeds(tune);
    let model = fixture.path("tuned/final");
    let mut chat = Command::new(env!("CARGO_BIN_EXE_kindling"));
    chat.arg("chat").arg("--model").arg(&model);
    chat.args([
        "--prompt",
        "1+1=?",
        "--max-new-tokens",
        "2",
        "--weights",
        "int8",
    ]);
    succeeds(chat);
}
