//! Rotary position embedding in the rotate-half layout, with YaRN context extension.
//!
//! Sources: Su et al. 2021, arXiv:2104.09864, eq. 34; Peng et al. 2023, arXiv:2309.00071,
//! section 3.4 as `transformers` implements it. MiniMind clamps the ramp's end at `H/2 - 1` where
//! `transformers` has `H - 1`: the same as long as the original context is under `2π · theta`.
//!
//! Axis letters: `B` batch, `T` positions, `N` heads, `H` head size, `P` table positions.

use std::f64::consts::TAU;

use burn::module::Module;
use burn::prelude::*;

use crate::config::{ModelConfig, RopeScaling};
use crate::kernels;

/// Cosines and sines of every position's angles; derived from the config, so never stored.
#[derive(Module, Debug)]
pub struct RotaryTables {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryTables {
    /// Tables for `max_position_embeddings` positions.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let frequencies = inverse_frequencies(config);
        let factor = config
            .rope_scaling
            .as_ref()
            .map_or(1.0, |scaling| scaling.attention_factor);
        let num_positions = config.max_position_embeddings;
        // Angles grow to tens of thousands of radians: they are made in f64 and only the finished
        // cosines and sines are rounded to f32.
        let table = |turn: fn(f64) -> f64| {
            let values: Vec<f32> = (0..num_positions)
                .flat_map(|position| {
                    let angles = frequencies.iter().map(move |f| position as f64 * f);
                    angles.map(|angle| (turn(angle) * factor) as f32)
                })
                .collect();
            let data = TensorData::new(values, [num_positions, frequencies.len()]);
            Tensor::from_data(data, device) // [P, H/2]
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Positions the tables hold; no row may be longer.
    pub fn num_positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Turns every head by its position's angles.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, N, H]`
    /// - `positions`: `[B, T]`, each below `num_positions`
    /// - returns: `[B, T, N, H]`
    ///
    /// # Panics
    ///
    /// If a shape does not fit.
    pub fn rotate(&self, x: Tensor<4>, positions: Tensor<2, Int>) -> Tensor<4> {
        let [batch, len, _, _] = x.dims();
        let head_dim = 2 * self.cos.dims()[1];
        assert_shape!(x, [_, _, _, head_dim]);
        assert_shape!(positions, [batch, len]);
        kernels::rotary(x, positions, self.cos.clone(), self.sin.clone())
    }
}

/// Radians per position of each rotated pair, `[H/2]`.
pub fn inverse_frequencies(config: &ModelConfig) -> Vec<f64> {
    let (head_dim, theta) = (config.head_dim as f64, config.rope_theta);
    let plain = (0..config.head_dim / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head_dim));
    match &config.rope_scaling {
        None => plain.collect(),
        Some(scaling) => {
            let (low, high) = correction_range(scaling, config.head_dim, theta);
            plain
                .enumerate()
                .map(|(pair, frequency)| {
                    let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (1.0 - ramp) + frequency / scaling.factor * ramp
                })
                .collect()
        }
    }
}

/// Pairs between which frequencies go from untouched to divided by the factor.
fn correction_range(scaling: &RopeScaling, head_dim: usize, theta: f64) -> (f64, f64) {
    let original = scaling.original_max_position_embeddings as f64;
    // The pair that makes `rotations` full turns over the original context.
    let pair_of =
        |rotations: f64| head_dim as f64 * (original / (rotations * TAU)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair_of(scaling.beta_fast), pair_of(scaling.beta_slow));
    if scaling.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
    // A ramp of no length would divide by zero.
    if (high - low).abs() < f64::EPSILON {
        (low, low + 0.001)
    } else {
        (low, high)
    }
}
