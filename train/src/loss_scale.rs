//! Dynamic loss scaling: losses are multiplied before they are differentiated, so that gradients
//! which f16 would round to zero stay in its range, by a factor that finds its size itself.
//!
//! Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2. The rule and its numbers are
//! those of PyTorch's `torch.amp.GradScaler`: torch/amp/grad_scaler.py, and `_amp_update_scale_` in
//! aten/src/ATen/native/cpu/AmpGradScalerKernels.cpp.

use model::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::guard::SkipReason;

const INITIAL: f32 = 65_536.0;
const GROWTH_FACTOR: f32 = 2.0;
const BACKOFF_FACTOR: f32 = 0.5;
/// Applied steps in a row after which the scale grows.
const GROWTH_INTERVAL: usize = 2000;
/// PyTorch has no such bound; a scale of zero could not be divided by.
const LOWEST: f32 = f32::MIN_POSITIVE;

/// The factor of losses; part of every checkpoint of a run in f16.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// What losses are multiplied by before they are differentiated.
    pub scale: f32,
    /// Applied steps since the last one that was not finite, or since the scale grew.
    pub steps_since_change: usize,
}

impl LossScale {
    /// The scale to begin with; `None` where gradients need none.
    pub fn of(precision: Precision) -> Option<Self> {
        (precision == Precision::F16).then_some(Self {
            scale: INITIAL,
            steps_since_change: 0,
        })
    }

    /// Records an applied step.
    pub fn applied(&mut self) {
        self.steps_since_change += 1;
        if self.steps_since_change < GROWTH_INTERVAL {
            return;
        }
        self.steps_since_change = 0;
        let grown = self.scale * GROWTH_FACTOR;
        if grown.is_finite() {
            self.scale = grown;
        }
    }

    /// Records a skipped step; returns whether the scale was to blame.
    ///
    /// What is not finite makes the scale fall. It is to blame for gradients of a loss that is finite
    /// itself, as long as it is more than 1: at 1 or less they are too large by themselves. No scale
    /// mends a loss, which is computed without one.
    pub fn skipped(&mut self, reason: SkipReason) -> bool {
        if reason == SkipReason::NoSupervisedToken {
            return false;
        }
        let is_to_blame = reason == SkipReason::GradientNotFinite && self.scale > 1.0;
        self.scale = (self.scale * BACKOFF_FACTOR).max(LOWEST);
        self.steps_since_change = 0;
        is_to_blame
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        /// Whether steps are finite, how many, and the scale and its counter after them.
        runs: Vec<(bool, usize, f32, usize)>,
    }

    fn initial() -> LossScale {
        LossScale::of(Precision::F16).unwrap()
    }

    /// Against a recorded run of PyTorch's `GradScaler`, made by the recipe beside it.
    #[test]
    fn the_scale_moves_as_pytorchs() {
        let text = include_str!("../tests/golden/loss_scale.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        let mut scale = initial();
        for (run, (is_finite, count, expected, since)) in golden.runs.into_iter().enumerate() {
            for _ in 0..count {
                if is_finite {
                    scale.applied();
                } else {
                    scale.skipped(SkipReason::GradientNotFinite);
                }
            }
            assert_eq!(
                (scale.scale.to_bits(), scale.steps_since_change),
                (expected.to_bits(), since),
                "run {run}: found {}, expected {expected}",
                scale.scale
            );
        }
    }

    /// By hand: 2^16 is halved sixteen times before it is 1, and only these steps are its fault.
    #[test]
    fn the_scale_is_to_blame_until_it_is_one() {
        let mut scale = initial();
        for expected in (0..16).rev() {
            assert!(scale.skipped(SkipReason::GradientNotFinite));
            assert_eq!(scale.scale.to_bits(), 2.0_f32.powi(expected).to_bits());
        }
        assert!(!scale.skipped(SkipReason::GradientNotFinite));
        assert_eq!(scale.scale.to_bits(), 0.5_f32.to_bits());
    }

    /// A loss that is not finite lowers the scale, as in PyTorch, and is bad all the same; a step
    /// without trained tokens says nothing.
    #[test]
    fn other_skipped_steps_are_not_the_scales_fault() {
        let mut scale = initial();
        scale.applied();
        assert!(!scale.skipped(SkipReason::NoSupervisedToken));
        assert_eq!(scale.steps_since_change, 1);
        assert!(!scale.skipped(SkipReason::LossNotFinite));
        let expected = LossScale {
            scale: 32_768.0,
            steps_since_change: 0,
        };
        assert_eq!(scale, expected);
    }

    /// However long gradients are not finite, the scale can be divided by.
    #[test]
    fn the_scale_is_never_zero() {
        let mut scale = initial();
        for _ in 0..1000 {
            scale.skipped(SkipReason::GradientNotFinite);
        }
        assert_eq!(scale.scale.to_bits(), f32::MIN_POSITIVE.to_bits());
    }

    /// Only f16 lacks the range.
    #[test]
    fn other_precisions_need_no_scale() {
        assert_eq!(LossScale::of(Precision::F32), None);
        assert_eq!(LossScale::of(Precision::Bf16), None);
    }
}
