//! Checkpoints: everything a run needs to go on bit for bit, complete on the disk or not there at
//! all.
//!
//! A checkpoint is a folder `step_000500`. It is written under another name, brought to the disk,
//! and only then given its own, so a folder with that name is always complete. Loading verifies the
//! SHA-256 of every file. All randomness of training is a function of the config's seed and of
//! counters (the loader's cursor, the step), so the counters are the state of every generator.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::guard::SkipCounts;
use crate::loss_scale::LossScale;
use crate::optimizer::Optimizer;
use crate::run_folder::{is_leftover, sync_folder, write_atomically};
use crate::weights::{WeightsError, hex, load_model, load_optimizer, save_model, save_optimizer};

const FORMAT: u32 = 1;
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const CHECKSUMS: &str = "checksums";
const LATEST: &str = "latest";
const BEST: &str = "best";

/// Counters of a run: what `trainer.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of the checkpoint's layout.
    pub format: u32,
    /// Optimizer steps taken, skipped ones included.
    pub step: usize,
    /// Tokens read, padding not counted.
    pub tokens: u64,
    /// Tokens trained on.
    pub supervised: u64,
    /// Updates applied by the optimizer.
    pub num_updates: u64,
    /// Steps that could not be applied.
    pub skipped: SkipCounts,
    /// What losses are multiplied by; `None` where the precision needs no scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Seconds of training, over all processes of the run.
    pub elapsed_secs: f64,
    /// Lowest validation loss so far, in nats per token.
    pub best_loss: Option<f64>,
    /// Step of the lowest validation loss so far.
    pub best_step: Option<usize>,
    /// Validations since the one with the lowest loss.
    pub num_without_progress: usize,
    /// Where the loader goes on.
    pub cursor: serde_json::Value,
    /// Identity of the training data, the tokenizer and frozen weights.
    pub data_fingerprint: String,
    /// The resolved config of the run.
    pub config: serde_json::Value,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(
        cursor: serde_json::Value,
        data_fingerprint: String,
        config: serde_json::Value,
    ) -> Self {
        Self {
            format: FORMAT,
            step: 0,
            tokens: 0,
            supervised: 0,
            num_updates: 0,
            skipped: SkipCounts::default(),
            loss_scale: None,
            elapsed_secs: 0.0,
            best_loss: None,
            best_step: None,
            num_without_progress: 0,
            cursor,
            data_fingerprint,
            config,
        }
    }
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder cannot be written; earlier checkpoints are untouched.
    #[error("{}: the checkpoint cannot be written, earlier ones are untouched", path.display())]
    Write {
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder cannot be read.
    #[error("{}: the checkpoint cannot be read", path.display())]
    Read {
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error(
        "{}: the file is damaged (its SHA-256 is not the one in {CHECKSUMS}); \
         delete this checkpoint's folder to go on from an earlier one", path.display()
    )]
    Damaged {
        /// File whose content changed.
        path: PathBuf,
    },
    /// A text file is not of the form that checkpoints have.
    #[error("{}: {expected}", path.display())]
    Form {
        /// File concerned.
        path: PathBuf,
        /// What it should have held.
        expected: String,
    },
    /// The tensors do not fit the model.
    #[error("{}: does not fit the model", path.display())]
    Weights {
        /// File concerned.
        path: PathBuf,
        /// Tensor concerned, and how it differs.
        source: WeightsError,
    },
}

/// Folder name of a checkpoint.
pub fn folder_name(step: usize) -> String {
    format!("step_{step:06}")
}

/// Step of a checkpoint's folder name; `None` for any other name.
pub fn step_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("step_")?;
    let is_canonical = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_canonical {
        digits.parse().ok()
    } else {
        None
    }
}

/// Steps of the complete checkpoints in a run's folder, oldest first.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn steps(run: &Path) -> Result<Vec<usize>, CheckpointError> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(run).map_err(|source| read_error(run, source))? {
        let name = entry.map_err(|source| read_error(run, source))?.file_name();
        steps.extend(name.to_str().and_then(step_of));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Folder of the newest complete checkpoint of a run; `None` when there is none.
///
/// # Errors
///
/// When the run's folder cannot be read, or when it had a checkpoint and all are gone.
pub fn newest(run: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let newest = steps(run)?.last().map(|step| run.join(folder_name(*step)));
    let latest = run.join(LATEST);
    if newest.is_none() && latest.exists() {
        return Err(CheckpointError::Form {
            path: latest,
            expected: "names a checkpoint that is gone, and there is no other to go on from"
                .to_owned(),
        });
    }
    Ok(newest)
}

/// Writes the checkpoint of a step and makes it the latest; returns its folder.
///
/// # Errors
///
/// When a file cannot be written, on a full disk for one. What was half-written is removed.
pub fn save<M: Module>(
    run: &Path,
    model: &M,
    optimizer: &Optimizer,
    state: &TrainState,
) -> Result<PathBuf, CheckpointError> {
    let name = folder_name(state.step);
    let folder = run.join(&name);
    // The weights after a step are always the same bits, so there is nothing to write twice.
    if !folder.exists() {
        let writing = run.join(format!(".writing-{name}"));
        if let Err(error) = write_folder(&writing, model, optimizer, state) {
            let _ = fs::remove_dir_all(&writing);
            return Err(error);
        }
        fs::rename(&writing, &folder).map_err(|source| write_error(&folder, source))?;
        sync_folder(run).map_err(|source| write_error(run, source))?;
    }
    point(run, LATEST, state.step)?;
    Ok(folder)
}

/// Names a saved step as the best one so far.
///
/// # Errors
///
/// When the file cannot be written.
pub fn mark_best(run: &Path, step: usize) -> Result<(), CheckpointError> {
    point(run, BEST, step)
}

/// Deletes old checkpoints, and what a killed process left half-written or half-deleted.
///
/// The newest `keep_last` stay, and the one that is named best.
///
/// # Errors
///
/// When a folder cannot be read or removed.
pub fn prune(run: &Path, keep_last: usize) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(run).map_err(|source| read_error(run, source))? {
        let entry = entry.map_err(|source| read_error(run, source))?;
        let path = entry.path();
        if is_leftover(&entry.file_name().to_string_lossy()) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(|source| write_error(&path, source))?;
        }
    }
    let best = fs::read_to_string(run.join(BEST))
        .ok()
        .and_then(|name| step_of(name.trim()));
    let steps = steps(run)?;
    let num_old = steps.len().saturating_sub(keep_last.max(1));
    for step in steps
        .into_iter()
        .take(num_old)
        .filter(|step| Some(*step) != best)
    {
        let folder = run.join(folder_name(step));
        // Renamed first: a process killed in the middle leaves no half of a checkpoint behind.
        let deleting = run.join(format!(".deleting-{}", folder_name(step)));
        fs::rename(&folder, &deleting)
            .and_then(|()| fs::remove_dir_all(&deleting))
            .map_err(|source| write_error(&folder, source))?;
    }
    Ok(())
}

/// Reads the counters of a checkpoint after verifying all its files.
///
/// # Errors
///
/// When a file is missing, damaged, or of another layout.
pub fn load_state(folder: &Path) -> Result<TrainState, CheckpointError> {
    verify(folder)?;
    let path = folder.join(TRAINER);
    let text = fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
    let state: TrainState = serde_json::from_str(&text).map_err(|error| CheckpointError::Form {
        path: path.clone(),
        expected: format!("not a trainer state: {error}"),
    })?;
    if state.format != FORMAT {
        let expected = format!("found format {}, expected format {FORMAT}", state.format);
        return Err(CheckpointError::Form { path, expected });
    }
    Ok(state)
}

/// Reads the weights and the optimizer's memory of a checkpoint whose counters were read.
///
/// # Errors
///
/// When a tensor is missing, unknown or of another shape than the model's.
pub fn load_weights<M: Module>(
    folder: &Path,
    state: &TrainState,
    model: M,
    optimizer: &mut Optimizer,
    device: &Device,
) -> Result<M, CheckpointError> {
    let path = folder.join(MODEL);
    let model =
        load_model(&path, model).map_err(|source| CheckpointError::Weights { path, source })?;
    let path = folder.join(OPTIMIZER);
    load_optimizer(&path, optimizer, &model, device)
        .map_err(|source| CheckpointError::Weights { path, source })?;
    optimizer.num_updates = state.num_updates;
    Ok(model)
}

fn write_folder<M: Module>(
    folder: &Path,
    model: &M,
    optimizer: &Optimizer,
    state: &TrainState,
) -> Result<(), CheckpointError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|source| write_error(folder, source))?;
    }
    fs::create_dir_all(folder).map_err(|source| write_error(folder, source))?;
    let tensors_error = |name: &str, source: WeightsError| match source {
        WeightsError::Io(source) => write_error(&folder.join(name), source),
        source => CheckpointError::Weights {
            path: folder.join(name),
            source,
        },
    };
    let model_sum =
        save_model(&folder.join(MODEL), model).map_err(|error| tensors_error(MODEL, error))?;
    let optimizer_sum = save_optimizer(&folder.join(OPTIMIZER), optimizer)
        .map_err(|error| tensors_error(OPTIMIZER, error))?;
    let path = folder.join(TRAINER);
    let json = serde_json::to_string_pretty(state).expect("counters and JSON values are JSON");
    write_atomically(&path, json.as_bytes()).map_err(|source| write_error(&path, source))?;

    // The layout of `sha256sum`, which can check a checkpoint too.
    let trainer_sum = hex(&Sha256::digest(json.as_bytes()));
    let checksums =
        format!("{model_sum}  {MODEL}\n{optimizer_sum}  {OPTIMIZER}\n{trainer_sum}  {TRAINER}\n");
    let path = folder.join(CHECKSUMS);
    write_atomically(&path, checksums.as_bytes()).map_err(|source| write_error(&path, source))?;
    sync_folder(folder).map_err(|source| write_error(folder, source))
}

/// Compares every file with its checksum.
fn verify(folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(CHECKSUMS);
    let text = fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
    let listed: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(checksum, name)| (name, checksum))
        .collect();
    for name in [MODEL, OPTIMIZER, TRAINER] {
        let Some(expected) = listed.get(name) else {
            let expected = format!("expected a line for {name}");
            return Err(CheckpointError::Form { path, expected });
        };
        let path = folder.join(name);
        let found = sha256(&path).map_err(|source| read_error(&path, source))?;
        if found != *expected {
            return Err(CheckpointError::Damaged { path });
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let num_read = file.read(&mut buffer)?;
        if num_read == 0 {
            break;
        }
        hasher.update(&buffer[..num_read]);
    }
    Ok(hex(&hasher.finalize()))
}

fn point(run: &Path, pointer: &str, step: usize) -> Result<(), CheckpointError> {
    let path = run.join(pointer);
    write_atomically(&path, format!("{}\n", folder_name(step)).as_bytes())
        .map_err(|source| write_error(&path, source))
}

fn write_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Write {
        path: path.to_owned(),
        source,
    }
}

fn read_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Read {
        path: path.to_owned(),
        source,
    }
}
