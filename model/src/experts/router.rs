//! The router: scores, the best few experts of each token, and the weights of their answers.
//!
//! Axis letters: `N` tokens, `D` hidden size, `E` experts, `K` experts per token.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;
use burn::tensor::activation::{sigmoid, softmax};

use super::noise::RouterNoise;
use super::{ExpertsConfig, Routes, Routing, ScoringFunc};
use crate::config::ModelConfig;
use crate::kernels;

/// Added to a sum of weights before dividing by it, as DeepSeek and MiniMind v1 do.
const WEIGHT_SUM_EPS: f64 = 1e-20;

/// Decides which experts a token meets, and how much each counts.
#[derive(Module, Debug)]
pub struct Router {
    /// `[D, E]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// `[E]`, added to the scores when experts are chosen but not to their weights; moved by the
    /// training loop, not by a gradient.
    pub e_score_correction_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    scoring_func: ScoringFunc,
    /// Experts that a token is sent to.
    pub num_experts_per_tok: usize,
    norm_topk_prob: bool,
    #[module(skip)]
    pub(super) noise: Option<RouterNoise>,
}

impl Router {
    pub(super) fn empty(config: &ModelConfig, experts: &ExpertsConfig, device: &Device) -> Self {
        let num_experts = experts.num_experts;
        Self {
            weight: Initializer::Zeros.init([config.hidden_size, num_experts], device),
            e_score_correction_bias: experts
                .has_score_correction_bias
                .then(|| Initializer::Zeros.init([num_experts], device)),
            scoring_func: config.model_type.scoring_func(),
            num_experts_per_tok: experts.num_experts_per_tok,
            norm_topk_prob: experts.norm_topk_prob,
            noise: None,
        }
    }

    /// The experts of each token with their weights.
    ///
    /// Experts are chosen on the host, where dispatch is planned too; of equal scores the expert
    /// with the lower number goes first.
    ///
    /// # Shapes
    ///
    /// - `x`: `[N, D]`
    /// - returns: `[N, K]`, and the routing
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn route(&self, x: Tensor<2>) -> (Tensor<2>, Routing) {
        let [hidden_size, num_experts] = self.weight.dims();
        assert_shape!(x, [_, hidden_size]);
        let [num_tokens, _] = x.dims();
        let device = x.device();
        let per_token = self.num_experts_per_tok;

        // Never packed, unlike other weights: rounding here would send tokens elsewhere.
        let logits = kernels::linear(x, self.weight.val()); // [N, E]
        let logits = match &self.noise {
            Some(noise) => noise.added_to(logits),
            None => logits,
        };
        let scores = match self.scoring_func {
            ScoringFunc::Softmax => softmax(logits.clone(), 1),
            ScoringFunc::Sigmoid => sigmoid(logits.clone()),
        }; // [N, E]
        let host_scores = numbers(scores.clone());
        let chosen = match &self.e_score_correction_bias {
            Some(bias) => {
                let bias = numbers(bias.val());
                let rows = host_scores.chunks_exact(num_experts);
                let moved = rows.flat_map(|row| row.iter().zip(&bias).map(|(score, b)| score + b));
                best_experts(&moved.collect::<Vec<f32>>(), num_experts, per_token)
            }
            None => best_experts(&host_scores, num_experts, per_token),
        };
        let indices: Vec<i32> = chosen.iter().map(|&expert| expert as i32).collect();
        let indices = TensorData::new(indices, [num_tokens, per_token]);
        let indices = Tensor::<2, Int>::from_data(indices, &device); // [N, K]
        let weights = scores.clone().gather(1, indices); // [N, K]
        let weights = if self.norm_topk_prob {
            let sum = weights.clone().sum_dim(1).add_scalar(WEIGHT_SUM_EPS); // [N, 1]
            weights / sum
        } else {
            weights
        };
        let routes = Arc::new(Routes::new(chosen, per_token, num_experts));
        let routing = Routing {
            logits,
            scores,
            host_scores,
            routes,
        };
        (weights, routing)
    }
}

/// A tensor's numbers on the host.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.detach().into_data().convert::<f32>();
    data.try_into_vec()
        .expect("the data was just converted to f32")
}

/// The experts with the highest scores of each token, best first.
fn best_experts(scores: &[f32], num_experts: usize, per_token: usize) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(scores.len() / num_experts * per_token);
    let mut order: Vec<u32> = Vec::with_capacity(num_experts);
    for scores in scores.chunks_exact(num_experts) {
        order.clear();
        order.extend(0..num_experts as u32);
        // A stable sort keeps the lower number first among equals.
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        chosen.extend_from_slice(&order[..per_token]);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's example of four tokens over four experts, top 2.
    #[test]
    fn the_best_experts_come_first() {
        let scores = [
            0.7, 0.15, 0.1, 0.05, 0.6, 0.2, 0.12, 0.08, 0.1, 0.2, 0.3, 0.4, 0.27, 0.23, 0.3, 0.2,
        ];
        assert_eq!(best_experts(&scores, 4, 2), [0, 1, 0, 1, 3, 2, 2, 0]);
    }

    /// Ties go to the lower number, so that every machine chooses alike.
    #[test]
    fn equal_scores_choose_the_lower_number() {
        assert_eq!(best_experts(&[0.25; 4], 4, 2), [0, 1]);
    }
}
