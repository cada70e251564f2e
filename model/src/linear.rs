//! A linear layer without a bias, the only kind the Llama family has.
//!
//! Axis letters: `I` inputs, `O` outputs.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;

use crate::kernels;

/// Multiplies vectors by a trained matrix.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[I, O]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
}

impl Linear {
    /// A layer whose weight is not yet allocated.
    pub(crate) fn empty(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([inputs, outputs], device),
        }
    }

    /// The last axis of `x` times the weight.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., I]`
    /// - returns: `[.., O]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `I` long.
    pub fn forward<const R: usize>(&self, x: Tensor<R>) -> Tensor<R> {
        kernels::linear(x, self.weight.val())
    }
}
