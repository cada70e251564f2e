//! Composed body of the head and its loss: the logits are held whole.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use crate::kernels::IGNORE_INDEX;
use crate::kernels::linear::reference::linear;

/// What [`super::linear_cross_entropy`] computes, from Burn's operations.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    token_cross_entropy(hidden, weight, labels).sum()
}

/// What [`super::token_cross_entropy`] computes, from Burn's operations.
pub fn token_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    let [num_tokens, _] = hidden.dims();
    let ignored = labels.clone().equal_elem(IGNORE_INDEX); // [M]
    let targets = labels
        .mask_fill(ignored.clone(), 0)
        .reshape([num_tokens, 1]); // [M, 1]
    let logps = log_softmax(linear(hidden, weight.transpose()), 1); // [M, V]
    let nll = -logps.gather(1, targets).reshape([num_tokens]); // [M]
    nll.mask_fill(ignored, 0.0)
}
