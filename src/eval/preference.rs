//! Preference accuracy from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::Args;
use dataset::journal::Journal;
use eval::fingerprint::{data_fingerprint, model_fingerprint};
use eval::preference::{PairScore, read_pairs};
use eval::score::score;
use eval::stats::Rate;
use serde_json::json;

use super::{GOES_ON, ModelArgs, interrupted, progress_bar, write_json};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Pairs that are scored and written down together.
const GROUP: usize = 32;

/// Which pairs.
#[derive(Debug, Clone, Args)]
pub(super) struct PreferenceArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// File of preferences: MiniMind's, HH-RLHF's, UltraFeedback's, or prompt, chosen and rejected
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
}

pub(super) fn run(args: &PreferenceArgs) -> Result<ExitCode> {
    let engine = args.model.load()?;
    let requests = read_pairs(&args.data, &engine.tokenizer)?;
    let settings = json!({
        "kindling": env!("CARGO_PKG_VERSION"),
        "model_fingerprint": model_fingerprint(&args.model.model)?,
        "data_fingerprint": data_fingerprint(&requests),
    });
    let name = args.data.file_stem().unwrap_or_default().to_string_lossy();
    let out = args.model.out_dir(&format!("preference-{name}"))?;
    let groups: Vec<_> = requests.chunks(GROUP).collect();
    let mut journal: Journal<Vec<PairScore>> =
        Journal::open(&out.join("groups.jsonl"), &settings, |found| found)?;
    let stop = stop_on_signal()?;
    let bar = progress_bar("preference", groups.len(), journal.records().len());
    for group in groups.iter().skip(journal.records().len()) {
        if stop.load(Ordering::SeqCst) {
            return Ok(interrupted(&bar, GOES_ON));
        }
        let scores = score(&engine.model, group)?;
        let scores = group.iter().zip(scores).map(|(request, scores)| PairScore {
            chosen: (scores.logps[0] * 1e6).round() / 1e6,
            rejected: (scores.logps[1] * 1e6).round() / 1e6,
            chosen_tokens: request.continuations[0].len(),
            rejected_tokens: request.continuations[1].len(),
        });
        journal.append(vec![scores.collect()])?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let scores: Vec<&PairScore> = journal.records().iter().flatten().collect();
    let rate = |is_right: fn(&PairScore) -> bool| {
        let right = scores.iter().filter(|score| is_right(score)).count();
        Rate::new(right, scores.len())
    };
    let whole = rate(PairScore::is_right);
    let per_token = rate(PairScore::is_right_per_token);
    for (name, rate) in [("whole answer", whole), ("per token", per_token)] {
        let [share, low, high] = [rate.share, rate.low, rate.high].map(|share| 100.0 * share);
        let verdict = if rate.may_be(0.5) {
            "not distinguishable from chance (50 %)"
        } else if rate.share > 0.5 {
            "above chance (50 %)"
        } else {
            "below chance (50 %)"
        };
        out!(
            "{name:<14}{share:>7.2} % ({low:.2} to {high:.2} %) of {}: {verdict}",
            scores.len()
        )?;
    }
    write_json(
        &out.join("preference.json"),
        &json!({ "settings": settings, "whole_answer": whole, "per_token": per_token }),
    )?;
    Ok(ExitCode::SUCCESS)
}
