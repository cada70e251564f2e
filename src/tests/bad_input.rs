//! What a user may get wrong: each says where and what, exits with 1, and leaves nothing behind.

use crate::fixture::{Fixture, fails};

/// Runs `1-pretrain` with a setting that is wrong and returns its message.
fn refusal(fixture: &Fixture, settings: &[&str]) -> String {
    let message = fails(fixture.pretrain("run", settings));
    assert!(
        !fixture.path("run").exists(),
        "a run folder was left behind"
    );
    message.replace(
        &format!("{}/", fixture.path("").display()).replace("//", "/"),
        "",
    )
}

#[test]
fn a_broken_line_is_named_with_its_number() {
    let fixture = Fixture::new();
    fixture.write("text.jsonl", "{\"text\": \"one\"}\n{\"text\": two}\n");
    let message = refusal(&fixture, &[]);
    assert!(
        message.starts_with("1-pretrain: text.jsonl:2: not a valid row: "),
        "{message}"
    );
}

#[test]
fn a_missing_field_is_named_with_those_that_are_there() {
    let fixture = Fixture::new();
    fixture.write("text.jsonl", "{\"content\": \"one\"}\n");
    let message = refusal(&fixture, &[]);
    assert!(message.contains("text.jsonl:1:"), "{message}");
    assert!(message.contains("content"), "{message}");
}

#[test]
fn an_empty_file_is_an_error() {
    let fixture = Fixture::new();
    fixture.write("text.jsonl", "");
    let message = refusal(&fixture, &[]);
    assert!(message.contains("text.jsonl"), "{message}");
}

#[test]
fn text_that_is_not_utf_8_is_named_with_its_line() {
    let fixture = Fixture::new();
    fixture.write("text.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"\xff\"}\n");
    let message = refusal(&fixture, &[]);
    assert!(message.contains("text.jsonl:2"), "{message}");
    assert!(message.contains("UTF-8"), "{message}");
}

#[test]
fn a_pattern_without_files_is_an_error() {
    let fixture = Fixture::new();
    let message = refusal(&fixture, &["data.sources=[{path = \"nowhere/*.jsonl\"}]"]);
    assert!(message.contains("nowhere/*.jsonl"), "{message}");
}

#[test]
fn a_misspelt_key_is_refused_with_the_right_one() {
    let fixture = Fixture::new();
    let message = refusal(
        &fixture,
        &["optimizer.learning_rate=1e-3", "optimizer.weight_decy=0.1"],
    );
    assert!(
        message.contains("--set optimizer.learning_rate=1e-3"),
        "{message}"
    );
    let message = refusal(&fixture, &["optimizer.weight_decy=0.1"]);
    assert!(
        message.contains("did you mean `weight_decay`?"),
        "{message}"
    );
}

#[test]
fn rows_longer_than_the_model_reads_are_refused() {
    let fixture = Fixture::new();
    let message = refusal(&fixture, &["data.seq_len=513"]);
    assert!(message.contains("max_position_embeddings"), "{message}");
    assert!(
        message.contains("513") && message.contains("512"),
        "{message}"
    );
}

#[test]
fn a_vocabulary_that_does_not_fit_the_model_is_refused() {
    let fixture = Fixture::new();
    let shape = std::fs::read_to_string("configs/model/debug.json").unwrap();
    fixture.write(
        "small.json",
        shape.replace("\"vocab_size\": 512", "\"vocab_size\": 299"),
    );
    let setting = format!("model.config={}", fixture.path("small.json").display());
    let message = refusal(&fixture, &[&setting]);
    assert!(
        message.contains("299") && message.contains("300"),
        "{message}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let fixture = Fixture::new();
    fixture.write("file", "a file where a folder is wanted");
    let message = fails(fixture.pretrain("file/run", &[]));
    assert!(message.contains("file/run"), "{message}");
}

#[test]
fn an_existing_run_is_not_overwritten() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("run/final")).unwrap();
    let message = fails(fixture.pretrain("run", &[]));
    assert!(message.contains("holds a run already"), "{message}");
}

#[test]
fn an_absent_device_is_an_error_that_lists_those_present() {
    let fixture = Fixture::new();
    let message = fails(fixture.pretrain_on("cuda:97", "run", &[]));
    let expected = "1-pretrain: --devices cuda:97: no such device; available: cpu";
    assert!(message.starts_with(expected), "{message}");
}
