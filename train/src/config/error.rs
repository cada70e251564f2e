//! What can be wrong with a training config, said with the field, the value and the range.

use std::fmt::Display;

/// Why a config was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A field has a value that it cannot have.
    #[error("{field}: found {found}, expected {expected}")]
    Field {
        /// Dotted name, as written after `--set`.
        field: &'static str,
        /// Value that was given.
        found: String,
        /// Values that are accepted.
        expected: String,
    },
}

impl ConfigError {
    pub(crate) fn field(field: &'static str, found: impl Display, expected: impl Display) -> Self {
        Self::Field {
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(crate) fn check_share(field: &'static str, value: f64) -> Result<(), Self> {
        if (0.0..=1.0).contains(&value) {
            Ok(())
        } else {
            Err(Self::field(field, value, "a share from 0 to 1"))
        }
    }

    pub(crate) fn check_at_least(
        field: &'static str,
        value: usize,
        least: usize,
    ) -> Result<(), Self> {
        if value >= least {
            Ok(())
        } else {
            Err(Self::field(field, value, format!("at least {least}")))
        }
    }

    pub(crate) fn check_positive(field: &'static str, value: f64) -> Result<(), Self> {
        if value > 0.0 && value.is_finite() {
            Ok(())
        } else {
            Err(Self::field(field, value, "a number above 0"))
        }
    }

    pub(crate) fn check_below_one(field: &'static str, value: f64) -> Result<(), Self> {
        if (0.0..1.0).contains(&value) {
            Ok(())
        } else {
            Err(Self::field(field, value, "0 or more and below 1"))
        }
    }

    pub(crate) fn check_not_negative(field: &'static str, value: f64) -> Result<(), Self> {
        if value >= 0.0 && value.is_finite() {
            Ok(())
        } else {
            Err(Self::field(field, value, "0 or more"))
        }
    }
}
