//! `kindling pipeline FILE`: a recipe of stages, each starting from what the one before left.

mod earlier;
mod recipe;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use burn::prelude::Device;
use clap::Args;
use dataset::say;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;
use train::config::{FieldDocs, RejectConfig};
use train::run::{Outcome, RunOptions};
use train::run_folder::IfExists;

use crate::args::TrainingDevices;
use crate::config::{load_config, toml_path, value_of};
use crate::eval;
use crate::fit::Place;
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::reject;
use crate::stage::{
    DISTILL, DPO, FULL_SFT, GRPO, LORA_SFT, LOYALTY, PRETRAIN, REWARD_MODEL, STORM, TrainingStage,
};
use crate::stdout::{self, out};
use crate::tokenizer_stage::{self, TokenizerArgs, TokenizerConfig};

use earlier::{SUMMARY, check_begun, check_config, done_summary};
pub use recipe::{PipelineConfig, StageConfig};
use table::{StageSummary, table};

const TOKENIZER: &str = "0-tokenizer";
/// An evaluation of the model so far, as `kindling eval` does it.
const EVAL: &str = "eval";
/// The best answers of the model so far, as `kindling reject` keeps them.
const REJECT: &str = train::reject::STAGE;

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
    /// Where to train.
    #[command(flatten)]
    pub devices: TrainingDevices,
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
    let stop = stop_on_signal()?;
    let pipeline = |dry_run: bool, announces: bool| {
        anyhow::Ok(Pipeline {
            out: out.clone(),
            overrides: &args.overrides,
            devices: args.devices.pick()?,
            device_name: args.devices.first_name(),
            stop: Arc::clone(&stop),
            dry_run,
            announces,
            tokenizer: None,
            models: Vec::new(),
            table: Vec::new(),
        })
    };
    // What is wrong with a late stage is found out before an early one has trained for hours.
    pipeline(true, args.dry_run)?.run(&config)?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let mut pipeline = pipeline(false, true)?;
    if !pipeline.run(&config)? {
        say!("go on with the same command");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let table = table(&pipeline.table);
    stdout::print(format_args!("{table}"))?;
    let path = pipeline.out.join("report.txt");
    fs::write(&path, table).with_context(|| path.display().to_string())?;
    if let Some((_, model)) = pipeline.models.last() {
        out!("\ntalk to it:  kindling chat --model {}", model.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A recipe on its way.
struct Pipeline<'a> {
    out: PathBuf,
    overrides: &'a [String],
    /// The first one also answers what is asked of the models.
    devices: Vec<Device>,
    device_name: &'a str,
    stop: Arc<AtomicBool>,
    /// Only looks at the configs.
    dry_run: bool,
    /// Says what it comes to.
    announces: bool,
    /// Folder of the tokenizer that later stages read.
    tokenizer: Option<PathBuf>,
    /// Names of the stages that leave models, with their folders.
    models: Vec<(String, PathBuf)>,
    table: Vec<(String, StageSummary)>,
}

impl Pipeline<'_> {
    /// Does all stages; false if one was interrupted.
    fn run(&mut self, config: &PipelineConfig) -> Result<bool> {
        for stage in &config.stages {
            let done = self.run_stage(stage);
            if !done.with_context(|| format!("stage {}", stage.name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does one stage; false if it was interrupted.
    fn run_stage(&mut self, stage: &StageConfig) -> Result<bool> {
        if stage.stage == TOKENIZER {
            self.run_tokenizer(stage)?;
            return Ok(!self.stop.load(Ordering::SeqCst));
        }
        if stage.stage == EVAL {
            return self.evaluate(stage);
        }
        let start = self.start_of(stage)?;
        let folder = self.out.join(&stage.name);
        self.check_start(&stage.config, &start, &folder)?;
        let summary = match stage.stage.as_str() {
            name if name == PRETRAIN.name => self.train(&PRETRAIN, stage, &start, &folder)?,
            name if name == FULL_SFT.name => self.train(&FULL_SFT, stage, &start, &folder)?,
            name if name == LORA_SFT.name => self.train(&LORA_SFT, stage, &start, &folder)?,
            name if name == DPO.name => self.train(&DPO, stage, &start, &folder)?,
            name if name == REWARD_MODEL.name => {
                self.train(&REWARD_MODEL, stage, &start, &folder)?
            }
            name if name == GRPO.name => self.train(&GRPO, stage, &start, &folder)?,
            name if name == LOYALTY.name => self.train(&LOYALTY, stage, &start, &folder)?,
            name if name == STORM.name => self.train(&STORM, stage, &start, &folder)?,
            name if name == DISTILL.name => self.train(&DISTILL, stage, &start, &folder)?,
            name if name == REJECT => return self.keep_best(stage, &start, &folder),
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
        if is_done {
            check_config(&config, &folder)?;
        }
        self.announce(stage, "the text", is_done);
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

    /// Scores a model into a folder of its own; false if it was interrupted. One that is done finds
    /// its replies there and only writes them down anew.
    fn evaluate(&self, stage: &StageConfig) -> Result<bool> {
        let Some((from, model)) = self.model_of(stage)? else {
            bail!("there is no model to evaluate, expected a stage before that leaves one");
        };
        let folder = self.out.join(&stage.name);
        if self.announces {
            let (name, args) = (&stage.name, stage.args.join(" "));
            say!("pipeline: {name} ({args}, of {from})");
        }
        let args = eval::EvalArgs::of_pipeline(&stage.args, model, &folder, self.device_name)?;
        if !self.dry_run {
            eval::run(&args)?;
        }
        Ok(!self.stop.load(Ordering::SeqCst))
    }

    fn announce(&self, stage: &StageConfig, from: &str, is_done: bool) {
        if self.announces {
            let state = if is_done { "done" } else { "to do" };
            let (name, config) = (&stage.name, stage.config.display());
            say!("pipeline: {name} ({config}, from {from}): {state}");
        }
    }

    /// Keeps a model's best answers; false if it was interrupted. What follows starts from the same
    /// model, unless it says otherwise.
    fn keep_best(&self, stage: &StageConfig, start: &[String], folder: &Path) -> Result<bool> {
        let config: RejectConfig = load_config(&stage.config, start)?;
        config.validate()?;
        let is_done = folder.join(train::reject::ROWS).exists();
        if is_done {
            check_config(&config, folder)?;
        }
        self.announce(stage, self.start_name(stage), is_done);
        if is_done || self.dry_run {
            return Ok(true);
        }
        Ok(reject::keep_best(&config, &self.options(folder))?.is_some())
    }

    /// How a stage runs in its folder.
    fn options(&self, folder: &Path) -> RunOptions {
        RunOptions {
            out_dir: folder.to_owned(),
            if_exists: IfExists::Resume,
            examiner: None,
            device: self.devices[0].clone(),
            other_devices: self.devices[1..].to_vec(),
            stop: self.stop.clone(),
        }
    }

    /// What a stage starts from, for the terminal.
    fn start_name<'s>(&'s self, stage: &'s StageConfig) -> &'s str {
        let mut settings = stage.set.iter().rev();
        let own = settings.find_map(|setting| setting.strip_prefix("model.from="));
        match (own, stage.from.as_str(), self.models.last()) {
            (Some(path), _, _) => path,
            (None, "", None) => "random weights",
            (None, "", Some((name, _))) => name,
            (None, from, _) => from,
        }
    }

    /// The model that a stage starts from, with the name of the stage that left it.
    fn model_of(&self, stage: &StageConfig) -> Result<Option<&(String, PathBuf)>> {
        if stage.from.is_empty() {
            return Ok(self.models.last());
        }
        let named = self.models.iter().find(|(name, _)| *name == stage.from);
        let named = named.ok_or_else(|| anyhow!("{} leaves no model to start from", stage.from))?;
        Ok(Some(named))
    }

    /// Compares the model or tokenizer that a stage has begun with and that its config, changed by
    /// `overrides`, makes it begin with.
    fn check_start(&self, config: &Path, overrides: &[String], folder: &Path) -> Result<()> {
        let from = value_of(config, overrides, "model.from")?;
        let from = from.as_ref().and_then(Value::as_str).unwrap_or_default();
        let tokenizer = self.tokenizer.as_deref();
        let start = Some(Path::new(from)).filter(|_| !from.is_empty());
        // A dry run may have made none of them.
        let Some(start) = start.or(tokenizer).filter(|start| start.is_dir()) else {
            return Ok(());
        };
        check_begun(folder, start, !self.dry_run)
    }

    /// Overrides that make a stage start from what earlier ones left.
    fn start_of(&self, stage: &StageConfig) -> Result<Vec<String>> {
        let mut overrides = Vec::new();
        if let Some((_, model)) = self.model_of(stage)? {
            overrides.push(format!("model.from={}", toml_path(model)));
            overrides.push("model.config=\"\"".to_owned());
            overrides.push(format!("tokenizer.path={}", toml_path(model)));
        } else if let Some(tokenizer) = &self.tokenizer {
            overrides.push(format!("tokenizer.path={}", toml_path(tokenizer)));
        }
        overrides.extend(self.settings(stage));
        overrides.extend(self.overrides.iter().cloned());
        Ok(overrides)
    }

    /// A stage's own changes of its settings.
    fn settings(&self, stage: &StageConfig) -> impl Iterator<Item = String> {
        let out = self.out.display().to_string();
        stage
            .set
            .iter()
            .map(move |setting| setting.replace("{out}", &out))
    }

    /// Trains a stage, or takes what an earlier call left; `None` if it was interrupted.
    fn train<C: DeserializeOwned + Serialize + FieldDocs>(
        &self,
        training: &TrainingStage<C>,
        stage: &StageConfig,
        start: &[String],
        folder: &Path,
    ) -> Result<Option<StageSummary>> {
        let place = Place {
            devices: &|| Ok(self.devices.clone()),
            resumed: Some(folder),
            is_rehearsed: self.dry_run,
        };
        let config = training.load(&stage.config, start, place)?;
        let done = done_summary(&config, folder)?;
        self.announce(stage, self.start_name(stage), done.is_some());
        if done.is_some() || self.dry_run {
            return Ok(Some(done.unwrap_or_default()));
        }
        match training.train(&config, self.options(folder))? {
            Outcome::Completed(summary) => {
                let summary = StageSummary::from(&summary);
                let path = folder.join(SUMMARY);
                let json = serde_json::to_string_pretty(&summary)?;
                fs::write(&path, json + "\n").with_context(|| path.display().to_string())?;
                Ok(Some(summary))
            }
            Outcome::NotBegun => Ok(None),
            Outcome::Interrupted { step, checkpoint } => {
                say!(
                    "interrupted after step {step}; saved {}",
                    checkpoint.display()
                );
                Ok(None)
            }
        }
    }
}
