//! `[router]`: how a mixture of experts is kept in balance.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// What the auxiliary loss compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceKind {
    /// No auxiliary loss.
    None,
    /// The experts' loads within each row.
    Sequence,
    /// The experts' loads over each micro-batch.
    Batch,
}

/// `[router]`: how a mixture of experts is kept in balance; a model without experts does not read
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RouterSection {
    /// Auxiliary loss that makes experts equally busy: "sequence" (within each row), "batch" (over
    /// each micro-batch) or "none".
    pub balance: BalanceKind,
    /// Weight of the auxiliary loss of each layer against the mean loss per token, 0 or more; the
    /// loss is 1 when all experts are equally busy.
    pub balance_coef: f64,
    /// Weight of the loss on the size of each router's logits (z-loss), 0 or more.
    pub z_loss_coef: f64,
    /// How far a step moves the bias of each expert towards an equal load, 0 or more; read where
    /// the model's config.json gives its routers a bias.
    pub bias_rate: f64,
    /// Standard deviation of the noise on router logits in training, 0 or more.
    pub noise_std: f64,
}

impl Default for RouterSection {
    fn default() -> Self {
        Self {
            balance: BalanceKind::Sequence,
            balance_coef: 0.01,
            z_loss_coef: 0.001,
            bias_rate: 0.001,
            noise_std: 0.0,
        }
    }
}

impl RouterSection {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the field that is negative or no number.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("router.balance_coef", self.balance_coef),
            ("router.z_loss_coef", self.z_loss_coef),
            ("router.bias_rate", self.bias_rate),
            ("router.noise_std", self.noise_std),
        ] {
            ConfigError::check_not_negative(field, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A negative weight would reward a collapse.
    #[test]
    fn a_negative_weight_is_refused() {
        let section = RouterSection {
            balance_coef: -0.01,
            ..RouterSection::default()
        };
        assert_eq!(
            section.validate().unwrap_err().to_string(),
            "router.balance_coef: found -0.01, expected 0 or more"
        );
    }
}
