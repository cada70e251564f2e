//! Training and talking on a graphics card; a software driver will do.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use kindling::device::{available_devices, pick_device};

use crate::fixture::{Fixture, succeeds};

const CARD: &str = "wgpu:0";

/// Longest time until a first checkpoint, kernels compiled on a processor that is busy.
const PATIENCE: Duration = Duration::from_mins(10);

/// Nats per token: sums of the same numbers in other orders, over twelve steps that add them up.
const TOLERANCE: f64 = 1e-4;

/// Whether there is a card; says so where there is none, past the test harness.
///
/// A software driver crashes on CubeCL's SPIR-V (see `model/tests/kernels/card.rs`): it is used in a
/// build without `vulkan`, or where `KINDLING_SOFTWARE_VULKAN` is set.
fn card_is_here() -> bool {
    let auto = pick_device("auto").unwrap();
    let is_asked_for = std::env::var_os("KINDLING_SOFTWARE_VULKAN").is_some();
    let is_card = auto != Device::flex() || is_asked_for || !cfg!(feature = "vulkan");
    let here = is_card && available_devices().iter().any(|name| name == CARD);
    if !here {
        let note = "SKIPPED: no graphics card is here, or only a software driver";
        writeln!(std::io::stderr(), "{note}").unwrap();
    }
    here
}

/// The loss of each step and of each validation.
fn losses(fixture: &Fixture, run: &str) -> Vec<f64> {
    let metrics = fs::read_to_string(fixture.path(run).join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["loss"].as_f64()
    };
    metrics.lines().filter_map(loss).collect()
}

/// A run on the card. Measuring which kernels are fastest takes a processor minutes.
fn on_card(fixture: &Fixture, run: &str) -> Command {
    let mut command = fixture.pretrain_on(CARD, run, &[]);
    command.env("CUBECL_AUTOTUNE_LEVEL", "minimal");
    command
}

fn greedy_answer(fixture: &Fixture, device: &str) -> String {
    let mut chat = Command::new(env!("CARGO_BIN_EXE_kindling"));
    chat.args(["chat", "--device", device, "--prompt", "1+1="]);
    chat.args(["--temperature", "0", "--max-new-tokens", "16"]);
    chat.env("CUBECL_AUTOTUNE_LEVEL", "minimal");
    chat.arg("--model").arg(fixture.path("cpu").join("final"));
    String::from_utf8(succeeds(chat).stdout).unwrap()
}

/// Trains until a checkpoint is there, and not to the end.
fn train_and_kill(fixture: &Fixture, run: &str) {
    let mut child = on_card(fixture, run)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let latest = fixture.path(run).join("latest");
    let start = Instant::now();
    while !latest.exists() {
        assert!(start.elapsed() < PATIENCE, "no checkpoint is saved");
        assert!(child.try_wait().unwrap().is_none(), "the run ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The CPU's losses are the expected ones, and so are the words of its model. The card's run is
/// killed on the way and resumed.
#[test]
fn a_graphics_card_trains_and_answers_as_the_cpu_does() {
    if !card_is_here() {
        return;
    }
    let fixture = Fixture::new();
    succeeds(fixture.pretrain("cpu", &[]));
    train_and_kill(&fixture, "card");
    let mut resumed = on_card(&fixture, "card");
    resumed.arg("--resume");
    let notes = String::from_utf8(succeeds(resumed).stderr).unwrap();
    assert!(notes.contains("going on from"), "{notes}");
    assert!(notes.contains("the first step took"), "{notes}");
    let (expected, found) = (losses(&fixture, "cpu"), losses(&fixture, "card"));
    assert!(expected.len() > 12, "steps and validations: {expected:?}");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let difference = (found - expected).abs();
        assert!(
            difference < TOLERANCE,
            "{found} on the card, {expected} on the CPU"
        );
    }
    let expected = greedy_answer(&fixture, "cpu");
    assert!(!expected.trim().is_empty());
    assert_eq!(greedy_answer(&fixture, CARD), expected);
}
