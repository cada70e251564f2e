//! AdamW's update of one parameter.
//!
//! Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2, in PyTorch's order of
//! operations. Burn's own AdamW corrects the moments by factors computed in f32, where `1 - 0.999`
//! has lost three digits, and keys its state by ids that change from process to process.
//!
//! Axis letter: `n` elements of a parameter.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod reference;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::prelude::*;

use crate::kernels::is_fused_f32;

/// The numbers of one AdamW update that do not depend on the parameter's elements.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Decay rate of the mean of the gradient.
    pub beta_1: f64,
    /// Decay rate of the mean of the gradient's square.
    pub beta_2: f64,
    /// Share of the parameter that weight decay leaves.
    pub keep: f64,
    /// `lr / (1 - beta_1^t)`.
    pub step_size: f64,
    /// `sqrt(1 - beta_2^t)`.
    pub root_correction: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// A parameter and its moments, each flattened.
#[derive(Debug, Clone)]
pub struct AdamWTensors {
    /// `[n]`.
    pub param: Tensor<1>,
    /// Mean of the gradient, `[n]`.
    pub moment_1: Tensor<1>,
    /// Mean of the gradient's square, `[n]`.
    pub moment_2: Tensor<1>,
}

/// The parameter and its moments after one update by `g = scale * grad`.
///
/// `m = beta_1 m + (1 - beta_1) g`, `v = beta_2 v + (1 - beta_2) g^2`,
/// `p = keep p - step_size m / (sqrt(v) / root_correction + eps)`
///
/// It is one pass over memory, in place where the tensors have no other owner. The scale is a tensor, so
/// that the host need not know it; where it is negative, the update does not take place.
///
/// # Shapes
///
/// - `grad`: `[n]`
/// - `scale`: `[1]`
///
/// # Panics
///
/// When the four lengths differ, or the scale is not one number.
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
    } = tensors;
    for other in [&param, &moment_1, &moment_2] {
        assert_eq!(other.dims(), grad.dims(), "adamw: one gradient per element");
    }
    assert_eq!(scale.dims(), [1], "adamw: one scale");
    if ![&param, &moment_1, &moment_2, &grad, &scale]
        .into_iter()
        .all(is_fused_f32)
    {
        let tensors = AdamWTensors {
            param,
            moment_1,
            moment_2,
        };
        return reference::adamw(tensors, grad, scale, step);
    }
    let (param, moment_1, moment_2) = Dispatch::adamw(
        param.into_dispatch(),
        moment_1.into_dispatch(),
        moment_2.into_dispatch(),
        grad.into_dispatch(),
        scale.into_dispatch(),
        step,
    );
    AdamWTensors {
        param: Tensor::from_dispatch(param),
        moment_1: Tensor::from_dispatch(moment_1),
        moment_2: Tensor::from_dispatch(moment_2),
    }
}

/// The update; nothing tracks it.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait AdamWOps: Backend {
    /// Parameter and moments after the update.
    #[fusion(meta = |param, moment_1, moment_2, _grad, _scale, _step| {
        (param.clone(), moment_1.clone(), moment_2.clone())
    })]
    fn adamw(
        param: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}
