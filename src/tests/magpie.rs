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
pub(crate) fn fixture() -> Fixture {
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

pub(crate) fn magpie(fixture: &Fixture, step: &str, out: &str, settings: &[&str]) -> Command {
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

pub(crate) fn rows(fixture: &Fixture, file: &str) -> Vec<Value> {
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

/// Commands with the steps they do, by the names of their journals.
const STEPS: [(&str, &str); 8] = [
    ("generate", "generate"),
    ("respond", "respond"),
    ("tag", "tag"),
    ("dedup", "dedup"),
    ("filter", "filter"),
    ("prefer", "candidates"),
    ("prefer", "prefer"),
    ("merge", "merge"),
];

/// Every step is killed while it is on its way, those that save rows after some of them; each goes
/// on with the same command, and all files end in the bytes of a run that never was killed.
#[test]
fn a_run_killed_in_every_step_ends_in_the_same_bytes() {
    let fixture = fixture();
    let settings = ["generate.total=24", "save_every=3"];
    succeeds(magpie(&fixture, "run", "whole", &settings));
    let out = fixture.path("killed");
    let start = Instant::now();
    for (command, step) in STEPS {
        let journal = out.join(format!("{step}.partial.jsonl"));
        // The first line says what the step depends on; steps without rows have no other.
        let num_lines = if ["filter", "prefer", "merge"].contains(&step) {
            1
        } else {
            3
        };
        let is_on_its_way = || {
            let text = std::fs::read_to_string(&journal).unwrap_or_default();
            text.lines().count() >= num_lines
        };
        // A kill may come too late: when the step has ended, or in its last moment.
        let mut is_hit = false;
        while !is_hit {
            assert!(
                start.elapsed() < Duration::from_mins(5),
                "{step} is not hit"
            );
            let mut again = magpie(&fixture, command, "killed", &settings);
            again.arg("--overwrite");
            again.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = again.spawn().unwrap();
            while child.try_wait().unwrap().is_none() && !is_on_its_way() {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if is_on_its_way() {
                let told = succeeds(magpie(&fixture, command, "killed", &settings));
                let told = String::from_utf8(told.stdout).unwrap();
                let mut lines = told
                    .lines()
                    .filter(|line| line.starts_with(step))
                    .peekable();
                assert!(lines.peek().is_some(), "{told}");
                is_hit = lines.all(|line| !line.ends_with("done before"));
            }
        }
    }
    for file in FILES {
        assert_eq!(
            hash(&fixture.path("whole").join(file)),
            hash(&out.join(file)),
            "{file}"
        );
    }
}
