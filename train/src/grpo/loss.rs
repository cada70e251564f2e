//! The losses of group-relative policy optimization, per token, and how tokens are weighed.
//!
//! Sources: GRPO, Shao et al. 2024, arXiv:2402.03300, eq. 3; Dr. GRPO, Liu et al. 2025,
//! arXiv:2503.20783, section 3.2; DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 8; CISPO, MiniMax
//! 2025, arXiv:2506.13585, eq. 4; GSPO, Zheng et al. 2025, arXiv:2507.18071, eq. 5; SAPO, Gao et
//! al. 2025, arXiv:2511.20347; BNPO and the weights of tokens as TRL has them.
//!
//! Axis letters: `S` completions of a micro-batch, `L` tokens of the longest.

use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

/// Largest log-ratio of two models that is exponentiated: beyond it both the ratio and the
/// divergence have lost all meaning, and one such token would drown all others.
const MAX_LOG_RATIO: f64 = 20.0;

/// How a token's loss follows from its ratio and its advantage, and how tokens are averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Clipped ratios, the mean of the completions' means.
    Grpo,
    /// Clipped ratios, the mean over the tokens of a micro-batch.
    Bnpo,
    /// Clipped ratios, summed and divided by the longest that completions may be.
    DrGrpo,
    /// Clipped ratios, the mean over the tokens of the step.
    #[default]
    Dapo,
    /// Clipped ratios as constant weights of the log-probabilities.
    Cispo,
    /// Clipped ratios of whole completions.
    Gspo,
    /// A sigmoid in the place of the clipping.
    Sapo,
}

/// Estimate of the divergence to the reference. Source: Schulman 2020, "Approximating KL
/// divergence".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlKind {
    /// The log-ratio: no bias, much variance, and as a loss no pull towards the reference.
    K1,
    /// Half the squared log-ratio.
    K2,
    /// No bias, little variance, never negative.
    #[default]
    K3,
}

/// What a loss is made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Which loss.
    pub kind: LossKind,
    /// How far below 1 a ratio counts.
    pub epsilon: f64,
    /// How far above 1 a ratio counts; of `cispo` the largest weight itself.
    pub epsilon_high: f64,
    /// Largest ratio at all, also where the clipping would let it pass; 0 is none.
    pub delta: f64,
    /// Weight of the divergence to the reference.
    pub beta: f64,
    /// Estimate of the divergence.
    pub kl: KlKind,
    /// Slope of `sapo` where the advantage is positive.
    pub sapo_temperature: f64,
    /// Slope of `sapo` where it is not.
    pub sapo_temperature_negative: f64,
}

/// Log-probabilities of completions, with what they are worth.
#[derive(Debug, Clone)]
pub struct PolicyTensors {
    /// Under the model that learns, `[S, L]`.
    pub policy: Tensor<2>,
    /// Under the model that wrote them, `[S, L]`.
    pub old: Tensor<2>,
    /// Under the reference, `[S, L]`; `None` without a divergence.
    pub reference: Option<Tensor<2>>,
    /// 1 for a token that is learned from, 0 for another, `[S, L]`.
    pub mask: Tensor<2>,
    /// `[S, 1]`.
    pub advantages: Tensor<2>,
}

/// Loss of every token, learned from or not, before its weight.
///
/// # Shapes
///
/// - returns: `[S, L]`
pub fn token_losses(tensors: PolicyTensors, options: &LossOptions) -> Tensor<2> {
    let PolicyTensors {
        policy,
        old,
        reference,
        mask,
        advantages,
    } = tensors;
    let log_ratio = bounded(policy.clone() - old); // [S, L]
    let log_ratio = match options.kind {
        LossKind::Gspo => masked_means(log_ratio, mask).expand(policy.dims()), // [S, L]
        _ => log_ratio,
    };
    let ratio = log_ratio.exp(); // [S, L]
    let loss = match options.kind {
        LossKind::Cispo => {
            // Detached: a token beyond the bound still learns, which clipping would forbid.
            let weight = ratio.clamp_max(options.epsilon_high).detach(); // [S, L]
            -(weight * advantages * policy.clone())
        }
        LossKind::Sapo => {
            let is_positive = advantages.clone().greater_elem(0.0); // [S, 1]
            let slope = advantages
                .full_like(options.sapo_temperature_negative)
                .mask_fill(is_positive, options.sapo_temperature); // [S, 1]
            let gate = sigmoid((ratio - 1.0) * slope.clone()); // [S, L]
            -(gate * advantages * slope.recip() * 4.0)
        }
        _ => {
            let (low, high) = (1.0 - options.epsilon, 1.0 + options.epsilon_high);
            let clipped = ratio.clone().clamp(low, high); // [S, L]
            let ratio = if options.delta > 0.0 {
                ratio.clamp_max(options.delta)
            } else {
                ratio
            };
            -(ratio * advantages.clone()).min_pair(clipped * advantages)
        }
    }; // [S, L]
    match reference {
        Some(reference) if options.beta > 0.0 => {
            loss + divergences(policy, reference, options.kl) * options.beta
        }
        _ => loss,
    }
}

/// Estimated divergence of the policy from the reference, token by token.
///
/// With `r = ln(reference) - ln(policy)`: k1 is `-r`, k2 is `r² / 2`, k3 is `eʳ - r - 1`.
///
/// # Shapes
///
/// - `policy`, `reference`: `[S, L]`
/// - returns: `[S, L]`, in nats
pub fn divergences(policy: Tensor<2>, reference: Tensor<2>, kind: KlKind) -> Tensor<2> {
    let log_ratio = bounded(reference - policy); // [S, L]
    match kind {
        KlKind::K1 => -log_ratio,
        KlKind::K2 => log_ratio.square() * 0.5,
        KlKind::K3 => log_ratio.clone().exp() - log_ratio - 1.0,
    }
}

fn bounded(log_ratio: Tensor<2>) -> Tensor<2> {
    log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
}

/// Means over the tokens that are learned from, `[S, 1]`.
fn masked_means(values: Tensor<2>, mask: Tensor<2>) -> Tensor<2> {
    let counts = mask.clone().sum_dim(1).clamp_min(1.0); // [S, 1]
    (values * mask).sum_dim(1) / counts
}

/// Numbers of a step and of one of its micro-batches, which weights are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Completions of the step, those that nothing is learned from included.
    pub num_completions: usize,
    /// Tokens of the step that are learned from.
    pub num_tokens: usize,
    /// Micro-batches of the step.
    pub num_micro_batches: usize,
    /// Most tokens that a completion may have.
    pub max_completion_tokens: usize,
}

/// Weight of a token so that the weighted sum over all micro-batches is the step's loss.
///
/// `len` counts the tokens of its completion that are learned from, `micro_tokens` those of its
/// micro-batch.
pub fn token_weight(kind: LossKind, len: usize, micro_tokens: usize, step: StepSize) -> f64 {
    let completions = step.num_completions as f64;
    let divisor = match kind {
        LossKind::Grpo | LossKind::Gspo | LossKind::Sapo => len as f64 * completions,
        LossKind::Bnpo => (micro_tokens * step.num_micro_batches) as f64,
        LossKind::DrGrpo => completions * step.max_completion_tokens as f64,
        LossKind::Dapo | LossKind::Cispo => step.num_tokens as f64,
    };
    divisor.recip()
}

#[cfg(test)]
mod tests;
