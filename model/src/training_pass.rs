//! The forward pass of training that is under way: what is drawn in it follows from its number, and
//! its products may be computed in fewer bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::prelude::*;

use crate::precision::Precision;

/// What all parts of a model know of the pass under way.
#[derive(Debug, Clone, Default)]
pub struct TrainingPass(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Zero while nothing is drawn.
    number: AtomicU64,
    is_bf16: AtomicBool,
}

impl TrainingPass {
    /// Begins a pass: the same number gives the same masks and the same noise.
    pub fn begin(&self, pass: u64) {
        self.0.number.store(pass.max(1), Ordering::Relaxed);
    }

    /// Ends it: nothing is dropped and no noise is added any more.
    pub fn end(&self) {
        self.0.number.store(0, Ordering::Relaxed);
    }

    /// Number of the pass under way.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(self.0.number.load(Ordering::Relaxed)).filter(|&pass| pass > 0)
    }

    /// Does `work` with the model's products in this precision; before and after they are in f32.
    pub fn in_precision<R>(&self, precision: Precision, work: impl FnOnce() -> R) -> R {
        let is_bf16 = precision == Precision::Bf16;
        self.0.is_bf16.store(is_bf16, Ordering::Relaxed);
        let result = work();
        self.0.is_bf16.store(false, Ordering::Relaxed);
        result
    }

    /// The precision of products.
    pub(crate) fn precision(&self) -> Precision {
        if self.0.is_bf16.load(Ordering::Relaxed) {
            Precision::Bf16
        } else {
            Precision::F32
        }
    }

    /// The tensor as an operand of the pass's products.
    pub fn operand<const R: usize>(&self, x: Tensor<R>) -> Tensor<R> {
        self.precision().operand(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shared state is left as it was found.
    #[test]
    fn precision_lasts_as_long_as_the_work() {
        let pass = TrainingPass::default();
        let shared = pass.clone();
        let within = pass.in_precision(Precision::Bf16, || shared.precision());
        assert_eq!(
            [within, pass.precision()],
            [Precision::Bf16, Precision::F32]
        );
    }
}
