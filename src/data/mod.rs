//! `kindling data`: training data prepared, made, mixed and looked at before training on it.

mod files;
mod inspect;
mod playground;
mod prepare;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use dataset::Tokenizer;
use dataset::chat::{ChatTemplate, LossOn};
use dataset::conversations::{ConversationEncoder, ConversationOptions, Thinking};
use dataset::rows::RowFormat;
use dataset::say;
use dataset::source::matching_files;
use dataset::validate::FileReport;
use serde::de::DeserializeOwned;
use serde_json::Value;

use files::{MergeArgs, SplitArgs, StatsArgs};
use inspect::InspectArgs;
use playground::PlaygroundArgs;
use prepare::PrepareArgs;

/// The command line of the data tools.
#[derive(Debug, Clone, Subcommand)]
pub enum DataCommand {
    /// Download APT's training sets and make them one kind of file per stage
    Prepare(PrepareArgs),
    /// Make one file of several, whole, weighted or in fixed shares
    Merge(MergeArgs),
    /// Part a file into rows to train on and rows to test with
    Split(SplitArgs),
    /// Count rows, fields, lengths and values
    Stats(StatsArgs),
    /// Show conversations as tokens, with what of them is trained
    Inspect(InspectArgs),
    /// Report every line that cannot be used, and what training would cut or leave out; exits with
    /// 1 if too many lines are bad
    Validate(ValidateArgs),
    /// Write questions of the playground: sums to practise on, sums of three numbers with their
    /// reasoning, rows whose answers depend on who asks, and others of each that training never shows
    Playground(PlaygroundArgs),
}

/// How conversations are read; the same choices as in a chat stage's [data].
#[derive(Debug, Clone, Args)]
struct ReadingArgs {
    /// Folder with tokenizer.json, or a tokenizer.json
    #[arg(long, value_name = "DIR", default_value = "out/0-tokenizer")]
    tokenizer: PathBuf,
    /// Jinja file used in the place of the tokenizer's chat template
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Format of the rows: auto, messages, sharegpt, alpaca, prompt_response, magpie, minimind_csv,
    /// preference or loyalty
    #[arg(long, default_value = "auto", value_parser = named::<RowFormat>)]
    format: RowFormat,
    /// What is trained: assistant, last or all
    #[arg(long, default_value = "assistant", value_parser = named::<LossOn>)]
    loss_on: LossOn,
    /// What becomes of thoughts: keep or strip
    #[arg(long, default_value = "keep", value_parser = named::<Thinking>)]
    thinking: Thinking,
    /// Tokens of a training row
    #[arg(long, value_name = "N", default_value_t = 512)]
    seq_len: usize,
}

/// Which files, and how many bad lines are too many.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// Files of conversations (.jsonl, .json, .csv, .gz, .parquet), or patterns such as
    /// data/*.jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Share of a file's rows that may be bad, from 0 to 1
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    max_bad_ratio: f64,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// Does what the command line asks for.
///
/// # Errors
///
/// A file or tokenizer that cannot be read, or an unknown format.
pub fn run(command: &DataCommand) -> Result<ExitCode> {
    match command {
        DataCommand::Prepare(args) => prepare::run(args),
        DataCommand::Merge(args) => files::run_merge(args),
        DataCommand::Split(args) => files::run_split(args),
        DataCommand::Stats(args) => files::run_stats(args),
        DataCommand::Inspect(args) => inspect::run(args),
        DataCommand::Validate(args) => validate(args),
        DataCommand::Playground(args) => playground::run(args),
    }
}

fn validate(args: &ValidateArgs) -> Result<ExitCode> {
    let reading = Reading::new(&args.reading)?;
    let mut bad_files = Vec::new();
    for pattern in &args.files {
        for path in matching_files(pattern)? {
            let encoder = reading.encoder()?;
            let report = FileReport::read(&path, args.reading.format, &encoder, reading.seq_len)?;
            write!(io::stdout(), "{report}").or_else(unless_broken_pipe)?;
            if report.bad_ratio() > args.max_bad_ratio || report.lengths.is_empty() {
                bad_files.push(path.display().to_string());
            }
        }
    }
    if bad_files.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "kindling: more than a share of {} of the rows is bad in {}",
        args.max_bad_ratio,
        bad_files.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

/// A tokenizer with its template, and how they are used.
struct Reading {
    tokenizer: Tokenizer,
    options: ConversationOptions,
    seq_len: usize,
}

impl Reading {
    fn new(args: &ReadingArgs) -> Result<Self> {
        Ok(Self {
            tokenizer: load_tokenizer(&args.tokenizer, args.chat_template.as_deref())?,
            options: ConversationOptions {
                loss_on: args.loss_on,
                thinking: args.thinking,
                ..ConversationOptions::default()
            },
            seq_len: args.seq_len,
        })
    }

    fn encoder(&self) -> Result<ConversationEncoder<'_>> {
        let template = self.tokenizer.chat_template();
        let template: &ChatTemplate = template.context(
            "the tokenizer has no chat template, expected one (or --chat-template FILE)",
        )?;
        Ok(ConversationEncoder {
            tokenizer: &self.tokenizer,
            template,
            options: &self.options,
        })
    }
}

/// A tokenizer, with another template if one is named.
fn load_tokenizer(path: &Path, chat_template: Option<&Path>) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::load(path)
        .with_context(|| format!("the tokenizer {} cannot be loaded", path.display()))?;
    match chat_template {
        Some(template) => Ok(tokenizer.with_chat_template(template)?),
        None => Ok(tokenizer),
    }
}

/// A value by the name that configs have for it.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::String(name.to_owned()))
}

/// Whoever reads the output may have seen enough.
fn unless_broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error)
    }
}
