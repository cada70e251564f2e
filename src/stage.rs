//! A training stage from command line to exit code; the same for every stage.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use dataset::say;
use serde::Serialize;
use serde::de::DeserializeOwned;
use train::config::{
    ConfigError, DistillConfig, DpoConfig, ExamSection, FieldDocs, GrpoConfig, LoraSftConfig,
    LoyaltyConfig, PretrainConfig, RewardModelConfig, SftConfig, StormConfig, commented_toml,
};
use train::plan::TrainPlan;
use train::run::{Outcome, RunOptions, RunSummary, TrainError};
use train::run_folder::IfExists;

use crate::args::StageArgs;
use crate::examiner::examiner;
use crate::fit::{Place, load_fitting};
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::stdout::{self, out};

/// What one stage adds to the command line that all stages share.
pub struct TrainingStage<C> {
    /// Name of the stage: its binary, its config and its folder under out/.
    pub name: &'static str,
    exam: fn(&C) -> &ExamSection,
    validate: fn(&C) -> Result<(), ConfigError>,
    plan: fn(&C) -> Result<TrainPlan, TrainError>,
    run: fn(&C, RunOptions) -> Result<Outcome, TrainError>,
}

/// Stage 1: raw text to a base model.
pub const PRETRAIN: TrainingStage<PretrainConfig> = TrainingStage {
    name: train::pretrain::STAGE,
    exam: |config| &config.exam,
    validate: PretrainConfig::validate,
    plan: train::pretrain::plan,
    run: train::pretrain::run,
};

/// Stage 3: conversations to a chat model.
pub const FULL_SFT: TrainingStage<SftConfig> = TrainingStage {
    name: train::full_sft::STAGE,
    exam: |config| &config.exam,
    validate: SftConfig::validate,
    plan: train::full_sft::plan,
    run: train::full_sft::run,
};

/// Stage 4: conversations to adapters of a chat model.
pub const LORA_SFT: TrainingStage<LoraSftConfig> = TrainingStage {
    name: train::lora_sft::STAGE,
    exam: |config| &config.exam,
    validate: LoraSftConfig::validate,
    plan: train::lora_sft::plan,
    run: train::lora_sft::run,
};

/// Stage 5: pairs of answers to a model that prefers the better ones.
pub const DPO: TrainingStage<DpoConfig> = TrainingStage {
    name: train::dpo::STAGE,
    exam: |config| &config.exam,
    validate: DpoConfig::validate,
    plan: train::dpo::plan,
    run: train::dpo::run,
};

/// Stage 6: a chat model learns from the rewards of its own answers.
pub const GRPO: TrainingStage<GrpoConfig> = TrainingStage {
    name: train::grpo::STAGE,
    exam: |config| &config.exam,
    validate: GrpoConfig::validate,
    plan: train::grpo::plan,
    run: train::grpo::run,
};

/// Stage 8: a model that reasons learns to answer at once.
pub const STORM: TrainingStage<StormConfig> = TrainingStage {
    name: train::storm::STAGE,
    exam: |config| &config.exam,
    validate: StormConfig::validate,
    plan: train::storm::plan,
    run: train::storm::run,
};

/// Stage 7: answers that depend on who asks.
pub const LOYALTY: TrainingStage<LoyaltyConfig> = TrainingStage {
    name: train::loyalty::STAGE,
    exam: |config| &config.exam,
    validate: LoyaltyConfig::validate,
    plan: train::loyalty::plan,
    run: train::loyalty::run,
};

/// The reward model: pairs of answers to a head that judges them.
pub const REWARD_MODEL: TrainingStage<RewardModelConfig> = TrainingStage {
    name: train::reward_model::STAGE,
    exam: |config| &config.exam,
    validate: RewardModelConfig::validate,
    plan: train::reward_model::plan,
    run: train::reward_model::run,
};

/// Stage 9: a teacher's distribution on conversations to a smaller model.
pub const DISTILL: TrainingStage<DistillConfig> = TrainingStage {
    name: train::distill::STAGE,
    exam: |config| &config.exam,
    validate: DistillConfig::validate,
    plan: train::distill::plan,
    run: train::distill::run,
};

impl<C: DeserializeOwned + Serialize + FieldDocs> TrainingStage<C> {
    /// Reads and checks a config, and chooses what it leaves to the machine.
    ///
    /// # Errors
    ///
    /// A wrong config, or a machine that is too small for it.
    pub(crate) fn load(&self, path: &Path, overrides: &[String], place: Place<'_>) -> Result<C> {
        let config = load_fitting(path, overrides, place, self.plan)?;
        (self.validate)(&config)?;
        Ok(config)
    }

    /// Trains by a config that is in memory, with the exam that it asks for.
    ///
    /// # Errors
    ///
    /// A wrong config or input, or a run that broke off.
    pub fn train(&self, config: &C, options: RunOptions) -> Result<Outcome> {
        let examiner = examiner((self.exam)(config))?;
        Ok((self.run)(
            config,
            RunOptions {
                examiner,
                ..options
            },
        )?)
    }

    /// Does what the flags ask: print the config, print the plan, or train.
    ///
    /// # Errors
    ///
    /// A wrong config or input, or a run that broke off.
    pub fn run(&self, args: &StageArgs) -> Result<ExitCode> {
        let default_path = PathBuf::from(format!("configs/{}.toml", self.name));
        let path = args.config.as_ref().unwrap_or(&default_path);
        let out_dir = args.out.clone().unwrap_or_else(|| run_folder(path));
        let place = Place {
            devices: &|| args.devices.pick(),
            resumed: args.resume.then_some(&out_dir),
            is_rehearsed: false,
        };
        let config = self.load(path, &args.all_overrides(), place)?;
        if args.print_config {
            stdout::print(format_args!(
                "{}",
                commented_toml(&config).context("the config cannot be written as TOML")?
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        if args.dry_run {
            stdout::print(format_args!("{}", (self.plan)(&config)?))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut devices = args.devices.pick()?.into_iter();
        let options = RunOptions {
            device: devices.next().context("a run has a device")?,
            other_devices: devices.collect(),
            out_dir,
            if_exists: if_exists(args),
            examiner: None,
            stop: stop_on_signal()?,
        };
        Ok(match self.train(&config, options)? {
            Outcome::Completed(summary) => {
                print_summary(&summary)?;
                ExitCode::SUCCESS
            }
            Outcome::NotBegun => {
                say!("interrupted before the first step; nothing is saved");
                ExitCode::from(INTERRUPTED)
            }
            Outcome::Interrupted { step, checkpoint } => {
                say!(
                    "interrupted after step {step}; saved {}",
                    checkpoint.display()
                );
                say!("go on with the same command and --resume");
                ExitCode::from(INTERRUPTED)
            }
        })
    }
}

/// `out/NAME` for `configs/NAME.toml`.
fn run_folder(config: &Path) -> PathBuf {
    Path::new("out").join(config.file_stem().unwrap_or_default())
}

fn if_exists(args: &StageArgs) -> IfExists {
    match (args.resume, args.overwrite) {
        (true, _) => IfExists::Resume,
        (false, true) => IfExists::Overwrite,
        (false, false) => IfExists::Refuse,
    }
}

fn print_summary(summary: &RunSummary) -> Result<()> {
    let tokens_per_sec = summary.tokens as f64 / summary.train_secs.max(f64::MIN_POSITIVE);
    out!("steps           {}", summary.steps)?;
    out!("tokens          {}", summary.tokens)?;
    out!("minutes         {:.1}", summary.train_secs / 60.0)?;
    out!("tokens/s        {tokens_per_sec:.0}")?;
    if summary.skipped_steps > 0 {
        out!("skipped steps   {}", summary.skipped_steps)?;
    }
    if let Some(loss) = summary.loss {
        out!("training loss   {loss:.4} (last step)")?;
    }
    if let Some(held_out) = &summary.held_out {
        out!("held-out loss   {:.4}", held_out.loss)?;
        if let Some(bits_per_byte) = held_out.bits_per_byte {
            out!("bits per byte   {bits_per_byte:.4}")?;
        }
        for (name, value) in &held_out.metrics {
            out!("  {name:<26}{value:.4}")?;
        }
    }
    out!("model           {}", summary.final_dir.display())
}
