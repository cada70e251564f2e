//! What `kindling launch` prints is read by `kindling` itself, word for word as a shell gives it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Launches in a folder with these answers; returns the commands that were printed, and all of it.
fn launched(folder: &TempDir, answers: &str) -> (Vec<String>, Output) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    // A name that no shell reads as it is.
    let data = folder.path().join("it's data");
    command.arg("launch").arg("--data").arg(data);
    command.arg("--out").arg(folder.path().join("out"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(answers.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = shown.lines().filter(|line| line.starts_with("kindling "));
    (lines.map(str::to_owned).collect(), output)
}

/// Runs a printed line through a shell, without a network and with an empty cache.
fn run_line(folder: &TempDir, line: &str, more: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_kindling");
    let line = line.strip_prefix("kindling").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("'{program}'{line} {more}")]);
    shell.env("HF_HUB_OFFLINE", "1").env_remove("HF_HUB_CACHE");
    shell.env("HF_HOME", folder.path().join("home"));
    shell.output().unwrap()
}

/// Six choices, six command lines; each is read, and fails only for what is not in the cache.
#[test]
fn every_set_s_command_is_read_by_our_own_parser() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--sft",
        "--cot",
        "--dpo",
        "--ruozhiba",
        "--loyalty-template",
        "--all --ruozhiba --loyalty-template",
    ];
    for (index, flags) in flags.iter().enumerate() {
        let (commands, output) = launched(&folder, &format!("1\n{}\nn\n", index + 1));
        assert!(output.status.success());
        let start = format!("kindling data prepare {flags} --output-dir '");
        assert!(
            commands.len() == 1 && commands[0].starts_with(&start),
            "{commands:?}"
        );
        let output = run_line(&folder, &commands[0], "");
        let is_built_in = flags == &"--loyalty-template";
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(i32::from(!is_built_in)),
            "{message}"
        );
        assert!(
            is_built_in || message.contains("because of offline mode"),
            "{message}"
        );
    }
    let (commands, _) = launched(&folder, "3\nn\n");
    let output = run_line(&folder, &commands[0], "");
    let stats = String::from_utf8(output.stdout).unwrap();
    assert!(
        stats.contains("it's data/loyalty_template.jsonl"),
        "{stats}"
    );
    assert!(stats.contains("  180 rows, 0 bad, 0 equal"), "{stats}");
}

/// Every way of training prepares what is missing, and its stages follow each other: each one's
/// config is there and takes the settings.
#[test]
fn every_mode_s_commands_are_read_by_our_own_parser() {
    let folder = tempfile::tempdir().unwrap();
    for mode in 1..=NUM_MODES {
        let (commands, _) = launched(&folder, &format!("2\n{mode}\n\n"));
        let (prepare, stages) = commands.split_first().unwrap();
        assert!(prepare.starts_with("kindling data prepare --"), "{prepare}");
        let mut model = "out/1-pretrain/final".to_owned();
        for line in stages {
            let output = run_line(&folder, line, "--print-config");
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(0), "{line}: {message}");
            let config = String::from_utf8(output.stdout).unwrap();
            let config: toml::Table = config.parse().unwrap();
            let fields = [&config["model"]["from"], &config["tokenizer"]["path"]];
            assert_eq!(
                fields.map(toml::Value::as_str),
                [Some(model.as_str()); 2],
                "{line}"
            );
            let out = line.rsplit(' ').next().unwrap();
            model = format!("{out}/final");
            let is_in_data = |path: &toml::Value| {
                let path = Path::new(path.as_str().unwrap());
                path.parent().unwrap().ends_with("it's data")
            };
            let files = config["data"]["files"].as_array().unwrap();
            assert!(!files.is_empty() && files.iter().all(is_in_data), "{line}");
        }
    }
}

/// A yes runs the command, and its exit code is the launcher's; a closed input is an error.
#[test]
fn a_yes_runs_what_was_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, output) = launched(&folder, "7\n1\n5\ny\n");
    assert!(output.status.success());
    assert!(
        folder
            .path()
            .join("it's data/loyalty_template.jsonl")
            .exists()
    );
    let (commands, output) = launched(&folder, "3\ny\n");
    assert_eq!((commands.len(), output.status.code()), (1, Some(0)));
    let (commands, output) = launched(&folder, "1\n");
    assert_eq!((commands.len(), output.status.code()), (0, Some(1)));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("the input ended, expected an answer"),
        "{message}"
    );
}

/// Standard, loyalty, storm and everything.
const NUM_MODES: usize = 4;
