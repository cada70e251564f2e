//! The forward pass of training that is under way: what is drawn in it follows from its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of the forward pass that draws masks and noise, shared by all parts of a model; while
/// there is none, nothing is drawn.
#[derive(Debug, Clone, Default)]
pub struct TrainingPass(Arc<AtomicU64>);

impl TrainingPass {
    /// Begins a pass: the same number gives the same masks and the same noise.
    pub fn begin(&self, pass: u64) {
        self.0.store(pass.max(1), Ordering::Relaxed);
    }

    /// Ends it: nothing is dropped and no noise is added any more.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Number of the pass under way.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&pass| pass > 0)
    }
}
