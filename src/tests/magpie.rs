//! Data that a model makes itself, on a model of random weights: every step, linked, killed and
//! resumed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use model::{CausalLm, ModelConfig};
use serde_json::Value;

use crate::fixture::{Fixture, fails, hash, succeeds};

/// Short texts, and no two runs that differ in a time.
const SETTINGS: [&str; 8] = [
    "generate.total=60",
    "generate.max_tokens=12",
    "generate.created=1700000000",
    "respond.max_tokens=12",
    "prefer.responses=3",
    "prefer.max_tokens=8",
    "save_every=16",
    "tag.missions=[\"reward\", \"language\"]",
];

/// A corpus with a chat model of random weights in `tiny`.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = ModelConfig::load(&root.join("configs/model/debug.json")).unwrap();
    config.initializer_range = 0.2;
    let model = CausalLm::new(&config, 3, &Device::flex());
    let dir = fixture.path("tiny");
    model::hf::save_model(&model, &dir).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture.path("tokenizer").join(name), dir.join(name)).unwrap();
    }
    fixture
}

fn magpie(fixture: &Fixture, step: &str, out: &str, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args([
        "magpie",
        step,
        "--config",
        "configs/magpie.toml",
        "--device",
        "cpu",
    ]);
    command.arg("--out").arg(fixture.path(out));
    let model = format!("engine.model={}", fixture.path("tiny").display());
    for setting in SETTINGS
        .iter()
        .copied()
        .chain([model.as_str()])
        .chain(settings.iter().copied())
    {
        command.args(["--set", setting]);
    }
    command
}

fn rows(fixture: &Fixture, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture.path(file)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const FILES: [&str; 9] = [
    "instructions.jsonl",
    "responses.jsonl",
    "tags.jsonl",
    "distances.jsonl",
    "filtered.jsonl",
    "candidates.jsonl",
    "preferences_train.jsonl",
    "merged.jsonl",
    "sft.jsonl",
];

/// Sixty rows through all steps: exactly sixty, each file made of the one before it by hash, readable
/// for training, and left alone by a second run.
#[test]
fn sixty_rows_go_through_every_step() {
    let fixture = fixture();
    let first = succeeds(magpie(&fixture, "run", "out", &[]));
    let told = String::from_utf8(first.stdout).unwrap();
    let instructions = rows(&fixture, "out/instructions.jsonl");
    let ids: Vec<u64> = instructions
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (0..60).collect::<Vec<u64>>(), "{told}");
    assert_eq!(instructions[0]["pre_query_template"], "<s>user\n");

    let manifest = std::fs::read_to_string(fixture.path("out/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let steps = manifest["steps"].as_object().unwrap();
    let mut made = std::collections::BTreeMap::new();
    for (step, entry) in steps {
        for (name, input) in entry["inputs"].as_object().unwrap() {
            assert_eq!(
                made.get(name),
                Some(&input["sha256"]),
                "{step} reads {name}"
            );
        }
        for (name, output) in entry["outputs"].as_object().unwrap() {
            let bytes = hash(&fixture.path("out").join(name));
            assert_eq!(output["sha256"], bytes.as_str(), "{step} leaves {name}");
            made.insert(name.clone(), output["sha256"].clone());
        }
    }
    assert_eq!(steps.len(), 8);
    assert_eq!(made.len(), 10, "nine files and the pairs that are held out");
    let filter = &steps["filter"]["counts"];
    assert_eq!(filter["rows"], 60);
    assert_eq!(filter["kept"], rows(&fixture, "out/filtered.jsonl").len());

    for file in ["sft.jsonl", "preferences_train.jsonl"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
        command
            .args(["data", "validate"])
            .arg(fixture.path("out").join(file));
        command.arg("--tokenizer").arg(fixture.path("tokenizer"));
        let report = String::from_utf8(succeeds(command).stdout).unwrap();
        assert!(report.contains("bad rows          0"), "{report}");
    }

    let before = FILES.map(|file| hash(&fixture.path("out").join(file)));
    let second = succeeds(magpie(&fixture, "run", "out", &[]));
    let told = String::from_utf8(second.stdout).unwrap();
    assert_eq!(told.matches("done before").count(), 10, "{told}");
    assert_eq!(
        FILES.map(|file| hash(&fixture.path("out").join(file))),
        before
    );

    let message = fails(magpie(
        &fixture,
        "respond",
        "out",
        &["respond.max_tokens=13"],
    ));
    assert!(
        message.contains("respond was done with max_tokens = 12, expected 13"),
        "{message}"
    );
    let message = fails(magpie(
        &fixture,
        "generate",
        "out",
        &["generate.domains=[\"alchemy\"]"],
    ));
    assert!(
        message.contains("unknown domain `alchemy`, expected one of algebra"),
        "{message}"
    );

    // Other batches, other places to save: the same questions.
    succeeds(magpie(
        &fixture,
        "generate",
        "alone",
        &["engine.batch_size=1", "save_every=7"],
    ));
    assert_eq!(
        hash(&fixture.path("alone/instructions.jsonl")),
        hash(&fixture.path("out/instructions.jsonl"))
    );
}

/// Killed whenever a few rows more are saved, the run ends in the bytes of one that never was.
#[test]
fn a_killed_run_ends_in_the_same_bytes() {
    let fixture = fixture();
    let settings = ["generate.total=24", "save_every=3"];
    succeeds(magpie(&fixture, "run", "whole", &settings));
    let out = fixture.path("killed");
    let saved = || -> u64 {
        let entries = std::fs::read_dir(&out).into_iter().flatten().flatten();
        let files =
            entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "jsonl"));
        files
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum()
    };
    let mut num_kills = 0;
    let start = Instant::now();
    loop {
        assert!(
            start.elapsed() < Duration::from_mins(5),
            "killed {num_kills} times"
        );
        let mut command = magpie(&fixture, "run", "killed", &settings);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = saved();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if num_kills < 6 && saved() > before + 2000 {
                child.kill().unwrap();
                num_kills += 1;
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if status.success() {
            break;
        }
    }
    assert!(num_kills >= 3, "killed only {num_kills} times");
    for file in FILES {
        assert_eq!(
            hash(&fixture.path("whole").join(file)),
            hash(&out.join(file)),
            "{file}"
        );
    }
}
