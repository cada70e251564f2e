//! In how many bits the products of training are computed.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
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
    /// 11 bits of precision, from 2^-24 to 65504: what is larger becomes infinite, what is smaller
    /// than half of that zero, so that gradients have to be scaled.
    F16,
}

impl Precision {
    /// The tensor as an operand.
    pub fn operand<const R: usize>(self, x: Tensor<R>) -> Tensor<R> {
        match self.rounded_type() {
            Some(dtype) => x.cast(dtype),
            None => x,
        }
    }

    /// The type of rounded operands; `None` where nothing is rounded.
    pub fn rounded_type(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(FloatDType::BF16),
            Self::F16 => Some(FloatDType::F16),
        }
    }

    /// The precision that asks for an operand of this type.
    pub(crate) fn of_operand(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self::Bf16,
            DType::F16 => Self::F16,
            _ => Self::F32,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// A text that names no precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected f32, bf16 or f16")]
pub struct PrecisionError;

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(text: &str) -> Result<Self, PrecisionError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(PrecisionError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are read as they are written, and an operand's type says which precision made it.
    #[test]
    fn every_precision_is_known_by_its_name_and_its_operands() {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            let operand = precision.operand(Tensor::<1>::zeros([1], &Device::flex()));
            assert_eq!(Precision::of_operand(operand.dtype()), precision);
        }
        let error = "f8".parse::<Precision>().unwrap_err();
        assert_eq!(error.to_string(), "expected f32, bf16 or f16");
    }
}
