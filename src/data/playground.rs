//! Questions of the playground to practise on, and others that training never shows.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dataset::playground::{Chains, Practice, Task};
use serde_json::{Value, json};

use super::files::free_to_write;
use crate::stdout::out;

/// Where the questions go, and how many there are.
#[derive(Debug, Clone, Args)]
pub struct PlaygroundArgs {
    /// Folder for sums.jsonl, sums_exam.jsonl, chains.jsonl and chains_exam.jsonl
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
    let rows = |chains: &[dataset::playground::Chain]| -> Vec<Value> {
        let rows = chains.iter();
        rows.map(|chain| json!({ "conversations": chain.conversation() }))
            .collect()
    };
    let files: [(&str, Vec<Value>); 4] = [
        ("sums", sums.taught.iter().map(|item| json!(item)).collect()),
        (
            "sums_exam",
            sums.held_out.iter().map(|item| json!(item)).collect(),
        ),
        ("chains", rows(&chains.taught)),
        ("chains_exam", rows(&chains.held_out)),
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
