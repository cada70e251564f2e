//! A run from start to end: folder, checkpoint to go on from, loop, export. The same for every
//! stage.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::prelude::*;
use dataset::say;
use model::CausalLm;
use model::lora::save_adapter;
use model::precision::Precision;
use model::training_record::TrainingRecord;
use serde_json::Value;

use crate::checkpoint::{self, CheckpointError, TrainState};
use crate::config::{ConfigError, FieldDifference, LoopConfig, differences_that_matter};
use crate::data::DataError;
use crate::distill::TeacherError;
use crate::dpo::ReferenceError;
use crate::examiner::Examiner;
use crate::export::{ADAPTER, ExportError, export};
use crate::optimizer::Optimizer;
use crate::plan::TrainPlan;
use crate::report::{ReportError, Reporter};
use crate::reward::RewardError;
use crate::run_folder::{IfExists, RunFolder, RunFolderError};
use crate::stage::{Stage, StageError};
use crate::start::{Start, StartError};
use crate::trainer::{LoopEnd, LoopError, Trainer, TrainerParts};
use crate::validate::HeldOutLoss;
use crate::weights::fingerprint;

/// How a run is started, besides its config.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder for everything that the run leaves.
    pub out_dir: PathBuf,
    /// What to do when the folder holds a run already.
    pub if_exists: IfExists,
    /// Asked while the model learns, as often as `exam.every_steps` says.
    pub examiner: Option<Examiner>,
    /// Device to train on; autodiff is switched on where it is needed.
    pub device: Device,
    /// Set from outside to end the run after saving a checkpoint.
    pub stop: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The run is as long as was asked, and its model is exported.
    Completed(RunSummary),
    /// A stop was requested; the run can be resumed from the checkpoint.
    Interrupted {
        /// Optimizer steps taken so far.
        step: usize,
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
    },
}

/// What a completed run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Folder with the exported model and tokenizer.
    pub final_dir: PathBuf,
    /// Optimizer steps.
    pub steps: usize,
    /// Tokens read, padding not counted.
    pub tokens: u64,
    /// Steps that could not be applied.
    pub skipped_steps: usize,
    /// Mean loss of the last step, in nats per token; `None` when nothing was left to train.
    pub loss: Option<f64>,
    /// Loss on the held-out split at the end; `None` when nothing was held out.
    pub held_out: Option<HeldOutLoss>,
    /// Seconds of training, over all processes of the run.
    pub train_secs: f64,
    /// Seconds of this process, reading and export included.
    pub total_secs: f64,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A field of the config has a value that it cannot have.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The config cannot be written down.
    #[error("the config cannot be written as TOML")]
    Toml(#[from] toml::ser::Error),
    /// The model or the tokenizer cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The training data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The teacher cannot be used.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// Nothing can judge the model's answers.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// What the reference answered cannot be kept.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The run's folder cannot be used.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// The run's checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The config is not the one that the checkpoint was made with.
    #[error("cannot resume with another config: {}", list(differences))]
    OtherConfig {
        /// Fields that differ, with both values.
        differences: Vec<FieldDifference>,
    },
    /// The data, the tokenizer or weights that are not trained are not those that the checkpoint
    /// was made with.
    #[error(
        "cannot resume: the training data, the tokenizer or frozen weights changed since the \
         checkpoint was saved"
    )]
    OtherData,
    /// The run's reports cannot be opened.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The place in the data cannot be found.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The loop broke off.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The finished model cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

fn list(differences: &[FieldDifference]) -> String {
    differences
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn check_precision(precision: Precision, device: &Device) -> Result<(), ConfigError> {
    if let Some(dtype) = precision.rounded_type()
        && !device.supports_dtype(dtype)
    {
        let expected = format!("f32, since the device does not compute in {precision}");
        return Err(ConfigError::field("train.precision", precision, expected));
    }
    Ok(())
}

/// A stage that is ready to train: data opened, nothing written yet.
pub(crate) struct Prepared<S> {
    pub(crate) plan: TrainPlan,
    pub(crate) stage: S,
    pub(crate) start: Start,
    /// Identity of the data, the tokenizer and whatever else a resumed run must find unchanged.
    pub(crate) data_fingerprint: String,
    pub(crate) loop_config: LoopConfig,
    pub(crate) config_json: Value,
    pub(crate) config_toml: String,
}

/// Trains a prepared stage to its end and exports the model.
pub(crate) fn run<S: Stage>(
    mut prepared: Prepared<S>,
    options: RunOptions,
    on_start: impl FnOnce(&mut Prepared<S>, &CausalLm, &RunFolder) -> Result<(), TrainError>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    // Whatever may be wrong with the start is found out before an earlier run is overwritten.
    check_precision(prepared.loop_config.train.precision, &options.device)?;
    let device = options.device.autodiff();
    let seed = prepared.loop_config.train.seed;
    let noise_std = prepared.loop_config.router.noise_std;
    let model = prepared.start.model(seed, &device)?;
    let mut model = model.with_router_noise(noise_std, seed);
    if prepared.start.lora.is_some() {
        // Checkpoints hold the adapters alone: what they stand beside must not change either.
        let frozen = fingerprint(&model);
        prepared.data_fingerprint = format!("{} {frozen}", prepared.data_fingerprint);
    }
    let folder = RunFolder::open(&options.out_dir, options.if_exists)?;
    let checkpoint = checkpoint::newest(folder.path())?;
    let state = match &checkpoint {
        Some(checkpoint) => saved_state(checkpoint, &prepared)?,
        None => TrainState::new(
            prepared.stage.cursor(),
            prepared.data_fingerprint.clone(),
            prepared.config_json.clone(),
        ),
    };
    let mut optimizer = Optimizer::new(prepared.loop_config.optimizer.clone());
    if let Some(checkpoint) = &checkpoint {
        model = checkpoint::load_weights(checkpoint, &state, model, &mut optimizer, &device)?;
        prepared.stage.seek(&state.cursor)?;
    }
    if options.if_exists == IfExists::Resume && !prepared.loop_config.report.quiet {
        if let Some(checkpoint) = &checkpoint {
            say!("going on from {}", checkpoint.display());
        } else {
            let run = folder.path().display();
            say!("{run}: no checkpoint to go on from, beginning anew");
        }
    }
    folder.write("config.toml", &prepared.config_toml)?;
    folder.write("plan.txt", &prepared.plan.to_string())?;
    if !prepared.loop_config.report.quiet {
        say!("{}", prepared.plan);
    }
    let resumed_step = checkpoint.is_some().then_some(state.step as u64);
    let reporter = Reporter::new(folder.path(), &prepared.loop_config.report, resumed_step)?;
    if checkpoint.is_none() {
        on_start(&mut prepared, &model, &folder)?;
    }

    let record = TrainingRecord {
        stage: prepared.plan.stage.to_owned(),
        is_chat_tuned: prepared.stage.teaches_chat(),
        knows_identities: prepared.start.knows_identities,
    };
    let start = prepared.start;
    let mut trainer = Trainer::new(TrainerParts {
        stage: prepared.stage,
        model,
        optimizer,
        schedule: prepared.plan.schedule.clone(),
        end: prepared.plan.end,
        config: prepared.loop_config,
        state,
        run: folder,
        reporter,
        examiner: options
            .examiner
            .map(|examiner| (examiner, start.tokenizer.clone())),
        stop: options.stop,
    });
    let end = trainer.run()?;
    let state = trainer.state().clone();
    let (loss, held_out) = (trainer.last_loss(), trainer.last_validation());
    let (folder, model) = trainer.finish();
    if end == LoopEnd::Stopped {
        let checkpoint = folder.path().join(checkpoint::folder_name(state.step));
        return Ok(Outcome::Interrupted {
            step: state.step,
            checkpoint,
        });
    }
    let model = match &start.lora {
        Some(lora) => {
            let adapter = folder.path().join(ADAPTER);
            save_adapter(&model, lora, &start.from, &adapter).map_err(ExportError::from)?;
            model.merged()
        }
        None => model,
    };
    Ok(Outcome::Completed(RunSummary {
        final_dir: export(folder.path(), &model, &start.tokenizer, &record)?,
        steps: state.step,
        tokens: state.tokens,
        skipped_steps: state.skipped.total,
        loss,
        held_out,
        train_secs: state.elapsed_secs,
        total_secs: started.elapsed().as_secs_f64(),
    }))
}

/// Counters of a checkpoint, once it is sure that this run continues it.
fn saved_state<S>(
    checkpoint: &std::path::Path,
    prepared: &Prepared<S>,
) -> Result<TrainState, TrainError> {
    let mut state = checkpoint::load_state(checkpoint)?;
    let differences = differences_that_matter(&state.config, &prepared.config_json);
    if !differences.is_empty() {
        return Err(TrainError::OtherConfig { differences });
    }
    if state.data_fingerprint != prepared.data_fingerprint {
        return Err(TrainError::OtherData);
    }
    state.config = prepared.config_json.clone();
    Ok(state)
}
