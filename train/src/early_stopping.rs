//! Early stopping on the validation loss.

use serde::{Deserialize, Serialize};

/// Count of validations without progress; belongs into the checkpoint, so that a resume counts on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    best_loss: Option<f64>,
    num_without_progress: u32,
}

impl EarlyStopping {
    /// Takes in a validation loss, in nats, and says whether it is the best one so far.
    ///
    /// A loss that is not finite is never the best.
    pub fn observe(&mut self, loss: f64) -> bool {
        let is_best = loss.is_finite() && self.best_loss.is_none_or(|best| loss < best);
        if is_best {
            self.best_loss = Some(loss);
            self.num_without_progress = 0;
        } else {
            self.num_without_progress += 1;
        }
        is_best
    }

    /// Whether the last `patience` validations brought no progress; `None` waits for ever.
    pub fn is_exhausted(&self, patience: Option<u32>) -> bool {
        patience.is_some_and(|patience| self.num_without_progress >= patience.max(1))
    }

    /// Lowest validation loss so far, in nats.
    pub fn best_loss(&self) -> Option<f64> {
        self.best_loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: with patience 2 the run ends at the second validation after the best one.
    #[test]
    fn a_run_ends_after_patience_validations_without_progress() {
        let mut stopping = EarlyStopping::default();
        let ends: Vec<bool> = [5.0, 4.0, 4.5, 3.9, 3.9, f64::NAN]
            .map(|loss| {
                stopping.observe(loss);
                stopping.is_exhausted(Some(2))
            })
            .into();
        assert_eq!(ends, [false, false, false, false, false, true]);
        assert_eq!(stopping.best_loss(), Some(3.9));
        assert!(!stopping.is_exhausted(None));
    }

    /// The state in a checkpoint is all there is: the copy ends where the original does.
    #[test]
    fn a_resumed_run_counts_on() {
        let mut stopping = EarlyStopping::default();
        assert!(stopping.observe(5.0));
        assert!(!stopping.observe(6.0));
        let saved = serde_json::to_string(&stopping).unwrap();
        let mut resumed: EarlyStopping = serde_json::from_str(&saved).unwrap();
        assert!(!resumed.observe(5.5));
        assert!(resumed.is_exhausted(Some(2)));
    }

    /// A model that is broken from the start has no best loss, and patience ends it.
    #[test]
    fn a_loss_that_is_not_finite_is_never_the_best() {
        let mut stopping = EarlyStopping::default();
        assert!(!stopping.observe(f64::NAN));
        assert_eq!(stopping.best_loss(), None);
        assert!(stopping.is_exhausted(Some(1)));
    }
}
