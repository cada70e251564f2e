//! Where the training loop ends, how it ended, and why it broke off.

use crate::checkpoint::CheckpointError;
use crate::guard::GuardError;
use crate::stage::StageError;

/// Where a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// After this optimizer step.
    Step(usize),
    /// At the first step that would begin after this many seconds of training.
    Secs(f64),
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopEnd {
    /// The run is as long as was asked.
    Completed,
    /// A stop was requested; a checkpoint was saved.
    Stopped,
}

/// Why the loop broke off.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The data could not be read.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Too many steps could not be trusted.
    #[error(transparent)]
    Guard(#[from] GuardError),
}
