//! `kindling pipeline FILE`: a recipe of stages, each starting from what the one before left.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::prelude::Device;
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use train::config::{FieldDocs, differences_that_matter};
use train::run::{Outcome, RunOptions, RunSummary};
use train::run_folder::IfExists;

use crate::config::{load_config, parse_config};
use crate::device::pick_device;
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::stage::{DISTILL, FULL_SFT, LORA_SFT, PRETRAIN, TrainingStage};
use crate::tokenizer_stage::{self, TokenizerArgs, TokenizerConfig};

const TOKENIZER: &str = "0-tokenizer";
/// What a completed stage came to, in its folder.
const SUMMARY: &str = "summary.json";

/// The command line of a pipeline.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// The recipe, a TOML file such as configs/pipeline.minimind-26m.toml
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder of all stages [default: out/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Change a field of every training stage's config, e.g. --set train.length="4 steps"
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print the stages, where each starts from and whether it is done, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// A recipe: stages in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The stages.
    pub stages: Vec<StageConfig>,
}

/// One stage of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Name of its folder in the pipeline's.
    pub name: String,
    /// What it does: 0-tokenizer, 1-pretrain, 3-full_sft, 4-lora_sft or 9-distill.
    pub stage: String,
    /// Its settings, a TOML file.
    pub config: PathBuf,
    /// Name of the earlier stage whose model it starts from; empty: the one before.
    #[serde(default)]
    pub from: String,
    /// Changes of its settings, as after --set.
    #[serde(default)]
    pub set: Vec<String>,
}

impl PipelineConfig {
    /// Compares the stages with each other.
    ///
    /// # Errors
    ///
    /// A recipe without stages, a name that is there twice, an unknown stage, a start that does not
    /// come before.
    pub fn validate(&self) -> Result<()> {
        ensure!(
            !self.stages.is_empty(),
            "stages is empty, expected at least one [[stages]]"
        );
        for (index, stage) in self.stages.iter().enumerate() {
            let name = &stage.name;
            let earlier = &self.stages[..index];
            let is_file_name = Path::new(name).file_name() == Some(name.as_ref());
            ensure!(
                is_file_name,
                "stages.name is {name:?}, expected the name of a folder"
            );
            ensure!(
                earlier.iter().all(|other| other.name != *name),
                "two stages are called {name}, expected a name of its own for each"
            );
            ensure!(
                stage.from.is_empty() || earlier.iter().any(|other| other.name == stage.from),
                "stage {name} starts from {:?}, expected the name of an earlier stage",
                stage.from
            );
            let known = [
                TOKENIZER,
                PRETRAIN.name,
                FULL_SFT.name,
                LORA_SFT.name,
                DISTILL.name,
            ];
            ensure!(
                known.contains(&stage.stage.as_str()),
                "stage {name} is {:?}, expected one of {}",
                stage.stage,
                known.join(", ")
            );
        }
        Ok(())
    }
}

/// A line of the final table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct StageSummary {
    steps: Option<usize>,
    tokens: Option<u64>,
    minutes: Option<f64>,
    loss: Option<f64>,
    held_out_loss: Option<f64>,
    bits_per_byte: Option<f64>,
}

/// Runs every stage that is not done yet and prints what all of them came to.
///
/// # Errors
///
/// A wrong recipe, config or input, a done stage whose config has changed, or a stage that broke
/// off.
pub fn run(args: &PipelineArgs) -> Result<ExitCode> {
    let config: PipelineConfig = load_config(&args.file, &[])?;
    config
        .validate()
        .with_context(|| args.file.display().to_string())?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("out").join(args.file.file_stem().context("FILE has no name")?),
    };
    let mut pipeline = Pipeline {
        out,
        overrides: &args.overrides,
        device: pick_device(&args.device)?,
        stop: stop_on_signal()?,
        dry_run: args.dry_run,
        tokenizer: None,
        models: Vec::new(),
        table: Vec::new(),
    };
    for stage in &config.stages {
        if !pipeline
            .run_stage(stage)
            .with_context(|| format!("stage {}", stage.name))?
        {
            eprintln!("go on with the same command");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    if !args.dry_run {
        let table = table(&pipeline.table);
        print!("{table}");
        let path = pipeline.out.join("report.txt");
        fs::write(&path, table).with_context(|| path.display().to_string())?;
        if let Some((_, model)) = pipeline.models.last() {
            println!("\ntalk to it:  kindling chat --model {}", model.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A recipe on its way.
struct Pipeline<'a> {
    out: PathBuf,
    overrides: &'a [String],
    device: Device,
    stop: Arc<AtomicBool>,
    dry_run: bool,
    /// Folder of the tokenizer that later stages read.
    tokenizer: Option<PathBuf>,
    /// Names of the stages that leave models, with their folders.
    models: Vec<(String, PathBuf)>,
    table: Vec<(String, StageSummary)>,
}

impl Pipeline<'_> {
    /// Does one stage; false if it was interrupted.
    fn run_stage(&mut self, stage: &StageConfig) -> Result<bool> {
        if stage.stage == TOKENIZER {
            return self.run_tokenizer(stage).map(|()| true);
        }
        let start = self.start_of(stage)?;
        let folder = self.out.join(&stage.name);
        let summary = match stage.stage.as_str() {
            name if name == PRETRAIN.name => self.train(&PRETRAIN, stage, &start, &folder)?,
            name if name == FULL_SFT.name => self.train(&FULL_SFT, stage, &start, &folder)?,
            name if name == LORA_SFT.name => self.train(&LORA_SFT, stage, &start, &folder)?,
            name if name == DISTILL.name => self.train(&DISTILL, stage, &start, &folder)?,
            name => bail!("unknown stage {name}"),
        };
        let Some(summary) = summary else {
            return Ok(false);
        };
        let model = folder.join("final");
        self.models.push((stage.name.clone(), model));
        self.table.push((stage.name.clone(), summary));
        Ok(true)
    }

    fn run_tokenizer(&mut self, stage: &StageConfig) -> Result<()> {
        let folder = self.out.join(&stage.name);
        let is_done = folder.join("tokenizer.json").exists();
        let config: TokenizerConfig = load_config(&stage.config, &stage.set)?;
        config.validate()?;
        announce(stage, "the text", is_done);
        if !is_done && !self.dry_run {
            tokenizer_stage::run(&TokenizerArgs {
                config: stage.config.clone(),
                overrides: stage.set.clone(),
                out: Some(folder.clone()),
                overwrite: false,
                dry_run: false,
                print_config: false,
            })?;
        }
        self.tokenizer = Some(folder);
        Ok(())
    }

    /// Overrides that make a stage start from what earlier ones left.
    fn start_of(&self, stage: &StageConfig) -> Result<Vec<String>> {
        let model = if stage.from.is_empty() {
            self.models.last()
        } else {
            let named = self.models.iter().find(|(name, _)| *name == stage.from);
            Some(named.ok_or_else(|| anyhow!("{} leaves no model to start from", stage.from))?)
        };
        let mut overrides = Vec::new();
        if let Some((_, model)) = model {
            overrides.push(format!("model.from={}", toml_path(model)));
            overrides.push("model.config=\"\"".to_owned());
            overrides.push(format!("tokenizer.path={}", toml_path(model)));
        } else if let Some(tokenizer) = &self.tokenizer {
            overrides.push(format!("tokenizer.path={}", toml_path(tokenizer)));
        }
        overrides.extend(stage.set.iter().cloned());
        overrides.extend(self.overrides.iter().cloned());
        Ok(overrides)
    }

    /// Trains a stage, or takes what an earlier call left; `None` if it was interrupted.
    fn train<C: DeserializeOwned + Serialize + FieldDocs>(
        &self,
        training: &TrainingStage<C>,
        stage: &StageConfig,
        start: &[String],
        folder: &Path,
    ) -> Result<Option<StageSummary>> {
        let config: C = load_config(&stage.config, start)?;
        let done = done_summary(&config, folder)?;
        let from = self
            .models
            .last()
            .map_or("random weights", |(name, _)| name);
        let from = if stage.from.is_empty() {
            from
        } else {
            &stage.from
        };
        announce(stage, from, done.is_some());
        if done.is_some() || self.dry_run {
            return Ok(Some(done.unwrap_or_default()));
        }
        let options = RunOptions {
            out_dir: folder.to_owned(),
            if_exists: IfExists::Resume,
            device: self.device.clone(),
            stop: self.stop.clone(),
        };
        match training.train(&config, options)? {
            Outcome::Completed(summary) => {
                let summary = StageSummary::from(&summary);
                let path = folder.join(SUMMARY);
                let json = serde_json::to_string_pretty(&summary)?;
                fs::write(&path, json + "\n").with_context(|| path.display().to_string())?;
                Ok(Some(summary))
            }
            Outcome::Interrupted { step, checkpoint } => {
                eprintln!(
                    "interrupted after step {step}; saved {}",
                    checkpoint.display()
                );
                Ok(None)
            }
        }
    }
}

fn announce(stage: &StageConfig, from: &str, is_done: bool) {
    let state = if is_done { "done" } else { "to do" };
    let (name, config) = (&stage.name, stage.config.display());
    eprintln!("pipeline: {name} ({config}, from {from}): {state}");
}

/// The summary of a stage that was completed with this very config; `None` if it is not complete.
fn done_summary<C: DeserializeOwned + Serialize>(
    config: &C,
    folder: &Path,
) -> Result<Option<StageSummary>> {
    let path = folder.join(SUMMARY);
    if !path.exists() || !folder.join("final").exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(folder.join("config.toml"))
        .with_context(|| format!("{}: config.toml cannot be read", folder.display()))?;
    let saved: C = parse_config(
        &text,
        &folder.join("config.toml").display().to_string(),
        &[],
    )?;
    let (saved, asked) = (serde_json::to_value(&saved)?, serde_json::to_value(config)?);
    if let Some(difference) = differences_that_matter(&saved, &asked).first() {
        bail!(
            "{} was made with another config ({}: it has {}, asked is {}); delete the folder, or \
             name another --out",
            folder.display(),
            difference.field,
            difference.saved,
            difference.asked
        );
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let summary = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(Some(summary))
}

impl From<&RunSummary> for StageSummary {
    fn from(summary: &RunSummary) -> Self {
        Self {
            steps: Some(summary.steps),
            tokens: Some(summary.tokens),
            minutes: Some(summary.train_secs / 60.0),
            loss: summary.loss,
            held_out_loss: summary.held_out.map(|held_out| held_out.loss),
            bits_per_byte: summary.held_out.map(|held_out| held_out.bits_per_byte),
        }
    }
}

/// What the stages came to, a line each.
fn table(rows: &[(String, StageSummary)]) -> String {
    let mut text = format!(
        "{:<20}{:>8}{:>12}{:>10}{:>10}{:>10}{:>11}\n",
        "stage", "steps", "tokens", "minutes", "loss", "held out", "bits/byte"
    );
    for (name, row) in rows {
        let fixed = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let whole = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let _ = writeln!(
            text,
            "{name:<20}{:>8}{:>12}{:>10}{:>10}{:>10}{:>11}",
            whole(row.steps.map(|steps| steps as u64)),
            whole(row.tokens),
            fixed(row.minutes, 1),
            fixed(row.loss, 4),
            fixed(row.held_out_loss, 4),
            fixed(row.bits_per_byte, 4),
        );
    }
    text
}

/// A path as a TOML string, whatever characters it has.
fn toml_path(path: &Path) -> toml::Value {
    toml::Value::String(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let config: PipelineConfig = toml::from_str(text).unwrap();
        config.validate().unwrap_err().to_string()
    }

    /// Each text says what was found and what was expected.
    #[test]
    fn recipes_that_do_not_hold_together_are_refused() {
        let stage = |name: &str, stage: &str, from: &str| {
            format!(
                "[[stages]]\nname = {name:?}\nstage = {stage:?}\nconfig = \"c.toml\"\n\
                 from = {from:?}\n"
            )
        };
        assert_eq!(
            refusal("stages = []"),
            "stages is empty, expected at least one [[stages]]"
        );
        assert_eq!(
            refusal(&stage("a", "2-chat", "")),
            "stage a is \"2-chat\", expected one of 0-tokenizer, 1-pretrain, 3-full_sft, \
             4-lora_sft, 9-distill"
        );
        let twice = stage("a", "1-pretrain", "") + &stage("a", "3-full_sft", "");
        assert_eq!(
            refusal(&twice),
            "two stages are called a, expected a name of its own for each"
        );
        assert_eq!(
            refusal(&stage("a", "3-full_sft", "b")),
            "stage a starts from \"b\", expected the name of an earlier stage"
        );
        assert_eq!(
            refusal(&stage("../a", "3-full_sft", "")),
            "stages.name is \"../a\", expected the name of a folder"
        );
    }

    /// What is not known is a dash, not a zero.
    #[test]
    fn the_table_has_a_line_per_stage() {
        let row = StageSummary {
            steps: Some(12),
            tokens: Some(3456),
            minutes: Some(1.25),
            loss: Some(2.5),
            ..StageSummary::default()
        };
        let table = table(&[("1-pretrain".to_owned(), row)]);
        let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            ["1-pretrain", "12", "3456", "1.2", "2.5000", "-", "-"]
        );
    }
}
