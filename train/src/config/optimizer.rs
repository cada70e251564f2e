//! `[optimizer]`: the update rule and its numbers.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Rule that turns gradients into updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW for every parameter.
    #[serde(rename = "adamw")]
    AdamW,
    /// Muon for the matrices inside the layers, AdamW for embedding, head and norms.
    Muon,
}

/// `[optimizer]`: how gradients become updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Update rule: "adamw", or "muon" (Muon for the matrices inside the layers, AdamW for the
    /// rest).
    pub kind: OptimizerKind,
    /// Peak learning rate, above 0; Muon's steps are scaled so that the same value fits both.
    pub lr: f64,
    /// Decay rates of AdamW's running means of the gradient and of its square, each from 0 to below
    /// 1.
    pub betas: [f64; 2],
    /// Added to AdamW's denominator, above 0.
    pub eps: f64,
    /// Momentum of Muon, from 0 to below 1.
    pub muon_momentum: f64,
    /// Decoupled weight decay, 0 or more, on tensors of two or more dimensions (the embedding is
    /// one).
    pub weight_decay: f64,
    /// Decay every tensor, norms included, as MiniMind does.
    pub decay_everything: bool,
    /// Longest gradient (norm over all parameters) that is used as it is; a longer one is scaled
    /// down to it. Above 0.
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr: 1e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            muon_momentum: 0.95,
            weight_decay: 0.1,
            decay_everything: false,
            max_grad_norm: 1.0,
        }
    }
}

impl OptimizerConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_positive("optimizer.lr", self.lr)?;
        ConfigError::check_positive("optimizer.eps", self.eps)?;
        ConfigError::check_positive("optimizer.max_grad_norm", self.max_grad_norm)?;
        ConfigError::check_not_negative("optimizer.weight_decay", self.weight_decay)?;
        for beta in self.betas {
            ConfigError::check_below_one("optimizer.betas", beta)?;
        }
        ConfigError::check_below_one("optimizer.muon_momentum", self.muon_momentum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts name the field.
    #[test]
    fn a_beta_of_one_is_refused() {
        let config = OptimizerConfig {
            betas: [0.9, 1.0],
            ..OptimizerConfig::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "optimizer.betas: found 1, expected 0 or more and below 1"
        );
    }
}
