//! Decides whether a step can be trusted, and when a run of bad steps must end.

use serde::{Deserialize, Serialize};

/// Why a step was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// No token of the step's batches is trained on.
    #[error("no trained token")]
    NoSupervisedToken,
    /// The loss is NaN or infinite.
    #[error("a loss that is not finite")]
    LossNotFinite,
    /// The gradient's norm is NaN or infinite.
    #[error("a gradient that is not finite")]
    GradientNotFinite,
}

/// Too many steps in a row could not be applied.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "step {step}: {num_skipped} steps in a row were skipped, the last one for {reason}; \
     guard.max_skipped_steps allows {allowed}"
)]
pub struct GuardError {
    /// Step at which the run ended.
    pub step: usize,
    /// Skipped steps in a row, this one included.
    pub num_skipped: usize,
    /// What was wrong with the last one.
    pub reason: SkipReason,
    /// Limit of the config.
    pub allowed: usize,
}

/// Counts of skipped steps; part of every checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipCounts {
    /// Skipped steps of the whole run.
    pub total: usize,
    /// Skipped steps since the last applied one.
    pub in_a_row: usize,
}

impl SkipCounts {
    /// Records an applied step.
    pub fn applied(&mut self) {
        self.in_a_row = 0;
    }

    /// Records a skipped step that is not counted among those in a row: its loss was scaled too
    /// far, and the next one's is scaled less.
    pub fn skipped_for_scale(&mut self) {
        self.total += 1;
    }

    /// Records a skipped step.
    ///
    /// # Errors
    ///
    /// When more steps in a row were skipped than allowed.
    pub fn skipped(
        &mut self,
        step: usize,
        reason: SkipReason,
        allowed: usize,
    ) -> Result<(), GuardError> {
        self.total += 1;
        self.in_a_row += 1;
        if self.in_a_row > allowed {
            return Err(GuardError {
                step,
                num_skipped: self.in_a_row,
                reason,
                allowed,
            });
        }
        Ok(())
    }
}

/// Why a step with these numbers must not be applied; `None` when it can be.
///
/// `grad_norm` is of the summed gradients, before clipping.
pub fn skip_reason(num_supervised: usize, loss_sum: f64, grad_norm: f64) -> Option<SkipReason> {
    if num_supervised == 0 {
        Some(SkipReason::NoSupervisedToken)
    } else if !loss_sum.is_finite() {
        Some(SkipReason::LossNotFinite)
    } else if !grad_norm.is_finite() {
        Some(SkipReason::GradientNotFinite)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, one case per rule; the missing tokens come first because their loss is 0 / 0.
    #[test]
    fn only_finite_steps_with_trained_tokens_pass() {
        assert_eq!(skip_reason(3, 1.0, 1.0), None);
        assert_eq!(
            skip_reason(0, f64::NAN, 0.0),
            Some(SkipReason::NoSupervisedToken)
        );
        assert_eq!(
            skip_reason(3, f64::NAN, 1.0),
            Some(SkipReason::LossNotFinite)
        );
        assert_eq!(
            skip_reason(3, f64::INFINITY, 1.0),
            Some(SkipReason::LossNotFinite)
        );
        assert_eq!(
            skip_reason(3, 1.0, f64::INFINITY),
            Some(SkipReason::GradientNotFinite)
        );
    }

    /// The limit counts skips in a row; an applied step forgives them, the total stays. One for the
    /// scale is only in the total.
    #[test]
    fn the_run_ends_after_too_many_skips_in_a_row() {
        let mut counts = SkipCounts::default();
        let reason = SkipReason::LossNotFinite;
        assert_eq!(counts.skipped(1, reason, 2), Ok(()));
        assert_eq!(counts.skipped(2, reason, 2), Ok(()));
        counts.applied();
        assert_eq!(counts.skipped(4, reason, 2), Ok(()));
        counts.skipped_for_scale();
        assert_eq!(counts.skipped(6, reason, 2), Ok(()));
        let error = counts.skipped(7, reason, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "step 7: 3 steps in a row were skipped, the last one for a loss that is not finite; \
             guard.max_skipped_steps allows 2"
        );
        assert_eq!(
            counts,
            SkipCounts {
                total: 6,
                in_a_row: 3
            }
        );
    }
}
