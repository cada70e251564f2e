//! AdamW's update of one parameter.
//!
//! Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2, in PyTorch's order of
//! operations. Burn's own AdamW corrects the moments by factors computed in f32, where `1 - 0.999`
//! has lost three digits, and keys its state by ids that change from process to process.

use burn::prelude::*;
use rayon::prelude::*;

/// Elements that one core updates at a time.
const CHUNK: usize = 1 << 14;

/// The numbers of one AdamW update that do not depend on the parameter's elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    /// What gradients are multiplied by first.
    pub(crate) grad_scale: f64,
    /// Decay rate of the mean of the gradient.
    pub(crate) beta_1: f64,
    /// Decay rate of the mean of the gradient's square.
    pub(crate) beta_2: f64,
    /// Share of the parameter that weight decay leaves.
    pub(crate) keep: f64,
    /// `lr / (1 − β₁ᵗ)`.
    pub(crate) step_size: f64,
    /// `√(1 − β₂ᵗ)`.
    pub(crate) root_correction: f64,
    /// Added to the denominator.
    pub(crate) eps: f64,
}

/// A parameter and its moments, each flattened.
pub(crate) struct AdamWTensors {
    /// `[n]`.
    pub(crate) param: Tensor<1>,
    /// Mean of the gradient, `[n]`.
    pub(crate) moment_1: Tensor<1>,
    /// Mean of the gradient's square, `[n]`.
    pub(crate) moment_2: Tensor<1>,
}

/// The parameter and its moments after one update by the gradient `[n]`.
///
/// `m = β₁ m + (1 − β₁) g`, `v = β₂ v + (1 − β₂) g²`,
/// `p = (1 − lr·λ) p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)`
///
/// On the CPU it is one pass over memory, in place where the tensors have no other owner.
pub(crate) fn adamw_update(
    tensors: AdamWTensors,
    grad: Tensor<1>,
    step: AdamWStep,
) -> AdamWTensors {
    if grad.device() == Device::flex() {
        update_on_cpu(tensors, grad, step)
    } else {
        update_composed(tensors, grad, step)
    }
}

/// The same, composed from Burn's operations.
fn update_composed(tensors: AdamWTensors, grad: Tensor<1>, step: AdamWStep) -> AdamWTensors {
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

/// The same, in one pass.
fn update_on_cpu(tensors: AdamWTensors, grad: Tensor<1>, step: AdamWStep) -> AdamWTensors {
    let device = grad.device();
    let grad = grad.into_data();
    let [mut param, mut moment_1, mut moment_2] =
        [tensors.param, tensors.moment_1, tensors.moment_2].map(Tensor::into_data);
    let grad_scale = step.grad_scale as f32;
    let (beta_1, rest_1) = (step.beta_1 as f32, (1.0 - step.beta_1) as f32);
    let (beta_2, rest_2) = (step.beta_2 as f32, (1.0 - step.beta_2) as f32);
    let (keep, step_size) = (step.keep as f32, step.step_size as f32);
    let (root_correction, eps) = (step.root_correction as f32, step.eps as f32);
    let params = param
        .as_mut_slice::<f32>()
        .expect(IS_F32)
        .par_chunks_mut(CHUNK);
    let firsts = moment_1
        .as_mut_slice::<f32>()
        .expect(IS_F32)
        .par_chunks_mut(CHUNK);
    let seconds = moment_2
        .as_mut_slice::<f32>()
        .expect(IS_F32)
        .par_chunks_mut(CHUNK);
    let grads = grad.as_slice::<f32>().expect(IS_F32).par_chunks(CHUNK);
    params
        .zip(firsts)
        .zip(seconds)
        .zip(grads)
        .for_each(|(((params, firsts), seconds), grads)| {
            for (((p, m), v), g) in params.iter_mut().zip(firsts).zip(seconds).zip(grads) {
                let g = g * grad_scale;
                *m = *m * beta_1 + g * rest_1;
                *v = *v * beta_2 + g * g * rest_2;
                *p = *p * keep - *m / (v.sqrt() / root_correction + eps) * step_size;
            }
        });
    let [param, moment_1, moment_2] =
        [param, moment_1, moment_2].map(|data| Tensor::from_data(data, &device));
    AdamWTensors {
        param,
        moment_1,
        moment_2,
    }
}

const IS_F32: &str = "weights, moments and gradients are f32";

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> (AdamWTensors, Tensor<1>) {
        let device = Device::flex();
        let tensor = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device);
        let tensors = AdamWTensors {
            param: tensor([0.5, -1.0, 2.0, 0.0]),
            moment_1: tensor([0.1, -0.2, 0.0, 0.3]),
            moment_2: tensor([0.01, 0.5, 0.0, 1.0]),
        };
        (tensors, tensor([1.0, -2.0, 0.0, 1e-6]))
    }

    /// One pass and Burn's operations are one formula: the same up to the rounding of f32.
    #[test]
    fn the_pass_over_memory_equals_the_composed_update() {
        let step = AdamWStep {
            grad_scale: 0.25,
            beta_1: 0.9,
            beta_2: 0.95,
            keep: 0.99,
            step_size: 0.01,
            root_correction: 0.3,
            eps: 1e-8,
        };
        let (input, grad) = tensors();
        let on_cpu = update_on_cpu(input, grad, step);
        let (input, grad) = tensors();
        let composed = update_composed(input, grad, step);
        for (left, right) in [
            (on_cpu.param, composed.param),
            (on_cpu.moment_1, composed.moment_1),
            (on_cpu.moment_2, composed.moment_2),
        ] {
            for (left, right) in left
                .into_data()
                .iter::<f64>()
                .zip(right.into_data().iter::<f64>())
            {
                assert!((left - right).abs() < 1e-7, "{left} {right}");
            }
        }
    }
}
