//! The reward model: pairs of answers to a head that says how good an answer is.
//!
//! Bradley and Terry's model of preferences. Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1;
//! the term that holds rewards around 0 is Eisenstein et al. 2023, arXiv:2312.09244, section 2.
//!
//! Axis letters: `B` rows, `T` positions, `D` hidden size, `P` pairs, `A` answers (`2 P`).

use burn::prelude::*;
use burn::tensor::activation::log_sigmoid;
use dataset::preferences::{PairBatch, PairTokens};
use model::CausalLm;

use crate::config::{PairDataSection, RewardModelConfig, RewardSection};
use crate::pair_data::{PairData, read_pair_data};
use crate::pair_stage::{PairObjective, PairStage};
use crate::plan::TrainPlan;
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run as run_stage};
use crate::sampler::Sampler;
use crate::stage::Metrics;
use crate::start::Start;

/// Name of the stage.
pub const STAGE: &str = "reward_model";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the pairs cannot be read.
pub fn plan(config: &RewardModelConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.0)
}

/// Trains to the end, or until a stop is requested, and exports the model with its head.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &RewardModelConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    let (plan, start, data) = prepare(config)?;
    let loop_config = config.loop_config();
    let seed = loop_config.train.seed;
    let sampler = Sampler::of_chat(&start.tokenizer, &loop_config.samples, seed);
    let objective = RewardObjective {
        config: config.reward.clone(),
    };
    let prepared = Prepared::new(
        config,
        loop_config.clone(),
        plan,
        start,
        data.fingerprint.clone(),
    )?;
    let stage = PairStage::new(data, objective, sampler, &loop_config);
    run_stage(prepared, options, |_, _| Ok(Some(stage)))
}

fn prepare(config: &RewardModelConfig) -> Result<(TrainPlan, Start, PairData), TrainError> {
    config.validate()?;
    let loop_config = config.loop_config();
    loop_config.train.refuse_curve_inputs()?;
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    start.judges = true;
    // An answer is read to its last token, which a model that predicts it does not read.
    let section = PairDataSection {
        seq_len: config.data.seq_len - 1,
        ..config.data.clone()
    };
    let data = read_pair_data(&mut start, &section, &loop_config)?;
    let plan = TrainPlan::new(
        STAGE,
        &loop_config,
        &start.model_config,
        config.data.seq_len,
        data.size,
    )?;
    Ok((plan, start, data))
}

/// `-ln σ(r_c − r_r − margin)`, and what holds rewards around 0.
struct RewardObjective {
    config: RewardSection,
}

impl PairObjective for RewardObjective {
    fn batch(&self, pairs: &[PairTokens], numbers: &[u32], pad_id: u32) -> PairBatch {
        PairBatch::reading(pairs, numbers, pad_id)
    }

    fn judge(
        &self,
        model: &CausalLm,
        batch: &PairBatch,
        hidden: Tensor<3>,
        _labels: Tensor<1, Int>,
    ) -> (Tensor<1>, Metrics) {
        let [rows, len, hidden_size] = hidden.dims();
        let num_pairs = batch.num_pairs();
        let chosen = batch.pairs.iter().map(|pair| pair.chosen.start as i32);
        let rejected = batch.pairs.iter().map(|pair| pair.rejected.start as i32);
        let last: Vec<i32> = chosen.chain(rejected).collect();
        let last = Tensor::<1, Int>::from_ints(last.as_slice(), &hidden.device()); // [A]
        let hidden = hidden.reshape([rows * len, hidden_size]); // [B * T, D]
        let rewards = model.scores(hidden.select(0, last)); // [A]
        let on_host: Vec<f32> = rewards.clone().into_data().iter().collect();
        let metrics = metrics_of(&on_host);
        let chosen = rewards.clone().narrow(0, 0, num_pairs); // [P]
        let rejected = rewards.narrow(0, num_pairs, num_pairs); // [P]
        let margins: Vec<f32> = batch.pairs.iter().map(|pair| pair.margin).collect();
        let margins = Tensor::<1>::from_floats(margins.as_slice(), &chosen.device()); // [P]
        (losses(&self.config, chosen, rejected, margins), metrics)
    }
}

/// Loss of each pair.
///
/// # Shapes
///
/// - `chosen`, `rejected`, `margins`: `[P]`
/// - returns: `[P]`
fn losses(
    config: &RewardSection,
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    margins: Tensor<1>,
) -> Tensor<1> {
    let lead = chosen.clone() - rejected.clone() - margins; // [P]
    let losses = -log_sigmoid(lead); // [P]
    if config.center_coef > 0.0 {
        let sum = chosen + rejected; // [P]
        losses + (sum.clone() * sum).mul_scalar(config.center_coef)
    } else {
        losses
    }
}

/// Measures of rewards, the better answers' first, summed over the pairs.
fn metrics_of(rewards: &[f32]) -> Metrics {
    let (chosen, rejected) = rewards.split_at(rewards.len() / 2);
    let num_right = chosen.iter().zip(rejected).filter(|(c, r)| c > r).count();
    let sum = |rewards: &[f32]| rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>();
    let (chosen, rejected) = (sum(chosen), sum(rejected));
    vec![
        ("rewards/accuracies", num_right as f64),
        ("rewards/margins", chosen - rejected),
        ("rewards/chosen", chosen),
        ("rewards/rejected", rejected),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses_of(config: &RewardSection) -> Vec<f64> {
        let device = Device::flex();
        let chosen = Tensor::from_floats([1.0, -0.5], &device);
        let rejected = Tensor::from_floats([0.0, 0.5], &device);
        let margins = Tensor::from_floats([0.0, 0.25], &device);
        let losses = losses(config, chosen, rejected, margins);
        losses.into_data().iter().collect()
    }

    /// By hand: leads of 1 and -1.25; the sums of both rewards are 1 and 0.
    #[test]
    fn a_pair_costs_what_its_lead_and_its_distance_from_0_say() {
        let lead_alone = [(-1.0f64).exp().ln_1p(), 1.25f64.exp().ln_1p()];
        for (center_coef, centered) in [(0.0, 0.0), (0.01, 0.01)] {
            let expected = [lead_alone[0] + centered, lead_alone[1]];
            for (found, expected) in losses_of(&RewardSection { center_coef })
                .iter()
                .zip(expected)
            {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    /// By hand, over two pairs; equal rewards are no preference.
    #[test]
    fn metrics_are_sums_over_pairs() {
        let found = metrics_of(&[1.0, 0.5, 0.25, 0.5]);
        let expected = [
            ("rewards/accuracies", 1.0),
            ("rewards/margins", 0.75),
            ("rewards/chosen", 1.5),
            ("rewards/rejected", 0.75),
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-12, "{found:?}");
        }
    }
}
