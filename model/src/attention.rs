//! Causal grouped-query attention. Source: Ainslie et al. 2023, arXiv:2305.13245.
//!
//! Axis letters: `B` batch, `T` query positions, `S` key positions, `D` hidden size,
//! `N` query heads, `K` key/value heads, `H` head size.

use burn::module::Module;
use burn::prelude::*;

use crate::config::ModelConfig;
use crate::kernels;
use crate::kv_cache::LayerCache;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::packed::WeightType;
use crate::positions::Positions;
use crate::rope::RotaryTables;
use crate::training_pass::TrainingPass;

/// Lets each position read the earlier positions of its own document.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[D, N·H]`.
    pub q_proj: Linear,
    /// `[D, K·H]`.
    pub k_proj: Linear,
    /// `[D, K·H]`.
    pub v_proj: Linear,
    /// `[N·H, D]`.
    pub o_proj: Linear,
    /// Over the head size of the queries, in Qwen3.
    pub q_norm: Option<RmsNorm>,
    /// Over the head size of the keys, in Qwen3.
    pub k_norm: Option<RmsNorm>,
    /// Width of a head.
    pub head_dim: usize,
    #[module(skip)]
    pass: TrainingPass,
}

impl Attention {
    pub(crate) fn empty(config: &ModelConfig, pass: &TrainingPass, device: &Device) -> Self {
        let (hidden_size, query_width) = (config.hidden_size, config.query_width());
        let key_value_width = config.key_value_width();
        let head_norm = || {
            config
                .model_type
                .has_qk_norm()
                .then(|| RmsNorm::new(config.head_dim, config.rms_norm_eps, device))
        };
        Self {
            q_proj: Linear::empty(hidden_size, query_width, device),
            k_proj: Linear::empty(hidden_size, key_value_width, device),
            v_proj: Linear::empty(hidden_size, key_value_width, device),
            o_proj: Linear::empty(query_width, hidden_size, device),
            q_norm: head_norm(),
            k_norm: head_norm(),
            head_dim: config.head_dim,
            pass: pass.clone(),
        }
    }

    pub(crate) fn packed(self, weight_type: WeightType) -> Self {
        Self {
            q_proj: self.q_proj.packed(weight_type),
            k_proj: self.k_proj.packed(weight_type),
            v_proj: self.v_proj.packed(weight_type),
            o_proj: self.o_proj.packed(weight_type),
            ..self
        }
    }

    /// What each position reads from itself and the positions before it.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - `positions`: places `[B, T]`, counted from 0 within each document of a row
    /// - `cache`: the `S - T` positions before `x`, which join it; without one, `S` is `T`
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If a shape does not fit.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: Positions,
        rope: &RotaryTables,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [hidden_size, query_width] = self.q_proj.weight.dims();
        let [batch, len, _] = x.dims();
        assert_shape!(x, [_, _, hidden_size]);
        let places = positions.places.clone(); // [B, T]
        assert_shape!(places, [batch, len]);

        let x = self.pass.operand(x); // [B, T, D]
        let q = self.split_heads(self.q_proj.forward(x.clone())); // [B, T, N, H]
        let k = self.split_heads(self.k_proj.forward(x.clone())); // [B, T, K, H]
        let v = self.split_heads(self.v_proj.forward(x)); // [B, T, K, H]
        let q = rope.rotate(normalized(q, self.q_norm.as_ref()), places.clone());
        let k = rope.rotate(normalized(k, self.k_norm.as_ref()), places);

        let (k, v) = match cache {
            Some(cache) => cache.append(k, v), // [B, S, K, H]
            None => (k, v),
        };
        let read = kernels::causal_attention(q, k, v, positions); // [B, T, N, H]
        let read = self.pass.operand(read.reshape([batch, len, query_width])); // [B, T, N·H]
        self.o_proj.forward(read) // [B, T, D]
    }

    fn split_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, len, width] = x.dims();
        x.reshape([batch, len, width / self.head_dim, self.head_dim])
    }
}

fn normalized(x: Tensor<4>, norm: Option<&RmsNorm>) -> Tensor<4> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
