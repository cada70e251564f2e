//! The objective: log-probabilities of both answers, their losses, and what is measured of them.
//!
//! Axis letters: `B` rows, `T` positions, `D` hidden size, `P` pairs, `A` answers (`2 P`).

use burn::prelude::*;
use dataset::preferences::{PairBatch, PairSlots, PairTokens};
use model::CausalLm;

use super::loss::{PairLogps, PairValues, pair_losses};
use super::reference::ReferenceLogps;
use crate::config::DpoSection;
use crate::logps::hidden_logps;
use crate::pair_stage::PairObjective;
use crate::stage::Metrics;

/// Largest log-ratio whose exponential is taken.
const MAX_LOG_RATIO: f64 = 20.0;

/// One of the losses of log-probabilities.
pub(super) struct DpoObjective {
    pub(super) config: DpoSection,
    /// `None` where the loss asks for none.
    pub(super) reference: Option<ReferenceLogps>,
}

impl PairObjective for DpoObjective {
    fn batch(&self, pairs: &[PairTokens], numbers: &[u32], pad_id: u32) -> PairBatch {
        PairBatch::predicting(pairs, numbers, pad_id)
    }

    fn judge(
        &self,
        model: &CausalLm,
        batch: &PairBatch,
        hidden: Tensor<3>,
        labels: Tensor<1, Int>,
    ) -> (Tensor<1>, Metrics) {
        let policy = hidden_logps(model, hidden, labels); // [B * T]
        let reference = self.reference_logps(batch);
        let on_host: Vec<f32> = policy.clone().into_data().iter().collect();
        let metrics = self.metrics(batch, &on_host, &reference);
        let pairs = pair_logps(batch, policy, &reference);
        (pair_losses(&self.config, &pairs), metrics)
    }
}

impl DpoObjective {
    /// The reference's log-probabilities in the slots of a batch, 0 elsewhere and without one.
    fn reference_logps(&self, batch: &PairBatch) -> Vec<f32> {
        let mut logps = vec![0.0; batch.tokens.labels.len()];
        if let Some(reference) = &self.reference {
            for slots in &batch.pairs {
                let [chosen, rejected] = reference.of_pair(slots.pair);
                logps[slots.chosen.clone()].copy_from_slice(chosen);
                logps[slots.rejected.clone()].copy_from_slice(rejected);
            }
        }
        logps
    }

    /// What is measured of a batch, summed over its pairs.
    fn metrics(&self, batch: &PairBatch, policy: &[f32], reference: &[f32]) -> Metrics {
        let mut sums = PairSums::default();
        for slots in &batch.pairs {
            sums.add(&self.config, slots, policy, reference);
        }
        sums.metrics(self.reference.is_some())
    }
}

/// What the losses read of the tokens' log-probabilities, `[B * T]`.
///
/// Tokens are compared with the reference before they are summed: sums of hundreds of nats
/// would leave few digits for a difference.
fn pair_logps(batch: &PairBatch, policy: Tensor<1>, reference: &[f32]) -> PairLogps {
    let device = policy.device();
    let num_pairs = batch.num_pairs();
    let [num_slots] = policy.dims();
    let mut members = vec![0.0f32; 2 * num_pairs * num_slots];
    let mut num_tokens = vec![0.0f32; 2 * num_pairs];
    let slots = batch.pairs.iter().map(|pair| &pair.chosen);
    let slots = slots.chain(batch.pairs.iter().map(|pair| &pair.rejected));
    for (answer, slots) in slots.enumerate() {
        let row = &mut members[answer * num_slots..][..num_slots];
        row[slots.clone()].fill(1.0);
        num_tokens[answer] = slots.len() as f32;
    }
    let members = TensorData::new(members, [2 * num_pairs, num_slots]);
    let members = Tensor::<2>::from_data(members, &device); // [A, B * T]
    let halves = |answers: Tensor<1>| PairValues {
        chosen: answers.clone().narrow(0, 0, num_pairs),
        rejected: answers.narrow(0, num_pairs, num_pairs),
    };
    let sums = |logps: Tensor<1>| {
        let sums = members.clone().matmul(logps.reshape([num_slots, 1])); // [A, 1]
        halves(sums.reshape([2 * num_pairs]))
    };
    let vector = |values: Vec<f32>| {
        let shape = [values.len()];
        Tensor::<1>::from_data(TensorData::new(values, shape), &device)
    };
    let reference = vector(reference.to_vec()); // [B * T]
    let margins = batch.pairs.iter().map(|pair| pair.margin).collect();
    PairLogps {
        ratios: sums(policy.clone() - reference),
        policy: sums(policy),
        num_tokens: halves(vector(num_tokens)),
        margins: vector(margins), // [P]
    }
}

/// Measures of pairs, summed.
#[derive(Debug, Default)]
struct PairSums {
    num_right: f64,
    num_likelier: f64,
    rewards: [f64; 2],
    logps: [f64; 2],
    kl: f64,
}

impl PairSums {
    fn add(&mut self, config: &DpoSection, pair: &PairSlots, policy: &[f32], reference: &[f32]) {
        let (mut rewards, mut logps) = ([0.0; 2], [0.0; 2]);
        for (answer, slots) in [&pair.chosen, &pair.rejected].into_iter().enumerate() {
            let (mut logp, mut ratio, mut kl) = (0.0, 0.0, 0.0);
            for slot in slots.clone() {
                let policy = f64::from(policy[slot]);
                let difference = policy - f64::from(reference[slot]);
                logp += policy;
                ratio += difference;
                // Never negative, and 0 only where both agree.
                let inverse = (-difference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
                kl += inverse.exp_m1() - inverse;
            }
            // Worse answers are made unlikely: their ratios would say nothing but that.
            if answer == 0 {
                self.kl += kl / slots.len() as f64;
            }
            let score = if config.is_per_token() {
                ratio / slots.len() as f64
            } else {
                ratio
            };
            rewards[answer] = config.beta * score;
            self.rewards[answer] += rewards[answer];
            logps[answer] = logp;
            self.logps[answer] += logp;
        }
        self.num_right += f64::from(u8::from(rewards[0] > rewards[1]));
        self.num_likelier += f64::from(u8::from(logps[0] > logps[1]));
    }

    fn metrics(self, has_reference: bool) -> Metrics {
        let mut metrics = vec![
            ("rewards/accuracies", self.num_right),
            ("rewards/margins", self.rewards[0] - self.rewards[1]),
            ("rewards/chosen", self.rewards[0]),
            ("rewards/rejected", self.rewards[1]),
            ("logps/accuracies", self.num_likelier),
            ("logps/chosen", self.logps[0]),
            ("logps/rejected", self.logps[1]),
        ];
        if has_reference {
            metrics.push(("kl", self.kl));
        }
        metrics
    }
}
