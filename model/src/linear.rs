//! A linear layer without a bias, the only kind the Llama family has.
//!
//! Axis letters: `I` inputs, `O` outputs.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;

use crate::kernels;
use crate::lora::LoraAdapter;
use crate::packed::{PackedMatrix, WeightType};

/// Multiplies vectors by a trained matrix.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[I, O]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// Small matrices beside the weight, whose products are added; none in a plain model.
    pub adapters: Vec<LoraAdapter>,
    #[module(skip)]
    packed: Option<PackedMatrix>,
}

impl Linear {
    /// A layer whose weight is not yet allocated.
    pub(crate) fn empty(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([inputs, outputs], device),
            adapters: Vec::new(),
            packed: None,
        }
    }

    /// The layer with its weight in fewer bits; the f32 weight is let go.
    pub(crate) fn packed(mut self, weight_type: WeightType) -> Self {
        if let Some(packed) = PackedMatrix::new(&self.weight.val(), weight_type) {
            self.packed = Some(packed);
            // One zero under every place: the shape stays, the memory goes.
            let zero = Tensor::<2>::zeros([1, 1], &self.weight.device());
            self.weight = Param::from_tensor(zero.expand(self.weight.dims()));
        }
        self
    }

    /// Whether the weight is held in fewer bits.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
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
        let product = match &self.packed {
            Some(packed) => packed.product(x),
            None => kernels::linear(x, self.weight.val()),
        }; // [.., O]
        added.into_iter().fold(product, |sum, added| sum + added)
    }
}
