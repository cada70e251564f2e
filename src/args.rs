//! Flags that every training stage shares. Numbers live in the config and change with `--set`.

use std::path::PathBuf;

use clap::Args;

/// The command line of a training stage.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct StageArgs {
    /// The stage's settings, a TOML file [default: configs/STAGE.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change a field of the config, e.g. --set optimizer.lr=3e-4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// The run's folder [default: out/ and the config file's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the newest checkpoint of the run's folder
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Delete an earlier run in the folder first, with what was scored of its model
    #[arg(long)]
    pub overwrite: bool,
    /// Print the plan (steps, tokens, parameters, memory) and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the resolved config, with a sentence above every field, and stop
    #[arg(long)]
    pub print_config: bool,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Seed of the run, short for --set train.seed=SEED
    #[arg(long)]
    pub seed: Option<u64>,
}

impl StageArgs {
    /// The overrides with the flags that are short for one put last.
    pub fn all_overrides(&self) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("train.seed={seed}"));
        self.overrides.iter().cloned().chain(seed).collect()
    }
}
