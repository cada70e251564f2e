//! Runs on the devices of workers, which are processes of their own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Fixture, fails, succeeds};

const NUM_STEPS: usize = 20;
/// Sums of the same terms in another order.
const TOLERANCE: f64 = 1e-5;

struct Worker {
    process: Child,
    /// As `--devices` names it.
    name: String,
}

impl Worker {
    fn start(token: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kindling"))
            .args(["worker", "--devices", "cpu", "--port", "0"])
            .env("KINDLING_WORKER_TOKEN", token)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut messages = BufReader::new(process.stderr.take().unwrap());
        messages.read_line(&mut line).unwrap();
        let name = line.split_whitespace().last().unwrap().to_owned();
        assert!(name.starts_with("remote:127.0.0.1:"), "{line}");
        // What it says further goes nowhere, but must not stop it.
        std::thread::spawn(move || messages.lines().count());
        Self { process, name }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Twenty steps of four micro-batches, on the devices of these workers.
fn pretrain(fixture: &Fixture, run: &str, workers: &[&Worker]) -> Command {
    let length = format!("train.length={NUM_STEPS} steps");
    let settings = [
        &length,
        "train.grad_accumulation_steps=4",
        "samples.prompts=[]",
    ];
    let names: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
    let mut command = fixture.pretrain_on(&names.join(","), run, &settings);
    command.env("KINDLING_WORKER_TOKEN", "secret");
    command
}

/// Losses by step, as the run reports them.
fn losses(run: &Path) -> Vec<f64> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let rows = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let steps = rows.filter(|row: &Value| row["kind"] == "step");
    steps.map(|row| row["loss"].as_f64().unwrap()).collect()
}

/// The same batches on one device of this process, on one worker and on two; then one of two dies.
#[test]
fn two_workers_are_as_good_as_one_and_one_may_die() {
    let fixture = Fixture::new();
    let [first, second] = ["secret"; 2].map(Worker::start);
    succeeds(pretrain(&fixture, "one", &[&first]));
    succeeds(pretrain(&fixture, "two", &[&first, &second]));
    let one = losses(&fixture.path("one"));
    let two = losses(&fixture.path("two"));
    assert_eq!([one.len(), two.len()], [NUM_STEPS; 2]);
    for (one, two) in one.iter().zip(&two) {
        assert!((one - two).abs() < TOLERANCE, "{one} {two}");
    }
    assert!(one[0] - one[NUM_STEPS - 1] > 0.1, "it learns: {one:?}");

    let mortal = Worker::start("secret");
    let mut command = pretrain(&fixture, "killed", &[&first, &mortal]);
    let run = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while losses(&fixture.path("killed")).len() < 5 {
        assert!(start.elapsed() < Duration::from_mins(2), "no five steps");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(mortal);
    let output = run.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("a device failed: "), "{message}");
    assert!(!message.contains("panicked"), "{message}");

    let mut resumed = pretrain(&fixture, "killed", &[&first, &second]);
    resumed.arg("--resume");
    succeeds(resumed);
    let killed = losses(&fixture.path("killed"));
    assert_eq!(killed.len(), NUM_STEPS);
    for (one, killed) in one.iter().zip(&killed) {
        assert!((one - killed).abs() < TOLERANCE, "{one} {killed}");
    }
}

/// A wrong token, a worker that is not there, a device twice, micro-batches that cannot be shared.
#[test]
fn what_cannot_be_shared_is_refused() {
    let fixture = Fixture::new();
    let worker = Worker::start("another");
    let message = fails(pretrain(&fixture, "run", &[&worker]));
    assert!(message.contains(&worker.name), "{message}");
    assert!(message.contains("rejected the credential"), "{message}");

    let worker = Worker::start("secret");
    let message = fails(pretrain(&fixture, "run", &[&worker, &worker]));
    assert!(message.contains("is named twice"), "{message}");

    let other = Worker::start("secret");
    let mut command = pretrain(&fixture, "run", &[&worker, &other]);
    command.args(["--set", "train.grad_accumulation_steps=3"]);
    let message = fails(command);
    let expected = "train.grad_accumulation_steps: found 3, expected a multiple of 2";
    assert!(message.contains(expected), "{message}");
    assert!(!fixture.path("run").exists(), "nothing is written");
}
