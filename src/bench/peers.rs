//! The same measurement by other programs, in turn with ours, each run in a process of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use burn::prelude::Device;
use dataset::say;
use model::CausalLm;
use model::gguf::{GgufType, Metadata, write_gguf};
use model::packed::WeightType;

use super::measurement::Measurement;
use super::{DecodeArgs, ModelArgs, TrainArgs, table};
use crate::stdout::{self, out};

const TORCH_PEER: &str = include_str!("../../model/benches/torch_peer.py");
const LLAMA_CPP_PEER: &str = include_str!("../../model/benches/llama_cpp_peer.py");

/// A way to run PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    dtype: &'static str,
    compiled: bool,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (dtype, compiled) = match text {
            "f32" => ("f32", false),
            "f32-compile" => ("f32", true),
            "bf16" => ("bf16", false),
            "bf16-compile" => ("bf16", true),
            "f16" => ("f16", false),
            "f16-compile" => ("f16", true),
            _ => return Err("expected f32, bf16 or f16, or one of them with -compile".to_owned()),
        };
        Ok(Self { dtype, compiled })
    }
}

/// What is measured, as flags for each program.
pub(super) trait Workload {
    /// The subcommand, `train` or `decode`.
    fn name(&self) -> &'static str;
    /// Sizes, under names that all programs share.
    fn flags(&self) -> Vec<String>;
    /// Flags of ours only.
    fn own_flags(&self) -> Vec<String>;
    /// Ways to run PyTorch.
    fn torch_kinds(&self) -> Vec<Peer>;
    /// llama.cpp's weight type of the same size.
    fn llama_cpp_type(&self) -> GgufType;
}

impl Workload for TrainArgs {
    fn name(&self) -> &'static str {
        "train"
    }

    fn flags(&self) -> Vec<String> {
        flags(&[
            ("batch", self.batch),
            ("seq", self.seq),
            ("steps", self.steps),
        ])
    }

    fn own_flags(&self) -> Vec<String> {
        let mut flags = vec!["--precision".to_owned(), self.precision.to_string()];
        flags.extend(
            self.activation_checkpointing
                .then(|| "--activation-checkpointing".to_owned()),
        );
        flags
    }

    fn torch_kinds(&self) -> Vec<Peer> {
        self.torch_kinds.clone()
    }

    fn llama_cpp_type(&self) -> GgufType {
        GgufType::F32
    }
}

impl Workload for DecodeArgs {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn flags(&self) -> Vec<String> {
        flags(&[
            ("batch", self.batch),
            ("prompt", self.prompt),
            ("new", self.new),
        ])
    }

    fn own_flags(&self) -> Vec<String> {
        vec!["--weights".to_owned(), self.weights.to_string()]
    }

    fn torch_kinds(&self) -> Vec<Peer> {
        vec![Peer {
            dtype: "f32",
            compiled: false,
        }]
    }

    fn llama_cpp_type(&self) -> GgufType {
        match self.weights {
            WeightType::F32 => GgufType::F32,
            WeightType::Bf16 => GgufType::F16,
            WeightType::Int8 => GgufType::Q8_0,
        }
    }
}

fn flags(values: &[(&str, usize)]) -> Vec<String> {
    let pair = |(name, value): &(&str, usize)| [format!("--{name}"), value.to_string()];
    values.iter().flat_map(pair).collect()
}

/// Runs ours and the peers in turn and prints the medians with their ratios.
///
/// # Errors
///
/// A program that does not run, or prints no measurement.
pub(super) fn compare(
    workload: &impl Workload,
    model: &ModelArgs,
    torch: Option<&Path>,
    llama_cpp: Option<&Path>,
) -> Result<()> {
    ensure!(model.rounds > 0, "--rounds: found 0, expected at least 1");
    let folder = tempfile::tempdir().context("a folder for the peers' scripts")?;
    let mut programs = vec![ours(workload, model)?];
    if let Some(python) = torch {
        let script = folder.path().join("torch_peer.py");
        fs::write(&script, TORCH_PEER)?;
        for kind in workload.torch_kinds() {
            programs.push(torch_peer(workload, model, python, &script, kind)?);
        }
    }
    if let Some(python) = llama_cpp {
        let script = folder.path().join("llama_cpp_peer.py");
        fs::write(&script, LLAMA_CPP_PEER)?;
        let weights = folder.path().join("model.gguf");
        let gguf_type = workload.llama_cpp_type();
        let model = CausalLm::new(&model.shape()?, 0, &Device::flex());
        // Prompts are ids: the file needs no tokenizer.
        let tokenizer = Metadata::Text("no_vocab".to_owned());
        let metadata = [("tokenizer.ggml.model".to_owned(), tokenizer)];
        write_gguf(&model, gguf_type, &metadata, &weights)?;
        let mut command = vec![path(python), path(&script)];
        command.extend(["--model".into(), path(&weights)]);
        command.extend(["--type".into(), gguf_type.to_string()]);
        command.extend(workload.flags());
        programs.push(command);
    }

    let mut sides = vec![Vec::new(); programs.len()];
    for round in 0..model.rounds {
        for (program, side) in programs.iter().zip(&mut sides) {
            let measurement = measured(program)?;
            say!(
                "round {} of {}: {:<36}{:>10.0} tokens/s",
                round + 1,
                model.rounds,
                measurement.peer,
                measurement.tok_s_median
            );
            side.push(measurement);
        }
    }
    if model.json {
        out!("{}", serde_json::to_string(&sides)?)?;
    } else {
        stdout::print(format_args!("{}", table::side_by_side(&sides)))?;
    }
    Ok(())
}

fn ours(workload: &impl Workload, model: &ModelArgs) -> Result<Vec<String>> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = vec![
        path(&program),
        "bench".into(),
        workload.name().into(),
        "--json".into(),
        "--config".into(),
        path(&model.config),
        "--device".into(),
        model.device.clone(),
    ];
    command.extend(workload.flags());
    command.extend(workload.own_flags());
    Ok(command)
}

fn torch_peer(
    workload: &impl Workload,
    model: &ModelArgs,
    python: &Path,
    script: &Path,
    kind: Peer,
) -> Result<Vec<String>> {
    let device = match model.device.as_str() {
        "cpu" => "cpu",
        "cuda" | "cuda:0" => "cuda",
        device => bail!("--vs-torch: found --device {device}, expected cpu or cuda:0"),
    };
    let mut command = vec![
        path(python),
        path(script),
        workload.name().into(),
        "--config".into(),
        path(&model.config),
        "--dtype".into(),
        kind.dtype.into(),
        "--device".into(),
        device.into(),
    ];
    command.extend(workload.flags());
    if kind.compiled {
        command.push("--compile".into());
    }
    Ok(command)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// The measurement that a program prints as the last line of its output.
fn measured(program: &[String]) -> Result<Measurement> {
    let shown = program.join(" ");
    let output = Command::new(&program[0])
        .args(&program[1..])
        .output()
        .with_context(|| format!("cannot be run: {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}\n{}", output.status, stderr.trim_end());
    }
    let line = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{shown}: no measurement in `{line}`"))
}
