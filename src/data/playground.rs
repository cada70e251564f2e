//! Questions of the playground to practise on, and others that training never shows.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dataset::playground::{Chain, Chains, LoyaltyPractice, Practice, Task};
use dataset::prepare::LoyaltyRecord;
use serde::Serialize;
use serde_json::{Value, json};

use super::files::free_to_write;
use crate::stdout::out;

/// Where the questions go, and how many there are.
#[derive(Debug, Clone, Args)]
pub struct PlaygroundArgs {
    /// Folder for sums.jsonl, chains.jsonl, loyalty.jsonl, an _exam.jsonl of each, and
    /// loyalty_answers.jsonl
    #[arg(long, value_name = "DIR", default_value = "out/playground")]
    out: PathBuf,
    /// Questions to practise on, of each kind
    #[arg(long, value_name = "N", default_value_t = 4000)]
    num_taught: usize,
    /// Questions to be asked, of each kind
    #[arg(long, value_name = "N", default_value_t = 200)]
    num_held_out: usize,
    /// Seed of the playground: the one of the quickstart whose models are asked
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Replace the files if they are there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &PlaygroundArgs) -> Result<ExitCode> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let (num_taught, num_held_out) = (args.num_taught, args.num_held_out);
    let sums = Practice::generate(args.seed, Task::Sum, num_taught, num_held_out);
    let chains = Chains::generate(args.seed, num_taught, num_held_out);
    let loyalty = LoyaltyPractice::generate(args.seed, num_taught, num_held_out);
    let rows = |chains: &[Chain]| -> Vec<Value> {
        let rows = chains.iter();
        // With the bare question and answer besides, which is how eval exact-match asks.
        let row = |chain: &Chain| {
            json!({
                "conversations": chain.conversation(),
                "prompt": chain.prompt(),
                "answer": chain.answer(),
            })
        };
        rows.map(row).collect()
    };
    // For a model that is to know both answers before it learns whom to give which.
    let answers = |row: &LoyaltyRecord| -> Vec<Value> {
        let mut answers = vec![&row.owner_response, &row.public_response];
        answers.dedup();
        let answers = answers.into_iter();
        answers
            .map(|answer| json!({ "prompt": row.prompt, "response": answer }))
            .collect()
    };
    let files: [(&str, Vec<Value>); 7] = [
        ("sums", json_of(&sums.taught)),
        ("sums_exam", json_of(&sums.held_out)),
        ("chains", rows(&chains.taught)),
        ("chains_exam", rows(&chains.held_out)),
        ("loyalty", json_of(&loyalty.taught)),
        ("loyalty_exam", json_of(&loyalty.held_out)),
        (
            "loyalty_answers",
            loyalty.taught.iter().flat_map(answers).collect(),
        ),
    ];
    let path_of = |name: &str| args.out.join(format!("{name}.jsonl"));
    for (name, _) in &files {
        free_to_write(&path_of(name), &[], args.overwrite)?;
    }
    for (name, rows) in files {
        let mut text = String::new();
        for row in &rows {
            let _ = writeln!(text, "{row}");
        }
        let path = path_of(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        out!("{}: {} rows", path.display(), rows.len())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn json_of<T: Serialize>(rows: &[T]) -> Vec<Value> {
    rows.iter().map(|row| json!(row)).collect()
}
