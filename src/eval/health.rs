//! Generation health from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::Args;
use eval::chat::{Conversation, Mode};
use eval::health::{WrittenAnswer, health_of};
use model::generate::{FinishReason, Prompt};
use serde_json::json;

use super::{BEGINS_AGAIN, ModelArgs, interrupted, progress_bar, write_json};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Answers that are written at the same time.
const WRITTEN_TOGETHER: usize = 16;

/// Asked where no file is given: small talk, facts, tasks, in both languages.
const PROMPTS: [&str; 12] = [
    "你好，请介绍一下你自己。",
    "Hello, who are you?",
    "中国的首都是哪里？",
    "What is the largest ocean?",
    "写一首关于春天的短诗。",
    "Write a short story about a fox.",
    "如何学好数学？",
    "Give me three tips for sleeping well.",
    "为什么天空是蓝色的？",
    "Why do leaves fall in autumn?",
    "请列出三种水果。",
    "Name three animals that can fly.",
];

/// What is asked, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text file with a prompt per line [default: twelve built-in prompts in Chinese and English]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Seed of the first answer; every later one takes the next number
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

pub(super) fn run(args: &HealthArgs) -> Result<ExitCode> {
    let prompts = match &args.data {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot be read", path.display()))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let prompts: Vec<String> = lines.map(str::to_owned).collect();
            if prompts.is_empty() {
                bail!("{}: holds no prompt, expected one per line", path.display());
            }
            prompts
        }
        None => PROMPTS.map(str::to_owned).to_vec(),
    };
    let engine = args.model.load()?;
    let out = args.model.out_dir("health")?;
    let mut config = engine.defaults.clone();
    config.generate.max_new_tokens = args.max_new_tokens;
    let conversation = Conversation::new(&engine, Mode::of(&engine), None, 0)?;
    let stop = stop_on_signal()?;
    let bar = progress_bar("health", prompts.len(), 0);
    let mut answers = Vec::with_capacity(prompts.len());
    for (group, prompts) in prompts.chunks(WRITTEN_TOGETHER).enumerate() {
        if stop.load(Ordering::SeqCst) {
            return Ok(interrupted(&bar, BEGINS_AGAIN));
        }
        let first = args.seed.wrapping_add((group * WRITTEN_TOGETHER) as u64);
        let mut inputs = Vec::with_capacity(prompts.len());
        for (prompt, seed) in prompts.iter().zip(first..) {
            let input_ids = conversation.prompt_ids(prompt, args.max_new_tokens)?.ids;
            inputs.push(Prompt { input_ids, seed });
        }
        let written = engine.answer_all(&inputs, &config)?;
        answers.extend(
            prompts
                .iter()
                .zip(written)
                .map(|(prompt, answer)| WrittenAnswer {
                    prompt: prompt.clone(),
                    token_ids: engine.tokenizer.encode_ordinary(&answer.text),
                    text: answer.text,
                    is_terminated: answer.finish_reason == FinishReason::Stop,
                }),
        );
        bar.inc(prompts.len() as u64);
    }
    bar.finish_and_clear();
    let health = health_of(&answers);
    for (name, value) in [
        ("mean tokens", health.mean_tokens),
        ("distinct-1", health.distinct_1),
        ("distinct-2", health.distinct_2),
        ("distinct-3", health.distinct_3),
        ("repetition", health.repetition),
        ("terminated", health.terminated),
        ("empty", health.empty),
        ("same language", health.language_match),
    ] {
        out!("{name:<14}{value:>9.3}")?;
    }
    write_json(
        &out.join("health.json"),
        &json!({ "health": health, "answers": answers }),
    )?;
    Ok(ExitCode::SUCCESS)
}
