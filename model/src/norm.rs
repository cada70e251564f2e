//! RMSNorm with a trained weight. Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;

use crate::kernels;

/// Scales vectors to a mean square of one, then by a trained weight.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// One factor per feature, `[D]`.
    pub weight: Param<Tensor<1>>,
    /// Added to the mean square, so that a zero vector stays zero.
    pub eps: f64,
}

impl RmsNorm {
    /// A norm over `size` features with every factor at one.
    pub fn new(size: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([size], device),
            eps,
        }
    }

    /// `x / sqrt(mean(x²) + eps) · weight` over the last axis.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., D]`
    /// - returns: `[.., D]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn forward<const R: usize>(&self, x: Tensor<R>) -> Tensor<R> {
        let weight = self.weight.val();
        let [size] = weight.dims();
        assert_shape!(x, [.., size]);
        kernels::rms_norm(x, weight, self.eps)
    }
}
