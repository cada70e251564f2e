//! Exact answers and pass@k from the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use clap::Args;
use dataset::answer::{extract_answer, is_same_answer};
use dataset::journal::Journal;
use eval::chat::{Conversation, Mode};
use eval::engine::{AnswerConfig, Engine};
use eval::fingerprint::{data_fingerprint, model_fingerprint};
use eval::short_answer::{ShortAnswerRow, pass_at_k, read_short_answers};
use eval::stats::Rate;
use model::generate::{GenerateConfig, Prompt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{GOES_ON, ModelArgs, interrupted, progress_bar, write_json};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Answers that are written at the same time.
const WRITTEN_TOGETHER: usize = 64;

/// Which questions, and how often they are asked.
#[derive(Debug, Clone, Args)]
pub(super) struct ExactMatchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// JSONL file of questions and answers: GSM8K's, MATH's or the playground's exam.jsonl
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Answers per question; above 1 they are drawn at random
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// The k of pass@k, each at most --samples
    #[arg(long, value_name = "K", value_delimiter = ',', default_values_t = [1])]
    k: Vec<usize>,
    /// Spread of the drawn answers
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f64,
    /// Seed of the drawn answers
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

/// The answers to one question.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reply {
    task: String,
    question: String,
    expected: String,
    texts: Vec<String>,
    num_right: usize,
}

pub(super) fn run(args: &ExactMatchArgs) -> Result<ExitCode> {
    if let Some(k) = args.k.iter().find(|k| !(1..=args.samples).contains(k)) {
        bail!("--k {k}: expected 1 to --samples {}", args.samples);
    }
    let rows = read_short_answers(&args.data)?;
    let engine = args.model.load()?;
    let settings = json!({
        "kindling": env!("CARGO_PKG_VERSION"),
        "max_new_tokens": args.max_new_tokens,
        "samples": args.samples,
        "temperature": args.temperature,
        "seed": args.seed,
        "model_fingerprint": model_fingerprint(&args.model.model)?,
        "data_fingerprint": data_fingerprint(&rows),
    });
    let name = args.data.file_stem().unwrap_or_default().to_string_lossy();
    let out = args.model.out_dir(&format!("exact-match-{name}"))?;
    let per_group = (WRITTEN_TOGETHER / args.samples).max(1);
    let mut journal: Journal<Reply> =
        Journal::open(&out.join("answers.jsonl"), &settings, |found| {
            if found == rows.len() {
                found
            } else {
                found - found % per_group
            }
        })?;
    let stop = stop_on_signal()?;
    let bar = progress_bar("exact match", rows.len(), journal.records().len());
    for (group, rows) in rows.chunks(per_group).enumerate() {
        if group * per_group < journal.records().len() {
            continue;
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(interrupted(&bar, GOES_ON));
        }
        let first = (group * per_group) as u64;
        journal.append(ask(&engine, rows, args, first)?)?;
        bar.set_position(journal.records().len() as u64);
    }
    bar.finish_and_clear();
    let tasks = scores(journal.records(), args)?;
    write_json(
        &out.join("exact_match.json"),
        &json!({ "settings": settings, "tasks": tasks }),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn ask(
    engine: &Engine,
    rows: &[ShortAnswerRow],
    args: &ExactMatchArgs,
    first: u64,
) -> Result<Vec<Reply>> {
    let greedy = GenerateConfig {
        eos_token_id: engine.defaults.generate.eos_token_id.clone(),
        ..GenerateConfig::greedy(args.max_new_tokens)
    };
    let generate = if args.samples > 1 {
        GenerateConfig {
            do_sample: true,
            temperature: args.temperature,
            ..greedy
        }
    } else {
        greedy
    };
    let config = AnswerConfig {
        generate,
        stop_strings: Vec::new(),
    };
    let conversation = Conversation::new(engine, Mode::of(engine), None, 0)?;
    let mut prompts = Vec::with_capacity(rows.len() * args.samples);
    for (row, number) in rows.iter().zip(first..) {
        let ids = conversation
            .prompt_ids(&row.question, args.max_new_tokens)?
            .ids;
        for sample in 0..args.samples as u64 {
            // Every answer has a seed of its own, wherever its batch begins.
            let seed = args.seed.wrapping_add((number << 16) + sample);
            prompts.push(Prompt {
                input_ids: ids.clone(),
                seed,
            });
        }
    }
    let answers = engine.answer_all(&prompts, &config)?;
    let answers = answers.chunks(args.samples);
    let replies = rows.iter().zip(answers).map(|(row, answers)| {
        let expected = row.expected().to_owned();
        let is_right = |text: &&String| is_same_answer(extract_answer(text, &expected), &expected);
        let texts: Vec<String> = answers.iter().map(|answer| answer.text.clone()).collect();
        Reply {
            task: row.task.clone(),
            question: row.question.clone(),
            num_right: texts.iter().filter(is_right).count(),
            expected,
            texts,
        }
    });
    Ok(replies.collect())
}

/// Prints and returns a row per task and one for all.
fn scores(replies: &[Reply], args: &ExactMatchArgs) -> Result<Value> {
    let mut tasks: BTreeMap<&str, Vec<&Reply>> = BTreeMap::new();
    for reply in replies {
        tasks.entry(reply.task.as_str()).or_default().push(reply);
    }
    if tasks.len() > 1 || tasks.keys().any(|task| !task.is_empty()) {
        tasks.insert("all", replies.iter().collect());
    } else {
        tasks = BTreeMap::from([("all", replies.iter().collect())]);
    }
    let mut rows = Vec::new();
    for (task, replies) in tasks {
        let mut row = json!({ "task": task, "questions": replies.len() });
        let mut line = format!("{task:<14}{:>8}", replies.len());
        if args.samples == 1 {
            let num_right = replies.iter().filter(|reply| reply.num_right > 0).count();
            let rate = Rate::new(num_right, replies.len());
            let percent = |share: f64| 100.0 * share;
            let _ = write!(
                line,
                "{:>9.2} % ({:.2} to {:.2} %)",
                percent(rate.share),
                percent(rate.low),
                percent(rate.high)
            );
            row["exact_match"] = json!(rate);
        } else {
            for &k in &args.k {
                let passes = replies
                    .iter()
                    .map(|reply| pass_at_k(args.samples, reply.num_right, k));
                let mean = passes.sum::<f64>() / replies.len().max(1) as f64;
                let _ = write!(line, "   pass@{k} {:.2} %", 100.0 * mean);
                row[format!("pass@{k}")] = json!(mean);
            }
        }
        out!("{line}")?;
        rows.push(row);
    }
    Ok(Value::Array(rows))
}
