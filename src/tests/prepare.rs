//! Training data from its publishers' files to files of ours, and what can be done with those.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::fixture::{fails, succeeds};
use crate::hub_server::HubServer;

const HUB: &str = "dataset/tests/golden/hub";

fn data(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.arg("data").args(args);
    command
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a data command that ends in `FLAG FOLDER/name`; returns what it printed.
fn printed(folder: &TempDir, args: &[&str], flag: &str, name: &str) -> String {
    let mut command = data(args);
    command.arg(flag).arg(folder.path().join(name));
    String::from_utf8(succeeds(command).stdout).unwrap()
}

/// All of APT's choices at once, from a hub whose address is in the environment; then once more
/// without it.
#[test]
fn all_sets_come_from_a_hub_and_then_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start(HUB);
    let prepare = |output: &str, flags: &[&str]| {
        let mut command = data(&["prepare", "--all", "--ruozhiba", "--loyalty-template"]);
        command.args(["--max-dropped", "0.5"]).args(flags);
        command.arg("--output-dir").arg(folder.path().join(output));
        command.env("HF_ENDPOINT", &server.endpoint);
        command.env("HF_HOME", folder.path().join("home"));
        for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
            command.env_remove(variable);
        }
        String::from_utf8(succeeds(command).stdout).unwrap()
    };
    let first = prepare("first", &[]);
    assert!(
        first.contains("coig-cqia_train.jsonl: 4 rows of 5"),
        "{first}"
    );
    assert!(
        first.contains("loyalty_template.jsonl: 180 rows of 180"),
        "{first}"
    );
    assert_eq!(first.lines().count(), 8);
    let num_asked = server.log().len();

    let second = prepare("second", &["--offline"]);
    assert_eq!(second.replace("second", "first"), first);
    assert_eq!(server.log().len(), num_asked);
    let infos = |output: &str| text(&folder.path().join(output).join("dataset_info.json"));
    assert_eq!(infos("first"), infos("second"));
    let infos: serde_json::Value = serde_json::from_str(&infos("first")).unwrap();
    let riddles = &infos["ruozhiba_train.jsonl"];
    assert_eq!(riddles["repo"], "m-a-p/COIG-CQIA");
    assert_eq!(riddles["revision"], crate::hub_server::REVISION);
    let written = folder.path().join("first/ruozhiba_train.jsonl");
    assert_eq!(riddles["sha256"], crate::fixture::hash(&written));
    assert_eq!(
        infos["coig-cqia_train.jsonl"]["dropped"]["`prompt` is empty"],
        1
    );
}

/// One set that is not there does not keep the others away, and the exit code says so.
#[test]
fn a_missing_set_is_named_and_the_rest_is_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = data(&[
        "prepare",
        "--cot",
        "--dpo",
        "--max-dropped",
        "0.5",
        "--from",
    ]);
    command.arg(Path::new(HUB).join("Anthropic"));
    command.arg("--output-dir").arg(folder.path());
    let message = fails(command);
    assert!(
        message.contains("s1k: found no file of simplescaling/s1K-1.1 in "),
        "{message}"
    );
    assert!(
        message.contains("kindling: not prepared: s1k, s1k-gemini, ultrafeedback"),
        "{message}"
    );
    assert!(folder.path().join("hh-rlhf_train.jsonl").exists());
    assert!(!folder.path().join("s1k_train.jsonl").exists());
}

/// A third of the rows of s1K-1.1's two has no thoughts: too much for the guard as it is set.
#[test]
fn too_many_dropped_rows_fail() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = data(&["prepare", "--only", "s1k", "--from", HUB]);
    command.arg("--output-dir").arg(folder.path());
    let message = fails(command);
    assert!(
        message.contains(
            "s1k: 1 of 3 train rows cannot be used, expected less than a share of 0.2: \
             1 x `cot_explicit` is empty (the first at data/train-00000-of-00001.parquet:3)"
        ),
        "{message}"
    );
}

/// Nothing asked for, or a set that nobody knows: the command line is wrong.
#[test]
fn unknown_sets_are_refused_with_the_known_ones() {
    for (args, expected) in [
        (&["prepare"][..], "<--all|--sft|"),
        (
            &["prepare", "--only", "s2k"][..],
            "expected one of coig-cqia, ruozhiba, s1k,",
        ),
        (
            &["prepare", "--sft", "--max-samples", "0"][..],
            "--max-samples",
        ),
    ] {
        let output = data(args).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

/// What was prepared is mixed, parted, counted and looked at.
#[test]
fn prepared_files_are_mixed_parted_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let sets = &["prepare", "--sft", "--ruozhiba", "--from", HUB];
    printed(&folder, sets, "--output-dir", ".");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let all = path("*_train.jsonl");
    let args = [
        "merge",
        &all,
        "--shares",
        "1,1",
        "--num-rows",
        "10",
        "--shuffle",
    ];
    assert!(printed(&folder, &args, "--out", "mix.jsonl").ends_with("mix.jsonl: 10 rows\n"));
    let riddle = "鱼会不会口渴？";
    assert!(text(&folder.path().join("mix.jsonl")).contains(riddle));

    let (coig, mix) = (path("coig-cqia_train.jsonl"), path("mix.jsonl"));
    let args = ["split", &coig, "--test-ratio", "0.25"];
    let parted = printed(&folder, &args, "--output-dir", "parts");
    assert!(
        parted.contains("coig-cqia_train_train.jsonl: 3 rows\n"),
        "{parted}"
    );
    assert!(
        parted.contains("coig-cqia_train_test.jsonl: 1 rows\n"),
        "{parted}"
    );

    let stats = succeeds(data(&["stats", &coig, &mix]));
    let stats = String::from_utf8(stats.stdout).unwrap();
    assert!(
        stats.contains("  4 rows, 0 bad, 0 equal to an earlier one\n"),
        "{stats}"
    );
    assert!(
        stats.contains("  task_type.major:\n          3  问答\n"),
        "{stats}"
    );
    let wrong = data(&[
        "merge",
        &coig,
        "--weights",
        "1,2",
        "--out",
        &path("no.jsonl"),
    ]);
    assert!(fails(wrong).contains("found 2 weights for 1 files"));
}
