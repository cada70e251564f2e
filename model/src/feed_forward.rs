//! The SwiGLU feed-forward network. Source: Shazeer 2020, arXiv:2002.05202, eq. 6.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size, `I` intermediate size.

use burn::module::Module;
use burn::prelude::*;

use crate::config::ModelConfig;
use crate::kernels;
use crate::linear::Linear;
use crate::packed::WeightType;

/// Mixes the features of each position on its own.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[D, I]`, through the SiLU.
    pub gate_proj: Linear,
    /// `[D, I]`, multiplied by the gate.
    pub up_proj: Linear,
    /// `[I, D]`, back to the residual stream.
    pub down_proj: Linear,
}

impl FeedForward {
    pub(crate) fn empty(config: &ModelConfig, device: &Device) -> Self {
        let (hidden_size, intermediate_size) = (config.hidden_size, config.intermediate_size);
        Self {
            gate_proj: Linear::empty(hidden_size, intermediate_size, device),
            up_proj: Linear::empty(hidden_size, intermediate_size, device),
            down_proj: Linear::empty(intermediate_size, hidden_size, device),
        }
    }

    pub(crate) fn packed(self, weight_type: WeightType) -> Self {
        Self {
            gate_proj: self.gate_proj.packed(weight_type),
            up_proj: self.up_proj.packed(weight_type),
            down_proj: self.down_proj.packed(weight_type),
        }
    }

    /// `down(silu(gate(x)) · up(x))`.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [hidden_size, _] = self.gate_proj.weight.dims();
        assert_shape!(x, [_, _, hidden_size]);

        let gate = self.gate_proj.forward(x.clone()); // [B, T, I]
        let up = self.up_proj.forward(x); // [B, T, I]
        self.down_proj.forward(kernels::swiglu(gate, up)) // [B, T, D]
    }
}
