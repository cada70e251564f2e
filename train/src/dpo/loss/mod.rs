//! Losses of a better and a worse answer, from their log-probabilities.
//!
//! Direct Preference Optimization. Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7, and the
//! losses that came after it, each with its source where it is computed. With `c` and `r` the
//! log-ratios of the better and the worse answer to the reference, `x = β (c − r) − margin`.
//!
//! Axis letters: `P` pairs.

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, relu, sigmoid};

use crate::config::{Divergence, DpoLoss, DpoSection};

/// `a` of the alpha divergence.
const ALPHA: f64 = 0.5;
/// Largest exponent of that divergence, as TRL has it for f32.
const MAX_EXPONENT: f64 = 80.0;
/// How sharply DiscoPOP goes from one of its losses to the other.
const DISCOPOP_TEMPERATURE: f64 = 0.05;
/// Probability that an answer leaves to all others at least, for ORPO's odds to stay finite.
const LEAST_REST: f64 = 1e-7;

/// A number for each of the two answers.
#[derive(Debug, Clone)]
pub struct PairValues {
    /// `[P]`, of the better answers.
    pub chosen: Tensor<1>,
    /// `[P]`, of the worse answers.
    pub rejected: Tensor<1>,
}

/// What losses are made of.
#[derive(Debug, Clone)]
pub struct PairLogps {
    /// Log-probabilities under the model in training, in nats.
    pub policy: PairValues,
    /// The same less the reference's; without a reference, the same.
    pub ratios: PairValues,
    /// Tokens of the answers.
    pub num_tokens: PairValues,
    /// `[P]`: least lead that the better answer is to have, in rewards.
    pub margins: Tensor<1>,
}

impl PairValues {
    fn map(self, change: impl Fn(Tensor<1>) -> Tensor<1>) -> Self {
        Self {
            chosen: change(self.chosen),
            rejected: change(self.rejected),
        }
    }

    fn per_token(self, num_tokens: &Self) -> Self {
        Self {
            chosen: self.chosen / num_tokens.chosen.clone(),
            rejected: self.rejected / num_tokens.rejected.clone(),
        }
    }

    fn lead(self) -> Tensor<1> {
        self.chosen - self.rejected
    }
}

/// Loss of each pair.
///
/// # Shapes
///
/// - returns: `[P]`
pub fn pair_losses(config: &DpoSection, pairs: &PairLogps) -> Tensor<1> {
    let sft = (config.sft_coef > 0.0).then(|| {
        let nll = -pairs.policy.chosen.clone() / pairs.num_tokens.chosen.clone(); // [P]
        nll.mul_scalar(config.sft_coef)
    });
    let losses = preference_losses(config, pairs); // [P]
    match sft {
        Some(sft) => losses + sft,
        None => losses,
    }
}

fn preference_losses(config: &DpoSection, pairs: &PairLogps) -> Tensor<1> {
    let DpoSection {
        beta,
        label_smoothing,
        margin,
        ..
    } = *config;
    let margins = pairs.margins.clone().add_scalar(margin); // [P]
    // Losses of the lead and its margin.
    let x = || lead(config, pairs.clone()).mul_scalar(beta) - margins.clone(); // [P]
    // Losses of each answer by itself.
    let scores = || scores(config, pairs.clone());
    let rewards = || scores().map(|score| score.mul_scalar(beta));
    let smoothed = |x: Tensor<1>| {
        let wrong = log_sigmoid(-x.clone()).mul_scalar(label_smoothing); // [P]
        -log_sigmoid(x).mul_scalar(1.0 - label_smoothing) - wrong
    };
    match config.loss {
        // Label smoothing: Mitchell 2023, "A note on DPO with noisy preferences". SimPO:
        // arXiv:2405.14734, eq. 6. CPO: arXiv:2401.08417, eq. 3.
        DpoLoss::Sigmoid | DpoLoss::Aot | DpoLoss::AotUnpaired | DpoLoss::Simpo | DpoLoss::Cpo => {
            smoothed(x())
        }
        // SLiC-HF: arXiv:2305.10425, eq. 2.
        DpoLoss::Hinge => relu(x().neg().add_scalar(1.0)),
        // arXiv:2310.12036, eq. 17.
        DpoLoss::Ipo => squared(scores().lead().sub_scalar(0.5 / beta)),
        // arXiv:2403.00409, eq. 12.
        DpoLoss::Robust => {
            let wrong = log_sigmoid(-x()).mul_scalar(label_smoothing); // [P]
            let right = log_sigmoid(x()).mul_scalar(1.0 - label_smoothing); // [P]
            (wrong - right).div_scalar(1.0 - 2.0 * label_smoothing)
        }
        // arXiv:2402.00856, eq. 16.
        DpoLoss::ExoPair => {
            let x = x();
            let likely = log_sigmoid(x.clone()).sub_scalar((1.0 - label_smoothing).ln()); // [P]
            let unlikely = log_sigmoid(-x.clone()).sub_scalar(label_smoothing.ln()); // [P]
            sigmoid(x.clone()) * likely + sigmoid(-x) * unlikely
        }
        // arXiv:2402.05369, eq. 13.
        DpoLoss::NcaPair => {
            let PairValues { chosen, rejected } = rewards();
            let other = log_sigmoid(-chosen.clone()) + log_sigmoid(-rejected); // [P]
            -log_sigmoid(chosen) - other.mul_scalar(0.5)
        }
        // arXiv:2404.04656, eq. 10, without its reward shift.
        DpoLoss::BcoPair => {
            let PairValues { chosen, rejected } = rewards();
            -log_sigmoid(chosen) - log_sigmoid(-rejected)
        }
        // arXiv:2405.00675, eq. 4.7.
        DpoLoss::SppoHard => {
            let PairValues { chosen, rejected } = scores();
            squared(chosen.sub_scalar(0.5 / beta)) + squared(rejected.add_scalar(0.5 / beta))
        }
        // arXiv:2408.06266, eqs. 4 and 5.
        DpoLoss::ApoZero => {
            let PairValues { chosen, rejected } = rewards();
            sigmoid(rejected) - sigmoid(chosen).sub_scalar(1.0)
        }
        DpoLoss::ApoDown => {
            let rewards = rewards();
            sigmoid(rewards.chosen.clone()) - sigmoid(rewards.lead()).sub_scalar(1.0)
        }
        // arXiv:2406.08414, eq. 7.
        DpoLoss::Discopop => {
            let x = x();
            let share = sigmoid(x.clone().div_scalar(DISCOPOP_TEMPERATURE)); // [P]
            let logistic = -log_sigmoid(x.clone()); // [P]
            let exponential = x.neg().clamp_max(MAX_EXPONENT).exp(); // [P]
            logistic.clone() + share * (exponential - logistic)
        }
        // arXiv:2403.07691, eq. 7; the cross entropy of its eq. 6 is `sft_coef`.
        DpoLoss::Orpo => {
            let logps = scores();
            let odds = logps.map(|logps| {
                let rest = logps.clone().exp().neg().add_scalar(1.0); // [P]
                logps - rest.clamp_min(LEAST_REST).log()
            });
            -log_sigmoid(odds.lead()).mul_scalar(beta)
        }
    }
}

/// Lead of the better answer before `β`.
///
/// AOT compares distributions of leads, not leads: arXiv:2406.05882, eqs. 8 and 12.
fn lead(config: &DpoSection, pairs: PairLogps) -> Tensor<1> {
    match config.loss {
        DpoLoss::Aot => {
            let PairLogps { policy, ratios, .. } = pairs;
            let reference = (policy.clone().lead() - ratios.lead()).detach(); // [P]
            ascending(policy.lead()) - ascending(reference)
        }
        DpoLoss::AotUnpaired => scores(config, pairs).map(ascending).lead(),
        _ => scores(config, pairs).lead(),
    }
}

/// What each answer is judged by: its log-ratio to the reference, or its log-probability where there
/// is none; per token where the config says so. Times `β` it is the answer's reward.
pub fn scores(config: &DpoSection, pairs: PairLogps) -> PairValues {
    let scores = if config.is_reference_free() {
        pairs.policy
    } else {
        pairs.ratios
    };
    let scores = if config.is_per_token() {
        scores.per_token(&pairs.num_tokens)
    } else {
        scores
    };
    match config.divergence {
        Divergence::ReverseKl => scores,
        Divergence::ForwardKl => scores.map(|score| -score.neg().clamp_max(MAX_EXPONENT).exp()),
        Divergence::Js => scores.map(log_sigmoid),
        Divergence::Alpha => scores.map(|score| {
            let exponent = score.mul_scalar(ALPHA - 1.0).clamp_max(MAX_EXPONENT); // [P]
            exponent.exp().div_scalar(ALPHA - 1.0)
        }),
    }
}

fn squared(x: Tensor<1>) -> Tensor<1> {
    x.clone() * x
}

fn ascending(x: Tensor<1>) -> Tensor<1> {
    let order = x.clone().detach().argsort(0); // [P]
    x.select(0, order)
}

#[cfg(test)]
mod tests;
