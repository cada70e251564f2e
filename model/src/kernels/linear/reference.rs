//! Composed body of the linear projection.

use burn::prelude::*;
use burn::tensor::{DType, FloatDType};

/// What [`super::linear`] computes, from Burn's operations; of bf16 operands it is rounded to bf16.
pub fn linear<const R: usize>(x: Tensor<R>, weight: Tensor<2>) -> Tensor<R> {
    if x.dtype() == DType::BF16 {
        let weight = weight.cast(FloatDType::BF16); // [I, O]
        let out = burn::tensor::module::linear(x, weight, None); // [.., O]
        return out.cast(FloatDType::F32);
    }
    burn::tensor::module::linear(x, weight, None)
}
