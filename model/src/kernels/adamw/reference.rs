//! Composed body of AdamW's update.

use burn::prelude::*;

use super::{AdamWStep, AdamWTensors};

/// What [`super::adamw`] computes, from Burn's operations.
pub fn adamw(
    tensors: AdamWTensors,
    grad: Tensor<1>,
    scale: Tensor<1>,
    step: AdamWStep,
) -> AdamWTensors {
    let AdamWTensors {
        param,
        moment_1,
        moment_2,
    } = tensors.clone();
    let is_skipped = scale.clone().lower_elem(0.0).expand(grad.shape()); // [n]
    let grad = grad * scale;
    let moment_1 = moment_1.mul_scalar(step.beta_1) + grad.clone().mul_scalar(1.0 - step.beta_1);
    let moment_2 = moment_2.mul_scalar(step.beta_2) + grad.square().mul_scalar(1.0 - step.beta_2);
    let root = moment_2.clone().sqrt().div_scalar(step.root_correction);
    let update = (moment_1.clone() / root.add_scalar(step.eps)).mul_scalar(step.step_size);
    let unless_skipped = |new: Tensor<1>, old| new.mask_where(is_skipped.clone(), old);
    AdamWTensors {
        param: unless_skipped(param.mul_scalar(step.keep) - update, tensors.param),
        moment_1: unless_skipped(moment_1, tensors.moment_1),
        moment_2: unless_skipped(moment_2, tensors.moment_2),
    }
}
