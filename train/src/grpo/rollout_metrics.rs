//! What is told about a rollout: rewards, lengths, entropy, and how many groups teach nothing.

use serde::{Deserialize, Serialize};

use super::advantages::{are_equal, mean_and_std};
use crate::reward::{Judgement, Rewards};
use crate::rollout::Completion;
use crate::stage::Metrics;

/// Numbers of a rollout, in the order of their names; a checkpoint keeps their bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RolloutMetrics {
    general: Vec<u64>,
    by_function: Vec<u64>,
}

const GENERAL: [&str; 6] = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
];

/// Means over answers, groups and tokens.
pub(super) fn metrics_of_groups(
    judgement: &Judgement,
    completions: &[Completion],
    num_generations: usize,
) -> RolloutMetrics {
    let count = completions.len() as f64;
    let groups = judgement.totals.chunks(num_generations);
    let num_groups = groups.len() as f64;
    let stds: f64 = groups.clone().map(|group| mean_and_std(group).1).sum();
    let num_equal = groups.filter(|group| are_equal(group)).count();
    let num_tokens: usize = completions.iter().map(|it| it.ids.len()).sum();
    let entropy: f64 = completions.iter().map(|it| it.entropy_sum).sum();
    let num_truncated = completions.iter().filter(|it| it.is_truncated).count();
    let general = [
        mean_and_std(&judgement.totals).0,
        stds / num_groups,
        num_equal as f64 / num_groups,
        entropy / num_tokens as f64,
        num_tokens as f64 / count,
        num_truncated as f64 / count,
    ];
    let by_function = judgement.by_function.iter();
    RolloutMetrics {
        general: general.map(f64::to_bits).to_vec(),
        by_function: by_function
            .map(|(_, rewards)| mean_and_std(rewards).0.to_bits())
            .collect(),
    }
}

impl RolloutMetrics {
    /// The numbers with their names, the sum of rewards first.
    pub(super) fn named(&self, rewards: &Rewards) -> Metrics {
        let general = GENERAL.into_iter().zip(&self.general);
        let by_function = rewards.metric_names().zip(&self.by_function);
        general
            .chain(by_function)
            .map(|(name, bits)| (name, f64::from_bits(*bits)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::prelude::Device;

    use super::*;
    use crate::reward::RewardsSection;

    /// By hand: groups 0, 2 and 1, 1: standard deviations sqrt(2) and 0; 5 tokens of 4 answers.
    #[test]
    fn numbers_are_means_over_answers_groups_and_tokens() {
        let judgement = Judgement {
            totals: vec![0.0, 2.0, 1.0, 1.0],
            by_function: vec![("answer".to_owned(), vec![0.0, 1.0, 0.5, 0.5])],
        };
        let completion = |len: usize, is_truncated| Completion {
            ids: vec![7; len],
            logps: vec![-1.0; len],
            entropy_sum: 0.5 * len as f64,
            is_truncated,
        };
        let completions = [1, 1, 1, 2].map(|len| completion(len, len == 2));
        let section: RewardsSection = toml::from_str("[[functions]]\nkind = \"answer\"").unwrap();
        let rewards = Rewards::new(&section, &Device::flex()).unwrap();
        let found = metrics_of_groups(&judgement, &completions, 2).named(&rewards);
        let expected = [
            ("reward", 1.0),
            ("reward_std", 0.5 * 2.0_f64.sqrt()),
            ("frac_reward_zero_std", 0.5),
            ("entropy", 0.5),
            ("completions/mean_length", 1.25),
            ("completions/clipped_ratio", 0.25),
            ("rewards/answer", 0.5),
        ];
        assert_eq!(found.len(), expected.len());
        for ((name, found), (expected_name, expected)) in found.into_iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((found - expected).abs() < 1e-12, "{name}: {found}");
        }
    }
}
