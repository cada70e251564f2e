//! The forward pass of training that is under way: what is drawn in it follows from its number, its
//! products may be computed in fewer bits, and its loss may be scaled for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use burn::prelude::*;

use crate::precision::Precision;

/// What all parts of a model know of the pass under way.
#[derive(Debug, Clone, Default)]
pub struct TrainingPass(Arc<State>);

#[derive(Debug)]
struct State {
    /// Zero while nothing is drawn.
    number: AtomicU64,
    /// A [`Precision`] as a number.
    precision: AtomicU8,
    /// Bits of an f32.
    loss_scale: AtomicU32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(0),
            precision: AtomicU8::new(Precision::F32 as u8),
            loss_scale: AtomicU32::new(1.0_f32.to_bits()),
        }
    }
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
        self.0.precision.store(precision as u8, Ordering::Relaxed);
        let result = work();
        self.0
            .precision
            .store(Precision::F32 as u8, Ordering::Relaxed);
        result
    }

    /// The precision of products.
    pub(crate) fn precision(&self) -> Precision {
        let number = self.0.precision.load(Ordering::Relaxed);
        [Precision::Bf16, Precision::F16]
            .into_iter()
            .find(|precision| *precision as u8 == number)
            .unwrap_or_default()
    }

    /// Has every loss multiplied by this before it is differentiated, so that small gradients are
    /// not rounded to zero; 1 at first. Whoever reads the gradients divides by it.
    pub fn set_loss_scale(&self, scale: f32) {
        self.0.loss_scale.store(scale.to_bits(), Ordering::Relaxed);
    }

    /// What losses are multiplied by before they are differentiated.
    pub fn loss_scale(&self) -> f32 {
        f32::from_bits(self.0.loss_scale.load(Ordering::Relaxed))
    }

    /// The loss as it is to be differentiated.
    pub fn scaled(&self, loss: Tensor<1>) -> Tensor<1> {
        let scale = self.loss_scale();
        if scale.to_bits() == 1.0_f32.to_bits() {
            return loss;
        }
        loss.mul_scalar(scale)
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
        for precision in [Precision::Bf16, Precision::F16] {
            let within = pass.in_precision(precision, || shared.precision());
            assert_eq!([within, pass.precision()], [precision, Precision::F32]);
        }
    }

    /// By hand: 3 * 8, and nothing is done at 1.
    #[test]
    fn losses_are_scaled_for_all_that_share_the_pass() {
        let pass = TrainingPass::default();
        let loss = || Tensor::<1>::from_floats([3.0], &Device::flex());
        let scaled = |pass: &TrainingPass| pass.scaled(loss()).into_data();
        assert_eq!(scaled(&pass), loss().into_data());
        pass.clone().set_loss_scale(8.0);
        assert_eq!(scaled(&pass), (loss() * 8.0).into_data());
    }
}
