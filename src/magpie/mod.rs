//! `kindling magpie STEP`: data that a model makes itself, step by step or all at once.

mod config;
mod desk;
mod likelihood;
mod own;
mod show;
mod trained;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use dataset::magpie::work::StepOutcome;
use dataset::say;
use train::config::commented_toml;

use crate::config::load_config;
use crate::device::pick_device;
use crate::interrupt::INTERRUPTED;
use crate::stdout;

pub use config::{EngineSection, MagpieConfig, RecordFormat, RewardSection, RewardSource};
use desk::{Desk, Step};
pub use likelihood::Likelihood;
pub use own::OwnModel;

/// Steps of making data; each goes on where it was stopped and is not done twice.
#[derive(Debug, Clone, Subcommand)]
pub enum MagpieCommand {
    /// Instructions out of nothing, from the beginning of a user's turn
    Generate(MagpieArgs),
    /// Answers to instructions
    Respond(MagpieArgs),
    /// Difficulty, quality, category, safety, reward and language of rows
    Tag(MagpieArgs),
    /// Distances to the nearest other instruction, and which rows repeat one
    Dedup(MagpieArgs),
    /// The rows that no rule drops, with a count for every rule
    Filter(MagpieArgs),
    /// Several answers per instruction, and pairs of the best and the worst
    Prefer(MagpieArgs),
    /// Files of several runs made one, and conversations to train on
    Merge(MagpieArgs),
    /// Every step, one after the other
    Run(MagpieArgs),
}

/// The command line of every step.
#[derive(Debug, Clone, Args)]
pub struct MagpieArgs {
    /// Settings of all steps, a TOML file
    #[arg(long, value_name = "FILE", default_value = "configs/magpie.toml")]
    config: PathBuf,
    /// Change a field of the config, e.g. --set generate.total=60; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder of all files [default: out/ and the config file's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// File that the step reads, Magpie's rows or ShareGPT's [default: what the step before left]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Do the step again where it is done or begun
    #[arg(long)]
    overwrite: bool,
    /// Print the resolved config, with a sentence above every field, and stop
    #[arg(long)]
    print_config: bool,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    device: String,
}

impl MagpieCommand {
    fn parts(&self) -> (&MagpieArgs, &'static [Step]) {
        match self {
            Self::Generate(args) => (args, &[Step::Generate]),
            Self::Respond(args) => (args, &[Step::Respond]),
            Self::Tag(args) => (args, &[Step::Tag]),
            Self::Dedup(args) => (args, &[Step::Dedup]),
            Self::Filter(args) => (args, &[Step::Filter]),
            Self::Prefer(args) => (args, &[Step::Candidates, Step::Prefer]),
            Self::Merge(args) => (args, &[Step::Merge]),
            Self::Run(args) => (args, &Step::ALL),
        }
    }
}

/// Does one step or all of them.
///
/// # Errors
///
/// A wrong config, model or input, or a step that was done with other settings.
pub fn run(command: &MagpieCommand) -> Result<ExitCode> {
    let (args, steps) = command.parts();
    let config: MagpieConfig = load_config(&args.config, &args.overrides)?;
    config
        .validate()
        .with_context(|| args.config.display().to_string())?;
    if args.print_config {
        stdout::print(format_args!("{}", commented_toml(&config)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let reads_files = !matches!(command, MagpieCommand::Run(_) | MagpieCommand::Generate(_));
    ensure!(
        args.input.is_none() || reads_files,
        "--input belongs to a step that reads a file, expected none here"
    );
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("out").join(args.config.file_stem().context("--config names no file")?),
    };
    let mut desk = Desk::new(config, out, args.overwrite, pick_device(&args.device)?);
    for &step in steps {
        if let StepOutcome::Stopped { done, total } = desk.run(step, args.input.as_deref())? {
            say!("stopped at {done} of {total}; the same command goes on");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    Ok(ExitCode::SUCCESS)
}
