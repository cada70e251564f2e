//! Flags that every training stage shares. Numbers live in the config and change with `--set`.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;

use crate::device::{pick_device, pick_devices};

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
    /// Where to train.
    #[command(flatten)]
    pub devices: TrainingDevices,
    /// Seed of the run, short for --set train.seed=SEED
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Where a stage trains: one device, or several that share every step.
#[derive(Debug, Clone, Args)]
pub struct TrainingDevices {
    /// Where to run: auto, cpu, cuda:N, wgpu:N or remote:HOST:PORT
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Devices that share the micro-batches of every step, e.g. cuda:0,cuda:1; remote:HOST:PORT is
    /// every device of a `kindling worker`
    #[arg(
        long,
        value_name = "DEVICE,DEVICE",
        value_delimiter = ',',
        conflicts_with = "device"
    )]
    pub devices: Vec<String>,
}

impl TrainingDevices {
    /// The devices, the one that holds what is saved first.
    ///
    /// # Errors
    ///
    /// What [`pick_device`] and [`pick_devices`] say.
    pub fn pick(&self) -> Result<Vec<Device>> {
        if self.devices.is_empty() {
            return Ok(vec![pick_device(&self.device)?]);
        }
        pick_devices(&self.devices)
    }

    /// The first device, as it was named.
    pub fn first_name(&self) -> &str {
        self.devices.first().unwrap_or(&self.device)
    }
}

impl StageArgs {
    /// The overrides with the flags that are short for one put last.
    pub fn all_overrides(&self) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("train.seed={seed}"));
        self.overrides.iter().cloned().chain(seed).collect()
    }
}
