//! A run that is killed, at any moment and again and again, ends with the weights of one that is not.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fixture::{Fixture, fails, hash, succeeds};

/// Longest time a test run takes, tens of times over.
const PATIENCE: Duration = Duration::from_mins(2);

fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the process after `delay`; true if it had ended well by itself before.
fn kill_after(mut child: Child, delay: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < delay {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the run failed by itself: {status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

/// SIGKILL leaves no chance to tidy up. With a checkpoint after every step a good part of the
/// moments falls into a save.
#[test]
fn a_run_killed_many_times_ends_with_the_same_weights() {
    let fixture = Fixture::new();
    let settings = ["checkpoint.every_steps=1", "validation.every_steps=3"];
    let start = Instant::now();
    succeeds(fixture.pretrain("whole", &settings));
    let mut whole = start.elapsed();
    let expected = fixture.weights_hash("whole");

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut num_kills = 0;
    let mut round = 0;
    while round < 4 || num_kills < 4 {
        let run = format!("killed-{round}");
        let start = Instant::now();
        loop {
            assert!(
                start.elapsed() < PATIENCE,
                "round {round} does not get to its end"
            );
            let mut command = fixture.pretrain(&run, &settings);
            command.arg("--resume");
            // Early kills hit the start and the first saves, late ones the end and the export.
            let delay = whole.mul_f64(rng.random_range(0.15..1.1));
            let begun = Instant::now();
            if kill_after(spawn(command), delay) {
                // The whole run may have been slowed by the tests beside it.
                whole = whole.min(begun.elapsed());
                break;
            }
            num_kills += 1;
            // And the machine may be slower by now than when it was measured.
            whole = whole.mul_f64(1.05);
        }
        assert_eq!(fixture.weights_hash(&run), expected, "round {round}");
        let metrics = std::fs::read_to_string(fixture.path(&run).join("metrics.jsonl")).unwrap();
        let num_steps = metrics
            .lines()
            .filter(|line| line.contains("\"kind\":\"step\""))
            .count();
        assert_eq!(num_steps, 12, "each step is reported once");
        round += 1;
        assert!(round < 40, "killed only {num_kills} times");
    }
}

/// SIGTERM is a request: the run saves, says so, and exits with the code of an interruption.
#[cfg(unix)]
#[test]
fn a_terminated_run_saves_and_resumes() {
    let fixture = Fixture::new();
    // Long enough to be stopped in the middle, with no checkpoint on the way but the last one's.
    let settings = [
        "train.length=400 steps",
        "checkpoint.every_steps=0",
        "samples.prompts=[]",
    ];
    let mut child = spawn(fixture.pretrain("stopped", &settings));
    let metrics = fixture.path("stopped").join("metrics.jsonl");
    let start = Instant::now();
    let has_begun = || std::fs::read_to_string(&metrics).is_ok_and(|text| text.contains("step"));
    while !has_begun() {
        assert!(start.elapsed() < PATIENCE, "no step is reported");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = child.wait().unwrap();
    assert_ne!(
        status.code(),
        Some(0),
        "the run ended before the signal: make it longer"
    );
    assert_eq!(status.code(), Some(130));
    let mut command = fixture.pretrain("stopped", &settings);
    command.arg("--resume");
    succeeds(command);
    succeeds(fixture.pretrain("whole", &settings));
    assert_eq!(
        fixture.weights_hash("stopped"),
        fixture.weights_hash("whole")
    );
}

/// A disk that is full in the middle of a save: the shell's limit on the size of a file makes the
/// operating system refuse the write, as it does on a full disk.
#[cfg(unix)]
#[test]
fn a_save_that_the_disk_refuses_is_an_error_and_the_last_checkpoint_survives() {
    let fixture = Fixture::new();
    let settings = ["checkpoint.every_steps=1", "train.length=40 steps"];
    succeeds(fixture.pretrain("whole", &settings));
    let mut child = spawn(fixture.pretrain("run", &settings));
    let latest = fixture.path("run").join("latest");
    let start = Instant::now();
    while !latest.exists() {
        assert!(start.elapsed() < PATIENCE, "no checkpoint is saved");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = std::fs::read_to_string(&latest).unwrap();
    let weights = fixture.path("whole/final/model.safetensors");
    let half = std::fs::metadata(weights).unwrap().len() / 512 / 2;

    let whole = fixture.pretrain("run", &settings);
    let mut limited = Command::new("sh");
    // An ignored signal stays ignored in the program: the write fails instead of ending it.
    let script = format!("trap '' XFSZ; ulimit -f {half}; exec \"$@\" --resume");
    limited.args(["-c", &script, "sh"]);
    limited.arg(whole.get_program()).args(whole.get_args());
    let message = fails(limited);
    assert!(message.contains("step_0000"), "{message}");
    assert!(message.contains("File too large"), "{message}");
    assert_eq!(std::fs::read_to_string(&latest).unwrap(), before);
    assert!(fixture.path("run").join(before.trim()).is_dir());

    let mut resumed = fixture.pretrain("run", &settings);
    resumed.arg("--resume");
    succeeds(resumed);
    assert_eq!(fixture.weights_hash("run"), fixture.weights_hash("whole"));
}

/// A byte that turned on the disk is found before it is trained on.
#[test]
fn a_flipped_byte_in_a_checkpoint_is_an_error() {
    let fixture = Fixture::new();
    succeeds(fixture.pretrain("run", &[]));
    let newest = fixture.path("run").join("step_000012");
    let file = std::fs::read_dir(&newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_stem().is_some_and(|stem| stem == "model"))
        .unwrap();
    let before = hash(&file);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_ne!(hash(&file), before);
    let mut command = fixture.pretrain("run", &[]);
    command.arg("--resume");
    let message = fails(command);
    assert!(
        message.contains(file.file_name().unwrap().to_str().unwrap()),
        "{message}"
    );
    assert!(message.contains("checksum"), "{message}");
}
