//! Composed body of the linear projection.

use burn::prelude::*;
use burn::tensor::FloatDType;

use crate::precision::Precision;

/// What [`super::linear`] computes, from Burn's operations; of rounded operands it is rounded too.
pub fn linear<const R: usize>(x: Tensor<R>, weight: Tensor<2>) -> Tensor<R> {
    if let Some(dtype) = Precision::of_operand(x.dtype()).rounded_type() {
        let weight = weight.cast(dtype); // [I, O]
        let out = burn::tensor::module::linear(x, weight, None); // [.., O]
        return out.cast(FloatDType::F32);
    }
    burn::tensor::module::linear(x, weight, None)
}
