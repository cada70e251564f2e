//! The decoder: token ids in, hidden states and logits out.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size, `V` vocabulary.

use burn::module::Module;
use burn::nn::Embedding;
use burn::prelude::*;

use crate::block::DecoderLayer;
use crate::config::ModelConfig;
use crate::experts::Routing;
use crate::init;
use crate::kernels;
use crate::kv_cache::KvCache;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::packed::{PackedMatrix, WeightType};
use crate::positions::Positions;
use crate::rope::RotaryTables;
use crate::training_pass::TrainingPass;

/// A decoder-only language model of the Llama family.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// `[V, D]`, also the output head where the two are tied.
    pub embed_tokens: Embedding,
    /// From the first to the last.
    pub layers: Vec<DecoderLayer>,
    /// After the last layer.
    pub norm: RmsNorm,
    /// `[D, V]`, where the head has weights of its own.
    pub lm_head: Option<Linear>,
    /// `[D, 1]`, where the model judges texts.
    pub score: Option<Linear>,
    rope: RotaryTables,
    /// The tied head in fewer bits; the embedding itself stays f32.
    #[module(skip)]
    packed_head: Option<PackedMatrix>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    pub(crate) training_pass: TrainingPass,
}

impl CausalLm {
    /// A freshly drawn model, the same for the same seed whatever the device or thread timing.
    ///
    /// # Panics
    ///
    /// If the config is not valid.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        init::draw_weights(Self::empty(config, device), seed)
    }

    /// The structure alone, its parameters not yet allocated.
    pub(crate) fn empty(config: &ModelConfig, device: &Device) -> Self {
        if let Err(error) = config.validate() {
            panic!("an invalid config reached the model: {error}");
        }
        let (vocab_size, hidden_size) = (config.vocab_size, config.hidden_size);
        let untied = !config.tie_word_embeddings;
        let pass = TrainingPass::default();
        Self {
            embed_tokens: init::empty_embedding(vocab_size, hidden_size, device),
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::empty(config, layer, &pass, device))
                .collect(),
            norm: RmsNorm::new(hidden_size, config.rms_norm_eps, device),
            lm_head: untied.then(|| Linear::empty(hidden_size, vocab_size, device)),
            score: None,
            rope: RotaryTables::new(config, device),
            packed_head: None,
            config: config.clone(),
            training_pass: pass,
        }
    }

    /// Hidden states after the final norm.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[B, T]`, each below `vocab_size`
    /// - `positions`: places `[B, T]`, counted from 0 within each document of a row
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If the shapes differ or a row is longer than `max_position_embeddings`.
    pub fn forward(&self, input_ids: Tensor<2, Int>, positions: impl Into<Positions>) -> Tensor<3> {
        let positions = positions.into();
        let places = &positions.places;
        let [batch, len] = input_ids.dims();
        assert_shape!(places, [batch, len]);
        // Positions restart within a row, so its length bounds them without reading them back.
        let num_positions = self.rope.num_positions();
        assert!(
            len <= num_positions,
            "a row of {len} tokens, but max_position_embeddings is {num_positions}"
        );

        self.hidden_states(input_ids, positions, None)
    }

    /// Hidden states after the final norm, of embeddings that may have been changed on their way,
    /// and what the router of each sparse layer decided.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - `positions`: places `[B, T]`, counted from 0 within each document of a row
    /// - returns: `[B, T, D]`, and the routing with the number of its layer
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn forward_embedded(
        &self,
        x: Tensor<3>,
        positions: impl Into<Positions>,
    ) -> (Tensor<3>, Vec<(usize, Routing)>) {
        let positions = positions.into();
        let places = &positions.places;
        let [batch, len, _] = x.dims();
        assert_shape!(places, [batch, len]);
        self.layers_forward(x, positions, None)
    }

    /// Hidden states of the next positions of rows whose earlier ones are in the cache.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[B, T]`, each below `vocab_size`
    /// - `positions`: `[B, T]`, the number of earlier slots that a position sees: its own place in
    ///   its document
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If the shapes differ or the cache was made for another shape of model or batch.
    pub fn forward_cached(
        &self,
        input_ids: Tensor<2, Int>,
        positions: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let [batch, len] = input_ids.dims();
        assert_shape!(positions, [batch, len]);
        let (num_layers, num_cached) = (self.layers.len(), cache.layers_mut().len());
        assert_eq!(
            num_cached, num_layers,
            "a cache of {num_cached} layers for {num_layers}"
        );
        self.hidden_states(input_ids, positions.into(), Some(cache))
    }

    /// Unnormalised log-probabilities of the next token.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[B, T, D]`
    /// - returns: `[B, T, V]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let hidden_size = self.config.hidden_size;
        assert_shape!(hidden, [_, _, hidden_size]);
        let hidden = self.training_pass.operand(hidden);
        match (&self.lm_head, &self.packed_head) {
            (Some(head), _) => head.forward(hidden), // [B, T, V]
            (None, Some(head)) => head.product(hidden),
            (None, None) => {
                let weight = self.embed_tokens.weight.val().transpose(); // [D, V]
                kernels::linear(hidden, weight)
            }
        }
    }

    /// The model with its weight matrices in fewer bits, to decode with on the CPU. Embedding rows
    /// and norms stay f32. It can neither be trained nor saved.
    #[must_use]
    pub fn packed(mut self, weight_type: WeightType) -> Self {
        if self.lm_head.is_none() {
            let head = self.embed_tokens.weight.val().transpose(); // [D, V]
            self.packed_head = PackedMatrix::new(&head, weight_type);
        }
        self.lm_head = self.lm_head.map(|head| head.packed(weight_type));
        self.layers = self
            .layers
            .into_iter()
            .map(|layer| layer.packed(weight_type))
            .collect();
        self
    }

    /// Whether weight matrices are held in fewer bits.
    pub fn is_packed(&self) -> bool {
        self.layers.iter().any(DecoderLayer::is_packed)
    }

    /// The output head as `[V, D]`: the tied embedding, or the head's own weight.
    pub fn lm_head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val().transpose(),
            None => self.embed_tokens.weight.val(),
        }
    }

    /// The rotations that every layer applies to queries and keys.
    pub fn rope(&self) -> &RotaryTables {
        &self.rope
    }

    /// Switches the adapters' dropout and the routers' noise on and off, and says in which
    /// precision products are computed and by what losses are scaled.
    pub fn training_pass(&self) -> &TrainingPass {
        &self.training_pass
    }

    /// What the model was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Says that the embedding has another number of rows.
    pub(crate) fn set_vocab_size(&mut self, vocab_size: usize) {
        self.config.vocab_size = vocab_size;
    }

    fn hidden_states(
        &self,
        input_ids: Tensor<2, Int>,
        positions: Positions,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let x = self.embed_tokens.forward(input_ids); // [B, T, D]
        self.layers_forward(x, positions, cache).0
    }

    fn layers_forward(
        &self,
        mut x: Tensor<3>,
        positions: Positions,
        mut cache: Option<&mut KvCache>,
    ) -> (Tensor<3>, Vec<(usize, Routing)>) {
        let positions = std::iter::repeat_n(positions, self.layers.len());
        let mut routings = Vec::new();
        for ((index, layer), positions) in self.layers.iter().enumerate().zip(positions) {
            let cache = cache
                .as_deref_mut()
                .map(|cache| &mut cache.layers_mut()[index]);
            let (out, routing) = layer.forward_routed(x, positions, &self.rope, cache);
            x = out;
            routings.extend(routing.map(|routing| (index, routing)));
        }
        (self.norm.forward(x), routings)
    }
}
