//! `kindling reject`: a model's own best answers, as conversations to tune on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dataset::say;
use indicatif::{ProgressBar, ProgressStyle};
use train::config::{RejectConfig, commented_toml};
use train::reject::{self, Kept};
use train::run::RunOptions;
use train::run_folder::IfExists;

use crate::config::load_config;
use crate::device::pick_device;
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::stdout::{self, out};

/// The command line of rejection sampling.
#[derive(Debug, Clone, Args)]
pub struct RejectArgs {
    /// Which model answers what, and which answers are kept, a TOML file
    #[arg(long, value_name = "FILE", default_value = "configs/reject.toml")]
    config: PathBuf,
    /// Change a field of the config, e.g. --set reject.max_kept=4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder for rows.jsonl [default: out/ and the config file's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Delete what an earlier run left in the folder first
    #[arg(long)]
    overwrite: bool,
    /// Print the resolved config, with a sentence above every field, and stop
    #[arg(long)]
    print_config: bool,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Answers, judges and keeps as the command line says.
///
/// # Errors
///
/// A wrong config or input, or answers that cannot be judged or kept.
pub fn run(args: &RejectArgs) -> Result<ExitCode> {
    let config: RejectConfig = load_config(&args.config, &args.overrides)?;
    if args.print_config {
        stdout::print(format_args!("{}", commented_toml(&config)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("out").join(args.config.file_stem().context("--config names no file")?),
    };
    let options = RunOptions {
        out_dir: out,
        if_exists: if args.overwrite {
            IfExists::Overwrite
        } else {
            IfExists::Refuse
        },
        examiner: None,
        device: pick_device(&args.device)?,
        other_devices: Vec::new(),
        stop: stop_on_signal()?,
    };
    if keep_best(&config, &options)?.is_none() {
        say!("stopped; the same command with --overwrite begins again");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// The same with the config in memory; prints what was kept. `None` if it was interrupted.
pub(crate) fn keep_best(config: &RejectConfig, options: &RunOptions) -> Result<Option<Kept>> {
    let template = "reject {wide_bar} {pos}/{len} ({eta} left)";
    let style = ProgressStyle::with_template(template).expect("the template is fixed and parses");
    let bar = ProgressBar::no_length().with_style(style);
    let kept = reject::run(config, options, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    let Some(kept) = kept else {
        bar.abandon();
        return Ok(None);
    };
    bar.finish_and_clear();
    out!(
        "answers         {} to {} prompts",
        kept.num_answers,
        kept.num_prompts
    )?;
    out!("mean reward     {:.4}", kept.mean_reward)?;
    out!(
        "kept            {} of {} prompts",
        kept.num_rows,
        kept.num_covered
    )?;
    out!("rows            {}", kept.path.display())?;
    Ok(Some(kept))
}
