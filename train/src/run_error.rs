//! Why a run failed, in words that say what to change.

use crate::checkpoint::CheckpointError;
use crate::config::{ConfigError, FieldDifference, TrainSection};
use crate::data::DataError;
use crate::device_error::DeviceError;
use crate::distill::TeacherError;
use crate::dpo::ReferenceError;
use crate::export::ExportError;
use crate::loop_end::LoopError;
use crate::memory::Bytes;
use crate::report::ReportError;
use crate::reward::RewardError;
use crate::run_folder::RunFolderError;
use crate::stage::StageError;
use crate::start::StartError;

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
    /// A device has less memory than the run needs.
    #[error(
        "a step does not fit into the device's memory ({reason}): the plan estimates {estimate}; {}",
        remedy(.train)
    )]
    OutOfMemory {
        /// What the device said.
        reason: String,
        /// Memory that the plan promised.
        estimate: Bytes,
        /// What decides how much a step needs.
        train: Box<TrainSection>,
    },
}

/// Settings that make a step smaller.
fn remedy(train: &TrainSection) -> String {
    let (size, passes) = (train.micro_batch_size, train.grad_accumulation_steps);
    let recompute = if train.activation_checkpointing {
        ""
    } else {
        ", or set train.activation_checkpointing = true"
    };
    format!(
        "lower train.micro_batch_size (found {size}) and raise train.grad_accumulation_steps (found \
         {passes}) by the same factor, which changes no result{recompute}"
    )
}

impl TrainError {
    /// The error with what there is to do about it.
    pub(crate) fn explained(self, train: &TrainSection, estimate: Bytes) -> Self {
        match self {
            Self::Stage(StageError::Device(DeviceError::OutOfMemory { reason }))
            | Self::Loop(LoopError::Stage(StageError::Device(DeviceError::OutOfMemory {
                reason,
            }))) => Self::OutOfMemory {
                reason,
                estimate,
                train: Box::new(train.clone()),
            },
            error => error,
        }
    }
}

fn list(differences: &[FieldDifference]) -> String {
    differences
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device's message, the plan's number and the settings to change.
    #[test]
    fn a_full_memory_is_told_with_what_to_lower() {
        let reason = "out of device memory allocating 1024 bytes".to_owned();
        let error = TrainError::from(StageError::Device(DeviceError::OutOfMemory { reason }));
        let train = TrainSection {
            micro_batch_size: 32,
            ..TrainSection::default()
        };
        assert_eq!(
            error.explained(&train, Bytes(3 << 30)).to_string(),
            "a step does not fit into the device's memory (out of device memory allocating 1024 \
             bytes): the plan estimates 3.00 GiB; lower train.micro_batch_size (found 32) and raise \
             train.grad_accumulation_steps (found 1) by the same factor, which changes no result, or \
             set train.activation_checkpointing = true"
        );
    }
}
