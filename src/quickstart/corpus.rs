//! The files that the stages read, all made from a seed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use dataset::Message;
use dataset::playground::{Playground, Practice};
use serde_json::{Value, json};

use super::rename::renamed_rows;

/// The held-out questions, within the quickstart's folder.
pub(super) const EXAM: &str = "data/exam.jsonl";

const MODEL: &str = include_str!("../../configs/model/quickstart.json");

/// What there is to learn and to be asked.
pub(super) struct Corpus {
    pub(super) playground: Playground,
    /// Sums that are answered for rewards.
    pub(super) sums: Practice,
}

impl Corpus {
    /// Writes all files into `data/`.
    pub(super) fn write(&self, out: &Path) -> Result<()> {
        let Self { playground, sums } = self;
        // First: it is what tells a quickstart's folder from others.
        let exam = playground.exam.iter().map(|item| json!(item));
        write_lines(&out.join(EXAM), exam)?;
        let data = out.join("data");
        let documents = playground.documents.iter();
        let documents = documents.map(|text| json!({ "text": text }));
        write_lines(&data.join("documents.jsonl"), documents)?;
        let rows = playground.rows.iter();
        let rows = rows.map(|row| json!({ "conversations": row }));
        write_lines(&data.join("conversations.jsonl"), rows)?;
        let renamed = renamed_rows(&playground.rows).into_iter();
        let renamed = renamed.map(|row| json!({ "conversations": row }));
        write_lines(&data.join("renamed.jsonl"), renamed)?;
        let turns = playground.rows.iter();
        let turns = turns.map(|row| json!({ "text": plain_turns(row) }));
        write_lines(&data.join("turns.jsonl"), turns)?;
        let pairs = playground.pairs.iter().map(|pair| json!(pair));
        write_lines(&data.join("pairs.jsonl"), pairs)?;
        let taught = sums.taught.iter().map(|item| json!(item));
        write_lines(&data.join("sums.jsonl"), taught)?;
        let held_out = sums.held_out.iter().map(|item| json!(item));
        write_lines(&data.join("sums_exam.jsonl"), held_out)?;
        write(&data.join("model.json"), MODEL)
    }
}

/// Writes a JSONL file.
pub(super) fn write_lines(path: &Path, lines: impl Iterator<Item = Value>) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    write(path, &text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// A conversation as plain text: the tokenizer learns the words of the chat template from it.
fn plain_turns(row: &[Message]) -> String {
    let mut text = String::new();
    for turn in row {
        let _ = writeln!(text, "{}\n{}", turn.role, turn.content);
    }
    text
}
