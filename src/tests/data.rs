//! What `kindling data` shows of a file, and when it fails.

use std::process::Command;

use crate::fixture::{Fixture, fails, succeeds};

const ROWS: &str = r#"{"instruction": "1+1=", "output": "2"}
{"instruction": "2+2="
{"instruction": "3+3=", "output": "6"}
"#;

fn data(fixture: &Fixture, tool: &str, file: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args(["data", tool]).arg(fixture.path(file));
    command.arg("--tokenizer").arg(fixture.path("tokenizer"));
    command.args(flags);
    command
}

/// Without colours what is trained stands in brackets: the answer with its end, nothing else.
#[test]
fn inspect_shows_what_is_trained() {
    let fixture = Fixture::new();
    fixture.write("a.jsonl", ROWS);
    let text = |flags: &[&str]| {
        let output = succeeds(data(&fixture, "inspect", "a.jsonl", flags));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = text(&["--rows", "2"]);
    assert!(shown.contains("a.jsonl:1: alpaca, "), "{shown}");
    assert!(
        shown.contains("<s>user\n1+1=</s>\n<s>assistant\n⟦2</s>⟧\n"),
        "{shown}"
    );
    assert!(shown.contains("a.jsonl:2: not JSON: "), "{shown}");
    assert!(!shown.contains("3+3="), "{shown}");

    let table = text(&["--table", "--rows", "1"]);
    let trained: Vec<&str> = table
        .lines()
        .filter(|line| line.contains("trained "))
        .collect();
    assert!(trained.last().unwrap().ends_with("\"</s>\""), "{table}");
    let colored = text(&["--color", "always", "--rows", "1"]);
    assert!(
        colored.contains("\u{1b}[32m") || colored.contains("\u{1b}[92m"),
        "{colored}"
    );
}

/// A third of the rows is broken: the line is named, and the exit code says whether that is much.
#[test]
fn validate_fails_when_too_much_is_bad() {
    let fixture = Fixture::new();
    fixture.write("a.jsonl", ROWS);
    let report = succeeds(data(
        &fixture,
        "validate",
        "a.jsonl",
        &["--max-bad-ratio", "0.5"],
    ));
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains("a.jsonl:2: not JSON: "), "{report}");
    assert!(report.contains("bad rows          1 (33.33 %)"), "{report}");
    let message = fails(data(&fixture, "validate", "a.jsonl", &[]));
    assert!(message.contains("more than a share of 0.01"), "{message}");
    let message = fails(data(
        &fixture,
        "validate",
        "a.jsonl",
        &["--format", "sharegpt"],
    ));
    assert!(message.contains("more than a share of 0.01"), "{message}");
}

/// Functions that may be called reach the text through a template of one's own.
#[test]
fn a_template_file_takes_the_place_of_the_tokenizer_s() {
    let fixture = Fixture::new();
    let row = r#"{"tools": "[{\"name\": \"f\"}]", "conversations": [{"from": "human", "value": "q"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"}]}"#;
    fixture.write("a.jsonl", row.replace('\n', " "));
    let flags = ["--chat-template", "configs/chat_template.v1_tools.jinja"];
    let output = succeeds(data(&fixture, "inspect", "a.jsonl", &flags));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("Tools:\n{\"name\": \"f\"}\n<s>user\nq</s>"),
        "{shown}"
    );
    assert!(
        shown.contains("⟦<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call></s>⟧"),
        "{shown}"
    );
}
