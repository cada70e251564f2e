//! The SwiGLU feed-forward network. Source: Shazeer 2020, arXiv:2002.05202, eq. 6.
//!
//! Axis letters: `D` hidden size, `I` intermediate size.

use burn::module::Module;
use burn::prelude::*;

use crate::kernels;
use crate::kernels::experts::ExpertWeights;
use crate::linear::Linear;
use crate::packed::WeightType;
use crate::training_pass::TrainingPass;

/// Mixes the features of each position on its own.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[D, I]`, through the SiLU.
    pub gate_proj: Linear,
    /// `[D, I]`, multiplied by the gate.
    pub up_proj: Linear,
    /// `[I, D]`, back to the residual stream.
    pub down_proj: Linear,
    #[module(skip)]
    pass: TrainingPass,
}

impl FeedForward {
    pub(crate) fn empty(
        hidden_size: usize,
        intermediate_size: usize,
        pass: &TrainingPass,
        device: &Device,
    ) -> Self {
        Self {
            gate_proj: Linear::empty(hidden_size, intermediate_size, device),
            up_proj: Linear::empty(hidden_size, intermediate_size, device),
            down_proj: Linear::empty(intermediate_size, hidden_size, device),
            pass: pass.clone(),
        }
    }

    pub(crate) fn packed(self, weight_type: WeightType) -> Self {
        Self {
            gate_proj: self.gate_proj.packed(weight_type),
            up_proj: self.up_proj.packed(weight_type),
            down_proj: self.down_proj.packed(weight_type),
            pass: self.pass,
        }
    }

    /// Every projection with its path, such as `mlp.up_proj`.
    pub(crate) fn projections_mut(&mut self, path: &str) -> [(String, &mut Linear); 3] {
        [
            (format!("{path}.gate_proj"), &mut self.gate_proj),
            (format!("{path}.up_proj"), &mut self.up_proj),
            (format!("{path}.down_proj"), &mut self.down_proj),
        ]
    }

    pub(crate) fn projections(&self) -> [&Linear; 3] {
        [&self.gate_proj, &self.up_proj, &self.down_proj]
    }

    /// The matrices, where they are all there is to the network: in f32 and without adapters.
    pub(crate) fn plain_weights(&self) -> Option<ExpertWeights> {
        let is_plain = |linear: &Linear| !linear.is_packed() && linear.adapters.is_empty();
        self.projections()
            .into_iter()
            .all(is_plain)
            .then(|| ExpertWeights {
                gate: self.gate_proj.weight.val(),
                up: self.up_proj.weight.val(),
                down: self.down_proj.weight.val(),
            })
    }

    /// `down(silu(gate(x)) · up(x))`.
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
        let x = self.pass.operand(x); // [.., D]
        let gate = self.gate_proj.forward(x.clone()); // [.., I]
        let up = self.up_proj.forward(x); // [.., I]
        let mixed = self.pass.operand(kernels::swiglu(gate, up)); // [.., I]
        self.down_proj.forward(mixed) // [.., D]
    }
}
