//! In how many bits the products of training are computed.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;
use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// What the operands of matrix products are rounded to. Everything else is f32 in any case: weights,
/// their gradients and moments, sums, norms, softmax and losses.
///
/// Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3, with the bf16 of Kalamkar et al.
/// 2019, arXiv:1905.12322, which needs no loss scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of precision.
    #[default]
    F32,
    /// The upper half of an f32: 8 bits of precision and the whole range.
    Bf16,
}

impl Precision {
    /// The tensor as an operand.
    pub fn operand<const R: usize>(self, x: Tensor<R>) -> Tensor<R> {
        match self {
            Self::F32 => x,
            Self::Bf16 => x.cast(FloatDType::BF16),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A text that names no precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected f32 or bf16")]
pub struct PrecisionError;

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(text: &str) -> Result<Self, PrecisionError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(PrecisionError),
        }
    }
}
