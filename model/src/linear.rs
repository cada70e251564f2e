//! A linear layer without a bias, the only kind the Llama family has.
//!
//! Axis letters: `I` inputs, `O` outputs.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;

use crate::kernels;
use crate::lora::LoraAdapter;

/// Multiplies vectors by a trained matrix.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[I, O]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// Small matrices beside the weight, whose products are added; none in a plain model.
    pub adapters: Vec<LoraAdapter>,
}

impl Linear {
    /// A layer whose weight is not yet allocated.
    pub(crate) fn empty(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([inputs, outputs], device),
            adapters: Vec::new(),
        }
    }

    /// The last axis of `x` times the weight, and what the adapters add to it.
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
        let added: Vec<Tensor<R>> = self
            .adapters
            .iter()
            .map(|adapter| adapter.forward(x.clone()))
            .collect();
        let product = kernels::linear(x, self.weight.val()); // [.., O]
        added.into_iter().fold(product, |sum, added| sum + added)
    }
}
