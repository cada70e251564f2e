//! A run from start to end: folder, checkpoint to go on from, loop, export. The same for every
//! stage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::prelude::*;
use dataset::say;
use model::CausalLm;
use model::lora::save_adapter;
use model::precision::Precision;
use model::training_record::TrainingRecord;
use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{self, TrainState};
use crate::config::{
    ConfigError, FieldDocs, LoopConfig, TrainSection, commented_toml, differences_that_matter,
};
use crate::device_error::DeviceError;
use crate::examiner::Examiner;
use crate::export::{ADAPTER, ExportError, export};
use crate::memory::Bytes;
use crate::optimizer::{Optimizer, OptimizerKind};
use crate::plan::TrainPlan;
use crate::replicas::Replicas;
use crate::report::Reporter;
use crate::run_folder::{IfExists, RunFolder};
use crate::stage::{Stage, StageError};
use crate::start::Start;
use crate::trainer::{LoopEnd, Trainer, TrainerParts};
use crate::validate::HeldOutLoss;
use crate::weights::fingerprint;

pub use crate::run_error::TrainError;

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
    /// Devices that share the micro-batches of every step with it.
    pub other_devices: Vec<Device>,
    /// Set from outside to end the run after saving a checkpoint.
    pub stop: Arc<AtomicBool>,
}

impl RunOptions {
    fn all_devices(&self) -> Vec<Device> {
        let first = std::iter::once(&self.device);
        first.chain(&self.other_devices).cloned().collect()
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The run is as long as was asked, and its model is exported.
    Completed(RunSummary),
    /// A stop was requested before the first step; nothing is saved.
    NotBegun,
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

fn check_devices(train: &TrainSection, devices: &[Device]) -> Result<(), ConfigError> {
    let precision = train.precision;
    if let Some(dtype) = precision.rounded_type()
        && !devices.iter().all(|device| device.supports_dtype(dtype))
    {
        let expected = format!("f32, since the device does not compute in {precision}");
        return Err(ConfigError::field("train.precision", precision, expected));
    }
    let (found, num_devices) = (train.grad_accumulation_steps, devices.len());
    if !found.is_multiple_of(num_devices) {
        let expected = format!("a multiple of {num_devices}: the devices share them equally");
        let field = "train.grad_accumulation_steps";
        return Err(ConfigError::field(field, found, expected));
    }
    Ok(())
}

/// A run that is ready to begin: data opened, no device used and nothing written yet.
pub(crate) struct Prepared {
    pub(crate) plan: TrainPlan,
    pub(crate) start: Start,
    /// Identity of the data, the tokenizer and whatever else a resumed run must find unchanged.
    pub(crate) data_fingerprint: String,
    pub(crate) loop_config: LoopConfig,
    config_json: Value,
    config_toml: String,
}

impl Prepared {
    /// A run of this config; `loop_config` are its sections for the loop.
    pub(crate) fn new<C: Serialize + FieldDocs>(
        config: &C,
        loop_config: LoopConfig,
        plan: TrainPlan,
        start: Start,
        data_fingerprint: String,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            plan,
            start,
            data_fingerprint,
            loop_config,
            config_json: serde_json::to_value(config).expect("a config is strings and numbers"),
            config_toml: commented_toml(config)?,
        })
    }

    /// Makes a resumed run find this unchanged as well.
    pub(crate) fn depend_on(&mut self, fingerprint: &str) {
        self.data_fingerprint += " ";
        self.data_fingerprint += fingerprint;
    }
}

/// Trains a stage to its end and exports the model.
///
/// `stage` makes the stage, asking other models if it needs them, once it is sure that the run may
/// begin; `None` when a stop was requested.
pub(crate) fn run<S: Stage>(
    prepared: Prepared,
    options: RunOptions,
    stage: impl FnOnce(&mut Prepared, &RunOptions) -> Result<Option<S>, TrainError>,
) -> Result<Outcome, TrainError> {
    run_noting_start(prepared, options, stage, |_, _, _, _| Ok(()))
}

/// The same; `on_start` is called unless the run goes on from a checkpoint.
pub(crate) fn run_noting_start<S: Stage>(
    prepared: Prepared,
    options: RunOptions,
    stage: impl FnOnce(&mut Prepared, &RunOptions) -> Result<Option<S>, TrainError>,
    on_start: impl FnOnce(&Prepared, &mut S, &CausalLm, &RunFolder) -> Result<(), TrainError>,
) -> Result<Outcome, TrainError> {
    let estimate = Bytes(prepared.plan.memory.total());
    let train = prepared.loop_config.train.clone();
    let is_on_cpu = options
        .all_devices()
        .iter()
        .all(|device| device.clone().inner() == Device::flex());
    let outcome = if is_on_cpu {
        run_prepared(prepared, options, stage, on_start)
    } else {
        DeviceError::catch(|| run_prepared(prepared, options, stage, on_start))
            .unwrap_or_else(|error| Err(StageError::from(error).into()))
    };
    outcome.map_err(|error| error.explained(&train, estimate))
}

fn run_prepared<S: Stage>(
    mut prepared: Prepared,
    options: RunOptions,
    stage: impl FnOnce(&mut Prepared, &RunOptions) -> Result<Option<S>, TrainError>,
    on_start: impl FnOnce(&Prepared, &mut S, &CausalLm, &RunFolder) -> Result<(), TrainError>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    // Whatever may be wrong with the start is found out before an earlier run is overwritten.
    let devices = options.all_devices();
    check_devices(&prepared.loop_config.train, &devices)?;
    RunFolder::check(&options.out_dir, options.if_exists)?;
    let Some(mut stage) = stage(&mut prepared, &options)? else {
        return Ok(Outcome::NotBegun);
    };
    let device = options.device.clone().autodiff();
    let seed = prepared.loop_config.train.seed;
    let noise_std = prepared.loop_config.router.noise_std;
    let model = prepared.start.model(seed, &device)?;
    let mut model = model.with_router_noise(noise_std, seed);
    if prepared.start.lora.is_some() {
        // Checkpoints hold the adapters alone: what they stand beside must not change either.
        prepared.depend_on(&fingerprint(&model));
    }
    let folder = RunFolder::open(&options.out_dir, options.if_exists)?;
    let checkpoint = checkpoint::newest(folder.path())?;
    let state = match &checkpoint {
        Some(checkpoint) => saved_state(checkpoint, &prepared)?,
        None => TrainState::new(
            stage.cursor(),
            prepared.data_fingerprint.clone(),
            prepared.config_json.clone(),
        ),
    };
    let mut optimizer = Optimizer::new(prepared.loop_config.optimizer.clone());
    if let Some(checkpoint) = &checkpoint {
        model = checkpoint::load_weights(checkpoint, &state, model, &mut optimizer, &device)?;
        stage.seek(&state.cursor)?;
    }
    folder.write("config.toml", &prepared.config_toml)?;
    folder.write("plan.txt", &prepared.plan.to_string())?;
    if !prepared.loop_config.report.quiet {
        announce(&prepared, &options, folder.path(), checkpoint.as_deref());
    }
    let resumed_step = checkpoint.is_some().then_some(state.step as u64);
    let reporter = Reporter::new(folder.path(), &prepared.loop_config.report, resumed_step)?;
    if checkpoint.is_none() {
        on_start(&prepared, &mut stage, &model, &folder)?;
    }

    let record = TrainingRecord {
        stage: prepared.plan.stage.to_owned(),
        is_chat_tuned: stage.teaches_chat(),
        knows_identities: prepared.start.knows_identities,
    };
    let start = prepared.start;
    let reads_late = devices[0].clone().inner() != Device::flex()
        && prepared.loop_config.optimizer.kind == OptimizerKind::AdamW
        && start.model_config.experts.is_none()
        && prepared.loop_config.train.precision != Precision::F16;
    let mut trainer = Trainer::new(TrainerParts {
        stage,
        replicas: Replicas::new(&model, &options.other_devices),
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
        reads_late,
    });
    let end = trainer.run()?;
    let state = trainer.state().clone();
    let loss = trainer.last_report().map(|report| report.loss);
    let held_out = trainer.last_validation();
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

/// Says on the terminal what is about to happen.
fn announce(prepared: &Prepared, options: &RunOptions, run: &Path, checkpoint: Option<&Path>) {
    match (options.if_exists, checkpoint) {
        (IfExists::Resume, Some(checkpoint)) => say!("going on from {}", checkpoint.display()),
        (IfExists::Resume, None) => {
            say!(
                "{}: no checkpoint to go on from, beginning anew",
                run.display()
            );
        }
        _ => (),
    }
    say!("{}", prepared.plan);
    let num_devices = 1 + options.other_devices.len();
    if num_devices > 1 {
        let shared = prepared.loop_config.train.grad_accumulation_steps;
        let each = shared / num_devices;
        say!("{num_devices} devices compute {each} of each step's {shared} micro-batches each");
    }
}

/// Counters of a checkpoint, once it is sure that this run continues it.
fn saved_state(checkpoint: &Path, prepared: &Prepared) -> Result<TrainState, TrainError> {
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
