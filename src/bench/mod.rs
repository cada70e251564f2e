//! `kindling bench`: how fast this machine trains and decodes, as a share of what it could do and,
//! on request, beside PyTorch or llama.cpp.

mod decode;
pub mod kernels;
mod measurement;
mod peers;
mod roof;
mod table;
mod train;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use model::ModelConfig;
use model::packed::WeightType;
use model::precision::Precision;

use self::measurement::Measurement;
use self::peers::{Peer, compare};
use crate::device::pick_device;
use crate::stdout::{self, out};

/// The command line of the benchmarks.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Optimizer steps on random tokens: forward, backward, clipping, AdamW
    Train(TrainArgs),
    /// A prompt read at once, then tokens one by one
    Decode(DecodeArgs),
    /// Each fused operation against the same mathematics composed from Burn's operations
    Kernels(KernelArgs),
}

/// What every measurement of a model needs.
#[derive(Debug, Clone, Args)]
struct ModelArgs {
    /// Shape of the model, a config.json; its weights are drawn
    #[arg(long, value_name = "FILE", default_value = "configs/model/v1-26m.json")]
    config: PathBuf,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Runs of each side when there is a peer, in turn: A B A B
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// A Python with torch: runs model/benches/torch_peer.py in turn with ours
    #[arg(
        long,
        value_name = "PYTHON",
        num_args = 0..=1,
        default_missing_value = "python3"
    )]
    vs_torch: Option<PathBuf>,
}

impl ModelArgs {
    fn shape(&self) -> Result<ModelConfig> {
        ModelConfig::load(&self.config)
            .with_context(|| format!("--config {}", self.config.display()))
    }
}

/// `kindling bench train`.
#[derive(Debug, Clone, Args)]
struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows per step
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Tokens per row
    #[arg(long, default_value_t = 512)]
    seq: usize,
    /// Optimizer steps; the first half warms up and is not counted
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Keep each layer's input only and run the layer again in the backward pass
    #[arg(long)]
    activation_checkpointing: bool,
    /// What the operands of products are rounded to: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", default_value_t)]
    precision: Precision,
    /// Kinds of the PyTorch peer: f32, f32-compile, bf16, bf16-compile, f16, f16-compile
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "f32,f32-compile"
    )]
    torch_kinds: Vec<Peer>,
}

/// `kindling bench decode`.
#[derive(Debug, Clone, Args)]
struct DecodeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows decoded together
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 32)]
    prompt: usize,
    /// Tokens written after it
    #[arg(long, default_value_t = 128)]
    new: usize,
    /// How weights are held: f32, bf16 or int8
    #[arg(long, value_name = "TYPE", default_value_t)]
    weights: WeightType,
    /// A Python with llama-cpp-python: runs model/benches/llama_cpp_peer.py in turn
    #[arg(
        long,
        value_name = "PYTHON",
        num_args = 0..=1,
        default_missing_value = "python3"
    )]
    vs_llama_cpp: Option<PathBuf>,
}

/// `kindling bench kernels`.
#[derive(Debug, Clone, Args)]
struct KernelArgs {
    /// Only operations whose name holds this
    filter: Option<String>,
    /// Print one line of JSON per operation instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints what was asked for.
///
/// # Errors
///
/// A config that cannot be read, a device that is not there, or a peer that does not run.
pub fn run(args: &BenchArgs) -> Result<()> {
    match &args.what {
        What::Train(train) => {
            if let Some(python) = &train.model.vs_torch {
                return compare(train, &train.model, Some(python), None);
            }
            let device = pick_device(&train.model.device)?;
            print(&train::measure(train, &device)?, train.model.json)
        }
        What::Decode(decode) => {
            let python = decode.model.vs_torch.as_deref();
            let llama_cpp = decode.vs_llama_cpp.as_deref();
            if python.is_some() || llama_cpp.is_some() {
                return compare(decode, &decode.model, python, llama_cpp);
            }
            let device = pick_device(&decode.model.device)?;
            print(&decode::measure(decode, &device)?, decode.model.json)
        }
        What::Kernels(kernels) => kernels::run(kernels.filter.as_deref(), kernels.json),
    }
}

fn print(measurement: &Measurement, json: bool) -> Result<()> {
    if json {
        out!("{}", serde_json::to_string(measurement)?)?;
    } else {
        stdout::print(format_args!("{}", table::one(measurement)))?;
    }
    Ok(())
}
