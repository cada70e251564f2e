//! What keeps experts equally busy: auxiliary losses on the scores, a loss on the logits' size, and
//! a bias that needs no loss.
//!
//! Counts have no gradient, so that each loss is a sum over tokens of scores times numbers known on
//! the host.
//!
//! Axis letters: `B` rows, `T` positions, `N` tokens (`B · T`), `E` experts, `K` experts per token.

use burn::prelude::*;

use super::{Routing, ScoringFunc};
use crate::causal_lm::CausalLm;

/// Which tokens are routed for their own sake, and how much each row counts.
#[derive(Debug, Clone)]
pub struct RoutedTokens {
    /// Whether a slot holds a token of text, padding being none, `[N]`.
    pub is_text: Vec<bool>,
    /// Weight of each row in the sums, `[B]`.
    pub row_weights: Vec<f32>,
}

impl RoutedTokens {
    fn len(&self) -> usize {
        self.is_text.len() / self.row_weights.len().max(1)
    }

    /// Each row's weight and its slots, padding included.
    fn rows(&self) -> impl Iterator<Item = (f32, std::ops::Range<usize>)> {
        let len = self.len();
        let weights = self.row_weights.iter().enumerate();
        weights.map(move |(row, weight)| (*weight, row * len..(row + 1) * len))
    }
}

/// `Σ_e f_e · P_e` of groups of tokens: a loss that pushes towards equal loads, and its value.
#[derive(Debug)]
pub struct Balance<'a> {
    routing: &'a Routing,
    scoring: ScoringFunc,
    /// What each token's share of each expert counts, `[N, E]` row by row.
    factors: Vec<f32>,
}

impl Balance<'_> {
    /// The weighted sum over groups, `[1]`.
    pub fn loss(&self) -> Tensor<1> {
        let scores = &self.routing.scores;
        let factors = TensorData::new(self.factors.clone(), scores.dims());
        let factors = Tensor::<2>::from_data(factors, &scores.device()); // [N, E]
        let shares = match self.scoring {
            ScoringFunc::Softmax => scores.clone(),
            ScoringFunc::Sigmoid => scores.clone() / scores.clone().sum_dim(1),
        }; // [N, E]
        (shares * factors).sum()
    }

    /// The same from the scores on the host, for reports.
    pub fn value(&self) -> f64 {
        let num_experts = self.routing.routes.num_experts();
        let scores = self.routing.host_scores.chunks_exact(num_experts);
        let of_token = |(scores, factors): (&[f32], &[f32])| -> f64 {
            let total = match self.scoring {
                ScoringFunc::Softmax => 1.0,
                ScoringFunc::Sigmoid => scores.iter().map(|score| f64::from(*score)).sum(),
            };
            let products = scores.iter().zip(factors);
            let sum: f64 = products.map(|(s, f)| f64::from(*s) * f64::from(*f)).sum();
            sum / total
        };
        scores
            .zip(self.factors.chunks_exact(num_experts))
            .filter(|(_, factors)| factors.iter().any(|factor| *factor != 0.0))
            .map(of_token)
            .sum()
    }
}

impl Routing {
    /// Tokens of text that each expert was sent, `[E]`.
    pub fn loads(&self, tokens: &RoutedTokens) -> Vec<u64> {
        let mut loads = vec![0; self.routes.num_experts()];
        let per_token = self.routes.num_experts_per_tok();
        let chosen = self.routes.chosen().chunks_exact(per_token);
        for (chosen, _) in chosen.zip(&tokens.is_text).filter(|(_, is_text)| **is_text) {
            for expert in chosen {
                loads[*expert as usize] += 1;
            }
        }
        loads
    }

    /// Balance within every row: the weighted sum over rows of `Σ_e f_e · P_e`, where `f_e` is the
    /// row's load of an expert against an equal one and `P_e` its mean score; 1 per row when equal.
    ///
    /// Source: DeepSeek-V2, arXiv:2405.04434, eqs. 23 to 25, which is MiniMind v1's `seq_aux`.
    ///
    /// # Panics
    ///
    /// If the tokens are not those that were routed.
    pub fn sequence_balance(&self, tokens: &RoutedTokens, scoring: ScoringFunc) -> Balance<'_> {
        let rows = tokens.rows().collect();
        self.balance(tokens, rows, scoring)
    }

    /// Balance over all tokens of a batch: `Σ_e f_e · P_e` times the sum of the rows' weights.
    ///
    /// Source: Fedus et al. 2022, arXiv:2101.03961, eqs. 4 to 6. For several experts per token
    /// `transformers` and MiniMind-3 do not divide the load by their number: theirs is `K` times
    /// this.
    ///
    /// # Panics
    ///
    /// If the tokens are not those that were routed.
    pub fn batch_balance(&self, tokens: &RoutedTokens, scoring: ScoringFunc) -> Balance<'_> {
        let weight = tokens.row_weights.iter().sum();
        self.balance(tokens, vec![(weight, 0..tokens.is_text.len())], scoring)
    }

    /// Size of the logits: the weighted sum over rows of the mean of `(log Σ_e exp(logit_e))²`.
    ///
    /// Source: Zoph et al. 2022, arXiv:2202.08906, eq. 5.
    ///
    /// # Shapes
    ///
    /// - returns: `[1]`
    pub fn z_loss(&self, tokens: &RoutedTokens) -> Tensor<1> {
        let mut weights = vec![0.0; tokens.is_text.len()];
        for (weight, slots) in tokens.rows() {
            let is_text = &tokens.is_text[slots.clone()];
            let share = weight / is_text.iter().filter(|text| **text).count().max(1) as f32;
            for (weight, _) in weights[slots]
                .iter_mut()
                .zip(is_text)
                .filter(|(_, text)| **text)
            {
                *weight = share;
            }
        }
        let largest = self.logits.clone().detach().max_dim(1); // [N, 1]
        let sums = (self.logits.clone() - largest.clone()).exp().sum_dim(1); // [N, 1]
        let log_sums = sums.log() + largest; // [N, 1]
        let shape = [weights.len(), 1];
        let weights = TensorData::new(weights, shape);
        let weights = Tensor::<2>::from_data(weights, &self.logits.device()); // [N, 1]
        (log_sums.square() * weights).sum()
    }

    /// Mean entropy of the text tokens' score distributions, in nats: `ln E` where the router has
    /// no preference.
    ///
    /// # Panics
    ///
    /// If the tokens are not those that were routed.
    pub fn entropy(&self, tokens: &RoutedTokens) -> f64 {
        let num_experts = self.routes.num_experts();
        assert_eq!(
            self.routes.num_tokens(),
            tokens.is_text.len(),
            "tokens that were routed"
        );
        let (mut sum, mut count) = (0.0, 0);
        let scores = self.host_scores.chunks_exact(num_experts);
        for (scores, is_text) in scores.zip(&tokens.is_text) {
            if *is_text {
                let total: f64 = scores.iter().map(|score| f64::from(*score)).sum();
                let entropy = |score: &f32| {
                    let share = f64::from(*score) / total;
                    if share > 0.0 {
                        -share * share.ln()
                    } else {
                        0.0
                    }
                };
                sum += scores.iter().map(entropy).sum::<f64>();
                count += 1;
            }
        }
        sum / f64::from(count.max(1))
    }

    /// Balance over groups of slots, each with its weight.
    fn balance(
        &self,
        tokens: &RoutedTokens,
        groups: Vec<(f32, std::ops::Range<usize>)>,
        scoring: ScoringFunc,
    ) -> Balance<'_> {
        let (num_experts, per_token) =
            (self.routes.num_experts(), self.routes.num_experts_per_tok());
        assert_eq!(
            self.routes.num_tokens(),
            tokens.is_text.len(),
            "tokens that were routed"
        );
        let mut factors = vec![0.0; tokens.is_text.len() * num_experts];
        for (weight, slots) in groups {
            let text: Vec<usize> = slots.filter(|slot| tokens.is_text[*slot]).collect();
            let mut loads = vec![0_u32; num_experts];
            for slot in &text {
                for expert in &self.routes.chosen()[slot * per_token..][..per_token] {
                    loads[*expert as usize] += 1;
                }
            }
            let count = text.len() as f64;
            let equal = count * per_token as f64 / num_experts as f64;
            for slot in &text {
                let factors = &mut factors[slot * num_experts..][..num_experts];
                for (factor, load) in factors.iter_mut().zip(&loads) {
                    *factor = (f64::from(weight) * f64::from(*load) / equal / count) as f32;
                }
            }
        }
        Balance {
            routing: self,
            scoring,
            factors,
        }
    }
}

/// How far the busiest expert is above an equal share: 0 when all are equally busy, `E - 1` when
/// one does everything.
///
/// Source: Wang et al. 2024, arXiv:2408.15664, eq. 4.
pub fn max_violation(loads: &[u64]) -> f64 {
    let total: u64 = loads.iter().sum();
    let most = loads.iter().max().copied().unwrap_or(0);
    if total == 0 {
        return 0.0;
    }
    most as f64 * loads.len() as f64 / total as f64 - 1.0
}

impl CausalLm {
    /// The model with every bias of experts moved by `rate` towards an equal load, given the loads
    /// of the last step by layer.
    ///
    /// `b_e += rate · sign(mean load − load_e)`. Source: Wang et al. 2024, arXiv:2408.15664,
    /// algorithm 1. Layers without a bias stay as they are, and so does a model with adapters:
    /// what they stand beside is frozen, and their checkpoints do not hold it.
    #[must_use]
    pub fn with_moved_biases(mut self, loads: &[(usize, Vec<u64>)], rate: f64) -> Self {
        if self.has_adapters() {
            return self;
        }
        for (layer, loads) in loads {
            let Some(experts) = self.layers[*layer].mlp.sparse_mut() else {
                continue;
            };
            let Some(bias) = experts.gate.e_score_correction_bias.take() else {
                continue;
            };
            let total: u64 = loads.iter().sum();
            let num_experts = loads.len() as u64;
            let moves: Vec<f32> = loads
                .iter()
                .map(|load| match total.cmp(&(load * num_experts)) {
                    std::cmp::Ordering::Greater => rate as f32,
                    std::cmp::Ordering::Equal => 0.0,
                    std::cmp::Ordering::Less => -rate as f32,
                })
                .collect();
            experts.gate.e_score_correction_bias = Some(bias.map(|bias| {
                let moves = Tensor::<1>::from_floats(moves.as_slice(), &bias.device());
                let is_tracked = bias.is_require_grad();
                (bias + moves).detach().set_require_grad(is_tracked)
            }));
        }
        self
    }
}
