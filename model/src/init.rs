//! Fresh weights: every matrix from N(0, `initializer_range`), every norm at one.
//!
//! The two matrices that write to the residual stream (`o_proj`, `down_proj`) are drawn smaller by
//! `1 / sqrt(2 · num_hidden_layers)`, so that the stream's variance does not grow with depth.
//! Source: Radford et al. 2019 (GPT-2), section 2.3. MiniMind v1 scales the up-projection instead
//! of the down-projection, a slip that is not copied.

use std::convert::Infallible;
use std::f64::consts::TAU;

use burn::nn::Initializer;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::causal_lm::CausalLm;
use crate::params::{fill_params, path_hash};

/// An embedding whose weight is not yet allocated.
pub(crate) fn empty_embedding(rows: usize, width: usize, device: &Device) -> Embedding {
    EmbeddingConfig::new(rows, width)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// Draws every parameter from its own ChaCha stream, chosen by its path, so that the values depend
/// neither on the order of the walk nor on what else the model holds.
pub(crate) fn draw_weights(model: CausalLm, seed: u64) -> CausalLm {
    let config = model.config().clone();
    let residual_scale = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
    let Ok(drawn) = fill_params(model, |path, shape| {
        let num_values = shape.iter().product();
        if path.ends_with("norm.weight") {
            return Ok::<_, Infallible>(vec![1.0; num_values]);
        }
        if path.ends_with("e_score_correction_bias") {
            return Ok(vec![0.0; num_values]);
        }
        let writes_residual = path.ends_with("o_proj.weight") || path.ends_with("down_proj.weight");
        let scale = if writes_residual { residual_scale } else { 1.0 };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(path_hash(path));
        Ok(draw_normal(
            &mut rng,
            num_values,
            config.initializer_range * scale,
        ))
    });
    drawn
}

/// Independent draws from N(0, `std`), by Box and Muller's transform in f64.
pub(crate) fn draw_normal(rng: &mut ChaCha8Rng, num_values: usize, std: f64) -> Vec<f32> {
    // 53 bits fill an f64's mantissa.
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    let mut values = Vec::with_capacity(num_values + 1);
    while values.len() < num_values {
        let above_zero = ((rng.next_u64() >> 11) + 1) as f64 * UNIT; // (0, 1]
        let angle = (rng.next_u64() >> 11) as f64 * UNIT * TAU;
        let radius = (-2.0 * above_zero.ln()).sqrt() * std;
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(num_values);
    values
}
