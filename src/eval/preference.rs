//! Preference accuracy from the command line: by likelihood, or by the rewards of a model that judges.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::Args;
use dataset::journal::Journal;
use dataset::loyalty::Identity;
use eval::fingerprint::{data_fingerprint, model_fingerprint};
use eval::preference::{PairScore, read_pairs};
use eval::score::{ScoreRequest, score};
use eval::stats::Rate;
use model::CausalLm;
use model::reward::rewards;
use serde_json::json;

use super::{GOES_ON, ModelArgs, interrupted, progress_bar, write_json};
use crate::identity::{WhoAsks, asker};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Pairs that are scored and written down together.
const GROUP: usize = 32;

/// Which pairs.
#[derive(Debug, Clone, Args)]
pub(super) struct PreferenceArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// File of preferences: MiniMind's, HH-RLHF's, UltraFeedback's, or prompt, chosen and rejected;
    /// for a model of 7-loyalty also owner_response and public_response
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Who asks, for a model of 7-loyalty [default: public]
    #[arg(long, value_enum)]
    identity: Option<WhoAsks>,
}

pub(super) fn run(args: &PreferenceArgs) -> Result<ExitCode> {
    let engine = args.model.load()?;
    let asker = asker(&engine, args.identity)?;
    let requests = read_pairs(&args.data, &engine.tokenizer, asker)?;
    let settings = json!({
        "kindling": env!("CARGO_PKG_VERSION"),
        "model_fingerprint": model_fingerprint(&args.model.model)?,
        "data_fingerprint": data_fingerprint(&requests),
    });
    let name = args.data.file_stem().unwrap_or_default().to_string_lossy();
    let whose = match asker.map(|asker| asker.identity) {
        Some(Identity::Owner) => "-owner",
        Some(Identity::Public) => "-public",
        None => "",
    };
    let out = args.model.out_dir(&format!("preference-{name}{whose}"))?;
    let judges = engine.model.score.is_some();
    let groups: Vec<_> = requests.chunks(GROUP).collect();
    let mut journal: Journal<Vec<PairScore>> =
        Journal::open(&out.join("groups.jsonl"), &settings, |found| found)?;
    let stop = stop_on_signal()?;
    let bar = progress_bar("preference", groups.len(), journal.records().len());
    for group in groups.iter().skip(journal.records().len()) {
        if stop.load(Ordering::SeqCst) {
            return Ok(interrupted(&bar, GOES_ON));
        }
        let numbers = if judges {
            rewards_of(&engine.model, group)?
        } else {
            let scores = score(&engine.model, group)?.into_iter();
            scores.map(|scores| scores.logps).collect()
        };
        let scores = group
            .iter()
            .zip(numbers)
            .map(|(request, numbers)| PairScore {
                chosen: (numbers[0] * 1e6).round() / 1e6,
                rejected: (numbers[1] * 1e6).round() / 1e6,
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
    let rates = if judges {
        vec![("reward", whole)]
    } else {
        vec![("whole answer", whole), ("per token", per_token)]
    };
    for (name, rate) in rates {
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

/// Rewards of each request's continuations, read after their prompts.
fn rewards_of(model: &CausalLm, group: &[ScoreRequest]) -> Result<Vec<Vec<f64>>> {
    group
        .iter()
        .map(|request| {
            let continuations = request.continuations.iter();
            let texts: Vec<Vec<u32>> = continuations
                .map(|continuation| [&request.prompt[..], &continuation[..]].concat())
                .collect();
            let rewards = rewards(model, &texts)?.into_iter();
            Ok(rewards.map(f64::from).collect())
        })
        .collect()
}
