//! Composed body of AdamW's update.

use burn::prelude::*;

use super::{AdamWStep, AdamWTensors};

/// What [`super::adamw`] computes, from Burn's operations.
pub fn adamw(tensors: AdamWTensors, grad: Tensor<1>, step: AdamWStep) -> AdamWTensors {
    let AdamWTensors {
        param,
        moment_1,
        moment_2,
    } = tensors;
    let grad = grad.mul_scalar(step.grad_scale);
    let moment_1 = moment_1.mul_scalar(step.beta_1) + grad.clone().mul_scalar(1.0 - step.beta_1);
    let moment_2 = moment_2.mul_scalar(step.beta_2) + grad.square().mul_scalar(1.0 - step.beta_2);
    let root = moment_2.clone().sqrt().div_scalar(step.root_correction);
    let update = (moment_1.clone() / root.add_scalar(step.eps)).mul_scalar(step.step_size);
    AdamWTensors {
        param: param.mul_scalar(step.keep) - update,
        moment_1,
        moment_2,
    }
}
