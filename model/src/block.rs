//! One pre-norm decoder layer: attention, then the feed-forward network, each added to its input.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use burn::module::Module;
use burn::prelude::*;

use crate::attention::Attention;
use crate::config::ModelConfig;
use crate::experts::{Mlp, Routing};
use crate::kv_cache::LayerCache;
use crate::norm::RmsNorm;
use crate::packed::WeightType;
use crate::positions::Positions;
use crate::rope::RotaryTables;
use crate::training_pass::TrainingPass;

/// A layer of the decoder.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// Reads earlier positions.
    pub self_attn: Attention,
    /// Before the feed-forward network.
    pub post_attention_layernorm: RmsNorm,
    /// Mixes features.
    pub mlp: Mlp,
}

impl DecoderLayer {
    pub(crate) fn empty(
        config: &ModelConfig,
        layer: usize,
        pass: &TrainingPass,
        device: &Device,
    ) -> Self {
        let norm = || RmsNorm::new(config.hidden_size, config.rms_norm_eps, device);
        Self {
            input_layernorm: norm(),
            self_attn: Attention::empty(config, pass, device),
            post_attention_layernorm: norm(),
            mlp: Mlp::empty(config, layer, pass, device),
        }
    }

    pub(crate) fn packed(mut self, weight_type: WeightType) -> Self {
        self.self_attn = self.self_attn.packed(weight_type);
        self.mlp = self.mlp.packed(weight_type);
        self
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.self_attn.q_proj.is_packed()
    }

    /// The residual stream after this layer.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - `positions`: places `[B, T]`, counted from 0 within each document of a row
    /// - `cache`: keys and values of the positions before `x`, which join it
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If a shape does not fit.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: impl Into<Positions>,
        rope: &RotaryTables,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        self.forward_routed(x, positions, rope, cache).0
    }

    /// The same, and where the layer's router sent the tokens, if it has one.
    ///
    /// # Panics
    ///
    /// If a shape does not fit.
    pub fn forward_routed(
        &self,
        x: Tensor<3>,
        positions: impl Into<Positions>,
        rope: &RotaryTables,
        cache: Option<&mut LayerCache>,
    ) -> (Tensor<3>, Option<Routing>) {
        let normed = self.input_layernorm.forward(x.clone());
        let read = self
            .self_attn
            .forward(normed, positions.into(), rope, cache); // [B, T, D]
        let x = x + read; // [B, T, D]
        let normed = self.post_attention_layernorm.forward(x.clone());
        let (mixed, routing) = self.mlp.forward(normed); // [B, T, D]
        (x + mixed, routing) // [B, T, D]
    }
}
